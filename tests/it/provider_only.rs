//! `[password] enabled = false`: providers are the only way in. `[pages] provider_first` and `login?provider=NAME`: the
//! login page leads to one of them at once.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::gateway::{Gateway, PASSWORD, command, eventually};
use crate::provider::{Provider, SECRET, now};
use crate::providers::{Browser, ROUTE, leads_to, serve};

const OFF: &str = "[password]\nenabled = false\n";
const FIRST: &str = "[password]\nenabled = false\n[pages]\nprovider_first = true\n";
const AUTHJS: &str = "[authjs]\nbase_path = \"/api/auth\"\n";
const SENTENCE: &str = "This site does not use passwords. Sign in through a provider.";

fn corp(provider: &Provider) -> String {
    format!("{}{ROUTE}", provider.configured("corp", "sign_up = \"open\"\n"))
}

fn post(gateway: &Gateway, path: &str, browser: &Browser, body: &Value) -> (u16, Value) {
    let answer = gateway.client().post_json(path, &[("Cookie", &browser.cookies())], body);
    let body = if answer.body.is_empty() { Value::Null } else { answer.json() };
    (answer.status, body)
}

/// The path of the link that a command printed.
fn path_of(said: &str) -> String {
    let at = said.find("/.auth/").unwrap_or_else(|| panic!("no link in {said}"));
    said[at..].split_whitespace().next().unwrap().to_owned()
}

