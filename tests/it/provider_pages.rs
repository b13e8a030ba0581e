//! The buttons of providers, and the page about an address that has an account: what they offer, and to whom they say
//! what.

use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD, configured, eventually};
use crate::provider::{Provider, SECRET, now};
use crate::provider_apple::new_key;
use crate::providers::{Browser, ROUTE, hidden, leads_to, serve};

/// Gateway with `corp` and `hub`, `ada@example.com` with a password, and who is known at the providers.
struct World {
    corp: Provider,
    hub: Provider,
    gateway: Gateway,
}

impl World {
    fn new(first: &str, more: &str) -> Self {
        let (corp, hub) = (Provider::start(), Provider::start());
        let two = [corp.configured("corp", more), hub.configured("hub", more)].concat();
        let gateway = serve(&format!("{first}{two}{ROUTE}"));
        gateway.first_account();
        Self { corp, hub, gateway }
    }

    /// `subject` of `hub` signs in to this account from now on.
    fn link_hub(&self, email: &str, subject: &str) {
        self.gateway.cli(&["user", "link", email, "hub", subject]);
    }

    /// Who signs in through `hub` from now on. Asked to (`max_age`), it authenticates them again.
    fn at_hub(&self, subject: &'static str, email: &'static str, is_verified: bool) {
        self.hub.claims(move |claims| {
            claims["sub"] = subject.into();
            claims["email"] = email.into();
            claims["email_verified"] = is_verified.into();
            claims["auth_time"] = now().into();
        });
    }

    /// The page after a sign-in through `corp` with ada's address.
    fn collision(&self, browser: &mut Browser) -> String {
        self.corp.person("ada-corp", "ada@example.com", true);
        let page = browser.through(&self.gateway, &self.corp, "/.auth/oauth/corp?callbackUrl=/app");
        assert_eq!(page.status, 200, "{page:?}");
        page.text()
    }

    /// Answers that page by a sign-in through `hub`.
    fn answer_through_hub(&self, browser: &mut Browser, page: &str) -> Answer {
        let leading = browser.post(&self.gateway, "/.auth/oauth/link", &with(page, "hub"));
        assert_eq!((leading.status, leading.field("location")), (200, None), "no redirect of a form: {leading:?}");
        browser.get(&self.gateway, &self.hub.agree(&leads_to(&leading.text())))
    }

    /// What an account is linked to, sorted.
    fn links(&self, email: &str) -> Vec<String> {
        let shown: serde_json::Value =
            serde_json::from_str(&self.gateway.cli(&["user", "show", email, "--json"])).unwrap();
        let name = |one: &serde_json::Value| one["provider"].as_str().unwrap().to_owned();
        let mut names: Vec<String> = shown["identities"].as_array().unwrap().iter().map(name).collect();
        names.sort_unstable();
        names
    }
}

/// The form of the button of another provider.
fn with(page: &str, name: &str) -> String {
    format!("pending={}&callbackUrl=%2Fapp&with={name}", hidden(page, "pending"))
}

fn with_password(page: &str) -> String {
    format!("pending={}&callbackUrl=%2Fapp&password={}", hidden(page, "pending"), PASSWORD.replace(' ', "+"))
}

/// The button that is marked as the last one used.
fn marked(page: &str) -> Option<&str> {
    let at = page.find(" aria-describedby=\"last-used\"")?;
    assert_eq!(page.matches("Last used").count(), 1, "{page}");
    page[..at].rsplit("/oauth/").next()?.split(['"', '?']).next()
}

