//! What a client receives when refused, row by row, each with its twin.

use serde_json::json;

use crate::client::Answer;
use crate::gateway::Gateway;

const NAVIGATION: &[(&str, &str)] = &[("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];

fn gateway() -> Gateway {
    Gateway::start(
        r#"
[[route]]
path = "/public/**"
access = "public"
upstream = "builtin:whoami"
[[route]]
path = "/optional/**"
access = "optional"
upstream = "builtin:whoami"
[[route]]
path = "/closed/**"
access = "deny"
[[route]]
path = "/staff/**"
groups = ["staff", "boss"]
upstream = "builtin:whoami"
[[route]]
path = "/redirect/**"
refuse = "redirect"
upstream = "builtin:whoami"
[[route]]
path = "/status/**"
refuse = "status"
upstream = "builtin:whoami"
[[route]]
path = "/basic/**"
refuse = "basic"
upstream = "builtin:whoami"
[[route]]
path = "/lifted/**"
danger_cross_origin = true
upstream = "builtin:whoami"
[[route]]
path = "/app/**"
upstream = "builtin:whoami"
"#,
    )
}

fn ask(gateway: &Gateway, line: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
    let cookie = [("Cookie", cookie)];
    let fields = if cookie[0].1.is_empty() { fields.to_vec() } else { [&cookie, fields].concat() };
    gateway.client().request(line, &fields, b"")
}

#[test]
fn a_navigation_goes_to_the_login_page_with_the_way_back() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    for (line, fields, place) in [
        ("GET /app/x?y=z&a=%2F", NAVIGATION, "/.auth/login?callbackUrl=/app/x?y=z%26a=%252F"),
        ("HEAD /app/x", NAVIGATION, "/.auth/login?callbackUrl=/app/x"),
        ("GET /app/", &[("Accept", "text/html,*/*;q=0.8")], "/.auth/login?callbackUrl=/app/"),
        ("GET /redirect/x", &[("Accept", "application/json")], "/.auth/login"),
    ] {
        let refused = ask(&gateway, line, "", fields);
        assert_eq!((refused.status, refused.field("location")), (303, Some(place)), "{line}");
        assert_eq!(refused.field("cache-control"), Some("no-store"));
        assert_eq!(ask(&gateway, line, &cookie, fields).status, 200, "{line}");
    }
    assert_eq!(ask(&gateway, "GET /status/x", "", NAVIGATION).status, 401);
}

#[test]
fn everything_else_without_a_session_gets_401_json() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    for (line, fields) in [
        ("GET /app/x", &[][..]),
        ("GET /app/x", &[("Accept", "application/json")]),
        ("GET /app/x", &[("Sec-Fetch-Mode", "cors"), ("Accept", "text/html")]),
        ("GET /app/x", &[("Accept", "text/html;q=0, */*")]),
        // over plain http browsers send no fetch metadata: jQuery, htmx
        ("GET /app/x", &[("Accept", "text/html, */*"), ("X-Requested-With", "XMLHttpRequest")]),
        ("GET /app/x", &[("Accept", "text/html, */*"), ("HX-Request", "true")]),
        ("POST /app/x", &[("Content-Type", "application/json")]),
        ("DELETE /app/x", &[]),
        ("PROPFIND /app/x", &[]),
        // browsers send forms by POST alone
        ("DELETE /app/x", NAVIGATION),
        ("PUT /app/x", &[("Accept", "text/html")]),
        ("OPTIONS /app/x", &[("Accept", "text/html")]),
        ("OPTIONS /app/x", &[("Origin", "https://evil.test"), ("Access-Control-Request-Method", "POST")]),
        ("POST /redirect/x", &[]),
    ] {
        let refused = ask(&gateway, line, "", fields);
        assert_eq!(refused.status, 401, "{line} {fields:?}");
        assert_eq!(refused.json(), json!({ "error": "signed_out", "login": "/.auth/login" }), "{line}");
        assert_eq!(refused.field("www-authenticate"), Some("Bearer"));
        assert_eq!(ask(&gateway, line, &cookie, fields).status, 200, "{line} {fields:?}");
    }
}

