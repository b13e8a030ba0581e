//! Each kind of caller gets a refusal that it understands. Senders: docs/http.md, "Denied requests".

use serde_json::json;

use crate::client::Answer;
use crate::gateway::Gateway;

const ROUTES: &str = r#"
[[route]]
path = "/status/**"
refuse = "status"
upstream = "builtin:whoami"
[[route]]
path = "/redirect/**"
refuse = "redirect"
upstream = "builtin:whoami"
[[route]]
path = "/staff/**"
groups = ["staff"]
upstream = "builtin:whoami"
[[route]]
path = "/app/**"
upstream = "builtin:whoami"
"#;

/// What Firefox sends where a service worker passes a navigation on.
const WORKER: &[(&str, &str)] = &[
    ("Sec-Fetch-Mode", "same-origin"),
    ("Sec-Fetch-Dest", "empty"),
    ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
    ("Upgrade-Insecure-Requests", "1"),
];

fn ask(gateway: &Gateway, line: &str, fields: &[(&str, &str)]) -> Answer {
    gateway.client().request(line, fields, b"")
}

fn login_link(page: &Answer) -> String {
    let text = page.text();
    let (_, rest) = text.split_once("<a class=\"button\" href=\"").expect("no link");
    rest.split('"').next().unwrap().replace("&#38;", "&")
}

#[test]
fn a_navigation_that_a_service_worker_passes_on_goes_to_the_login_page() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    for path in ["/app/x?y=z", "/redirect/x?y=z"] {
        let sent = ask(&gateway, &format!("GET {path}"), WORKER);
        let place = format!("/.auth/login?callbackUrl={path}");
        assert_eq!((sent.status, sent.field("location")), (303, Some(place.as_str())));
        assert_eq!(ask(&gateway, &format!("GET {path}"), &[WORKER, &[("Cookie", &cookie)]].concat()).status, 200);
    }
    // a script of the same page says neither
    for without in [2, 3] {
        let fields: Vec<_> = WORKER.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, f)| *f).collect();
        assert_eq!(ask(&gateway, "GET /app/x", &fields).json()["error"], "signed_out", "without {without}");
    }
    assert_eq!(ask(&gateway, "GET /status/x", WORKER).status, 401);
}

