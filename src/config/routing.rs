//! `[[upstream]]`, `[[route]]` and `[[test]]` as used.

use super::authority::UpstreamTls;
use super::pattern::PathPattern;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;
use crate::web::host::{Host, HostPattern};
use crate::web::origin::Origin;

/// `[[upstream]]`
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name; for a URL named by a route at once, that URL as written.
    pub name: String,
    /// At least one.
    pub servers: Vec<UpstreamServer>,
    /// Which Host the servers see.
    pub host: UpstreamHost,
    /// Request header names outside `[A-Za-z0-9-]` that may pass, lower case.
    pub allow_headers: Vec<String>,
    /// How identity is told.
    pub identity: IdentityHeaders,
    /// How its https servers are verified, and what they are shown.
    pub tls: UpstreamTls,
    /// A short-lived JWT of its own.
    pub token: Option<BackendToken>,
    /// How its servers are asked whether they are well; without it one that cannot be reached is passed over
    /// until it can.
    pub health: Option<Health>,
}

/// `upstream.health`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked for; 2xx and 3xx are well.
    pub path: String,
    /// How often.
    pub interval: Duration,
}

/// `upstream.token`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendToken {
    /// What signs or encrypts it.
    pub key: TokenKey,
    /// Its form.
    pub format: TokenFormat,
    /// Sent as `Authorization: Bearer`.
    pub bearer: bool,
    /// Sent as `X-Authgate-Jwt-Assertion`.
    pub assertion: bool,
    /// Sent as cookies of these names.
    pub cookies: Vec<String>,
    /// How long one is valid at most.
    pub lifetime: Duration,
}

/// What a backend token is signed or encrypted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKey {
    /// HS256, or the secret that an encrypted form's key is made from; at least 32 bytes.
    Shared(Secret),
    /// EdDSA with a key of the gateway's own.
    Ed25519,
    /// ES256 with a key of the gateway's own.
    P256,
}

/// `upstream.token.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// A signed JWT (RFC 7519).
    Jwt,
    /// The encrypted cookie of next-auth 4.
    NextAuthV4,
    /// The encrypted cookie of Auth.js 5.
    AuthJsV5,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamServer {
    /// Host name or address, and port.
    Tcp {
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// Port.
        port: u16,
        /// How it is spoken to.
        protocol: UpstreamProtocol,
    },
    /// A Unix socket.
    Unix(PathBuf),
    /// `builtin:whoami`
    Whoami,
}

/// What a server over TCP speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// `http://`: HTTP/1.1.
    Http1,
    /// `https://`: the certificate is verified against the system's roots; HTTP/2 where the server offers it.
    Https,
    /// `h2c://`: HTTP/2 from the first byte on.
    H2c,
}

/// `upstream.host`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The client's Host is kept.
    Client,
    /// The server's own name is sent.
    Upstream,
}

/// `upstream.identity`: header name -> template, already lowered from presets.
#[derive(Debug, Clone, Default)]
pub struct IdentityHeaders(pub Vec<(String, Vec<TemplatePart>)>);

impl IdentityHeaders {
    /// Whether the value of this header is not to be shown.
    pub fn hides(&self, name: &str) -> bool {
        let secret = |part: &TemplatePart| matches!(part, TemplatePart::Secret(_));
        self.0.iter().any(|(own, template)| own == name && template.iter().any(secret))
    }
}

/// One part of an identity header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TemplatePart {
    /// Fixed text, printable ASCII.
    Text(String),
    /// The same, not to be shown.
    Secret(String),
    Id,
    Email,
    Name,
    Picture,
    Groups,
}

/// `server.paths`, `route.paths`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// A path is judged under every reading.
    AllReadings,
    /// One that has more than one is 400.
    Plain,
}

/// `[[route]]`
#[derive(Debug, Clone)]
pub struct Route {
    /// Line in the file at which it begins, from 1.
    pub line: usize,
    /// Hosts it takes.
    pub host: HostPattern,
    /// Paths it takes.
    pub path: PathPattern,
    /// Methods it takes; empty is all. HEAD goes with GET.
    pub methods: Vec<http::Method>,
    /// Index into [`Config::upstreams`]; `None` only with [`Access::Deny`].
    pub upstream: Option<usize>,
    /// How many readings its paths may have.
    pub paths: Paths,
    /// Who may pass.
    pub access: Access,
    /// Any of these groups; only with `signed_in`.
    pub groups: Vec<String>,
    /// How a refusal looks.
    pub refuse: Refuse,
    /// Cut from the front of the path: `""`, or starts with `/` and does not end with one.
    pub strip_prefix: String,
    /// To the first byte of the answer.
    pub timeout: Duration,
    /// Largest request body in bytes; `None` is no limit.
    pub body_max: Option<u64>,
    /// Lifts the cross-origin protection.
    pub danger_cross_origin: bool,
    /// Origins besides our own whose WebSockets are let in.
    pub websocket_origins: Vec<Origin>,
    /// Where else a handshake may carry a credential.
    pub websocket_token: WebSocketToken,
    /// Further protocols that a 101 may switch to, in lower case.
    pub upgrade: Vec<String>,
    /// Who answers for other origins.
    pub cors: Cors,
    /// Its app gets no cookies: neither those of clients nor its own back.
    pub drops_cookies: bool,
    /// Who says how its answers are cached.
    pub cache: Cache,
}

/// What of a request a route does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Miss {
    Method,
    Host,
    Path,
}

impl Route {
    /// Why it does not take a request, its path's escapes read; `None`: it does. [`super::Routes`] finds the first
    /// that does without asking each.
    pub fn miss(&self, host: &Host, path: &[u8], method: &http::Method) -> Option<Miss> {
        if !self.takes_method(method) {
            return Some(Miss::Method);
        }
        if !self.host.matches(host) {
            return Some(Miss::Host);
        }
        (!self.path.matches(path)).then_some(Miss::Path)
    }

    /// HEAD goes where GET goes (RFC 9110, 9.3.2).
    pub fn takes_method(&self, method: &http::Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (method == http::Method::HEAD && self.methods.contains(&http::Method::GET))
    }
}

/// `route.websocket.token`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebSocketToken {
    /// Names of query parameters.
    pub query: Vec<String>,
    /// `Sec-WebSocket-Protocol: bearer, TOKEN`, and the Kubernetes form.
    pub subprotocol: bool,
}

/// `route.cache`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Answers that may belong to an account are kept out of shared caches and apart from other accounts'.
    PerAccount,
    /// The app alone.
    App,
}

/// `route.cors`
#[derive(Debug, Clone)]
pub enum Cors {
    /// The gateway, for exactly these origins.
    Origins(Vec<Origin>),
    /// The app behind it.
    App,
}

/// `route.access`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Public,
    Optional,
    SignedIn,
    Deny,
}

/// `route.refuse`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuse {
    /// Navigations are redirected, everything else gets a status.
    Auto,
    /// GET and HEAD are always redirected.
    Redirect,
    /// Always a status.
    Status,
    /// The same, and it asks for Basic: programs of `WebDAV` send no password before.
    Basic,
}

/// `[[test]]`
#[derive(Debug, Clone)]
pub struct Test {
    /// Line in the file at which it begins, from 1.
    pub line: usize,
    /// Method.
    pub method: http::Method,
    /// Path and query, or an absolute URL.
    pub target: String,
    /// Header fields to add or replace.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// `None`: nobody.
    pub user: Option<TestUser>,
    /// `expect` as written.
    pub expect: String,
}

/// `test.user`
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct TestUser {
    pub email: Option<String>,
    pub groups: Vec<String>,
}
