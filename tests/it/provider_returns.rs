//! Where a sign-in through a provider ends: where the person was going, and never on another's site (RFC 9700, 4.11).

use form_urlencoded::byte_serialize;

use crate::gateway::Gateway;
use crate::provider::Provider;
use crate::providers::{Browser, ROUTE, serve};

/// Whom the places below name as an allowed origin.
const PAGES: &str = "[pages]\nafter_login = \"/home\"\ncallback_origins = [\"https://other.example.org\"]\n";

/// What a link may say, where `HOST` is the gateway's own name and port, and where it leads.
const ALLOWED: [(&str, &str); 9] = [
    ("/", "/"),
    ("/a/b?x=1&y=%2F", "/a/b?x=1&y=%2F"),
    ("/a/b?x=1&y=%2F#part", "/a/b?x=1&y=%2F#part"),
    ("/a?u=https://evil.test/", "/a?u=https://evil.test/"),
    ("http://HOST/x?y#z", "/x?y#z"),
    ("HTTP://HOST/x", "/x"),
    ("https://other.example.org/", "https://other.example.org/"),
    ("/.auth/account", "/.auth/account"),
    ("/loginless", "/loginless"),
];

/// Other sites, as browsers and parsers have been talked into them, and pages that must not be returned to.
const REFUSED: [&str; 43] = [
    " ",
    "x",
    "//evil.test",
    "///evil.test",
    "////evil.test",
    "/\\evil.test",
    "\\/evil.test",
    "\\\\evil.test",
    "/\t/evil.test",
    "/\n/evil.test",
    "/\r/evil.test",
    "\t//evil.test",
    " //evil.test",
    "/ /evil.test",
    "https:evil.test",
    "https:/evil.test",
    "https:///evil.test",
    "https://evil.test",
    "https://HOST/",
    "http://HOST.evil.test/",
    "https://evil.test/HOST",
    "http://HOST@evil.test/",
    "http://u:p@HOST/",
    "https://other.example.org.evil.test/",
    "http://other.example.org/",
    "https://other.example.org:8443/",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "blob:http://HOST/x",
    "/.auth",
    "/.auth/logout?x",
    "/.auth/oauth/corp",
    "/x/../.auth/logout",
    "http://HOST//evil.test",
    "//HOST/",
    "/é",
    "/a\0",
    "/a\u{7f}",
    "/%2e/.auth/logout",
    "http://HOST:1/",
    "/x\r\nSet-Cookie: a=b",
];

fn ends_at(gateway: &Gateway, provider: &Provider, browser: &mut Browser, name: &str, wanted: &str) -> String {
    let wanted = wanted.replace("HOST", &gateway.host());
    let start = format!("/.auth/oauth/corp?{name}={}", byte_serialize(wanted.as_bytes()).collect::<String>());
    let answer = browser.through(gateway, provider, &start);
    assert_eq!(answer.status, 303, "{wanted:?}: {answer:?}");
    answer.field("location").unwrap().to_owned()
}

#[test]
fn a_sign_in_through_a_provider_returns_to_allowed_places_alone() {
    let provider = Provider::start();
    let gateway = serve(&format!("{PAGES}{}{ROUTE}", provider.configured("corp", "sign_up = \"open\"\n")));
    provider.person("grace-1", "grace@example.com", true);
    let mut browser = Browser::default();
    for (wanted, place) in ALLOWED {
        assert_eq!(ends_at(&gateway, &provider, &mut browser, "callbackUrl", wanted), place, "{wanted}");
    }
    for wanted in REFUSED {
        assert_eq!(ends_at(&gateway, &provider, &mut browser, "callbackUrl", wanted), "/home", "{wanted:?}");
    }
    for name in ["rd", "next", "target_link_uri"] {
        assert_eq!(ends_at(&gateway, &provider, &mut browser, name, "/app?x=1"), "/app?x=1", "{name}");
        assert_eq!(ends_at(&gateway, &provider, &mut browser, name, "//evil.test"), "/home", "{name}");
    }
    assert_eq!(browser.who(&gateway).as_deref(), Some("grace@example.com"));
}
