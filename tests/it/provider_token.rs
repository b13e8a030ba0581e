//! `provider_token`: an app gets the token of the provider that a session began through, and no one else does.

use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::backend::{Backend, Received, ok};
use crate::client::Answer;
use crate::gateway::{Gateway, eventually, send};
use crate::h2::{ask, read, request, run};
use crate::provider::{ACCESS_TOKEN, CLIENT_ID, Provider, SECRET};
use crate::providers::{Browser, serve};
use crate::websockets::{HANDSHAKE, close_code, open};

const HEADER: &str = "X-Forwarded-Access-Token";

/// Gives refresh tokens, and access tokens that live so long.
fn start(expires_in: u64) -> Provider {
    let provider = Provider::start();
    {
        let mut refresh = provider.refresh.lock().unwrap();
        (refresh.is_offered, refresh.expires_in) = (true, Some(expires_in));
    }
    provider
}

fn live_for(provider: &Provider, secs: u64) {
    provider.refresh.lock().unwrap().expires_in = Some(secs);
}

fn exchanged(provider: &Provider) -> usize {
    provider.refresh.lock().unwrap().exchanged
}

/// Requests to the token endpoint.
fn asked(provider: &Provider) -> usize {
    provider.requests.lock().unwrap().iter().filter(|target| *target == "/token").count()
}

/// Upstream `app` gets a token, upstream `other` none.
fn rest(provider: &Provider, backend: &Backend, more: &str, token: &str) -> String {
    let address = backend.address;
    format!(
        "{}[[upstream]]\nname = \"app\"\nservers = [\"{address}\"]\nallow_headers = [\"x_forwarded_access_token\"]\n{token}\n\
         [[upstream]]\nname = \"other\"\nservers = [\"{address}\"]\nallow_headers = [\"x_forwarded_access_token\"]\n\
         [[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"app\"\ncookies = \"app\"\n\
         [[route]]\npath = \"/optional/**\"\naccess = \"optional\"\nupstream = \"app\"\n\
         [[route]]\npath = \"/other/**\"\nupstream = \"other\"\n\
         [[route]]\nupstream = \"app\"\n",
        provider.configured("corp", &format!("sign_up = \"open\"\n{more}"))
    )
}

fn of_kind(kind: &str, header: &str) -> String {
    format!("provider_token = {{ provider = \"corp\", kind = \"{kind}\", header = \"{header}\" }}")
}

fn with_token(provider: &Provider, backend: &Backend, more: &str) -> Gateway {
    serve(&rest(provider, backend, more, &of_kind("access", HEADER)))
}

fn again(folder: TempDir) -> Gateway {
    Gateway::serve_with(folder, &[("CLIENT_SECRET", SECRET)])
}

fn sign_in(gateway: &Gateway, provider: &Provider) -> Browser {
    let mut browser = Browser::default();
    let answer = browser.through(gateway, provider, "/.auth/oauth/corp");
    assert_eq!(answer.status, 303, "{answer:?}");
    browser
}

fn get(gateway: &Gateway, browser: &Browser, path: &str) -> Answer {
    gateway.client().get(path, &[("Cookie", &browser.cookies())])
}

/// What the app receives in the header.
fn sent(gateway: &Gateway, backend: &Backend, browser: &Browser, path: &str) -> Vec<String> {
    let answer = get(gateway, browser, path);
    assert_eq!(answer.status, 200, "{answer:?}");
    of(&backend.next(), HEADER)
}

fn of(received: &Received, name: &str) -> Vec<String> {
    let folded = |name: &str| name.to_lowercase().replace('_', "-");
    let fields = received.fields.iter().filter(|(own, _)| folded(own) == folded(name));
    fields.map(|(_, value)| value.clone()).collect()
}

fn rows(gateway: &Gateway) -> u32 {
    let db = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    db.query_row("SELECT count(*) FROM sealed_token", [], |row| row.get(0)).unwrap()
}

/// The details of the audit events of this name in a log.
fn details(log: &str, event: &str) -> Vec<String> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|line| line["event"] == event).map(|line| line["detail"].as_str().unwrap().to_owned()).collect()
}