/// Chromium saves what it gets as the file: the login page would be a report.
#[test]
fn a_file_that_is_to_be_saved_is_refused_and_no_login_page_is_saved_in_its_place() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    let download = [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "empty"), ("Sec-Fetch-Site", "same-origin")];
    for path in ["/app/report.csv", "/staff/report.csv"] {
        let refused = ask(&gateway, &format!("GET {path}"), &download);
        assert_eq!((refused.status, refused.json()["error"].as_str()), (401, Some("signed_out")), "{path}");
    }
    assert_eq!(ask(&gateway, "GET /app/report.csv", &[&download[..], &[("Cookie", &cookie)]].concat()).status, 200);
    // a navigation that a service worker of Chromium passes on is for nothing, too, and accepts pages
    let page = [&download[..2], &[("Accept", "text/html,*/*;q=0.8")]].concat();
    assert_eq!(ask(&gateway, "GET /app/x", &page).status, 303);
    assert_eq!(
        ask(&gateway, "GET /app/x", &[("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]).status,
        303
    );
}

/// Over plain http nothing else tells them from a navigation.
#[test]
fn scripts_that_put_html_into_a_page_are_recognized_by_their_fields() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    let html = ("Accept", "text/html, */*");
    for script in [
        ("X-Requested-With", "XMLHttpRequest"),
        ("X-Requested-With", "swup"),
        ("X-PJAX", "true"),
        ("X-Alpine-Request", "true"),
        ("Datastar-Request", "true"),
    ] {
        assert_eq!(ask(&gateway, "GET /app/x", &[html, script]).json()["error"], "signed_out", "{script:?}");
        assert_eq!(ask(&gateway, "GET /app/x", &[html, script, ("Cookie", &cookie)]).status, 200);
    }
    // the window of an app on Android
    assert_eq!(ask(&gateway, "GET /app/x", &[html, ("X-Requested-With", "com.example.app")]).status, 303);
}

#[test]
fn a_grpc_call_is_a_post() {
    let gateway = Gateway::start(ROUTES);
    let fields = [("Content-Type", "application/grpc")];
    let call = ask(&gateway, "POST /app/x", &fields);
    assert_eq!((call.status, call.field("grpc-status")), (200, Some("16")));
    let other = ask(&gateway, "GET /app/x", &fields);
    assert_eq!((other.status, other.field("grpc-status")), (401, None));
}

#[test]
fn inside_a_frame_the_page_leads_to_the_login_in_the_whole_window() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    for dest in ["iframe", "frame", "embed", "object"] {
        let fields = [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", dest), ("Accept", "text/html")];
        let page = ask(&gateway, "GET /app/x?y=z", &fields);
        assert_eq!((page.status, page.field("location")), (401, None), "{dest}");
        assert!(page.text().contains("target=\"_top\""), "{}", page.text());
        assert_eq!(login_link(&page), "/.auth/login?callbackUrl=/app/x?y=z");
        // it may be framed, and holds nothing that a click on it could do
        assert_eq!(page.field("x-frame-options"), None);
        assert_eq!(
            page.all("content-security-policy"),
            ["default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'"]
        );
        assert!(!page.text().contains("<form"));
        assert_eq!(ask(&gateway, "GET /app/x", &[&fields[..], &[("Cookie", &cookie)]].concat()).status, 200);
    }
    // of our own pages none may be framed
    let login = ask(&gateway, "GET /.auth/login", &[("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")]);
    assert_eq!((login.status, login.field("x-frame-options")), (200, Some("DENY")));
    assert!(login.field("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
}

#[test]
fn htmx_is_sent_to_the_login_page_and_back_to_the_page_that_it_runs_on() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    let own = format!("http://{}/app/list?page=2", gateway.host());
    for (line, current, redirect) in [
        ("GET /app/rows", Some(own.as_str()), "/.auth/login?callbackUrl=/app/list?page=2"),
        ("POST /app/rows", Some(&own), "/.auth/login?callbackUrl=/app/list?page=2"),
        ("GET /redirect/rows", Some(&own), "/.auth/login?callbackUrl=/app/list?page=2"),
        ("GET /app/rows", None, "/.auth/login"),
        ("GET /app/rows", Some("https://evil.test/app/list"), "/.auth/login"),
        ("GET /app/rows", Some("javascript:alert(1)"), "/.auth/login"),
    ] {
        let mut fields = vec![("HX-Request", "true"), ("Sec-Fetch-Mode", "cors"), ("Accept", "*/*")];
        fields.extend(current.map(|url| ("HX-Current-URL", url)));
        let refused = ask(&gateway, line, &fields);
        assert_eq!((refused.status, refused.field("hx-redirect")), (401, Some(redirect)), "{line} {current:?}");
        assert_eq!(refused.json(), json!({ "error": "signed_out", "login": "/.auth/login" }));
        fields.push(("Cookie", &cookie));
        assert_eq!(ask(&gateway, line, &fields).status, 200);
    }
    let twice = [("HX-Request", "true"), ("HX-Current-URL", &own), ("HX-Current-URL", "https://evil.test/")];
    assert_eq!(ask(&gateway, "GET /app/rows", &twice).field("hx-redirect"), Some("/.auth/login"));
    assert_eq!(ask(&gateway, "GET /status/rows", &[("HX-Request", "true")]).field("hx-redirect"), None);
}

#[test]
fn turbo_gets_pages_that_it_can_show() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    let own = format!("http://{}/app/form", gateway.host());
    let turbo = |name| [(name, "x"), ("Sec-Fetch-Mode", "cors"), ("Accept", "text/html, application/xhtml+xml")];
    let form = [&turbo("X-Turbo-Request-Id")[..], &[("Referer", own.as_str())]].concat();
    let sent = ask(&gateway, "POST /app/form", &form);
    assert_eq!((sent.status, sent.field("content-type")), (401, Some("text/html; charset=utf-8")));
    assert!(sent.text().contains("the form was not sent"));
    assert!(!sent.text().contains("turbo-visit-control"));
    assert_eq!(login_link(&sent), "/.auth/login?callbackUrl=/app/form");
    let visit = ask(&gateway, "GET /app/x?y", &turbo("X-Turbo-Request-Id"));
    assert_eq!((visit.status, login_link(&visit)), (401, "/.auth/login?callbackUrl=/app/x?y".to_owned()));
    assert!(!visit.text().contains("form was not sent"));
    // nothing of the page is the frame's: Turbo opens the address itself, which is a navigation
    let frame = ask(&gateway, "GET /app/part", &turbo("Turbo-Frame"));
    assert!(frame.text().contains("<meta name=\"turbo-visit-control\" content=\"reload\">"), "{}", frame.text());
    // another answer than HTML is asked for: streams of JSON
    let json = [("Turbo-Frame", "x"), ("Sec-Fetch-Mode", "cors"), ("Accept", "application/json")];
    assert_eq!(ask(&gateway, "GET /app/part", &json).json()["error"], "signed_out");
    let signed_in = [&turbo("Turbo-Frame")[..], &[("Cookie", cookie.as_str())]].concat();
    assert_eq!(ask(&gateway, "GET /app/part", &signed_in).status, 200);
    assert!(ask(&gateway, "GET /staff/x", &signed_in).text().contains("<h1>Access denied</h1>"));
}

#[test]
fn what_a_browser_loads_before_it_is_asked_for_is_no_redirect_that_it_could_keep() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    for purpose in [
        ("Sec-Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("Sec-Purpose", "prefetch;anonymous-client-ip"),
        // older browsers
        ("Purpose", "prefetch"),
        ("X-Moz", "prefetch"),
        ("X-Purpose", "preview"),
    ] {
        for path in ["/app/x", "/redirect/x"] {
            let fields = [purpose, ("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];
            let refused = ask(&gateway, &format!("GET {path}"), &fields);
            assert_eq!((refused.status, refused.field("cache-control")), (401, Some("no-store")), "{purpose:?} {path}");
            let signed_in = [&fields[..], &[("Cookie", &cookie)]].concat();
            assert_eq!(ask(&gateway, &format!("GET {path}"), &signed_in).status, 200);
        }
    }
}

#[test]
fn a_refusal_names_every_field_that_decides_its_form() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    let page = [("Sec-Fetch-Mode", "navigate")];
    for (line, fields) in [
        ("GET /app/x", &[][..]),
        ("GET /app/x", &page),
        ("POST /app/x", &page),
        ("GET /staff/x", &[("Cookie", &cookie)]),
        ("GET /staff/x", &[("Cookie", &cookie), page[0]]),
        ("GET /nothing", &page),
        ("GET /nothing", &[]),
    ] {
        let refused = ask(&gateway, line, fields);
        let named = refused.all("vary").join(", ").to_ascii_lowercase();
        for field in [
            "cookie",
            "hx-request",
            "x-requested-with",
            "accept",
            "sec-fetch-mode",
            "sec-fetch-dest",
            "sec-purpose",
            "x-pjax",
            "purpose",
        ] {
            assert!(named.split(", ").any(|own| own == field), "{line}: {field} is not in {named}");
        }
    }
}

/// With it, Back to a form of the app would show it empty (Firefox) or not at all (WebKit).
#[test]
fn pages_in_an_apps_place_do_not_isolate_their_window_and_our_own_do() {
    let down = "[[route]]\npath = \"/down/**\"\nupstream = \"http://127.0.0.1:9\"\n[[route]]\npath = \"/small/**\"\nbody_max = \"1B\"\nupstream = \"builtin:whoami\"\n";
    let gateway = Gateway::start(&format!("{down}{ROUTES}"));
    let cookie = gateway.first_account();
    let origin = format!("http://{}", gateway.host());
    let fields = [("Sec-Fetch-Mode", "navigate"), ("Cookie", cookie.as_str()), ("Origin", &origin)];
    let foreign = [("Sec-Fetch-Mode", "navigate"), ("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "cross-site")];
    for (line, fields, body, status) in [
        ("POST /app/x", &fields[..1], &b""[..], 401),
        ("POST /staff/x", &fields, b"", 403),
        ("POST /app/x", &foreign, b"", 403),
        ("POST /small/x", &fields, b"more than one", 413),
        ("GET /down/x", &fields, b"", 502),
    ] {
        let page = gateway.client().request(line, fields, body);
        assert_eq!((page.status, page.field("cross-origin-opener-policy")), (status, None), "{line}");
        assert_eq!(page.field("x-frame-options"), Some("DENY"), "{line}");
    }
    for path in ["/.auth/login", "/.auth/account"] {
        let page = ask(&gateway, &format!("GET {path}"), &fields[..if path.ends_with("login") { 1 } else { 3 }]);
        assert_eq!((page.status, page.field("cross-origin-opener-policy")), (200, Some("same-origin")), "{path}");
    }
}

/// Kibana and Grafana keep what a page shows in its address.
#[test]
fn addresses_of_eight_kibibytes_are_returned_to_and_longer_ones_lose_their_query() {
    let gateway = Gateway::start(&format!("[limits]\nhead_bytes = \"32KiB\"\n{ROUTES}"));
    gateway.first_account();
    let navigation = [("Sec-Fetch-Mode", "navigate")];
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("email", "ada@example.com")
        .append_pair("password", crate::gateway::PASSWORD)
        .finish();
    for (target, shortened) in [
        (format!("/app/?q=(a:!t,b:'x')&{}", "y".repeat(4200)), false),
        (format!("/app/?{}", "%28a%29".repeat(343)), false),
        (format!("/app/?{}", "y".repeat(8192 - 6)), false),
        (format!("/app/?{}", "y".repeat(8192 - 5)), true),
    ] {
        let sent = ask(&gateway, &format!("GET {target}"), &navigation);
        let location = sent.field("location").unwrap().to_owned();
        let page = ask(&gateway, &format!("GET {location}"), &navigation);
        assert_eq!((sent.status, page.status), (303, 200), "{location}");
        assert_eq!(page.text().contains("too long to keep"), shortened, "{}", target.len());
        let back = if shortened { "/app/" } else { &target };
        // as the form is sent: a long place is in its address alone
        let text = page.text();
        let action = text.split("action=\"").nth(1).unwrap().split('"').next().unwrap();
        let action = action.replace("&#38;", "&").replace("&#39;", "'").replace("&amp;", "&");
        assert_eq!(text.contains("name=\"callbackUrl\""), back.len() <= 2048);
        let fields = [navigation[0], ("Origin", &format!("http://{}", gateway.host()))];
        let done = gateway.client().post_form(&action, &fields, &body);
        assert_eq!((done.status, done.field("location")), (303, Some(back)), "{}", target.len());
    }
}

/// qBittorrent compares the referrer with its own host.
#[test]
fn the_login_page_gives_other_hosts_nothing_as_referrer() {
    let gateway = Gateway::start(ROUTES);
    let page = ask(&gateway, "GET /.auth/login", &[("Accept", "text/html")]);
    assert_eq!(page.all("referrer-policy"), ["same-origin"]);
    let invite = ask(&gateway, &format!("GET {}", gateway.invite.clone().unwrap()), &[("Accept", "text/html")]);
    assert_eq!(invite.all("referrer-policy"), ["strict-origin"]);
}
