//! zlib in the place of zlib-ng: the same functions under the same names, built by the C compiler alone.
//!
//! pingora-core asks flate2 for zlib-ng, whose build needs cmake and make on every machine that builds the gateway. The gateway
//! compresses a few kilobytes at its start and nothing afterwards, so that the faster library would gain nothing.

pub use libz_sys::*;
