//! A: identity headers, and whom the gateway believes.

use serde_json::{Value, json};

use super::{CHUNKED, Stage, both_ways, fields, head, mirror, stage, still_serves};
use crate::backend::{Backend, nobody};
use crate::gateway::{Gateway, PASSWORD, configured};

/// Names by which gateways tell backends who asks: all presets', a table's own, and those of others.
const IDENTITY: &[&str] = &[
    "X-User-Id",
    "X-User-Email",
    "X-User-Name",
    "Remote-User",
    "Remote-Email",
    "Remote-Name",
    "Remote-Groups",
    "Remote-Id",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Preferred-Username",
    "X-Auth-Request-Access-Token",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Remote-User",
    "X-WEBAUTH-USER",
    "X-Authgate-Anything",
    "X-Authgate-Jwt-Assertion",
];

/// What a proxy says of a request, or a framework of itself.
const SAID_BY_PROXIES: &[&str] = &[
    "X-Real-IP",
    "Forwarded",
    "X-Client-IP",
    "Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Forwarded-Server",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Ssl",
    "X-Forwarded-Scheme",
    "X-Forwarded-Client-Cert",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Script-Name",
    "Script-Name",
    "X-Ingress-Path",
    "X-Original-URI",
    "X-Original-Path",
    "X-Original-Host",
    "X-Replaced-Path",
    "X-Envoy-Original-Path",
    "X-Envoy-Original-Host",
    "X-Invoke-Path",
    "X-Middleware-Subrequest",
    "Proxy",
];

/// Sends every name in one spelling, everywhere and both ways: none arrives.
fn none_arrives(stage: &Stage, spell: impl Fn(&str) -> String) {
    let names: Vec<String> = IDENTITY.iter().chain(SAID_BY_PROXIES).map(|name| spell(name)).collect();
    let mut sent: Vec<_> = names.iter().map(|name| (name.as_str(), "evil")).collect();
    sent.extend([("Cookie", stage.ada.as_str()), ("X-Harmless", "kept")]);
    for path in ["/public/x", "/optional/x", "/app/x"] {
        for answer in both_ways(&stage.gateway, path, &sent) {
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.seen("x-harmless"), ["kept"]);
            let evil: Vec<_> = fields(&answer).into_iter().filter(|(_, value)| value.contains("evil")).collect();
            assert!(evil.is_empty(), "{path}: {evil:?}");
            assert_eq!(answer.seen("x-user-email"), ["ada@example.com"], "{path}");
        }
    }
    still_serves(&stage.gateway);
}

/// OWASP ASVS 4.1.3: a header that an intermediary sets cannot be set by the user.
#[test]
fn a1_an_identity_header_is_no_credential() {
    let stage = stage();
    let claimed = [("X-User-Email", "admin@example.com"), ("Remote-User", "admin"), ("X-Forwarded-User", "admin")];
    for answer in both_ways(&stage.gateway, "/app/a1", &claimed) {
        assert_eq!(answer.status, 401);
    }
    assert!(stage.arrived("/app/a1").is_empty());
    assert_eq!(stage.get_as_ada("/app/a1", &[]).status, 200);
    still_serves(&stage.gateway);
}

/// Traefik CVE-2026-33433.
#[test]
fn a2_the_backend_gets_one_identity_and_it_is_the_sessions() {
    let stage = stage();
    let fields = [("Cookie", stage.ada.as_str()), ("X-User-Email", "admin@example.com"), ("X-User-Id", "0")];
    for answer in both_ways(&stage.gateway, "/app/x", &fields) {
        assert_eq!(
            (answer.seen("x-user-email"), answer.seen("x-user-id")),
            (vec!["ada@example.com".into()], vec!["1".into()])
        );
    }
    still_serves(&stage.gateway);
}

/// oauth2-proxy CVE-2025-64484, Traefik CVE-2026-39858 and -54763, Caddy CVE-2026-52845, FrankenPHP
/// GHSA-49wc-4hcv-v58q: CGI-like backends fold `_` (PHP `.` too) onto the header that was checked.
#[test]
fn a3_no_alias_of_an_identity_header_arrives() {
    let stage = stage();
    none_arrives(&stage, |name| name.replace('-', "_"));
    none_arrives(&stage, |name| name.replace('-', "."));
    none_arrives(&stage, |name| name.replacen('-', "_", 1).replace("Proxy", "Proxy_"));
    none_arrives(&stage, |name| name.to_uppercase().replace('-', "_").replace("PROXY", "PROXY."));
    none_arrives(&stage, |name| format!("{name}!"));
}

