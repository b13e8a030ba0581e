//! Parses a text into a [`Config`] or its faults.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::fault::{Fault, Faults};
use super::file::{Reading, Secrets};
use super::settings::Config;
use super::{conceal, lower};

/// Validates a text. `env` replaces the environment; relative paths are resolved against `base`.
pub fn parse(text: &str, file: &str, base: PathBuf, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let (config, faults) = judge(text, file, Reading::new(env, base, Secrets::Read));
    if faults.list().is_empty() { Ok(config) } else { Err(faults) }
}

/// The configuration with defaults in place of invalid values, and all faults.
pub(super) fn judge(text: &str, file: &str, mut reading: Reading<'_>) -> (Config, Faults) {
    let (document, errors) = DeTable::parse_recoverable(text);
    reading.line_ends = text.match_indices('\n').map(|(at, _)| at).collect();
    let mut config = lower::lower(&document, &reading);
    config.named_groups = reading.groups.take();
    let (mut faults, warnings) = reading.into_findings();
    if !errors.is_empty() {
        // errors that follow from broken syntax do not help to repair the file
        faults = syntax_faults(text, &errors);
    }
    let shown = conceal::conceal(text, document.get_ref(), errors.is_empty(), &mut faults);
    config.warnings = Faults::warnings(file, &shown, warnings);
    (config, Faults::new(file, &shown, faults))
}

/// Syntax errors. The parser continues after an error, so a missing bracket causes many: only the first of each line is
/// reported, and for an unclosed bracket only the first of all and the bracket itself.
fn syntax_faults(text: &str, errors: &[toml::de::Error]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let line = |at: usize| memchr::memchr_iter(b'\n', &text.as_bytes()[..at.min(text.len())]).count();
    let is_unclosed = |error: &toml::de::Error| {
        ["unclosed array", "unclosed inline table"].iter().any(|what| error.message().starts_with(what))
    };
    let unclosed = errors.iter().any(is_unclosed);
    for (at, error) in errors.iter().enumerate() {
        let span = error.span().unwrap_or(0..0);
        let last = faults.last().map(|last| line(last.span.start));
        if last == Some(line(span.start)) || (unclosed && at > 0 && !is_unclosed(error)) {
            continue;
        }
        let remedy = match error.message() {
            message if message.contains("duplicate key") => "remove one of them",
            _ if unclosed => "add the missing bracket here or earlier",
            _ => "use `key = value` lines below [table] or [[table]] lines; put strings in quotes",
        };
        let what = format!("invalid TOML: {}", error.message().lines().next().unwrap_or_default());
        faults.push(Fault { span, what, remedy: remedy.to_owned() });
    }
    faults
}

/// `run --to URL`: all requests go to one app, for signed-in users only; the state directory is `./state`.
pub fn one_app(url: &str, listen: Option<&str>, state_dir: Option<&Path>) -> Result<Config, Faults> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::new();
    if let Some(listen) = listen {
        text = format!("[server]\nlisten = [{}]\n\n", quoted(listen));
    }
    text = format!("{text}[[route]]\nupstream = {}\n", quoted(url));
    let nothing = |_: &str| None;
    let mut config = parse(&text, "the command line", PathBuf::new(), &nothing)?;
    if let Some(state_dir) = state_dir {
        state_dir.clone_into(&mut config.server.state_dir);
    }
    Ok(config)
}
