//! `authgate provider ...`: providers that people sign in through. Nothing is asked of them here.

use serde_json::{Value, json};

use super::people::{instant, looked, open_with_config, readable, remark, say, say_json, settle, table};
use super::{CommandError, Globals, ProviderCommand};
use crate::account::admin::identities;
use crate::config::{Config, Provider, ProviderIssuer};
use crate::store::{self, ProviderSummary};

/// Carries the command out.
pub fn run(globals: &Globals, command: ProviderCommand) -> Result<(), CommandError> {
    match command {
        ProviderCommand::List { json } => list(globals, json),
        ProviderCommand::Adopt { name } => adopt(globals, &name),
    }
}

/// What is registered at a provider.
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
                    "redirect_uri": redirect_uri(&config, provider), "accounts": accounts(used), "seen": seen(used) })
        });
        let others = others.iter().map(|used| {
            json!({ "name": used.provider, "kind": null, "label": null, "configured": false,
                    "redirect_uri": null, "accounts": used.accounts, "seen": used.seen.map(instant) })
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
            redirect_uri(&config, provider),
        ]
    });
    let others = others.iter().map(|used| {
        let seen = used.seen.map(instant).unwrap_or_default();
        vec![used.provider.clone(), "not configured".to_owned(), used.accounts.to_string(), seen, String::new()]
    });
    let rows: Vec<_> = configured.chain(others).collect();
    say(&table(&["NAME", "KIND", "ACCOUNTS", "LAST SIGN-IN", "REDIRECT URI"], &rows))
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
    settle(&admin);
    let what = if changed == 1 { "identity" } else { "identities" };
    remark(&match issuer {
        Some(issuer) => format!("{changed} {what} of {name} now belong to {issuer}"),
        None => format!("{changed} {what} of {name} now belong to the issuer of their next sign-in"),
    });
    Ok(())
}
