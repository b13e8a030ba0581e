//! A property of any routes and any request: an app that interprets a forwarded request in its own way reaches nothing
//! that the rules refuse to the caller. The rules are evaluated here a second time, one by one, without the index and
//! without readings.

#![allow(clippy::expect_used, reason = "a property that does not hold panics")]

use std::path::PathBuf;
use std::sync::LazyLock;

use http::{HeaderName, HeaderValue, Method};

use super::report::SimulatedRequest;
use super::simulate::Simulator;
use crate::account::User;
use crate::config::{self, Access, Config, Route};
use crate::web::host::Host;
use crate::web::properties::READERS;
use crate::web::readings::shown;

/// Fields that make an app read another method.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// One request and its caller.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) method: String,
    pub(crate) host: &'static str,
    pub(crate) path: Vec<u8>,
    /// The field and the method in it.
    pub(crate) second: Option<(&'static str, String)>,
    pub(crate) destination: Option<Vec<u8>>,
    /// The groups of the signed-in user; `None` for an anonymous request.
    pub(crate) groups: Option<Vec<String>>,
}

/// Decides about a request and, if it is forwarded, checks what each app makes of it against the rules. Returns whether
/// it was forwarded.
pub(crate) fn check(config: &Config, simulator: &Simulator<'_>, sent: &Sent) -> bool {
    let Ok(path) = std::str::from_utf8(&sent.path) else { return false };
    let (Ok(method), true) = (Method::from_bytes(sent.method.as_bytes()), path.starts_with('/')) else { return false };
    let field = |name: &str, value: &[u8]| {
        let value = HeaderValue::from_bytes(value).ok()?;
        Some((HeaderName::try_from(name).expect("a name"), value))
    };
    let second = sent.second.iter().filter_map(|(name, method)| field(name, method.as_bytes()));
    let destination = sent.destination.iter().filter_map(|path| field("destination", path));
    let accept = field("accept", b"*/*");
    let user = sent.groups.as_ref().map(|groups| {
        User::new("7".into(), "ada@example.com".into(), String::new(), String::new(), groups.clone(), false)
    });
    let asked = SimulatedRequest {
        method: method.clone(),
        target: format!("http://{}{path}", sent.host),
        headers: second.chain(destination).chain(accept).collect(),
        user,
    };
    let Ok(explanation) = simulator.explain(&asked) else { return false };
    let Some(forwarded) = explanation.upstream else { return false };
    let (_, target) = forwarded.request.split_once(' ').expect("method and target");
    let upstream = config.upstreams.iter().position(|upstream| upstream.name == forwarded.name).expect("an upstream");
    let taken = &config.routes[explanation.route.expect("a route") - 1];
    let cut = path.strip_prefix(&taken.strip_prefix).unwrap_or(path);
    let arrives = if cut.starts_with('/') { cut.to_owned() } else { format!("/{cut}") };
    assert_eq!(target, arrives, "{sent:?}");
    let (path, _) = target.split_once('?').unwrap_or((target, ""));
    // what an app may read
    let mut methods = vec![method.clone()];
    methods.extend(sent.second.iter().filter_map(|(_, second)| {
        let named = Method::from_bytes(second.trim().to_ascii_uppercase().as_bytes()).ok();
        named.filter(|_| method != Method::GET)
    }));
    let host = Host::parse(sent.host).expect("a host");
    let moves = methods.iter().any(|method| matches!(method.as_str(), "COPY" | "MOVE"));
    for (name, read) in READERS {
        for method in &methods {
            let own = [taken.strip_prefix.as_bytes(), &read(path.as_bytes())].concat();
            // the app's root is the prefix with or without a slash
            let root = own.strip_suffix(b"/").filter(|root| *root == taken.strip_prefix.as_bytes() && !root.is_empty());
            let may = |path: &[u8]| {
                first(config, &host, path, method).is_some_and(|route| {
                    let same = route.upstream == Some(upstream) && route.strip_prefix == taken.strip_prefix;
                    lets_in(route, sent) && (same || *method != methods[0])
                })
            };
            assert!(may(&own) || root.is_some_and(may), "{name} takes {sent:?} for {method} {}", shown(&own));
            let is_sent = |path: &&Vec<u8>| moves && HeaderValue::from_bytes(path).is_ok();
            let second = sent.destination.as_ref().filter(is_sent).and_then(|path| path_of(path));
            let places =
                second.iter().flat_map(|path| [read(path), [taken.strip_prefix.as_bytes(), &read(path)].concat()]);
            for place in places {
                let route = first(config, &host, &place, method);
                let message = || format!("{name} takes the second path of {sent:?} for {method} {}", shown(&place));
                assert!(route.is_some_and(|route| lets_in(route, sent)), "{}", message());
            }
        }
    }
    true
}

