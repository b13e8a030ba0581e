//! `authgate check`: validates the configuration without binding or creating anything, then runs its `[[test]]` tables.

use std::io::{IsTerminal, Write};

use serde_json::json;

use super::people::{refuse_store, remark as say_aside, say};
use super::{CommandError, Globals};
use crate::account::admin::identities;
use crate::account::{Admin, judge_sealing_key};
use crate::clock::Clock;
use crate::config::{self, Config, Faults, StoreConfig, StoreTls, Test};
use crate::policy::explain::simulate::Simulator;
use crate::store::{self, Judged};

/// Prints faults or test results.
pub fn run(globals: &Globals, as_json: bool) -> Result<(), CommandError> {
    let path = globals.config_path();
    let config = config::load(&path, globals.state_dir.as_deref(), config::Secrets::Read);
    let mut config = match config {
        Ok(config) => config,
        Err(faults) if as_json => {
            say(&json!({ "ok": false, "faults": faults.to_json(), "warnings": [], "tests": [] }).to_string())?;
            return Err(CommandError::Config(faults));
        }
        Err(faults) => return Err(CommandError::Config(faults)),
    };
    if let Some(groups) = groups_with_people(&config) {
        config.warn_of_groups_without_people(&groups);
    }
    remark(&config.warnings);
    let stranded = stranded_accounts(&config);
    let database = database(&config);
    let simulator = Simulator::new(&config);
    let results: Vec<(&Test, String)> = config
        .tests
        .iter()
        .map(|test| (test, simulator.prove(test).unwrap_or_else(|why| format!("error: {why}"))))
        .collect();
    let failed = results.iter().filter(|(test, got)| test.expect != *got).count();
    if as_json {
        let one = |(test, got): &(&Test, String)| {
            json!({ "line": test.line, "request": format!("{} {}", test.method, test.target),
                    "expect": test.expect, "got": got, "ok": test.expect == *got })
        };
        let told = json!({ "ok": failed == 0 && database.is_ok(), "faults": [], "warnings": config.warnings.to_json(),
                    "stranded_accounts": stranded.iter().map(stranded_json).collect::<Vec<_>>(),
                    "tests": results.iter().map(one).collect::<Vec<_>>(),
                    "store": config.store.as_ref().map(store_json),
                    "database": database.clone().unwrap_or_else(|why| why) });
        say(&told.to_string())?;
    } else {
        for (test, got) in results.iter().filter(|(test, got)| test.expect != *got) {
            let (file, Test { line, method, target, expect, .. }) = (path.display(), test);
            say(&format!("{file}:{line}: {method} {target}\n  expected {expect}\n  got      {got}"))?;
        }
        say(&verdict(&path.display().to_string(), results.len(), failed))?;
        match &database {
            Ok(told) if told.is_empty() => {}
            Ok(told) | Err(told) => say_aside(told),
        }
    }
    let failed = failed > 0 || database.is_err();
    if failed { Err(CommandError::Said) } else { Ok(()) }
}

fn verdict(file: &str, tests: usize, failed: usize) -> String {
    if failed == 0 {
        format!("{file} is valid; {tests} of {tests} tests passed")
    } else {
        format!("{file}: {failed} of {tests} tests FAILED")
    }
}

/// What startup would do with the existing database: nothing to report, one line, or the reason it would be refused.
fn database(config: &Config) -> Result<String, String> {
    if let Some(store) = &config.store {
        let how = if store.url.tls == StoreTls::Require { ", whose certificate is not verified" } else { "" };
        return Ok(format!("the database is {}{how}; it was not asked", store.url.shown()));
    }
    match store::judge(&config.server.state_dir) {
        Ok(Judged::Absent) => Ok(String::new()),
        Ok(Judged::Current) => judge_sealing_key(config).map(|()| String::new()),
        Ok(Judged::Closed(why)) => Ok(format!("the database was not checked: {why}")),
        Ok(Judged::Older { version, known, copy }) => Ok(format!(
            "the database has schema version {version}: the next start migrates it to {known} and keeps a copy at {}",
            copy.display()
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn stranded_json((provider, count): &(Option<String>, u64)) -> serde_json::Value {
    json!({ "provider": provider, "accounts": count })
}

fn store_json(store: &StoreConfig) -> serde_json::Value {
    json!({ "url": store.url.shown(), "blind_max_secs": store.blind_max.as_secs_f64() })
}

/// Warns of accounts that no one can sign in to, because their provider is not configured any more, or passwords are off:
/// provider and number.
fn stranded_accounts(config: &Config) -> Vec<(Option<String>, u64)> {
    let found =
        looked(config).and_then(|mut admin| identities::stranded(&mut admin, &identities::ways_in(config)).ok());
    let found = found.unwrap_or_default();
    for (provider, count) in &found {
        let accounts = if *count == 1 { "account has" } else { "accounts have" };
        let what = match provider {
            Some(provider) if config.password.enabled => {
                format!("no password and only identities of \"{provider}\", which is not configured")
            }
            Some(provider) => format!("only identities of \"{provider}\", which is not configured"),
            None => "only a password, and passwords are off: link a provider, see docs/providers.md".to_owned(),
        };
        say_aside(&format!("warning: {count} {accounts} {what}"));
    }
    found
}

/// Prints warnings to standard error.
pub(super) fn remark(warnings: &Faults) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = write!(std::io::stderr().lock(), "{}", warnings.render(color));
}

/// The groups of all accounts; `None` if there are no accounts.
fn groups_with_people(config: &Config) -> Option<Vec<String>> {
    let users = looked(config)?.users().ok()?;
    (!users.is_empty()).then(|| users.into_iter().flat_map(|user| user.groups).collect())
}

/// The accounts, if there are any yet.
fn looked(config: &Config) -> Option<Admin> {
    refuse_store(config).ok()?;
    Admin::open_read_only(config, Clock::system()).ok()
}
