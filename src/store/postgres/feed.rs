//! What other nodes changed. Rows carry the transaction that changed them last, and the server says which transactions a
//! snapshot has seen. So the difference between two snapshots is exactly what happened between them: nothing is skipped
//! that was slow to commit, and nobody waits for a counter.

use std::collections::VecDeque;
use std::time::Duration;

use super::database::{Excludes, Mode, Postgres};
use crate::clock::{Stopwatch, UnixSecs};
use crate::store::convert::int;
use crate::store::error::StoreError;
use crate::store::sql::{Tx, params};
use crate::store::sync::{self, Change, Reload, Since};

/// How long revocations are remembered, to be written again if the server that took over does not know them.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// Rows that ended may be deleted an hour later; whoever was away for longer than this reads everything again.
const AWAY_MAX: Duration = Duration::from_secs(30 * 60);
/// Ids in one statement.
const IDS: usize = 500;

/// How far a node has read.
#[derive(Debug, Clone)]
struct Position {
    /// The server and its timeline. After a failover transaction numbers begin again below those that were lost.
    history: String,
    /// `pg_snapshot` as text.
    snapshot: String,
    at: Stopwatch,
}

/// Something that ended.
#[derive(Debug, Clone)]
enum Ended {
    Session(String),
    ApiToken(String),
}

/// A node's place in the stream of changes.
#[derive(Debug, Default)]
pub(in crate::store) struct Feed {
    position: Option<Position>,
    ended: VecDeque<(Stopwatch, Ended)>,
}

/// What a poll found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Polled {
    /// No change.
    Same,
    /// Changes, which were passed on.
    Changed,
    /// Everything was read.
    Loaded(Option<Reload>),
}

/// The server's history and the snapshot of the transaction.
fn here(tx: &Tx<'_>) -> Result<Position, StoreError> {
    let sql = "SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' ||
                   substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), pg_current_snapshot()::text";
    let (history, snapshot) = tx.query_row(sql, params![], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Position { history, snapshot, at: Stopwatch::new() })
}

/// What a snapshot (`xmin:xmax:xip,...`) did not see.
fn unseen(snapshot: &str) -> Option<Since> {
    let mut parts = snapshot.splitn(3, ':').skip(1);
    let (xmax, running) = (parts.next()?.parse::<u64>().ok()?, parts.next()?);
    let running: Result<Vec<u64>, _> = running.split(',').filter(|id| !id.is_empty()).map(str::parse).collect();
    let running = running.ok()?;
    let mut condition = format!("({{}} >= {xmax}");
    if !running.is_empty() {
        let ids: Vec<String> = running.iter().map(u64::to_string).collect();
        condition = format!("{condition} OR {{}} IN ({})", ids.join(", "));
    }
    Some(Since::Condition(condition + ")"))
}

impl Feed {
    /// What has been applied, as the server writes it; `None`: nothing yet.
    pub(in crate::store) fn snapshot(&self) -> Option<&str> {
        self.position.as_ref().map(|position| position.snapshot.as_str())
    }

    /// Passes on what changed since the last poll; the first time, everything that has not ended. After a failure, what
    /// was passed on is correct but incomplete, and is passed on again.
    pub(in crate::store) fn poll(
        &mut self,
        db: &mut Postgres,
        now: UnixSecs,
        apply: &mut dyn FnMut(Change<'_>),
    ) -> Result<Polled, StoreError> {
        let Some(last) = self.position.clone() else {
            self.position = Some(db.transaction(Mode::Load, &mut |tx| {
                let here = here(tx)?;
                sync::tell_all(tx, &Since::Always, apply)?;
                Ok(here)
            })?);
            return Ok(Polled::Loaded(None));
        };
        let since = unseen(&last.snapshot).filter(|_| last.at.elapsed() < AWAY_MAX);
        let ended = &mut self.ended;
        let (here, polled) = db.transaction(Mode::Load, &mut |tx| {
            let here = here(tx)?;
            if here.history != last.history {
                return Ok((here, Polled::Loaded(Some(Reload::Failover))));
            }
            let Some(since) = &since else { return Ok((here, Polled::Loaded(Some(Reload::Behind)))) };
            if here.snapshot == last.snapshot {
                return Ok((here, Polled::Same));
            }
            let mut changed = false;
            sync::tell_all(tx, since, &mut |change| {
                changed = true;
                remember(ended, &change);
                apply(change);
            })?;
            Ok((here, if changed { Polled::Changed } else { Polled::Same }))
        })?;
        while ended.front().is_some_and(|(at, _)| at.elapsed() > REMEMBERED) {
            ended.pop_front();
        }
        let Polled::Loaded(Some(why)) = polled else {
            self.position = Some(here);
            return Ok(polled);
        };
        if why == Reload::Failover {
            self.say_again(db, now)?;
        }
        self.position = Some(db.transaction(Mode::Load, &mut |tx| {
            let here = self::here(tx)?;
            sync::tell_again(tx, why, apply)?;
            Ok(here)
        })?);
        Ok(polled)
    }

    /// Ends what is known to have ended, where the server that took over does not know it: what was acknowledged must not
    /// be undone.
    fn say_again(&self, db: &mut Postgres, now: UnixSecs) -> Result<(), StoreError> {
        let of = |table: &'static str| -> Vec<&String> {
            let ids = self.ended.iter().filter_map(|(_, ended)| match ended {
                Ended::Session(id) if table == "session" => Some(id),
                Ended::ApiToken(id) if table == "api_token" => Some(id),
                _ => None,
            });
            ids.collect()
        };
        for table in ["session", "api_token"] {
            for ids in of(table).chunks(IDS) {
                let places: Vec<String> = (0..ids.len()).map(|at| format!("?{}", at + 3)).collect();
                let sql = format!(
                    "UPDATE {table} SET ended_at = ?1, rev = ?2 WHERE ended_at IS NULL AND id IN ({})",
                    places.join(", ")
                );
                let ended = db.write(Excludes::All, |tx| {
                    let (at, rev) = (int(now), tx.rev()?);
                    let own: &[_] = params![at, rev];
                    let ids = ids.iter().map(|id| crate::store::sql::Value::Text(Some(id)));
                    let all: Vec<_> = own.iter().copied().chain(ids).collect();
                    Ok(tx.execute(&sql, &all)?)
                })?;
                if ended > 0 {
                    tracing::warn!(
                        table,
                        ended,
                        "revocations were lost in a failover of the database and written again"
                    );
                }
            }
        }
        Ok(())
    }
}

fn remember(ended: &mut VecDeque<(Stopwatch, Ended)>, change: &Change<'_>) {
    let what = match change {
        Change::SessionEnded(id) => Ended::Session((*id).to_owned()),
        Change::ApiToken(row) if row.ended => Ended::ApiToken(row.id.clone()),
        _ => return,
    };
    ended.push_back((Stopwatch::new(), what));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_not_seen_what_was_running_or_began_later() {
        let Some(Since::Condition(condition)) = unseen("10:15:10,12") else { panic!("no condition") };
        assert_eq!(condition, "({} >= 15 OR {} IN (10, 12))");
        let Some(Since::Condition(condition)) = unseen("10:10:") else { panic!("no condition") };
        assert_eq!(condition, "({} >= 10)");
        for nonsense in ["", "1", "1:2", "1:x:", "1:2:3;DROP", "1:2:-3"] {
            assert!(unseen(nonsense).is_none(), "{nonsense}");
        }
    }
}
