//! Why an attempt to get a response from one server failed. Which kind it is decides whether the request may be sent again.

use pingora_core::{Error, ErrorType};

/// A failed attempt.
pub(crate) enum AttemptError {
    /// There was no connection, so nothing was sent.
    Unreachable(Box<Error>),
    /// A kept connection ended before a byte of the response: the server may have been about to close it.
    NoResponse(Box<Error>),
    /// The server says that it has not processed the request (RFC 9113, 6.8 and 8.7).
    NotProcessed(Box<Error>),
    /// Anything else.
    Final(Box<Error>),
}

impl AttemptError {
    /// On a new connection a missing response is final: the server had no reason to close it.
    pub(super) fn on_connection(self, reused: bool) -> Self {
        match self {
            Self::NoResponse(e) if !reused => Self::Final(e),
            other => other,
        }
    }

    #[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
    pub(super) fn into_error(self) -> Box<Error> {
        match self {
            Self::Unreachable(e) | Self::NoResponse(e) | Self::NotProcessed(e) | Self::Final(e) => e,
        }
    }
}

impl From<Box<Error>> for AttemptError {
    fn from(e: Box<Error>) -> Self {
        Self::Final(e)
    }
}

/// The response ended before its end.
#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
pub(crate) fn truncated() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "response cut off").into_up()
}

/// The client no longer waits for the response.
#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed")]
pub(crate) fn client_disconnected() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "client disconnected").into_down()
}
