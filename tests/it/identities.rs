//! Identities by command: link, unlink, show, import of next-auth's `Account` rows, and what `provider` says of them.

use std::path::Path;
use std::process::Stdio;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::gateway::{Gateway, command, configured};
use crate::import::PRISMA;

const CONFIG: &str = "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n\
    [[provider]]\nname = \"github\"\nkind = \"github\"\nlabel = \"GitHub\"\nclient_id = \"id\"\n\
    [[provider]]\nname = \"corp\"\nkind = \"oidc\"\nlabel = \"Corp\"\nclient_id = \"id\"\nissuer = \"https://corp.example.com\"\n\
    [[route]]\nupstream = \"builtin:whoami\"\n";

fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = command(folder, arguments).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

fn listed(folder: &Path, arguments: &[&str]) -> Value {
    let output = command(folder, &[arguments, &["--json"]].concat()).stdin(Stdio::null()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn identities(folder: &Path, email: &str) -> Value {
    listed(folder, &["user", "show", email])["identities"].clone()
}

/// The database as the gateway would leave it after a sign-in with this identity.
fn signed_in(folder: &Path, provider: &str, subject: &str, issuer: &str) {
    let database = Connection::open(folder.join("state/authgate.db")).unwrap();
    let sql = "UPDATE identity SET issuer = ?3, seen = 1800000000, login = 'octo' WHERE provider = ?1 AND subject = ?2";
    assert_eq!(database.execute(sql, [provider, subject, issuer]).unwrap(), 1);
}

#[test]
fn an_identity_is_linked_to_one_account_shown_and_unlinked_by_command_with_or_without_a_gateway() {
    let gateway = Gateway::start(CONFIG);
    gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let folder = gateway.folder();
    assert_eq!(identities(folder, "ada@example.com"), json!([]));
    let (code, said) = run(folder, &["user", "link", "ada@example.com", "github", "583231"]);
    assert!(code == 0 && said.contains("linked github to ada@example.com"), "{said}");
    for (arguments, expected) in [
        (&["user", "link", "ada@example.com", "github", "583231"][..], "is linked to it already"),
        (&["user", "link", "bob@example.com", "github", "583231"], "is linked to another account"),
        (&["user", "link", "bob@example.com", "gitlab", "1"], "no [[provider]] is named `gitlab`"),
        (&["user", "link", "bob@example.com", "github", ""], "cannot be a person's id"),
        (&["user", "link", "eve@example.com", "github", "1"], "no account with the e-mail"),
        (&["user", "unlink", "bob@example.com", "github"], "is not linked to that person of github"),
    ] {
        let (code, said) = run(folder, arguments);
        assert!(code == 1 && said.contains(expected), "{arguments:?}: {said}");
    }
    assert_eq!(identities(folder, "ada@example.com"), json!([{ "provider": "github", "subject": "583231" }]));
    signed_in(folder, "github", "583231", "https://github.com/login/oauth");
    let shown = gateway.cli(&["user", "show", "ada@example.com"]);
    assert!(shown.contains("identity  github 583231 (octo), last used 2027-01-15T08:00:00Z"), "{shown}");
    let events = gateway.cli(&["audit", "list", "ada@example.com"]);
    assert!(events.contains("identity_linked"), "{events}");
    let folder = gateway.into_folder();
    assert_eq!(run(folder.path(), &["user", "link", "ada@example.com", "github", "2"]).0, 0);
    let (code, said) = run(folder.path(), &["user", "unlink", "ada@example.com", "github"]);
    assert_eq!(code, 1);
    assert!(said.contains("has several identities of github: name one of"), "{said}");
    assert_eq!(run(folder.path(), &["user", "unlink", "ada@example.com", "github", "2"]).0, 0);
    assert_eq!(run(folder.path(), &["user", "unlink", "ada@example.com", "github"]).0, 0, "there is a password");
    assert_eq!(identities(folder.path(), "ada@example.com"), json!([]));
}

#[test]
fn the_last_way_to_sign_in_is_only_removed_by_force_and_check_counts_accounts_without_one() {
    let folder = configured(CONFIG);
    assert_eq!(run(folder.path(), &["user", "add", "ada@example.com"]).0, 0);
    for provider in ["github", "corp"] {
        assert_eq!(run(folder.path(), &["user", "link", "ada@example.com", provider, "1"]).0, 0);
    }
    assert!(!run(folder.path(), &["check"]).1.contains("warning"), "{}", run(folder.path(), &["check"]).1);
    assert_eq!(run(folder.path(), &["user", "unlink", "ada@example.com", "github"]).0, 0);
    let (code, said) = run(folder.path(), &["user", "unlink", "ada@example.com", "corp"]);
    assert!(code == 1 && said.contains("use --force if that is intended"), "{said}");
    let file = folder.path().join("gateway.toml");
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, whole.replace("name = \"corp\"", "name = \"other\"")).unwrap();
    let (code, said) = run(folder.path(), &["check"]);
    let expected = "1 account has no password and only identities of \"corp\", which is not configured";
    assert!(code == 0 && said.contains(expected), "{said}");
    std::fs::write(&file, whole).unwrap();
    assert_eq!(run(folder.path(), &["user", "unlink", "ada@example.com", "corp", "--force"]).0, 0);
}

#[test]
fn provider_list_names_what_to_register_and_who_uses_it_and_adopt_pins_another_issuer() {
    let folder = configured(CONFIG);
    let before = listed(folder.path(), &["provider", "list"]);
    assert_eq!(before[0]["redirect_uri"], "http://127.0.0.1/.auth/oauth/github/callback");
    assert_eq!((&before[1]["kind"], &before[1]["accounts"]), (&json!("oidc"), &json!(0)));
    assert!(!folder.path().join("state/authgate.db").exists(), "it only tells");
    assert_eq!(run(folder.path(), &["user", "add", "ada@example.com"]).0, 0);
    assert_eq!(run(folder.path(), &["user", "link", "ada@example.com", "corp", "1"]).0, 0);
    signed_in(folder.path(), "corp", "1", "https://old.example.com");
    let list = listed(folder.path(), &["provider", "list"]);
    assert_eq!((&list[1]["accounts"], &list[1]["seen"]), (&json!(1), &json!("2027-01-15T08:00:00Z")));
    let (_, said) = run(folder.path(), &["provider", "adopt", "corp"]);
    assert!(said.contains("1 identity of corp now belong to https://corp.example.com"), "{said}");
    assert!(run(folder.path(), &["provider", "adopt", "corp"]).1.contains("0 identities of corp"));
    assert_eq!(run(folder.path(), &["provider", "adopt", "gone"]).0, 1);
}

pub const ACCOUNTS: &str = r#"
CREATE TABLE "Account" ("id" TEXT NOT NULL PRIMARY KEY, "userId" INTEGER NOT NULL, "type" TEXT NOT NULL, "provider" TEXT NOT NULL,
    "providerAccountId" TEXT NOT NULL, "refresh_token" TEXT, "access_token" TEXT, "id_token" TEXT);
"#;

/// What next-auth stored of people's Google and GitHub accounts.
#[test]
fn rows_of_next_auths_account_table_become_identities_and_its_tokens_are_not_read() {
    let folder = configured(CONFIG);
    let file = folder.path().join("dev.db");
    let database = Connection::open(&file).unwrap();
    database.execute_batch(PRISMA).unwrap();
    database.execute_batch(ACCOUNTS).unwrap();
    database
        .execute_batch(
            "INSERT INTO User (id, email, password) VALUES (1, 'ada@example.com', ''), (2, 'bob@example.com', ''), (3, 'broken', '');
             INSERT INTO Account VALUES
                 ('a', 1, 'oauth', 'github', '583231', 'ghr_stolen', 'gho_stolen', NULL),
                 ('b', 1, 'oidc', 'azure-ad', 'AAAA', NULL, 'stolen', 'stolen'),
                 ('c', 2, 'oauth', 'github', '583231', NULL, NULL, NULL),
                 ('d', 2, 'email', 'email', 'bob@example.com', NULL, NULL, NULL),
                 ('e', 2, 'credentials', 'credentials', '2', NULL, NULL, NULL),
                 ('f', 3, 'oauth', 'github', '7', NULL, NULL, NULL),
                 ('g', 2, 'oauth', 'Discord_X', '8', NULL, NULL, NULL),
                 ('h', 2, 'oauth', 'gitlab', '9', NULL, NULL, NULL);",
        )
        .unwrap();
    drop(database);
    let import = ["user", "import", file.to_str().unwrap(), "--format", "prisma", "--provider", "azure-ad=corp"];
    let (code, said) = run(folder.path(), &[&import[..], &["--dry-run"]].concat());
    assert!(code == 0 && said.contains("would import 3 of 6 identities, skipped 3"), "{said}");
    let (code, said) = run(folder.path(), &import);
    assert!(code == 0 && said.contains("imported 3 of 6 identities, skipped 3"), "{said}");
    for finding in [
        "dev.db:identity 3: this person of github belongs to another account: skipped",
        "dev.db:identity 6: its account 3 was not imported: skipped",
        "dev.db:identity 7: `Discord_X` cannot be the name of a [[provider]] (use --provider Discord_X=NAME): skipped",
        "dev.db:identity 8: no [[provider]] is named \"gitlab\"; imported all the same",
    ] {
        assert!(said.contains(finding), "{finding}\n{said}");
    }
    let own = json!([{ "provider": "corp", "subject": "AAAA" }, { "provider": "github", "subject": "583231" }]);
    assert_eq!(identities(folder.path(), "ada@example.com"), own);
    assert_eq!(identities(folder.path(), "bob@example.com"), json!([{ "provider": "gitlab", "subject": "9" }]));
    let stored = std::fs::read(folder.path().join("state/authgate.db")).unwrap();
    assert!(!stored.windows(6).any(|window| window == b"stolen"), "a token was imported");
    let pinned: u32 = Connection::open(folder.path().join("state/authgate.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM identity WHERE issuer IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(pinned, 0, "pinned at the first sign-in");
}

#[test]
fn identities_are_imported_from_csv_files_too_and_strict_refuses_all_of_it() {
    let folder = configured(CONFIG);
    let [users, accounts] = ["users.csv", "accounts.csv"].map(|name| folder.path().join(name));
    std::fs::write(&users, "id,email,emailVerified\nu1,ada@example.com,2024-01-01 00:00:00\nu2,bob@example.com,\n")
        .unwrap();
    std::fs::write(&accounts, "user_id,provider,provider_account_id,type\nu1,github,1,oauth\nu9,github,2,oauth\n")
        .unwrap();
    let import =
        ["user", "import", users.to_str().unwrap(), "--format", "csv", "--accounts", accounts.to_str().unwrap()];
    let (code, said) = run(folder.path(), &[&import[..], &["--strict"]].concat());
    assert!(code == 1 && said.contains("accounts.csv:2: its account u9 was not imported: skipped"), "{said}");
    assert_eq!(listed(folder.path(), &["user", "list"]), json!([]));
    let (code, said) = run(folder.path(), &import);
    assert!(code == 0 && said.contains("imported 1 of 2 identities, skipped 1"), "{said}");
    assert_eq!(identities(folder.path(), "ada@example.com"), json!([{ "provider": "github", "subject": "1" }]));
    let proved: Vec<bool> = {
        let database = Connection::open(folder.path().join("state/authgate.db")).unwrap();
        let mut query = database.prepare("SELECT email_proved FROM user ORDER BY email").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(proved, [true, false]);
    std::fs::write(&accounts, "user,provider\n").unwrap();
    let (code, said) = run(folder.path(), &import);
    assert!(code == 1 && said.contains("no column `userId`"), "{said}");
}
