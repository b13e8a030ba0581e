//! Requests whose bodies pass while they come, both ways at once: large and chunked ones, those that wait for
//! 100 Continue, all of HTTP/2.

pub(super) mod exchange;
pub(super) mod h1_downstream;
mod replay;
pub(super) mod traits;
mod upstream;