/// Case 81.
#[test]
fn the_token_is_sent_where_a_sign_in_is_required_to_its_own_app_and_what_clients_send_is_removed_everywhere() {
    let (provider, backend) = (start(3600), Backend::start(ok));
    let gateway = with_token(&provider, &backend, "");
    let ada = sign_in(&gateway, &provider);
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let token = gateway.cli(&["token", "create", "ada@example.com", "--name", "script"]);
    let token = token.lines().find(|line| line.starts_with("agt_")).unwrap().trim().to_owned();
    let bearer = format!("Bearer {token}");
    let (ada, none) = (ada.cookies(), String::new());
    for (path, credential, expected) in [
        ("/x", ("Cookie", &ada), Some("access-token-0")),
        ("/optional/x", ("Cookie", &ada), None),
        ("/public/x", ("Cookie", &ada), None),
        ("/other/x", ("Cookie", &ada), None),
        ("/public/%2e%2e/x", ("Cookie", &ada), None),
        ("/optional/x", ("Cookie", &none), None),
        ("/public/x", ("Cookie", &none), None),
        ("/x", ("Cookie", &bob), None),
        ("/x", ("Authorization", &bearer), None),
    ] {
        let fields = [credential, (HEADER, &"evil".to_owned()), ("x_forwarded_access_token", &"evil".to_owned())];
        let fields = fields.map(|(name, value)| (name, value.as_str()));
        let answer = gateway.client().get(path, &fields);
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        let received = backend.next();
        assert_eq!(of(&received, HEADER), expected.into_iter().collect::<Vec<_>>(), "{path}: {received:?}");
        assert!(!format!("{received:?}").contains("evil"), "{path}: {received:?}");
    }
}

#[test]
fn as_authorization_it_has_the_scheme_and_replaces_what_the_client_sends_to_that_app_alone() {
    let (provider, backend) = (start(3600), Backend::start(ok));
    let gateway = serve(&rest(&provider, &backend, "", &of_kind("access", "Authorization")));
    let browser = sign_in(&gateway, &provider);
    let asked = |path: &str| {
        let fields = [("Cookie", &*browser.cookies()), ("Authorization", "Basic ZXZpbA==")];
        assert_eq!(gateway.client().get(path, &fields).status, 200);
        of(&backend.next(), "authorization")
    };
    assert_eq!(asked("/x"), ["Bearer access-token-0"]);
    assert_eq!(asked("/public/x"), Vec::<String>::new(), "the app must not take another's for the gateway's");
    assert_eq!(asked("/other/x"), ["Basic ZXZpbA=="], "the other app's own");
}

/// Case 79.
#[test]
fn fifty_requests_at_the_end_of_a_token_share_one_refresh_and_none_fails() {
    let (provider, backend) = (start(0), Backend::start(ok));
    let gateway = with_token(&provider, &backend, "");
    let browser = sign_in(&gateway, &provider);
    live_for(&provider, 3600);
    let cookies = browser.cookies();
    std::thread::scope(|scope| {
        for number in 0..50 {
            let (gateway, cookies) = (&gateway, &cookies);
            scope.spawn(move || {
                let answer = gateway.client().get(&format!("/{number}"), &[("Cookie", cookies)]);
                assert_eq!(answer.status, 200, "{answer:?}");
            });
        }
    });
    let received = backend.all();
    assert_eq!((received.len(), exchanged(&provider), asked(&provider)), (50, 1, 2));
    assert!(received.iter().all(|one| of(one, HEADER) == ["access-token-1"]), "{received:?}");
    assert_eq!(sent(&gateway, &backend, &browser, "/later"), ["access-token-1"]);
    assert_eq!(exchanged(&provider), 1);
}

/// Case 80. The provider has replaced the refresh token, and the gateway was killed before it could store the new one.
/// The person signs in again when the access token expires.
#[test]
fn after_a_crash_in_the_middle_of_a_refresh_the_used_token_is_not_sent_again() {
    let (provider, backend) = (start(0), Backend::start(ok));
    let gateway = with_token(&provider, &backend, "");
    let mut browser = sign_in(&gateway, &provider);
    let (began, has_begun) = channel::<()>();
    let (release, wait) = channel::<()>();
    *provider.on_refresh.lock().unwrap() = Some(Box::new(move || {
        began.send(()).unwrap();
        let _ = wait.recv();
    }));
    let mut client = gateway.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", browser.cookies()).as_bytes());
    has_begun.recv_timeout(Duration::from_secs(20)).unwrap();
    send(gateway.pid(), "KILL");
    let gateway = again(gateway.take_folder());
    drop(release);
    *provider.on_refresh.lock().unwrap() = None;
    assert!(browser.who(&gateway).is_some(), "the session itself goes on");
    let before = asked(&provider);
    let answer = browser.get(&gateway, "/x");
    assert_eq!(answer.status, 303, "{answer:?}");
    assert!(answer.field("location").unwrap().starts_with("/.auth/login?"), "{answer:?}");
    assert_eq!(asked(&provider), before, "the provider would take it for theft");
    assert!(browser.who(&gateway).is_none() && rows(&gateway) == 0);
    live_for(&provider, 3600);
    let browser = sign_in(&gateway, &provider);
    assert_eq!(sent(&gateway, &backend, &browser, "/x").len(), 1);
    assert_eq!(details(&gateway.into_log(), "provider_token_ended"), ["corp no_refresh_token"]);
}

