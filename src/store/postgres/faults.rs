//! What the server's errors mean.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::tls::is_tls_fault;
use crate::metrics;
use crate::store::error::StoreError;

/// Longest wait for a connection, for the answer to a statement, and between two rows of a result.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The answer was waited for as long as one is.
pub(super) fn unanswered() -> StoreError {
    StoreError::Down(format!("PostgreSQL did not answer within {} s", ANSWER_MAX.as_secs()))
}

/// Whether the connection, not the statement, is at fault.
pub(super) fn is_of_connection(code: &SqlState) -> bool {
    let class = &code.code()[..2];
    // connection exceptions, operator intervention, too many connections, a standby, a broken transaction
    ["08", "57"].contains(&class)
        || [SqlState::TOO_MANY_CONNECTIONS, SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::IN_FAILED_SQL_TRANSACTION]
            .contains(code)
}

/// What an error means, in one line.
pub(super) fn failure(error: &tokio_postgres::Error) -> StoreError {
    let line = format!("PostgreSQL: {}", described(error));
    let code = error.code().map_or("", SqlState::code);
    let kind = match code {
        "53100" => "full",
        "25006" => "read_only",
        "55P03" | "57014" => "busy",
        "40001" | "40P01" => "conflict",
        code if code.is_empty() || code.starts_with("08") || code.starts_with("57") => "connection",
        _ => "other",
    };
    metrics::ACCOUNTS.store_failed(kind);
    if matches!(kind, "full" | "read_only") { StoreError::Unwritable(line) } else { StoreError::Down(line) }
}

/// Why there is no connection: what an operator has to change, or only time.
pub(super) fn refused(host: &str, error: &tokio_postgres::Error) -> StoreError {
    let line = format!("PostgreSQL at {host}: {}", described(error));
    let is_final = match error.code() {
        Some(code) => [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ]
        .contains(code),
        None => is_tls_fault(error),
    };
    if is_final { StoreError::Unusable(line) } else { StoreError::Down(line) }
}

/// An error with its causes, in one line.
fn described(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message().replace('\n', " "), error.code().code());
    }
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !line.contains(&more) {
            line = format!("{line}: {more}");
        }
        cause = error.source();
    }
    line.replace('\n', " ")
}
