//! Cross-origin resource sharing (WHATWG Fetch, 3.2), controlled by the gateway: exact origins, credentials for these
//! alone, one value. Pure: heads in, heads out.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::config::Cors;
use crate::web::incoming::Incoming;
use crate::web::origin::Origin;
use crate::web::reply::Reply;

/// How long a browser may cache the response to a preflight.
const PREFLIGHT_SECS: HeaderValue = HeaderValue::from_static("600");
/// The gateway's response headers that pages of other origins may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("Retry-After, WWW-Authenticate, X-Request-Id");

/// What a response allows other origins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum CorsAnswer {
    /// The app decides: its headers pass.
    App,
    /// No other origin may read it.
    #[default]
    Nobody,
    /// Some origins may read it, but not this one.
    Others,
    /// This origin may read it.
    Allowed(HeaderValue),
}

impl CorsAnswer {
    pub(crate) fn of_route(cors: &Cors, incoming: &Incoming<'_>) -> Self {
        match cors {
            Cors::App => Self::App,
            Cors::Origins(origins) => Self::of(origins, incoming),
        }
    }

    /// For these allowed origins.
    pub(crate) fn of(origins: &[Origin], incoming: &Incoming<'_>) -> Self {
        if origins.is_empty() {
            return Self::Nobody;
        }
        let asked = incoming.single("origin").and_then(Origin::parse).filter(|origin| origins.contains(origin));
        asked.and_then(|origin| HeaderValue::try_from(origin.to_string()).ok()).map_or(Self::Others, Self::Allowed)
    }

    /// Whether an upstream's header of this name is dropped, so that only the gateway's applies.
    pub(crate) fn is_replaced(name: &[u8]) -> bool {
        let start = name.get(..15).is_some_and(|start| start.eq_ignore_ascii_case(b"access-control-"));
        start && !name.eq_ignore_ascii_case(header::ACCESS_CONTROL_EXPOSE_HEADERS.as_str().as_bytes())
    }

    /// The header fields that a response gets.
    pub(crate) fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::App | Self::Nobody => Vec::new(),
            Self::Others => vec![(header::VARY, HeaderValue::from_static("Origin"))],
            Self::Allowed(origin) => vec![
                (header::VARY, HeaderValue::from_static("Origin")),
                (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
                (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
            ],
        }
    }

    /// Adds the fields to one of the gateway's own replies.
    pub(crate) fn dress(&self, mut reply: Reply) -> Reply {
        reply.headers.extend(self.fields());
        if matches!(self, Self::Allowed(_)) {
            reply.headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED));
        }
        reply
    }
}

/// The method that a preflight asks for; `None`: the request is not a preflight.
pub(crate) fn preflight(incoming: &Incoming<'_>) -> Option<Method> {
    if incoming.method != Method::OPTIONS || !incoming.headers.contains_key(header::ORIGIN) {
        return None;
    }
    let method = incoming.single("access-control-request-method")?;
    Method::from_bytes(method.as_bytes()).ok()
}

/// The response to a preflight from an allowed origin: grants what it asked for.
pub(crate) fn preflight_reply(incoming: &Incoming<'_>) -> Reply {
    let vary = "Access-Control-Request-Method, Access-Control-Request-Headers";
    let mut reply = Reply::empty(StatusCode::NO_CONTENT)
        .with(header::VARY, HeaderValue::from_static(vary))
        .with(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECS);
    for (asked, answered) in [
        (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
        (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        if let Some(value) = incoming.headers.get(asked) {
            reply = reply.with(answered, value.clone());
        }
    }
    reply
}