/// RFC 7617, 2: whoever sends a password only when asked for one is asked where the route says so.
#[test]
fn a_route_may_ask_for_basic_and_takes_an_api_token_as_the_password() {
    let gateway = gateway();
    gateway.first_account();
    let token = gateway.cli(&["token", "create", "ada@example.com", "--name", "phone"]).trim().to_owned();
    let basic = |password: &str| data_encoding::BASE64.encode(format!("ada@example.com:{password}").as_bytes());
    let (good, bad) = (format!("Basic {}", basic(&token)), format!("Basic {}", basic("agt_wrong")));
    for (line, fields) in [
        ("PROPFIND /basic/x", &[][..]),
        ("GET /basic/x", NAVIGATION),
        ("POST /basic/x", NAVIGATION),
        ("HEAD /basic/x", &[]),
    ] {
        for sent in [fields.to_vec(), [fields, &[("Authorization", bad.as_str())]].concat()] {
            let refused = gateway.client().request(line, &sent, b"");
            assert_eq!(refused.status, 401, "{line}");
            assert_eq!(refused.all("www-authenticate"), ["Basic realm=\"authgate\", charset=\"UTF-8\""], "{line}");
        }
        let sent = [fields, &[("Authorization", good.as_str())]].concat();
        assert_eq!(gateway.client().request(line, &sent, b"").status, 200, "{line}");
    }
}

/// "`GET me`: JSON or 401"; the account page is one that people open.
#[test]
fn endpoints_for_programs_are_401_for_navigations_too_and_the_account_page_leads_to_the_login() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    for path in ["me", "account/sessions", "account/tokens"] {
        let refused = ask(&gateway, &format!("GET /.auth/{path}"), "", NAVIGATION);
        assert_eq!((refused.status, &refused.json()["error"]), (401, &json!("signed_out")), "{path}");
        assert_eq!(refused.field("www-authenticate"), Some("Bearer"));
        assert_eq!(ask(&gateway, &format!("GET /.auth/{path}"), &cookie, NAVIGATION).status, 200, "{path}");
    }
    for line in ["GET /.auth/account", "HEAD /.auth/account"] {
        let sent = ask(&gateway, line, "", NAVIGATION);
        assert_eq!((sent.status, sent.field("location")), (303, Some("/.auth/login?callbackUrl=/.auth/account")));
        assert_eq!(ask(&gateway, line, "", &[]).status, 401);
        assert_eq!(ask(&gateway, line, &cookie, NAVIGATION).status, 200);
    }
}

#[test]
fn a_form_whose_session_ended_is_told_that_it_was_not_sent() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    let back = format!("http://{}/app/form?x=1", gateway.host());
    let fields = [NAVIGATION, &[("Referer", back.as_str())]].concat();
    let refused = ask(&gateway, "POST /app/form", "", &fields);
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("the form was not sent"));
    assert!(refused.text().contains("/.auth/login?callbackUrl=/app/form?x=1"), "{}", refused.text());
    let origin = format!("http://{}", gateway.host());
    let fields = [NAVIGATION, &[("Origin", origin.as_str())]].concat();
    assert_eq!(ask(&gateway, "POST /app/form", &cookie, &fields).status, 200);
}

/// The gateway's own pages tell no more than their origin as referrer.
#[test]
fn a_form_of_the_account_page_leads_back_to_it_and_its_address_opens_it() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    for path in ["/.auth/account/profile", "/.auth/account/password"] {
        let origin = format!("http://{}/", gateway.host());
        let fields = [NAVIGATION, &[("Referer", origin.as_str())]].concat();
        let refused = ask(&gateway, &format!("POST {path}"), "", &fields);
        assert_eq!(refused.status, 401);
        assert!(refused.text().contains("href=\"/.auth/login?callbackUrl=/.auth/account\" target=\"_blank\""));
        // what a browser asks for when the address of a refused form is opened again
        let opened = ask(&gateway, &format!("GET {path}"), &cookie, NAVIGATION);
        assert_eq!((opened.status, opened.field("location")), (303, Some("/.auth/account")), "{path}");
        assert_eq!(ask(&gateway, &format!("GET {path}"), &cookie, &[]).status, 405);
    }
}

