//! Transactions on one connection. Writers of all nodes take a lock of the database for the transaction: alone, or
//! shared by those with other keys ([`Excludes`]). So what a transaction has read is still true when it writes, as in a
//! database with one writer.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt, TryStreamExt};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, RowStream, SimpleQueryMessage};

use super::connect::{Server, wait};
use super::dialect::Dialect;
use super::faults::{failure, is_of_connection, unanswered};
use super::rows::{PostgresParam, PostgresRow};
use crate::clock::{Stopwatch, UnixSecs};
use crate::metrics;
use crate::secret::token_hash;
use crate::store::convert::uint;
use crate::store::error::StoreError;
use crate::store::sql::{Row, SqlError, Statements, Tx, Value};

/// What every transaction begins with. No setting outlasts its transaction, so that a pooler may lend the connection to
/// others after each. `lock_timeout` is the wait for other nodes' writers.
const LIMITS: &str = "SET LOCAL statement_timeout = '4s'; SET LOCAL lock_timeout = '2s'; \
     SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL jit = off";
/// First half of the keys of all locks, so that they meet no other program's in the same database.
const LOCK_SPACE: i32 = 0x6174_6772;
/// The lock that all writers take, alone or shared.
const ALL: i32 = 0;
/// How often a transaction that lost to another one is repeated.
const REPEATS: usize = 2;
/// Pause before the next attempt to connect, after the first failure and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Which other writers wait for a transaction.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Excludes<'k> {
    /// All.
    All,
    /// Those with one of these keys, and those that exclude all.
    Keys(&'k [&'k str]),
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode<'k> {
    /// Reads one snapshot.
    Read,
    /// The same, for as long as it takes.
    Load,
    /// Writes.
    Write(Excludes<'k>),
    /// The same; a crash of the server may forget it.
    Note,
}

/// One connection. Blocking.
#[derive(Debug)]
pub(in crate::store) struct Postgres {
    server: Server,
    client: Option<Client>,
    dialect: RefCell<Dialect>,
    /// A transaction is open: if another begins, the last one panicked.
    is_open: bool,
    /// Since the last attempt to connect failed: for how long not to try again, and the next such pause.
    retry: Option<(Stopwatch, Duration, Duration)>,
    reconnects: u64,
    rev: u64,
    #[cfg(test)]
    pub(in crate::store) fixed_clock: bool,
}

/// A transaction on the connection.
struct OnPostgres<'c> {
    client: &'c Client,
    dialect: &'c RefCell<Dialect>,
    clock: Option<UnixSecs>,
    /// The connection must not be used any more.
    is_broken: Cell<bool>,
    /// The server gave up the transaction in favour of another one.
    has_lost: Cell<bool>,
}

impl OnPostgres<'_> {
    fn failed(&self, error: &tokio_postgres::Error) -> SqlError {
        let code = error.code();
        if code.is_none_or(is_of_connection) {
            self.is_broken.set(true);
        }
        let lost = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        self.has_lost.set(self.has_lost.get() || code.is_some_and(|code| lost.contains(code)));
        failure(error).into()
    }

    /// The connection is dropped: what it would answer later belongs to nobody.
    fn answered<T>(&self, answer: Option<Result<T, tokio_postgres::Error>>) -> Result<T, SqlError> {
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(self.failed(&error)),
            None => {
                self.is_broken.set(true);
                metrics::ACCOUNTS.store_failed("timeout");
                Err(unanswered().into())
            }
        }
    }

    fn run(&self, sql: &str, params: &[Value<'_>]) -> Result<RowStream, SqlError> {
        let sql = self.dialect.borrow_mut().of(sql);
        let params = params.iter().map(PostgresParam::typed);
        self.answered(wait(self.client.query_typed_raw(&sql, params)))
    }

    /// The next row. Most have arrived already.
    fn next(&self, mut rows: Pin<&mut RowStream>) -> Result<Option<tokio_postgres::Row>, SqlError> {
        let arrived = rows.try_next().now_or_never();
        self.answered(arrived.or_else(|| wait(rows.try_next())))
    }
}

