//! Statements in the SQL that both databases understand, with `?1`, `?2`, ... for parameters. The databases implement
//! [`Statements`]; everything that reads or writes rows does so through a [`Tx`].

use std::cell::Cell;
use std::ops::ControlFlow;

use super::error::StoreError;
use crate::clock::UnixSecs;

/// A parameter, or a column as read. NULL keeps its type, which `PostgreSQL` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'v> {
    Int(Option<i64>),
    Text(Option<&'v str>),
    Blob(Option<&'v [u8]>),
}

/// Why a statement has no result.
#[derive(Debug)]
pub(super) enum SqlError {
    /// A row was asked for, and there is none.
    NoRow,
    /// A column is not of the type that was asked for.
    Type(usize),
    /// The database's own error.
    Failed(StoreError),
}

impl From<StoreError> for SqlError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::NoRow => Self::Down("database error: a row is missing".to_owned()),
            SqlError::Type(at) => Self::Down(format!("database error: column {at} has an unexpected type")),
            SqlError::Failed(error) => error,
        }
    }
}

/// `None` for a row that is missing.
pub(super) trait OptionalRow<T> {
    fn optional(self) -> Result<Option<T>, SqlError>;
}

impl<T> OptionalRow<T> for Result<T, SqlError> {
    fn optional(self) -> Result<Option<T>, SqlError> {
        match self {
            Ok(row) => Ok(Some(row)),
            Err(SqlError::NoRow) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The columns of a row as a database gives them.
pub(super) trait Columns {
    fn column(&self, at: usize) -> Result<Value<'_>, SqlError>;
}

/// One row of a result.
pub(super) struct Row<'r>(pub(super) &'r dyn Columns);

impl Row<'_> {
    pub(super) fn get<T: FromColumn>(&self, at: usize) -> Result<T, SqlError> {
        T::from_column(self.0.column(at)?).ok_or(SqlError::Type(at))
    }

    /// A text, borrowed.
    pub(super) fn text(&self, at: usize) -> Result<&str, SqlError> {
        self.text_or_null(at)?.ok_or(SqlError::Type(at))
    }

    pub(super) fn text_or_null(&self, at: usize) -> Result<Option<&str>, SqlError> {
        match self.0.column(at)? {
            Value::Text(text) => Ok(text),
            Value::Int(None) | Value::Blob(None) => Ok(None),
            _ => Err(SqlError::Type(at)),
        }
    }
}

/// What a column can be read as.
pub(super) trait FromColumn: Sized {
    fn from_column(value: Value<'_>) -> Option<Self>;
}

impl FromColumn for i64 {
    fn from_column(value: Value<'_>) -> Option<Self> {
        if let Value::Int(number) = value { number } else { None }
    }
}

impl FromColumn for u32 {
    fn from_column(value: Value<'_>) -> Option<Self> {
        i64::from_column(value).and_then(|number| number.try_into().ok())
    }
}

impl FromColumn for bool {
    fn from_column(value: Value<'_>) -> Option<Self> {
        i64::from_column(value).map(|number| number != 0)
    }
}

impl FromColumn for String {
    fn from_column(value: Value<'_>) -> Option<Self> {
        if let Value::Text(text) = value { text.map(str::to_owned) } else { None }
    }
}

impl FromColumn for Vec<u8> {
    fn from_column(value: Value<'_>) -> Option<Self> {
        if let Value::Blob(bytes) = value { bytes.map(<[u8]>::to_vec) } else { None }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Int(None) | Value::Text(None) | Value::Blob(None) => Some(None),
            value => T::from_column(value).map(Some),
        }
    }
}

/// What can be a parameter.
pub(super) trait Param {
    const NULL: Value<'static>;
    fn value(&self) -> Value<'_>;
}

impl Param for i64 {
    const NULL: Value<'static> = Value::Int(None);
    fn value(&self) -> Value<'_> {
        Value::Int(Some(*self))
    }
}

impl Param for u32 {
    const NULL: Value<'static> = Value::Int(None);
    fn value(&self) -> Value<'_> {
        Value::Int(Some(i64::from(*self)))
    }
}

impl Param for bool {
    const NULL: Value<'static> = Value::Int(None);
    fn value(&self) -> Value<'_> {
        Value::Int(Some(i64::from(*self)))
    }
}

impl Param for str {
    const NULL: Value<'static> = Value::Text(None);
    fn value(&self) -> Value<'_> {
        Value::Text(Some(self))
    }
}

