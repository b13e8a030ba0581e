//! The Auth.js surface, answer by answer, as its clients read it.

use serde_json::{Value, json};

use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD};

const SURFACE: &str = "[authjs]\nbase_path = \"/api/auth\"\n[[route]]\nupstream = \"builtin:whoami\"\n";

fn gateway(rest: &str) -> Gateway {
    Gateway::start(&format!("{rest}{SURFACE}"))
}

/// A client with its CSRF token and the cookie for it.
struct Browser<'g> {
    gateway: &'g Gateway,
    token: String,
    cookie: String,
}

#[derive(Clone, Copy, Debug)]
enum Client {
    V4,
    V5,
    Plain,
}

impl<'g> Browser<'g> {
    fn new(gateway: &'g Gateway) -> Self {
        let answer = gateway.client().get("/api/auth/csrf", &[]);
        let token = answer.json()["csrfToken"].as_str().unwrap().to_owned();
        let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        Self { gateway, token, cookie }
    }

    fn post(&self, client: Client, path: &str, fields: &[(&str, &str)], cookies: &str) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields).append_pair("csrfToken", &self.token);
        if let Client::V4 = client {
            form.append_pair("json", "true");
        }
        let cookie = format!("{}; {cookies}", self.cookie);
        let mut headers = vec![("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "same-origin"), ("Accept", "*/*")];
        if let Client::V5 = client {
            headers.push(("X-Auth-Return-Redirect", "1"));
        }
        self.gateway.client().post_form(&format!("/api/auth{path}"), &headers, &form.finish())
    }

    fn sign_in(&self, client: Client, password: &str, back: &str) -> Answer {
        let fields = [("email", "ada@example.com"), ("password", password), ("callbackUrl", back)];
        self.post(client, "/callback/credentials", &fields, "")
    }
}

fn url(gateway: &Gateway, place: &str) -> Value {
    json!({ "url": format!("http://{}{place}", gateway.host()) })
}

#[test]
fn the_session_is_always_200_json_and_anonymous_is_what_the_client_expects() {
    for (client, nobody) in [("auto", json!(false)), ("v4", json!({})), ("v5", Value::Null)] {
        let gateway = Gateway::start(&SURFACE.replace("base_path", &format!("client = \"{client}\"\nbase_path")));
        let ask = |cookie: &str| {
            gateway.client().get("/api/auth/session", &[("Cookie", cookie), ("Content-Type", "application/json")])
        };
        for cookie in ["", "authgate=nonsense"] {
            let answer = ask(cookie);
            assert_eq!((answer.status, answer.json()), (200, nobody.clone()));
            assert_eq!(answer.field("cache-control"), Some("no-store"));
        }
        let session = gateway.first_account();
        let answer = ask(&session);
        let expires = answer.json()["expires"].as_str().unwrap().to_owned();
        assert_eq!(
            answer.json(),
            json!({ "user": { "name": "Ada", "email": "ada@example.com", "image": null, "id": "1" }, "expires": expires })
        );
        assert!(expires.ends_with('Z') && expires.contains('T'), "{expires}");
        let me = gateway.client().get("/.auth/me", &[("Cookie", &session)]).json();
        assert_eq!(me["expires"], expires.as_str());
    }
}

#[test]
fn asking_for_the_session_renews_the_cookie_and_never_passes_the_absolute_limit() {
    let gateway = gateway("[session]\nmax_age = \"6s\"\nidle = \"6s\"\nrenew_after = \"1s\"\n");
    let mut cookie = gateway.first_account();
    let expires = gateway.client().get("/.auth/me", &[("Cookie", &cookie)]).json()["expires"].clone();
    let mut renewed = 0;
    crate::gateway::eventually("the session ends although it is polled", || {
        let answer = gateway.client().get("/api/auth/session", &[("Cookie", &cookie)]);
        if answer.json() == json!(false) {
            return true;
        }
        assert_eq!(answer.json()["expires"], expires);
        if !answer.all("set-cookie").is_empty() {
            cookie = answer.session_cookie();
            renewed += 1;
        }
        false
    });
    assert!(renewed >= 2, "{renewed}");
}

#[test]
fn one_csrf_cookie_keeps_one_token_and_a_forged_one_gets_a_new_one() {
    let gateway = gateway("");
    let browser = Browser::new(&gateway);
    assert!(browser.token.len() == 64);
    assert!(browser.token.bytes().all(|b| b.is_ascii_hexdigit()));
    let again = gateway.client().get("/api/auth/csrf", &[("Cookie", &browser.cookie)]);
    assert_eq!((again.json(), again.field("set-cookie")), (json!({ "csrfToken": browser.token }), None));
    let forged = format!("authgate-csrf={}.AAAA", browser.token);
    assert_ne!(
        gateway.client().get("/api/auth/csrf", &[("Cookie", &forged)]).json()["csrfToken"],
        browser.token.as_str()
    );
}

#[test]
fn the_credentials_provider_is_reported_with_absolute_addresses() {
    let gateway = gateway("");
    let base = format!("http://{}/api/auth", gateway.host());
    let provider = json!({ "credentials": { "id": "credentials", "name": "Credentials", "type": "credentials",
        "signinUrl": format!("{base}/signin/credentials"), "callbackUrl": format!("{base}/callback/credentials") } });
    assert_eq!(gateway.client().get("/api/auth/providers", &[]).json(), provider);
}

#[test]
fn signing_in_answers_each_client_as_it_reads_it() {
    let gateway = gateway("");
    gateway.first_account();
    let browser = Browser::new(&gateway);
    let back = format!("http://{}/dashboard?tab=2#part", gateway.host());
    for client in [Client::V4, Client::V5, Client::Plain] {
        let answer = browser.sign_in(client, PASSWORD, &back);
        if let Client::Plain = client {
            assert_eq!((answer.status, answer.field("location")), (302, Some("/dashboard?tab=2#part")));
        } else {
            assert_eq!((answer.status, answer.json()), (200, url(&gateway, "/dashboard?tab=2#part")), "{client:?}");
        }
        let session = gateway.client().get("/api/auth/session", &[("Cookie", &answer.session_cookie())]);
        assert_eq!(session.json()["user"]["email"], "ada@example.com");
        for elsewhere in ["https://evil.test/x", "//evil.test", "javascript:alert(1)", "/api/auth/signout"] {
            let answer = browser.sign_in(client, PASSWORD, elsewhere);
            let place = if answer.status == 302 { json!({ "url": answer.field("location") }) } else { answer.json() };
            let expected = if answer.status == 302 { json!({ "url": "/" }) } else { url(&gateway, "/") };
            assert_eq!(place, expected, "{client:?} {elsewhere}");
        }
        let wrong = browser.sign_in(client, "wrong", &back);
        assert!(wrong.all("set-cookie").is_empty());
        match client {
            Client::V4 => assert_eq!(
                (wrong.status, wrong.json()),
                (401, url(&gateway, "/api/auth/error?error=CredentialsSignin&provider=credentials"))
            ),
            Client::V5 => assert_eq!(
                (wrong.status, wrong.json()),
                (200, url(&gateway, "/.auth/login?error=CredentialsSignin&code=credentials"))
            ),
            Client::Plain => {
                assert_eq!(
                    (wrong.status, wrong.field("location")),
                    (302, Some("/.auth/login?error=CredentialsSignin"))
                );
            }
        }
    }
}

#[test]
fn without_the_csrf_token_no_one_is_signed_in_or_out() {
    let gateway = gateway("");
    let session = gateway.first_account();
    let mut browser = Browser::new(&gateway);
    browser.token = "0".repeat(64);
    for (client, place) in [(Client::V4, "/api/auth/signin?csrf=true"), (Client::V5, "/.auth/login?error=MissingCSRF")]
    {
        let answer = browser.sign_in(client, PASSWORD, "/");
        assert_eq!((answer.status, answer.json()), (200, url(&gateway, place)));
        assert!(answer.all("set-cookie").is_empty());
    }
    for (client, place) in
        [(Client::V4, "/api/auth/signout?csrf=true"), (Client::V5, "/api/auth/signout?error=MissingCSRF")]
    {
        let answer = browser.post(client, "/signout", &[], &session);
        assert_eq!((answer.status, answer.json()), (200, url(&gateway, place)));
        assert!(answer.all("set-cookie").is_empty());
    }
    assert_eq!(gateway.client().get("/.auth/me", &[("Cookie", &session)]).status, 200);
    let update = gateway.client().post_json("/api/auth/session", &[("Cookie", &session)], &json!({ "csrfToken": "x" }));
    assert_eq!((update.status, update.json()), (400, json!(false)));
    let browser = Browser::new(&gateway);
    let fields = [("Cookie", format!("{}; {session}", browser.cookie))];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = json!({ "csrfToken": browser.token, "data": { "name": "Eve", "id": "2" } });
    let update = gateway.client().post_json("/api/auth/session", &fields, &body);
    assert_eq!((update.status, &update.json()["user"]["name"]), (200, &json!("Ada")));
}

#[test]
fn signing_out_ends_the_session_itself() {
    for client in [Client::V4, Client::V5, Client::Plain] {
        let gateway = gateway("");
        let session = gateway.first_account();
        let browser = Browser::new(&gateway);
        let answer = browser.post(client, "/signout", &[("callbackUrl", "/bye")], &session);
        match client {
            Client::Plain => assert_eq!((answer.status, answer.field("location")), (302, Some("/bye"))),
            _ => assert_eq!((answer.status, answer.json()), (200, url(&gateway, "/bye"))),
        }
        assert!(answer.field("set-cookie").unwrap().contains("Max-Age=0"));
        assert_eq!(gateway.client().get("/api/auth/session", &[("Cookie", &session)]).json(), json!(false));
    }
}

#[test]
fn throttling_and_foreign_pages_are_reported_in_json_with_an_absolute_address() {
    let gateway = gateway("[throttle]\nmax_retries = 2\n");
    gateway.first_account();
    let browser = Browser::new(&gateway);
    for _ in 0..2 {
        browser.sign_in(Client::V4, "wrong", "/");
    }
    for client in [Client::V4, Client::V5] {
        let answer = browser.sign_in(client, PASSWORD, "/");
        assert_eq!((answer.status, answer.json()), (429, url(&gateway, "/.auth/login?error=RateLimited")));
        assert!(answer.field("retry-after").is_some());
    }
    let foreign = gateway.client().post_form(
        "/api/auth/callback/credentials",
        &[("Origin", "https://evil.test"), ("Cookie", &browser.cookie)],
        &format!("csrfToken={}&json=true", browser.token),
    );
    assert_eq!(foreign.status, 403);
    assert!(foreign.json()["url"].as_str().unwrap().starts_with("http://"));
    for (kind, body) in
        [("text/plain", "x"), ("application/json", "[1]"), ("application/x-www-form-urlencoded", "a=1&a=2")]
    {
        let answer =
            gateway.client().request("POST /api/auth/callback/credentials", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!(answer.status, 400, "{kind}");
        assert!(answer.json()["url"].as_str().unwrap().starts_with("http://"));
    }
}

#[test]
fn navigations_are_sent_to_the_gateways_own_pages_with_the_way_back() {
    let gateway = gateway("");
    let document = [("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];
    let back = format!("http%3A%2F%2F{}%2Fx", gateway.host().replace(':', "%3A"));
    for (asked, place) in [
        (format!("/api/auth/signin?callbackUrl={back}"), format!("/.auth/login?callbackUrl={back}")),
        (
            format!("/api/auth/signin?error=SessionRequired&callbackUrl={back}"),
            format!("/.auth/login?error=SessionRequired&callbackUrl={back}"),
        ),
        ("/api/auth/signin/github".to_owned(), "/.auth/login".to_owned()),
        (
            "/api/auth/error?error=CredentialsSignin&provider=credentials".to_owned(),
            "/.auth/login?error=CredentialsSignin".to_owned(),
        ),
        ("/api/auth/signout".to_owned(), "/.auth/logout".to_owned()),
    ] {
        let answer = gateway.client().get(&asked, &document);
        assert_eq!((answer.status, answer.field("location")), (302, Some(place.as_str())), "{asked}");
    }
    for (code, status) in [("AccessDenied", 403), ("Verification", 403), ("Configuration", 500)] {
        let answer = gateway.client().get(&format!("/api/auth/error?error={code}"), &document);
        assert_eq!(answer.status, status);
        assert!(answer.text().contains("<html"));
    }
    let told = gateway.client().get("/.auth/login?error=SessionRequired", &document).text();
    assert!(told.contains("role=\"alert\""));
    assert!(told.contains("Sign in to view that page."));
    let reflected = gateway.client().get("/.auth/login?error=%3Cscript%3Eevil%3C/script%3E", &document).text();
    assert!(!reflected.contains("evil"));
}

#[test]
fn unknown_actions_are_400_json_and_the_log_is_swallowed() {
    let gateway = gateway("");
    for (line, status) in [
        ("GET /api/auth/nonsense", 400),
        ("GET /api/auth", 400),
        ("GET /api/auth/", 400),
        ("PUT /api/auth/session", 400),
        ("DELETE /api/auth/session", 400),
        ("POST /api/auth/csrf", 400),
        ("GET /api/auth/callback/credentials", 400),
        ("POST /api/auth/_log", 200),
    ] {
        assert_eq!(gateway.client().request(line, &[], b"").status, status, "{line}");
    }
    let off = Gateway::whoami();
    assert_eq!(off.client().get("/api/auth/session", &[]).status, 401, "off: the route decides");
}
