//! The contract, asked of the real binary over real sockets.

mod backend;
mod client;
mod commands;
mod faults;
mod framing;
mod gateway;
mod login;
mod paths;
mod refusals;
mod sessions;
mod spoofing;
mod upstreams;
mod websockets;
