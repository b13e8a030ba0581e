//! An answer that the gateway itself writes: pages, refusals, redirects. Knows nothing of pingora.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// Status, header fields in order, and a whole body.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: StatusCode,
    /// Header fields; several `Set-Cookie` may stand here. `Content-Length` is added when written.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The whole body; not sent for HEAD.
    pub body: Bytes,
    /// The connection cannot be used further: framing or body are in doubt.
    pub close: bool,
}

impl Reply {
    /// An empty answer that no cache may keep.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: vec![(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
            body: Bytes::new(),
            close: false,
        }
    }

    /// Plain text, one line.
    pub fn text(status: StatusCode, line: &'static str) -> Self {
        Self::empty(status)
            .with(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
            .with_body(Bytes::from_static(line.as_bytes()))
    }

    /// A JSON value. Serialising plain data cannot fail; if it ever did, the body is `null`.
    pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
        Self::empty(status)
            .with(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .with_body(Bytes::from(body))
    }

    /// 303 See Other: the browser goes there with GET (RFC 9110, 15.4.4).
    pub fn see_other(location: HeaderValue) -> Self {
        Self::empty(StatusCode::SEE_OTHER).with(header::LOCATION, location)
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    /// Marks the connection to be closed after this answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}