/// The path in a `Destination`, for an app that cuts the query and the fragment.
fn path_of(field: &[u8]) -> Option<Vec<u8>> {
    let path = if field.starts_with(b"/") {
        field
    } else {
        let behind = &field[field.windows(3).position(|three| three == b"://")? + 3..];
        &behind[behind.iter().position(|&b| b == b'/')?..]
    };
    Some(path.iter().copied().take_while(|b| !b"?#".contains(b)).collect())
}

/// "First match wins."
fn first<'c>(config: &'c Config, host: &Host, path: &[u8], method: &Method) -> Option<&'c Route> {
    config.routes.iter().find(|route| route.miss(host, path, method).is_none())
}

fn lets_in(route: &Route, sent: &Sent) -> bool {
    match (route.access, &sent.groups) {
        (Access::Deny, _) | (Access::SignedIn, None) => false,
        (Access::SignedIn, Some(own)) => {
            route.groups.is_empty() || route.groups.iter().any(|group| own.contains(group))
        }
        (Access::Public | Access::Optional, _) => true,
    }
}

/// Two apps: guarded and open paths of one, some below a prefix, and a page that is open only for GET.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let routes = [
        ("/a/**", "access = \"public\"\nupstream = \"http://127.0.0.1:1\""),
        ("/b/**", "groups = [\"staff\"]\nupstream = \"http://127.0.0.1:1\""),
        ("/c/a/**", "access = \"deny\""),
        ("/c/c/**", "groups = [\"staff\"]\nstrip_prefix = \"/c\"\nupstream = \"http://127.0.0.1:1\""),
        ("/c/**", "access = \"public\"\nstrip_prefix = \"/c\"\nupstream = \"http://127.0.0.1:1\""),
        ("/*/d", "methods = [\"GET\"]\naccess = \"public\"\nupstream = \"http://127.0.0.1:1\""),
        ("/e*/**", "access = \"public\"\nupstream = \"http://127.0.0.1:2\""),
        ("/**", "upstream = \"http://127.0.0.1:1\""),
    ];
    let text = routes.map(|(path, rest)| format!("[[route]]\npath = \"{path}\"\n{rest}\n")).concat();
    config::parse(&text, "a property", PathBuf::new(), &|_| None).expect("a configuration")
});

