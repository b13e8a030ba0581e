//! Small pure steps of the line: what a head's fault is answered with, what an upstream's answer may carry to the client.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_http::authority::{RawTargetAuthority, is_http_family_scheme, raw_target_authority};
use pingora_http::{RequestHeader, ResponseHeader};

use super::authorize::Refusal;
use super::caching::{self, Asker, CacheRules};
use super::cors::{self, CorsAnswer};
use super::forward::Stripper;
use super::guard::Guard;
use crate::account::Rejected;
use crate::config::{Config, Route};
use crate::metrics::Authz;
use crate::web::cookie;
use crate::web::host::Host;
use crate::web::incoming::Incoming;
use crate::web::names::Names;
use crate::web::origin::{Origin, Scheme};
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;
use crate::wire::request_target;
use crate::wire::response_head::{self, Answer, Framing};
use crate::wire::response_view::{AnswerHead, connection_options};

/// Two years (RFC 6797, 6.1). Hosts below this one may be somebody else's: they are not spoken for.
pub(super) const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Whether answers tell browsers never to come over plain http again: those over TLS do, once browsers use
/// nothing else.
pub(super) fn sends_hsts(config: &Config, guard: &Guard) -> bool {
    guard.secured().is_some() && config.server.public_url.scheme() == Scheme::Https
}

/// What the access line says of a credential that was not accepted.
pub(super) fn why_rejected(why: Rejected) -> &'static str {
    match why {
        Rejected::Invalid => "invalid credential",
        Rejected::Expired => "session expired",
        Rejected::Ended => "session ended",
    }
}

/// What the access line says of a refusal.
pub(super) fn why_refused(refusal: Refusal, incoming: &Incoming<'_>) -> &'static str {
    match refusal {
        Refusal::SignedOut if cors::preflight(incoming).is_some() => "preflight not allowed",
        Refusal::SignedOut => "signed out",
        Refusal::Forbidden => "forbidden",
        Refusal::OutOfScope => "scope",
        Refusal::CrossOrigin => "cross-origin",
    }
}

/// What the counters say of a refusal.
pub(super) fn authz(refusal: Refusal) -> Authz {
    match refusal {
        Refusal::SignedOut => Authz::SignedOut,
        Refusal::Forbidden | Refusal::OutOfScope => Authz::Forbidden,
        Refusal::CrossOrigin => Authz::CrossOrigin,
    }
}

/// 308 to the same place over https (RFC 9110, 15.4.9).
pub(super) fn to_https(config: &Config, incoming: &Incoming<'_>) -> Reply {
    let public = &config.server.public_url;
    let location = format!("{}{}", public.with_host(incoming.host), incoming.origin_form());
    let reply = Reply::empty(StatusCode::PERMANENT_REDIRECT);
    match HeaderValue::try_from(location) {
        Ok(location) => reply.with(header::LOCATION, location),
        Err(_) => Reply::empty(StatusCode::BAD_REQUEST),
    }
}

/// Absolute-form (RFC 9112, 3.2.2) becomes origin-form, if it names the same host as `Host`; every other target
/// that is not a path is refused.
pub(super) fn to_origin_form(head: &mut RequestHeader) -> Result<(), BadHead> {
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
    let told = head.headers.get(header::HOST).and_then(|host| parse(host.as_bytes()));
    told.is_some() && told == parse(authority)
}

/// A request id that a trusted proxy gave, if it is fit to be logged and echoed.
pub(super) fn told_request_id(headers: &HeaderMap) -> Option<String> {
    let told = headers.get("x-request-id")?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (!told.is_empty() && told.len() <= 64 && told.bytes().all(plain)).then(|| told.to_owned())
}

/// Whether a request signs in the connection that it goes over, and not itself alone (RFC 4559, 6): nobody else's may
/// go over it afterwards.
pub(super) fn signs_in_connection(headers: &HeaderMap, names: Names) -> bool {
    names.may_have(b"authorization")
        && headers.get_all(header::AUTHORIZATION).iter().any(|value| {
            let scheme = value.as_bytes().split(|b| !b.is_ascii_alphanumeric()).next().unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
        })
}

/// Methods that ask for nothing to be changed (RFC 9110, 9.2.1: safe).
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Methods whose second time changes nothing (RFC 9110, 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    is_repeatable(method) || matches!(*method, Method::PUT | Method::DELETE)
}

/// What becomes of an upstream's head on its way to the client: it cannot set our cookies, nor those that
/// carry its own token, nor speak for other origins unless the route leaves that to it. What its
/// `Connection` names is about that connection alone (RFC 9110, 7.6.1).
pub(super) struct AnswerChanges<'g> {
    stripper: &'g Stripper,
    app_speaks_cors: bool,
    nominated: Vec<HeaderName>,
    /// 1xx and 204 have no body to speak of (RFC 9110, 8.6; RFC 9112, 6.1).
    bodiless: bool,
    /// In the place of the upstream's `Cache-Control`.
    cache_control: Option<HeaderValue>,
    /// In the place of the upstream's `Vary`.
    vary: Option<HeaderValue>,
    /// What outdoes `Cache-Control` in some caches does not pass.
    drops_vendor_caching: bool,
    /// `Location` is replaced by one that we add.
    leads_home: bool,
    added: Vec<(HeaderName, HeaderValue)>,
}

