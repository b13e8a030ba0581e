//! The documentation's commands do what the pages say when they are run as they stand there: each shell block is run by a
//! test, or is one of the few that none can run.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::backend::Backend;
use crate::docs::{blocks, pages};
use crate::gateway::{PASSWORD, is_here, not_here};
use crate::import::PRISMA;
use crate::restore::state_of_version;

/// Pages with the number of their shell blocks that the tests below run, in their order.
const RUN_HERE: &[(&str, usize)] =
    &[("backup.md", 4), ("http.md", 1), ("next-auth.md", 2), ("operations.md", 2), ("README.md", 2)];
/// Blocks that other tests run, by page and how they begin.
const RUN_ELSEWHERE: &[(&str, &str, &str)] = &[
    ("README.md", "apt-get update", "tests/bare"),
    ("README.md", "authgate run --to", "one_app_is_served_beside_another_gateway_and_healthcheck_needs_no_file_either"),
    ("next-auth.md", "authgate run", "guide.test.mjs"),
    ("recipes.md", "rclone", "programs.test.mjs"),
    ("recipes.md", "mlflow", "programs.test.mjs"),
    ("recipes.md", "tiddlywiki", "pages.test.mjs"),
    ("tutorial.md", "", "the_tutorial_runs_as_written"),
];
/// Blocks that install a service on the machine that they are run on.
const NOT_RUN: &[(&str, &str, &str)] = &[
    (
        "README.md",
        "tests/deb release",
        "tests/deb installs the package in a folder of its own; `systemctl enable` needs systemd",
    ),
    ("README.md", "cargo build --profile dist", "writes to /usr and /etc, and `systemctl enable` needs systemd"),
];

#[test]
fn every_shell_block_of_the_documentation_is_run_by_a_test_or_known_not_to_be() {
    let mut unused: Vec<_> = RUN_ELSEWHERE.iter().chain(NOT_RUN).collect();
    let mut here: Vec<(&str, usize)> = RUN_HERE.to_vec();
    for (page, text) in pages() {
        let name = page.file_name().unwrap().to_str().unwrap();
        for (line, block) in blocks(&text, "sh") {
            let matches = |(own, begins, _): &(&str, &str, &str)| *own == name && block.starts_with(begins);
            if RUN_ELSEWHERE.iter().chain(NOT_RUN).any(matches) {
                unused.retain(|entry| !matches(entry));
            } else {
                let left = here.iter_mut().find(|(own, left)| *own == name && *left > 0);
                left.unwrap_or_else(|| panic!("{name}:{line} is run by no test")).1 -= 1;
            }
        }
        // a block of another name would not be found
        for shell in ["bash", "shell", "console"] {
            assert!(blocks(&text, shell).is_empty(), "{name}: call it sh");
        }
    }
    assert!(unused.is_empty() && here.iter().all(|(_, left)| *left == 0), "gone from the pages: {unused:?} {here:?}");
    assert!(NOT_RUN.len() <= 2, "few");
}

/// The blocks of a page that are run here.
fn told<const N: usize>(page: &str) -> [String; N] {
    let (_, text) = pages().into_iter().find(|(file, _)| file.ends_with(page)).unwrap();
    let elsewhere = |block: &str| {
        RUN_ELSEWHERE.iter().chain(NOT_RUN).any(|(own, begins, _)| *own == page && block.starts_with(begins))
    };
    let own = blocks(&text, "sh").into_iter().map(|(_, block)| block).filter(|block| !elsewhere(block));
    own.collect::<Vec<_>>().try_into().unwrap()
}

/// What stands in the place of the service manager and of people, and an account.
const STAGE: &str = r#"
set -eu
journal=$PWD/journal
: >"$journal"
id=none
trap 'kill $(jobs -p) 2>/dev/null || :' EXIT
serve() { authgate run 2>>"$journal" & serving=$!; authgate healthcheck --wait 30s; }
systemctl() {
  [ "$*" = "stop authgate" ]
  kill "$serving"
  wait "$serving"
}
journalctl() { sed "s/$id/8c0d5a3be4b1f7a2/" "$journal"; }
echo "$PASSWORD" | authgate user add ada@example.com --group admin --password-stdin
"#;

