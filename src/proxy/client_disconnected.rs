//! The error of a write to a client that has disconnected.

/// The client does not read any more.
#[derive(Debug)]
pub(crate) struct ClientDisconnected;
