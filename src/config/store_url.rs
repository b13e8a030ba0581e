//! `[store] url`: a PostgreSQL connection URL, read strictly. What is wrong is said without any part of the text that
//! may belong to a password.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::authority::{Authority, UpstreamTls};
use super::store::{StoreHost, StoreTls, StoreUrl};
use crate::secret::Secret;
use crate::web::host::Host;

const PORT: u16 = 5432;
/// Most hosts of one URL.
const HOSTS_MAX: usize = 16;
/// Longest directory of a socket, in bytes: the address of a Unix socket has 107, and `/.s.PGSQL.65535` follows.
const DIRECTORY_BYTES_MAX: usize = 90;

const EXAMPLE: &str = "example: postgres://authgate@db.example.com:5432/authgate";
const ENCODE: &str =
    "in a user name, password or database, write % as %25, / as %2F, ? as %3F, # as %23, @ as %40 and : as %3A";
const KNOWN: &str = "remove it; known parameters: host, port, sslmode, target_session_attrs";

/// What is wrong with a URL, and the suggested fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UrlFault {
    pub(super) what: String,
    pub(super) remedy: String,
}

fn fault<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, UrlFault> {
    Err(UrlFault { what: what.into(), remedy: remedy.into() })
}

/// Reads a URL: `postgres://USER:PASSWORD@HOST:5432,HOST:5432/DATABASE?sslmode=verify-full`, or with
/// `?host=/run/postgresql` for a Unix socket. `ca` are trusted CAs beside the system roots; `danger_require` permits
/// TLS without verification.
///
/// # Errors
/// One line with a suggested fix. It shows neither the password nor anything that could be a part of it.
pub fn parse_store_url(text: &str, ca: &[Authority], danger_require: bool) -> Result<StoreUrl, String> {
    read(text, None, ca, danger_require).map_err(|fault| format!("{}: {}", fault.what, fault.remedy))
}

/// The same, with a password that is kept apart from the text.
pub(super) fn read(
    text: &str,
    password: Option<Secret>,
    ca: &[Authority],
    danger_require: bool,
) -> Result<StoreUrl, UrlFault> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return fault("the URL of the store contains white space or control characters", EXAMPLE);
    }
    let scheme = text.split_once("://").filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme));
    let Some((_, rest)) = scheme else { return fault("the URL of the store does not begin with postgres://", EXAMPLE) };
    let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (path, query) = after.split_once('?').unwrap_or((after, ""));
    let path = path.strip_prefix('/').unwrap_or(path);
    if after.contains(['@', '#']) || path.contains('/') || authority.matches('@').count() > 1 {
        return fault("the URL of the store has a character that must be percent-encoded", ENCODE);
    }
    let (user_info, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (user, typed) = user_info.split_once(':').map_or((user_info, None), |(user, typed)| (user, Some(typed)));
    if user.is_empty() {
        return fault("the URL of the store has no user", "write it before the host: postgres://USER@HOST/DATABASE");
    }
    let user = decoded(user, "user")?;
    let password = match typed {
        Some(typed) => Some(Secret::new(decoded(typed, "password")?)),
        None => password,
    };
    if password.as_ref().is_some_and(|password| password.expose().is_empty() || password.expose().contains('\0')) {
        return fault("the password of the store is empty or contains NUL", "set it, or leave the `:` out");
    }
    let database = if path.is_empty() { user.clone() } else { decoded(path, "database")? };
    let parameters = parameters(query)?;
    let hosts = all_hosts(hosts, &parameters)?;
    let tls = tls(parameters.sslmode.as_deref(), &hosts, ca, danger_require)?;
    Ok(StoreUrl { hosts, user, password, database, tls })
}

/// Percent-decodes a part: strictly, and without what would end a string of PostgreSQL's protocol.
fn decoded(text: &str, part: &str) -> Result<String, UrlFault> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return fault(format!("the {part} in the URL of the store has a `%` that begins no escape"), ENCODE);
    }
    let text = percent_encoding::percent_decode_str(text).decode_utf8();
    match text {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text.into_owned()),
        _ => fault(
            format!("the {part} in the URL of the store is not UTF-8, or contains control characters"),
            "percent-encode it as UTF-8",
        ),
    }
}

