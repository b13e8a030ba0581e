//! What a proxy in front says, read as real ones say it, and what apps are told in its place.

use crate::backend::Backend;
use crate::client::{Answer, Client};
use crate::gateway::Gateway;
use crate::known_attacks::{both_ways, mirror, still_serves};
use crate::websockets::HANDSHAKE;

const TRUSTING: &str = "public_url = \"https://apps.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
const PUBLIC: &str = "[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n";

fn one(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

/// Traefik says `wss` of a WebSocket (its issue 6388); several proxies in a row make lists, in one line or in several.
#[test]
fn a_trusted_proxys_scheme_is_read_in_every_way_that_proxies_write_it() {
    let gateway = Gateway::start(&format!("{TRUSTING}{PUBLIC}"));
    let ask = |lines: &[&str], fields: &[(&str, &str)]| -> Answer {
        let told = lines.iter().map(|line| ("X-Forwarded-Proto", *line));
        let fields: Vec<_> = told.chain([("Host", "apps.example.com")]).chain(fields.iter().copied()).collect();
        gateway.client().get("/x", &fields)
    };
    for lines in [
        &["https"][..],
        &["HTTPS"],
        &["wss"],
        &["Wss"],
        &["https, https"],
        &["https,https"],
        &["https", "https"],
        &["http, https"],
        &["ftp, https"],
        &["http", "wss"],
        &["https", ""],
        &["https, "],
        &[" https "],
    ] {
        let seen = ask(lines, &[]);
        assert_eq!((seen.status, seen.seen("x-forwarded-proto")), (200, one("https")), "{lines:?}");
        assert_eq!(ask(lines, HANDSHAKE).status, 101, "{lines:?}");
    }
    for lines in [&["http"][..], &["ws"], &["WS"], &["https, http"], &["https", "ws"], &[""], &[","], &[" , "], &[]] {
        assert_eq!(ask(lines, &[]).status, 308, "{lines:?}");
    }
    for lines in [&["ftp"][..], &["https ftp"], &["https, ftp"], &["https;a"], &["\"https\""]] {
        assert_eq!(ask(lines, &[]).status, 400, "{lines:?}");
    }
    still_serves(&Gateway::whoami());
}

#[test]
fn a_trusted_proxys_host_is_the_last_of_a_list_and_nothing_where_it_is_empty() {
    let gateway = Gateway::start(&format!(
        "{TRUSTING}[[route]]\nhost = \"other.example.com\"\naccess = \"deny\"\n[[route]]\nhost = \"apps.example.com\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n"
    ));
    let ask = |lines: &[&str]| {
        let told = lines.iter().map(|line| ("X-Forwarded-Host", *line));
        let fields: Vec<_> = told.chain([("Host", "apps.example.com"), ("X-Forwarded-Proto", "https")]).collect();
        gateway.client().get("/x", &fields)
    };
    for lines in [
        &["apps.example.com"][..],
        &["apps.example.com, apps.example.com"],
        &["apps.example.com", "APPS.example.com"],
        &["other.example.com, apps.example.com"],
        &["other.example.com", "apps.example.com", ""],
        &[""],
        &[],
    ] {
        let seen = ask(lines);
        assert_eq!((seen.status, seen.seen("host")), (200, one("apps.example.com")), "{lines:?}");
        assert_eq!(seen.seen("x-forwarded-host"), one("apps.example.com"), "{lines:?}");
    }
    assert_eq!(
        [ask(&["apps.example.com, other.example.com"]).status, ask(&["apps.example.com, a b"]).status],
        [403, 400]
    );
}

/// What others send of the kind is neither read nor a reason to refuse.
#[test]
fn what_is_not_trusted_says_nothing() {
    let gateway = Gateway::start(PUBLIC);
    let said = [
        ("X-Forwarded-Proto", "wss, nonsense"),
        ("X-Forwarded-Proto", "ftp"),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Port", "1"),
        ("X-Real-IP", "203.0.113.1"),
    ];
    for seen in both_ways(&gateway, "/x", &said) {
        assert_eq!((seen.status, seen.seen("x-forwarded-proto")), (200, one("http")));
        assert_eq!(seen.seen("x-forwarded-host"), one(&gateway.host()));
        assert_eq!(seen.seen("x-forwarded-port"), one(&gateway.address.port().to_string()));
        assert!(seen.seen("x-real-ip").is_empty());
    }
}

/// Tomcat's RemoteIpValve and Spring take a scheme without a port for the scheme's own (Keycloak 12970).
#[test]
fn apps_get_the_port_that_the_client_sees() {
    let backend = Backend::start(mirror);
    let routes = format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address);
    let trusting = "trusted_proxies = [\"127.0.0.1\"]\n";
    let public = Gateway::start(&format!("public_url = \"https://apps.example.com:8443\"\n{trusting}{routes}"));
    let plain = Gateway::start(&format!("{trusting}{routes}"));
    let https = ("X-Forwarded-Proto", "https");
    for (gateway, fields, port) in [
        (&public, &[("Host", "apps.example.com"), https][..], "8443"),
        (&public, &[("Host", "apps.example.com:9443"), https], "9443"),
        (&public, &[("Host", "other.example.com"), https], "443"),
        (&public, &[("Host", "other.example.com:8443"), https], "8443"),
        (&public, &[("Host", "apps.example.com"), https, ("X-Forwarded-Port", "7443")], "7443"),
        (&public, &[("Host", "apps.example.com"), https, ("X-Forwarded-Port", "1, 7443")], "7443"),
        (&public, &[("Host", "apps.example.com"), https, ("X-Forwarded-Port", "")], "8443"),
        (&public, &[("Host", "apps.example.com"), https, ("X-Forwarded-Port", "0")], "8443"),
        (&public, &[("Host", "apps.example.com"), https, ("X-Forwarded-Port", "70000")], "8443"),
        (&public, &[("Host", "apps.example.com"), https, ("X-Forwarded-Port", "+80")], "8443"),
        (&plain, &[("Host", "a.test")], "80"),
        (&plain, &[("Host", "a.test:0081")], "81"),
        (&plain, &[("Host", "a.test"), https], "443"),
        (&plain, &[("Host", "a.test"), ("X-Forwarded-Host", "b.test:82")], "82"),
    ] {
        let seen = gateway.client().get("/x", fields);
        assert_eq!((seen.status, seen.seen("x-forwarded-port")), (200, one(port)), "{fields:?}");
    }
}