/// "Too many cookies" and addresses that read two ways are met by people.
#[test]
fn heads_that_are_refused_unread_get_a_page_where_a_person_looks_and_json_elsewhere() {
    let gateway = gateway();
    let (cookies, long) = ("a=".to_owned() + &"b".repeat(40_000), format!("GET /app/{}", "a".repeat(17_000)));
    for (line, cookies, status, word, heading) in [
        ("GET /app/%00x", "a=1", 400, "bad_request", "Bad request"),
        ("GET /app/x%00", "a=1", 400, "bad_request", "Bad request"),
        ("GET /app/a<b", "a=1", 400, "bad_request", "Bad request"),
        (&long, "a=1", 414, "uri_too_long", "Address too long"),
        ("GET /app/x", cookies.as_str(), 431, "header_too_large", "Too many cookies"),
    ] {
        for looks in [NAVIGATION, &[("Accept", "text/html,*/*;q=0.8")]] {
            let page = ask(&gateway, line, "", &[looks, &[("Cookie", cookies)]].concat());
            assert_eq!(
                (page.status, page.field("content-type")),
                (status, Some("text/html; charset=utf-8")),
                "{heading}"
            );
            assert!(page.text().contains(&format!("<h1>{heading}</h1>")), "{}", page.text());
            assert!(page.text().contains(page.field("x-request-id").unwrap()));
            assert_eq!(page.field("connection"), Some("close"));
        }
        let scripted = [("Sec-Fetch-Mode", "cors"), ("Accept", "text/html"), ("Cookie", cookies)];
        let json = ask(&gateway, line, "", &scripted);
        assert_eq!((json.status, &json.json()["error"]), (status, &json!(word)));
    }
}

#[test]
fn signed_in_and_not_allowed_is_403_as_page_or_json() {
    let gateway = gateway();
    let ada = gateway.first_account();
    gateway.add_user("bob@example.com", &["staff"]);
    let bob = gateway.sign_in("bob@example.com");
    for path in ["/staff/x", "/closed/x"] {
        let json = ask(&gateway, &format!("GET {path}"), &ada, &[]);
        assert_eq!((json.status, &json.json()["error"]), (403, &json!("forbidden")));
        let page = ask(&gateway, &format!("GET {path}"), &ada, NAVIGATION);
        assert_eq!(page.status, 403);
        assert!(page.text().contains(page.field("x-request-id").unwrap()));
        // where one sees who one is, and becomes somebody else
        assert!(page.text().contains("href=\"/.auth/account\""), "{}", page.text());
    }
    assert_eq!(ask(&gateway, "GET /staff/x", &bob, &[]).status, 200);
    assert_eq!(ask(&gateway, "GET /closed/x", &bob, &[]).status, 403);
    assert_eq!(ask(&gateway, "GET /closed/x", "", &[]).status, 403);
    assert_eq!(ask(&gateway, "GET /staff/x", "", &[]).status, 401);
}

#[test]
fn grpc_gets_200_with_its_own_status() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    let fields = [("Content-Type", "application/grpc+proto")];
    for (path, cookie, status) in [("/app/S/M", "", "16"), ("/staff/S/M", cookie.as_str(), "7")] {
        let refused = ask(&gateway, &format!("POST {path}"), cookie, &fields);
        assert_eq!((refused.status, refused.field("grpc-status")), (200, Some(status)));
        assert_eq!(refused.field("content-type"), Some("application/grpc"));
    }
    assert_eq!(ask(&gateway, "POST /app/S/M", &cookie, &fields).field("grpc-status"), None);
}

#[test]
fn what_no_route_takes_is_404_and_nothing_is_public_unless_a_route_says_so() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    for path in ["/", "/nothing", "/apps", "/publicity", "/public.json"] {
        assert_eq!(ask(&gateway, &format!("GET {path}"), &cookie, &[]).status, 404, "{path}");
        assert_eq!(ask(&gateway, &format!("GET {path}"), "", &[]).status, 404, "{path}");
    }
    let leads_home = |path: &str| ask(&gateway, path, "", NAVIGATION).text().contains("<a class=\"button\" href=\"/\"");
    assert!(leads_home("GET /nothing") && !leads_home("GET /"), "a page does not lead to itself");
    for path in ["/public", "/public/", "/public/x", "/optional/x"] {
        assert_eq!(ask(&gateway, &format!("GET {path}"), "", &[]).status, 200, "{path}");
    }
}

#[test]
fn an_invalid_credential_is_anonymous_on_open_routes_and_refused_elsewhere() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    let bad = cookie.replace('=', "=x");
    for path in ["/public/x", "/optional/x"] {
        let answer = ask(&gateway, &format!("GET {path}"), &bad, &[]);
        assert_eq!((answer.status, answer.seen("remote-user")), (200, vec![]), "{path}");
    }
    assert_eq!(ask(&gateway, "GET /app/x", &bad, &[]).status, 401);
    let known = ask(&gateway, "GET /optional/x", &cookie, &[]);
    assert_eq!(known.seen("remote-user"), ["ada@example.com"]);
}

