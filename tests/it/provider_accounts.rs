//! What a sign-in through a provider may do to accounts, and what other sites, old sign-ins and old rules must not.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD, command, configured};
use crate::identities::ACCOUNTS;
use crate::import::{PRISMA, hash};
use crate::provider::{CLIENT_ID, Provider, SECRET};
use crate::providers::{Browser, ROUTE, leads_to, serve};

fn get_from(browser: &mut Browser, gateway: &Gateway, site: &str, path: &str) -> Answer {
    let cookies = browser.cookies();
    let fields = [("Cookie", cookies.as_str()), ("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")];
    let answer = match site {
        "" => gateway.client().get(path, &fields),
        _ => gateway.client().get(path, &[&fields[..], &[("Sec-Fetch-Site", site)]].concat()),
    };
    browser.keep(&answer);
    answer
}

fn invite(gateway: &Gateway, email: &str) -> String {
    let said = gateway.cli(&["invite", "--email", email]);
    said.split("/.auth/invite/").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn sign_in_by_password(gateway: &Gateway, email: &str) -> Browser {
    let mut browser = Browser::default();
    let form = format!("email={}&password={}", email.replace('@', "%40"), PASSWORD.replace(' ', "+"));
    assert_eq!(browser.post(gateway, "/.auth/login", &form).status, 303);
    browser
}

/// Another site could put a person's identity on an account of its own choice (login CSRF; RFC 9700, 4.7).
#[test]
fn an_invite_is_accepted_through_a_provider_from_its_own_page_alone() {
    let provider = Provider::start();
    let gateway = serve(&format!("{}{ROUTE}", provider.configured("corp", "sign_up = \"invite\"\n")));
    gateway.first_account();
    provider.person("vic-1", "vic@example.com", true);
    let token = invite(&gateway, "eve@example.com");
    let start = format!("/.auth/oauth/corp?invite={token}");
    for site in ["cross-site", "same-site", "none", ""] {
        let answer = get_from(&mut Browser::default(), &gateway, site, &start);
        let page = format!("/.auth/invite/{token}");
        assert_eq!((answer.status, answer.field("location")), (303, Some(page.as_str())), "{site}");
    }
    assert_eq!(get_from(&mut Browser::default(), &gateway, "", "/.auth/oauth/corp?invite=a%0d%0ab").status, 404);
    // who is signed in to another account keeps it
    let mut ada = sign_in_by_password(&gateway, "ada@example.com");
    let started = get_from(&mut ada, &gateway, "same-origin", &start);
    let refused = ada.get(&gateway, &provider.agree(started.field("location").unwrap()));
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("You are signed in to another account."), "{}", refused.text());
    assert_eq!(ada.who(&gateway).as_deref(), Some("ada@example.com"));
    // from the page of the invite, signed out
    let mut invited = Browser::default();
    let started = get_from(&mut invited, &gateway, "same-origin", &start);
    let done = invited.get(&gateway, &provider.agree(started.field("location").unwrap()));
    assert_eq!(done.status, 303, "{done:?}");
    assert_eq!(invited.who(&gateway).as_deref(), Some("eve@example.com"));
}

