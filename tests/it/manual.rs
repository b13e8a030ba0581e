//! What the command line says of itself: help, completions, the manual page.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::gateway::is_here;

const BINARY: &str = env!("CARGO_BIN_EXE_authgate");

fn said(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Gives `input` to a program.
fn piped(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The commands below `path` that its help lists, and theirs, with the help of each.
fn walk(path: &[&str], found: &mut Vec<(String, String)>) {
    let help = said(&[path, &["--help"]].concat());
    let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    for name in listed.lines().map(|line| line.split_whitespace().next().unwrap()) {
        walk(&[path, &[name]].concat(), found);
    }
    found.push((path.join(" "), help.clone()));
}

fn commands() -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&[], &mut found);
    assert!(found.len() > 25, "{} commands", found.len());
    found
}

/// "Every command's --help ends with an example", and the binary takes it: with `--help` behind, an unknown
/// command or option is wrong usage all the same, and nothing is done.
#[test]
fn every_help_ends_with_an_example_that_parses() {
    let parses = |example: &str| {
        let first = example.split([';', '|', '&', '>']).next().unwrap();
        let arguments = first.strip_prefix("authgate ").unwrap_or_else(|| panic!("{example}"));
        let script = format!("exec \"$0\" {arguments} --help");
        Command::new("bash").args(["-c", &script, BINARY]).output().unwrap().status.success()
    };
    assert!(!parses("authgate user nonsense"));
    assert!(!parses("authgate invite --nonsense"));
    for (command, help) in commands() {
        let last = help.trim_end().lines().last().unwrap();
        let example = last.strip_prefix("Example: ").unwrap_or_else(|| panic!("{command}: {help}"));
        assert!(example.starts_with("authgate ") && example.contains(&command), "{command}: {example}");
        assert!(parses(example), "{command}: {example}");
    }
}

/// What Tab offers, from bash itself with the script that the binary prints.
#[test]
fn bash_completes_commands_and_options() {
    let script = said(&["completions", "bash"]);
    let checked = piped("bash", &["-n"], &script);
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));
    let offered = |words: &str| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _authgate authgate \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        let output = piped("bash", &[], &ask);
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(offered("authgate bac"), ["backup"]);
    assert_eq!(offered("authgate user dis"), ["disable"]);
    assert_eq!(offered("authgate user import --dry"), ["--dry-run"]);
    assert_eq!(offered("authgate nonsen"), [""]);
}

#[test]
fn zsh_and_fish_take_their_completions_where_they_are_installed() {
    for shell in ["zsh", "fish"] {
        let script = said(&["completions", shell]);
        assert!(script.contains("healthcheck") && script.contains("dry-run"), "{shell}");
        if Command::new(shell).arg("--version").output().is_ok() {
            let checked = piped(shell, &["-n"], &script);
            assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    assert_eq!(Command::new(BINARY).args(["completions", "cmd.exe"]).output().unwrap().status.code(), Some(2));
}

/// No word of mandoc's: not on the level of style either.
#[test]
fn the_manual_page_is_clean_and_names_every_command() {
    if !is_here("mandoc") {
        return;
    }
    let lint = |page: &str| {
        let output = piped("mandoc", &["-T", "lint", "-W", "all"], page);
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let page = said(&["man"]);
    assert_eq!(lint(&page), "");
    assert!(lint(&page.replace(".SH NAME", ".NONSENSE\n.SH NAME")).contains("NONSENSE"));
    let output = piped("mandoc", &["-T", "ascii", "-O", "width=200"], &page);
    let shown = piped("col", &["-b"], &String::from_utf8(output.stdout).unwrap());
    let shown = String::from_utf8(shown.stdout).unwrap();
    for (command, help) in commands() {
        let heading = format!("authgate {command}");
        assert!(shown.lines().any(|line| line.trim() == heading.trim()) || command.is_empty(), "{heading}");
        let example = help.trim_end().lines().last().unwrap();
        let below = help.contains("\nCommands:\n") && !command.is_empty();
        assert!(below || shown.contains(example), "{example}\n{shown}");
    }
}

/// `authgate man | head -1`
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    for verb in ["man", "completions bash"] {
        let script = format!("set -o pipefail; \"$0\" {verb} | head -c 1 >/dev/null");
        let output = Command::new("bash").args(["-c", &script, BINARY]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
