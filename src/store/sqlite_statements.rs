//! Statements on an `SQLite` connection. Each is prepared once.

use std::ops::ControlFlow;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::sql::{Columns, Row, SqlError, Statements, Value};
use crate::clock::UnixSecs;

/// The connection in a transaction.
pub(super) struct OnSqlite<'c>(pub(super) &'c Connection);

struct SqliteRow<'r>(&'r rusqlite::Row<'r>);

impl Columns for SqliteRow<'_> {
    fn column(&self, at: usize) -> Result<Value<'_>, SqlError> {
        Ok(match self.0.get_ref(at)? {
            ValueRef::Null => Value::Int(None),
            ValueRef::Integer(number) => Value::Int(Some(number)),
            ValueRef::Text(bytes) => Value::Text(Some(str::from_utf8(bytes).map_err(|_| SqlError::Type(at))?)),
            ValueRef::Blob(bytes) => Value::Blob(Some(bytes)),
            ValueRef::Real(_) => return Err(SqlError::Type(at)),
        })
    }
}

/// A parameter.
struct SqliteParam<'v>(Value<'v>);

impl rusqlite::ToSql for SqliteParam<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Int(number) => number.map_or(ValueRef::Null, ValueRef::Integer),
            Value::Text(text) => text.map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes())),
            Value::Blob(bytes) => bytes.map_or(ValueRef::Null, ValueRef::Blob),
        }))
    }
}

impl Statements for OnSqlite<'_> {
    fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, SqlError> {
        Ok(self.0.prepare_cached(sql)?.execute(params_from_iter(params.iter().copied().map(SqliteParam)))?)
    }

    fn query(
        &self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>, SqlError>,
    ) -> Result<(), SqlError> {
        let mut query = self.0.prepare_cached(sql)?;
        let mut rows = query.query(params_from_iter(params.iter().copied().map(SqliteParam)))?;
        while let Some(row) = rows.next()? {
            if each(&Row(&SqliteRow(row)))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn change_number(&self) -> Result<i64, SqlError> {
        let mut next = self.0.prepare_cached("SELECT value + 1 FROM counter WHERE name = 'rev'")?;
        Ok(next.query_row([], |row| row.get(0))?)
    }

    fn batch(&self, sql: &str) -> Result<(), SqlError> {
        Ok(self.0.execute_batch(sql)?)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn agreed_time(&self, now: UnixSecs) -> UnixSecs {
        now
    }
}
