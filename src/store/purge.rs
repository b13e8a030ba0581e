//! Deletes expired rows.

use super::audit;
use super::convert::int;
use super::db::Db;
use super::error::StoreError;
use super::keys;
use super::sql::params;

/// Deletes expired rows: tokens that ended or expired more than an hour ago (repeated creation and revocation leaves
/// thousands), expired links, ended bans, devices unseen for 400 days, keys whose tokens can no longer be valid, and
/// audit events beyond their bounds.
/// `now`: Unix seconds; on a shared database nothing is deleted that its clock does not call past as well.
/// `keys_secs`: how long retired keys are kept.
pub fn expired_rows(db: &mut Db, now: u64, keys_secs: u64) -> Result<(), StoreError> {
    db.write(|tx| {
        let now = now.min(tx.agreed_time(now));
        let hour_ago = int(now.saturating_sub(3600));
        let devices = int(now.saturating_sub(400 * 86_400));
        tx.execute("DELETE FROM api_token WHERE expires < ?1 OR ended_at < ?1", params![hour_ago])?;
        tx.execute("DELETE FROM link WHERE expires < ?1", params![int(now)])?;
        tx.execute("DELETE FROM ban WHERE until <= ?1", params![int(now)])?;
        tx.execute("DELETE FROM attempt WHERE until < ?1", params![int(now)])?;
        tx.execute("DELETE FROM device WHERE seen < ?1", params![devices])?;
        keys::drop_retired(tx, now.saturating_sub(keys_secs))?;
        audit::bound(tx, now)
    })
}