/// Opens a link from a page of this host.
fn follow(browser: &mut Browser, gateway: &Gateway, path: &str) -> crate::client::Answer {
    let cookies = browser.cookies();
    let fields = [
        ("Cookie", cookies.as_str()),
        ("Accept", "text/html"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    let answer = gateway.client().get(path, &fields);
    browser.keep(&answer);
    answer
}

/// Hashes that were computed since the start.
fn hashed(gateway: &Gateway) -> u64 {
    gateway.metric("authgate_password_hash_seconds_count")
}

fn off() -> (u16, Value) {
    (403, json!({ "error": "passwords_off" }))
}

#[test]
fn without_passwords_no_entry_point_checks_or_sets_one_and_a_reload_brings_them_back() {
    let provider = Provider::start();
    let route = "[[route]]\npath = \"/app/**\"\nupstream = \"builtin:whoami\"\n";
    let on = format!("[sign_up]\nmode = \"open\"\n{}{route}", provider.configured("corp", ""));
    let mut gateway = serve(&on);
    let mut ada = Browser::default();
    ada.0.push(gateway.first_account().split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap());
    gateway.add_user("bob@example.com", &[]);
    let reset = path_of(&gateway.cli(&["user", "reset", "bob@example.com"]));
    let invite = path_of(&gateway.cli(&["invite", "--email", "eve@example.com"]));
    let token = json!({ "token_name": "x", "current_password": PASSWORD });
    assert_eq!(post(&gateway, "/.auth/account/tokens", &ada, &token).0, 201);
    gateway.reload(&format!("{OFF}{on}"));
    // counted a moment after the response
    eventually("the first account and one password", || hashed(&gateway) == 2);
    let before = 2;
    let nobody = Browser::default();
    let password = json!({ "email": "ada@example.com", "password": PASSWORD });
    let other = json!({ "current_password": PASSWORD, "password": "staple of a new kind" });
    for (path, browser, body) in [
        ("/.auth/login", &nobody, &password),
        ("/.auth/signup", &nobody, &json!({ "email": "new@example.com", "password": PASSWORD })),
        (reset.as_str(), &nobody, &password),
        (invite.as_str(), &nobody, &password),
        ("/.auth/account/password", &ada, &other),
    ] {
        assert_eq!(post(&gateway, path, browser, body), off(), "{path}");
    }
    let form = format!("email=ada%40example.com&password={}", PASSWORD.replace(' ', "+"));
    let plain = gateway.client().post_form("/.auth/login", &[("Accept", "text/html")], &form);
    assert!(plain.status == 403 && plain.text().contains(SENTENCE), "{plain:?}");
    let mut browser = Browser::default();
    let shown = browser.post(&gateway, "/.auth/login", &form);
    assert_eq!((shown.status, shown.field("location")), (303, Some("/.auth/login")), "{shown:?}");
    assert!(browser.get(&gateway, "/.auth/login").text().contains(SENTENCE));
    assert!(browser.who(&gateway).is_none());
    assert_eq!(hashed(&gateway), before, "nothing was hashed");
    for path in ["/.auth/login", "/.auth/signup", &reset, &invite, "/.auth/account"] {
        let page = ada.clone().get(&gateway, path);
        let page = if path == "/.auth/login" { Browser::default().get(&gateway, path) } else { page };
        assert!(!page.text().contains("type=\"password\""), "{path}: {}", page.text());
        assert!(page.text().contains("corp") || page.text().contains(SENTENCE), "{path}: {}", page.text());
    }
    assert_eq!(gateway.client().get("/.well-known/change-password", &[]).status, 404);
    assert_eq!(ada.who(&gateway).as_deref(), Some("ada@example.com"), "her session lives on");
    gateway.reload(&on);
    assert_eq!(post(&gateway, "/.auth/login", &nobody, &password).0, 200);
    assert_eq!(post(&gateway, "/.auth/account/password", &ada, &other).0, 200);
    assert_eq!(post(&gateway, &reset, &nobody, &password).0, 200);
    assert_eq!(post(&gateway, &invite, &nobody, &password).0, 200);
    assert_eq!(gateway.client().get("/.well-known/change-password", &[]).status, 303);
    assert!(Browser::default().get(&gateway, "/.auth/login").text().contains("type=\"password\""));
    assert!(hashed(&gateway) > before);
}

/// The first account, invites, API tokens: all that needs a password otherwise.
#[test]
fn people_without_a_password_do_by_a_recent_sign_in_what_others_do_by_their_password() {
    let provider = Provider::start();
    let hub = Provider::start();
    let with = [provider.configured("corp", ""), hub.configured("hub", "")].concat();
    let mut gateway = serve(&format!("{OFF}{with}{ROUTE}"));
    let signs_in = |subject: &'static str, email: &'static str, age: u64| {
        provider.claims(move |claims| {
            claims["sub"] = subject.into();
            claims["email"] = email.into();
            claims["auth_time"] = (now() - age).into();
        });
    };
    signs_in("ada", "ada@example.com", 0);
    let mut ada = Browser::default();
    let first = gateway.invite.clone().unwrap();
    let page = ada.get(&gateway, &first).text();
    assert!(page.contains("Choose how to sign in") && !page.contains("<p class=\"or\""), "{page}");
    let link = page.split("href=\"").find(|rest| rest.starts_with("/.auth/oauth/corp?invite=")).unwrap();
    let started = follow(&mut ada, &gateway, link.split('"').next().unwrap());
    assert_eq!(ada.get(&gateway, &provider.agree(started.field("location").unwrap())).status, 303);
    let me = gateway.client().get("/.auth/me", &[("Cookie", &ada.cookies())]).json();
    assert_eq!((me["email"].as_str(), me["groups"][0].as_str()), (Some("ada@example.com"), Some("admin")));
    // with passwords and without, because her account has none
    for config in [format!("{with}{ROUTE}"), format!("{OFF}{with}{ROUTE}")] {
        gateway.reload(&config);
        let page = ada.get(&gateway, "/.auth/account").text();
        assert!(!page.contains("type=\"password\"") && page.contains("Create token"), "{page}");
        let (status, made) = post(&gateway, "/.auth/account/tokens", &ada, &json!({ "token_name": "x" }));
        assert_eq!(status, 201, "{made}");
        let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
        assert_eq!(gateway.client().get("/", &[("Authorization", &bearer)]).status, 200);
        assert!(leads_to(&ada.post(&gateway, "/.auth/account/link/hub", "").text()).starts_with(&hub.issuer));
    }
    // too long ago
    signs_in("ada", "ada@example.com", 601);
    let mut late = Browser::default();
    assert_eq!(late.through(&gateway, &provider, "/.auth/oauth/corp").status, 303);
    let page = late.get(&gateway, "/.auth/account").text();
    assert!(page.contains("sign in again first") && page.contains("/.auth/oauth/corp?fresh=1"), "{page}");
    assert!(!page.contains("Create token") && !page.contains("/link/hub") && !page.contains("/unlink"), "{page}");
    assert_eq!(post(&gateway, "/.auth/account/tokens", &late, &json!({ "token_name": "x" })), off());
    assert_eq!(post(&gateway, "/.auth/account/link/hub", &late, &json!({})), off());
    // the last way in stays, although the account may have had a password before
    let bob = json!({ "provider": "corp", "subject": "ada" });
    assert_eq!(post(&gateway, "/.auth/account/unlink", &ada, &bob).0, 409);
}

#[test]
fn a_password_without_an_identity_is_no_way_in_until_a_link_adds_one() {
    let provider = Provider::start();
    let mut gateway = serve(&corp(&provider));
    gateway.first_account();
    let check = |gateway: &Gateway| {
        let output = command(gateway.folder(), &["check", "--json"]).env("CLIENT_SECRET", SECRET).output().unwrap();
        let stranded = serde_json::from_slice::<Value>(&output.stdout).unwrap()["stranded_accounts"].clone();
        (stranded, String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(&gateway), (json!([]), String::new()));
    provider.claims(|claims| {
        claims["sub"] = "ada-1".into();
        claims["auth_time"] = now().into();
    });
    let mut browser = Browser::default();
    let page = browser.through(&gateway, &provider, "/.auth/oauth/corp").text();
    let pending = page.split("name=\"pending\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let asked = format!("pending={pending}&password={}", PASSWORD.replace(' ', "+"));
    gateway.reload(&format!("{OFF}{}", corp(&provider)));
    let (stranded, said) = check(&gateway);
    assert_eq!(stranded, json!([{ "provider": null, "accounts": 1 }]));
    assert!(said.contains("1 account has only a password, and passwords are off"), "{said}");
    assert!(gateway.cli(&["user", "list"]).contains("no sign-in"));
    let refused = browser.post(&gateway, "/.auth/oauth/link", &asked);
    assert!(refused.status == 403 && refused.text().contains(SENTENCE), "{refused:?}");
    let page = browser.through(&gateway, &provider, "/.auth/oauth/corp").text();
    assert!(page.contains("Ask the site administrator") && !page.contains("type=\"password\""), "{page}");
    assert!(browser.who(&gateway).is_none());
    let output = gateway.cli_with(&["user", "reset", "ada@example.com"], "");
    let (out, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(said.contains("adds a sign-in through a provider (passwords are off)"), "{said}");
    let token = path_of(&out).rsplit('/').next().unwrap().to_owned();
    let started = follow(&mut browser, &gateway, &format!("/.auth/oauth/corp?invite={token}"));
    assert_eq!(browser.get(&gateway, &provider.agree(started.field("location").unwrap())).status, 303);
    assert_eq!(browser.who(&gateway).as_deref(), Some("ada@example.com"));
    assert!(gateway.cli(&["user", "list"]).contains("active"));
    // the password does not count as another way in
    assert_eq!(gateway.cli_with(&["user", "unlink", "ada@example.com", "corp"], "").status.code(), Some(1));
    let unlink = json!({ "provider": "corp", "subject": "ada-1" });
    assert_eq!(post(&gateway, "/.auth/account/unlink", &browser, &unlink).0, 409);
    gateway.reload(&corp(&provider));
    assert_eq!(post(&gateway, "/.auth/account/unlink", &browser, &unlink).0, 204);
}

#[test]
fn commands_set_passwords_and_say_that_they_are_off() {
    let provider = Provider::start();
    let gateway = serve(&format!("{OFF}{}", corp(&provider)));
    let run = |arguments: &[&str]| {
        let output = gateway.cli_with(arguments, PASSWORD);
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let line = "Passwords are off ([password] enabled = false)";
    assert!(run(&["user", "add", "ada@example.com", "--password-stdin"]).contains(line));
    assert!(run(&["user", "set", "ada@example.com", "--password-stdin"]).contains(line));
    assert!(!run(&["user", "set", "ada@example.com", "--name", "Ada"]).contains(line));
    let said = run(&["user", "add", "bob@example.com"]);
    assert!(said.contains("This link adds a sign-in through a provider (passwords are off)."), "{said}");
    let shown = gateway.cli(&["user", "show", "ada@example.com"]);
    assert!(shown.contains("state     no sign-in"), "{shown}");
}

/// next-auth's clients read the list of providers and post to what it names.
#[test]
fn authjs_clients_are_not_offered_credentials_and_posting_them_is_an_unknown_action() {
    let provider = Provider::start();
    let rest = format!("{AUTHJS}{}", corp(&provider));
    let mut gateway = serve(&rest);
    gateway.first_account();
    let providers = |gateway: &Gateway| {
        let list = gateway.client().get("/api/auth/providers", &[]).json();
        list.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let sign_in = |gateway: &Gateway, path: &str, more: &str| {
        let csrf = gateway.client().get("/api/auth/csrf", &[]);
        let cookie = csrf.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let token = csrf.json()["csrfToken"].as_str().unwrap().to_owned();
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("email", "ada@example.com"), ("password", PASSWORD), ("csrfToken", token.as_str())])
            .finish();
        let fields = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "same-origin")];
        let answer = gateway.client().post_form(&format!("/api/auth/{path}"), &fields, &format!("{form}{more}"));
        (answer.status, answer.json(), answer.all("set-cookie").len())
    };
    assert_eq!(providers(&gateway), ["credentials", "corp"]);
    assert_eq!(sign_in(&gateway, "callback/credentials", "&json=true").0, 200);
    gateway.reload(&format!("{OFF}{rest}"));
    assert_eq!(providers(&gateway), ["corp"]);
    // counted a moment after the response
    eventually("the first account and one password", || hashed(&gateway) == 2);
    let before = 2;
    for path in ["callback", "signin"] {
        let refused = sign_in(&gateway, &format!("{path}/credentials"), "&json=true");
        assert_eq!(refused, sign_in(&gateway, &format!("{path}/unknown"), "&json=true"), "{path}");
        assert_eq!(refused.2, 0, "no cookie");
    }
    assert_eq!(hashed(&gateway), before);
    gateway.reload(&rest);
    assert_eq!(sign_in(&gateway, "callback/credentials", "&json=true").0, 200);
}

#[test]
fn the_login_page_leads_to_the_only_provider_at_once_and_keeps_the_way_back() {
    let provider = Provider::start();
    let rest = format!("{AUTHJS}{}", corp(&provider));
    let mut gateway = serve(&format!("{FIRST}{rest}"));
    let mut browser = Browser::default();
    let refused = browser.get(&gateway, "/app?a=b");
    let page = refused.field("location").unwrap().to_owned();
    assert_eq!(browser.get(&gateway, &page).field("location"), Some("/.auth/oauth/corp?callbackUrl=/app?a=b"));
    let location = |path: &str| Browser::default().get(&gateway, path).field("location").map(str::to_owned);
    assert_eq!(location("/.auth/login").as_deref(), Some("/.auth/oauth/corp"));
    let hinted = "/.auth/login?rd=/x%26y&login_hint=a%40b&redirect_uri=z";
    assert_eq!(location(hinted).as_deref(), Some("/.auth/oauth/corp?callbackUrl=/x%26y&login_hint=a%40b"));
    assert_eq!(location("/.auth/login?callbackUrl=//evil.example").as_deref(), Some("/.auth/oauth/corp?callbackUrl=/"));
    let signin = location("/api/auth/signin?callbackUrl=/app").unwrap();
    assert_eq!(location(&signin).as_deref(), Some("/.auth/oauth/corp?callbackUrl=/app"));
    let back = browser.through(&gateway, &provider, "/.auth/oauth/corp?callbackUrl=/app%3Fa=b");
    assert_eq!(back.field("location"), Some("/app?a=b"));
    assert_eq!(browser.get(&gateway, "/.auth/login?callbackUrl=/app").field("location"), Some("/app"), "signed in");
    // people have to read these
    let error = location("/api/auth/error?error=OAuthCallback").unwrap();
    for (path, said) in [
        ("/.auth/login?error=OAuthSignin", "cannot be reached right now"),
        (error.as_str(), "could not be accepted"),
        ("/.auth/login?shortened=1&callbackUrl=/app", "too long to keep"),
    ] {
        let page = Browser::default().get(&gateway, path);
        assert!(page.status == 200 && page.text().contains(said) && page.text().contains("Continue with"), "{page:?}");
    }
    // a provider that is down: an error on the page, not a circle
    provider.answer("/.well-known/openid-configuration", 500, "{}");
    gateway.reload(&format!("{FIRST}{AUTHJS}{ROUTE}{}", provider.configured("other", "")));
    let mut unlucky = Browser::default();
    let started = unlucky.get(&gateway, unlucky.clone().get(&gateway, "/.auth/login").field("location").unwrap());
    assert_eq!(started.field("location"), Some("/.auth/login?error=OAuthSignin"));
    assert_eq!(unlucky.get(&gateway, "/.auth/login?error=OAuthSignin").status, 200);
    gateway.reload(&format!("{OFF}{rest}"));
    assert_eq!(Browser::default().get(&gateway, "/.auth/login").status, 200, "a reload brings the page back");
}

/// The provider would sign them in again without a question.
#[test]
fn nobody_is_signed_in_again_by_signing_out() {
    let provider = Provider::start();
    let gateway = serve(&format!("{FIRST}{AUTHJS}{}", corp(&provider)));
    let signed_in = || {
        let mut browser = Browser::default();
        assert_eq!(browser.through(&gateway, &provider, "/.auth/oauth/corp").status, 303);
        browser
    };
    let shows_the_page = |browser: &mut Browser, how: &str| {
        let refused = browser.get(&gateway, "/app");
        let page = browser.get(&gateway, refused.field("location").unwrap());
        assert!(page.status == 200 && page.text().contains("Continue with"), "{how}: {page:?}");
    };
    let mut browser = signed_in();
    let out = browser.post(&gateway, "/.auth/logout", "");
    assert_eq!(out.field("location"), Some("/.auth/signed-out"));
    let page = browser.get(&gateway, "/.auth/signed-out");
    // a click on its button is a decision
    assert!(page.status == 200 && page.text().contains("href=\"/.auth/oauth/corp\""), "{page:?}");
    shows_the_page(&mut browser, "Back, or an app's link");
    assert_eq!(browser.through(&gateway, &provider, "/.auth/oauth/corp").status, 303);
    // pages that sign out by a script and go on by themselves
    let mut browser = signed_in();
    let answer = gateway.client().post_json("/.auth/logout", &[("Cookie", &browser.cookies())], &json!({}));
    assert_eq!(answer.status, 204);
    browser.keep(&answer);
    shows_the_page(&mut browser, "JSON");
    let mut browser = signed_in();
    let csrf = gateway.client().get("/api/auth/csrf", &[]);
    browser.keep(&csrf);
    let form = format!("csrfToken={}&callbackUrl=/app&json=true", csrf.json()["csrfToken"].as_str().unwrap());
    let answer = browser.post(&gateway, "/api/auth/signout", &form);
    assert_eq!(answer.json(), json!({ "url": format!("http://{}/app", gateway.host()) }));
    shows_the_page(&mut browser, "next-auth");
    let mut browser = signed_in();
    browser.post(&gateway, "/.auth/account/sessions", "everywhere=1");
    shows_the_page(&mut browser, "everywhere");
    let seen = gateway.client().get("/", &[("Cookie", &format!("{}; app=1", signed_in().cookies()))]).text();
    assert!(seen.contains("app=1") && !seen.contains("signed-out"), "{seen}");
}

/// The browser comes back from the provider's site, which looks as if it came from elsewhere.
#[test]
fn a_browser_that_loses_the_cookie_sees_the_cause_and_does_not_go_in_circles() {
    let provider = Provider::start();
    let gateway = serve(&format!("{FIRST}{}", corp(&provider)));
    let mut browser = Browser::default();
    let done = browser.through(&gateway, &provider, "/.auth/oauth/corp?callbackUrl=/app");
    assert_eq!(done.field("location"), Some("/app"));
    let mut without = Browser(browser.0.iter().filter(|(name, _)| name != "authgate").cloned().collect());
    let page = without.get(&gateway, "/.auth/login?callbackUrl=/app");
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.text().contains("your browser did not keep you signed in"), "{}", page.text());
    // the twin: it was kept
    assert_eq!(browser.who(&gateway).as_deref(), Some("ada@example.com"));
    let start = without.get(&gateway, "/.auth/login?callbackUrl=/app");
    assert_eq!(start.field("location"), Some("/.auth/oauth/corp?callbackUrl=/app"));
}

#[test]
fn a_link_to_the_login_page_may_name_the_provider_beside_passwords_and_others() {
    let (provider, hub) = (Provider::start(), Provider::start());
    let two = [provider.configured("corp", "sign_up = \"open\"\n"), hub.configured("hub", "")].concat();
    let gateway = serve(&format!("{two}{ROUTE}"));
    let ask = |path: &str| Browser::default().get(&gateway, path);
    let mut browser = Browser::default();
    let start = browser.get(&gateway, "/.auth/login?provider=hub&callbackUrl=/app%23part");
    assert_eq!(start.field("location"), Some("/.auth/oauth/hub?callbackUrl=/app%23part"));
    let there = browser.get(&gateway, start.field("location").unwrap());
    let query = there.field("location").unwrap().split_once('?').unwrap().1.to_owned();
    let params: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    assert!(there.field("location").unwrap().starts_with(&hub.issuer) && params.contains_key("state"), "{there:?}");
    for path in ["?provider=unknown&callbackUrl=/app", "?provider=corp&error=OAuthSignin", "?callbackUrl=/app"] {
        let page = ask(&format!("/.auth/login{path}"));
        assert!(page.status == 200 && page.text().contains("type=\"password\""), "{path}: {page:?}");
    }
    let mut known = Browser::default();
    assert_eq!(known.through(&gateway, &provider, "/.auth/oauth/corp").status, 303);
    assert_eq!(known.get(&gateway, "/.auth/login?provider=corp&callbackUrl=/app").field("location"), Some("/app"));
}

/// docs/oauth2-proxy.md
#[test]
fn an_application_that_was_registered_for_oauth2_proxy_keeps_its_redirect_uri_and_headers() {
    let provider = Provider::start();
    let table = provider.configured(
        "corp",
        "callback = \"/oauth2/callback\"\nallow = { domains = [\"example.com\"] }\nsign_up = \"open\"\n",
    );
    let upstream = "[[upstream]]\nname = \"app\"\nservers = [\"builtin:whoami\"]\nidentity = \"x-forwarded\"\n[[route]]\nupstream = \"app\"\n";
    let gateway = serve(&format!("{FIRST}{table}{upstream}"));
    let mut browser = Browser::default();
    let mut answer = browser.get(&gateway, "/app?x=1");
    for _ in 0..2 {
        answer = browser.get(&gateway, answer.field("location").unwrap());
    }
    let callback = provider.agree(answer.field("location").unwrap());
    assert!(callback.starts_with("/oauth2/callback?"), "{callback}");
    assert_eq!(browser.get(&gateway, &callback).field("location"), Some("/app?x=1"));
    let seen = browser.get(&gateway, "/app?x=1").text().to_lowercase();
    assert!(seen.contains("x-forwarded-user") && seen.contains("ada@example.com"), "{seen}");
    // an address that is not allowed
    provider.person("eve-1", "eve@example.org", true);
    let mut other = Browser::default();
    assert_eq!(other.through(&gateway, &provider, "/.auth/oauth/corp").status, 403);
    assert_eq!(other.who(&gateway), None);
}
