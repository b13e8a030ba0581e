//! What a write comes to whose client has disconnected.

/// The client does not read any more.
#[derive(Debug)]
pub(crate) struct ClientDisconnected;