/// A folder with a gateway.toml; `rest` follows the listeners in `[server]`.
fn folder(rest: &str) -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, admin) = (free(), free());
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:{port}\"]\npublic_url = \"http://127.0.0.1:{port}\"\nadmin_listen = \"127.0.0.1:{admin}\"\n{rest}"
    );
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    std::fs::write(folder.path().join("url"), format!("http://127.0.0.1:{port}")).unwrap();
    folder
}

/// Runs a script in a folder, with the binary in the path; gives what it said on standard output. `wrapped`: a command
/// that runs it.
fn run(folder: &Path, script: &str, wrapped: &[&str]) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_authgate")).parent().unwrap();
    let path = format!("{}:{}:/usr/sbin", binary.display(), std::env::var("PATH").unwrap());
    let Output { status, stdout, stderr } = Command::new("timeout")
        .arg("120")
        .args(wrapped)
        .args(["bash", "-c", script])
        .current_dir(folder)
        .envs([
            ("PATH", path.as_str()),
            ("PASSWORD", PASSWORD),
            ("NEXTAUTH_SECRET", "b2Yq7cVh1mLw9sTzP4xKe8RdJ6uFaNgC"),
        ])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let [out, err] = [stdout, stderr].map(|said| String::from_utf8(said).unwrap());
    assert!(status.success(), "{status}\n{script}\n{out}\n{err}");
    out
}