/// RFC 9110, 5.1: names are the same in any case (Traefik CVE-2026-29054 forgot it).
#[test]
fn a4_the_case_of_an_identity_header_makes_no_difference() {
    let stage = stage();
    none_arrives(&stage, str::to_lowercase);
    none_arrives(&stage, str::to_uppercase);
    none_arrives(&stage, |name| name.to_lowercase().replace('r', "R").replace('e', "E"));
}

/// Istio CVE-2026-26308 and -31838: the first of many was judged, the last one used.
#[test]
fn a5_a_header_that_is_sent_many_times_is_replaced_every_time() {
    let stage = stage();
    let many: Vec<String> = (0..60).map(|number| format!("X-Many-{number}")).collect();
    let evil = ("X-User-Email", "evil");
    let mut sent = vec![evil, ("Cookie", &stage.ada)];
    sent.extend(many.iter().map(|name| (name.as_str(), "1")));
    sent.extend([evil, ("x_user_email", "evil"), evil]);
    for answer in both_ways(&stage.gateway, "/app/x", &sent) {
        assert_eq!(answer.seen("x-user-email"), ["ada@example.com"]);
        assert_eq!(answer.seen("x-many-59"), ["1"]);
    }
    still_serves(&stage.gateway);
}

/// Istio CVE-2026-26308: a list in one line.
#[test]
fn a6_a_list_of_identities_is_replaced_as_a_whole() {
    let stage = stage();
    for list in ["ada@example.com, admin@example.com", "ada@example.com\t,admin", ",admin", ""] {
        let sent = [("Cookie", stage.ada.as_str()), ("X-User-Email", list)];
        for answer in both_ways(&stage.gateway, "/app/x", &sent) {
            assert_eq!(answer.seen("x-user-email"), ["ada@example.com"], "{list}");
        }
    }
    still_serves(&stage.gateway);
}

/// Caddy CVE-2026-30851: stripped only where the gateway had something to put in its place. httpoxy
/// CVE-2016-5385 and oauth2-proxy CVE-2026-40575 (`X-Forwarded-Uri`): neither does what proxies say pass.
#[test]
fn a7_where_no_one_is_signed_in_the_headers_are_stripped_too() {
    let stage = stage();
    let sent: Vec<_> = IDENTITY.iter().chain(SAID_BY_PROXIES).map(|name| (*name, "evil")).collect();
    for path in ["/public/x", "/optional/x"] {
        for answer in both_ways(&stage.gateway, path, &[&sent[..], &[("X-Harmless", "kept")]].concat()) {
            assert_eq!(answer.status, 200);
            let evil: Vec<_> = fields(&answer).into_iter().filter(|(_, value)| value.contains("evil")).collect();
            assert!(evil.is_empty() && answer.seen("x-user-email").is_empty(), "{path}: {evil:?}");
            assert_eq!(answer.seen("x-harmless"), ["kept"]);
        }
    }
    none_arrives(&stage, str::to_owned);
}

/// caddy-security CVE-2024-21499: what people call themselves went into a header as it was.
#[test]
fn a8_a_name_cannot_hold_a_second_header() {
    let stage = stage();
    let gateway = &stage.gateway;
    let invite = gateway.cli(&["invite", "--email", "zoe@example.com"]);
    let path = &invite[invite.find("/.auth/invite/").unwrap()..].trim();
    for name in ["Zoe\r\nX-Role: admin", "Zoe\nX-Role: admin", "Zoe\rX", "Zoe\u{0}", "Zoe\u{85}X-Role: admin"] {
        let refused = gateway.client().post_json(path, &[], &json!({ "password": PASSWORD, "name": name }));
        assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("name")), "{name:?}");
        if !name.contains('\0') {
            let refused = gateway.cli_with(&["user", "set", "ada@example.com", "--name", name], "");
            assert_eq!(refused.status.code(), Some(1), "{name:?}");
        }
    }
    let joined = gateway.client().post_json(path, &[], &json!({ "password": PASSWORD, "name": "Zoë 100% %0d%0aX: y" }));
    let zoe = joined.session_cookie();
    for answer in both_ways(gateway, "/app/x", &[("Cookie", &zoe)]) {
        assert_eq!(answer.seen("x-user-name"), ["Zo%C3%AB 100%25 %250d%250aX: y"]);
        assert!(answer.seen("x-role").is_empty());
    }
    still_serves(gateway);
}

