//! Header fields that proxies use to describe a request. In lower case, as in `http`.

/// Fields that no general rule below covers. The fields from `script-name` on can make an app see a different path than
/// the one that was authorized (Radicale, Calibre-Web and others strip `X-Script-Name` from it).
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

/// Fields of the `x-forwarded-` family that carry identities.
const IDENTITIES: [&str; 4] =
    ["x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username"];

/// Whether apps trust a field of this name as set by a proxy.
pub fn is_said_by_proxies(name: &str) -> bool {
    // first letters of all these names
    let may_be_named = name.starts_with(['x', 'f', 'c', 's']);
    (may_be_named && (NAMED.contains(&name) || name.starts_with("x-forwarded-"))) || name.ends_with("client-ip")
}

/// Whether `trusted_headers` may list it.
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