/// OWASP ASVS 5.0, 7.5.1: single sign-on that asks the person nothing proves nothing new.
#[test]
fn a_session_is_as_fresh_as_the_sign_in_at_the_provider() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (provider, hub) = (Provider::start(), Provider::start());
    let two = [provider.configured("corp", "sign_up = \"open\"\n"), hub.configured("hub", "")].concat();
    let gateway = serve(&format!("{two}{ROUTE}"));
    let began = now();
    provider.claims(move |claims| {
        claims["email"] = "grace@example.com".into();
        claims["email_verified"] = true.into();
        claims["auth_time"] = (began - 30 * 86_400).into();
    });
    let mut browser = Browser::default();
    assert_eq!(browser.through(&gateway, &provider, "/.auth/oauth/corp").status, 303);
    let asked = browser.post(&gateway, "/.auth/account/link/hub", "");
    assert!(!asked.text().contains("http-equiv"), "{}", asked.text());
    let page = browser.get(&gateway, "/.auth/account").text();
    assert!(
        !page.contains("/account/link/hub") && page.contains("/.auth/oauth/corp?fresh=1&#38;callbackUrl="),
        "{page}"
    );
    // the provider authenticates the person again
    provider.claims(move |claims| {
        claims["email"] = "grace@example.com".into();
        claims["email_verified"] = true.into();
        claims["auth_time"] = now().into();
    });
    let again = browser.through(&gateway, &provider, "/.auth/oauth/corp?fresh=1&callbackUrl=%2F.auth%2Faccount");
    assert_eq!((again.status, again.field("location")), (303, Some("/.auth/account")), "{again:?}");
    let page = browser.get(&gateway, "/.auth/account").text();
    assert!(page.contains("/account/link/hub") && !page.contains("for=\"link-hub\""), "{page}");
    let leading = browser.post(&gateway, "/.auth/account/link/hub", "").text();
    assert!(leads_to(&leading).starts_with(&hub.issuer), "{leading}");
}

