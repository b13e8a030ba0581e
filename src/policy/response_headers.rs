//! What an upstream's response may carry to the client: the fields that are dropped, and those that are added.

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;

use super::caching::{self, Asker, CacheRules};
use super::cors::CorsAnswer;
use super::header_filter::HeaderFilter;
use crate::config::Route;
use crate::web::cookie;
use crate::web::names::{Names, is_named};
use crate::web::origin::Origin;
use crate::wire::response_head::{self, Answer, Framing};
use crate::wire::response_view::{ResponseHeadView, connection_options};

/// How an upstream's head changes on its way to the client. It cannot set the gateway's cookies or those that carry its
/// own token, nor allow other origins unless the route leaves that to it. Fields that its `Connection` names apply to
/// that connection alone (RFC 9110, 7.6.1).
pub(crate) struct ResponseHeaderPolicy<'g> {
    header_filter: &'g HeaderFilter,
    app_speaks_cors: bool,
    nominated: Vec<HeaderName>,
    /// 1xx and 204 have no body, so no framing fields (RFC 9110, 8.6; RFC 9112, 6.1).
    bodiless: bool,
    /// Replaces the upstream's `Cache-Control`.
    cache_control: Option<HeaderValue>,
    /// Replaces the upstream's `Vary`.
    vary: Option<HeaderValue>,
    /// Fields that override `Cache-Control` in some caches are dropped.
    drops_vendor_caching: bool,
    /// `Location` is replaced by one that the gateway adds.
    leads_home: bool,
    added: Vec<(HeaderName, HeaderValue)>,
}

impl<'g> ResponseHeaderPolicy<'g> {
    pub(crate) fn new(header_filter: &'g HeaderFilter, cors: &CorsAnswer, answer: &impl ResponseHeadView) -> Self {
        // `Connection` cannot remove framing, cookies or cache rules
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
            header_filter,
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

    /// Adds one user's cookie to a response, unless that is meant for everyone, and keeps it out of shared caches.
    /// These may store any response that is not `private` by `max-age`, `Expires` or a heuristic, cookies included (RFC
    /// 9111, 3), even with `no-cache`.
    #[inline(never)]
    pub(crate) fn add_session_cookie(&mut self, cookie: HeaderValue, answer: &impl ResponseHeadView) {
        if is_shared(answer) {
            return;
        }
        self.set_cookies(vec![cookie], answer);
    }

    /// Replaces all of the upstream's fields of this name with one field, or with none.
    pub(crate) fn replace(&mut self, name: HeaderName, value: Option<HeaderValue>) {
        self.nominated.push(name.clone());
        self.added.extend(value.map(|value| (name, value)));
    }

    /// Sets cookies for the requesting browser alone, and keeps them out of shared caches.
    #[inline(never)]
    pub(crate) fn set_cookies(&mut self, cookies: Vec<HeaderValue>, answer: &impl ResponseHeadView) {
        if cookies.is_empty() {
            return;
        }
        self.added.extend(cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie)));
        self.drops_vendor_caching = true;
        if self.cache_control.is_none() {
            self.cache_control = caching::private(answer);
        }
    }

    /// Limits caching of a final response to its account, if a route says so; must be the last change.
    pub(crate) fn keep_to_account<'r>(
        &mut self,
        routes: impl Iterator<Item = &'r Route>,
        answer: &impl ResponseHeadView,
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

    pub(crate) fn extend(&mut self, fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>) {
        self.added.extend(fields);
    }

    /// An app that receives its own name as `Host` redirects to that name, past the gateway. Such a `Location` becomes
    /// a path (nginx: `proxy_redirect default`); any other is unchanged.
    #[inline(never)]
    pub(crate) fn rewrite_location(&mut self, own: &Origin, prefix: &str, answer: &impl ResponseHeadView) {
        let mut told = answer.values(&header::LOCATION);
        let (Some(told), None) = (told.next(), told.next()) else { return };
        if let Some(path) = path_at(own, prefix, told).and_then(|path| HeaderValue::try_from(path).ok()) {
            self.leads_home = true;
            self.added.push((header::LOCATION, path));
        }
    }

    /// Whether the upstream's field is dropped.
    pub(crate) fn drops(&self, name: &[u8], value: &[u8]) -> bool {
        (SOMETIMES_DROPPED.may_have(name) && self.drops_named(name, value))
            || (!self.app_speaks_cors && CorsAnswer::is_replaced(name))
            || (self.drops_vendor_caching && is_vendor_caching(name))
            || self.nominated.iter().any(|own| own.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    fn drops_named(&self, name: &[u8], value: &[u8]) -> bool {
        let is = |own: &str| is_named(name, own.as_bytes());
        (is(SET_COOKIE) && self.header_filter.is_ours(cookie::name_of(value)))
            || is(ALT_SVC)
            || (self.leads_home && is(LOCATION))
            || (self.bodiless && FRAMING.iter().any(|own| is(own)))
            || (self.cache_control.is_some() && is(CACHE_CONTROL))
            || (self.vary.is_some() && is(VARY))
    }

    /// The fields that the gateway adds.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let added = self.added.iter().map(|(name, value)| (name, value));
        let replaced = [(&header::CACHE_CONTROL, &self.cache_control), (&header::VARY, &self.vary)];
        added.chain(replaced.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))))
    }

    /// Writes an upstream's head in HTTP/1 as the client receives it, with the framing of the body that is `sent`.
    pub(crate) fn write(&self, answer: &Answer, sent: Framing, close: bool, out: &mut Vec<u8>) {
        response_head::write_answer(answer, |name, value| self.drops(name, value), self.fields(), (sent, close), out);
    }

    /// The head as the client receives it, but for the fields about its connection.
    pub(crate) fn apply(&self, mut head: ResponseHeader) -> ResponseHeader {
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
        head.remove_header(&header::CONNECTION);
        head
    }
}

