//! One request to a server and its response: one encoder of requests, one reader of response heads, one kind of failed attempt,
//! one loop over the servers, one loop over the body of a response (`response_body`). Small bodies of requests are held whole
//! (`buffered`), which costs least; all others pass while they are received, in both directions at the same time (`streamed`).

pub(super) mod attempt_error;
pub(super) mod buffered;
pub(super) mod downstream;
mod replay_buffer;
pub(super) mod request_encoder;
mod response_body;
mod response_head;
mod retry;
pub(super) mod streamed;
mod upstream;
