//! A request to a server and its answer back. Small bodies of requests are read whole first and go out with the head;
//! all others pass while they come, both ways at once.

pub(super) mod buffered;
pub(super) mod downstream;
mod replay_buffer;
pub(super) mod streamed;
mod upstream;