#[test]
fn each_kind_has_a_small_drawing_that_is_no_part_of_the_buttons_name() {
    let kinds = ["google", "github", "gitlab", "microsoft", "apple", "oidc", "oauth2"];
    let more = |kind: &str| match kind {
        "microsoft" => "tenant = \"00000000-0000-0000-0000-000000000000\"\n",
        "oidc" => "issuer = \"https://id.example.com\"\n",
        "oauth2" => {
            "endpoints = { authorize = \"https://id.example.com/a\", token = \"https://id.example.com/t\", userinfo = \"https://id.example.com/u\" }\n"
        }
        _ => "",
    };
    let table = |kind: &&str| {
        let own = match *kind {
            "apple" => {
                "team_id = \"TEAM123456\"\nkey_id = \"KEY1234567\"\nprivate_key = { env = \"KEY\" }\n".to_owned()
            }
            _ => format!("client_secret = {{ env = \"CLIENT_SECRET\" }}\n{}", more(kind)),
        };
        format!(
            "[[provider]]\nname = \"{kind}-1\"\nkind = \"{kind}\"\nlabel = \"The {kind}\"\nclient_id = \"x\"\n{own}"
        )
    };
    let tables: Vec<String> = kinds.iter().map(table).collect();
    let variables = [("CLIENT_SECRET", SECRET), ("KEY", &new_key().0)];
    let gateway = Gateway::serve_with(configured(&format!("{}{ROUTE}", tables.concat())), &variables);
    let page = Browser::default().get(&gateway, "/.auth/login").text();
    let links: Vec<&str> =
        page.split("<a class=\"button plain\"").skip(1).map(|rest| rest.split("</a>").next().unwrap()).collect();
    assert_eq!(links.len(), kinds.len(), "{page}");
    let mut drawings: Vec<&str> = Vec::new();
    for (kind, link) in kinds.iter().zip(&links) {
        let (before, rest) = link.split_once("<svg").unwrap();
        let (drawing, name) = rest.split_once("</svg>").unwrap();
        assert!(before.ends_with('>') && drawing.contains(" aria-hidden=\"true\""), "{link}");
        assert!("<svg".len() + drawing.len() + "</svg>".len() <= 600, "{kind}: {} bytes", drawing.len());
        assert!(!link.contains("style"), "the policy forbids it: {link}");
        assert_eq!(name, format!("Continue with <span dir=\"auto\">The {kind}</span>"));
        drawings.push(drawing);
    }
    assert_eq!(drawings[5], drawings[6], "one for all others");
    drawings.sort_unstable();
    drawings.dedup();
    assert_eq!(drawings.len(), 6);
}

#[test]
fn the_way_that_this_browser_signed_in_by_last_is_marked_there_alone() {
    let world = World::new("", "sign_up = \"open\"\n");
    let gateway = &world.gateway;
    world.link_hub("ada@example.com", "ada-hub");
    world.at_hub("ada-hub", "ada@hub.example.com", true);
    let mut browser = Browser::default();
    assert_eq!(marked(&browser.get(gateway, "/.auth/login").text()), None);
    let through_hub = |browser: &mut Browser| {
        assert_eq!(browser.through(gateway, &world.hub, "/.auth/oauth/hub").status, 303);
        assert_eq!(browser.post(gateway, "/.auth/logout", "").status, 303);
    };
    // the store may be slow on a busy machine, and then the page does without
    let marks = |browser: &Browser, name: Option<&str>| {
        eventually(&format!("{name:?} is marked"), || {
            marked(&browser.clone().get(gateway, "/.auth/login?callbackUrl=/app").text()) == name
        });
    };
    through_hub(&mut browser);
    marks(&browser, Some("hub"));
    // a page that shows an error, too
    eventually("the page of a failed form has it", || {
        let failed = browser.clone().post(gateway, "/.auth/login", "email=ada%40example.com&password=wrong");
        marked(&browser.clone().get(gateway, failed.field("location").unwrap()).text()) == Some("hub")
    });
    // only the cookie of this browser leads to it
    let mut stranger = browser.clone();
    stranger.0.retain(|(name, _)| name != "authgate-device");
    assert_eq!(marked(&stranger.get(gateway, "/.auth/login").text()), None);
    stranger.0.push(("authgate-device".to_owned(), "A".repeat(43)));
    assert_eq!(marked(&stranger.get(gateway, "/.auth/login").text()), None);
    // the last way counts
    let form = format!("email=ada%40example.com&password={}", PASSWORD.replace(' ', "+"));
    assert_eq!(browser.post(gateway, "/.auth/login", &form).status, 303);
    browser.post(gateway, "/.auth/logout", "");
    marks(&browser, None);
    through_hub(&mut browser);
    marks(&browser, Some("hub"));
}