impl Statements for OnPostgres<'_> {
    fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, SqlError> {
        let mut rows = std::pin::pin!(self.run(sql, params)?);
        while self.next(rows.as_mut())?.is_some() {}
        Ok(usize::try_from(rows.rows_affected().unwrap_or(0)).unwrap_or(usize::MAX))
    }

    fn query(
        &self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>, SqlError>,
    ) -> Result<(), SqlError> {
        let mut rows = std::pin::pin!(self.run(sql, params)?);
        let mut goes_on = true;
        // read to the end: the connection has no other way to skip the rest
        while let Some(row) = self.next(rows.as_mut())? {
            goes_on = goes_on && each(&Row(&PostgresRow(&row)))?.is_continue();
        }
        Ok(())
    }

    fn change_number(&self) -> Result<i64, SqlError> {
        let mut number = None;
        self.query("SELECT pg_current_xact_id()::text::bigint", &[], &mut |row| {
            number = Some(row.get(0)?);
            Ok(ControlFlow::Continue(()))
        })?;
        number.ok_or(SqlError::NoRow)
    }

    fn batch(&self, sql: &str) -> Result<(), SqlError> {
        self.answered(wait(self.client.batch_execute(sql)))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn agreed_time(&self, now: UnixSecs) -> UnixSecs {
        self.clock.unwrap_or(now)
    }
}

/// The key of a lock.
fn lock_of(key: &str) -> i32 {
    let hash = token_hash(key);
    // never the lock of all
    i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) | 1
}

/// The statements that begin a transaction. They end with the server's clock.
fn begin(mode: Mode<'_>) -> String {
    use std::fmt::Write as _;
    const CLOCK: &str = "SELECT extract(epoch FROM clock_timestamp())::bigint";
    let excludes = match mode {
        Mode::Read => return format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {LIMITS}; {CLOCK}"),
        Mode::Load => {
            return format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; \
                SET LOCAL jit = off; {CLOCK}"
            );
        }
        Mode::Note => return format!("BEGIN; {LIMITS}; SET LOCAL synchronous_commit = off; {CLOCK}"),
        Mode::Write(excludes) => excludes,
    };
    let mut sql = format!("BEGIN; {LIMITS}; ");
    match excludes {
        Excludes::All => {
            let _ = write!(sql, "SELECT pg_advisory_xact_lock({LOCK_SPACE}, {ALL}); ");
        }
        Excludes::Keys(keys) => {
            let _ = write!(sql, "SELECT pg_advisory_xact_lock_shared({LOCK_SPACE}, {ALL}); ");
            let mut locks: Vec<i32> = keys.iter().map(|key| lock_of(key)).collect();
            // all take theirs in the same order
            locks.sort_unstable();
            locks.dedup();
            for lock in locks {
                let _ = write!(sql, "SELECT pg_advisory_xact_lock({LOCK_SPACE}, {lock}); ");
            }
        }
    }
    sql + CLOCK
}

/// The outcome of one attempt at a transaction.
struct Attempt<T> {
    done: Result<T, StoreError>,
    has_lost: bool,
}

impl Postgres {
    /// A connection that is made when it is first needed.
    pub(in crate::store) fn new(server: Server) -> Self {
        Self {
            server,
            client: None,
            dialect: RefCell::default(),
            is_open: false,
            retry: None,
            reconnects: 0,
            rev: 0,
            #[cfg(test)]
            fixed_clock: false,
        }
    }

    pub(in crate::store) fn server(&self) -> &Server {
        &self.server
    }

    /// How often the connection was made again.
    pub(in crate::store) fn reconnects(&self) -> u64 {
        self.reconnects.saturating_sub(1)
    }

    /// A connection that can be used.
    ///
    /// # Errors
    /// As [`Server::connect`]; at once, if the last attempt failed a moment ago.
    fn connect(&mut self) -> Result<(), StoreError> {
        // a transaction that was never finished belongs to a job that panicked
        if self.is_open || self.client.as_ref().is_some_and(Client::is_closed) {
            self.client = None;
        }
        self.is_open = false;
        if self.client.is_some() {
            return Ok(());
        }
        if let Some((failed, wait, _)) = self.retry
            && failed.elapsed() < wait
        {
            return Err(StoreError::Down(format!("{}: not reachable a moment ago", self.server.shown())));
        }
        match self.server.connect() {
            Ok(client) => {
                (self.client, self.retry) = (Some(client), None);
                self.reconnects += 1;
                Ok(())
            }
            Err(error) => {
                let pause = self.retry.map_or(PAUSES.0, |(_, _, pause)| (pause * 2).min(PAUSES.1));
                // all nodes lost it at the same time
                let jitter = crate::secret::random_bytes::<1>().map_or(0, |bytes| u32::from(bytes[0]));
                self.retry = Some((Stopwatch::new(), pause / 2 + pause * jitter / 512, pause));
                Err(error)
            }
        }
    }

