//! HTTP values that cannot hold a bad value: hosts, origins, paths, cookies, replies, return addresses. Parsed once at
//! the edge and not checked again.

pub mod cookie;
pub mod first_line;
pub mod host;
pub mod incoming;
pub mod method;
pub mod names;
pub mod network;
pub mod origin;
pub mod path;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub mod readings;
pub mod proxy_headers;
pub mod reply;
pub mod return_to;
pub mod strict_json;
pub mod websocket;
