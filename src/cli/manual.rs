//! What the command line says of itself: completions for shells, and the manual page. Both are made from the
//! arguments as clap knows them, so neither can fall behind.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::verbs::Cli;

/// When the sections below were last changed: a page has to carry a date, and the same build gives the same page.
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

/// One page for the program with all of its commands.
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

/// What mandoc finds fault with: definitions that each section repeats, breaks beside space, blanks at the end, and
/// lines of text over 80 bytes. The line that follows `.TP` is a term and stays whole.
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
                // a dot in front would make it a request
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

/// A command and those below it: what it does, its usage, what it takes beyond the options of all, an example.
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

/// What a command does without those below it.
fn alone(verb: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let own = verb.clone().mut_args(|argument| if is_common(&argument) { argument.hide(true) } else { argument });
    let man = Man::new(own);
    Roff::new().control("PP", []).to_writer(page)?;
    headless(page, |out| man.render_synopsis_section(out))?;
    headless(page, |out| man.render_options_section(out))?;
    example(verb, Roff::new().control("PP", [])).to_writer(page)
}

/// A section of `Man`'s without its heading: it stands under the command's.
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