/// The first byte selects the caller and the method; the rest is a path and, after a line feed, a second path.
///
/// # Panics
/// If an app reaches what the rules refuse.
pub fn reach(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let mut lines = rest.splitn(2, |&b| b == b'\n');
    let path = [b"/", lines.next().unwrap_or_default()].concat();
    let destination = lines.next().map(<[u8]>::to_vec);
    let method =
        if destination.is_some() { "MOVE" } else { ["GET", "POST", "DELETE", "HEAD"][usize::from(kind >> 4) % 4] };
    let second = (kind & 4 != 0).then(|| (OVERRIDES[usize::from(kind >> 6) % 3], "get".to_owned()));
    let groups = match kind % 3 {
        0 => None,
        1 => Some(Vec::new()),
        _ => Some(vec!["staff".to_owned()]),
    };
    let sent = Sent { method: method.to_owned(), host: "app.example.com", path, second, destination, groups };
    check(&CONFIG, &Simulator::new(&CONFIG), &sent);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::web::properties::{holds_for_the_seeds, pieces};

    #[test]
    fn it_holds_for_the_seeds() {
        holds_for_the_seeds("reach", reach);
    }

    /// Few words, so that patterns, paths and prefixes overlap.
    const PIECES: &[&str] = &[
        "/", "/", "/", "/", "//", "a", "a", "b", "b", "ab", "..", "/../", "%2F", "%2f..%2F", "%252F", ";", ";x", "%3B",
        "\\", "%5C", "%23", "%3F", "%2e%2E", ".", "%61", "é", "%C3%A9", "%c3%a9", "%7E", "..;/", "%25", "/a/", "/b/",
        "?a", "#b",
    ];
    const HOSTS: [&str; 3] = ["app.example.com", "b.example.com", "other.test"];
    const METHODS: [&str; 9] = ["GET", "POST", "DELETE", "HEAD", "MOVE", "COPY", "PUT", "delete", "PURGE"];

    fn segment() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "ab", "*", "a*", "*b", "caf%C3%A9", "~a"])
    }

    fn pattern() -> impl Strategy<Value = (Vec<&'static str>, &'static str)> {
        (prop::collection::vec(segment(), 0..3), prop::sample::select(vec!["", "/", "/**", "/**", "/**"]))
    }

    /// A `[[route]]`; some combinations are invalid.
    fn route() -> impl Strategy<Value = String> {
        let access = prop::sample::select(vec!["public", "optional", "signed_in", "signed_in", "deny"]);
        let host = prop::sample::select(vec!["", "", "app.example.com", "*.example.com"]);
        let methods = prop::sample::subsequence(vec!["GET", "POST", "DELETE", "MOVE", "PURGE"], 0..3);
        let groups = prop::sample::subsequence(vec!["staff", "ops"], 0..2);
        let rest = (any::<bool>(), 1..3_u8, prop::bool::weighted(0.1));
        (pattern(), access, host, methods, groups, rest).prop_map(
            |((segments, end), access, host, methods, groups, (cut, upstream, plain))| {
                let front = segments.iter().fold(String::new(), |path, segment| path + "/" + segment);
                let path = if front.is_empty() && end.is_empty() { "/".to_owned() } else { front.clone() + end };
                let prefix = if cut && !front.contains('*') && !front.is_empty() { front.as_str() } else { "" };
                let groups = if access == "signed_in" { groups } else { Vec::new() };
                let plain = if plain { "paths = \"plain\"\n" } else { "" };
                format!(
                    "[[route]]\nhost = \"{host}\"\npath = \"{path}\"\naccess = \"{access}\"\nmethods = {methods:?}\ngroups = {groups:?}\n\
                     strip_prefix = \"{prefix}\"\n{plain}upstream = \"http://127.0.0.1:{upstream}\"\n"
                )
            },
        )
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let method = prop::sample::select(METHODS.to_vec());
        let second = prop::option::weighted(0.2, (prop::sample::select(OVERRIDES.to_vec()), method.clone()));
        let groups = prop::option::of(prop::sample::subsequence(vec!["staff", "ops"], 0..3));
        let odd = || prop_oneof![2 => pieces(PIECES, 6), 1 => pieces(&["/", "a", "b", "ab"], 5)];
        let path = odd().prop_map(|path| [b"/", path.as_slice()].concat());
        let second_path = prop_oneof![Just("/"), Just("http://any.example.com/"), Just("")];
        let destination = prop::option::weighted(0.3, (second_path, odd()));
        let names = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
        (method, prop::sample::select(HOSTS.to_vec()), path, second, destination, groups).prop_map(
            move |(method, host, path, second, destination, groups)| Sent {
                method: method.to_owned(),
                host,
                path,
                second: second.map(|(name, method)| (name, method.to_owned())),
                destination: destination.map(|(front, path)| [front.as_bytes(), &path].concat()),
                groups: groups.map(names),
            },
        )
    }

    /// Holds for any route table, any spelling of a path and any way of reading it.
    #[test]
    fn nothing_is_reached_that_the_strictest_reading_refuses() {
        let (forwarded, odd) = (Cell::new(0), Cell::new(0));
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 100, source_file: Some(file!()), ..ProptestConfig::default() });
        let tables = (prop::collection::vec(route(), 1..7), prop::collection::vec(sent(), 24));
        let outcome = runner.run(&tables, |(routes, requests)| {
            // an unreachable route is an error: leave out what the file cannot hold
            let mut text = String::new();
            for route in routes {
                let longer = format!("{text}{route}");
                if config::parse(&longer, "a property", PathBuf::new(), &|_| None).is_ok() {
                    text = longer;
                }
            }
            let Ok(config) = config::parse(&text, "a property", PathBuf::new(), &|_| None) else { return Ok(()) };
            let simulator = Simulator::new(&config);
            for sent in requests {
                if check(&config, &simulator, &sent) {
                    forwarded.set(forwarded.get() + 1);
                    let plain =
                        crate::web::path::NormalPath::parse(sent.path.split(|&b| b == b'?').next().unwrap()).is_ok();
                    odd.set(odd.get() + usize::from(!plain));
                }
            }
            Ok(())
        });
        outcome.unwrap();
        assert!(forwarded.get() > 100 && odd.get() > 15, "{} forwarded, {} of them odd", forwarded.get(), odd.get());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_app_reaches_what_is_refused(kind in any::<u8>(), path in pieces(PIECES, 7)) {
            reach(&[&[kind], path.as_slice()].concat());
        }
    }
}
