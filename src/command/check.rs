//! `authgate check`: judges the configuration without binding or creating anything, then its
//! `[[test]]` tables.

use std::io::IsTerminal;

use serde_json::json;

use super::{CommandError, Globals};
use crate::account::Admin;
use crate::clock::Clock;
use crate::config::{self, Config, Faults, Test};
use crate::gateway::prove::Prover;

/// Prints faults or test results.
pub fn run(globals: &Globals, as_json: bool) -> Result<(), CommandError> {
    let path = globals.config_path();
    let config = config::load(&path, globals.state_dir.as_deref(), config::Secrets::Read);
    let mut config = match config {
        Ok(config) => config,
        Err(faults) if as_json => {
            println!("{}", json!({ "ok": false, "faults": faults.to_json(), "warnings": [], "tests": [] }));
            return Err(CommandError::Config(faults));
        }
        Err(faults) => return Err(CommandError::Config(faults)),
    };
    if let Some(groups) = groups_with_people(&config) {
        config.warn_of_groups_without_people(&groups);
    }
    remark(&config.warnings);
    let prover = Prover::new(&config);
    let results: Vec<(&Test, String)> = config
        .tests
        .iter()
        .map(|test| (test, prover.prove(test).unwrap_or_else(|why| format!("error: {why}"))))
        .collect();
    let failed = results.iter().filter(|(test, got)| test.expect != *got).count();
    if as_json {
        let one = |(test, got): &(&Test, String)| {
            json!({ "line": test.line, "request": format!("{} {}", test.method, test.target),
                    "expect": test.expect, "got": got, "ok": test.expect == *got })
        };
        println!(
            "{}",
            json!({ "ok": failed == 0, "faults": [], "warnings": config.warnings.to_json(),
                    "tests": results.iter().map(one).collect::<Vec<_>>() })
        );
    } else {
        for (test, got) in results.iter().filter(|(test, got)| test.expect != *got) {
            println!(
                "{}:{}: {} {}\n  expected {}\n  got      {got}",
                path.display(),
                test.line,
                test.method,
                test.target,
                test.expect
            );
        }
        println!("{} is good; {} of {} tests passed", path.display(), results.len() - failed, results.len());
    }
    if failed == 0 { Ok(()) } else { Err(CommandError::Said) }
}

/// Says to the person at the terminal what is worth a look.
pub(super) fn remark(warnings: &Faults) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    eprint!("{}", warnings.render(color));
}

/// The groups of all accounts; `None` where there are no accounts that could tell.
fn groups_with_people(config: &Config) -> Option<Vec<String>> {
    let users = Admin::look(config, Clock::system()).ok()?.users().ok()?;
    (!users.is_empty()).then(|| users.into_iter().flat_map(|user| user.groups).collect())
}
