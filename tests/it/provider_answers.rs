//! How providers answer, and how they do not: answers that browsers post, a provider that hangs, and what a session that is
//! not fresh may not do.

use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc;

use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD};
use crate::provider::{CLIENT_ID, Provider, SECRET};
use crate::providers::{Browser, ROUTE, serve, with_provider};

const FORM_POST: &str = "params = { response_mode = \"form_post\" }\nsign_up = \"open\"\n";

/// What a browser sends after the provider's page has posted its form: no cookie, and another origin.
fn posted(gateway: &Gateway, path: &str, form: &str) -> Answer {
    let fields = [
        ("Accept", "text/html"),
        ("Origin", "https://id.example.com"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Site", "cross-site"),
    ];
    gateway.client().post_form(path, &fields, form)
}

#[test]
fn an_answer_that_is_posted_from_the_providers_page_becomes_a_request_with_the_browsers_cookies() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, FORM_POST);
    provider.person("grace-1", "grace@example.com", true);
    let mut browser = Browser::default();
    let started = browser.get(&gateway, "/.auth/oauth/corp?callbackUrl=/app");
    let url = started.field("location").unwrap();
    assert!(url.contains("response_mode=form_post"), "{url}");
    let callback = provider.agree(url);
    let (path, form) = callback.split_once('?').unwrap();
    let answer =
        posted(&gateway, path, &format!("{form}&user=%7B%7D&session_state=x&callbackUrl=https://evil.example.com"));
    assert_eq!((answer.status, answer.all("set-cookie").len()), (303, 0), "{answer:?}");
    let location = answer.field("location").unwrap();
    let names: Vec<&str> =
        location.split_once('?').unwrap().1.split('&').map(|pair| pair.split('=').next().unwrap()).collect();
    assert_eq!((location.split('?').next(), names), (Some(path), vec!["code", "state", "iss", "user"]));
    assert!(
        provider.requests.lock().unwrap().iter().all(|target| target != "/token"),
        "the form itself signs no one in"
    );
    assert_eq!(Browser::default().get(&gateway, location).status, 400, "nor does its request in another browser");
    assert_eq!(browser.get(&gateway, location).field("location"), Some("/app"));
    assert_eq!(browser.who(&gateway).as_deref(), Some("grace@example.com"));
}

/// What is no such answer.
#[test]
fn a_form_at_a_redirect_uri_is_small_plain_and_only_where_the_provider_is_to_post() {
    let provider = Provider::start();
    let gateway = serve(&format!(
        "[authjs]\nbase_path = \"/api/auth\"\n{}{}{ROUTE}",
        provider.configured("corp", FORM_POST),
        provider.configured("other", "")
    ));
    let path = "/api/auth/callback/corp";
    let [small, large] = [7 << 10, 9 << 10].map(|length| format!("code={}", "c".repeat(length)));
    assert_eq!(posted(&gateway, path, &small).status, 303);
    assert_eq!(posted(&gateway, path, &large).status, 413);
    assert_eq!(posted(&gateway, path, "code=a&code=b").status, 400);
    let json =
        gateway.client().request(&format!("POST {path}"), &[("Content-Type", "application/json")], b"{\"code\":\"a\"}");
    assert_eq!(json.status, 415);
    let refused = posted(&gateway, "/api/auth/callback/other", "code=a");
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET")));
    for elsewhere in ["/.auth/login", "/api/auth/signout", "/.auth/oauth/link"] {
        assert_eq!(posted(&gateway, elsewhere, "code=a").status, 403, "{elsewhere}");
    }
}

/// A provider that takes connections and says nothing. Proxied requests and passwords do not wait for it: all of
/// them are answered before any of the sign-ins that wait is.
#[test]
fn a_provider_that_hangs_holds_up_its_own_sign_ins_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (connected, connections) = mpsc::channel();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = connected.send(stream);
        }
    });
    let gateway = serve(&format!(
        "[[provider]]\nname = \"slow\"\nkind = \"oidc\"\nclient_id = \"{CLIENT_ID}\"\nissuer = \"http://{address}\"\n{ROUTE}"
    ));
    let cookie = gateway.first_account();
    std::thread::scope(|scope| {
        let starts: Vec<_> =
            (0..16).map(|_| scope.spawn(|| Browser::default().get(&gateway, "/.auth/oauth/slow"))).collect();
        let mut held = connections.recv().unwrap();
        assert!(held.read(&mut [0; 64]).unwrap() > 0, "it is asked");
        let mut client = gateway.client();
        for _ in 0..200 {
            assert_eq!(client.get("/", &[("Cookie", &cookie)]).status, 200);
        }
        assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 200);
        assert!(starts.iter().all(|start| !start.is_finished()), "a sign-in ended while the provider was silent");
        assert!(connections.try_recv().is_err(), "all of them wait for one answer");
        drop(held);
        for start in starts {
            let answer = start.join().unwrap();
            assert_eq!(answer.field("location"), Some("/.auth/login?error=OAuthSignin"), "{answer:?}");
        }
    });
}

/// A stolen session must not plant a way back in.
#[test]
fn links_are_changed_by_a_fresh_sign_in_or_the_password_alone() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "");
    gateway.first_account();
    gateway.cli(&["user", "link", "ada@example.com", "corp", "ada-at-corp"]);
    let cookie = gateway.sign_in("ada@example.com");
    let fields = [("Cookie", cookie.as_str()), ("Accept", "text/html")];
    let fresh = gateway.client().post_form("/.auth/account/link/corp", &fields, "");
    assert_eq!(fresh.status, 200, "a fresh session needs no more: {fresh:?}");
    let folder = gateway.into_folder();
    let database = rusqlite::Connection::open(folder.path().join("state/authgate.db")).unwrap();
    database.execute_batch("UPDATE session SET created = created - 601, authenticated = authenticated - 601").unwrap();
    drop(database);
    let gateway = Gateway::serve_with(folder, &[("CLIENT_SECRET", SECRET)]);
    let post = |path: &str, form: &str| gateway.client().post_form(path, &fields, form);
    let unlink = "provider=corp&subject=ada-at-corp";
    let asked = |path: &str, form: &str| {
        let answer = post(path, form);
        assert!((400..500).contains(&answer.status) && answer.field("location").is_none(), "{path} {answer:?}");
        assert!(!answer.text().contains("http-equiv=\"refresh\""), "{path} {}", answer.text());
    };
    asked("/.auth/account/link/corp", "");
    asked("/.auth/account/link/corp", "current_password=wrong");
    asked("/.auth/account/unlink", unlink);
    assert!(gateway.cli(&["user", "show", "ada@example.com"]).contains("corp ada-at-corp"));
    let password = format!("current_password={}", PASSWORD.replace(' ', "+"));
    assert_eq!(post("/.auth/account/link/corp", &password).status, 200);
    assert_eq!(post("/.auth/account/unlink", &format!("{unlink}&{password}")).status, 303);
    assert!(!gateway.cli(&["user", "show", "ada@example.com"]).contains("corp ada-at-corp"));
}
