//! A parsed request in normal form, as every component behind the listener sees it.

use std::net::IpAddr;

use http::header::AsHeaderName;
use http::{HeaderMap, Method};

use super::host::Host;
use super::names::Names;
use super::origin::{Origin, Scheme};
use super::readings::RequestPath;

/// One request. Borrows the head from the connection.
#[derive(Debug, Clone)]
pub struct Incoming<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, in every reading.
    pub path: RequestPath<'a>,
    /// The query without `?`, verbatim; never used for decisions, never logged.
    pub query: Option<&'a [u8]>,
    /// All header fields as received.
    pub headers: &'a HeaderMap,
    /// Header names that may be present.
    pub names: Names,
    /// The requested host (from a trusted proxy: X-Forwarded-Host).
    pub host: &'a Host,
    /// The client's scheme (from a trusted proxy: X-Forwarded-Proto).
    pub scheme: Scheme,
    /// The client's address: the right-most untrusted one. `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// A WebSocket handshake: GET, `Upgrade: websocket`, `Connection` lists `upgrade` (RFC 6455, 4.1).
    pub is_websocket: bool,
}

impl Incoming<'_> {
    /// The gateway's origin as the client sees it.
    pub fn origin(&self) -> Origin {
        Origin::new(self.scheme, self.host)
    }

    /// Path and query for a header field or a query: unchanged, except that non-ASCII bytes are escaped.
    pub fn origin_form(&self) -> String {
        let mut place = self.path.as_str().as_bytes().to_vec();
        if let Some(query) = self.query {
            place.push(b'?');
            place.extend_from_slice(query);
        }
        percent_encoding::percent_encode(&place, percent_encoding::CONTROLS).to_string()
    }

    /// A header field that must occur at most once; `None` if absent, repeated or not ASCII.
    pub fn single(&self, name: impl AsHeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        values.next().is_none().then(|| first.to_str().ok()).flatten()
    }

    /// Classifies the caller. This is the only place that does so.
    pub fn caller_kind(&self) -> CallerKind {
        if self.is_websocket {
            return CallerKind::WebSocket;
        }
        if self.is_grpc() {
            return CallerKind::Grpc;
        }
        if PURPOSES.iter().any(|(name, ahead)| {
            self.headers.get(*name).is_some_and(|purpose| purpose.as_bytes().starts_with(ahead.as_bytes()))
        }) {
            return CallerKind::Prefetch;
        }
        if self.headers.contains_key("hx-request") {
            return CallerKind::Htmx;
        }
        if !wants_page(self.headers) {
            return CallerKind::Program;
        }
        if is_turbo(self.headers) {
            return CallerKind::Turbo;
        }
        let in_frame = || {
            self.single("sec-fetch-dest").is_some_and(|dest| matches!(dest, "iframe" | "frame" | "embed" | "object"))
        };
        match *self.method {
            Method::GET | Method::HEAD if in_frame() => CallerKind::Frame,
            Method::GET | Method::HEAD => CallerKind::Navigation,
            Method::POST => CallerKind::Form,
            _ => CallerKind::Program,
        }
    }

    /// A navigation: GET or HEAD from a window or frame.
    pub fn is_navigation(&self) -> bool {
        matches!(self.caller_kind(), CallerKind::Navigation | CallerKind::Frame)
    }

    /// Whether the response is displayed to a person: errors are rendered as pages then, for every method.
    pub fn wants_page(&self) -> bool {
        !self.is_websocket && wants_page(self.headers)
    }

    /// A gRPC call (always POST). Content types that do not require a gRPC error response, such as gRPC-Web, do not
    /// match.
    pub fn is_grpc(&self) -> bool {
        let is_kind = |kind: &str| {
            kind == "application/grpc" || kind.starts_with("application/grpc+") || kind.starts_with("application/grpc;")
        };
        *self.method == Method::POST && self.single("content-type").is_some_and(is_kind)
    }
}

/// The kind of caller; determines the form of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerKind {
    /// A WebSocket handshake.
    WebSocket,
    /// A gRPC call.
    Grpc,
    /// A browser that loads a page in advance (speculation rules, `rel=prefetch`).
    Prefetch,
    /// htmx: it follows `HX-Redirect`.
    Htmx,
    /// Turbo, for a visit, a form or a frame: it displays the HTML of an error.
    Turbo,
    /// A navigation inside a frame, where the login page cannot be displayed.
    Frame,
    /// A navigation of a whole window.
    Navigation,
    /// A navigation that submits a form.
    Form,
    /// Anything else: scripts and programs.
    Program,
}

/// Header fields that [`Incoming::caller_kind`] and the credentials depend on, as listed in `Vary`.
pub const CALLER_FIELDS: &str = "Cookie, Authorization, HX-Request, X-Requested-With, Accept, Sec-Fetch-Mode, \
                                 Sec-Fetch-Dest, Sec-Purpose, Turbo-Frame, X-Turbo-Request-Id, \
                                 Upgrade-Insecure-Requests, Purpose, X-Purpose, X-Moz, X-PJAX, X-Alpine-Request, \
                                 Datastar-Request";

/// Header fields that mark a prefetch, today (Fetch, 3.7) and in older browsers.
const PURPOSES: [(&str, &str); 4] =
    [("sec-purpose", "prefetch"), ("purpose", "prefetch"), ("x-moz", "prefetch"), ("x-purpose", "preview")];

/// Header fields of scripts that insert HTML into a page.
const SCRIPTS: [&str; 4] = ["hx-request", "x-pjax", "x-alpine-request", "datastar-request"];

/// Whether the response is displayed to a person: `Sec-Fetch-Mode: navigate`, except downloads (`<a download>` in
/// Chromium: destination `empty`, without HTML in `Accept`). Requests without fetch metadata (plain http), from Turbo,
/// and from a service worker that passes on a navigation (`Upgrade-Insecure-Requests: 1`) count if they accept
/// `text/html`.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let accepts = || !is_scripted(headers) && headers.get_all(http::header::ACCEPT).iter().any(accepts_html);
    match headers.get("sec-fetch-mode") {
        Some(mode) if mode.as_bytes() == b"navigate" => {
            headers.get("sec-fetch-dest").is_none_or(|dest| dest.as_bytes() != b"empty") || accepts()
        }
        Some(_) => (is_turbo(headers) || is_upgrading(headers)) && accepts(),
        None => accepts(),
    }
}

fn is_turbo(headers: &HeaderMap) -> bool {
    headers.contains_key("turbo-frame") || headers.contains_key("x-turbo-request-id")
}

/// W3C Upgrade Insecure Requests, 3.2.1: sent only with navigations.
fn is_upgrading(headers: &HeaderMap) -> bool {
    headers.get("upgrade-insecure-requests").is_some_and(|value| value.as_bytes() == b"1")
}

/// A script that identifies itself: over plain http, browsers send no fetch metadata for scripts, and some scripts
/// accept HTML.
fn is_scripted(headers: &HeaderMap) -> bool {
    // Android apps send their name in the same field with everything that their web view loads
    let said = headers.get("x-requested-with").is_some_and(|by| matches!(by.as_bytes(), b"XMLHttpRequest" | b"swup"));
    said || SCRIPTS.iter().any(|name| headers.contains_key(*name))
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
