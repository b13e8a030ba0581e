//! Clients in HTTP/2 (RFC 9113): their connections, and each stream as a request of its own.

pub(super) mod connection;
mod downstream;
mod head;
mod stream;
mod stream_budget;
