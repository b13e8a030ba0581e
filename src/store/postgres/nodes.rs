//! The nodes that use a database: how they announce themselves, which of them have applied a change, and which of them
//! does the periodic work.

use std::time::Duration;

use super::database::{Excludes, Mode, Postgres};
use crate::clock::{Stopwatch, UnixSecs};
use crate::store::applied::Applied;
use crate::store::convert::{int, uint};
use crate::store::error::StoreError;
use crate::store::node_rows::{NodeId, NodeRow};
use crate::store::sql::params;

/// A node that was not heard of for longer is not waited for, seconds.
const FRESH_SECS: u64 = 3;
/// Nodes that were not heard of for longer are not counted any more, seconds.
const KNOWN_SECS: u64 = 60;
/// Rows of nodes that are gone are deleted after this time, seconds.
const FORGOTTEN_SECS: u64 = 86_400;
/// Longest wait for other nodes.
const WAIT: Duration = Duration::from_secs(2);

/// Says that a node is there, and what it has applied. Gives the database's time.
pub(in crate::store) fn announce(
    db: &mut Postgres,
    node: &NodeId,
    started: UnixSecs,
    snapshot: &str,
) -> Result<UnixSecs, StoreError> {
    let sql =
        "INSERT INTO node (id, name, version, schema, started, seen, snapshot) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (id) DO UPDATE SET seen = ?6, snapshot = ?7";
    let version = env!("CARGO_PKG_VERSION");
    db.transaction(Mode::Note, &mut |tx| {
        let (schema, now) = (super::schema::known(), tx.agreed_time(started));
        tx.execute(sql, params![node.id, node.name, version, schema, int(started), int(now), snapshot])?;
        Ok(now)
    })
}

/// Takes a node off the list.
pub(in crate::store) fn leave(db: &mut Postgres, node: &NodeId) -> Result<(), StoreError> {
    db.transaction(Mode::Note, &mut |tx| {
        tx.execute("DELETE FROM node WHERE id = ?1", params![node.id])?;
        Ok(())
    })
}

/// All nodes, by name.
pub(in crate::store) fn list(db: &mut Postgres) -> Result<Vec<NodeRow>, StoreError> {
    let sql = "SELECT id, name, version, schema, started, ?1 - seen FROM node WHERE seen > ?1 - ?2 ORDER BY name, started, id";
    db.read(|tx| {
        let now = int(tx.agreed_time(0));
        Ok(tx.query_map(sql, params![now, int(FORGOTTEN_SECS)], |row| {
            Ok(NodeRow {
                id: row.get(0)?,
                name: row.get(1)?,
                version: row.get(2)?,
                schema: uint(row.get(3)?),
                started: uint(row.get(4)?),
                silent_secs: uint(row.get(5)?),
            })
        })?)
    })
}

/// Whether any node has been heard of lately.
pub(in crate::store) fn any(db: &mut Postgres) -> Result<bool, StoreError> {
    Ok(list(db)?.iter().any(|node| node.silent_secs <= FRESH_SECS))
}

/// Waits until all nodes that were heard of lately have applied this connection's last change, at most [`WAIT`].
pub(in crate::store) fn wait_until_applied(db: &mut Postgres) -> Result<Applied, StoreError> {
    let change = db.last_change();
    let sql = "SELECT name, ?1 - seen, pg_visible_in_snapshot(?2::xid8, snapshot::pg_snapshot) FROM node
               WHERE seen > ?1 - ?3 ORDER BY name, id";
    let began = Stopwatch::new();
    loop {
        let nodes: Vec<(String, u64, bool)> = db.read(|tx| {
            let params = (int(tx.agreed_time(0)), change.to_string(), int(KNOWN_SECS));
            let params = params![params.0, params.1, params.2];
            Ok(tx.query_map(sql, params, |row| Ok((row.get(0)?, uint(row.get(1)?), row.get(2)?)))?)
        })?;
        let fresh = |(_, silent, _): &&(String, u64, bool)| *silent <= FRESH_SECS;
        if !nodes.iter().any(|node| fresh(&node)) {
            return Ok(Applied::NotServed);
        }
        let waited_for = nodes.iter().filter(fresh).any(|(_, _, applied)| !applied);
        let (have, lack): (Vec<_>, Vec<_>) = nodes.iter().partition(|(_, _, applied)| *applied);
        if lack.is_empty() {
            return Ok(Applied::Yes);
        }
        if !waited_for || began.elapsed() >= WAIT {
            return Ok(Applied::Partly(summary(have.len(), nodes.len(), &lack)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn summary(have: usize, all: usize, lack: &[&(String, u64, bool)]) -> String {
    let lack: Vec<String> = lack
        .iter()
        .map(|(name, silent, _)| {
            if *silent > FRESH_SECS {
                format!("{name} has not answered for {silent} s")
            } else {
                format!("{name} has not confirmed it yet")
            }
        })
        .collect();
    format!("in force on {have} of {all} nodes; {}", lack.join("; "))
}

/// Whether this node is the one to do a piece of periodic work now. The next turn is `every_secs` later, of any node.
pub(in crate::store) fn claim_chore(db: &mut Postgres, name: &str, every_secs: u64) -> Result<bool, StoreError> {
    db.write(Excludes::Keys(&[name]), |tx| {
        let now = int(tx.agreed_time(0));
        let first = "INSERT INTO chore (name, due) VALUES (?1, 0) ON CONFLICT (name) DO NOTHING";
        tx.execute(first, params![name])?;
        let sql = "UPDATE chore SET due = ?2 + ?3 WHERE name = ?1 AND due <= ?2";
        Ok(tx.execute(sql, params![name, now, int(every_secs)])? > 0)
    })
}

/// Deletes rows of nodes that are gone and of tickets that have expired.
pub(in crate::store) fn purge(db: &mut Postgres) -> Result<(), StoreError> {
    db.write(Excludes::All, |tx| {
        let now = tx.agreed_time(0);
        tx.execute("DELETE FROM node WHERE seen < ?1", params![int(now.saturating_sub(FORGOTTEN_SECS))])?;
        tx.execute("DELETE FROM spent WHERE expires < ?1", params![int(now)])?;
        Ok(())
    })
}

/// Marks something as used; `false`: it was used before, on any node.
pub(in crate::store) fn spend(db: &mut Postgres, id: &[u8], expires: UnixSecs) -> Result<bool, StoreError> {
    db.write(Excludes::Keys(&[]), |tx| {
        let sql = "INSERT INTO spent (id, expires) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING";
        Ok(tx.execute(sql, params![id, int(expires)])? > 0)
    })
}
