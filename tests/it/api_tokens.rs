//! API tokens: what programs show instead of a session.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::backend::{Backend, ok};
use crate::gateway::{Gateway, PASSWORD, eventually};
use crate::known_attacks::{both_ways, mirror};

fn create(gateway: &Gateway, rest: &[&str]) -> String {
    let arguments = [&["token", "create", "ada@example.com", "--name", "backup"], rest].concat();
    gateway.cli(&arguments).trim().to_owned()
}

fn list(gateway: &Gateway) -> Vec<Value> {
    serde_json::from_str(&gateway.cli(&["token", "list", "--json"])).unwrap()
}

fn ask(gateway: &Gateway, line: &str, token: &str) -> u16 {
    gateway.client().request(line, &[("Authorization", &format!("Bearer {token}"))], b"").status
}

#[test]
fn a_token_represents_its_account_as_bearer_and_as_basic_password_and_never_arrives() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", backend.address));
    gateway.first_account();
    let token = create(&gateway, &[]);
    assert!(token.starts_with("agt_") && token.len() == 47, "{token}");
    let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair.as_bytes()));
    for field in [
        format!("Bearer {token}"),
        format!("bearer  {token}"),
        format!("\t Bearer\t{token} "),
        basic(&format!("anybody:{token}")),
        basic(&format!(":{token}")),
    ] {
        assert_eq!(gateway.client().get("/x", &[("Authorization", &field)]).status, 200, "{field}");
        let received = backend.next();
        assert_eq!((received.field("remote-user"), received.field("authorization")), (Some("ada@example.com"), None));
    }
    for wrong in [
        "Bearer agt_wrong".to_owned(),
        format!("Bearer {token}x"),
        format!("Bearer {}", &token[..46]),
        format!("Basic {token}"),
        basic(&token),
        basic(&format!("{token}:x")),
        basic("ada@example.com:correct horse battery staple"),
        format!("Token {token}"),
    ] {
        let answer = gateway.client().get("/x", &[("Authorization", &wrong)]);
        assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some("Bearer")), "{wrong}");
    }
    assert_eq!(gateway.client().get("/x", &[("Cookie", &format!("authgate={token}"))]).status, 401, "no session token");
    assert!(backend.all().is_empty());
    let state = std::fs::read(gateway.state().join("authgate.db")).unwrap();
    let log = std::fs::read(gateway.state().join("authgate.db-wal")).unwrap_or_default();
    let kept = [state, log].concat();
    assert!(!kept.windows(token.len()).any(|bytes| bytes == token.as_bytes()), "the token itself is kept");
    assert!(!gateway.into_log().contains(&token));
}

#[test]
fn another_authorization_is_the_apps() {
    let backend = Backend::start(ok);
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    let basic = format!("Basic {}", BASE64.encode(b"ada:secret"));
    for field in [basic.as_str(), "Bearer of-the-app", "Basic %%%", "Basic", "Digest x"] {
        gateway.client().get("/x", &[("Authorization", field)]);
        assert_eq!(backend.next().field("authorization"), Some(field));
    }
    // ours is removed although it is worth nothing
    gateway.client().get("/x", &[("Authorization", "Bearer agt_wrong")]);
    assert_eq!(backend.next().field("authorization"), None);
}

#[test]
fn a_token_may_do_what_its_scopes_say() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let token = create(&gateway, &["--scope", "GET /api/**", "--scope", "POST,PUT /notes/*"]);
    for (line, status) in [
        ("GET /api", 200),
        ("GET /api/x/y", 200),
        ("HEAD /api/x", 200),
        ("GET /%61pi/x", 403),
        ("POST /api/x", 403),
        ("GET /apis", 403),
        ("POST /notes/1", 200),
        ("PUT /notes/1", 200),
        ("POST /notes/1/2", 403),
        ("GET /notes/1", 403),
        ("GET /", 403),
        ("GET /.auth/me", 200),
    ] {
        assert_eq!(ask(&gateway, line, &token), status, "{line}");
    }
    // a person's own pages are no program's
    for (line, status) in [
        ("GET /.auth/account", 401),
        ("POST /.auth/account/password", 401),
        ("POST /.auth/account/sessions", 401),
        ("POST /.auth/ws-ticket", 401),
    ] {
        assert_eq!(ask(&gateway, line, &create(&gateway, &[])), status, "{line}");
    }
    for wrong in ["get /api", "GET api", "GET /api/**/x", "GET,,post /x", "/a/../b", ""] {
        let output = gateway.cli_with(&["token", "create", "ada@example.com", "--name", "x", "--scope", wrong], "");
        assert_eq!(output.status.code(), Some(1), "{wrong}");
    }
    assert_eq!(gateway.cli_with(&["token", "create", "ada@example.com", "--name", "\n"], "").status.code(), Some(1));
    assert_eq!(gateway.cli_with(&["token", "create", "eve@example.com", "--name", "x"], "").status.code(), Some(1));
    let soon = ["token", "create", "ada@example.com", "--name", "x", "--expires", "soon"];
    assert_eq!(gateway.cli_with(&soon, "").status.code(), Some(2));
}