/// Traefik CVE-2024-45410 and CVE-2026-29054, Fabio CVE-2025-48865, Oathkeeper GHSA-w9mr-28mw-j8hg:
/// `Connection` named the identity header, and the proxy removed it.
#[test]
fn a9_connection_cannot_take_the_identity_away() {
    let stage = stage();
    for nominated in [
        "X-User-Email",
        "x-user-email, x-user-id",
        "close, X-User-Email",
        "keep-alive,X-USER-EMAIL",
        "X-Forwarded-For, X-Forwarded-Proto",
        "Cookie, X-User-Email",
        "a, b, c, d, e, f, g, h, i, j, k, l, X-User-Email",
    ] {
        for answer in both_ways(&stage.gateway, "/app/x", &[("Cookie", &stage.ada), ("Connection", nominated)]) {
            if answer.status == 200 {
                assert_eq!(answer.seen("x-user-email"), ["ada@example.com"], "{nominated}");
                assert_eq!(answer.seen("x-forwarded-for"), ["127.0.0.1"], "{nominated}");
                assert_eq!(answer.seen("x-forwarded-proto"), ["http"], "{nominated}");
            } else {
                assert_eq!(answer.status, 400, "{nominated}");
            }
        }
    }
    let plain = stage.get_as_ada("/app/x", &[("Connection", "X-App-Own"), ("X-App-Own", "1")]);
    assert_eq!((plain.status, plain.seen("x-app-own")), (200, vec![]), "what it names of the client's own goes");
    still_serves(&stage.gateway);
}

/// oauth2-proxy CVE-2026-34457's family: credentials of somebody else open nothing.
#[test]
fn a10_basic_credentials_that_are_not_ours_open_nothing_and_are_the_apps() {
    let stage = stage();
    for value in ["Basic YWRtaW46YWRtaW4=", "Basic", "Basic !!", "Basic YWdjX3g6YWd0Xw==", "Negotiate YII", "Bearer %"]
    {
        for answer in both_ways(&stage.gateway, "/app/a10", &[("Authorization", value)]) {
            assert_eq!(answer.status, 401, "{value}");
        }
    }
    assert!(stage.arrived("/app/a10").is_empty());
    let basic = [("Authorization", "Basic YWRtaW46YWRtaW4=")];
    for answer in both_ways(&stage.gateway, "/public/x", &basic) {
        assert_eq!(answer.seen("authorization"), ["Basic YWRtaW46YWRtaW4="]);
    }
    assert_eq!(stage.get_as_ada("/app/x", &basic).seen("authorization"), ["Basic YWRtaW46YWRtaW4="]);
    still_serves(&stage.gateway);
}

/// caddy-security CVE-2024-21494: a new X-Forwarded-For for each try made each one somebody else's.
#[test]
fn a11_an_address_is_throttled_whatever_it_says_of_itself() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 1\n[[route]]\nupstream = \"builtin:whoami\"\n");
    gateway.first_account();
    let mut statuses = Vec::new();
    for number in 0..21 {
        let told = format!("203.0.113.{number}");
        let said = [("X-Forwarded-For", told.as_str()), ("X-Real-IP", &told), ("Forwarded", "for=203.0.113.9")];
        let body = json!({ "email": format!("user{number}@example.com"), "password": "wrong wrong wrong" });
        statuses.push(gateway.client().post_json("/.auth/login", &said, &body).status);
    }
    assert_eq!(statuses, [vec![401; 20], vec![429]].concat());
    still_serves(&gateway);
}

