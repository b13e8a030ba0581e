//! The head of a request -> [`NormalRequest`]: target, host, scheme and client in normal form. Ambiguous heads are
//! refused here, before any decision. Trust in forwarded fields depends on the peer's address alone.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora_http::RequestHeader;
use pingora_http::authority::{RawTargetAuthority, is_http_family_scheme, raw_target_authority};

use crate::config::{Config, Limits, Server};
use crate::web::host::Host;
use crate::web::incoming::Incoming;
use crate::web::names::Names;
use crate::web::origin::{Origin, Scheme};
use crate::web::readings::OwnedPath;
use crate::wire::head_error::BadHead;
use crate::wire::request_head::Head;
use crate::wire::request_target;
use crate::wire::tls_info::TlsInfo;

static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Limit on the bytes of all `Connection` fields: each option costs a lookup in the head, here and at the next hop.
const CONNECTION_BYTES_MAX: usize = 512;

/// The address that the peer of a Unix socket counts as.
pub(crate) const UNIX_PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What the connection knows about its peer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    /// Address of the TCP peer; `None` on a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// Whether the peer may state the client's address, host and scheme.
    pub(crate) trusted: bool,
    /// Whether the connection uses TLS.
    pub(crate) secure: bool,
}

impl Peer {
    /// A Unix socket's peer counts as [`UNIX_PEER`].
    pub(crate) fn new(address: Option<IpAddr>, secure: bool, server: &Server) -> Self {
        let address = address.map(|ip| ip.to_canonical());
        let counted = address.unwrap_or(UNIX_PEER);
        Self { address, trusted: is_trusted(server, counted), secure }
    }
}

/// One request in normal form: its head, and the facts that were read from it once. Every later step uses these.
#[derive(Debug)]
pub(crate) struct NormalRequest {
    head: Box<Head>,
    facts: Facts,
}

impl NormalRequest {
    /// `facts` must have been read from this head by [`read`].
    pub(crate) fn new(head: Box<Head>, facts: Facts) -> Self {
        Self { head, facts }
    }

    /// The head, parsed and as received.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn parsed(&self) -> &RequestHeader {
        &self.head.parsed
    }

    /// Path and query as received.
    pub(crate) fn target(&self) -> &[u8] {
        request_target::of(&self.head.parsed)
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The view of the request that every decision uses.
    pub(crate) fn incoming(&self) -> Incoming<'_> {
        self.facts.of(&self.head.parsed)
    }

    /// The same request with only its method and target.
    pub(crate) fn without_fields(mut self) -> Self {
        self.head.drop_fields();
        self.facts.names = Names::NONE;
        self
    }
}

/// Facts read from one head.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) host: Host,
    /// `Host` has another spelling, or a trusted proxy named another host.
    host_differs: bool,
    /// The port that a trusted proxy named.
    port: Option<u16>,
    pub(crate) scheme: Scheme,
    pub(crate) client: Option<IpAddr>,
    pub(crate) is_websocket: bool,
    /// Which fields the head may contain.
    pub(crate) names: Names,
    path: OwnedPath,
}

impl Facts {
    /// The view of the head that these facts were read from.
    fn of<'a>(&'a self, head: &'a RequestHeader) -> Incoming<'a> {
        let path = self.path.as_path();
        Incoming {
            method: &head.method,
            query: request_target::of(head).get(path.as_str().len() + 1..),
            path,
            headers: &head.headers,
            names: self.names,
            host: &self.host,
            scheme: self.scheme,
            client: self.client,
            is_websocket: self.is_websocket,
        }
    }

    /// The host that decisions used, if the client's `Host` is not spelled exactly like it.
    pub(crate) fn judged_host(&self) -> Option<&str> {
        self.host_differs.then(|| self.host.as_str())
    }

    /// The port that the client uses: the one that a trusted proxy names, else the one in `Host`, else that of
    /// `public_url` on its own host, else the scheme's default.
    pub(crate) fn port(&self, public_url: &Origin) -> Cow<'_, str> {
        if let Some(port) = self.port {
            return port.to_string().into();
        }
        if let Some(digits) = self.host.port_digits() {
            return digits.into();
        }
        if self.host.name() == public_url.host() && self.scheme == public_url.scheme() {
            return match public_url.port() {
                443 => "443".into(),
                80 => "80".into(),
                port => port.to_string().into(),
            };
        }
        if self.scheme == Scheme::Https { "443".into() } else { "80".into() }
    }
}

