//! A text becomes a [`Config`], or all that is wrong with it.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::fault::{Fault, Faults};
use super::file::{Reading, Secrets};
use super::settings::Config;
use super::{conceal, lower};

/// Judges a text. `env` stands in for the environment; relative paths hang on `base`.
pub fn parse(text: &str, file: &str, base: PathBuf, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let (config, faults) = judge(text, file, Reading::new(env, base, Secrets::Read));
    if faults.list().is_empty() { Ok(config) } else { Err(faults) }
}

/// What the text says, with defaults in the place of what is wrong in it, and all that is wrong.
pub(super) fn judge(text: &str, file: &str, mut reading: Reading<'_>) -> (Config, Faults) {
    let (document, errors) = DeTable::parse_recoverable(text);
    reading.line_ends = text.match_indices('\n').map(|(at, _)| at).collect();
    let mut config = lower::lower(&document, &reading);
    config.named_groups = reading.groups.take();
    let (mut faults, warnings) = reading.into_findings();
    if !errors.is_empty() {
        // what the rest comes to is of no use to anybody who repairs the file
        faults = syntax_faults(text, &errors);
    }
    let shown = conceal::conceal(text, document.get_ref(), errors.is_empty(), &mut faults);
    config.warnings = Faults::warnings(file, &shown, warnings);
    (config, Faults::new(file, &shown, faults))
}

/// What is no TOML. The parser goes on after a fault, so that a bracket that is missing has many: of a line the first
/// is told, and where something is never closed, the first of all and that.
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

/// `run --to URL`: everything goes to one app, for signed-in users only; state in `./state`.
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