/// The query of a URL.
#[derive(Default)]
struct Parameters {
    host: Option<String>,
    port: Option<String>,
    sslmode: Option<String>,
    target_session_attrs: Option<String>,
}

fn parameters(query: &str) -> Result<Parameters, UrlFault> {
    let mut all = Parameters::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match name {
            "host" => &mut all.host,
            "port" => &mut all.port,
            "sslmode" => &mut all.sslmode,
            "target_session_attrs" => &mut all.target_session_attrs,
            _ => return fault(unsupported(name), remedy_of(name)),
        };
        if place.is_some() {
            return fault(format!("the URL of the store has `{name}` twice"), "remove one of them");
        }
        *place = Some(decoded(value, name)?);
    }
    if all.target_session_attrs.as_ref().is_some_and(|value| value != "read-write") {
        let what = "`target_session_attrs` in the URL of the store can only be read-write";
        return fault(what, "remove it: of several hosts, the one that accepts writes is always used");
    }
    Ok(all)
}

fn unsupported(name: &str) -> String {
    let is_word = name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let shown = if is_word { name } else { "..." };
    format!("unsupported parameter `{shown}` in the URL of the store")
}

fn remedy_of(name: &str) -> &'static str {
    match name {
        "connect_timeout" => "remove it: connecting to a host takes 5 s at most",
        "sslrootcert" => "remove it, and set `ca = { file = \"...\" }` in [store]",
        "sslcert" | "sslkey" | "sslpassword" => "remove it: the store is signed in to with a password",
        "user" | "password" => "write user and password before the host: postgres://USER:PASSWORD@HOST/DATABASE",
        "dbname" => "write the database after the host: postgres://USER@HOST/DATABASE",
        "application_name"
        | "options"
        | "keepalives"
        | "keepalives_idle"
        | "keepalives_interval"
        | "keepalives_count"
        | "tcp_user_timeout"
        | "channel_binding" => "remove it: the gateway sets it itself",
        _ => KNOWN,
    }
}