/// Cases 77 and 78.
#[test]
fn no_page_answer_log_or_file_has_the_token() {
    let (provider, backend) = (start(3600), Backend::start(ok));
    let authjs = "[authjs]\nbase_path = \"/api/auth\"\n";
    let gateway = serve(&format!("{authjs}{}", rest(&provider, &backend, "", &of_kind("access", HEADER))));
    let mut browser = sign_in(&gateway, &provider);
    assert_eq!(sent(&gateway, &backend, &browser, "/x"), ["access-token-0"]);
    assert_eq!(rows(&gateway), 2);
    for path in ["/.auth/me", "/api/auth/session", "/.auth/account", "/.auth/jwks.json"] {
        let answer = browser.get(&gateway, path);
        assert!(answer.status == 200 && !answer.text().contains("access-token"), "{answer:?}");
    }
    let explained = gateway.cli(&["explain", "GET", "/x", "--user", "ada@example.com", "--json"]);
    let explained: Value = serde_json::from_str(&explained).unwrap();
    assert!(explained["upstream"]["headers"].as_array().unwrap().contains(&json!([HEADER, "***"])), "{explained}");
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap()]);
    let files = std::fs::read_dir(gateway.state()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.chain([backup]).filter(|path| path.is_file()).collect();
    let bytes: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("ada@example.com") && !holds("access-token") && !holds("refresh-token"));
    let log = gateway.into_log();
    assert!(!log.contains("access-token") && !log.contains("refresh-token"), "{log}");
}

#[test]
fn a_refused_refresh_ends_the_session_with_its_sockets_and_no_other() {
    let (provider, backend) = (start(0), Backend::start(ok));
    let whoami = "[[route]]\npath = \"/socket\"\nupstream = \"builtin:whoami\"\n";
    let gateway = serve(&format!("{whoami}{}", rest(&provider, &backend, "", &of_kind("access", HEADER))));
    let (mut gone, other) = (sign_in(&gateway, &provider), sign_in(&gateway, &provider));
    let mut socket = open(&gateway, "/socket", &gone.cookies());
    provider.refresh.lock().unwrap().current.remove("refresh-token-0");
    live_for(&provider, 3600);
    let answer = get(&gateway, &gone, "/x");
    assert_eq!((answer.status, answer.json()["error"].as_str()), (401, Some("signed_out")), "{answer:?}");
    assert_eq!(close_code(&mut socket), 4403);
    assert!(gone.get(&gateway, "/x").field("location").unwrap().starts_with("/.auth/login?"));
    assert_eq!(sent(&gateway, &backend, &other, "/x").len(), 1);
    assert_eq!(backend.all().len(), 0, "no request without a token");
    assert_eq!(details(&gateway.into_log(), "provider_token_ended"), ["corp invalid_grant"]);
}

#[test]
fn a_request_that_waits_is_not_forwarded_if_its_session_ends_meanwhile() {
    let (provider, backend) = (start(0), Backend::start(ok));
    let gateway = with_token(&provider, &backend, "");
    let browser = sign_in(&gateway, &provider);
    live_for(&provider, 3600);
    let (began, has_begun) = channel::<()>();
    let (release, wait) = channel::<()>();
    *provider.on_refresh.lock().unwrap() = Some(Box::new(move || {
        began.send(()).unwrap();
        let _ = wait.recv();
    }));
    let mut client = gateway.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", browser.cookies()).as_bytes());
    has_begun.recv_timeout(Duration::from_secs(20)).unwrap();
    gateway.cli(&["session", "revoke", "--all"]);
    drop(release);
    assert_eq!(client.answer().status, 401);
    assert_eq!((backend.all().len(), rows(&gateway), exchanged(&provider)), (0, 0, 1), "the new tokens are not kept");
}

