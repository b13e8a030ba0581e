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
    /// Its name; for an inline URL, that URL as written.
    pub name: String,
    /// At least one.
    pub servers: Vec<UpstreamServer>,
    /// The Host header sent to the servers.
    pub host: UpstreamHost,
    /// Request header names outside `[A-Za-z0-9-]` that may pass, lower case.
    pub allow_headers: Vec<String>,
    /// Identity headers.
    pub identity: IdentityHeaders,
    /// Certificate verification and client certificate for https servers.
    pub tls: UpstreamTls,
    /// Short-lived JWT for this upstream.
    pub token: Option<BackendToken>,
    /// Token of a provider for this upstream.
    pub provider_token: Option<ProviderToken>,
    /// Active health checks. Without them, an unreachable server is skipped until a connection succeeds again.
    pub health: Option<Health>,
}

/// `upstream.health`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Path to request; 2xx and 3xx are healthy.
    pub path: String,
    /// Time between checks.
    pub interval: Duration,
}

/// `upstream.token`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendToken {
    /// Signing or encryption key.
    pub key: TokenKey,
    /// Token format.
    pub format: TokenFormat,
    /// Sent as `Authorization: Bearer`.
    pub bearer: bool,
    /// Sent as `X-Authgate-Jwt-Assertion`.
    pub assertion: bool,
    /// Sent as cookies of these names.
    pub cookies: Vec<String>,
    /// Maximum token lifetime.
    pub lifetime: Duration,
}

/// `upstream.provider_token`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderToken {
    /// Name of the provider. Only sessions that began through it have a token.
    pub provider: String,
    /// Which of its tokens.
    pub kind: ProviderTokenKind,
    /// Request header that holds it: a name of letters, digits and `-`.
    pub header: String,
}

impl ProviderToken {
    /// Whether it is sent as `Authorization: Bearer TOKEN` (RFC 6750, 2.1) instead of by itself.
    pub fn is_authorization(&self) -> bool {
        self.header.eq_ignore_ascii_case("authorization")
    }
}

/// `upstream.provider_token.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ProviderTokenKind {
    Access,
    Id,
}

/// Key that signs or encrypts a backend token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKey {
    /// HS256, or the secret that the encryption key is derived from; at least 32 bytes.
    Shared(Secret),
    /// EdDSA with a key that the gateway generated.
    Ed25519,
    /// ES256 with a key that the gateway generated.
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
        /// Protocol toward the server.
        protocol: UpstreamProtocol,
    },
    /// A Unix socket.
    Unix(PathBuf),
    /// `builtin:whoami`
    Whoami,
}

/// Protocol of a TCP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// `http://`: HTTP/1.1.
    Http1,
    /// `https://`: certificates are verified against the system roots; HTTP/2 if the server negotiates it.
    Https,
    /// `h2c://`: HTTP/2 with prior knowledge.
    H2c,
}

/// `upstream.host`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The client's Host is kept.
    Client,
    /// The server's own host name is sent.
    Upstream,
}

/// `upstream.identity`: header name -> template, already lowered from presets.
#[derive(Debug, Clone, Default)]
pub struct IdentityHeaders(pub Vec<(String, Vec<TemplatePart>)>);

impl IdentityHeaders {
    /// Whether this header's value must not be shown.
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
    /// Fixed text that must not be shown.
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
    /// A path is checked in every reading.
    AllReadings,
    /// Paths with more than one reading get 400.
    Plain,
}

/// `[[route]]`
#[derive(Debug, Clone)]
pub struct Route {
    /// Line in the file where it begins, 1-based.
    pub line: usize,
    /// Hosts it matches.
    pub host: HostPattern,
    /// Paths it matches.
    pub path: PathPattern,
    /// Methods it matches; empty matches all. GET includes HEAD.
    pub methods: Vec<http::Method>,
    /// Index into [`Config::upstreams`]; `None` only with [`Access::Deny`].
    pub upstream: Option<usize>,
    /// How many readings a path may have.
    pub paths: Paths,
    /// Who has access.
    pub access: Access,
    /// Allowed groups, any of them; only with `signed_in`.
    pub groups: Vec<String>,
    /// Form of denials.
    pub refuse: Refuse,
    /// Prefix stripped from the path: `""`, or starts with `/` and has no trailing slash.
    pub strip_prefix: String,
    /// Time to the first byte of the response.
    pub timeout: Duration,
    /// Largest request body in bytes; `None` is unlimited.
    pub body_max: Option<u64>,
    /// Disables cross-origin protection.
    pub danger_cross_origin: bool,
    /// Origins, besides the gateway's own, that may open WebSockets.
    pub websocket_origins: Vec<Origin>,
    /// Additional places for credentials in a WebSocket handshake.
    pub websocket_token: WebSocketToken,
    /// Further protocols that a 101 may switch to, in lower case.
    pub upgrade: Vec<String>,
    /// Who handles CORS.
    pub cors: Cors,
    /// Cookies are stripped in both directions.
    pub drops_cookies: bool,
    /// Who controls caching of responses.
    pub cache: Cache,
}

/// The first part of a request that does not match a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Miss {
    Method,
    Host,
    Path,
}

impl Route {
    /// Why a request does not match, with the path's escapes decoded; `None`: it matches. [`super::Routes`] finds the
    /// first match without testing each route.
    pub fn miss(&self, host: &Host, path: &[u8], method: &http::Method) -> Option<Miss> {
        if !self.takes_method(method) {
            return Some(Miss::Method);
        }
        if !self.host.matches(host) {
            return Some(Miss::Host);
        }
        (!self.path.matches(path)).then_some(Miss::Path)
    }

    /// GET includes HEAD (RFC 9110, 9.3.2).
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
    /// Responses that may depend on the account are kept out of shared caches and separate between accounts.
    PerAccount,
    /// The app.
    App,
}

/// `route.cors`
#[derive(Debug, Clone)]
pub enum Cors {
    /// The gateway, for exactly these origins.
    Origins(Vec<Origin>),
    /// The app.
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
    /// A status with a Basic challenge: `WebDAV` clients send no password without one.
    Basic,
}

/// `[[test]]`
#[derive(Debug, Clone)]
pub struct Test {
    /// Line in the file where it begins, 1-based.
    pub line: usize,
    /// Method.
    pub method: http::Method,
    /// Path and query, or an absolute URL.
    pub target: String,
    /// Header fields to add or replace.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// `None`: anonymous.
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
