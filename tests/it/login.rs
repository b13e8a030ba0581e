//! Signing in, up and out: forms and their JSON twins, bad input, throttling (security cases E and R).

use serde_json::{Value, json};

use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD, eventually};

const FORM: &str = "email=ada%40example.com&password=correct+horse+battery+staple";

fn open() -> Gateway {
    Gateway::start("[sign_up]\nmode = \"open\"\n[[route]]\nupstream = \"builtin:whoami\"\n")
}

#[test]
fn forms_are_answered_with_303_and_json_with_json() {
    let gateway = open();
    gateway.first_account();
    let form = gateway.client().post_form("/.auth/login", &[], &format!("{FORM}&callbackUrl=%2Fx%3Fa%3Db%23c"));
    assert_eq!((form.status, form.field("location")), (303, Some("/x?a=b#c")));
    let twin = json!({ "email": " ADA@Example.com ", "password": PASSWORD, "callbackUrl": "/x" });
    let twin = gateway.client().post_json("/.auth/login", &[], &twin);
    let user = json!({ "id": "1", "email": "ada@example.com", "name": "Ada", "picture": "", "groups": ["admin"] });
    assert_eq!((twin.status, twin.json()), (200, json!({ "user": user, "callbackUrl": "/x" })));
    let cookie = twin.session_cookie();
    let on = gateway.client().get("/.auth/login?callbackUrl=%2Fy", &[("Cookie", &cookie), ("Accept", "text/html")]);
    assert_eq!((on.status, on.field("location")), (303, Some("/y")));
    for evil in ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", "/.auth/logout"] {
        let twin = json!({ "email": "ada@example.com", "password": PASSWORD, "callbackUrl": evil });
        assert_eq!(gateway.client().post_json("/.auth/login", &[], &twin).json()["callbackUrl"], "/", "{evil}");
    }
    let escaped = gateway
        .client()
        .get("/.auth/login?callbackUrl=%2F%22%3E%3Cscript%3Ealert(1)%3C/script%3E", &[("Accept", "text/html")]);
    assert!(!escaped.text().contains("<script>alert"), "{}", escaped.text());
}

#[test]
fn unknown_wrong_disabled_and_passwordless_accounts_are_answered_alike() {
    let gateway = open();
    gateway.first_account();
    gateway.add_user("off@example.com", &[]);
    gateway.cli(&["user", "disable", "off@example.com"]);
    gateway.cli(&["user", "add", "invited@example.com"]);
    let same = |answer: &Answer| {
        let fields: Vec<_> = answer
            .fields
            .iter()
            .filter(|(name, _)| !matches!(name.to_lowercase().as_str(), "date" | "x-request-id"))
            .cloned()
            .collect();
        (answer.status, fields, answer.text())
    };
    let wrong = gateway.login("ada@example.com", "wrong wrong wrong wrong");
    assert_eq!((wrong.status, wrong.json()), (401, json!({ "error": "credentials" })));
    for email in ["nobody@example.com", "off@example.com", "invited@example.com", "no e-mail", ""] {
        let password = if email.starts_with("off") { PASSWORD } else { "wrong wrong wrong wrong" };
        assert_eq!(same(&gateway.login(email, password)), same(&wrong), "{email}");
    }
    let page = |email: &str| {
        gateway.client().post_form("/.auth/login", &[("Accept", "text/html")], &format!("email={email}&password=wrong"))
    };
    let (known, unknown) = (page("ada@example.com"), page("eve@example.com"));
    assert_eq!(known.status, 401);
    assert_eq!(known.text().replace("ada@", "eve@"), unknown.text());
    assert!(known.text().contains("role=\"alert\"") && !known.text().contains("wrong"));
}

#[test]
fn sign_up_answers_new_and_taken_addresses_alike_and_gives_no_cookie() {
    let gateway = open();
    gateway.first_account();
    let sign_up = |email: &str| {
        gateway.client().post_json("/.auth/signup", &[], &json!({ "email": email, "name": "X", "password": PASSWORD }))
    };
    let (new, taken, again) = (sign_up("bea@example.com"), sign_up("ada@example.com"), sign_up("BEA@example.com"));
    for answer in [&new, &taken, &again] {
        assert_eq!((answer.status, answer.text(), answer.all("set-cookie").len()), (201, new.text(), 0));
    }
    assert_eq!(gateway.login("bea@example.com", PASSWORD).status, 200);
    let users: Value = serde_json::from_str(&gateway.cli(&["user", "list", "--json"])).unwrap();
    assert_eq!(users.as_array().unwrap().len(), 2);
    for (field, body) in [
        ("email", json!({ "email": "a@evil.test@example.com", "password": PASSWORD })),
        ("email", json!({ "email": "nobody", "password": PASSWORD })),
        ("password", json!({ "email": "c@example.com", "password": "fourteen chars" })),
        ("password", json!({ "email": "c@example.com", "password": "é".repeat(257) })),
        ("password", json!({ "email": "charlotte@example.com", "password": "charlotte is a fine name" })),
        ("name", json!({ "email": "c@example.com", "password": PASSWORD, "name": "Zoe\r\nX-Role: admin" })),
    ] {
        let answer = gateway.client().post_json("/.auth/signup", &[], &body);
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!(field)), "{body}");
    }
    for password in ["exactly 15 char", &"é".repeat(256), "  spaces count too  ", "🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀"]
    {
        let email = format!("p{}@example.com", password.len());
        assert_eq!(
            gateway.client().post_json("/.auth/signup", &[], &json!({ "email": email, "password": password })).status,
            201,
            "{password}"
        );
        assert_eq!(gateway.login(&email, password).status, 200, "{password}");
        assert_eq!(gateway.login(&email, password.trim()).status, if password.trim() == password { 200 } else { 401 });
    }
}