/// Traefik GHSA-7jmw-8259-q9jx: an IPv4 peer of an IPv6 socket (`::ffff:127.0.0.1`) is the IPv4 address
/// that was trusted; the client is the right-most address that is no trusted proxy's.
#[test]
fn a12_a_mapped_address_is_the_address_and_the_client_is_the_right_most_stranger() {
    for (trusted, told, client) in [
        ("127.0.0.0/8", &["203.0.113.7"][..], "203.0.113.7"),
        ("127.0.0.0/8", &["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        ("127.0.0.0/8\", \"10.0.0.0/8", &["203.0.113.7, ::ffff:10.0.0.9"], "203.0.113.7"),
        ("127.0.0.0/8", &["203.0.113.7, nonsense"], "127.0.0.1"),
        ("127.0.0.0/8", &["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        // the proxy has added what it saw to the last line
        ("127.0.0.0/8", &["198.51.100.1", "\u{ff}, 203.0.113.7"], "203.0.113.7"),
        ("127.0.0.0/8", &["198.51.100.1", "\u{ff}"], "127.0.0.1"),
        // white space that is none in HTTP
        ("127.0.0.0/8", &["198.51.100.1, \u{a0}203.0.113.7"], "127.0.0.1"),
        ("10.0.0.0/8", &["203.0.113.7"], "127.0.0.1"),
    ] {
        let folder = configured(&format!(
            "trusted_proxies = [\"{trusted}\"]\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n"
        ));
        let file = folder.path().join("gateway.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let listen = "listen = [\"[::ffff:127.0.0.1]:0\"]";
        std::fs::write(&file, text.replacen("listen = [\"127.0.0.1:0\"]", listen, 1)).unwrap();
        let gateway = Gateway::serve(folder);
        let mut fields = vec![("Host", "a")];
        fields.extend(told.iter().map(|line| ("X-Forwarded-For", *line)));
        let answer = gateway.client().get("/seen", &fields);
        assert_eq!(answer.status, 200);
        if told.iter().all(|line| line.is_ascii()) {
            let peer = answer.seen("x-forwarded-for")[0].rsplit(", ").next().unwrap().to_owned();
            assert_eq!(peer, "127.0.0.1");
        }
        let log = gateway.into_log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.rfind(|line| line["path"] == "/seen").unwrap();
        assert_eq!(line["client"], client, "{trusted} {told:?}");
    }
}

/// A PROXY protocol line that nobody configured is no request (and names no client).
#[test]
fn a13_a_proxy_protocol_line_is_refused() {
    let stage = stage();
    let request = "GET /public/a13 HTTP/1.1\r\nHost: a\r\n\r\n";
    stage.refuses(format!("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n{request}").as_bytes(), 400);
    stage.refuses(format!("PROXY UNKNOWN\r\n{request}").as_bytes(), 400);
    let second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x01\x02\x03\x04\0\x01\0\x02";
    stage.refuses(&[&second[..], request.as_bytes()].concat(), 400);
    assert!(stage.arrived("/public/a13").is_empty());
    assert_eq!(stage.get("/public/a13", &[]).status, 200);
}

/// Session fixation by a backend that was taken over. A cookie without a name comes back as its value alone
/// (RFC 6265bis, 5.8.3): `=authgate=evil` would be ours.
#[test]
fn a14_a_backend_cannot_set_our_cookies() {
    let backend = Backend::start(|_, stream| {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: authgate=evil\r\nSet-Cookie: app=1\r\nSet-Cookie: __Host-authgate=evil\r\nSet-Cookie:  authgate-device = evil\r\nSet-Cookie: \tauthgate-csrf=evil; Path=/\r\nSet-Cookie: =authgate=evil\r\nSet-Cookie: = authgate=evil\r\nSet-Cookie: ==authgate-device=evil\r\nSet-Cookie: b=2; Path=/\r\n\r\n";
        stream.write_all(answer).is_ok()
    });
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    for answer in both_ways(&gateway, "/", &[]) {
        assert_eq!(answer.all("set-cookie"), ["app=1", "b=2; Path=/"]);
    }
    still_serves(&gateway);
}

/// The mirror image of A9: an answer's `Connection` names fields that the gateway adds.
#[test]
fn a15_a_backends_connection_cannot_take_the_gateways_fields_away() {
    let backend = Backend::start(|_, stream| {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Set-Cookie, Cache-Control, X-Own, Content-Length\r\nX-Own: 1\r\nSet-Cookie: app=1\r\n\r\nok";
        stream.write_all(answer).is_ok()
    });
    let gateway = Gateway::start(&format!(
        "[session]\nrenew_after = \"1s\"\n[[route]]\nupstream = \"http://{}\"\n",
        backend.address
    ));
    let cookie = gateway.first_account();
    crate::gateway::eventually("both ways have renewed the cookie", || {
        let answers = both_ways(&gateway, "/x", &[("Cookie", &cookie)]);
        answers.iter().all(|answer| {
            assert_eq!((answer.status, answer.text().as_str(), answer.field("x-own")), (200, "ok", None));
            answer.all("set-cookie").iter().any(|cookie| cookie.starts_with("authgate="))
        })
    });
    still_serves(&gateway);
}

/// Traefik CVE-2026-41181: credentials went to the server of the error page.
#[test]
fn a16_what_was_meant_for_one_upstream_goes_to_no_other() {
    let other = Backend::start(mirror);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/dead/**\"\nupstream = \"http://{}\"\n[[route]]\nupstream = \"http://{}\"\n",
        nobody(),
        other.address
    ));
    let cookie = gateway.first_account();
    let sent = [("Cookie", format!("app=secret; {cookie}")), ("Authorization", "Basic c2VjcmV0".to_owned())];
    let sent: Vec<_> = sent.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for answer in both_ways(&gateway, "/dead/x", &sent) {
        assert_eq!(answer.status, 502);
    }
    assert!(other.all().is_empty());
    for answer in both_ways(&gateway, "/x", &sent) {
        assert_eq!((answer.status, answer.seen("cookie")), (200, vec!["app=secret".to_owned()]));
        assert_eq!(answer.seen("authorization"), ["Basic c2VjcmV0"]);
    }
    still_serves(&gateway);
}

/// Pomerium CVE-2024-39315: the page about oneself showed the provider's tokens.
#[test]
fn a17_me_shows_who_is_signed_in_and_no_token() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let me = gateway.client().get("/.auth/me", &[("Cookie", &cookie)]);
    let body = me.json();
    let keys: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["id", "email", "name", "picture", "groups", "expires"]);
    assert_eq!(
        (&body["id"], &body["email"], &body["groups"]),
        (&json!("1"), &json!("ada@example.com"), &json!(["admin"]))
    );
    assert!(body["expires"].as_str().unwrap().ends_with('Z'));
    assert!(!me.text().contains(cookie.split_once('=').unwrap().1));
    let nobody = gateway.client().get("/.auth/me", &[]);
    assert_eq!((nobody.status, nobody.json()), (401, json!({ "error": "signed_out", "login": "/.auth/login" })));
    still_serves(&gateway);
}

/// NTLM, and Negotiate that holds it, sign in a connection (RFC 4559, 6: no proxy may share it): the next one's request
/// over it would be Ada's.
#[test]
fn a18_a_connection_that_a_user_signed_in_with_ntlm_belongs_to_no_one_else() {
    let backend = Backend::start(crate::backend::ok);
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    let mut client = gateway.client();
    let mut connection = |fields: &[(&str, &str)], streams: bool| {
        let answer = if streams {
            client.send(head("POST /x", &[&[("Host", "a")], fields, CHUNKED].concat()).as_bytes());
            client.send(b"2\r\nhi\r\n0\r\n\r\n");
            client.answer()
        } else {
            client.get("/x", fields)
        };
        assert_eq!(answer.status, 200);
        let received = backend.next();
        assert_eq!(received.field("authorization"), fields.first().map(|(_, value)| *value));
        received.connection
    };
    for streams in [false, true] {
        let kept = connection(&[], streams);
        assert_eq!(connection(&[("Authorization", "Basic YTpi")], streams), kept, "one request's own");
        for scheme in ["NTLM TlRMTVNTUAAB", "Negotiate TlRMTVNTUAAB", "negotiate\tTlRMTVNTUAAB", "nTLM"] {
            let adas = connection(&[("Authorization", scheme)], streams);
            let next = connection(&[], streams);
            assert_ne!(next, adas, "{scheme}");
            assert_eq!(connection(&[], streams), next);
        }
    }
    still_serves(&gateway);
}

/// RFC 7838: it would lead browsers past the gateway, to where the server itself listens.
#[test]
fn a19_a_server_does_not_say_where_else_the_gateway_is() {
    let backend = Backend::start(|_, stream| {
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAlt-Svc: h3=\":8443\"; ma=2592000\r\nApp: 1\r\nalt-svc: h2=\"10.0.0.1:443\"\r\n\r\nok";
        stream.write_all(answer).is_ok()
    });
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    for answer in both_ways(&gateway, "/", &[]) {
        assert_eq!((answer.field("app"), answer.all("alt-svc")), (Some("1"), vec![]));
    }
    still_serves(&gateway);
}
