//! `authgate provider check` and `check`: what keeps people from signing in, before they find out.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gateway::{command, configured};
use crate::provider::{Provider, SECRET};
use crate::providers::ROUTE;
use crate::tls::Authority;

/// Exit code, output and standard error of a command.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = command(folder, arguments).env("CLIENT_SECRET", SECRET).stdin(Stdio::null()).output().unwrap();
    let [said, aside] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), said, aside)
}

/// Exit code, and result and detail of each check, of one provider.
fn checked(folder: &Path) -> (i32, Vec<(String, String, String)>) {
    let (code, said, aside) = run(folder, &["provider", "check", "corp", "--json"]);
    let all: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{aside}"));
    assert_eq!((&all[0]["name"], &all[0]["ok"]), (&json!("corp"), &json!(code == 0)));
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    let checks = all[0]["checks"].as_array().unwrap().iter();
    (code, checks.map(|check| (text(check, "check"), text(check, "result"), text(check, "detail"))).collect())
}

fn with(provider: &Provider, more: &str) -> TempDir {
    configured(&format!("{}{ROUTE}", provider.configured("corp", more)))
}

#[test]
fn an_honest_provider_passes_every_check_and_is_asked_for_no_more_than_its_documents() {
    let provider = Provider::start();
    let folder = with(&provider, "");
    let (code, checks) = checked(folder.path());
    let results: Vec<(&str, &str)> = checks.iter().map(|(what, result, _)| (what.as_str(), result.as_str())).collect();
    let all = ["discovery", "issuer", "endpoints", "algorithms", "keys", "token_auth", "pkce", "clock"];
    assert_eq!((code, results), (0, all.map(|what| (what, "ok")).to_vec()), "{checks:?}");
    assert_eq!(*provider.requests.lock().unwrap(), ["/.well-known/openid-configuration", "/jwks"]);
    let (code, said, _) = run(folder.path(), &["provider", "check"]);
    assert!(code == 0 && said.contains("EdDSA") && said.starts_with("NAME"), "{said}");
    let (code, _, aside) = run(folder.path(), &["provider", "check", "gone"]);
    assert!(code == 1 && aside.contains("no [[provider]] is named `gone`"), "{aside}");
    assert!(!folder.path().join("state").exists(), "it makes nothing");
}

#[test]
fn each_fault_of_a_provider_is_named_and_fails_the_check() {
    let provider = Provider::start();
    let folder = with(&provider, "");
    let issuer = provider.issuer.clone();
    let metadata = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
        "id_token_signing_alg_values_supported": ["EdDSA"],
    });
    let changed = |name: &str, value: Value| {
        let mut metadata = metadata.clone();
        metadata[name] = value;
        metadata.to_string()
    };
    let rsa = json!({ "keys": [{ "kty": "RSA", "n": "AQAB", "e": "AQAB" }] }).to_string();
    let slash = format!("{issuer}/");
    for (path, status, document, what, result, detail) in [
        ("openid", 503, "{}".to_owned(), "discovery", "failed", "status 503"),
        ("openid", 200, "<html>".to_owned(), "discovery", "failed", "invalid JSON"),
        ("openid", 200, changed("issuer", json!(slash)), "issuer", "failed", slash.as_str()),
        ("openid", 200, changed("token_endpoint", json!("http://id.example.com")), "endpoints", "failed", "https"),
        (
            "openid",
            200,
            changed("id_token_signing_alg_values_supported", json!(["HS256"])),
            "endpoints",
            "failed",
            "no algorithm",
        ),
        ("jwks", 200, rsa, "keys", "failed", "none of 1 keys fits EdDSA"),
        ("jwks", 200, "[]".to_owned(), "keys", "failed", "no key set"),
        (
            "openid",
            200,
            changed("code_challenge_methods_supported", json!(["plain"])),
            "pkce",
            "warning",
            "other methods",
        ),
        (
            "openid",
            200,
            changed("token_endpoint_auth_methods_supported", json!(["private_key_jwt"])),
            "token_auth",
            "warning",
            "does not list",
        ),
    ] {
        let path = if path == "openid" { "/.well-known/openid-configuration" } else { "/jwks" };
        provider.answer(path, status, &document);
        let (code, checks) = checked(folder.path());
        let found = checks.iter().find(|(_, found, _)| found != "ok").unwrap_or_else(|| panic!("{what}: {checks:?}"));
        assert_eq!((found.0.as_str(), found.1.as_str()), (what, result), "{checks:?}");
        assert!(found.2.contains(detail), "{detail}: {found:?}");
        assert_eq!(code, i32::from(result == "failed"), "{what}");
        provider.restore(path);
    }
    // HTTP dates are in this form (RFC 9110, 5.6.7)
    *provider.date.lock().unwrap() = Some("Thu, 01 Jan 2015 00:00:00 GMT".to_owned());
    let (code, checks) = checked(folder.path());
    let clock = checks.last().unwrap();
    assert!(
        code == 1 && clock.0 == "clock" && clock.2.contains("this machine's clock is") && clock.2.ends_with("ahead"),
        "{clock:?}"
    );
}