/// docs/backup.md: its folders are the machine's own, so that it is run where /var is another one.
#[test]
fn backups_are_made_kept_and_restored_by_the_commands_of_their_page() {
    let apart = ["unshare", "--mount", "--map-root-user"];
    let can = Command::new(apart[0]).args(&apart[1..]).args(["mount", "-t", "tmpfs", "none", "/var"]).status();
    if !can.is_ok_and(|status| status.success()) {
        return not_here("no file system can be mounted here (unshare)");
    }
    let folder = folder("state_dir = \"/var/lib/authgate\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let old = folder.path().join("old");
    std::fs::create_dir(&old).unwrap();
    state_of_version(&old, 2);
    let [once, daily, restore, back] = told("backup.md");
    let script = format!(
        r#"
mount -t tmpfs none /var
mkdir -p /var/backups /var/lib
{STAGE}
serve
{once}
test "$(head -c 15 /var/backups/authgate.db)" = 'SQLite format 3'

for day in $(seq 10 29); do touch -d "2026-01-$day" "/var/backups/authgate-2026-01-$day.db"; done
{daily}
test "$(ls /var/backups/authgate-20*.db | wc -l)" = 14
test "$(head -c 15 "/var/backups/authgate-$(date +%F).db")" = 'SQLite format 3'
test ! -e /var/backups/authgate-2026-01-16.db
test -e /var/backups/authgate-2026-01-17.db

cp /var/backups/authgate.db /var/backups/authgate-2026-11-24.db
authgate user add bob@example.com >/dev/null
{restore}
test "$(authgate user list --json | jq -r .[].email)" = ada@example.com
ls /var/lib/authgate/authgate.db.replaced-*

systemctl stop authgate
rm -r /var/lib/authgate
cp -a old/state /var/lib/authgate
serve
{back}
test "$(sqlite3 /var/lib/authgate/authgate.db 'PRAGMA user_version')" = 2
ls /var/lib/authgate/authgate.db.replaced-*
"#
    );
    if is_here("jq") && is_here("sqlite3") {
        run(folder.path(), &script, &apart);
    }
}

/// docs/operations.md, "Reading the log"; docs/http.md, "Finding a refusal".
#[test]
fn the_log_answers_the_questions_of_its_page() {
    if !is_here("jq") {
        return;
    }
    let slow = Backend::start(|_, stream| {
        // a second is what the page asks for
        std::thread::sleep(Duration::from_millis(1_050));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let folder = folder(&format!("[[route]]\nupstream = \"http://{}\"\n", slow.address));
    let [log, audit] = told("operations.md");
    let [refusal] = told("http.md");
    let apart = |block: &str| block.lines().map(|line| format!("echo ==\n{line}\n")).collect::<Vec<_>>().concat();
    let script = format!(
        r#"{STAGE}
serve
url=$(cat url)
curl -s -c cookies -d email=ada@example.com --data-urlencode "password=$PASSWORD" "$url/.auth/login"
curl -s -b cookies "$url/slow" >/dev/null
id=$(curl -s -D - -o /dev/null "$url/refused" | sed -n 's/^x-request-id: *\([0-9a-f]*\).*/\1/ip')
# a line is written behind its answer
for line in '"sign_in"' '"path":"/slow"' "$id"; do until grep -q "$line" "$journal"; do :; done; done
{}{}{}"#,
        apart(&log),
        apart(&audit),
        apart(&refusal)
    );
    let out = run(folder.path(), &script, &[]);
    let parts: Vec<_> = out.split("==\n").skip(1).collect();
    let [_, signed_in, refused, slow, audit, line, explained] = parts[..] else { panic!("{out}") };
    let row = |part: &str| -> Vec<serde_json::Value> {
        assert_eq!(part.lines().count(), 1, "{out}");
        serde_json::from_str(part).unwrap()
    };
    let signed_in = row(signed_in);
    assert!(signed_in[0].is_string() && signed_in[1] == "ada@example.com" && signed_in[2] == "127.0.0.1", "{out}");
    let refused = row(refused);
    assert!(refused[3] == "/refused" && refused[4] == 1 && refused[5] == "signed out", "{out}");
    let slow = row(slow);
    assert!(slow[1].is_string() && slow[3] == "/slow" && slow[4].as_f64().unwrap() > 1000.0, "{out}");
    assert!(audit.contains("sign_in") && audit.contains("ada@example.com"), "{out}");
    assert!(line.lines().count() == 1 && line.contains("/refused"), "{out}");
    assert!(explained.contains("ada@example.com"), "{out}");
}

/// README, "Who may do what" and "People"; docs/next-auth.md, 1 and 2.
#[test]
fn accounts_are_kept_by_the_commands_of_the_readme() {
    if !is_here("curl") {
        return;
    }
    let folder = folder("[[route]]\nupstream = \"builtin:whoami\"\n");
    let prisma = folder.path().join("packages/db/prisma");
    std::fs::create_dir_all(&prisma).unwrap();
    for file in [folder.path().join("dev.db"), prisma.join("dev.db")] {
        let (id, name) = if file.starts_with(&prisma) { (42, "dan") } else { (41, "cy") };
        let database = rusqlite::Connection::open(file).unwrap();
        database.execute_batch(PRISMA).unwrap();
        let hash = bcrypt::hash_with_salt(PASSWORD.as_bytes(), 4, [9; 16]).unwrap().to_string();
        let row = "INSERT INTO \"User\" (id, email, password) VALUES (?1, ?2 || '@example.com', ?3)";
        database.execute(row, (id, name, &hash)).unwrap();
    }
    let [explain, people] = told("README.md");
    let [check, import] = told("next-auth.md");
    let script = format!(
        r#"{STAGE}
{explain}
authgate user remove ada@example.com --yes
serve
# somebody guesses, so that there is a ban to lift
for try in 1 2 3 4 5; do curl -s -d email=ada@example.com -d "password=$try" "$(cat url)/.auth/login" >/dev/null; done
{people}
{check}
{import}
authgate user list
"#
    );
    let out = run(folder.path(), &script, &[]);
    for email in ["ada.l@example.com", "cy@example.com", "dan@example.com"] {
        assert!(out.contains(email), "{email}: {out}");
    }
    assert!(out.contains("agt_") && out.contains("/.auth/invite/") && out.contains("/.auth/reset/"), "{out}");
}

/// With `--help` behind, an unknown command or option is wrong usage all the same, and nothing is done.
#[test]
fn every_command_that_the_text_names_is_one() {
    let parses = |command: &str| {
        let script = format!("exec \"$0\" {} --help", command.strip_prefix("authgate").unwrap());
        let output = Command::new("bash").args(["-c", &script, env!("CARGO_BIN_EXE_authgate")]).output().unwrap();
        output.status.success()
    };
    assert!(!parses("authgate user nonsense"));
    assert!(!parses("authgate invite --nonsense"));
    let mut tried = std::collections::BTreeSet::new();
    for (page, text) in pages() {
        for part in text.split('`').skip(1).step_by(2) {
            let is_command =
                part.starts_with("authgate ") && !part.contains(['[', '|', '<', '\n']) && !part.contains("...");
            if is_command && tried.insert(part.to_owned()) {
                assert!(parses(part), "{}: {part}", page.display());
            }
        }
    }
    assert!(tried.len() >= 25, "{tried:?}");
}