#[test]
fn sign_up_is_closed_without_a_link() {
    for mode in ["closed", "invite"] {
        let gateway =
            Gateway::start(&format!("[sign_up]\nmode = \"{mode}\"\n[[route]]\nupstream = \"builtin:whoami\"\n"));
        gateway.first_account();
        let body = json!({ "email": "bea@example.com", "password": PASSWORD });
        let answer = gateway.client().post_json("/.auth/signup", &[], &body);
        assert_eq!((answer.status, answer.json()), (403, json!({ "error": "closed" })));
        assert_eq!(gateway.client().get("/.auth/signup", &[("Accept", "text/html")]).status, 403);
    }
}

#[test]
fn one_time_links_work_once() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let path = |output: String| {
        output
            .split_whitespace()
            .find(|word| word.starts_with("http"))
            .map(|url| url[url.find("/.auth").unwrap()..].to_owned())
            .unwrap()
    };
    let invite = path(gateway.cli(&["invite", "--email", "bea@example.com", "--group", "staff"]));
    let body = json!({ "email": "other@example.com", "password": PASSWORD });
    let joined = gateway.client().post_json(&invite, &[], &body);
    assert_eq!(
        (joined.status, &joined.json()["user"]["email"], &joined.json()["user"]["groups"]),
        (200, &json!("bea@example.com"), &json!(["staff"]))
    );
    assert_eq!(gateway.client().post_json(&invite, &[], &body).status, 404);
    let reset = path(gateway.cli(&["user", "reset", "bea@example.com"]));
    assert_eq!(gateway.client().get(&reset.replace("/reset/", "/invite/"), &[]).status, 404);
    assert_eq!(gateway.client().get(&reset, &[("Accept", "text/html")]).status, 200);
    let new = json!({ "password": "quite another long sentence" });
    assert_eq!(gateway.client().post_json(&reset, &[], &new).status, 200);
    assert_eq!(gateway.client().post_json(&reset, &[], &new).status, 404);
    assert_eq!(gateway.login("bea@example.com", PASSWORD).status, 401);
    assert_eq!(gateway.login("bea@example.com", "quite another long sentence").status, 200);
    let added = path(gateway.cli(&["user", "add", "carl@example.com"]));
    assert_eq!(gateway.client().post_json(&added, &[], &json!({ "password": PASSWORD })).status, 200);
    assert_eq!(gateway.client().get("/.auth/invite/unknown", &[]).status, 404);
}

#[test]
fn tries_are_counted_per_account_and_survive_a_restart() {
    let gateway =
        Gateway::start("[throttle]\nmax_retries = 3\nban_time = \"30s\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let live = gateway.first_account();
    for email in ["ada@example.com", "nobody@example.com"] {
        for spelling in [email.to_owned(), email.to_uppercase(), format!(" {email}")] {
            assert_eq!(gateway.login(&spelling, "wrong wrong wrong").status, 401);
        }
        let banned = gateway.login(email, PASSWORD);
        assert_eq!((banned.status, banned.json()), (429, json!({ "error": "throttled" })), "{email}");
        let wait: u64 = banned.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
    }
    assert_eq!(gateway.client().get("/x", &[("Cookie", &live)]).status, 200);
    let gateway = gateway.kill_and_restart();
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 429);
    gateway.cli(&["ban", "lift", "ada@example.com"]);
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 200);
}

#[test]
fn nobody_can_lock_out_a_browser_that_has_signed_in_before() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 2\n[[route]]\nupstream = \"builtin:whoami\"\n");
    gateway.first_account();
    let known = gateway.login("ada@example.com", PASSWORD);
    let device = known.all("set-cookie").into_iter().find(|cookie| cookie.starts_with("authgate-device=")).unwrap();
    let device = device.split(';').next().unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(gateway.login("ada@example.com", "wrong wrong wrong").status, 401);
    }
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 429);
    let body = |password: &str| json!({ "email": "ada@example.com", "password": password });
    let mut tries = vec![PASSWORD, "wrong wrong wrong", "wrong wrong wrong", PASSWORD]
        .into_iter()
        .map(|password| gateway.client().post_json("/.auth/login", &[("Cookie", &device)], &body(password)).status);
    assert_eq!((tries.next(), tries.next(), tries.next(), tries.next()), (Some(200), Some(401), Some(401), Some(429)));
    let forged = gateway.client().post_json("/.auth/login", &[("Cookie", "authgate-device=x")], &body(PASSWORD));
    assert_eq!(forged.status, 429);
}

