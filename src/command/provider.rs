//! `authgate provider ...`: providers that people sign in through. `check` alone asks them anything.

use serde_json::{Value, json};

use super::people::{instant, looked, open_with_config, readable, remark, say, say_json, settle, table};
use super::{CommandError, Globals, ProviderCommand};
use crate::account::admin::identities;
use crate::account::provider::check::{self, Finding, Verdict};
use crate::client::Client;
use crate::clock::Clock;
use crate::config::{self, Config, Provider, ProviderIssuer, Secrets, SignOut};
use crate::store::{self, ProviderSummary};

/// Carries the command out.
pub fn run(globals: &Globals, command: ProviderCommand) -> Result<(), CommandError> {
    match command {
        ProviderCommand::List { json } => list(globals, json),
        ProviderCommand::Check { name, json } => check(globals, name.as_deref(), json),
        ProviderCommand::Adopt { name } => adopt(globals, &name),
    }
}

/// What is registered at a provider; it serves all hosts that routes name.
fn redirect_uri(config: &Config, provider: &Provider) -> String {
    format!("{}{}", config.server.public_url, provider.callback)
}

/// The configured ones in their order, then others that accounts still have identities of.
fn list(globals: &Globals, as_json: bool) -> Result<(), CommandError> {
    let (config, _) = readable(globals)?;
    // before the first start there is no database, and nothing to know of accounts
    let summary = if store::has_database(&config.server.state_dir)? {
        identities::summary(&mut looked(globals)?)?
    } else {
        Vec::new()
    };
    let used = |name: &str| summary.iter().find(|used| used.provider == name);
    let accounts = |used: Option<&ProviderSummary>| used.map_or(0, |used| used.accounts);
    let seen = |used: Option<&ProviderSummary>| used.and_then(|used| used.seen).map(instant);
    let others: Vec<&ProviderSummary> =
        summary.iter().filter(|used| config.providers.iter().all(|provider| provider.name != used.provider)).collect();
    if as_json {
        let configured = config.providers.iter().map(|provider| {
            let used = used(&provider.name);
            json!({ "name": provider.name, "kind": provider.kind.word(), "label": provider.label, "configured": true,
                    "redirect_uri": redirect_uri(&config, provider),
                    "backchannel_logout_uri": backchannel_uri(&config, provider),
                    "post_logout_redirect_uri": signed_out_uri(&config, provider),
                    "accounts": accounts(used), "seen": seen(used) })
        });
        let others = others.iter().map(|used| {
            json!({ "name": used.provider, "kind": null, "label": null, "configured": false,
                    "redirect_uri": null, "backchannel_logout_uri": null, "post_logout_redirect_uri": null,
                    "accounts": used.accounts, "seen": used.seen.map(instant) })
        });
        return say_json(&Value::Array(configured.chain(others).collect()));
    }
    let configured = config.providers.iter().map(|provider| {
        let used = used(&provider.name);
        vec![
            provider.name.clone(),
            provider.kind.word().to_owned(),
            accounts(used).to_string(),
            seen(used).unwrap_or_default(),
        ]
    });
    let others = others.iter().map(|used| {
        let seen = used.seen.map(instant).unwrap_or_default();
        vec![used.provider.clone(), "not configured".to_owned(), used.accounts.to_string(), seen]
    });
    let rows: Vec<_> = configured.chain(others).collect();
    say(&table(&["NAME", "KIND", "ACCOUNTS", "LAST SIGN-IN"], &rows))?;
    let addresses = addresses(&config);
    if addresses.is_empty() {
        Ok(())
    } else {
        say(&format!("\n{}", table(&["NAME", "REGISTER", "ADDRESS"], &addresses)))
    }
}