#[test]
fn groups_follow_the_map_of_their_provider_and_end_with_it() {
    let provider = Provider::start();
    let with = |map: &str| format!("{}{ROUTE}", provider.configured("corp", &format!("sign_up = \"open\"\n{map}\n")));
    let mut gateway = serve(&with("groups = { team = \"admin\" }"));
    provider.claims(|claims| {
        claims["email"] = "grace@example.com".into();
        claims["email_verified"] = true.into();
        claims["groups"] = serde_json::json!(["team", "other"]);
    });
    let mut browser = Browser::default();
    assert_eq!(browser.through(&gateway, &provider, "/.auth/oauth/corp").status, 303);
    let groups = |gateway: &Gateway| {
        let me = gateway.client().get("/.auth/me", &[("Cookie", &browser.cookies())]).json();
        me["groups"].as_array().unwrap().iter().map(|group| group.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let are_soon = |gateway: &Gateway, expected: &[&str]| {
        crate::gateway::eventually(&format!("groups are {expected:?}"), || groups(gateway) == expected);
    };
    are_soon(&gateway, &["admin"]);
    gateway.reload(&with("groups = { team = \"ops\" }"));
    are_soon(&gateway, &["ops"]);
    gateway.reload(&with("groups = { elsewhere = \"ops\" }"));
    are_soon(&gateway, &[]);
    gateway.reload(&with("groups = { team = \"dev\" }"));
    are_soon(&gateway, &["dev"]);
    gateway.reload(ROUTE);
    are_soon(&gateway, &[]);
}

/// The identity that a page asked about is used once, by the person who was asked.
#[test]
fn a_question_about_an_identity_is_answered_once_in_the_session_that_was_asked() {
    let provider = Provider::start();
    let gateway = serve(&format!("{}{ROUTE}", provider.configured("corp", "sign_up = \"open\"\n")));
    gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    provider.person("vic-1", "vic@example.com", true);
    let ask = |browser: &mut Browser| {
        let page = browser.through(&gateway, &provider, "/.auth/oauth/corp").text();
        assert!(page.contains("You are signed in already"), "{page}");
        let pending = page.split("name=\"pending\" value=\"").nth(1).unwrap().split('"').next().unwrap();
        format!("pending={pending}&answer=switch")
    };
    let mut ada = sign_in_by_password(&gateway, "ada@example.com");
    let form = ask(&mut ada);
    // bob, in the same browser, was not asked
    let kept: Vec<_> = ada.0.iter().filter(|(name, _)| name == "authgate-oauth").cloned().collect();
    let mut bob = sign_in_by_password(&gateway, "bob@example.com");
    bob.0.extend(kept);
    assert_eq!(bob.post(&gateway, "/.auth/oauth/link", &form).status, 400);
    assert_eq!(bob.who(&gateway).as_deref(), Some("bob@example.com"));
    let mut twin = ada.clone();
    assert_eq!(ada.post(&gateway, "/.auth/oauth/link", &form).status, 303);
    assert_eq!(ada.who(&gateway).as_deref(), Some("vic@example.com"));
    assert_eq!(twin.post(&gateway, "/.auth/oauth/link", &form).status, 400, "a second time");
}

/// next-auth's `User` and `Account` rows, then every way to sign in that a person had.
#[test]
fn people_imported_from_next_auth_sign_in_by_each_way_that_they_had_and_no_one_else_does() {
    let (hub, corp) = (Provider::start(), Provider::start());
    let issuer = &hub.issuer;
    let github = format!(
        "[[provider]]\nname = \"github\"\nkind = \"github\"\nclient_id = \"{CLIENT_ID}\"\ntoken_auth = \"basic\"\n\
         client_secret = {{ env = \"CLIENT_SECRET\" }}\nendpoints = {{ authorize = \"{issuer}/authorize\", token = \
         \"{issuer}/token\", userinfo = \"{issuer}/user\" }}\n"
    );
    let folder = configured(&format!("{github}{}{ROUTE}", corp.configured("entra", "")));
    let file = folder.path().join("dev.db");
    let database = Connection::open(&file).unwrap();
    let users = format!(
        "INSERT INTO User (id, email, password) VALUES (7, 'ada@example.com', '{}'), (8, 'bob@example.com', '');
         INSERT INTO Account VALUES ('a', 7, 'oauth', 'github', '583231', NULL, 'gho_1', NULL),
             ('b', 7, 'oidc', 'azure-ad', 'AAAA', NULL, NULL, NULL), ('c', 8, 'oauth', 'github', '9', NULL, NULL, NULL);",
        hash(PASSWORD)
    );
    database.execute_batch(&[PRISMA, ACCOUNTS, &users].concat()).unwrap();
    drop(database);
    let import = ["user", "import", file.to_str().unwrap(), "--format", "prisma", "--provider", "azure-ad=entra"];
    let said = command(folder.path(), &import).env("CLIENT_SECRET", SECRET).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let gateway = Gateway::serve_with(folder, &[("CLIENT_SECRET", SECRET)]);
    let id = |browser: &Browser| {
        let me = gateway.client().get("/.auth/me", &[("Cookie", &browser.cookies())]);
        (me.status == 200).then(|| me.json()["id"].as_str().unwrap().to_owned())
    };
    let through_github = |number: u32, emails: &str| {
        hub.answer("/user", 200, &format!("{{\"id\":{number},\"login\":\"ada\",\"email\":\"ada@example.com\"}}"));
        hub.answer("/user/emails", 200, emails);
        let mut browser = Browser::default();
        let started = browser.get(&gateway, "/.auth/oauth/github");
        let callback = hub.agree_without_nonce(started.field("location").unwrap());
        // the tests' provider is not the issuer of this kind, and need not name one
        let done = browser.get(&gateway, callback.split("&iss=").next().unwrap());
        (done.status, id(&browser))
    };
    let through_entra = |subject: &'static str| {
        corp.person(subject, "ada@new.example.com", true);
        let mut browser = Browser::default();
        let done = browser.through(&gateway, &corp, "/.auth/oauth/entra");
        (done.status, id(&browser))
    };
    let ada = Some("7".to_owned());
    // whatever their addresses are today
    assert_eq!(through_github(583_231, "[]"), (303, ada.clone()));
    assert_eq!(through_entra("AAAA"), (303, ada.clone()));
    assert_eq!(id(&sign_in_by_password(&gateway, "ada@example.com")), ada);
    assert_eq!(through_github(9, "[]"), (303, Some("8".to_owned())));
    // a number at one provider is no one at another, and subjects are compared byte by byte
    for subject in ["583231", "aaaa", "AAAA2"] {
        assert_eq!(through_entra(subject), (403, None), "{subject}");
    }
    assert_eq!(through_github(58_323, "[]"), (403, None));
    let proved = "[{\"email\":\"ada@example.com\",\"primary\":true,\"verified\":true}]";
    assert_eq!(through_github(5, proved), (200, None), "the address alone is asked about");
    // again: the issuer has been pinned meanwhile
    assert_eq!((through_github(583_231, "[]"), through_entra("AAAA")), ((303, ada.clone()), (303, ada)));
}
