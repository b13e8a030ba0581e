//! The configuration as used: one type for each section.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::certificate::Tls;
use super::fault::{self, Fault, Faults};
use super::provider::Provider;
use super::routes::Routes;
use super::routing::{Paths, Test, Upstream};
use super::sealing_key::SealingKeyPlace;
use super::sign_up::SignUp;
use super::store::{StoreConfig, StoreTrust};
use crate::web::cookie::{CookieStyle, SameSite};
use crate::web::origin::{Origin, Scheme};

/// The whole configuration as used. One value lives for the whole process.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[limits]`
    pub limits: Limits,
    /// `[session]`
    pub session: Session,
    /// `[password]`
    pub password: Password,
    /// `[users] ids`
    pub user_ids: UserIds,
    /// `[sign_up] mode`
    pub sign_up: SignUp,
    /// `[secrets] key`; `None`: a file in the state directory.
    pub sealing_key: Option<SealingKeyPlace>,
    /// `[store] url` and `blind_max`; `None`: SQLite in the state directory.
    pub store: Option<StoreConfig>,
    /// `[store] ca` and `danger_store_tls`, also without a `url`.
    pub store_trust: StoreTrust,
    /// `[throttle]`
    pub throttle: Throttle,
    /// `[pages]`
    pub pages: Pages,
    /// `[authjs]`
    pub authjs: AuthJs,
    /// `[[provider]]`, in the order of their buttons.
    pub providers: Vec<Provider>,
    /// `[cors] origins`: for the gateway's own endpoints, and for routes without their own setting.
    pub cors_origins: Vec<Origin>,
    /// `[[upstream]]`, and one for each inline URL of a route.
    pub upstreams: Vec<Upstream>,
    /// `[[route]]`, in order; the first match wins.
    pub routes: Routes,
    /// `[[test]]`, for `authgate check`.
    pub tests: Vec<Test>,
    /// Warnings; the configuration is valid.
    pub warnings: Faults,
    /// Every group that a route names, with its position in the file.
    pub(super) named_groups: BTreeMap<String, Range<usize>>,
}

impl Config {
    /// Names and attributes of the gateway's cookies.
    pub fn cookie_style(&self) -> CookieStyle {
        let Session { same_site, domain, cookie_name, .. } = &self.session;
        CookieStyle::new(cookie_name, self.server.public_url.scheme() == Scheme::Https, domain.clone(), *same_site)
    }

    /// Warns of groups that routes require and no account has, once the groups are known.
    pub fn warn_of_groups_without_people(&mut self, known: &[String]) {
        for (group, span) in &self.named_groups {
            // people of a provider get these when they sign in
            let is_providers = |provider: &Provider| {
                let starts = provider.groups_prefix.as_ref().is_some_and(|prefix| group.starts_with(prefix.as_str()));
                starts || provider.groups.iter().any(|(_, ours)| ours == group)
            };
            if known.contains(group) || self.providers.iter().any(is_providers) {
                continue;
            }
            let near = fault::nearest(group, known.iter().map(String::as_str));
            let remedy = near.map_or_else(
                || format!("add someone, for example with `authgate user set EMAIL --group {group}`"),
                |near| format!("did you mean \"{near}\"?"),
            );
            self.warnings.add(Fault {
                span: span.clone(),
                what: format!("no account is in the group \"{group}\""),
                remedy,
            });
        }
    }
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// The origin that browsers use; determines cookie names and links.
    pub public_url: Origin,
    /// Whether it is unset while a listener is bound to all addresses: then the origin is a guess.
    pub is_public_url_guessed: bool,
    /// Directory of the database and the keys; absolute or relative to the working directory.
    pub state_dir: PathBuf,
    /// Path prefix of the gateway's own pages and endpoints: starts with `/`, no trailing `/`, one or more segments of
    /// `[A-Za-z0-9._~-]`.
    pub prefix: String,
    /// How many readings a path may have, unless the route says otherwise.
    pub paths: Paths,
    /// Peers with a trusted X-Forwarded-For/-Proto/-Host.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Further header fields that are trusted from these peers and forwarded; lower-case names.
    pub trusted_headers: Vec<String>,
    /// Whether changes to the file trigger a reload.
    pub watch: bool,
    /// /healthz, /readyz, /metrics; `None` is off.
    pub admin_listen: Option<Listen>,
    /// Host names accepted by the admin listener, besides addresses and `localhost`: lower case, without a port.
    pub admin_hosts: Vec<String>,
    /// `[server.tls]`
    pub tls: Tls,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Plain HTTP/1.1 over TCP.
    Tcp(SocketAddr),
    /// HTTP/2 and HTTP/1.1 over TLS.
    Tls(SocketAddr),
    /// Plain HTTP/1.1 over a Unix socket.
    Unix(UnixSocket),
}

