//! [`Db`], the database that the store is in: an `SQLite` file of one gateway, or a `PostgreSQL` that several nodes
//! share. Blocking: only the store's threads and the commands hold one.

use std::path::Path;

use super::applied::Applied;
use super::error::StoreError;
use super::folder::Folder;
use super::migrate::{Check, Migrated};
use super::node_rows::NodeRow;
use super::postgres::{Excludes, Postgres, Server, nodes, schema};
use super::sql::Tx;
use super::sqlite::Sqlite;
use crate::config::StoreUrl;

/// The database. Every public function over it is one transaction: it happens as a whole or not at all.
#[derive(Debug)]
pub struct Db(Kind);

#[derive(Debug)]
enum Kind {
    Sqlite(Box<Sqlite>),
    Postgres(Box<Postgres>),
}

impl Db {
    /// Opens the database in the state folder, creating both if missing.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for a folder that others can write to; for a foreign, newer or damaged file, which is
    /// left untouched; for an older one that a gateway is using ([`Check::Version`]).
    pub fn open(state_dir: &Path, check: Check) -> Result<Self, StoreError> {
        Sqlite::open(state_dir, check).map(Self::from)
    }

    /// Opens an existing database read-only. Creates and changes nothing: an older version may be in use by the
    /// program that created it.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: there is none, it has another version, or as for [`Self::open`].
    pub fn look(state_dir: &Path) -> Result<Self, StoreError> {
        Sqlite::look(state_dir).map(Self::from)
    }

    /// Opens the database on a server, and creates its tables or adds what an earlier version did not have. `name`: what
    /// the connections are called there.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: the server refuses the user, the database or its certificate, or has another schema.
    /// [`StoreError::Down`]: it is away.
    pub fn open_shared(url: &StoreUrl, name: &str) -> Result<Self, StoreError> {
        let mut db = Postgres::new(Server::new(url, name)?);
        if let Some(from) = schema::bring_up(&mut db)? {
            let to = schema::known();
            tracing::info!(from, to, database = db.server().shown(), "tables created in the store");
        }
        Ok(Self(Kind::Postgres(Box::new(db))))
    }

    /// Opens the database on a server that has its tables; creates and changes nothing.
    ///
    /// # Errors
    /// As [`Self::open_shared`], or there are no tables.
    pub fn look_shared(url: &StoreUrl, name: &str) -> Result<Self, StoreError> {
        let mut db = Postgres::new(Server::new(url, name)?);
        if schema::check(&mut db)? {
            let what = "the database has not all tables of this version: start a gateway of this version first";
            return Err(StoreError::Unusable(format!("{}: {what}", db.server().shown())));
        }
        Ok(Self(Kind::Postgres(Box::new(db))))
    }

    /// A further connection to a server whose tables have been checked. It is made when it is first needed.
    pub(super) fn connect_later(url: &StoreUrl, name: &str) -> Result<Self, StoreError> {
        Ok(Self(Kind::Postgres(Box::new(Postgres::new(Server::new(url, name)?)))))
    }

    pub(super) fn postgres(&mut self) -> Option<&mut Postgres> {
        match &mut self.0 {
            Kind::Postgres(postgres) => Some(postgres),
            Kind::Sqlite(_) => None,
        }
    }

