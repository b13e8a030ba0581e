//! Signing in, up and out: forms and their JSON twins, bad input, throttling (security cases E and R).

use serde_json::json;

use crate::gateway::{Gateway, PASSWORD};

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
}

/// What people read says the truth: whoever is signed in is not told that they are out, nor asked to leave twice.
#[test]
fn pages_about_signing_out_fit_who_looks_at_them() {
    let gateway = open();
    let cookie = gateway.first_account();
    let ask = |path: &str, cookie: &str| gateway.client().get(path, &[("Cookie", cookie), ("Accept", "text/html")]);
    assert_eq!(ask("/.auth/logout", &cookie).status, 200);
    assert_eq!(ask("/.auth/logout", "a=1").field("location"), Some("/.auth/signed-out"));
    assert_eq!(ask("/.auth/signed-out", "a=1").status, 200);
    assert_eq!(ask("/.auth/signed-out", &cookie).field("location"), Some("/.auth/account"));
}

/// A person reads the answer: it is a page, whatever was wrong with the form.
#[test]
fn a_form_that_cannot_be_read_is_answered_with_a_page() {
    let gateway = open();
    let cookie = gateway.first_account();
    let fields = [("Cookie", cookie.as_str()), ("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")];
    let post = |body: &str| gateway.client().post_form("/.auth/account/profile", &fields, body);
    for (body, status, heading) in
        [("name=%FF", 400, "Bad request"), (&*format!("name={}", "a".repeat(9000)), 413, "Too large")]
    {
        let refused = post(body);
        assert_eq!((refused.status, refused.field("content-type")), (status, Some("text/html; charset=utf-8")));
        assert!(refused.text().contains(&format!("<h1>{heading}</h1>")), "{}", refused.text());
    }
    assert_eq!(post("name=Ada").status, 303);
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
    // 64 fields are read, and no more: each is compared with all before it
    let fields = |count: usize| (2..count).map(|n| format!("&f{n}=")).collect::<Vec<_>>().concat();
    let members = |count: usize| (2..count).map(|n| format!(",\"f{n}\":\"\"")).collect::<Vec<_>>().concat();
    for (count, status) in [(64, 303), (65, 400)] {
        let body = format!("{FORM}{}", fields(count));
        assert_eq!(gateway.client().request("POST /.auth/login", &[form], body.as_bytes()).status, status, "{count}");
        let body = format!("{{\"email\":\"ada@example.com\",\"password\":\"{PASSWORD}\"{}}}", members(count));
        let answer = gateway.client().request("POST /.auth/login", &[json], body.as_bytes());
        assert_eq!(answer.status, if status == 303 { 200 } else { status }, "{count}");
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