#[test]
fn a_certificate_of_a_private_authority_holds_where_ca_names_it_and_nowhere_else() {
    let authority = Authority::new();
    for (file, name, trusts, expected) in [
        ("right", "127.0.0.1", true, "ok"),
        ("unknown", "127.0.0.1", false, "failed"),
        ("wrong", "other.example.com", true, "failed"),
    ] {
        authority.pair(file, &[name]);
        let at = |ending: &str| authority.folder.path().join(format!("{file}.{ending}"));
        let provider = Provider::start_tls(&at("pem"), &at("key"));
        let ca = if trusts { format!("ca = {:?}\n", authority.roots().display().to_string()) } else { String::new() };
        let folder = with(&provider, &ca);
        let (code, checks) = checked(folder.path());
        assert_eq!((checks[0].0.as_str(), checks[0].1.as_str()), ("discovery", expected), "{file}: {checks:?}");
        assert_eq!(code, i32::from(expected == "failed"));
        assert!(expected == "ok" || checks[0].2.contains("TLS: "), "{checks:?}");
    }
}

#[test]
fn all_addresses_to_register_are_listed_and_hosts_without_one_are_warned_of() {
    let provider = Provider::start();
    let route = "[[route]]\nhost = \"*.example.com\"\nupstream = \"builtin:whoami\"\n";
    let folder = |start: &str, more: &str| {
        let server = "[server]\npublic_url = \"https://login.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
        let text = format!("{server}{start}{}{route}", provider.configured("corp", more));
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        folder
    };
    let apart = folder("", "");
    let shared = folder("[session]\ndomain = \"example.com\"\n", "sign_out = \"provider\"\n");
    let list = |folder: &TempDir| -> Value {
        serde_json::from_str(&run(folder.path(), &["provider", "list", "--json"]).1).unwrap()
    };
    let own = |path: &str| json!(format!("https://login.example.com/.auth/{path}"));
    assert_eq!(list(&shared)[0]["redirect_uri"], own("oauth/corp/callback"));
    assert_eq!(list(&shared)[0]["backchannel_logout_uri"], own("oauth/corp/backchannel-logout"));
    assert_eq!(list(&shared)[0]["post_logout_redirect_uri"], own("signed-out"));
    assert_eq!(list(&apart)[0]["post_logout_redirect_uri"], Value::Null);
    let (_, said, _) = run(shared.path(), &["provider", "list"]);
    for path in ["oauth/corp/callback", "oauth/corp/backchannel-logout", "signed-out"] {
        assert!(said.contains(own(path).as_str().unwrap()), "{said}");
    }
    let (code, _, aside) = run(apart.path(), &["check"]);
    assert!(code == 0 && aside.contains("each host of `*.example.com` needs a redirect URI of its own"), "{aside}");
    assert!(!run(shared.path(), &["check"]).2.contains("redirect URI"));
}