fn all_hosts(authority: &str, parameters: &Parameters) -> Result<Vec<StoreHost>, UrlFault> {
    let hosts = match &parameters.host {
        Some(_) if !authority.is_empty() => {
            let remedy = "list all hosts before the `/`; a directory is written %2Frun%2Fpostgresql there";
            return fault("the URL of the store has hosts in two places", remedy);
        }
        Some(directories) => {
            let port = parameters.port.as_deref().map_or(Ok(PORT), |port| self::port(port, 1))?;
            directories.split(',').map(|path| unix(path, port)).collect::<Result<Vec<_>, _>>()?
        }
        None if parameters.port.is_some() => {
            return fault("`port` in the URL of the store has no `host` beside it", "write HOST:PORT before the `/`");
        }
        None if authority.is_empty() => {
            let remedy = "write postgres://USER@HOST/DATABASE, or postgres://USER@/DATABASE?host=/run/postgresql";
            return fault("the URL of the store has no host", remedy);
        }
        None => {
            let numbered = authority.split(',').enumerate();
            numbered.map(|(at, text)| host(text, at + 1)).collect::<Result<Vec<_>, _>>()?
        }
    };
    if hosts.len() > HOSTS_MAX {
        return fault(format!("the URL of the store has more than {HOSTS_MAX} hosts"), "remove some");
    }
    Ok(hosts)
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`, or a percent-encoded directory for a host.
fn host(text: &str, number: usize) -> Result<StoreHost, UrlFault> {
    let after_bracket = if text.starts_with('[') { text.find(']').map_or(text.len(), |at| at + 1) } else { 0 };
    let (name, port) = match text[after_bracket..].find(':') {
        None => (text, PORT),
        Some(at) => {
            let (name, port) = text.split_at(after_bracket + at);
            (name, self::port(&port[1..], number)?)
        }
    };
    let name = decoded(name, "host")?;
    if name.starts_with('/') {
        return unix(&name, port);
    }
    let bad = || UrlFault {
        what: format!("host {number} in the URL of the store is no host name or address"),
        remedy: format!("write an IPv6 address in brackets, and other scripts as punycode; {EXAMPLE}"),
    };
    if let Some(inside) = name.strip_prefix('[') {
        let address = inside.strip_suffix(']').and_then(|inside| inside.parse::<Ipv6Addr>().ok());
        return Ok(StoreHost::Tcp(address.ok_or_else(bad)?.to_string(), port));
    }
    let host = Host::parse(&name).filter(|host| host.port().is_none() && !name.contains(':')).ok_or_else(bad)?;
    // what a certificate cannot contain cannot be verified either
    UpstreamTls::name(host.name()).ok_or_else(bad)?;
    Ok(StoreHost::Tcp(host.name().to_owned(), port))
}

fn port(text: &str, number: usize) -> Result<u16, UrlFault> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if port > 0 && is_number => Ok(port),
        _ => fault(
            format!("the port of host {number} in the URL of the store is not a number from 1 to 65535"),
            "write HOST:5432, and an IPv6 address in brackets; a `:` in a password is %3A",
        ),
    }
}

fn unix(path: &str, port: u16) -> Result<StoreHost, UrlFault> {
    if !path.starts_with('/') || path.len() > DIRECTORY_BYTES_MAX {
        let what = format!("`host` in the URL of the store is no absolute path of at most {DIRECTORY_BYTES_MAX} bytes");
        return fault(what, "use the directory of the socket, for example ?host=/run/postgresql");
    }
    Ok(StoreHost::Unix(PathBuf::from(path), port))
}

fn tls(
    sslmode: Option<&str>,
    hosts: &[StoreHost],
    ca: &[Authority],
    danger_require: bool,
) -> Result<StoreTls, UrlFault> {
    let verified = || StoreTls::VerifyFull { roots: ca.to_vec() };
    let tls = match sslmode {
        None | Some("require") if danger_require => StoreTls::Require,
        None | Some("verify-full") => verified(),
        Some("require") => {
            let what = "sslmode=require does not verify the server: anyone in between could read and change accounts";
            let remedy = "use sslmode=verify-full, with `ca = { file = \"...\" }` in [store] for a private CA; to take the \
                          risk, set danger_store_tls = \"require\"";
            return fault(what, remedy);
        }
        Some("disable") if hosts.iter().all(StoreHost::is_local) => StoreTls::Off,
        Some("disable") => {
            let what = "sslmode=disable is only for loopback addresses and Unix sockets";
            return fault(what, "use sslmode=verify-full");
        }
        Some(_) => {
            let what = "`sslmode` in the URL of the store can only be verify-full, require or disable";
            return fault(what, "use sslmode=verify-full, the default");
        }
    };
    // PostgreSQL has no TLS on Unix sockets
    Ok(if hosts.iter().all(StoreHost::is_unix) { StoreTls::Off } else { tls })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<StoreUrl, String> {
        parse_store_url(text, &[], false)
    }

    fn tcp(name: &str, port: u16) -> StoreHost {
        StoreHost::Tcp(name.to_owned(), port)
    }

    fn unix(path: &str, port: u16) -> StoreHost {
        StoreHost::Unix(PathBuf::from(path), port)
    }

    #[test]
    fn every_part_of_a_url_is_read_and_decoded() {
        let url = parse("postgresql://auth%40gate:p%40s%2Fs%3A%C3%A9@DB1.example.com:5433,[::1],10.0.0.1:6000/db%2F1");
        let expected = StoreUrl {
            hosts: vec![tcp("db1.example.com", 5433), tcp("::1", 5432), tcp("10.0.0.1", 6000)],
            user: "auth@gate".to_owned(),
            password: Some(Secret::new("p@s/s:é".to_owned())),
            database: "db/1".to_owned(),
            tls: StoreTls::VerifyFull { roots: Vec::new() },
        };
        assert_eq!(url.unwrap(), expected);
        let url = parse("postgres://me:a:b@h?target_session_attrs=read-write").unwrap();
        assert_eq!((url.database.as_str(), url.password), ("me", Some(Secret::new("a:b".to_owned()))));
        assert_eq!(parse("postgres://me@h/").unwrap().password, None);
    }

    #[test]
    fn a_unix_socket_is_a_directory_in_the_query_or_for_a_host() {
        for (text, hosts) in [
            ("postgres://me@/d?host=/run/postgresql", vec![unix("/run/postgresql", 5432)]),
            ("postgres://me@?host=%2Frun%2Fpg&port=5433", vec![unix("/run/pg", 5433)]),
            ("postgres://me@/d?host=/a,/b", vec![unix("/a", 5432), unix("/b", 5432)]),
            ("postgres://me@%2Frun%2Fpg:5433,localhost/d", vec![unix("/run/pg", 5433), tcp("localhost", 5432)]),
        ] {
            assert_eq!(parse(text).unwrap().hosts, hosts, "{text}");
        }
        assert_eq!(parse("postgres://me@/d?host=/run/postgresql").unwrap().tls, StoreTls::Off);
        let both = parse("postgres://me@%2Frun%2Fpg,db.example.com/d").unwrap().tls;
        assert!(matches!(both, StoreTls::VerifyFull { .. }), "TCP hosts beside a socket have TLS");
    }

    #[test]
    fn tls_is_verified_unless_the_host_is_local_or_the_danger_is_named() {
        let tls = |text: &str, danger: bool| parse_store_url(text, &[], danger).map(|url| url.tls.sslmode());
        for text in ["postgres://u@db", "postgres://u@127.0.0.1", "postgres://u@db?sslmode=verify-full"] {
            assert_eq!(tls(text, false), Ok("verify-full"), "{text}");
        }
        for host in ["127.0.0.1", "127.9.9.9:1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "localhost,[::1]:1"] {
            assert_eq!(tls(&format!("postgres://u@{host}/d?sslmode=disable"), false), Ok("disable"), "{host}");
        }
        for host in ["db.example.com", "10.0.0.1", "0.0.0.0", "localhost,10.0.0.1", "localhost.example.com", "[::]"] {
            for danger in [false, true] {
                let said = tls(&format!("postgres://u@{host}/d?sslmode=disable"), danger).unwrap_err();
                assert!(said.contains("only for loopback addresses and Unix sockets"), "{host}: {said}");
            }
        }
        assert!(tls("postgres://u@db?sslmode=require", false).unwrap_err().contains("danger_store_tls = \"require\""));
        assert_eq!(tls("postgres://u@db?sslmode=require", true), Ok("require"));
        assert_eq!(tls("postgres://u@db", true), Ok("require"));
        assert_eq!(tls("postgres://u@db?sslmode=verify-full", true), Ok("verify-full"));
        for word in ["prefer", "allow", "verify-ca", "", "VERIFY-FULL", "no"] {
            let said = tls(&format!("postgres://u@db?sslmode={word}"), true).unwrap_err();
            assert!(said.contains("can only be verify-full, require or disable"), "{word}: {said}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_a_line_of_its_own() {
        for (text, said) in [
            ("", "does not begin with postgres://"),
            ("mysql://u@h/d", "does not begin with postgres://"),
            ("host=h user=u", "white space"),
            ("postgres://u@h/d\n", "white space"),
            ("postgres://h/d", "has no user"),
            ("postgres://:p@h/d", "has no user"),
            ("postgres://u:@h/d", "password of the store is empty"),
            ("postgres://u@/d", "has no host"),
            ("postgres://u@h,/d", "host 2 in the URL of the store is no host name"),
            ("postgres://u@h_ö/d", "punycode"),
            ("postgres://u@::1/d", "port of host 1"),
            ("postgres://u@[::1/d", "no host name or address"),
            ("postgres://u@[::1]5/d", "no host name or address"),
            ("postgres://u@[::1%25eth0]/d", "no host name or address"),
            ("postgres://u@h:0/d", "port of host 1"),
            ("postgres://u@h,i:65536/d", "port of host 2"),
            ("postgres://u@h:+1/d", "port of host 1"),
            ("postgres://u@h:/d", "port of host 1"),
            ("postgres://u:p/q@h/d", "must be percent-encoded"),
            ("postgres://u:p?q@h/d", "must be percent-encoded"),
            ("postgres://u:p#q@h/d", "must be percent-encoded"),
            ("postgres://u:p@q@h/d", "must be percent-encoded"),
            ("postgres://u@h/d/e", "must be percent-encoded"),
            ("postgres://u:p%@h/d", "`%` that begins no escape"),
            ("postgres://u:p%4@h/d", "`%` that begins no escape"),
            ("postgres://u:p%zz@h/d", "`%` that begins no escape"),
            ("postgres://u%00x@h/d", "control characters"),
            ("postgres://u:p%00@h/d", "control characters"),
            ("postgres://u@h/d%0A", "control characters"),
            ("postgres://u@h/%ff", "not UTF-8"),
            ("postgres://u@h/d?connect_timeout=3", "`connect_timeout`"),
            ("postgres://u@h/d?sslrootcert=/x", "set `ca = "),
            ("postgres://u@h/d?channel_binding=require", "the gateway sets it itself"),
            ("postgres://u@h/d?Sslmode=disable", "unsupported parameter `Sslmode`"),
            ("postgres://u@h/d?sslmode", "`sslmode` in the URL of the store can only be"),
            ("postgres://u@h/d?a%20b=1", "unsupported parameter `...`"),
            ("postgres://u@h/d?sslmode=disable&sslmode=verify-full", "`sslmode` twice"),
            ("postgres://u@h/d?target_session_attrs=any", "can only be read-write"),
            ("postgres://u@h/d?host=/run/pg", "hosts in two places"),
            ("postgres://u@/d?host=db", "no absolute path"),
            ("postgres://u@h/d?port=1", "no `host` beside it"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(said) && !fault.contains('\n'), "{text}: {fault}");
        }
        let many = vec!["h"; HOSTS_MAX + 1].join(",");
        assert!(parse(&format!("postgres://u@{many}/d")).unwrap_err().contains("more than 16 hosts"));
        assert!(parse(&format!("postgres://u@{}/d", &many[2..])).is_ok());
    }

    const SECRET: &str = "Tr0ub4dor";

    #[test]
    fn what_is_shown_of_a_url_is_the_url_without_its_password() {
        for text in [
            "postgres://au%40th:Tr0ub4dor@h:5432,[::1]:1,%2Frun%2Fpg:5433/d%2Fb?sslmode=verify-full",
            "postgres://u:Tr0ub4dor@localhost:5432/d?sslmode=disable",
        ] {
            let mut url = parse(text).unwrap();
            assert_eq!(url.shown(), text.replace(":Tr0ub4dor", ""));
            assert!(!format!("{url:?}").contains(SECRET));
            url.password = None;
            assert_eq!(parse(&url.shown()), Ok(url));
        }
    }

    const PIECES: &[&str] = &[
        "postgres://",
        "u",
        ":",
        "@",
        "/",
        "?",
        "#",
        "&",
        "=",
        ",",
        "[",
        "]",
        "%",
        "%2F",
        "%00",
        "::1",
        "5432",
        "host",
        "sslmode",
        "disable",
        "password",
        "db.example.com",
        "é",
        " ",
        "\n",
        "$",
        "{",
    ];

    /// Pieces of URLs, right and wrong.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => prop::sample::select(PIECES).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
        ]
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_a_fault(pieces in prop::collection::vec(piece(), 0..16), danger: bool) {
            let text = pieces.concat();
            for text in [text.clone(), format!("postgres://{text}"), format!("postgres://u@{text}")] {
                match parse_store_url(&text, &[], danger) {
                    Err(fault) => prop_assert!(!fault.contains('\n')),
                    Ok(url) => {
                        prop_assert!(!url.hosts.is_empty() && url.hosts.len() <= HOSTS_MAX);
                        prop_assert!(url.tls != StoreTls::Require || danger);
                        prop_assert!(url.tls != StoreTls::Off || url.hosts.iter().all(StoreHost::is_local));
                        let again = parse_store_url(&url.shown(), &[], danger);
                        prop_assert_eq!(again, Ok(StoreUrl { password: None, ..url }));
                    }
                }
            }
        }

        /// A password with any characters, encoded or not, whatever else is wrong.
        #[test]
        fn no_fault_shows_a_password(
            before in prop::collection::vec(piece(), 0..4),
            after in prop::collection::vec(piece(), 0..4),
            rest in prop::collection::vec(piece(), 0..6),
        ) {
            let typed = format!("{}{SECRET}{}", before.concat(), after.concat());
            let text = format!("postgres://u:{typed}@h/d{}", rest.concat());
            let shown = match parse(&text) {
                Err(fault) => fault,
                Ok(url) => {
                    prop_assert!(url.password.as_ref().is_some_and(|password| password.expose().contains(SECRET)));
                    format!("{} {url:?}", url.shown())
                }
            };
            prop_assert!(!shown.contains(SECRET), "{}: {}", text, shown);
        }
    }
}
