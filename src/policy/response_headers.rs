//! What a server's response may carry to the client: the fields that are dropped, and those that are added.

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;

use super::caching::{self, Asker, CacheRules};
use super::cors::CorsAnswer;
use super::header_filter::HeaderFilter;
use crate::config::Route;
use crate::web::cookie;
use crate::web::origin::Origin;
use crate::wire::response_head::{self, Answer, Framing};
use crate::wire::response_view::{ResponseHeadView, connection_options};

/// What becomes of an upstream's head on its way to the client: it cannot set our cookies, nor those that
/// carry its own token, nor speak for other origins unless the route leaves that to it. What its
/// `Connection` names is about that connection alone (RFC 9110, 7.6.1).
pub(crate) struct ResponseHeaderPolicy<'g> {
    header_filter: &'g HeaderFilter,
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

impl<'g> ResponseHeaderPolicy<'g> {
    pub(crate) fn new(header_filter: &'g HeaderFilter, cors: &CorsAnswer, answer: &impl ResponseHeadView) -> Self {
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

    /// Lays one person's cookie on an answer that is not meant for everybody, and keeps it out of shared caches:
    /// they may store whatever is not `private` by `max-age`, `Expires` or a guess, cookies included (RFC 9111, 3),
    /// with `no-cache` too.
    #[inline(never)]
    pub(crate) fn add_session_cookie(&mut self, cookie: HeaderValue, answer: &impl ResponseHeadView) {
        if is_shared(answer) {
            return;
        }
        self.set_cookies(vec![cookie], answer);
    }

    /// Puts a field, or none, in the place of all of the upstream's of this name.
    pub(crate) fn replace(&mut self, name: HeaderName, value: Option<HeaderValue>) {
        self.nominated.push(name.clone());
        self.added.extend(value.map(|value| (name, value)));
    }

    /// Sets cookies for the one browser that asked, and keeps them out of shared caches.
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

    /// Keeps a final answer to the account that it was made for, where a route says so; the last of all changes.
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

    /// An app that is told its own name leads to itself by it, past the gateway: such a `Location` becomes the path (nginx:
    /// `proxy_redirect default`). Any other one is what it says.
    #[inline(never)]
    pub(crate) fn lead_home(&mut self, own: &Origin, prefix: &str, answer: &impl ResponseHeadView) {
        let mut told = answer.values(&header::LOCATION);
        let (Some(told), None) = (told.next(), told.next()) else { return };
        if let Some(path) = path_at(own, prefix, told).and_then(|path| HeaderValue::try_from(path).ok()) {
            self.leads_home = true;
            self.added.push((header::LOCATION, path));
        }
    }

    /// Whether the upstream's field does not pass.
    pub(crate) fn drops(&self, name: &[u8], value: &[u8]) -> bool {
        let sets_ours = || self.header_filter.is_ours(cookie::name_of(value));
        (name.eq_ignore_ascii_case(b"set-cookie") && sets_ours())
            || (!self.app_speaks_cors && CorsAnswer::is_replaced(name))
            || name.eq_ignore_ascii_case(ALT_SVC)
            || (self.leads_home && name.eq_ignore_ascii_case(b"location"))
            || (self.bodiless && FRAMING.iter().any(|own| own.eq_ignore_ascii_case(name)))
            || (self.cache_control.is_some() && name.eq_ignore_ascii_case(b"cache-control"))
            || (self.vary.is_some() && name.eq_ignore_ascii_case(b"vary"))
            || (self.drops_vendor_caching && is_vendor_caching(name))
            || self.nominated.iter().any(|own| own.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The fields that we add.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let added = self.added.iter().map(|(name, value)| (name, value));
        let replaced = [(&header::CACHE_CONTROL, &self.cache_control), (&header::VARY, &self.vary)];
        added.chain(replaced.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))))
    }

    /// Writes a server's head in HTTP/1 as the client gets it, with the framing of the body that is `sent`.
    pub(crate) fn write(&self, answer: &Answer, sent: Framing, close: bool, out: &mut Vec<u8>) {
        response_head::write_answer(answer, |name, value| self.drops(name, value), self.fields(), (sent, close), out);
    }

    /// Changes a head in place.
    pub(crate) fn apply(self, head: &mut ResponseHeader) {
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

/// Other addresses of the server: browsers would bypass the gateway (RFC 7838).
const ALT_SVC: &[u8] = b"alt-svc";

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
fn directives(answer: &impl ResponseHeadView) -> impl Iterator<Item = String> {
    let lines = answer.values(&header::CACHE_CONTROL);
    let items = lines.flat_map(|line| line.split(|&b| b == b','));
    items.map(|item| String::from_utf8_lossy(item).trim().to_ascii_lowercase())
}

/// Whether the answer is meant for everybody: it says so, or it freshens one that a cache has stored (RFC 9111,
/// 4.3.4), with all its fields.
fn is_shared(answer: &impl ResponseHeadView) -> bool {
    answer.status() == StatusCode::NOT_MODIFIED
        || directives(answer).any(|directive| directive == "public" || directive.starts_with("s-maxage"))
}
