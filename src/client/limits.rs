//! Every limit of an outbound exchange.

use std::time::Duration;

/// Exchanges in progress with one destination.
pub(super) const PER_DESTINATION_MAX: usize = 16;
/// Exchanges in progress in all.
pub(super) const TOTAL_MAX: usize = 64;
/// Addresses of one name that are tried.
pub(super) const ADDRESSES_MAX: usize = 4;
/// Threads that look names up; the system's resolver blocks.
pub(super) const DNS_THREADS_MAX: usize = 16;
/// Of them for one destination: a name server that does not answer holds up no other's.
pub(super) const LOOKUPS_MAX: usize = 2;
/// Response head, bytes.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;
/// Fields in a response head.
pub(super) const HEAD_FIELDS_MAX: usize = 100;
/// Body of a token response or of metadata, bytes.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Body of a key set, of userinfo or of a list of groups, bytes.
pub(crate) const LIST_BYTES_MAX: usize = 256 << 10;

/// How long an exchange may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Looking up the name and connecting.
    pub(super) connect: Duration,
    /// All of it, to the last byte of the body.
    pub(super) whole: Duration,
}

/// In operation.
pub(super) const TIMES: Times = Times { connect: Duration::from_secs(3), whole: Duration::from_secs(10) };