impl<'g> AnswerChanges<'g> {
    pub(super) fn new(stripper: &'g Stripper, cors: &CorsAnswer, answer: &impl AnswerHead) -> Self {
        // what frames the body, what browsers keep and who may keep it is no connection's to take away
        const KEPT: [&str; 6] =
            ["connection", "content-length", "transfer-encoding", "set-cookie", "cache-control", "vary"];
        let mut nominated = Vec::new();
        if !answer.status().is_informational() {
            let others = connection_options(answer)
                .filter(|option| ![&b"close"[..], b"keep-alive"].iter().any(|own| own.eq_ignore_ascii_case(option)));
            nominated.extend(
                others
                    .filter_map(|name| HeaderName::from_bytes(name).ok())
                    .filter(|name| !KEPT.contains(&name.as_str())),
            );
        }
        let app_speaks_cors = matches!(cors, CorsAnswer::App);
        let bodiless = answer.status().is_informational() || answer.status() == StatusCode::NO_CONTENT;
        Self {
            stripper,
            app_speaks_cors,
            nominated,
            bodiless,
            cache_control: None,
            vary: None,
            drops_vendor_caching: false,
            leads_home: false,
            added: Vec::new(),
        }
    }

    /// Lays one person's cookie on an answer that is not meant for everybody, and keeps it out of shared caches:
    /// they may store whatever is not `private` by `max-age`, `Expires` or a guess, cookies included (RFC 9111, 3),
    /// with `no-cache` too.
    #[inline(never)]
    pub(super) fn lay(&mut self, cookie: HeaderValue, answer: &impl AnswerHead) {
        if is_shared(answer) {
            return;
        }
        self.set_cookies(vec![cookie], answer);
    }

    /// Puts a field, or none, in the place of all of the upstream's of this name.
    pub(super) fn replace(&mut self, name: HeaderName, value: Option<HeaderValue>) {
        self.nominated.push(name.clone());
        self.added.extend(value.map(|value| (name, value)));
    }

