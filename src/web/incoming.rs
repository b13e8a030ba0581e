//! A request as everything behind the listener sees it: read once, in normal form.

use std::net::IpAddr;

use http::{HeaderMap, Method};

use super::host::Host;
use super::origin::{Origin, Scheme};
use super::path::NormalPath;

/// One request. Borrowed from the head that the connection holds.
#[derive(Debug, Clone)]
pub struct Incoming<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path in its one normal form.
    pub path: NormalPath<'a>,
    /// The query without `?`, byte for byte; never judged, never logged.
    pub query: Option<&'a str>,
    /// All header fields as received.
    pub headers: &'a HeaderMap,
    /// The host that the client asked for (from a trusted proxy: X-Forwarded-Host).
    pub host: &'a Host,
    /// The scheme that the client used (from a trusted proxy: X-Forwarded-Proto).
    pub scheme: Scheme,
    /// The client's address; the right-most untrusted one. `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// A WebSocket handshake: GET, `Upgrade: websocket`, `Connection` lists `upgrade` (RFC 6455, 4.1).
    pub is_websocket: bool,
}

impl Incoming<'_> {
    /// The origin that the client sees us under.
    pub fn origin(&self) -> Origin {
        Origin::new(self.scheme, self.host)
    }

    /// A header field that must stand at most once; `None` if absent, repeated or not ASCII.
    pub fn single(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        values.next().is_none().then(|| first.to_str().ok()).flatten()
    }

    /// A navigation: GET or HEAD with `Sec-Fetch-Mode: navigate`; without fetch metadata, one that
    /// accepts `text/html`.
    pub fn is_navigation(&self) -> bool {
        (self.method == Method::GET || self.method == Method::HEAD) && self.wants_page()
    }

    /// A navigation that sends a form: whoever comes back signed in has to send it again.
    pub fn is_form_navigation(&self) -> bool {
        self.method == Method::POST && self.wants_page()
    }

    /// Whether a person looks at the answer: the same test as [`Self::is_navigation`], any method.
    pub fn wants_page(&self) -> bool {
        !self.is_websocket && wants_page(self.headers)
    }
}

/// The same of a head that was refused before more of it was read.
pub fn wants_page(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-mode") {
        Some(mode) => mode.as_bytes() == b"navigate",
        None => !is_scripted(headers) && headers.get_all(http::header::ACCEPT).iter().any(accepts_html),
    }
}

/// A script asks and says so: over plain http browsers send no fetch metadata for it, and some accept HTML.
fn is_scripted(headers: &HeaderMap) -> bool {
    let said = headers.get("x-requested-with").is_some_and(|by| by.as_bytes() == b"XMLHttpRequest");
    said || headers.contains_key("hx-request")
}

fn accepts_html(value: &http::HeaderValue) -> bool {
    value.to_str().is_ok_and(|list| {
        list.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
            html && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        })
    })
}