    /// Runs `work` in a transaction; repeats it if the server gave it up in favour of another one.
    pub(super) fn transaction<T>(
        &mut self,
        mode: Mode<'_>,
        work: &mut dyn FnMut(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let began = Stopwatch::new();
        let mut attempt = self.attempt(mode, work);
        for _ in 0..REPEATS {
            if !attempt.has_lost {
                break;
            }
            attempt = self.attempt(mode, work);
        }
        let op = match mode {
            Mode::Read => "read",
            Mode::Load => "poll",
            Mode::Write(_) | Mode::Note => "write",
        };
        metrics::ACCOUNTS.stored(op, began.elapsed());
        attempt.done
    }

    /// Begins; a connection that turns out to be dead is made again once.
    fn begun(&mut self, mode: Mode<'_>) -> Result<Vec<SimpleQueryMessage>, StoreError> {
        let mut is_fresh = self.client.is_none();
        loop {
            self.connect()?;
            let Some(client) = &self.client else { return Err(unanswered()) };
            let begin = begin(mode);
            match wait(client.simple_query(&begin)) {
                Some(Ok(messages)) => return Ok(messages),
                Some(Err(error)) => {
                    let is_dead = error.code().is_none_or(is_of_connection);
                    self.client = None;
                    if is_fresh || !is_dead {
                        return Err(failure(&error));
                    }
                }
                None => {
                    self.client = None;
                    metrics::ACCOUNTS.store_failed("timeout");
                    return Err(unanswered());
                }
            }
            is_fresh = true;
        }
    }

    fn attempt<T>(&mut self, mode: Mode<'_>, work: &mut dyn FnMut(&Tx<'_>) -> Result<T, StoreError>) -> Attempt<T> {
        let messages = match self.begun(mode) {
            Ok(messages) => messages,
            Err(error) => return Attempt { done: Err(error), has_lost: false },
        };
        self.is_open = true;
        let Some(client) = &self.client else { return Attempt { done: Err(unanswered()), has_lost: false } };
        let on = OnPostgres {
            client,
            dialect: &self.dialect,
            clock: Some(clock_of(&messages)),
            is_broken: Cell::new(false),
            has_lost: Cell::new(false),
        };
        #[cfg(test)]
        let on = OnPostgres { clock: if self.fixed_clock { None } else { on.clock }, ..on };
        let tx = Tx::new(&on, false);
        let done = work(&tx);
        let rev = uint(tx.rev_used());
        let done = match done {
            Ok(done) => on.answered(wait(client.batch_execute("COMMIT"))).map(|()| done).map_err(StoreError::from),
            Err(error) => {
                if !on.is_broken.get() {
                    let _ = on.answered(wait(client.batch_execute("ROLLBACK")));
                }
                Err(error)
            }
        };
        let (is_broken, has_lost) = (on.is_broken.get(), on.has_lost.get() && done.is_err());
        self.is_open = false;
        if is_broken {
            self.client = None;
        }
        if done.is_ok() {
            self.rev = self.rev.max(rev);
        }
        Attempt { done, has_lost }
    }

    /// Runs `work` in one transaction that writes.
    pub(in crate::store) fn write<T>(
        &mut self,
        excludes: Excludes<'_>,
        mut work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transaction(Mode::Write(excludes), &mut work)
    }

    /// Runs `work` on one snapshot.
    pub(in crate::store) fn read<T>(
        &mut self,
        mut work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transaction(Mode::Read, &mut work)
    }

    /// Number of the last change that this connection made; 0 for none.
    pub(in crate::store) fn last_change(&self) -> u64 {
        self.rev
    }

    /// Whether the server responds.
    pub(in crate::store) fn answers(&mut self) -> Result<(), StoreError> {
        self.read(|_| Ok(()))
    }

    /// The server's clock, Unix seconds.
    pub(in crate::store) fn clock(&mut self) -> Result<UnixSecs, StoreError> {
        self.read(|tx| Ok(tx.agreed_time(0)))
    }
}

/// The last column that the first statements gave.
fn clock_of(messages: &[SimpleQueryMessage]) -> UnixSecs {
    let clock = messages.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    clock.unwrap_or(0)
}
