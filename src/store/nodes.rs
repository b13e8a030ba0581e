//! The nodes that use a shared database.

use super::db::Db;
use super::error::StoreError;
use super::node_rows::NodeRow;
use super::postgres::nodes;
use crate::clock::UnixSecs;

/// Deletes rows of nodes that are gone and of tickets that have expired.
pub fn purge(db: &mut Db) -> Result<(), StoreError> {
    db.postgres().map_or(Ok(()), nodes::purge)
}

/// Marks something as used, until it expires; `false`: it was used before, on any node. Without other nodes there is no
/// such list.
pub fn spend(db: &mut Db, id: &[u8], expires: UnixSecs) -> Result<bool, StoreError> {
    db.postgres().map_or(Ok(false), |postgres| nodes::spend(postgres, id, expires))
}

/// All nodes that were heard of within a day, by name. None, if the database is not shared.
pub fn list(db: &mut Db) -> Result<Vec<NodeRow>, StoreError> {
    db.nodes()
}
