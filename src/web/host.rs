//! Hosts in normal form: lower case, no trailing dot, port separate (RFC 9110, 7.2; RFC 3986, 3.2.2).

use std::fmt;

/// A request's host in normal form: a DNS name, an IPv4 address or a bracketed IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// The name, and `:` and the port if present.
    text: String,
    name_bytes: usize,
    port: Option<u16>,
}

impl Host {
    /// Parses a Host header or an authority. `None` for anything but `name[:port]`: lists, white space, user names,
    /// paths, empty names, ports that are not a number below 65536.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digits) = split_port(text)?;
        let name = name.strip_suffix('.').unwrap_or(name);
        let digits = digits.map(|digits| digits.trim_start_matches('0'));
        let port = match digits {
            Some(digits) => Some(digits.parse().ok()?),
            None => None,
        };
        is_name(name).then(|| Self::new(name, digits, port))
    }

    fn new(name: &str, digits: Option<&str>, port: Option<u16>) -> Self {
        let mut text = String::with_capacity(name.len() + 6);
        text.push_str(name);
        text.make_ascii_lowercase();
        if let Some(digits) = digits {
            text.push(':');
            text.push_str(digits);
        }
        Self { text, name_bytes: name.len(), port }
    }

    /// 127.0.0.1, without a port.
    pub fn loopback() -> Self {
        Self::new("127.0.0.1", None, None)
    }

    /// The name without the port; IPv6 in brackets.
    pub fn name(&self) -> &str {
        &self.text[..self.name_bytes]
    }

    /// Whether the host is this domain or below it.
    pub fn is_within(&self, domain: &str) -> bool {
        self.name().strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
    }

    /// The port, if present.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port as text, if present.
    pub fn port_digits(&self) -> Option<&str> {
        self.port.map(|_| &self.text[self.name_bytes + 1..])
    }

    /// The name, and the port if present.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The name, and the port's digits if present.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let after_bracket = if text.starts_with('[') { text.rfind(']').map_or(0, |at| at + 1) } else { 0 };
    let Some(colon) = memchr::memchr(b':', &text.as_bytes()[after_bracket..]) else {
        return Some((text, None));
    };
    let (name, port) = text.split_at(after_bracket + colon);
    let digits = &port[1..];
    // a port may be empty (RFC 3986, 3.2.3)
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some((name, Some(digits).filter(|digits| !digits.is_empty())))
}

fn is_name(name: &str) -> bool {
    if let Some(inside) = name.strip_prefix('[') {
        return inside.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let mut label = 0;
    let plain = name.bytes().all(|b| {
        label = if b == b'.' && label > 0 { 0 } else { label + 1 };
        label <= 63 && (b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || (b == b'.' && label == 0))
    });
    plain && label > 0 && name.len() <= 253
}

/// `route.host`: any host, exactly one, or `*.` and a parent domain (one or more labels before it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// `""`
    Any,
    /// `app.example.com`, with or without a port
    Exact(Host),
    /// `*.example.com`: the part after the star and the dot, lower case
    Below(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(host) => host.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl HostPattern {
    /// Parses a pattern; `None` if it is neither a host nor `*.` and a domain.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Any);
        }
        if let Some(domain) = text.strip_prefix("*.") {
            let host = Host::parse(domain)?;
            let plain = host.port.is_none() && !host.name().starts_with('[');
            return plain.then_some(Self::Below(host.text));
        }
        Host::parse(text).map(Self::Exact)
    }

    /// Whether the pattern matches this host. A pattern without a port matches every port.
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(own) => own.name() == host.name() && (own.port.is_none() || own.port == host.port),
            Self::Below(domain) => host
                .name()
                .strip_suffix(domain.as_str())
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form_has_no_case_no_trailing_dot_and_the_port_apart() {
        let host = Host::parse("APP.Example.COM.:443").unwrap();
        assert_eq!((host.name(), host.port()), ("app.example.com", Some(443)));
        assert_eq!(Host::parse("[2001:DB8::1]:8080").unwrap().to_string(), "[2001:db8::1]:8080");
        assert_eq!(Host::parse("127.0.0.1").unwrap().to_string(), "127.0.0.1");
    }

    #[test]
    fn what_is_not_plainly_a_name_and_a_port_is_refused() {
        for text in [
            "",
            ".",
            "a b",
            "a, b",
            "a/x",
            "a?x",
            "a#x",
            "a\\x",
            "<script>",
            ":80",
            "a:x",
            "a:99999",
            "a:0",
            "a:+1",
            "u@a",
            "a..b",
            "[::1",
            "::1",
            "[a]",
            "a]",
            "é.example",
            "a%2eb",
        ] {
            assert_eq!(Host::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_star_matches_one_label_or_more_and_never_for_none() {
        let pattern = HostPattern::parse("*.Example.com").unwrap();
        for (host, taken) in [
            ("a.example.com", true),
            ("a.b.example.com:81", true),
            ("example.com", false),
            ("evilexample.com", false),
            ("a.example.com.evil.test", false),
        ] {
            assert_eq!(pattern.matches(&Host::parse(host).unwrap()), taken, "{host}");
        }
    }
}