/// The path of a URL at this origin, as clients see it behind the prefix. `None` if it could be read as another origin.
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

/// Other addresses of the server, with which browsers would bypass the gateway (RFC 7838).
const ALT_SVC: &str = "alt-svc";

const SET_COOKIE: &str = "set-cookie";
const LOCATION: &str = "location";
const CACHE_CONTROL: &str = "cache-control";
const VARY: &str = "vary";
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// The names that [`ResponseHeaderPolicy::drops_named`] compares, to skip that for most fields.
const SOMETIMES_DROPPED: Names = Names::NONE
    .with(SET_COOKIE.as_bytes())
    .with(ALT_SVC.as_bytes())
    .with(LOCATION.as_bytes())
    .with(FRAMING[0].as_bytes())
    .with(FRAMING[1].as_bytes())
    .with(CACHE_CONTROL.as_bytes())
    .with(VARY.as_bytes());

/// Length of the shortest name.
const VENDOR_CACHING_BYTES_MIN: usize = b"edge-control".len();

/// Fields that control one vendor's caches and override `Cache-Control` there.
const VENDOR_CACHING: [&[u8]; 3] = [b"edge-control", b"surrogate-control", b"x-accel-expires"];

/// Includes the fields of RFC 9213 and of vendors for one kind of cache, such as `X-LiteSpeed-Cache-Control`.
fn is_vendor_caching(name: &[u8]) -> bool {
    const END: &[u8] = b"-cache-control";
    if name.len() < VENDOR_CACHING_BYTES_MIN {
        return false;
    }
    let targeted = name.len().checked_sub(END.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(END));
    targeted || VENDOR_CACHING.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The directives of all `Cache-Control` fields, in lower case.
fn directives(answer: &impl ResponseHeadView) -> impl Iterator<Item = String> {
    let lines = answer.values(&header::CACHE_CONTROL);
    let items = lines.flat_map(|line| line.split(|&b| b == b','));
    items.map(|item| String::from_utf8_lossy(item).trim().to_ascii_lowercase())
}

/// Whether the response is meant for everyone: it says so, or it refreshes one that a cache has stored (RFC 9111,
/// 4.3.4), with all its fields.
fn is_shared(answer: &impl ResponseHeadView) -> bool {
    answer.status() == StatusCode::NOT_MODIFIED
        || directives(answer).any(|directive| directive == "public" || directive.starts_with("s-maxage"))
}