/// The collision page: the account's other provider instead of its password.
#[test]
fn an_address_with_an_account_is_signed_in_to_through_another_provider_and_then_each_way_works() {
    let world = World::new("", "");
    let gateway = &world.gateway;
    world.link_hub("ada@example.com", "ada-hub");
    world.at_hub("ada-hub", "ada@hub.example.com", true);
    let mut browser = Browser::default();
    let page = world.collision(&mut browser);
    assert!(page.contains("Sign in to it as you usually do"), "{page}");
    assert!(page.contains("name=\"with\" value=\"hub\"") && !page.contains("value=\"corp\""), "{page}");
    let done = world.answer_through_hub(&mut browser, &page);
    assert_eq!((done.status, done.field("location")), (303, Some("/app")), "{done:?}");
    assert_eq!(browser.who(gateway).as_deref(), Some("ada@example.com"));
    assert_eq!(world.links("ada@example.com"), ["corp", "hub"]);
    let mut other = Browser::default();
    assert_eq!(other.through(gateway, &world.corp, "/.auth/oauth/corp").status, 303);
    assert_eq!(other.who(gateway).as_deref(), Some("ada@example.com"));
    // what waited is used once
    let again = world.answer_through_hub(&mut browser, &page);
    assert_eq!(again.status, 400, "{again:?}");
    assert!(again.text().contains("was answered before"), "{}", again.text());
}

#[test]
fn a_sign_in_through_another_provider_to_another_account_adds_nothing_and_says_so() {
    let world = World::new("", "sign_up = \"open\"\n");
    let gateway = &world.gateway;
    gateway.add_user("bob@example.com", &[]);
    world.link_hub("bob@example.com", "bob-hub");
    let mut browser = Browser::default();
    let page = world.collision(&mut browser);
    // somebody else's, whatever its address is today
    world.at_hub("bob-hub", "ada@example.com", true);
    let refused = world.answer_through_hub(&mut browser, &page);
    let text = "Your sign-in with Corp hub belongs to another account, so nothing was added.";
    assert!(refused.status == 403 && refused.text().contains(text), "{refused:?}");
    // of nobody: no account is created, even where sign-up is open
    for (subject, email, verified) in [
        ("new", "new@example.com", true),
        ("new", "ada@example.com", true),
        ("new", "ada@example.com", false),
        ("new", "bob@example.com", true),
    ] {
        world.at_hub(subject, email, verified);
        let refused = world.answer_through_hub(&mut browser, &page);
        let text = "Your sign-in with Corp hub is not a way to sign in to this account yet, so nothing was added.";
        assert!(refused.status == 403 && refused.text().contains(text), "{email} {verified}: {refused:?}");
    }
    assert_eq!(browser.who(gateway), None);
    assert_eq!((world.links("ada@example.com").len(), world.links("bob@example.com").len()), (0, 1));
    assert!(!gateway.cli(&["user", "list"]).contains("new@example.com"));
    assert!(gateway.cli(&["session", "list", "bob@example.com", "--json"]).trim() == "[]");
    // the page that it is said on still works
    world.at_hub("bob-hub", "bob@example.com", true);
    let asked = world.answer_through_hub(&mut browser, &page).text();
    let right = browser.post(gateway, "/.auth/oauth/link", &with_password(&asked));
    assert_eq!((right.status, right.field("location")), (303, Some("/app")), "{right:?}");
    assert_eq!(world.links("ada@example.com"), ["corp"]);
}

#[test]
fn an_identity_waits_for_the_browser_that_was_asked_and_for_other_providers_than_its_own() {
    let world = World::new("", "");
    let gateway = &world.gateway;
    world.link_hub("ada@example.com", "ada-hub");
    world.at_hub("ada-hub", "ada@example.com", true);
    let mut browser = Browser::default();
    let page = world.collision(&mut browser);
    for name in ["corp", "nothing", "", "hub%2F"] {
        assert_eq!(browser.post(gateway, "/.auth/oauth/link", &with(&page, name)).status, 404, "{name}");
    }
    // another browser, which has a cookie of its own
    let mut stranger = Browser::default();
    world.collision(&mut stranger);
    assert_eq!(stranger.post(gateway, "/.auth/oauth/link", &with(&page, "hub")).status, 400);
    let leading = browser.post(gateway, "/.auth/oauth/link", &with(&page, "hub"));
    let callback = world.hub.agree(&leads_to(&leading.text()));
    assert_eq!(stranger.get(gateway, &callback).status, 400);
    assert_eq!(world.links("ada@example.com"), ["hub"]);
    // in a second tab, after the first one asked about it again
    let second = world.collision(&mut browser);
    assert_eq!(world.answer_through_hub(&mut browser, &second).status, 303);
    assert_eq!(browser.get(gateway, &callback).field("location"), Some("/app"), "the first tab");
    assert_eq!(world.links("ada@example.com"), ["corp", "hub"]);
    assert_eq!(stranger.who(gateway), None);
}

