//! Header fields by which proxies tell what they know of a request. In lower case, as `http` keeps names.

/// Fields that no name below tells apart from others. By those from `script-name` on an app may find another path
/// than the one that was judged (Radicale, Calibre-Web and others cut `X-Script-Name` off it).
const NAMED: [&str; 14] = [
    "forwarded",
    "forwarded-for",
    "x-forwarded",
    "x-real-ip",
    "cf-connecting-ip",
    "script-name",
    "x-script-name",
    "x-ingress-path",
    "x-original-path",
    "x-original-uri",
    "x-replaced-path",
    "x-envoy-original-path",
    "x-envoy-original-host",
    "x-original-host",
];

/// Fields of that look in which gateways state identities.
const IDENTITIES: [&str; 4] =
    ["x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username"];

/// Whether apps take a field of this name for a proxy's word.
pub fn is_said_by_proxies(name: &str) -> bool {
    // as all of those begin
    let may_be_named = name.starts_with(['x', 'f', 'c', 's']);
    (may_be_named && (NAMED.contains(&name) || name.starts_with("x-forwarded-"))) || name.ends_with("client-ip")
}

/// Whether `trusted_headers` may name it.
pub fn may_be_trusted(name: &str) -> bool {
    is_said_by_proxies(name) && !IDENTITIES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_names_is_a_proxys_and_others_that_begin_alike_are_not() {
        for name in NAMED.iter().chain(&IDENTITIES).chain(&["x-forwarded-anything", "true-client-ip", "client-ip"]) {
            assert!(is_said_by_proxies(name), "{name}");
        }
        for name in ["x-forward", "x-real", "cookie", "script", "from", "accept", "x-requested-with"] {
            assert!(!is_said_by_proxies(name), "{name}");
        }
    }
}