    /// Sets cookies for the one browser that asked, and keeps them out of shared caches.
    #[inline(never)]
    pub(super) fn set_cookies(&mut self, cookies: Vec<HeaderValue>, answer: &impl AnswerHead) {
        if cookies.is_empty() {
            return;
        }
        self.added.extend(cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie)));
        self.drops_vendor_caching = true;
        if self.cache_control.is_none() {
            self.cache_control = caching::private(answer);
        }
    }

    /// Keeps a final answer to the account that it was made for, where a route says so; the last of all changes.
    pub(super) fn keep_to_account<'r>(
        &mut self,
        routes: impl Iterator<Item = &'r Route>,
        answer: &impl AnswerHead,
        asker: Asker,
    ) {
        let is_vary = |(name, _): &&(HeaderName, HeaderValue)| name == header::VARY;
        let added = self.added.iter().filter(is_vary).map(|(_, value)| value);
        let Some(rules) = CacheRules::new(routes, answer, added, asker) else { return };
        self.drops_vendor_caching = true;
        if self.cache_control.is_none() {
            self.cache_control = rules.cache_control;
        }
        if rules.vary.is_some() {
            self.added.retain(|field| !is_vary(&field));
            self.vary = rules.vary;
        }
    }

    pub(super) fn extend(&mut self, fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>) {
        self.added.extend(fields);
    }

    /// An app that is told its own name leads to itself by it, past the gateway: such a `Location` becomes the path (nginx:
    /// `proxy_redirect default`). Any other one is what it says.
    #[inline(never)]
    pub(super) fn lead_home(&mut self, own: &Origin, prefix: &str, answer: &impl AnswerHead) {
        let mut told = answer.values(&header::LOCATION);
        let (Some(told), None) = (told.next(), told.next()) else { return };
        if let Some(path) = path_at(own, prefix, told).and_then(|path| HeaderValue::try_from(path).ok()) {
            self.leads_home = true;
            self.added.push((header::LOCATION, path));
        }
    }

    /// Whether the upstream's field does not pass.
    pub(super) fn drops(&self, name: &[u8], value: &[u8]) -> bool {
        let sets_ours = || self.stripper.is_ours(cookie::name_of(value));
        (name.eq_ignore_ascii_case(b"set-cookie") && sets_ours())
            || (!self.app_speaks_cors && CorsAnswer::is_replaced(name))
            || NOT_OURS.iter().any(|own| own.eq_ignore_ascii_case(name))
            || (self.leads_home && name.eq_ignore_ascii_case(b"location"))
            || (self.bodiless && FRAMING.iter().any(|own| own.eq_ignore_ascii_case(name)))
            || (self.cache_control.is_some() && name.eq_ignore_ascii_case(b"cache-control"))
            || (self.vary.is_some() && name.eq_ignore_ascii_case(b"vary"))
            || (self.drops_vendor_caching && is_vendor_caching(name))
            || self.nominated.iter().any(|own| own.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The fields that we add.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let added = self.added.iter().map(|(name, value)| (name, value));
        let replaced = [(&header::CACHE_CONTROL, &self.cache_control), (&header::VARY, &self.vary)];
        added.chain(replaced.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))))
    }

    /// Writes a server's head in HTTP/1 as the client gets it, with the framing of the body that is `sent`.
    pub(super) fn write(&self, answer: &Answer, sent: Framing, close: bool, out: &mut Vec<u8>) {
        response_head::write_answer(answer, |name, value| self.drops(name, value), self.fields(), (sent, close), out);
    }

    /// Changes a head in place.
    pub(super) fn apply(self, head: &mut ResponseHeader) {
        let drops = |(name, value): (&HeaderName, &HeaderValue)| {
            self.drops(name.as_str().as_bytes(), value.as_bytes()).then(|| name.clone())
        };
        let doomed: Vec<HeaderName> = head.headers.iter().filter_map(drops).collect();
        for name in doomed {
            let kept: Vec<HeaderValue> = head
                .headers
                .get_all(&name)
                .iter()
                .filter(|value| !self.drops(name.as_str().as_bytes(), value.as_bytes()))
                .cloned()
                .collect();
            head.remove_header(&name);
            for value in kept {
                let _ = head.append_header(&name, value);
            }
        }
        for (name, value) in self.fields() {
            let _ = head.append_header(name, value);
        }
    }
}

