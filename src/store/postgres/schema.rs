//! The schema on the server. Steps only add, so that nodes of the version before go on beside the new ones: a release
//! reads what the one before wrote, and writes what that one reads.

use super::database::{Excludes, Postgres};
use crate::store::error::StoreError;
use crate::store::migrate;
use crate::store::sql::{Tx, params};

/// The tables as they were when the first version could use `PostgreSQL`, and each later step: number and script.
const SCRIPTS: [(i64, &str); 1] = [(10, include_str!("../schema/postgres/0010_first.sql"))];
/// The oldest schema that this program can work with.
const OLDEST: i64 = 10;
/// The oldest server, as `server_version_num`: `xid8` and `pg_snapshot`.
const SERVER_MIN: i64 = 140_000;

/// What is on the server.
enum Found {
    Nothing,
    /// Version of the schema, and the oldest version of the program's that can use it.
    Schema(i64, i64),
}

fn unusable(db: &Postgres, what: &str) -> StoreError {
    StoreError::Unusable(format!("{}: {what}", db.server().shown()))
}

fn find(tx: &Tx<'_>) -> Result<Found, StoreError> {
    // as the snapshot has it: `to_regclass` answers from a cache, which may be older than the wait for the lock, or newer
    let exists = "SELECT EXISTS (SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                      WHERE relname = 'schema_version' AND nspname = ANY (current_schemas(false)))";
    if !tx.query_row(exists, params![], |row| row.get(0))? {
        return Ok(Found::Nothing);
    }
    let sql = "SELECT version, oldest_reader FROM schema_version";
    let (version, oldest) = tx.query_row(sql, params![], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Found::Schema(version, oldest))
}

/// Checks the server and its schema. Gives whether steps are missing. Changes nothing.
///
/// # Errors
/// [`StoreError::Unusable`]: the server is too old or another product, or its schema is too new or too old.
pub(in crate::store) fn check(db: &mut Postgres) -> Result<bool, StoreError> {
    let sql = "SELECT version(), current_setting('server_version_num')::bigint";
    let (product, number): (String, i64) =
        db.read(|tx| Ok(tx.query_row(sql, params![], |row| Ok((row.get(0)?, row.get(1)?)))?))?;
    if !product.starts_with("PostgreSQL") || number < SERVER_MIN {
        let product: String = product.chars().take(60).collect();
        return Err(unusable(db, &format!("this is {product}; PostgreSQL 14 or later is required")));
    }
    match db.read(find)? {
        Found::Nothing => Ok(true),
        Found::Schema(version, oldest) => is_behind(version, oldest).map_err(|what| unusable(db, &what)),
    }
}

/// Whether steps are missing.
fn is_behind(version: i64, oldest: i64) -> Result<bool, String> {
    let known = known();
    if version < OLDEST {
        return Err(format!("the database has schema version {version}, this authgate needs at least {OLDEST}"));
    }
    if version > known && oldest > known {
        return Err(format!(
            "the database has schema version {version}, this authgate supports up to {known}; use a newer authgate"
        ));
    }
    Ok(version < known)
}

/// The version that this program brings the schema to.
pub(in crate::store) fn known() -> i64 {
    i64::try_from(migrate::KNOWN).unwrap_or(i64::MAX)
}

/// Creates the tables, or adds what is missing. Gives the version before, 0 for none, if anything was done.
///
/// # Errors
/// As [`check`]; or the role may not create tables.
pub(in crate::store) fn bring_up(db: &mut Postgres) -> Result<Option<i64>, StoreError> {
    if !check(db)? {
        return Ok(None);
    }
    let done = db.write(Excludes::All, |tx| {
        // another node may have been faster
        let version = match find(tx)? {
            Found::Nothing => 0,
            Found::Schema(version, _) => version,
        };
        if version >= known() {
            return Ok(None);
        }
        for (_, script) in SCRIPTS.iter().filter(|(number, _)| *number > version) {
            tx.batch(script)?;
        }
        tx.execute("DELETE FROM schema_version", params![])?;
        let sql = "INSERT INTO schema_version (version, oldest_reader) VALUES (?1, ?2)";
        tx.execute(sql, params![known(), OLDEST])?;
        Ok(Some(version))
    });
    done.map_err(|error| unusable(db, &format!("the tables cannot be created: {error}")))
}