impl Param for String {
    const NULL: Value<'static> = Value::Text(None);
    fn value(&self) -> Value<'_> {
        Value::Text(Some(self))
    }
}

impl Param for [u8] {
    const NULL: Value<'static> = Value::Blob(None);
    fn value(&self) -> Value<'_> {
        Value::Blob(Some(self))
    }
}

impl<const N: usize> Param for [u8; N] {
    const NULL: Value<'static> = Value::Blob(None);
    fn value(&self) -> Value<'_> {
        Value::Blob(Some(self))
    }
}

impl Param for Vec<u8> {
    const NULL: Value<'static> = Value::Blob(None);
    fn value(&self) -> Value<'_> {
        Value::Blob(Some(self))
    }
}

impl<T: Param + ?Sized> Param for &T {
    const NULL: Value<'static> = T::NULL;
    fn value(&self) -> Value<'_> {
        T::value(self)
    }
}

impl<T: Param> Param for Option<T> {
    const NULL: Value<'static> = T::NULL;
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(T::NULL, T::value)
    }
}

/// The parameters of a statement, in order.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::store::sql::Param::value(&$value)),*] };
}
pub(super) use params;

/// A database in a transaction.
pub(super) trait Statements {
    /// Runs a statement; gives how many rows it changed.
    fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, SqlError>;

    /// Runs a query and passes on each row until `each` breaks off.
    fn query(
        &self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>, SqlError>,
    ) -> Result<(), SqlError>;

    /// The number of the changes of this transaction.
    fn change_number(&self) -> Result<i64, SqlError>;

    /// Runs several statements without parameters, as they are written.
    fn batch(&self, sql: &str) -> Result<(), SqlError>;

    /// Whether other nodes write to the database at the same time.
    fn is_shared(&self) -> bool;

    /// The time that all nodes agree on; `now` is this one's.
    fn agreed_time(&self, now: UnixSecs) -> UnixSecs;
}

/// A transaction.
pub(super) struct Tx<'db> {
    on: &'db dyn Statements,
    rev: Cell<i64>,
    /// There is no space for the rows of ended sessions: they are noted.
    pub(super) notes_ends: bool,
}

impl<'db> Tx<'db> {
    pub(super) fn new(on: &'db dyn Statements, notes_ends: bool) -> Self {
        Self { on, rev: Cell::new(0), notes_ends }
    }

    /// The number of this transaction's changes to users, sessions and keys; constant within it. Only consumed if the
    /// transaction changes something.
    pub(super) fn rev(&self) -> Result<i64, SqlError> {
        if self.rev.get() == 0 {
            self.rev.set(self.on.change_number()?);
        }
        Ok(self.rev.get())
    }

    /// The same, if it was asked for; 0: it was not.
    pub(super) fn rev_used(&self) -> i64 {
        self.rev.get()
    }

    /// Whether other nodes write to the database at the same time.
    pub(super) fn is_shared(&self) -> bool {
        self.on.is_shared()
    }

    /// The time that all nodes agree on; `now` is this one's.
    pub(super) fn agreed_time(&self, now: UnixSecs) -> UnixSecs {
        self.on.agreed_time(now)
    }

    /// Put after a table's name to read it in the order in which it is stored.
    pub(super) fn unindexed(&self) -> &'static str {
        if self.is_shared() { "" } else { "NOT INDEXED" }
    }

    /// Runs several statements without parameters, as they are written.
    pub(super) fn batch(&self, sql: &str) -> Result<(), SqlError> {
        self.on.batch(sql)
    }

    /// Runs a statement; gives how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, SqlError> {
        self.on.execute(sql, params)
    }

    /// The first row of a result.
    ///
    /// # Errors
    /// [`SqlError::NoRow`]: there is none.
    pub(super) fn query_row<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let (mut read, mut found) = (Some(read), None);
        self.on.query(sql, params, &mut |row| {
            found = read.take().map(|read| read(row)).transpose()?;
            Ok(ControlFlow::Break(()))
        })?;
        found.ok_or(SqlError::NoRow)
    }

    /// All rows of a result.
    pub(super) fn query_map<T, C: FromIterator<T>>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<C, SqlError> {
        let mut rows = Vec::new();
        self.each(sql, params, |row| {
            rows.push(read(row)?);
            Ok(())
        })?;
        Ok(rows.into_iter().collect())
    }

    /// Passes on the rows of a result one by one: there may be millions.
    pub(super) fn each(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        self.on.query(sql, params, &mut |row| read(row).map(ControlFlow::Continue))
    }
}
