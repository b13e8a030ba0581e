//! Clients in HTTP/1: their connections, their side of an exchange, and WebSocket tunnels.

mod buffered_downstream;
pub(crate) mod connection;
pub(super) mod client_connection;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
pub(super) mod reply;
pub(super) mod request_body;
mod shutdown;
mod streamed_downstream;
mod websocket_tunnel;
