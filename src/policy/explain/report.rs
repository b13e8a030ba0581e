//! What `authgate explain` reports about one request: plain data, for people and as JSON.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Method, header};
use serde::Serialize;

use crate::account::User;
use crate::config::{Access, Miss, Route, Upstream, UpstreamProtocol, UpstreamServer};
use crate::pages::Page;
use crate::policy::authorize::Refusal;
use crate::policy::reply_head;
use crate::policy::request_headers::Changes;
use crate::web::cookie;
use crate::web::host::HostPattern;
use crate::web::incoming::Incoming;
use crate::web::origin::Scheme;
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;

/// A request that is only simulated.
#[derive(Debug, Clone)]
pub struct SimulatedRequest {
    /// Method.
    pub method: Method,
    /// Path and query on `public_url`, or an absolute address.
    pub target: String,
    /// Its header fields. A GET is a navigation unless they say otherwise.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who is signed in.
    pub user: Option<User>,
}

/// How a request would be handled, and why.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The request as given.
    pub request: String,
    /// `navigation`, `WebSocket handshake` or `request`.
    pub kind: &'static str,
    /// Who is signed in.
    pub user: Option<PrincipalReport>,
    /// The routes up to the one that matches, in order.
    pub routes: Vec<RouteTried>,
    /// The route that matches, counted from 1 as in the access log.
    pub route: Option<usize>,
    /// How a backend may read its path, the path as received first; empty if there is only one reading.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<ReadingReport>,
    /// In the words of a test's `expect`: `forward NAME`, `login`, `page`, or a status.
    pub verdict: String,
    /// One sentence.
    pub why: String,
    /// The gateway's own response.
    pub reply: Option<Answer>,
    /// The request that the upstream receives.
    pub upstream: Option<Forwarded>,
    /// What this explanation leaves out.
    pub notes: Vec<&'static str>,
    /// Whether the gateway's own responses carry HSTS.
    #[serde(skip)]
    hsts: bool,
}

/// A signed-in user.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct PrincipalReport {
    pub email: String,
    pub groups: Vec<String>,
}

/// One route that was checked.
#[derive(Debug, Serialize)]
pub struct RouteTried {
    /// Counted from 1, as in the access log.
    pub route: usize,
    /// Its line in the file.
    pub line: usize,
    /// Host, path and methods as written.
    pub takes: String,
    /// What does not match; `None`: the route matches the request.
    pub misses: Option<&'static str>,
}

/// One reading of the path.
#[derive(Debug, Serialize)]
pub struct ReadingReport {
    /// Unescaped; a slash that is part of its segment is `%2F`.
    pub path: String,
    /// The route that matches, counted from 1.
    pub route: Option<usize>,
    /// How the request would be handled if this is its path: `forward NAME`, `page`, or a status.
    pub verdict: String,
}

/// A response of the gateway's own.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Header fields in order.
    pub headers: Vec<(String, String)>,
    /// The body, unless it is a page.
    pub body: Option<String>,
}

/// A request as an upstream receives it.
#[derive(Debug, Serialize)]
pub struct Forwarded {
    /// Name of the upstream.
    pub name: String,
    /// Its servers.
    pub servers: Vec<String>,
    /// Method and target.
    pub request: String,
    /// Header fields in order.
    pub headers: Vec<(String, String)>,
    /// What the client sent and the upstream does not receive, or receives with another value.
    pub removed: Vec<String>,
}

impl Explanation {
    pub(crate) fn of(asked: &SimulatedRequest, scheme: Scheme, host: &str, target: &str, hsts: bool) -> Self {
        Self {
            request: format!("{} {}://{host}{target}", asked.method, scheme.as_str()),
            kind: "request",
            user: asked
                .user
                .as_ref()
                .map(|user| PrincipalReport { email: user.email.clone(), groups: user.groups.clone() }),
            routes: Vec::new(),
            route: None,
            readings: Vec::new(),
            verdict: String::new(),
            why: String::new(),
            reply: None,
            upstream: None,
            notes: Vec::new(),
            hsts,
        }
    }

    pub(crate) fn note(&mut self, incoming: &Incoming<'_>, carries_credential: bool) {
        if incoming.is_websocket {
            self.kind = "WebSocket handshake";
        } else if incoming.is_navigation() {
            self.kind = "navigation";
        }
        if carries_credential {
            self.notes.push("credentials in the headers are ignored here: use --user to set who is signed in");
        }
    }

    pub(crate) fn answer(&mut self, verdict: &str, why: &str) {
        verdict.clone_into(&mut self.verdict);
        why.clone_into(&mut self.why);
    }

    pub(crate) fn refuse_unread(&mut self, bad: BadHead, reply: &Reply) {
        let why = match bad {
            BadHead::Ambiguous("path") => "the path is malformed, or has more readings than are checked".to_owned(),
            BadHead::Ambiguous(what) => format!("the {what} is ambiguous or malformed"),
            BadHead::Method => "CONNECT, TRACE and TRACK are never served".to_owned(),
            BadHead::Misdirected => "the connection's certificate is not valid for the host".to_owned(),
            BadHead::TargetTooLong => "the URL is longer than half of limits.head_bytes".to_owned(),
            BadHead::TooSlow => "the request head took longer than limits.head_time".to_owned(),
            BadHead::TooLarge => "the request head has more fields or bytes than [limits] allows".to_owned(),
        };
        self.answer(reply.status.as_str(), &why);
        self.reply(reply, "REQUEST-ID");
    }

