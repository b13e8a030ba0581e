//! Clients in HTTP/1: their connections, exchanges whose body is read whole first, and WebSocket tunnels.

pub(crate) mod connection;
pub(super) mod downstream;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
pub(super) mod reply;
pub(super) mod request_body;
pub(super) mod response_relay;
mod shutdown;
mod streamed_downstream;
mod websocket_tunnel;