/// Caddy passes on what clients say of themselves in all of these; nginx and HAProxy too, where they are not told.
#[test]
fn of_what_trusted_proxies_pass_on_apps_get_what_trusted_headers_names() {
    let backend = Backend::start(mirror);
    let gateway = |keys: &str| {
        Gateway::start(&format!(
            "trusted_proxies = [\"127.0.0.1\"]\n{keys}[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n",
            backend.address
        ))
    };
    let said = [
        ("X-Real-IP", "203.0.113.1"),
        ("Forwarded", "for=203.0.113.1"),
        ("X-Client-IP", "203.0.113.1"),
        ("True-Client-IP", "203.0.113.1"),
        ("CF-Connecting-IP", "203.0.113.1"),
        ("X-Forwarded-Server", "evil"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Uri", "/evil"),
        ("X-Forwarded-User", "evil"),
        ("X-Original-URL", "/evil"),
        ("X-Script-Name", "/said"),
    ];
    let none = gateway("");
    for seen in both_ways(&none, "/x", &said) {
        assert!(said.iter().all(|(name, _)| seen.seen(name).is_empty()), "{seen:?}");
    }
    let some = gateway("trusted_headers = [\"X-Real-IP\", \"forwarded\", \"x-forwarded-prefix\", \"x-script-name\"]\n");
    for seen in both_ways(&some, "/x", &[&said[..], &[("X_Real_Ip", "evil")]].concat()) {
        let arrived: Vec<_> =
            said.iter().filter(|(name, _)| !seen.seen(name).is_empty()).map(|(name, _)| *name).collect();
        assert_eq!(arrived, ["X-Real-IP", "Forwarded", "X-Forwarded-Prefix", "X-Script-Name"]);
        assert_eq!(seen.seen("x-real-ip"), one("203.0.113.1"));
    }
    // from another address it is a client's word
    let mut stranger = Client::connect_from("127.0.0.9", some.address);
    assert!(said.iter().all(|(name, _)| stranger.get("/x", &said).seen(name).is_empty()));
}
