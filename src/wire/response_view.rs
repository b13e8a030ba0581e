//! A response head as the policy reads it, whether it was parsed from bytes (HTTP/1) or received as fields (HTTP/2).

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;

/// The head of a server's response, in either form.
pub(crate) trait ResponseHeadView {
    fn status(&self) -> StatusCode;
    /// The values of all fields of this name.
    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]>;

    /// Whether the length of the body is known, where there is one.
    fn has_length(&self) -> bool {
        self.values(&header::CONTENT_LENGTH).next().is_some()
    }
}

impl ResponseHeadView for ResponseHeader {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.headers.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// The items of all `Connection` fields of a response.
pub(crate) fn connection_options(answer: &impl ResponseHeadView) -> impl Iterator<Item = &[u8]> {
    answer.values(&header::CONNECTION).flat_map(|line| line.split(|&b| b == b',')).map(<[u8]>::trim_ascii)
}
