//! Parameters and rows as the server's binary protocol has them.

use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::store::sql::{Columns, SqlError, Value};

/// A row.
pub(super) struct PostgresRow<'r>(pub(super) &'r tokio_postgres::Row);

impl Columns for PostgresRow<'_> {
    fn column(&self, at: usize) -> Result<Value<'_>, SqlError> {
        let kind = self.0.columns().get(at).ok_or(SqlError::Type(at))?.type_();
        let unread = |_| SqlError::Type(at);
        Ok(match *kind {
            Type::INT8 => Value::Int(self.0.try_get(at).map_err(unread)?),
            Type::INT4 => Value::Int(self.0.try_get::<_, Option<i32>>(at).map_err(unread)?.map(i64::from)),
            Type::BOOL => Value::Int(self.0.try_get::<_, Option<bool>>(at).map_err(unread)?.map(i64::from)),
            Type::TEXT | Type::VARCHAR => Value::Text(self.0.try_get(at).map_err(unread)?),
            Type::BYTEA => Value::Blob(self.0.try_get(at).map_err(unread)?),
            _ => return Err(SqlError::Type(at)),
        })
    }
}

/// A parameter.
#[derive(Debug)]
pub(super) struct PostgresParam<'v>(Value<'v>);

impl<'v> PostgresParam<'v> {
    /// With its type.
    pub(super) fn typed(value: &Value<'v>) -> (Self, Type) {
        (Self(*value), type_of(value))
    }
}

impl ToSql for PostgresParam<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self.0 {
            Value::Int(number) => number.to_sql(kind, out),
            Value::Text(text) => text.to_sql(kind, out),
            Value::Blob(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(kind)
    }

    to_sql_checked!();
}

fn type_of(value: &Value<'_>) -> Type {
    match value {
        Value::Int(_) => Type::INT8,
        Value::Text(_) => Type::TEXT,
        Value::Blob(_) => Type::BYTEA,
    }
}
