//! The documentation is true: configurations are good, the tutorial runs, names and links are there, and the
//! reference of the commands is what the binary says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::gateway::{command, is_here};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and everything in docs/.
pub fn pages() -> Vec<(PathBuf, String)> {
    let mut files: Vec<_> =
        std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.extend(["README.md", "SECURITY.md", "benches/README.md"].map(|name| root().join(name)));
    files.retain(|file| file.extension().is_some_and(|kind| kind == "md"));
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read_to_string(file).unwrap())).collect()
}

/// The fenced blocks of a language, with the line where each begins.
pub fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String, bool)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(fence)) => open = Some((number + 1, String::new(), fence == language)),
            (Some((at, block, wanted)), Some(_)) => {
                if *wanted {
                    found.push((*at, std::mem::take(block)));
                }
                open = None;
            }
            (Some((_, block, _)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

#[test]
fn every_whole_configuration_in_the_documentation_is_good() {
    let mut checked = 0;
    for (page, text) in pages() {
        for (line, block) in blocks(&text, "toml").into_iter().filter(|(_, block)| block.contains("[[route]]")) {
            let folder = tempfile::TempDir::new().unwrap();
            std::fs::write(folder.path().join("gateway.toml"), &block).unwrap();
            let output = command(folder.path(), &["check"])
                .env("NEXTAUTH_SECRET", "b2Yq7cVh1mLw9sTzP4xKe8RdJ6uFaNgC")
                .env("OAUTH2_PROXY_CLIENT_SECRET", "a secret of the application")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{}:{line}\n{said}{}",
                page.display(),
                String::from_utf8_lossy(&output.stdout)
            );
            checked += 1;
        }
    }
    assert!(checked >= 18, "{checked}");
}

/// README, tutorial: "Our tests run the commands below as they stand" (on other ports: these may be taken).
#[test]
fn the_tutorial_runs_as_written() {
    if !is_here("curl") {
        return;
    }
    let text = std::fs::read_to_string(root().join("docs/tutorial.md")).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (app, gateway, admin) = (free(), free(), free());
    let listens = format!("[server]\nlisten = [\"127.0.0.1:{gateway}\"]\nadmin_listen = \"127.0.0.1:{admin}\"\n\n");
    let mut script = String::from("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    let mut expected = Vec::new();
    for (_, block) in blocks(&text, "sh") {
        expected.extend(block.lines().filter_map(|line| line.strip_prefix("# ")).map(str::to_owned));
        let block = block.replace("<<'TOML'\n", &format!("<<'TOML'\n{listens}"));
        let block = block.replace("3000", &app).replace("127.0.0.1:8080", &format!("127.0.0.1:{gateway}"));
        script.push_str(&block);
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_authgate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let child = Command::new("timeout")
        .args(["60", "bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
    assert_eq!(expected.len(), 3, "{expected:?}");
    for line in expected {
        let line = line.replace("127.0.0.1:8080", &format!("127.0.0.1:{gateway}"));
        assert!(said.lines().any(|own| own == line), "{line} does not stand in\n{said}");
    }
}

#[test]
fn every_link_leads_to_a_file_that_is_there() {
    let mut followed = 0;
    for (page, text) in pages() {
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap().split('#').next().unwrap();
            if target.is_empty() || target.contains("://") || target.contains(' ') {
                continue;
            }
            let file = page.parent().unwrap().join(target);
            assert!(file.exists(), "{}: {target}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

/// Who reads about the design opens these next.
#[test]
fn the_files_and_rooms_that_the_design_names_exist() {
    let text = std::fs::read_to_string(root().join("docs/design.md")).unwrap();
    let words = text.split('`').skip(1).step_by(2);
    let named: Vec<&str> = words
        .filter(|word| word.contains('/') && Path::new(word).extension().is_some_and(|kind| kind == "rs"))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let places = [root().join("src").join(name), root().join(name)];
        assert!(places.iter().any(|place| place.is_file()), "{name}");
    }
    let map = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for room in map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')) {
        assert!(text.contains(&format!("`{room}`")) || room == "critical", "{room}");
    }
}

/// All text of a folder's files.
fn sources(folder: &str) -> String {
    let mut all = String::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("node_modules") && !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "mjs") {
                all.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    all
}

/// A promise whose test has gone is no promise: names in backticks with `::` are tests or modules of tests.
#[test]
fn every_test_that_is_named_in_the_documentation_exists() {
    let code = sources("tests") + &sources("src");
    let mut named = BTreeSet::new();
    for page in ["docs/asvs.md", "docs/security.md", "README.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            if !word.contains("::") || !word.chars().all(is_name) {
                continue;
            }
            let name = word.rsplit("::").next().unwrap();
            let there = [format!("fn {name}("), format!("mod {name};"), format!("mod {name} {{")];
            assert!(there.iter().any(|line| code.contains(line)), "{page} names {word}");
            named.insert(word.to_owned());
        }
    }
    assert!(named.len() >= 40, "{named:?}");
}

fn help(arguments: &[&str]) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_authgate"))
        .args(arguments)
        .arg("--help")
        .current_dir(folder.path())
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names under `Commands:` of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let named = lines.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    let names = named.map(|line| line.split_whitespace().next().unwrap().to_owned());
    names.filter(|name| name != "help").collect()
}

fn reference(arguments: &[&str], out: &mut String) {
    let text = help(arguments);
    let title = ["authgate", &arguments.join(" ")].join(" ");
    let lines: Vec<_> = text.trim_end().lines().map(str::trim_end).collect();
    let _ = write!(out, "\n## {}\n\n```text\n{}\n```\n", title.trim(), lines.join("\n"));
    for name in subcommands(&text) {
        reference(&[arguments, &[name.as_str()]].concat(), out);
    }
}

/// `UPDATE_DOCS=1 cargo test --test it docs::` writes it anew.
#[test]
fn the_reference_of_the_commands_is_what_the_binary_says() {
    let mut text = String::from(
        "# Commands\n\nThe output of `--help`, generated by a test (`tests/it/docs.rs`). Exit codes: 0 success, 1 failed or \
         refused, 2 usage error, 64 invalid configuration.\n",
    );
    reference(&[], &mut text);
    let file = root().join("docs/commands.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "run it with UPDATE_DOCS=1");
}