/// What is registered at each provider.
fn addresses(config: &Config) -> Vec<Vec<String>> {
    let of = |provider: &Provider| {
        let redirect = ("redirect URI", redirect_uri(config, provider));
        let logout = backchannel_uri(config, provider).map(|uri| ("back-channel logout URI", uri));
        let signed_out = signed_out_uri(config, provider).map(|uri| ("post-logout redirect URI", uri));
        let row = |(what, uri): (&str, String)| vec![provider.name.clone(), what.to_owned(), uri];
        std::iter::once(redirect).chain(logout).chain(signed_out).map(row).collect::<Vec<_>>()
    };
    config.providers.iter().flat_map(of).collect()
}

/// Only needed where people are signed out at the provider, too.
fn signed_out_uri(config: &Config, provider: &Provider) -> Option<String> {
    let is_needed = provider.sign_out == SignOut::Provider;
    is_needed.then(|| format!("{}{}/signed-out", config.server.public_url, config.server.prefix))
}

fn backchannel_uri(config: &Config, provider: &Provider) -> Option<String> {
    let path = provider.backchannel_logout_path(&config.server.prefix);
    provider.kind.is_openid().then(|| format!("{}{path}", config.server.public_url))
}

fn check(globals: &Globals, name: Option<&str>, as_json: bool) -> Result<(), CommandError> {
    let config = config::load(&globals.config_path(), globals.state_dir.as_deref(), Secrets::Read);
    let config = config.map_err(CommandError::Config)?;
    let wanted = |provider: &&Provider| name.is_none_or(|name| provider.name == name);
    let providers: Vec<&Provider> = config.providers.iter().filter(wanted).collect();
    if let Some(name) = name.filter(|_| providers.is_empty()) {
        return Err(CommandError::Refused(format!("no [[provider]] is named `{name}`")));
    }
    let failed = |error: std::io::Error| CommandError::Refused(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(failed)?;
    let client = Client::start().map_err(failed)?;
    let clock = Clock::system();
    let mut results = Vec::new();
    for provider in providers {
        results.push((provider, runtime.block_on(check::check(provider, &client, &clock))));
    }
    let is_ok = |findings: &[Finding]| findings.iter().all(|finding| finding.verdict != Verdict::Failed);
    if as_json {
        let one = |finding: &Finding| json!({ "check": finding.what, "result": finding.verdict.word(), "detail": finding.detail });
        let each = results.iter().map(|(provider, findings)| {
            json!({ "name": provider.name, "ok": is_ok(findings),
                    "checks": findings.iter().map(one).collect::<Vec<_>>() })
        });
        say_json(&Value::Array(each.collect()))?;
    } else {
        let row = |provider: &Provider, finding: &Finding| {
            let (what, result) = (finding.what.to_owned(), finding.verdict.word().to_owned());
            vec![provider.name.clone(), what, result, finding.detail.clone()]
        };
        let rows =
            results.iter().flat_map(|(provider, findings)| findings.iter().map(|finding| row(provider, finding)));
        say(&table(&["NAME", "CHECK", "RESULT", "DETAIL"], &rows.collect::<Vec<_>>()))?;
    }
    if results.iter().all(|(_, findings)| is_ok(findings)) { Ok(()) } else { Err(CommandError::Said) }
}

fn adopt(globals: &Globals, name: &str) -> Result<(), CommandError> {
    let (mut admin, config) = open_with_config(globals)?;
    let Some(provider) = config.providers.iter().find(|provider| provider.name == name) else {
        return Err(CommandError::Refused(format!("no [[provider]] is named `{name}`")));
    };
    let issuer = match &provider.issuer {
        ProviderIssuer::Exact(issuer) => Some(issuer.as_str()),
        // each person's own tenant is in it
        ProviderIssuer::MicrosoftTenant { .. } | ProviderIssuer::Unknown => None,
    };
    let changed = identities::adopt(&mut admin, name, issuer)?;
    settle(&mut admin);
    let what = if changed == 1 { "identity" } else { "identities" };
    remark(&match issuer {
        Some(issuer) => format!("{changed} {what} of {name} now belong to {issuer}"),
        None => format!("{changed} {what} of {name} now belong to the issuer of their next sign-in"),
    });
    Ok(())
}
