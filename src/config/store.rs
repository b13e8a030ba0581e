//! `[store]`: the PostgreSQL database that several nodes share, and how far it is trusted.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::authority::Authority;
use crate::secret::Secret;

/// `[store]` with a `url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The database.
    pub url: StoreUrl,
    /// How long sessions stay valid while the database is away. Zero: not at all.
    pub blind_max: Duration,
    /// Why `url` could not be read, in one line: commands may run without the service's secrets, or with a broken file.
    /// `url` then has no hosts. No other store may be opened in its place.
    pub unreadable: Option<String>,
}

/// `[store] ca` and `danger_store_tls`. They also apply to a database that is only named on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreTrust {
    /// Trusted CAs beside the system roots.
    pub authorities: Vec<Authority>,
    /// `danger_store_tls = "require"`: TLS without verification of the server.
    pub danger_require: bool,
}

/// Where the database is, and who signs in to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// In the order in which they are tried; the one that accepts writes is used.
    pub hosts: Vec<StoreHost>,
    /// The role.
    pub user: String,
    /// Its password; `None` where the server requires none (`peer`, for example).
    pub password: Option<Secret>,
    /// Name of the database.
    pub database: String,
    /// TLS of TCP connections. Unix sockets have none.
    pub tls: StoreTls,
}

/// One server of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHost {
    /// DNS name or IP address (IPv6 without brackets), and port.
    Tcp(String, u16),
    /// Directory of the socket, and the port in its file name.
    Unix(PathBuf, u16),
}

/// TLS towards the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreTls {
    /// None: loopback addresses and Unix sockets alone.
    Off,
    /// The certificate is verified, its name included.
    VerifyFull {
        /// Trusted CAs beside the system roots.
        roots: Vec<Authority>,
    },
    /// TLS with any certificate: `danger_store_tls`.
    Require,
}

impl StoreConfig {
    /// A store that is configured, and of which nothing else is known.
    pub(super) fn unreadable(why: String, blind_max: Duration) -> Self {
        let (user, database) = (String::new(), String::new());
        let url = StoreUrl { hosts: Vec::new(), user, password: None, database, tls: StoreTls::Off };
        Self { url, blind_max, unreadable: Some(why) }
    }
}

impl StoreUrl {
    /// For messages: a URL without the password.
    pub fn shown(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let mut text = format!("postgres://{}@", encoded(&self.user));
        for (at, host) in self.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = match host {
                StoreHost::Tcp(name, port) if name.contains(':') => write!(text, "{comma}[{name}]:{port}"),
                StoreHost::Tcp(name, port) => write!(text, "{comma}{name}:{port}"),
                StoreHost::Unix(path, port) => write!(text, "{comma}{}:{port}", encoded(&path.to_string_lossy())),
            };
        }
        format!("{text}/{}?sslmode={}", encoded(&self.database), self.tls.sslmode())
    }
}

/// What separates the parts of a URL, besides control characters and what is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'/').add(b'?').add(b'#').add(b'@').add(b':').add(b',');

impl StoreHost {
    /// Whether the connection stays on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(..) => true,
            Self::Tcp(name, _) => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(..))
    }
}

impl StoreTls {
    /// The word for it in a URL.
    pub fn sslmode(&self) -> &'static str {
        match self {
            Self::Off => "disable",
            Self::VerifyFull { .. } => "verify-full",
            Self::Require => "require",
        }
    }
}