/// Each answer is as bad as the last one: signing in again would lead round in a circle.
#[test]
fn tokens_that_have_expired_when_they_come_end_no_session() {
    let (provider, backend) = (start(0), Backend::start(ok));
    let gateway = with_token(&provider, &backend, "");
    let browser = sign_in(&gateway, &provider);
    assert_eq!(get(&gateway, &browser, "/").status, 503);
    assert!(browser.who(&gateway).is_some() && backend.all().is_empty());
}

/// An app must not take a request without a token for one of another person.
#[test]
fn a_provider_that_is_down_costs_nothing_before_the_token_expires_and_then_only_that_app() {
    let (provider, backend) = (start(6), Backend::start(ok));
    let gateway = with_token(&provider, &backend, "");
    let mut browser = sign_in(&gateway, &provider);
    provider.answer("/token", 503, "{}");
    assert_eq!(sent(&gateway, &backend, &browser, "/"), ["access-token-0"]);
    let mut refused = None;
    eventually("it has expired", || {
        let answer = get(&gateway, &browser, "/");
        if answer.status == 200 {
            assert_eq!(of(&backend.next(), HEADER), ["access-token-0"]);
        } else {
            refused = Some(answer);
        }
        refused.is_some()
    });
    let answer = refused.unwrap();
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("10")), "{answer:?}");
    let page = browser.get(&gateway, "/");
    assert!(page.status == 503 && page.text().contains("<html"), "{page:?}");
    assert_eq!(get(&gateway, &browser, "/other/x").status, 200);
    assert_eq!(get(&gateway, &browser, "/public/x").status, 200);
    let few = asked(&provider);
    assert!(few <= 3, "it is not asked for each request: {few}");
    provider.restore("/token");
    live_for(&provider, 3600);
    eventually("it is back", || get(&gateway, &browser, "/").status == 200);
    assert!(browser.who(&gateway).is_some());
    let log = gateway.into_log();
    assert!(log.contains("provider token could not be renewed") && log.contains("provider token"), "{log}");
}

/// GitHub: tokens that do not expire, and none to renew them with.
#[test]
fn a_token_that_does_not_expire_lasts_as_long_as_the_session_and_longer_than_the_process() {
    let (provider, backend) = (Provider::start(), Backend::start(ok));
    provider.answer("/user", 200, &json!({ "id": 7, "email": "ada@example.com", "verified": true }).to_string());
    let (issuer, address) = (&provider.issuer, backend.address);
    let gateway = serve(&format!(
        "[[provider]]\nname = \"hub\"\nkind = \"oauth2\"\nclient_id = \"{CLIENT_ID}\"\nclient_secret = {{ env = \
         \"CLIENT_SECRET\" }}\ntoken_auth = \"basic\"\nsign_up = \"open\"\nclaims = {{ email_verified = \"verified\" }}\n\
         endpoints = {{ authorize = \"{issuer}/authorize\", token = \"{issuer}/token\", userinfo = \"{issuer}/user\" }}\n\
         [[upstream]]\nname = \"app\"\nservers = [\"{address}\"]\nprovider_token = {{ provider = \"hub\", header = \
         \"{HEADER}\" }}\n[[route]]\nupstream = \"app\"\n"
    ));
    let mut browser = Browser::default();
    let started = browser.get(&gateway, "/.auth/oauth/hub");
    let callback = provider.agree_without_nonce(started.field("location").unwrap());
    assert_eq!(browser.get(&gateway, &callback).status, 303);
    assert_eq!((sent(&gateway, &backend, &browser, "/"), rows(&gateway)), (vec![ACCESS_TOKEN.to_owned()], 1));
    let gateway = again(gateway.into_folder());
    assert_eq!(sent(&gateway, &backend, &browser, "/"), [ACCESS_TOKEN]);
    assert_eq!(asked(&provider), 1);
}

