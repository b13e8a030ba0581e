//! Shell completions and the manual page. Both are generated from the clap definitions, so they are always current.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::verbs::Cli;

/// Date of the last change to the sections below: a manual page carries a date, and builds are reproducible.
const CHANGED: &str = "2026-11-30";

const LINE_BYTES_MAX: usize = 80;

const DESCRIPTION: &str = "authgate serves the login page, stores accounts in SQLite, checks the session of every request and \
forwards allowed requests to the apps behind it, with identity headers.";

const FILES: [(&str, &str); 3] = [
    ("gateway.toml", "the configuration, in the working directory"),
    ("/etc/authgate/gateway.toml", "the configuration, if the working directory has none"),
    ("/var/lib/authgate", "the state directory with that configuration: database and keys"),
];

const EXIT_CODES: [(&str, &str); 4] =
    [("0", "success"), ("1", "failed or refused"), ("2", "usage error"), ("64", "invalid configuration")];

pub(super) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "authgate", &mut script);
    script
}

/// One page for the program and all its commands.
pub(super) fn page() -> std::io::Result<String> {
    let mut root = Cli::command();
    root.build();
    let man = Man::new(root.clone()).title("AUTHGATE").date(CHANGED).manual("authgate");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    section("DESCRIPTION").text([roman(DESCRIPTION)]).to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    section("COMMANDS").to_writer(&mut page)?;
    for verb in root.get_subcommands() {
        command(verb, &mut page)?;
    }
    list("FILES", &FILES).to_writer(&mut page)?;
    list("EXIT STATUS", &EXIT_CODES).to_writer(&mut page)?;
    example(&root, &mut section("EXAMPLES")).to_writer(&mut page)?;
    Ok(tidied(&String::from_utf8_lossy(&page)))
}

/// Fixes what mandoc warns of: definitions repeated in each section, breaks next to blank space, trailing blanks, and
/// text lines over 80 bytes. The line after `.TP` is a term and is never wrapped.
fn tidied(page: &str) -> String {
    let mut out = String::new();
    let mut term = false;
    for (number, line) in page.lines().map(str::trim_end).enumerate() {
        let repeated = number > 1 && (line.starts_with(".ie ") || line.starts_with(".el "));
        if repeated || line == ".br" || line.is_empty() {
            continue;
        }
        let whole = term || line.starts_with('.');
        term = line == ".TP";
        let mut column = 0;
        for word in line.split(' ') {
            if !whole && column > 0 && column + word.len() >= LINE_BYTES_MAX {
                out.push('\n');
                column = 0;
                // a leading dot would make it a macro
                if word.starts_with('.') {
                    out.push_str("\\&");
                }
            } else if column > 0 {
                out.push(' ');
            }
            out.push_str(word);
            column += word.len() + 1;
        }
        out.push('\n');
    }
    out
}

/// A command and its subcommands: description, usage, arguments beyond the global options, and an example.
fn command(verb: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let name = verb.get_bin_name().unwrap_or_else(|| verb.get_name());
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    Roff::new().control("SS", [name]).text([roman(format!("{about}."))]).to_writer(page)?;
    let does_something = verb.get_arguments().any(|argument| !is_common(argument)) || !verb.has_subcommands();
    if does_something {
        alone(verb, page)?;
    }
    for verb in verb.get_subcommands() {
        command(verb, page)?;
    }
    Ok(())
}

fn is_common(argument: &clap::Arg) -> bool {
    argument.is_global_set() || argument.get_id() == "help"
}

/// A command without its subcommands.
fn alone(verb: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let own = verb.clone().mut_args(|argument| if is_common(&argument) { argument.hide(true) } else { argument });
    let man = Man::new(own);
    Roff::new().control("PP", []).to_writer(page)?;
    headless(page, |out| man.render_synopsis_section(out))?;
    headless(page, |out| man.render_options_section(out))?;
    example(verb, Roff::new().control("PP", [])).to_writer(page)
}

/// A section rendered by `Man`, without its heading: it goes under the command's heading.
fn headless(page: &mut Vec<u8>, render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut section = Vec::new();
    render(&mut section)?;
    let lines = section.split_inclusive(|&byte| byte == b'\n').filter(|line| !line.starts_with(b".SH"));
    page.extend(lines.flatten());
    Ok(())
}

fn section(heading: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [heading]);
    section
}

fn list(heading: &str, items: &[(&str, &str)]) -> Roff {
    let mut list = section(heading);
    for (term, meaning) in items {
        list.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
    }
    list
}

fn example<'r>(verb: &Command, page: &'r mut Roff) -> &'r mut Roff {
    let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
    page.text([roman(help.lines().last().unwrap_or_default())])
}