/// A Unix socket to listen on: `unix:PATH?mode=0666&group=www-data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    /// Path of the socket.
    pub path: PathBuf,
    /// File mode.
    pub mode: u32,
    /// Group of the file; `None`: the process's group.
    pub group: Option<u32>,
}

impl Listen {
    /// The address, unless it is a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Tls(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone)]
pub struct Limits {
    /// Request head, bytes.
    pub head_bytes: usize,
    /// Header fields per request.
    pub head_fields: usize,
    /// Time to receive a whole request head.
    pub head_time: Duration,
    /// Request bodies of the gateway's own endpoints, bytes.
    pub form_bytes: usize,
    /// Open connections in total.
    pub connections: usize,
    /// Open connections per client address (IPv6: per /64).
    pub connections_per_address: usize,
    /// Open WebSockets per user.
    pub sockets_per_user: usize,
    /// Idle timeout of a connection between requests.
    pub keep_alive: Duration,
    /// Idle timeout of an exchange, body or socket.
    pub idle: Duration,
}

/// `[session]`
#[derive(Debug, Clone)]
pub struct Session {
    /// Absolute lifetime.
    pub max_age: Duration,
    /// Lifetime without requests.
    pub idle: Duration,
    /// Minimum time between renewals of the cookie.
    pub renew_after: Duration,
    /// The cookie's SameSite attribute.
    pub same_site: SameSite,
    /// The cookie's name, without `__Host-` or `__Secure-`.
    pub cookie_name: String,
    /// Whether cookies that apps set are kept apart by account.
    pub app_cookies: AppCookieRule,
    /// Parent domain for a session shared between its hosts; lower case, no leading dot.
    pub domain: Option<String>,
}

/// `session.app_cookies`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppCookieRule {
    /// They belong to the account that was signed in.
    PerAccount,
    /// They are forwarded for every account.
    Keep,
}

/// `[password]`
#[derive(Debug, Clone)]
pub struct Password {
    /// Whether people sign in with passwords. `false`: through providers alone.
    pub enabled: bool,
    /// Minimum length in characters (Unicode code points); the maximum is 256.
    pub min_length: usize,
    /// Whether passwords on the built-in list of common passwords are rejected.
    pub blocklist: bool,
    /// argon2id parameters.
    pub argon2: Argon2,
}

/// `password.argon2`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Argon2 {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
}

/// `users.ids`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserIds {
    /// Decimal, higher than every id ever used.
    Integer,
    /// UUID version 7.
    Uuid,
}

/// `[throttle]`
#[derive(Debug, Clone, Copy)]
pub struct Throttle {
    /// Failed sign-ins per account; an address gets twenty times as many.
    pub max_retries: u32,
    /// Counting window.
    pub find_time: Duration,
    /// How long further attempts get 429.
    pub ban_time: Duration,
}

/// `[pages]`
#[derive(Debug, Clone)]
pub struct Pages {
    /// Heading of the login page.
    pub title: String,
    /// Logo, and overridden files.
    pub look: Look,
    /// Extra public path of the login page.
    pub login: Option<String>,
    /// Extra public path of the sign-up page.
    pub signup: Option<String>,
    /// Where users land without a callbackUrl: a path.
    pub after_login: String,
    /// Further origins that callbackUrl may point to.
    pub callback_origins: Vec<Origin>,
    /// The login page leads to the provider at once: there is exactly one, and passwords are off.
    pub provider_first: bool,
}

/// `pages.logo` and `pages.templates`, as read.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Extension (svg, png or webp) and content of the logo.
    pub logo: Option<(&'static str, Bytes)>,
    /// Name and content of overridden files.
    pub own: Vec<(&'static str, Bytes)>,
}

/// `[authjs]`: the endpoints that next-auth/react and Auth.js clients call.
#[derive(Debug, Clone)]
pub struct AuthJs {
    /// Path prefix; starts with `/`, no trailing `/`. `None` is off.
    pub base_path: Option<String>,
    /// The client library it is for.
    pub client: AuthJsClient,
}

/// `authjs.client`: the session response body when signed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthJsClient {
    /// `false`, which both libraries treat as signed out.
    Auto,
    /// `{}`
    V4,
    /// `null`
    V5,
}
