//! The configuration as used: one type for each section.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::certificate::Tls;
use super::fault::{self, Fault, Faults};
use super::routes::Routes;
use super::routing::{Paths, Test, Upstream};
use super::sealing_key::SealingKeyPlace;
use crate::web::cookie::{CookieStyle, SameSite};
use crate::web::origin::{Origin, Scheme};

/// The whole configuration as used. One value lives from start to end of a process.
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
    /// `[secrets] key`; `None`: a file in the state folder.
    pub sealing_key: Option<SealingKeyPlace>,
    /// `[throttle]`
    pub throttle: Throttle,
    /// `[pages]`
    pub pages: Pages,
    /// `[authjs]`
    pub authjs: AuthJs,
    /// `[cors] origins`: for the gateway's own endpoints, and for routes that say nothing of their own.
    pub cors_origins: Vec<Origin>,
    /// `[[upstream]]`, and one for each URL that a route names at once.
    pub upstreams: Vec<Upstream>,
    /// `[[route]]`, in order; the first match wins.
    pub routes: Routes,
    /// `[[test]]`, for `authgate check`.
    pub tests: Vec<Test>,
    /// What is worth a look and no fault.
    pub warnings: Faults,
    /// Every group that a route names, with its place in the file.
    pub(super) named_groups: BTreeMap<String, Range<usize>>,
}

impl Config {
    /// How our cookies are written.
    pub fn cookie_style(&self) -> CookieStyle {
        let Session { same_site, domain, cookie_name, .. } = &self.session;
        CookieStyle::new(cookie_name, self.server.public_url.scheme() == Scheme::Https, domain.clone(), *same_site)
    }

    /// Warns of groups that routes ask for and nobody is in, once it is known which groups there are.
    pub fn warn_of_groups_without_people(&mut self, known: &[String]) {
        for (group, span) in &self.named_groups {
            if known.contains(group) {
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
    /// The origin that browsers use; decides cookie names and links.
    pub public_url: Origin,
    /// Whether it was left out, and all addresses are listened on: where browsers come in is a guess then.
    pub is_public_url_guessed: bool,
    /// Folder of the database and the keys; absolute or relative to the working directory.
    pub state_dir: PathBuf,
    /// The gateway's own pages and endpoints: starts with `/`, no `/` at the end, one or more
    /// segments of `[A-Za-z0-9._~-]`.
    pub prefix: String,
    /// How many readings a path may have where no route says it.
    pub paths: Paths,
    /// Peers whose X-Forwarded-For/-Proto/-Host count.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// What else they may say, and backends then get: names in lower case.
    pub trusted_headers: Vec<String>,
    /// Whether a change of the file reloads it.
    pub watch: bool,
    /// /healthz, /readyz, /metrics; `None` is off.
    pub admin_listen: Option<Listen>,
    /// Names that it answers to, beside addresses and `localhost`: in lower case, without a port.
    pub admin_hosts: Vec<String>,
    /// `[server.tls]`
    pub tls: Tls,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Plain HTTP/1.1 over TCP.
    Tcp(SocketAddr),
    /// HTTP/2 and HTTP/1.1 in TLS over TCP.
    Tls(SocketAddr),
    /// Plain HTTP/1.1 over a Unix socket.
    Unix(UnixSocket),
}

/// A Unix socket to listen on: `unix:PATH?mode=0666&group=www-data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Its file's permissions.
    pub mode: u32,
    /// Its file's group; `None`: this process's.
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
    /// Whole request head, bytes.
    pub head_bytes: usize,
    /// Header fields in a request.
    pub head_fields: usize,
    /// Time for a whole request head.
    pub head_time: Duration,
    /// Bodies of our own endpoints, bytes.
    pub form_bytes: usize,
    /// Open connections in all.
    pub connections: usize,
    /// Open connections of one address (IPv6 by /64).
    pub connections_per_address: usize,
    /// Open WebSockets of one user.
    pub sockets_per_user: usize,
    /// A connection without a request.
    pub keep_alive: Duration,
    /// An exchange, body or socket on which nothing moves.
    pub idle: Duration,
}

/// `[session]`
#[derive(Debug, Clone)]
pub struct Session {
    /// Absolute lifetime.
    pub max_age: Duration,
    /// Lifetime without a request.
    pub idle: Duration,
    /// The cookie is rewritten at most this often.
    pub renew_after: Duration,
    /// The cookie's SameSite attribute.
    pub same_site: SameSite,
    /// The cookie's name, without `__Host-` or `__Secure-`.
    pub cookie_name: String,
    /// Whether cookies that apps set under one account are kept from another.
    pub app_cookies: AppCookieRule,
    /// A parent domain that shares the session between its hosts; lower case, no leading dot.
    pub domain: Option<String>,
}

/// `session.app_cookies`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppCookieRule {
    /// They belong to the account that was signed in.
    PerAccount,
    /// They are forwarded whoever is signed in.
    Keep,
}

/// `[password]`
#[derive(Debug, Clone)]
pub struct Password {
    /// Characters (Unicode code points) at least; 256 at most.
    pub min_length: usize,
    /// Whether the shipped list of common passwords counts.
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
    /// Decimal, above every id ever seen.
    Integer,
    /// UUID version 7.
    Uuid,
}

/// `sign_up.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignUp {
    /// Nobody signs up; accounts come from the command line.
    Closed,
    /// Holders of an invite link.
    Invite,
    /// Everybody.
    Open,
}

/// `[throttle]`
#[derive(Debug, Clone, Copy)]
pub struct Throttle {
    /// Failed sign-ins per account; an address gets twenty times as many.
    pub max_retries: u32,
    /// The window in which they are counted.
    pub find_time: Duration,
    /// How long further tries are answered 429.
    pub ban_time: Duration,
}

/// `[pages]`
#[derive(Debug, Clone)]
pub struct Pages {
    /// Heading of the login page.
    pub title: String,
    /// Logo, and files in the place of shipped ones.
    pub look: Look,
    /// Extra public path of the login page.
    pub login: Option<String>,
    /// Extra public path of the sign-up page.
    pub signup: Option<String>,
    /// Where people land without a callbackUrl: a path.
    pub after_login: String,
    /// Further origins that callbackUrl may name.
    pub callback_origins: Vec<Origin>,
}

/// `pages.logo` and `pages.templates`, as read.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Ending (svg, png or webp) and content of the logo.
    pub logo: Option<(&'static str, Bytes)>,
    /// Name and content of files that stand in the place of shipped ones.
    pub own: Vec<(&'static str, Bytes)>,
}

/// `[authjs]`: the surface that next-auth/react and Auth.js clients call.
#[derive(Debug, Clone)]
pub struct AuthJs {
    /// Where it is; starts with `/`, no `/` at the end. `None` is off.
    pub base_path: Option<String>,
    /// Which client it is for.
    pub client: AuthJsClient,
}

/// `authjs.client`: what the body of a signed-out session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthJsClient {
    /// `false`, which both read as nobody.
    Auto,
    /// `{}`
    V4,
    /// `null`
    V5,
}
