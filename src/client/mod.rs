//! Outbound HTTP of the gateway's own: to the identity providers. One thread with a runtime of its own makes all
//! requests, so that a provider that hangs never holds up a thread that serves requests. Each exchange is HTTP/1.1 on a
//! connection of its own, with a limit for everything; JSON is all that is read, redirects are never followed, cookies
//! never kept, and nothing is tried twice (an authorization code is used up once its bytes are sent).

mod address;
mod connect;
mod exchange;
mod limits;
mod outbound;
mod response;
mod tls;

#[cfg(test)]
mod tests;

pub(crate) use address::Place;
pub(crate) use connect::Reach;
pub(crate) use limits::{DOCUMENT_BYTES_MAX, LIST_BYTES_MAX};
pub(crate) use outbound::{Client, Destination, Request};
pub(crate) use response::{FetchError, Response};