/// Checks that apply to every request. Returns which fields the head may contain.
pub(crate) fn check(
    parts: &http::request::Parts,
    target_bytes: usize,
    head_bytes: usize,
    limits: &Limits,
) -> Result<Names, BadHead> {
    if parts.headers.len() > limits.head_fields {
        return Err(BadHead::TooLarge);
    }
    if target_bytes > limits.head_bytes / 2 {
        return Err(BadHead::TargetTooLong);
    }
    if head_bytes > limits.head_bytes {
        return Err(BadHead::TooLarge);
    }
    if !matches!(parts.version, Version::HTTP_10 | Version::HTTP_11) {
        return Err(BadHead::Ambiguous("version"));
    }
    if is_never_served(&parts.method) {
        return Err(BadHead::Method);
    }
    // methods are case-sensitive in rules, but not in every app
    if parts.method.as_str().bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(BadHead::Ambiguous("method"));
    }
    let names = Names::of(&parts.headers);
    if has(names, &CONNECTION)
        && parts.headers.get_all(CONNECTION).iter().map(HeaderValue::len).sum::<usize>() > CONNECTION_BYTES_MAX
    {
        return Err(BadHead::TooLarge);
    }
    if has(names, &CONTENT_LENGTH) || has(names, &TRANSFER_ENCODING) {
        check_framing(&parts.headers)?;
    }
    // HTTP/1.0 has no chunked coding: readers of such a body disagree (RFC 9112, 6.1)
    if parts.version == Version::HTTP_10 && parts.headers.contains_key(TRANSFER_ENCODING) {
        return Err(BadHead::Ambiguous("transfer-encoding"));
    }
    Ok(names)
}

/// Whether the head may contain a field of this name.
fn has(names: Names, name: &HeaderName) -> bool {
    names.may_have(name.as_str().as_bytes())
}

/// CONNECT is a tunnel to anywhere; TRACE and TRACK show the request to scripts.
pub(crate) fn is_never_served(method: &Method) -> bool {
    matches!(method.as_str(), "CONNECT" | "TRACE" | "TRACK")
}

/// One length or one coding: anything that two parsers could frame differently is refused (RFC 9112, 6.3).
fn check_framing(headers: &HeaderMap) -> Result<(), BadHead> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (!is_length(length.as_bytes()) || lengths.next().is_some() || headers.contains_key(TRANSFER_ENCODING))
    {
        return Err(BadHead::Ambiguous("content-length"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (!coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some())
    {
        return Err(BadHead::Ambiguous("transfer-encoding"));
    }
    Ok(())
}

/// A number in its only canonical form: no sign, no leading zero, and small enough for a counter.
fn is_length(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_digit) && (bytes == b"0" || (matches!(bytes, [b'1'..=b'9', ..]) && bytes.len() <= 19))
}

/// Reads a head: checks it, rewrites an absolute target to a path, and extracts host, scheme, client and path.
/// `head_bytes` is its size on the wire, `tls` the result of the client's TLS handshake.
pub(crate) fn read(
    head: &mut RequestHeader,
    head_bytes: usize,
    peer: Peer,
    tls: Option<&TlsInfo>,
    config: &Config,
) -> Result<Facts, BadHead> {
    let names = check(head, request_target::of(head).len(), head_bytes, &config.limits)?;
    to_origin_form(head)?;
    let (headers, server) = (&head.headers, &config.server);
    let own_host = single(headers, &HOST)?.ok_or(BadHead::Ambiguous("host"))?;
    let mut host = Host::parse(own_host).ok_or(BadHead::Ambiguous("host"))?;
    let mut scheme = if peer.secure { Scheme::Https } else { Scheme::Http };
    let (mut client, mut port) = (peer.address, None);
    if peer.trusted {
        if let Some(name) = last_item(headers, &X_FORWARDED_HOST) {
            let named = std::str::from_utf8(name).ok().and_then(Host::parse);
            host = named.ok_or(BadHead::Ambiguous("x-forwarded-host"))?;
        }
        if let Some(proto) = last_item(headers, &X_FORWARDED_PROTO) {
            scheme = scheme_of(proto).ok_or(BadHead::Ambiguous("x-forwarded-proto"))?;
        }
        port = last_item(headers, &X_FORWARDED_PORT).and_then(port_of);
        client = client_behind(headers, peer.address, server);
    }
    let is_websocket = has(names, &UPGRADE) && is_websocket(head)?;
    let host_differs = host.as_str() != own_host;
    // a trusted proxy may send requests for all hosts over one connection
    if tls.is_some_and(|tls| !peer.trusted && !tls.covers(host.name())) {
        return Err(BadHead::Misdirected);
    }
    let path = read_target(request_target::of(head))?;
    Ok(Facts { host, host_differs, port, scheme, client, is_websocket, names, path })
}

/// Reads the path of a target, and checks its query.
fn read_target(target: &[u8]) -> Result<OwnedPath, BadHead> {
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    let path = OwnedPath::parse(path).map_err(|_| BadHead::Ambiguous("path"))?;
    let is_plain = query.iter().all(|&b| b > 0x20 && b != 0x7f && b != b'#');
    if is_plain { Ok(path) } else { Err(BadHead::Ambiguous("query")) }
}

/// Absolute-form (RFC 9112, 3.2.2) becomes origin-form if it names the same host as `Host`. Any other target that is
/// not a path is refused.
fn to_origin_form(head: &mut RequestHeader) -> Result<(), BadHead> {
    let raw = request_target::of(head);
    if raw.first() == Some(&b'/') {
        return Ok(());
    }
    let target = match raw_target_authority(raw) {
        RawTargetAuthority::Absolute { scheme, authority, path_and_query }
            if is_http_family_scheme(scheme) && is_host(head, authority) =>
        {
            if path_and_query.first() == Some(&b'/') {
                path_and_query.to_vec()
            } else {
                [b"/", path_and_query].concat()
            }
        }
        _ => return Err(BadHead::Ambiguous("target")),
    };
    request_target::set(head, &target).map_err(|_| BadHead::Ambiguous("target"))
}

fn is_host(head: &RequestHeader, authority: &[u8]) -> bool {
    let parse = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(Host::parse);
    let told = head.headers.get(HOST).and_then(|host| parse(host.as_bytes()));
    told.is_some() && told == parse(authority)
}

/// The request id from a trusted proxy, if it is safe to log and echo.
pub(crate) fn trusted_request_id(headers: &HeaderMap) -> Option<String> {
    let told = headers.get("x-request-id")?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (!told.is_empty() && told.len() <= 64 && told.bytes().all(plain)).then(|| told.to_owned())
}

/// A field that may occur once; a repeated or unreadable one is ambiguous.
fn single<'a>(headers: &'a HeaderMap, name: &'static HeaderName) -> Result<Option<&'a str>, BadHead> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(BadHead::Ambiguous(name.as_str()));
    }
    first.to_str().map(Some).map_err(|_| BadHead::Ambiguous(name.as_str()))
}