#[test]
fn bad_bodies_get_the_right_code_and_change_nothing() {
    let gateway = open();
    gateway.first_account();
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let json = ("Content-Type", "application/json");
    for (field, body, status) in [
        (json, &b"{"[..], 400),
        (json, b"[]", 400),
        (json, b"null", 400),
        (json, b"{\"email\":1,\"password\":\"x\"}", 400),
        (json, b"{\"email\":[],\"password\":{}}", 400),
        (json, b"{}", 400),
        (json, b"\xff\xfe", 400),
        (json, b"{\"email\":\"a\",\"email\":\"b\"}", 400),
        (form, b"email=a&email=b&password=x", 400),
        (form, b"%ff=%ff&email=a&password=%ff", 400),
        (form, b"", 400),
        (("Content-Type", "multipart/form-data; boundary=x"), b"--x--", 415),
        (("Content-Type", "text/plain"), b"email=a", 415),
        (("X", "y"), b"email=a", 415),
    ] {
        let answer = gateway.client().request("POST /.auth/login", &[field], body);
        assert_eq!(answer.status, status, "{field:?} {:?}", String::from_utf8_lossy(body));
    }
    let large = vec![b'a'; (8 << 10) + 1];
    let mut client = gateway.client();
    assert_eq!(client.request("POST /.auth/login", &[form], &large).status, 413);
    let mut client = gateway.client();
    client.send(
        format!(
            "POST /.auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            form.1
        )
        .as_bytes(),
    );
    for _ in 0..9 {
        client.send(&[b"400\r\n", &[b'a'; 1024][..], b"\r\n"].concat());
    }
    assert_eq!(client.answer().status, 413);
    let encoded = gateway.client().request("POST /.auth/login", &[form, ("Content-Encoding", "gzip")], FORM.as_bytes());
    assert_eq!(encoded.status, 415);
    let waited = gateway.client().request("POST /.auth/login", &[form, ("Expect", "100-continue")], FORM.as_bytes());
    assert_eq!(waited.status, 303);
    for (line, allow) in
        [("PUT /.auth/login", "GET, POST"), ("POST /.auth/me", "GET"), ("DELETE /.auth/account/profile", "POST")]
    {
        let answer = gateway.client().request(line, &[], b"");
        assert_eq!((answer.status, answer.field("allow")), (405, Some(allow)), "{line}");
    }
    for path in ["/.auth/x", "/.auth/login/", "/.auth/assets/x.css", "/.auth/assets/"] {
        assert_eq!(gateway.client().get(path, &[]).status, 404, "{path}");
    }
}

#[test]
fn pages_of_ours_refuse_forms_of_other_origins() {
    let gateway = open();
    let cookie = gateway.first_account();
    for path in [
        "/.auth/login",
        "/.auth/signup",
        "/.auth/logout",
        "/.auth/account/profile",
        "/.auth/account/password",
        "/.auth/account/sessions",
    ] {
        for field in
            [("Origin", "https://evil.test"), ("Sec-Fetch-Site", "cross-site"), ("Referer", "https://evil.test/")]
        {
            let answer = gateway.client().post_form(path, &[("Cookie", &cookie), field], FORM);
            assert_eq!((answer.status, answer.all("set-cookie").len()), (403, 0), "{path} {field:?}");
        }
    }
    assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
    let own = format!("http://{}", gateway.host());
    assert_eq!(gateway.client().post_form("/.auth/login", &[("Origin", &own)], FORM).status, 303);
}

#[test]
fn every_page_carries_the_fields_that_keep_it_to_itself() {
    let gateway = open();
    let cookie = gateway.first_account();
    for path in
        ["/.auth/login", "/.auth/signup", "/.auth/logout", "/.auth/signed-out", "/.auth/account", "/.auth/nothing"]
    {
        let cookie = if path == "/.auth/account" { cookie.as_str() } else { "a=1" };
        let page = gateway.client().get(path, &[("Accept", "text/html"), ("Cookie", cookie)]);
        let policy = page.field("content-security-policy").unwrap();
        assert!(
            policy.starts_with(
                "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'"
            ),
            "{policy}"
        );
        assert!(policy.ends_with("base-uri 'none'; frame-ancestors 'none'"), "{policy}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(page.field(name), Some(value), "{path}");
        }
        let handlers = ["onclick=", "onsubmit=", "onload=", "style=", "<style", "<script>", "javascript:"];
        assert!(handlers.iter().all(|inline| !page.text().contains(inline)), "{path}");
    }
}

#[test]
fn a_flood_of_sign_ins_is_bounded_and_leaves_sessions_alone() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 1000\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let cookie = gateway.first_account();
    let address = gateway.address;
    let threads: Vec<_> = (0..80)
        .map(|number| {
            std::thread::spawn(move || {
                let body = json!({ "email": format!("user{number}@example.com"), "password": "wrong wrong wrong" });
                crate::client::Client::connect(address).post_json("/.auth/login", &[], &body).status
            })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
    }
    let statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    eventually("the queue is free again", || gateway.login("ada@example.com", PASSWORD).status == 200);
}
