//! Origins: scheme, host and port (RFC 6454), always compared as a whole, never by prefix.

use std::fmt;

use super::host::Host;

/// http or https.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// `"http"` or `"https"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An origin in normal form: the scheme's default port is omitted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of a request for `host` over `scheme`.
    pub fn new(scheme: Scheme, host: &Host) -> Self {
        let port = host.port().unwrap_or(scheme.default_port());
        Self { scheme, host: host.name().to_owned(), port }
    }

    /// Parses a serialized origin: scheme, `://`, host, optional port, and nothing else (one trailing `/` is accepted
    /// for pasted URLs). `None` for `null`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Host::parse(rest.strip_suffix('/').unwrap_or(rest)).map(|host| Self::new(scheme, &host))
    }

    /// The same scheme and port with another host name.
    #[must_use]
    pub fn with_host(&self, host: &Host) -> Self {
        Self { host: host.name().to_owned(), ..self.clone() }
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host name without the port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, including the scheme's default.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Host header value for this origin: the name, and the port if it is not the default.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_equal_only_as_a_whole() {
        let own = Origin::parse("https://app.example.com").unwrap();
        assert_eq!(Origin::parse("HTTPS://APP.example.com:443").unwrap(), own);
        for other in [
            "http://app.example.com",
            "https://app.example.com:444",
            "https://app.example.com.evil.test",
            "https://evil.test",
        ] {
            assert_ne!(Origin::parse(other).unwrap(), own, "{other}");
        }
        for bad in ["null", "", "https://", "https://a/b", "https://u@a", "ftp://a", "a", "//a", "https://a b"] {
            assert_eq!(Origin::parse(bad), None, "{bad:?}");
        }
    }
}
