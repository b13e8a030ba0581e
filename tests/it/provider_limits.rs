//! Limits of sign-ins through providers, and warnings about what no limit helps against.

use authgate::config;

use crate::provider::Provider;
use crate::providers::{Browser, with_provider};

/// One that sends made-up codes.
#[test]
fn a_network_whose_callbacks_fail_is_told_when_to_come_back() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    let mut browser = Browser::default();
    let mut call_back = |change: fn(&str) -> String| {
        let started = browser.get(&gateway, "/.auth/oauth/corp");
        let callback = provider.agree(started.field("location").unwrap());
        browser.get(&gateway, &change(&callback))
    };
    for _ in 0..60 {
        let failed = call_back(|callback| callback.replace("code=code-", "code=made-up-"));
        assert_eq!(failed.field("location"), Some("/.auth/login?error=OAuthCallback"), "{failed:?}");
    }
    let asked = provider.count("/token");
    let throttled = call_back(str::to_owned);
    assert_eq!((throttled.status, provider.count("/token")), (429, asked));
    let secs: u64 = throttled.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&secs), "{secs}");
}

/// Whoever gets the address or the name of someone would be that person.
#[test]
fn a_persons_id_that_can_change_hands_is_warned_of_and_a_lasting_one_is_not() {
    let warned = |id: &str| {
        let text = format!(
            "[[provider]]\nname = \"corp\"\nkind = \"oidc\"\nissuer = \"https://id.example.com\"\nclient_id = \"x\"\n\
             claims = {{ id = \"{id}\" }}\n[[route]]\nupstream = \"builtin:whoami\"\n"
        );
        let read = config::parse(&text, "gateway.toml", std::env::temp_dir(), &|_| None).unwrap();
        read.warnings.list().iter().any(|one| one.what.contains("given to someone else"))
    };
    for id in ["email", "preferred_username", "/profile/login", "upn"] {
        assert!(warned(id), "{id}");
    }
    for id in ["oid", "sub", "/profile/id", "user_id"] {
        assert!(!warned(id), "{id}");
    }
}

/// Their administrators write any address.
#[test]
fn trusting_the_addresses_of_several_tenants_is_warned_of_and_of_ones_own_is_not() {
    let warned = |more: &str| {
        let text = format!(
            "[[provider]]\nname = \"ms\"\nkind = \"microsoft\"\nclient_id = \"x\"\n{more}[[route]]\nupstream = \"builtin:whoami\"\n"
        );
        let read = config::parse(&text, "gateway.toml", std::env::temp_dir(), &|_| None).unwrap();
        read.warnings.list().iter().any(|one| one.what.contains("administrators of every allowed tenant"))
    };
    let id = "11111111-2222-3333-4444-555555555555";
    for several in ["common", "organizations", "Organizations"] {
        let tenant = format!("tenant = \"{several}\"\nallow = {{ tenants = [\"{id}\"] }}\n");
        assert!(warned(&format!("{tenant}danger_trust_email = true\n")), "{several}");
        assert!(!warned(&tenant), "{several}");
    }
    for own in [id, "corp.example.com", "consumers"] {
        assert!(!warned(&format!("tenant = \"{own}\"\ndanger_trust_email = true\n")), "{own}");
    }
}
