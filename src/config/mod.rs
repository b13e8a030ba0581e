//! gateway.toml -> [`Config`]: parsed once into types that cannot hold a bad value. All faults are
//! gathered in one pass, each with its place and its remedy; nothing is validated per request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use toml::de::DeTable;

use crate::web::cookie::CookieStyle;
pub use crate::web::cookie::SameSite;
use crate::web::origin::{Origin, Scheme};

mod authority;
mod certificate;
mod conceal;
mod fault;
mod file;
mod keys;
mod load;
mod look;
mod lower;
mod pattern;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod routes;
mod routing;
mod salvage;
mod schema;
mod secret;
mod units;

pub use authority::{Authority, UpstreamTls};
pub use certificate::{Certificate, CertificateFiles, Tls, Unfit};
pub use fault::{Fault, Faults};
pub use load::{load, load_broken};
pub use routes::Routes;
pub use routing::{
    Access, BackendToken, Cache, Cors, Health, IdentityHeaders, Miss, PathPattern, Paths, Refuse, Route, Segment,
    TemplatePart, Test, TestUser, TokenFormat, TokenKey, Upstream, UpstreamHost, UpstreamProtocol, UpstreamServer,
    WebSocketToken,
};
pub use schema::schema;
pub use secret::SecretPlace;
pub use units::parse_duration;

/// Whether secrets are read from where they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// They are: for serving, and for `check`.
    Read,
    /// They are not, and what stands in their place is worth nothing: for commands about accounts,
    /// whose caller need not have what the service has.
    Left,
}

/// Judges a text. `env` stands in for the environment; relative paths hang on `base`.
pub fn parse(text: &str, file: &str, base: PathBuf, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let (config, faults) = judge(text, file, file::Reading::new(env, base, Secrets::Read));
    if faults.list().is_empty() { Ok(config) } else { Err(faults) }
}

/// What the text says, with defaults in the place of what is wrong in it, and all that is wrong.
fn judge(text: &str, file: &str, mut reading: file::Reading<'_>) -> (Config, Faults) {
    let (document, errors) = DeTable::parse_recoverable(text);
    reading.line_ends = text.match_indices('\n').map(|(at, _)| at).collect();
    let mut config = lower::lower(&document, &reading);
    config.named_groups = reading.groups.take();
    let (mut faults, warnings) = reading.into_findings();
    if !errors.is_empty() {
        // what the rest comes to is of no use to anybody who repairs the file
        faults = syntax_faults(text, &errors);
    }
    let shown = conceal::conceal(text, document.get_ref(), errors.is_empty(), &mut faults);
    config.warnings = Faults::warnings(file, &shown, warnings);
    (config, Faults::new(file, &shown, faults))
}

/// What is no TOML. The parser goes on after a fault, so that a bracket that is missing has many: of a line the first
/// is told, and where something is never closed, the first of all and that.
fn syntax_faults(text: &str, errors: &[toml::de::Error]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let line = |at: usize| memchr::memchr_iter(b'\n', &text.as_bytes()[..at.min(text.len())]).count();
    let is_unclosed = |error: &toml::de::Error| {
        ["unclosed array", "unclosed inline table"].iter().any(|what| error.message().starts_with(what))
    };
    let unclosed = errors.iter().any(is_unclosed);
    for (at, error) in errors.iter().enumerate() {
        let span = error.span().unwrap_or(0..0);
        let last = faults.last().map(|last| line(last.span.start));
        if last == Some(line(span.start)) || (unclosed && at > 0 && !is_unclosed(error)) {
            continue;
        }
        let remedy = match error.message() {
            message if message.contains("duplicate key") => "remove one of them",
            _ if unclosed => "add the missing bracket here or earlier",
            _ => "use `key = value` lines below [table] or [[table]] lines; put strings in quotes",
        };
        let what = format!("invalid TOML: {}", error.message().lines().next().unwrap_or_default());
        faults.push(Fault { span, what, remedy: remedy.to_owned() });
    }
    faults
}

/// `run --to URL`: everything goes to one app, for signed-in users only; state in `./state`.
pub fn one_app(url: &str, listen: Option<&str>, state_dir: Option<&Path>) -> Result<Config, Faults> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::new();
    if let Some(listen) = listen {
        text = format!("[server]\nlisten = [{}]\n\n", quoted(listen));
    }
    text = format!("{text}[[route]]\nupstream = {}\n", quoted(url));
    let nothing = |_: &str| None;
    let mut config = parse(&text, "the command line", PathBuf::new(), &nothing)?;
    if let Some(state_dir) = state_dir {
        state_dir.clone_into(&mut config.server.state_dir);
    }
    Ok(config)
}

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
    named_groups: BTreeMap<String, Range<usize>>,
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
