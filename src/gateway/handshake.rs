//! Credentials that a WebSocket handshake carries where the route lets it (`websocket.token`): in the
//! query or as a subprotocol, because browsers let scripts set neither headers nor other origins'
//! cookies. They are taken out before the backend sees the handshake.

use http::{HeaderName, HeaderValue, header};

use super::respond::AnswerHead;
use crate::config::WebSocketToken;
use crate::secret::Secret;
use crate::web::incoming::Incoming;

/// Credentials that are looked at in one handshake.
const TOKENS_MAX: usize = 4;
/// `base64url.bearer.authorization.k8s.io.TOKEN`, the token in base64url: Kubernetes' API server.
const KUBERNETES: &str = "base64url.bearer.authorization.k8s.io.";

/// What was found, and what the backend gets in its place.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    pub(crate) tokens: Vec<Secret>,
    /// Path and query without tokens, if any stood there.
    target: Option<Vec<u8>>,
    /// The protocols that are left, if a token stood among them.
    protocols: Option<String>,
    /// The client offered `bearer` and waits for one of its protocols to be chosen.
    offers_bearer: bool,
}

/// Looks at the places that the route names.
pub(crate) fn read(places: &WebSocketToken, incoming: &Incoming<'_>) -> Handshake {
    let mut found = Handshake::default();
    if let Some(query) = incoming.query.filter(|_| !places.query.is_empty()) {
        found.read_query(&places.query, incoming.path.as_str(), query);
    }
    if places.subprotocol {
        found.read_protocols(incoming);
    }
    found.tokens.truncate(TOKENS_MAX);
    found
}

impl Handshake {
    fn read_query(&mut self, names: &[String], path: &str, query: &str) {
        let mut kept = Vec::new();
        for item in query.split('&') {
            // in every spelling that a backend would decode to the same name
            let token = form_urlencoded::parse(item.as_bytes()).find(|(name, _)| names.iter().any(|own| own == name));
            match token {
                Some((_, value)) => self.tokens.push(Secret::new(value.into_owned())),
                None => kept.push(item),
            }
        }
        if !self.tokens.is_empty() {
            let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
            self.target = Some(format!("{path}{query}").into_bytes());
        }
    }

    fn read_protocols(&mut self, incoming: &Incoming<'_>) {
        let lines =
            incoming.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
        let mut offered = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty());
        let (mut kept, mut found) = (Vec::new(), false);
        while let Some(item) = offered.next() {
            if item == "bearer" {
                (self.offers_bearer, found) = (true, true);
                self.tokens.extend(offered.next().map(|token| Secret::new(token.to_owned())));
            } else if let Some(encoded) = item.strip_prefix(KUBERNETES) {
                found = true;
                let token = data_encoding::BASE64URL_NOPAD.decode(encoded.trim_end_matches('=').as_bytes()).ok();
                self.tokens.extend(token.and_then(|token| String::from_utf8(token).ok()).map(Secret::new));
            } else {
                kept.push(item);
            }
        }
        if found {
            self.protocols = Some(kept.join(", "));
        }
    }

    /// The protocols that the backend is offered, where a token stood among them.
    pub(crate) fn protocols_left(&self) -> Option<&str> {
        self.protocols.as_deref()
    }

    /// The target without tokens, where there were any.
    pub(crate) fn target(&self) -> Option<&[u8]> {
        self.target.as_deref()
    }

    /// Browsers end a connection for which none of their protocols was chosen: the field to be added.
    pub(crate) fn choose(&self, answer: &impl AnswerHead) -> Option<(HeaderName, HeaderValue)> {
        let name = header::SEC_WEBSOCKET_PROTOCOL;
        let chosen = answer.values(&name).next().is_some();
        (self.offers_bearer && !chosen).then(|| (name, HeaderValue::from_static("bearer")))
    }
}
