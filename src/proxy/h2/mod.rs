//! Clients in HTTP/2 (RFC 9113): their connections, and each stream as a request of its own.

mod connection;
mod downstream;
mod head;
mod stream;
mod tally;
