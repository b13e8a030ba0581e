//! Credentials that a WebSocket handshake carries where the route allows it (`websocket.token`): in the query or as a
//! subprotocol, because browsers let scripts set neither headers nor cookies of other origins. They are removed before
//! the backend sees the handshake. Also: what makes a 101 a valid response to a handshake.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config::WebSocketToken;
use crate::secret::Secret;
use crate::web::incoming::Incoming;
use crate::web::websocket;
use crate::wire::response_view::{ResponseHeadView, connection_options};

/// Limit on credentials that are checked in one handshake.
const TOKENS_MAX: usize = 4;
/// Limit on extensions that a server may choose: each is looked up among those offered.
const EXTENSIONS_MAX: usize = 16;
/// `base64url.bearer.authorization.k8s.io.TOKEN`, with the token in base64url: the format of the Kubernetes API server.
const KUBERNETES: &str = "base64url.bearer.authorization.k8s.io.";

/// The credentials found, and what the backend receives instead.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    pub(crate) tokens: Vec<Secret>,
    /// Path and query without tokens, if there were any.
    target: Option<Vec<u8>>,
    /// The remaining protocols, if a token was among them.
    protocols: Option<String>,
    /// The client offered `bearer` and expects one of its protocols to be chosen.
    offers_bearer: bool,
}

/// Reads the places that the route allows.
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
    fn read_query(&mut self, names: &[String], path: &str, query: &[u8]) {
        let mut kept = Vec::new();
        for item in query.split(|&b| b == b'&') {
            // any spelling that a backend would decode to the same name
            let token = form_urlencoded::parse(item).find(|(name, _)| names.iter().any(|own| own == name));
            match token {
                Some((_, value)) => self.tokens.push(Secret::new(value.into_owned())),
                None => kept.push(item),
            }
        }
        if !self.tokens.is_empty() {
            let mut target = path.as_bytes().to_vec();
            if !kept.is_empty() {
                target.push(b'?');
                target.extend(kept.join(&b'&'));
            }
            self.target = Some(target);
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

    /// The protocols that the backend is offered, if a token was among them.
    pub(crate) fn protocols_left(&self) -> Option<&str> {
        self.protocols.as_deref()
    }

    /// The target without tokens, if there were any.
    pub(crate) fn target(&self) -> Option<&[u8]> {
        self.target.as_deref()
    }

    /// The field to add: browsers close a connection if none of their protocols was chosen.
    pub(crate) fn choose(&self, answer: &impl ResponseHeadView) -> Option<(HeaderName, HeaderValue)> {
        let name = header::SEC_WEBSOCKET_PROTOCOL;
        let chosen = answer.values(&name).next().is_some();
        (self.offers_bearer && !chosen).then(|| (name, HeaderValue::from_static("bearer")))
    }
}

/// The protocol that a request asks to switch to, as written, if it is one of these (RFC 9110, 7.8). A request that
/// lists several gets none: the protocol after the switch must be unambiguous.
pub(crate) fn asked_protocol(protocols: &[String], incoming: &Incoming<'_>) -> Option<String> {
    if protocols.is_empty() || incoming.is_websocket {
        return None;
    }
    let asked = incoming.single(header::UPGRADE.as_str())?.trim();
    let is_known = protocols.iter().any(|own| own.eq_ignore_ascii_case(asked));
    let mut options = items(incoming.headers, &header::CONNECTION);
    (is_known && options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))).then(|| asked.to_owned())
}

/// Whether a 101 switches to this protocol; the error says why not.
pub(crate) fn is_switched(protocol: &str, answer: &impl ResponseHeadView) -> Result<(), &'static str> {
    if !connection_options(answer).any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return Err("101 without Connection: upgrade");
    }
    match only(answer, &header::UPGRADE) {
        Some(own) if own.eq_ignore_ascii_case(protocol.as_bytes()) => Ok(()),
        _ => Err("101 to a protocol that was not requested"),
    }
}

/// Whether a 101 is a valid response to this handshake (RFC 6455, 4.1; RFC 9110, 7.8); the error says why not. A server
/// may send 101 to any client that asks for that status, and continue in HTTP: forwarded, that would bypass every rule.
/// `taken` is the part of the client's handshake that the server did not see.
pub(crate) fn is_granted(
    asked: &HeaderMap,
    taken: Option<&Handshake>,
    answer: &impl ResponseHeadView,
) -> Result<(), &'static str> {
    if !connection_options(answer).any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return Err("101 without Connection: upgrade");
    }
    if only(answer, &header::UPGRADE).is_none_or(|protocol| !protocol.eq_ignore_ascii_case(b"websocket")) {
        return Err("101 to a protocol other than websocket");
    }
    let mut keys = asked.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none());
    let accept = key.and_then(|key| websocket::accept(key.as_bytes()));
    if accept.is_none() || only(answer, &header::SEC_WEBSOCKET_ACCEPT) != accept.as_deref().map(str::as_bytes) {
        return Err("101 without the Sec-WebSocket-Accept of this handshake");
    }
    let chosen = answer.values(&header::SEC_WEBSOCKET_EXTENSIONS).flat_map(|line| line.split(|&b| b == b','));
    let chosen: Vec<_> = chosen.map(extension).filter(|name| !name.is_empty()).take(EXTENSIONS_MAX + 1).collect();
    let is_offered = |name: &&[u8]| items(asked, &header::SEC_WEBSOCKET_EXTENSIONS).any(|own| extension(own) == *name);
    if chosen.len() > EXTENSIONS_MAX || !chosen.iter().all(is_offered) {
        return Err("101 with an extension that was not offered");
    }
    if answer.values(&header::SEC_WEBSOCKET_PROTOCOL).next().is_none() {
        return Ok(());
    }
    let chosen = only(answer, &header::SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    let is_offered = match taken.and_then(Handshake::protocols_left) {
        Some(left) => left.split(", ").any(|own| own.as_bytes() == chosen),
        None => items(asked, &header::SEC_WEBSOCKET_PROTOCOL).any(|own| own == chosen),
    };
    if is_offered && !chosen.is_empty() { Ok(()) } else { Err("101 with a subprotocol that was not offered") }
}

/// The value of a field that occurs exactly once.
fn only<'a>(answer: &'a impl ResponseHeadView, name: &'a HeaderName) -> Option<&'a [u8]> {
    let mut values = answer.values(name);
    values.next().filter(|_| values.next().is_none()).map(<[u8]>::trim_ascii)
}

/// The items of all fields of this name.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().flat_map(|line| line.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii)
}

/// The name of an extension, without its parameters.
fn extension(item: &[u8]) -> &[u8] {
    item.split(|&b| b == b';').next().unwrap_or_default().trim_ascii()
}
