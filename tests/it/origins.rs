//! Which origins are ours for a request: the host that was asked for, and `public_url` where the
//! session is shared with it. On its own host alone it is nobody to others.

use crate::backend::Backend;
use crate::gateway::Gateway;
use crate::known_attacks::mirror;
use crate::websockets::HANDSHAKE;

/// Whoever can put a page on `a.test` asks in the name of somebody signed in at `b.test`.
#[test]
fn public_url_is_our_origin_on_its_own_host_alone() {
    let gateway = Gateway::start("public_url = \"http://a.test\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let cookie = gateway.first_account();
    let socket = |host: &str, origin: &str| {
        let fields = [("Host", host), ("Cookie", cookie.as_str()), ("Origin", origin), ("Sec-Fetch-Site", "same-site")];
        gateway.client().get("/x", &[HANDSHAKE, &fields].concat()).status
    };
    assert_eq!([socket("b.test", "http://a.test"), socket("b.test", "http://b.test")], [403, 101]);
    assert_eq!([socket("a.test", "http://a.test"), socket("a.test:81", "http://a.test")], [101; 2]);
    // over plain http browsers send no Sec-Fetch-Site
    let post = |path: &str, host: &str, field: (&str, &str), body: &str| {
        let fields = [("Host", host), ("Cookie", cookie.as_str()), field];
        gateway.client().post_form(path, &fields, body).status
    };
    for (path, body, ours) in [
        ("/x", "a=b", 200),
        ("/.auth/account/profile", "name=Eve", 303),
        ("/.auth/login", "email=eve@example.com&password=x", 401),
    ] {
        for (name, tail) in [("Origin", ""), ("Referer", "/page")] {
            let [a, b] = ["a", "b"].map(|host| format!("http://{host}.test{tail}"));
            assert_eq!(post(path, "b.test", (name, &a), body), 403, "{path} {name}");
            assert_eq!(post(path, "b.test", (name, &b), body), ours, "{path} {name}");
            assert_eq!(post(path, "a.test", (name, &a), body), ours, "{path} {name}");
        }
    }
    assert_eq!(gateway.client().get("/.auth/me", &[("Cookie", &cookie)]).json()["name"], "Eve");
}

#[test]
fn with_a_domain_public_url_is_our_origin_on_every_host_below_it() {
    let gateway = Gateway::start(
        "public_url = \"https://login.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n[session]\ndomain = \"example.com\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let https = ("X-Forwarded-Proto", "https");
    let invited = gateway.client().post_json(
        gateway.invite.as_ref().unwrap(),
        &[https, ("Host", "login.example.com")],
        &serde_json::json!({ "email": "ada@example.com", "name": "Ada", "password": crate::gateway::PASSWORD }),
    );
    let cookie = invited.session_cookie();
    let origin = ("Origin", "https://login.example.com");
    let socket = |host: &str| {
        let fields = [https, ("Host", host), ("Cookie", cookie.as_str()), origin, ("Sec-Fetch-Site", "same-site")];
        gateway.client().get("/x", &[HANDSHAKE, &fields].concat()).status
    };
    assert_eq!([socket("app.example.com"), socket("login.example.com"), socket("app.test")], [101, 101, 403]);
    let post = |host: &str| {
        gateway.client().post_form("/x", &[https, ("Host", host), ("Cookie", &cookie), origin], "a=b").status
    };
    assert_eq!([post("app.example.com"), post("app.test")], [200, 403]);
}

/// CWE-1385: a browser that leaves `Origin` out says in another place where a handshake comes from.
#[test]
fn a_handshake_without_origin_is_a_programs_unless_fetch_metadata_says_otherwise() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/public\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let (cookie, own) = (gateway.first_account(), format!("http://{}", gateway.host()));
    let ask = |path: &str, fields: &[(&str, &str)]| {
        gateway.client().get(path, &[HANDSHAKE, &[("Cookie", &cookie)], fields].concat()).status
    };
    let site = |said| [("Sec-Fetch-Site", said)];
    for path in ["/x", "/public"] {
        assert_eq!([ask(path, &[]), ask(path, &site("none")), ask(path, &site("same-origin"))], [101; 3], "{path}");
        for said in ["same-site", "cross-site", ""] {
            assert_eq!(ask(path, &site(said)), 403, "{path} {said}");
        }
        assert_eq!(ask(path, &[site("same-origin"), site("same-origin")].concat()), 403, "{path}");
        assert_eq!(ask(path, &[("Origin", "")]), 403);
        assert_eq!(ask(path, &[("Origin", &own), ("Origin", &own)]), 403);
        assert_eq!(ask(path, &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")]), 101);
    }
}

#[test]
fn a_ticket_is_good_on_the_host_where_it_was_made() {
    let gateway = Gateway::start(
        "[[route]]\nwebsocket = { token = [\"query:ticket\", \"subprotocol\"] }\nupstream = \"builtin:whoami\"\n",
    );
    let cookie = gateway.first_account();
    let ticket = |host: &str| {
        let answer = gateway.client().request("POST /.auth/ws-ticket", &[("Host", host), ("Cookie", &cookie)], b"");
        answer.json()["ticket"].as_str().unwrap().to_owned()
    };
    let open = |host: &str, ticket: &str| {
        gateway.client().get(&format!("/x?ticket={ticket}"), &[HANDSHAKE, &[("Host", host)]].concat()).status
    };
    let protocol = |host: &str, ticket: &str| {
        let offered = format!("bearer, {ticket}");
        let fields = [("Host", host), ("Sec-WebSocket-Protocol", offered.as_str())];
        gateway.client().get("/x", &[HANDSHAKE, &fields].concat()).status
    };
    assert_eq!([open("b.test", &ticket("a.test")), protocol("b.test", &ticket("a.test"))], [401; 2]);
    assert_eq!([open("a.test", &ticket("a.test")), protocol("A.test.:80", &ticket("a.test"))], [101; 2]);
    // whoever tries it elsewhere has used it up
    let once = ticket("a.test");
    assert_eq!([open("b.test", &once), open("a.test", &once)], [401; 2]);
}

/// RFC 9110, 4.2.3 and 7.2: hosts are judged without case, closing dot and zeros in front of the port; an app that picks
/// its site letter by letter gets what was judged.
#[test]
fn a_host_arrives_as_it_was_checked() {
    let backend = Backend::start(mirror);
    let gateway = Gateway::start(&format!(
        "[[route]]\nhost = \"a.test\"\naccess = \"public\"\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    for (sent, arrives) in [
        ("a.test", "a.test"),
        ("A.Test", "a.test"),
        ("a.test.", "a.test"),
        ("A.test.:0081", "a.test:81"),
        ("a.test:80", "a.test:80"),
    ] {
        let answer = gateway.client().get("/x", &[("Host", sent)]);
        assert_eq!((answer.status, answer.seen("host")), (200, vec![arrives.to_owned()]), "{sent}");
    }
}