    pub(crate) fn page(&mut self, page: Page) {
        let what = match page.name() {
            "unknown" => "the path is under the gateway's own prefix, but no page exists there: 404".to_owned(),
            name => format!("the gateway's own page `{name}` responds"),
        };
        self.answer("page", &what);
    }

    pub(crate) fn refused(&mut self, verdict: &str, refusal: Refusal, route: &Route, user: Option<&User>) {
        let why = match refusal {
            Refusal::SignedOut => "the route requires a signed-in user, and the request is anonymous".to_owned(),
            Refusal::CrossOrigin => {
                "cross-origin request: an unsafe method or a WebSocket must come from the gateway's own origin or an allowed one"
                    .to_owned()
            }
            Refusal::Unavailable => "the account store is away".to_owned(),
            Refusal::OutOfScope => "the API token has no scope for this request".to_owned(),
            Refusal::Forbidden if route.access == Access::Deny => "the route denies all requests".to_owned(),
            Refusal::Forbidden => format!(
                "the route requires one of the groups {}; {} is in {}",
                route.groups.join(", "),
                user.map_or("anonymous", |user| user.email.as_str()),
                user.map(|user| user.groups.join(", "))
                    .filter(|groups| !groups.is_empty())
                    .unwrap_or("none".to_owned()),
            ),
        };
        self.answer(verdict, &why);
    }

    pub(crate) fn reply(&mut self, reply: &Reply, request_id: &str) {
        let Some(head) = reply_head::head_of(reply, request_id, self.hsts) else { return };
        let fields = head.headers.iter();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers: Vec<(String, String)> =
            fields.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
        let page = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        let body = (!page).then(|| String::from_utf8_lossy(&reply.body).into_owned());
        self.reply = Some(Answer { status: reply.status.as_u16(), headers, body });
    }

    /// `per_account`: app cookies belong to accounts.
    pub(crate) fn forward(&mut self, forwarded: Forwarded, per_account: bool) {
        let mut why = match &self.user {
            Some(who) => format!("{} is allowed", who.email),
            None => "the route does not require sign-in".to_owned(),
        };
        let sends_cookies = forwarded.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        if per_account && sends_cookies && self.user.is_some() {
            why.push_str("; app cookies set under another account are not forwarded (session.app_cookies)");
        }
        self.answer(&format!("forward {}", forwarded.name), &why);
        self.upstream = Some(forwarded);
    }
}

impl RouteTried {
    pub(crate) fn new(index: usize, route: &Route, miss: Option<Miss>) -> Self {
        let mut takes = match &route.host {
            HostPattern::Any => String::new(),
            HostPattern::Exact(host) => host.to_string(),
            HostPattern::Below(domain) => format!("*.{domain}"),
        };
        takes.push_str(&route.path.text);
        for method in &route.methods {
            let _ = write!(takes, " {method}");
        }
        let misses = miss.map(|miss| match miss {
            Miss::Method => "method",
            Miss::Host => "host",
            Miss::Path => "path",
        });
        Self { route: index + 1, line: route.line, takes, misses }
    }
}

impl Forwarded {
    pub(crate) fn new(to: &Upstream, incoming: &Incoming<'_>, target: &[u8], changes: &Changes<'_>) -> Self {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let sent = incoming.headers.iter();
        let kept = sent.filter(|(name, _)| changes.keeps(name.as_str().as_bytes()));
        let mut headers: Vec<_> = kept.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
        let concealed = |name: &str, value| if to.identity.hides(name) { "***".to_owned() } else { text(value) };
        headers.extend(changes.fields().map(|(name, value)| (name.to_owned(), concealed(name, value))));
        if incoming.is_websocket {
            headers.push(("Connection".to_owned(), "Upgrade".to_owned()));
            headers.push(("Upgrade".to_owned(), "websocket".to_owned()));
        }
        let target = String::from_utf8_lossy(changes.target.as_deref().unwrap_or(target));
        Self {
            name: to.name.clone(),
            servers: to.servers.iter().map(shown).collect(),
            request: format!("{} {target}", incoming.method),
            removed: removed(incoming, changes),
            headers,
        }
    }
}

/// The fields and cookies that are not forwarded, by name.
fn removed(incoming: &Incoming<'_>, changes: &Changes<'_>) -> Vec<String> {
    let hop = |name: &str| matches!(name, "connection" | "upgrade") && incoming.is_websocket;
    let names = incoming.headers.keys().map(http::HeaderName::as_str).filter(|name| !hop(name));
    let gone = names.filter(|name| *name != "cookie" && !changes.keeps(name.as_bytes()));
    let mut removed: Vec<String> = gone.map(str::to_owned).collect();
    let left = changes.fields().filter(|(name, _)| *name == "Cookie").map(|(_, value)| value);
    let left: Vec<&[u8]> = left.flat_map(cookie::split).collect();
    if !changes.keeps(b"cookie") {
        let sent = cookie::pairs(incoming.headers);
        let gone = sent.filter(|(name, value)| !left.contains(&[name, &b"="[..], value].concat().as_slice()));
        removed.extend(gone.map(|(name, _)| format!("cookie {}", String::from_utf8_lossy(name))));
    }
    removed
}

fn shown(server: &UpstreamServer) -> String {
    match server {
        UpstreamServer::Tcp { host, port, protocol } => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let scheme = match protocol {
                UpstreamProtocol::Http1 => "",
                UpstreamProtocol::Https => "https://",
                UpstreamProtocol::H2c => "h2c://",
            };
            format!("{scheme}{host}:{port}")
        }
        UpstreamServer::Unix(path) => format!("unix:{}", path.display()),
        UpstreamServer::Whoami => "builtin:whoami".to_owned(),
    }
}