/// Nothing about the account is said to a person who may be somebody else: not even how it is signed in to.
#[test]
fn the_page_is_the_same_whatever_the_account_has() {
    let world = World::new("", "sign_up = \"open\"\n");
    let gateway = &world.gateway;
    // without a password, and linked to the other provider
    world.at_hub("grace-hub", "grace@example.com", true);
    assert_eq!(Browser::default().through(gateway, &world.hub, "/.auth/oauth/hub").status, 303);
    let mut pages = Vec::new();
    for (subject, email) in [("ada-corp", "ada@example.com"), ("grace-corp", "grace@example.com")] {
        world.corp.person(subject, email, true);
        let page = Browser::default().through(gateway, &world.corp, "/.auth/oauth/corp").text();
        let pending = hidden(&page, "pending");
        pages.push(page.replace(&pending, "PENDING").replace(email, "EMAIL"));
    }
    assert!(pages[0].contains("There is already an account with the address"), "{}", pages[0]);
    assert_eq!(pages[0], pages[1]);
    // an address that the provider has not verified leads to no page, whether it has an account or not
    let refused = |subject: &'static str, email: &'static str| {
        world.corp.person(subject, email, false);
        let refused = Browser::default().through(gateway, &world.corp, "/.auth/oauth/corp");
        let id = refused.field("x-request-id").unwrap_or_default().to_owned();
        (refused.status, refused.text().replace(&id, "ID"))
    };
    assert_eq!(refused("x", "ada@example.com").0, 403);
    assert_eq!(refused("x", "ada@example.com"), refused("x", "free@example.com"));
}

#[test]
fn who_cancels_at_the_other_provider_is_asked_again() {
    let world = World::new("", "");
    let gateway = &world.gateway;
    let mut browser = Browser::default();
    let page = world.collision(&mut browser);
    let leading = browser.post(gateway, "/.auth/oauth/link", &with(&page, "hub")).text();
    let url = leads_to(&leading);
    let state = url.split("state=").nth(1).unwrap().split('&').next().unwrap();
    let issuer = world.hub.issuer.replace(':', "%3A").replace('/', "%2F");
    let cancelled = format!("/.auth/oauth/hub/callback?error=access_denied&state={state}&iss={issuer}");
    let again = browser.get(gateway, &cancelled);
    assert!(again.status == 200 && again.text().contains("The sign-in was cancelled."), "{again:?}");
    // and where it cannot be reached
    world.hub.answer("/.well-known/openid-configuration", 503, "{}");
    let right = browser.post(gateway, "/.auth/oauth/link", &with_password(&again.text()));
    assert_eq!((right.status, right.field("location")), (303, Some("/app")), "{right:?}");
    assert_eq!(world.links("ada@example.com"), ["corp"]);
}

#[test]
fn another_provider_that_is_down_is_said_on_the_page_which_still_works() {
    let world = World::new("", "");
    let gateway = &world.gateway;
    world.hub.answer("/.well-known/openid-configuration", 503, "{}");
    let mut browser = Browser::default();
    let page = world.collision(&mut browser);
    let failed = browser.post(gateway, "/.auth/oauth/link", &with(&page, "hub"));
    assert_eq!(failed.status, 503, "{failed:?}");
    assert!(failed.text().contains("This provider cannot be reached right now."), "{}", failed.text());
    assert_eq!(browser.post(gateway, "/.auth/oauth/link", &with_password(&failed.text())).status, 303);
    assert_eq!(world.links("ada@example.com"), ["corp"]);
}

#[test]
fn with_strict_cookies_the_other_provider_works_too() {
    let world = World::new("[session]\nsame_site = \"strict\"\n", "");
    let gateway = &world.gateway;
    world.link_hub("ada@example.com", "ada-hub");
    world.at_hub("ada-hub", "ada@example.com", true);
    world.corp.person("ada-corp", "ada@example.com", true);
    let mut browser = Browser::default();
    let sent_on = browser.through(gateway, &world.corp, "/.auth/oauth/corp?callbackUrl=/app").text();
    let page = browser.get(gateway, &leads_to(&sent_on)).text();
    let sent_on = world.answer_through_hub(&mut browser, &page).text();
    let done = browser.get(gateway, &leads_to(&sent_on));
    assert_eq!((done.status, done.field("location")), (303, Some("/app")), "{done:?}");
    assert_eq!(browser.who(gateway).as_deref(), Some("ada@example.com"));
    assert_eq!(world.links("ada@example.com"), ["corp", "hub"]);
}