/// The nearest proxy's value in a field: the last item that is not empty, across all lines. Earlier items reached that
/// proxy from elsewhere.
fn last_item<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let lines = headers.get_all(name).iter().rev();
    let mut items = lines.flat_map(|line| line.as_bytes().rsplit(|&b| b == b',')).map(<[u8]>::trim_ascii);
    items.find(|item| !item.is_empty())
}

/// Whether `X-Forwarded-Proto` says https under any of its names, from any peer, trusted or not.
pub(crate) fn says_https(headers: &HeaderMap) -> bool {
    last_item(headers, &X_FORWARDED_PROTO).and_then(scheme_of) == Some(Scheme::Https)
}

/// Proxies may report a WebSocket by the scheme that scripts use (RFC 6455, 3).
fn scheme_of(name: &[u8]) -> Option<Scheme> {
    let is = |own: &[&str]| own.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name));
    if is(&["https", "wss"]) { Some(Scheme::Https) } else { is(&["http", "ws"]).then_some(Scheme::Http) }
}

fn port_of(digits: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|&port| port > 0)
}

/// The right-most address that is not a trusted proxy's. An unreadable item ends the search: the last address read
/// counts, at first the peer's.
fn client_behind(headers: &HeaderMap, peer: Option<IpAddr>, server: &Server) -> Option<IpAddr> {
    let mut client = peer;
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    // byte by byte: a line with something unreadable in it is not skipped for an earlier one
    for item in lines.flat_map(|line| line.as_bytes().rsplit(|&b| b == b',')) {
        let Some(address) = std::str::from_utf8(item.trim_ascii()).ok().and_then(read_address) else { break };
        client = Some(address);
        if !is_trusted(server, address) {
            break;
        }
    }
    client
}

fn read_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let plain = bare.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    plain.or_else(with_port).map(|address| address.to_canonical())
}

pub(crate) fn is_trusted(server: &Server, address: IpAddr) -> bool {
    server.trusted_proxies.iter().any(|net| net.contains(&address))
}

/// RFC 6455, 4.1. An upgrade to another protocol does not count as one. A handshake with a body is refused, because its
/// bytes could be read as frames.
fn is_websocket(parts: &http::request::Parts) -> Result<bool, BadHead> {
    let headers = &parts.headers;
    if !headers.contains_key(UPGRADE) {
        return Ok(false);
    }
    let upgrade = lists(headers, &UPGRADE, "websocket");
    let connection = lists(headers, &CONNECTION, "upgrade");
    let handshake = upgrade && connection && parts.version == Version::HTTP_11;
    if !handshake {
        return Ok(false);
    }
    let length = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes().iter().any(|&b| b != b'0'));
    if parts.method != Method::GET || length || headers.contains_key(TRANSFER_ENCODING) {
        return Err(BadHead::Ambiguous("websocket handshake"));
    }
    Ok(true)
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|line| line.to_str().is_ok_and(|line| line.split(',').any(|item| item.trim().eq_ignore_ascii_case(token))))
}