#[test]
fn unsafe_methods_from_another_origin_are_refused_where_the_cookie_speaks() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    let own = format!("http://{}", gateway.host());
    let own_page = format!("{own}/page");
    let foreign: &[&[(&str, &str)]] = &[
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Origin", "https://evil.test")],
        &[("Origin", "null")],
        &[("Referer", "https://evil.test/x")],
    ];
    let ours: &[&[(&str, &str)]] = &[
        &[("Sec-Fetch-Site", "same-origin")],
        &[("Sec-Fetch-Site", "none")],
        &[("Origin", &own)],
        &[("Referer", &own_page)],
        &[],
    ];
    for path in ["/app/x", "/optional/x"] {
        for fields in foreign {
            assert_eq!(ask(&gateway, &format!("POST {path}"), &cookie, fields).status, 403, "{path} {fields:?}");
            assert_eq!(ask(&gateway, &format!("GET {path}"), &cookie, fields).status, 200, "{path} {fields:?}");
        }
        for fields in ours {
            assert_eq!(ask(&gateway, &format!("POST {path}"), &cookie, fields).status, 200, "{path} {fields:?}");
        }
    }
    let token = format!("Bearer {}", cookie.split_once('=').unwrap().1);
    for (line, cookie, fields) in [
        ("POST /lifted/x", cookie.as_str(), foreign[0].to_vec()),
        ("POST /public/x", &cookie, foreign[0].to_vec()),
        ("POST /app/x", "", [foreign[0], &[("Authorization", token.as_str())]].concat()),
    ] {
        assert_eq!(ask(&gateway, line, cookie, &fields).status, 200, "{line}");
    }
}

#[test]
fn a_bearer_session_token_is_a_credential_and_every_other_authorization_is_the_apps() {
    let gateway = gateway();
    let cookie = gateway.first_account();
    let token = cookie.split_once('=').unwrap().1;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {token}");
        let answer = ask(&gateway, "GET /app/x", "", &[("Authorization", &value)]);
        assert_eq!((answer.status, answer.seen("authorization")), (200, vec![]), "{scheme}");
        assert_eq!(answer.seen("remote-user"), ["ada@example.com"]);
    }
    for value in ["Basic YTpi", "Bearer opaque", "Bearer a.b.c", "Digest x", "Bearer "] {
        let answer = ask(&gateway, "GET /app/x", &cookie, &[("Authorization", value)]);
        assert_eq!(answer.seen("authorization"), [value.trim()], "{value}");
        assert_eq!(ask(&gateway, "GET /app/x", "", &[("Authorization", value)]).status, 401, "{value}");
    }
    let forged = format!("Bearer {token}x");
    let answer = ask(&gateway, "GET /public/x", "", &[("Authorization", &forged)]);
    assert_eq!(answer.seen("authorization"), Vec::<String>::new());
}

#[test]
fn a_public_https_address_sends_plain_http_on_unless_a_trusted_proxy_says_https() {
    let mut gateway = Gateway::start(
        "public_url = \"https://app.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n",
    );
    let host = ("Host", "app.example.com");
    let sent_on = gateway.client().get("/x?y", &[host]);
    assert_eq!((sent_on.status, sent_on.field("location")), (308, Some("https://app.example.com/x?y")));
    let answer = gateway.client().get("/x?y", &[host, ("X-Forwarded-Proto", "https")]);
    assert_eq!((answer.status, answer.seen("x-forwarded-proto")), (200, vec!["https".to_owned()]));
    let path = gateway.invite.clone().unwrap();
    let body = json!({ "email": "ada@example.com", "password": crate::gateway::PASSWORD });
    let signed_in = gateway.client().post_json(&path, &[host, ("X-Forwarded-Proto", "https")], &body);
    let cookie = signed_in.all("set-cookie")[0].to_owned();
    assert!(cookie.starts_with("__Host-authgate="), "{cookie}");
    // the second may have turned since the session was made
    assert!(
        cookie.contains("; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=17279")
            || cookie.ends_with("; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=1728000"),
        "{cookie}"
    );
    // every host is where browsers find public_url: on its port
    gateway.reload("public_url = \"https://app.example.com:8443\"\ntrusted_proxies = [\"127.0.0.1\"]\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n");
    for host in ["app.example.com", "app.example.com:8080", "other.example.com:8080"] {
        let sent_on = gateway.client().get("/x?y", &[("Host", host)]);
        let name = host.split(':').next().unwrap();
        assert_eq!(sent_on.field("location"), Some(format!("https://{name}:8443/x?y").as_str()), "{host}");
    }
}