#[test]
fn groups_and_what_a_backend_gets_are_those_of_the_account() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/staff/**\"\ngroups = [\"staff\"]\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    gateway.first_account();
    let token = create(&gateway, &[]);
    assert_eq!(ask(&gateway, "GET /staff/x", &token), 403);
    gateway.cli(&["user", "set", "ada@example.com", "--group", "staff"]);
    let answer = gateway.client().get("/staff/x", &[("Authorization", &format!("Bearer {token}"))]);
    assert_eq!((answer.status, answer.seen("remote-groups")), (200, vec!["staff".to_owned()]));
    assert!(answer.all("set-cookie").is_empty());
}

#[test]
fn a_token_ends_when_it_is_revoked_when_it_expires_and_with_its_account() {
    let gateway = Gateway::start("[session]\nidle = \"10s\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    gateway.first_account();
    let (one, two, brief) = (create(&gateway, &[]), create(&gateway, &[]), create(&gateway, &["--expires", "3s"]));
    assert_eq!([&one, &two, &brief].map(|token| ask(&gateway, "GET /x", token)), [200, 200, 200]);
    eventually("the last use is written", || {
        list(&gateway).iter().filter(|token| !token["seen"].is_null()).count() >= 2
    });
    eventually("it expires", || ask(&gateway, "GET /x", &brief) == 401);
    let rows = list(&gateway);
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["email"], &rows[0]["name"]), (&"ada@example.com".into(), &"backup".into()));
    let gateway = gateway.kill_and_restart();
    assert_eq!([&one, &two].map(|token| ask(&gateway, "GET /x", token)), [200, 200]);
    gateway.cli(&["token", "revoke", rows[0]["id"].as_str().unwrap()]);
    let left: Vec<_> = [&one, &two].into_iter().filter(|token| ask(&gateway, "GET /x", token) == 200).collect();
    assert_eq!((left.len(), list(&gateway).len()), (1, 1));
    assert_eq!(gateway.cli_with(&["token", "revoke", rows[0]["id"].as_str().unwrap()], "").status.code(), Some(1));
    gateway.cli(&["user", "disable", "ada@example.com"]);
    assert_eq!(ask(&gateway, "GET /x", left[0]), 401);
    gateway.cli(&["user", "enable", "ada@example.com"]);
    assert_eq!(ask(&gateway, "GET /x", left[0]), 200);
    gateway.cli(&["user", "remove", "ada@example.com"]);
    eventually("it goes with its account", || ask(&gateway, "GET /x", left[0]) == 401);
    assert!(list(&gateway).is_empty());
}

#[test]
fn people_make_tokens_themselves_with_their_password_and_see_their_own_alone() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 3\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let ada = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let post =
        |cookie: &str, body: &Value| gateway.client().post_json("/.auth/account/tokens", &[("Cookie", cookie)], body);
    let right =
        json!({ "token_name": "backup", "scopes": "GET /x\n\nPOST /notes/*", "days": 7, "current_password": PASSWORD });
    let with = |name: &str, value: Value| {
        let mut body = right.clone();
        body[name] = value;
        body
    };
    assert_eq!(post("", &right).status, 401);
    let foreign = [("Cookie", ada.as_str()), ("Origin", "https://evil.test")];
    assert_eq!(gateway.client().post_json("/.auth/account/tokens", &foreign, &right).status, 403);
    for (name, value, field) in [
        ("token_name", "".into(), "token_name"),
        ("scopes", "get /x".into(), "scopes"),
        ("days", 0.into(), "days"),
        ("days", "soon".into(), "days"),
        ("current_password", "wrong".into(), "current_password"),
    ] {
        let answer = post(&ada, &with(name, value));
        assert_eq!((answer.status, &answer.json()["field"]), (400, &field.into()), "{name}");
    }
    let made = post(&ada, &right);
    assert_eq!(made.status, 201);
    let (id, token) =
        (made.json()["id"].as_str().unwrap().to_owned(), made.json()["token"].as_str().unwrap().to_owned());
    assert_eq!((ask(&gateway, "GET /x", &token), ask(&gateway, "GET /y", &token)), (200, 403));
    let listed =
        |cookie: &str| gateway.client().get("/.auth/account/tokens", &[("Cookie", cookie)]).json()["tokens"].clone();
    assert_eq!(
        (listed(&ada)[0]["id"].as_str(), listed(&ada)[0]["scopes"].clone()),
        (Some(id.as_str()), json!(["GET /x", "POST /notes/*"]))
    );
    assert_eq!(listed(&bob), json!([]));
    assert_eq!(post(&bob, &json!({ "revoke": id })).status, 404, "somebody else's");
    assert_eq!(ask(&gateway, "GET /x", &token), 200);
    assert_eq!(post(&ada, &json!({ "revoke": id })).status, 204);
    assert_eq!(ask(&gateway, "GET /x", &token), 401);
    // wrong passwords are counted here as everywhere
    for _ in 0..3 {
        post(&ada, &with("current_password", "wrong".into()));
    }
    assert_eq!(post(&ada, &right).status, 429);
}

/// Our credential is always removed; any other is the app's and passes. An app that reads the field more
/// generously than we do finds nothing of ours in it either.
#[test]
fn no_spelling_of_authorization_brings_a_credential_of_ours_to_an_app() {
    let backend = Backend::start(ok);
    let gateway =
        Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    let cookie = gateway.first_account();
    let (token, session) = (create(&gateway, &[]), cookie.split_once('=').unwrap().1.to_owned());
    let base64 = |pair: &str| BASE64.encode(pair.as_bytes());
    let arrives = |field: &str| {
        let line = format!("POST /x HTTP/1.1\r\nHost: a\r\nAuthorization: {field}\r\n");
        let ways =
            ["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"].map(|body| {
                let mut client = gateway.client();
                client.send(format!("{line}{body}").as_bytes());
                assert_eq!(client.answer().status, 200, "{field}");
                backend.next().field("authorization").map(str::to_owned)
            });
        assert_eq!(ways[0], ways[1], "{field}");
        ways[0].clone()
    };
    for own in [&token, &session] {
        let pair = base64(&format!("me:{own}"));
        let (front, back) = pair.split_at(9);
        for field in [
            format!("Bearer\t{own}"),
            format!("Bearer \"{own}\""),
            format!("Bearer,{own}"),
            format!("Bearer:{own}"),
            format!("Bearer token={own}"),
            format!("Bearer other, Bearer {own}"),
            format!("Bearer\u{a0}{own}"),
            format!("Token {own}"),
            own.clone(),
            format!("Basic\t{pair}"),
            format!("Basic {front} {back}"),
            format!("Basic {pair}=="),
            format!("basic  {}", pair.replace('+', "-").replace('/', "_")),
            format!("Basic {}", base64(&format!("{own}:"))),
            format!("Digest username=\"{own}\", realm=\"a\""),
        ] {
            assert_eq!(arrives(&field), None, "{field}");
        }
    }
    let other = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJzb21lYm9keSJ9.c2lnbmF0dXJl";
    for field in [
        &format!("Bearer {other}"),
        "Bearer xagt_1",
        "Basic bWU6cGFzc3dvcmQ=",
        "Basic ????",
        "Digest username=\"ada\"",
        "agt",
    ] {
        assert_eq!(arrives(field).as_deref(), Some(field));
    }
}

/// Home Assistant's and S3's programs have an `Authorization` of their own, which the app must get.
#[test]
fn a_token_has_places_of_its_own_beside_an_authorization_of_the_apps() {
    let backend = Backend::start(mirror);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let cookie = gateway.first_account();
    let token = create(&gateway, &["--scope", "GET,POST /x/**"]);
    let bearer = format!("Bearer {token}");
    let app = "AWS4-HMAC-SHA256 Credential=x, Signature=y";
    for place in [("X-Authgate-Token", token.as_str()), ("x-authgate-token", &token), ("Proxy-Authorization", &bearer)]
    {
        for seen in both_ways(&gateway, "/x/1", &[place, ("Authorization", app)]) {
            assert_eq!((seen.status, seen.seen("remote-user")), (200, vec!["ada@example.com".to_owned()]), "{place:?}");
            assert_eq!(seen.seen("authorization"), [app]);
            assert!(!seen.text().contains(&token), "{place:?} arrived");
        }
        assert_eq!(gateway.client().get("/y", &[place]).status, 403, "its scopes hold");
        assert_eq!(gateway.client().get("/.auth/me", &[place]).json()["email"], "ada@example.com");
        let socket = [crate::websockets::HANDSHAKE, &[place]].concat();
        assert_eq!(gateway.client().get("/y", &socket).status, 403);
        // no page can send it: a browser's word about where it comes from changes nothing
        let foreign = [place, ("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.test")];
        assert_eq!(gateway.client().post_form("/x/1", &foreign, "a=b").status, 200, "{place:?}");
    }
    let basic = format!("Basic {}", BASE64.encode(format!(":{token}").as_bytes()));
    let session = format!("Bearer {}", cookie.split_once('=').unwrap().1);
    for wrong in [
        ("X-Authgate-Token", "agt_wrong"),
        ("X-Authgate-Token", &bearer),
        ("X-Authgate-Token", &session[7..]),
        ("X_Authgate_Token", &token),
        ("Proxy-Authorization", &token),
        ("Proxy-Authorization", &basic),
        ("Proxy-Authorization", &session),
        ("Proxy-Authorization", "Bearer agt_wrong"),
    ] {
        assert_eq!(gateway.client().get("/x/1", &[wrong]).status, 401, "{wrong:?}");
        // removed although it is worth nothing
        for seen in both_ways(&gateway, "/public/x", &[wrong]) {
            assert!(seen.seen(wrong.0).is_empty() && !seen.text().contains(wrong.1), "{wrong:?}");
        }
    }
    // the first valid one decides
    let both = [("X-Authgate-Token", "agt_wrong"), ("Proxy-Authorization", bearer.as_str())];
    assert_eq!(gateway.client().get("/x/1", &both).status, 200);
    assert_eq!(gateway.client().get("/y", &[("X-Authgate-Token", &token), ("Cookie", &cookie)]).status, 200);
    let told = gateway.cli(&["explain", "GET", "/x/1", "--header", &format!("X-Authgate-Token: {token}")]);
    assert!(told.contains("credentials in the headers are ignored here"), "{told}");
    assert!(!gateway.into_log().contains(&token));
}

#[test]
fn of_several_authorization_lines_ours_goes_and_the_apps_stay() {
    let backend = Backend::start(mirror);
    let gateway = Gateway::start(&format!("[[route]]\nupstream = \"http://{}\"\n", backend.address));
    gateway.first_account();
    let bearer = format!("Bearer {}", create(&gateway, &[]));
    let (ours, app, other) =
        (("Authorization", bearer.as_str()), ("Authorization", "Bearer of-the-app"), ("authorization", "Digest x"));
    let list = format!("Digest x, {bearer}");
    for (lines, arrives) in [
        (&[ours, app][..], &["Bearer of-the-app"][..]),
        (&[app, ours], &["Bearer of-the-app"]),
        (&[app, ours, other], &["Bearer of-the-app", "Digest x"]),
        (&[ours, ours], &[]),
        (&[ours, ("Authorization", &list), app], &["Bearer of-the-app"]),
    ] {
        for seen in both_ways(&gateway, "/x", lines) {
            assert_eq!(
                (seen.status, seen.seen("authorization")),
                (200, arrives.iter().map(|&one| one.to_owned()).collect())
            );
            assert_eq!(seen.seen("remote-user"), ["ada@example.com"]);
        }
    }
}

/// Reload after "Create token", or Back and again.
#[test]
fn a_form_that_is_sent_twice_makes_one_token() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let origin = format!("http://{}", gateway.host());
    let fields = [("Cookie", cookie.as_str()), ("Origin", origin.as_str()), ("Accept", "text/html")];
    let form_id = || {
        let page = gateway.client().get("/.auth/account", &fields).text();
        page.split("name=\"form_id\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let send = |form_id: &str| {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("token_name", "job"), ("scopes", ""), ("days", "30"), ("current_password", PASSWORD)])
            .append_pair("form_id", form_id)
            .finish();
        gateway.client().post_form("/.auth/account/tokens", &fields, &form)
    };
    let tokens = || gateway.cli(&["token", "list"]).matches("job").count();
    let (first, second) = (form_id(), form_id());
    assert_ne!(first, second);
    let made = send(&first);
    assert!(made.status == 200 && made.text().contains("<code>agt_"), "{}", made.text());
    let again = send(&first);
    assert_eq!((again.status, again.field("location")), (303, Some("/.auth/account?saved=token_made")));
    assert_eq!(tokens(), 1);
    assert_eq!(send(&second).status, 200);
    assert_eq!(tokens(), 2);
    // another session's form of the same id is another form
    let other = gateway.sign_in("ada@example.com");
    let fields = [("Cookie", other.as_str()), ("Origin", origin.as_str())];
    let form = format!("token_name=job&current_password={}&form_id={first}", PASSWORD.replace(' ', "+"));
    assert_eq!(gateway.client().post_form("/.auth/account/tokens", &fields, &form).status, 200);
    assert_eq!(tokens(), 3);
}
