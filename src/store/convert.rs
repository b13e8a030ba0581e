//! Integers as `SQLite` stores them.

/// `SQLite`'s integers are signed; times and counts here never reach the sign bit.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The reverse; a negative number in the file reads as 0.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