    pub(super) fn sqlite(&mut self) -> Option<&mut Sqlite> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => Some(sqlite),
            Kind::Postgres(_) => None,
        }
    }

    fn as_sqlite(&self) -> Option<&Sqlite> {
        match &self.0 {
            Kind::Sqlite(sqlite) => Some(sqlite),
            Kind::Postgres(_) => None,
        }
    }

    /// Whether several nodes use it.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Kind::Postgres(_))
    }

    /// The migration that [`Self::open`] performed, if any.
    pub fn migrated(&self) -> Option<&Migrated> {
        self.as_sqlite().and_then(Sqlite::migrated)
    }

    /// Whether a gateway is using this database.
    pub fn is_served(&mut self) -> Result<bool, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.is_served(),
            Kind::Postgres(postgres) => nodes::any(postgres),
        }
    }

    /// The folder it lives in; `None`: it lives elsewhere.
    pub fn folder(&self) -> Option<&Folder> {
        self.as_sqlite().map(Sqlite::folder)
    }

    /// Whether the file is still the one that was opened. If it was replaced, commands write to the new one, and what
    /// they revoke would stay valid here.
    pub(super) fn is_in_place(&self) -> Result<(), StoreError> {
        self.as_sqlite().map_or(Ok(()), Sqlite::is_in_place)
    }

    /// Whether to leave the write-ahead log as it is on close: if the database file was replaced.
    pub(super) fn leave_log(&self, leave: bool) {
        if let Some(sqlite) = self.as_sqlite() {
            sqlite.leave_log(leave);
        }
    }

    /// Waits for the integrity check of a large database, which [`Self::open`] started.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: it is damaged.
    pub fn await_integrity_check(&mut self) -> Result<(), StoreError> {
        self.sqlite().map_or(Ok(()), Sqlite::await_integrity_check)
    }

    /// Runs `work` in one transaction that excludes all other writers, so that what it read is still true when it
    /// writes.
    pub(super) fn write<T>(&mut self, work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.write(work),
            Kind::Postgres(postgres) => postgres.write(Excludes::All, work),
        }
    }

    /// The same, excluding only writers with one of these keys: for what happens often, and decides by nothing but what
    /// its keys stand for.
    pub(super) fn write_excluding<T>(
        &mut self,
        keys: &[&str],
        work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.write(work),
            Kind::Postgres(postgres) => postgres.write(Excludes::Keys(keys), work),
        }
    }

    /// [`Self::write`] for revocations, which must not fail because the disk is full.
    pub(super) fn write_end<T>(&mut self, work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.write_end(work),
            Kind::Postgres(postgres) => postgres.write(Excludes::All, work),
        }
    }

    /// The same for revocations of many sessions, whose rows may need more space than there is.
    pub(super) fn write_end_of_sessions<T>(
        &mut self,
        work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.write_end_of_sessions(work),
            Kind::Postgres(postgres) => postgres.write(Excludes::All, work),
        }
    }

    /// Whether sessions have ended whose rows can only be written once there is space.
    pub fn has_noted_ends(&self) -> bool {
        self.as_sqlite().is_some_and(Sqlite::has_noted_ends)
    }

    /// Whether the database takes writes; probed if the last write failed.
    pub fn is_writable(&mut self) -> Result<(), StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.is_writable(),
            Kind::Postgres(postgres) => postgres.answers(),
        }
    }

    /// The same; probed if nothing was written since the last call.
    pub fn try_disk(&mut self) -> Result<(), StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.try_disk(),
            Kind::Postgres(postgres) => postgres.answers(),
        }
    }

    /// Runs `work` on one consistent snapshot of the database.
    pub(super) fn read<T>(&mut self, work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.read(work),
            Kind::Postgres(postgres) => postgres.read(work),
        }
    }

    /// The nodes that were heard of within a day.
    pub(super) fn nodes(&mut self) -> Result<Vec<NodeRow>, StoreError> {
        self.postgres().map_or(Ok(Vec::new()), nodes::list)
    }

    /// Whether this node is the one to do a piece of periodic work now: alone with its database it always is.
    pub fn claim_chore(&mut self, name: &str, every_secs: u64) -> Result<bool, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(_) => Ok(true),
            Kind::Postgres(postgres) => nodes::claim_chore(postgres, name, every_secs),
        }
    }

    /// Waits until the gateways that use this database have applied this connection's last change, at most 2 seconds.
    pub fn wait_until_applied(&mut self) -> Result<Applied, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.wait_until_applied(),
            Kind::Postgres(postgres) => nodes::wait_until_applied(postgres),
        }
    }

    /// [`Self::read`], counted as a poll for other processes' changes.
    pub(super) fn poll<T>(&mut self, work: impl FnMut(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.poll(work),
            Kind::Postgres(postgres) => postgres.read(work),
        }
    }

    /// Number of the last change that this connection made; 0 for none.
    pub fn last_change(&self) -> u64 {
        match &self.0 {
            Kind::Sqlite(sqlite) => sqlite.last_change(),
            Kind::Postgres(postgres) => postgres.last_change(),
        }
    }

    /// When the newest record was created, of those that are quick to find: Unix seconds.
    pub fn newest_record(&mut self) -> Result<Option<u64>, StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.newest_record(),
            Kind::Postgres(postgres) => postgres.clock().map(Some),
        }
    }

    /// Leaves no earlier contents of pages in the database's files, if they are this machine's.
    pub(super) fn empty_log(&self) {
        if let Some(sqlite) = self.as_sqlite() {
            sqlite.empty_log();
        }
    }

    /// Whether the database responds.
    pub fn answers(&mut self) -> Result<(), StoreError> {
        match &mut self.0 {
            Kind::Sqlite(sqlite) => sqlite.answers(),
            Kind::Postgres(postgres) => postgres.answers(),
        }
    }
}

impl From<Sqlite> for Db {
    fn from(sqlite: Sqlite) -> Self {
        Self(Kind::Sqlite(Box::new(sqlite)))
    }
}

#[cfg(test)]
impl Db {
    /// Makes every write fail from now on, as on a full or read-only disk.
    pub(crate) fn refuse_writes(&mut self, refuse: bool) {
        self.connection().pragma_update(None, "query_only", refuse).unwrap();
    }

    /// The `SQLite` connection.
    pub(crate) fn connection(&self) -> &rusqlite::Connection {
        &self.as_sqlite().unwrap().connection
    }
}