#[test]
fn an_id_token_is_renewed_too_and_one_that_cannot_be_ends_the_session() {
    let (provider, backend) = (start(3600), Backend::start(ok));
    let gateway = serve(&rest(&provider, &backend, "", &of_kind("id", "X-Id-Token")));
    provider.claims(|claims| claims["exp"] = crate::provider::now().into());
    let browser = sign_in(&gateway, &provider);
    let first = provider.last_id_token();
    provider.claims(|_| {});
    assert_eq!(get(&gateway, &browser, "/").status, 200);
    let received = of(&backend.next(), "X-Id-Token");
    assert_eq!(received, [provider.last_id_token()]);
    assert_ne!(received, [first]);
    assert_eq!(exchanged(&provider), 1);
    provider.claims(|claims| claims["exp"] = crate::provider::now().into());
    let other = sign_in(&gateway, &provider);
    provider.answer("/token", 200, &json!({ "access_token": "a", "token_type": "Bearer" }).to_string());
    assert_eq!(get(&gateway, &other, "/").status, 401, "the refresh gave none");
    assert_eq!(details(&gateway.into_log(), "provider_token_ended"), ["corp no_new_token"]);
}

#[test]
fn sockets_streamed_bodies_and_clients_in_http2_get_it_too() {
    let (provider, backend) = (start(3600), Backend::start(ok));
    let trusted = "trusted_proxies = [\"127.0.0.1/32\"]\n";
    let gateway = serve(&format!("{trusted}{}", rest(&provider, &backend, "", &of_kind("access", HEADER))));
    let browser = sign_in(&gateway, &provider);
    let cookies = browser.cookies();
    let expected = ["access-token-0"];
    // the first one waits until the token is read
    let fields: Vec<_> = HANDSHAKE.iter().copied().chain([("Cookie", cookies.as_str())]).collect();
    gateway.client().request("GET /socket", &fields, b"");
    let received = backend.next();
    assert_eq!(
        (of(&received, HEADER), of(&received, "upgrade")),
        (expected.map(String::from).into(), vec!["websocket".into()])
    );
    let mut client = gateway.client();
    client.send(
        format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!((client.answer().status, of(&backend.next(), HEADER)), (200, expected.map(String::from).into()));
    let gateway = again(gateway.into_folder());
    for body in [&b""[..], &vec![b'x'; 200_000]] {
        let status = run(async {
            let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
            let (client, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let line = if body.is_empty() { "GET /x" } else { "POST /x" };
            let request = request(line, &[("cookie", &cookies), ("x-forwarded-access-token", "evil")]);
            read(ask(&client, request, body).await.unwrap()).await.unwrap().0
        });
        let received = backend.next();
        assert_eq!((status, of(&received, HEADER)), (200, expected.map(String::from).into()), "{received:?}");
    }
}

/// One refresh serves both: refresh tokens are good once.
#[test]
fn a_recheck_brings_new_tokens_and_new_tokens_count_as_a_recheck() {
    let (provider, backend) = (start(0), Backend::start(ok));
    let groups = "groups = { platform = \"ops\" }\n";
    let gateway = with_token(&provider, &backend, &format!("recheck = \"1h\"\n{groups}"));
    let browser = sign_in(&gateway, &provider);
    live_for(&provider, 3600);
    provider.claims(|claims| claims["groups"] = json!(["platform"]));
    assert_eq!(sent(&gateway, &backend, &browser, "/"), ["access-token-1"]);
    eventually("the groups", || get(&gateway, &browser, "/.auth/me").json()["groups"] == json!(["ops"]));
    assert_eq!(exchanged(&provider), 1);
    drop(gateway);
    let gateway = with_token(&provider, &backend, "recheck = \"5s\"\n");
    let browser = sign_in(&gateway, &provider);
    let first = sent(&gateway, &backend, &browser, "/");
    eventually("a recheck", || sent(&gateway, &backend, &browser, "/") != first);
    let log = gateway.into_log();
    assert_eq!(details(&log, "recheck_ended").len() + details(&log, "provider_token_ended").len(), 0, "{log}");
}

/// Nothing was kept for a session that began before anything asked for it.
#[test]
fn a_session_from_before_the_setting_signs_in_again_and_one_with_a_refresh_token_need_not() {
    let (provider, backend) = (start(3600), Backend::start(ok));
    let token = of_kind("access", "X-Corp-Token");
    let mut gateway = serve(&rest(&provider, &backend, "", ""));
    let before = sign_in(&gateway, &provider);
    let pass = |gateway: &Gateway, browser: &Browser| {
        let fields = [("Cookie", &*browser.cookies()), ("X-Corp-Token", "own")];
        assert_eq!(gateway.client().get("/x", &fields).status, 200);
        of(&backend.next(), "X-Corp-Token")
    };
    assert_eq!((rows(&gateway), pass(&gateway, &before)), (0, vec!["own".to_owned()]), "it is an ordinary header");
    gateway.reload(&rest(&provider, &backend, "", &token));
    assert_eq!(get(&gateway, &before, "/x").status, 401);
    let browser = sign_in(&gateway, &provider);
    assert_eq!(pass(&gateway, &browser), ["access-token-1"]);
    gateway.reload(&rest(&provider, &backend, "", ""));
    assert_eq!(pass(&gateway, &browser), ["own"]);
    gateway.reload(&rest(&provider, &backend, "recheck = \"1h\"\n", ""));
    let kept = sign_in(&gateway, &provider);
    gateway.reload(&rest(&provider, &backend, "recheck = \"1h\"\n", &token));
    assert_eq!(pass(&gateway, &kept), ["access-token-3"], "its refresh token was exchanged");
    assert_eq!(details(&gateway.into_log(), "provider_token_ended"), ["corp no_token"]);
}

#[test]
fn tokens_go_with_their_session_and_a_restored_backup_renews_none() {
    let (provider, backend) = (start(3600), Backend::start(ok));
    let gateway = with_token(&provider, &backend, "");
    let mut browser = sign_in(&gateway, &provider);
    assert_eq!((sent(&gateway, &backend, &browser, "/").len(), rows(&gateway)), (1, 2));
    browser.post(&gateway, "/.auth/logout", "");
    assert_eq!((rows(&gateway), browser.who(&gateway)), (0, None));
    sign_in(&gateway, &provider);
    gateway.cli(&["user", "disable", "ada@example.com"]);
    assert_eq!(rows(&gateway), 0);
    gateway.cli(&["user", "enable", "ada@example.com"]);
    let browser = sign_in(&gateway, &provider);
    assert_eq!(rows(&gateway), 2);
    let backup = gateway.folder().join("backup.db");
    gateway.cli(&["backup", backup.to_str().unwrap()]);
    let folder = gateway.into_folder();
    let gateway = again(folder);
    gateway.cli(&["restore", backup.to_str().unwrap()]);
    assert_eq!((rows(&gateway), browser.who(&gateway).is_some()), (0, true));
    let before = asked(&provider);
    assert_eq!(get(&gateway, &browser, "/").status, 401);
    assert_eq!(asked(&provider), before);
}

#[test]
fn check_warns_of_a_token_that_is_never_sent_or_cannot_be_renewed_or_has_the_name_of_another() {
    let warnings = |access: &str, offline: &str, header: &str| {
        let text = format!(
            "[[provider]]\nname = \"google\"\nkind = \"google\"\nclient_id = \"x\"\n{offline}\n\
             [[provider]]\nname = \"hub\"\nkind = \"github\"\nclient_id = \"x\"\n\
             [[upstream]]\nname = \"a\"\nservers = [\"127.0.0.1:1\"]\n\
             provider_token = {{ provider = \"google\", header = \"X-Token\" }}\n\
             [[upstream]]\nname = \"b\"\nservers = [\"127.0.0.1:2\"]\n\
             provider_token = {{ provider = \"hub\", header = \"{header}\" }}\n\
             [[route]]\npath = \"/a/**\"\nupstream = \"a\"\n{access}\n[[route]]\nupstream = \"b\"\n"
        );
        let config = authgate::config::parse(&text, "gateway.toml", std::path::PathBuf::new(), &|_| None);
        let config = config.unwrap_or_else(|faults| panic!("{}", faults.render(false)));
        config.warnings.list().iter().map(|warning| warning.what.clone()).collect::<Vec<_>>()
    };
    let offline = "params = { access_type = \"offline\", prompt = \"consent\" }";
    assert_eq!(warnings("", offline, "X-Other-Token"), Vec::<String>::new());
    assert_eq!(
        warnings("access = \"optional\"", offline, "X-Other-Token"),
        ["no route that requires sign-in leads to this upstream, so the token is never sent"]
    );
    assert_eq!(
        warnings("", "", "X-Other-Token"),
        ["this provider gives no refresh token, so sessions end when their first token expires"]
    );
    assert_eq!(warnings("", offline, "x-token"), ["another upstream gets a different token as `x-token`"]);
}
