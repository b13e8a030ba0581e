//! Clients in HTTP/1: their connections, exchanges whose body is read whole first, and WebSocket tunnels.

mod buffered_exchange;
pub(crate) mod connection;
pub(super) mod downstream;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
mod response_relay;
mod shutdown;
mod websocket_tunnel;