/// The path of an address at this origin, as clients see it behind the prefix. None where that could be read as another
/// origin.
fn path_at(own: &Origin, prefix: &str, address: &[u8]) -> Option<String> {
    let address = std::str::from_utf8(address).ok().filter(|address| address.bytes().all(|b| b.is_ascii_graphic()))?;
    let start = address.find("://")? + 3;
    let end = address[start..].find(['/', '?', '#', '\\']).map_or(address.len(), |at| start + at);
    Origin::parse(&address[..end]).filter(|origin| origin == own)?;
    let path = &address[end..];
    if path.starts_with("//") || path.contains('\\') {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let is_below = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    let prefix = if is_below { "" } else { prefix };
    Some(format!("{prefix}{slash}{path}"))
}

/// About the server's own connection, and where else it listens: that would lead browsers past the gateway (RFC 7838).
const NOT_OURS: [&[u8]; 2] = [b"keep-alive", b"alt-svc"];

const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

/// The shortest of them.
const VENDOR_CACHING_BYTES_MIN: usize = b"edge-control".len();

/// What tells one vendor's caches whether to store an answer, and outdoes `Cache-Control` there.
const VENDOR_CACHING: [&[u8]; 3] = [b"edge-control", b"surrogate-control", b"x-accel-expires"];

/// RFC 9213's and vendors' own for one kind of cache, such as `X-LiteSpeed-Cache-Control`.
fn is_vendor_caching(name: &[u8]) -> bool {
    const END: &[u8] = b"-cache-control";
    if name.len() < VENDOR_CACHING_BYTES_MIN {
        return false;
    }
    let targeted = name.len().checked_sub(END.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(END));
    targeted || VENDOR_CACHING.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The directives of all `Cache-Control` fields, in lower case.
fn directives(answer: &impl AnswerHead) -> impl Iterator<Item = String> {
    let lines = answer.values(&header::CACHE_CONTROL);
    let items = lines.flat_map(|line| line.split(|&b| b == b','));
    items.map(|item| String::from_utf8_lossy(item).trim().to_ascii_lowercase())
}

/// Whether the answer is meant for everybody: it says so, or it freshens one that a cache has stored (RFC 9111,
/// 4.3.4), with all its fields.
fn is_shared(answer: &impl AnswerHead) -> bool {
    answer.status() == StatusCode::NOT_MODIFIED
        || directives(answer).any(|directive| directive == "public" || directive.starts_with("s-maxage"))
}

/// Kinds of answers that are sent piece by piece for as long as there is something to tell, and whether they come to
/// an end by themselves: server-sent events (WHATWG HTML, 9.2), the pictures of cameras (the same, 7.1.7), and JSON
/// texts in a row (RFC 7464, and its relatives that have no RFC).
const STREAMS: [(&[u8], bool); 6] = [
    (b"text/event-stream", false),
    (b"multipart/x-mixed-replace", false),
    (b"application/json-seq", true),
    (b"application/stream+json", true),
    (b"application/x-ndjson", true),
    (b"application/jsonl", true),
];

/// Whether an answer is a stream of server-sent events: these have no end of their own, so that any is a clean one.
pub(super) fn is_server_sent(answer: &impl AnswerHead) -> bool {
    kind_of_body(answer).is_some_and(|kind| kind.eq_ignore_ascii_case(STREAMS[0].0))
}

/// Whether it is the answer to a gRPC call, which has a status in its trailers.
pub(super) fn is_grpc(answer: &impl AnswerHead) -> bool {
    kind_of_body(answer)
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/grpc") || kind.starts_with(b"application/grpc+"))
}

fn kind_of_body(answer: &impl AnswerHead) -> Option<&[u8]> {
    let kind = answer.values(&header::CONTENT_TYPE).next()?;
    Some(kind.split(|&byte| byte == b';').next()?.trim_ascii())
}

/// Whether an answer is a stream of events; if so, whether it ends by itself.
pub(super) fn is_event_stream(answer: &impl AnswerHead) -> Option<bool> {
    let kind = kind_of_body(answer)?;
    STREAMS.iter().find(|(stream, _)| stream.eq_ignore_ascii_case(kind)).map(|(_, ends)| *ends)
}
