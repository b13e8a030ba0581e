//! `user import`: accounts of other programs sign in with their old passwords.

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::gateway::{Gateway, command, configured};

/// What Prisma 6 makes of the guide's model.
pub const PRISMA: &str = r#"
CREATE TABLE "_prisma_migrations" ("id" TEXT NOT NULL PRIMARY KEY);
CREATE TABLE "User" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "email" TEXT NOT NULL, "password" TEXT NOT NULL, "name" TEXT, "photo" TEXT);
CREATE UNIQUE INDEX "User_email_key" ON "User"("email");
"#;

const CHEAP: &str = "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n[throttle]\nmax_retries = 1000\n[[route]]\nupstream = \"builtin:whoami\"\n";

fn hashed(password: &str, version: bcrypt::Version) -> String {
    let bytes = password.as_bytes();
    bcrypt::hash_with_salt(&bytes[..bytes.len().min(72)], 4, [9; 16]).unwrap().format_for_version(version)
}

pub fn hash(password: &str) -> String {
    hashed(password, bcrypt::Version::TwoB)
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn import(folder: &Path, file: &Path, rest: &[&str]) -> Run {
    let arguments = [&["user", "import", file.to_str().unwrap()], rest].concat();
    let output = command(folder, &arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&file.display().to_string(), "FILE");
    Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn users(folder: &Path) -> Vec<Value> {
    let output = command(folder, &["user", "list", "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The kinds of the stored hashes.
fn kinds(folder: &Path) -> Vec<(String, i64)> {
    let db = Connection::open(folder.join("state/authgate.db")).unwrap();
    let mut query = db
        .prepare(
            "SELECT coalesce(substr(password, 1, 4), 'none') AS kind, count(*) FROM user GROUP BY kind ORDER BY kind",
        )
        .unwrap();
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_thousand_users_of_a_prisma_file_sign_in_with_their_old_passwords_and_get_new_hashes() {
    let config = configured(CHEAP);
    let file = config.path().join("dev.db");
    let mut db = Connection::open(&file).unwrap();
    db.execute_batch(PRISMA).unwrap();
    let tx = db.transaction().unwrap();
    let versions = [bcrypt::Version::TwoA, bcrypt::Version::TwoB, bcrypt::Version::TwoY];
    for number in 0..1000usize {
        let values = (
            7 + 2 * i64::try_from(number).unwrap(),
            format!("user{number}@example.com"),
            hashed(&format!("old password {number}"), versions[number % 3].clone()),
            format!("User {number}"),
        );
        tx.execute("INSERT INTO \"User\" (id, email, password, name) VALUES (?1, ?2, ?3, ?4)", values).unwrap();
    }
    tx.execute("INSERT INTO \"User\" (id, email, password) VALUES (5000, 'gone@example.com', 'x')", []).unwrap();
    tx.execute("DELETE FROM \"User\" WHERE id = 5000", []).unwrap();
    tx.commit().unwrap();
    let gateway = Gateway::serve(config);
    let folder = gateway.folder().to_path_buf();
    let run = import(&folder, &file, &["--format", "prisma", "--strict"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "imported 1000 of 1000 accounts, skipped 0\n", ""));
    assert_eq!(kinds(&folder), [("$2a$".to_owned(), 334), ("$2b$".to_owned(), 333), ("$2y$".to_owned(), 333)]);
    for round in 0..2 {
        for number in 0..1000 {
            let answer = gateway.client().post_json(
                "/.auth/login",
                &[],
                &json!({ "email": format!("USER{number}@example.com"), "password": format!("old password {number}") }),
            );
            assert_eq!(answer.status, 200, "{round} {number}");
            assert_eq!(answer.json()["user"]["id"], (7 + 2 * number).to_string());
        }
        assert_eq!(kinds(&folder), [("$arg".to_owned(), 1000)]);
    }
    assert_eq!(gateway.login("user1@example.com", "old password 2").status, 401);
    // new ids are above everything that Prisma ever gave
    gateway.add_user("new@example.com", &[]);
    assert!(users(&folder).iter().any(|user| user["email"] == "new@example.com" && user["id"] == "5001"));
}

#[test]
fn rows_that_cannot_be_kept_as_they_are_are_reported_by_row_and_strict_refuses_them() {
    let config = configured(CHEAP);
    let file = config.path().join("dev.db");
    let db = Connection::open(&file).unwrap();
    db.execute_batch(PRISMA).unwrap();
    let long = "0123456789".repeat(8);
    for (id, email, password, name, photo) in [
        (1, "ada@example.com", hash("one"), "Ada", "https://example.com/a.png"),
        (2, "ADA@example.com", hash("two"), "Shadow", ""),
        (3, "grace@example.com", "hunter2".to_owned(), "Grace\r\nX-Evil: 1", "javascript:alert(1)"),
        (4, "no address", hash("four"), "Nobody", ""),
        (5, "long@example.com", hash(&long), "", ""),
        (6, "empty@example.com", String::new(), "", ""),
        (7, "dear@example.com", "$2b$31$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy".to_owned(), "", ""),
    ] {
        let sql = "INSERT INTO \"User\" (id, email, password, name, photo) VALUES (?1, ?2, ?3, ?4, ?5)";
        db.execute(sql, (id, email, password, name, photo)).unwrap();
    }
    let gateway = Gateway::serve(config);
    let folder = gateway.folder().to_path_buf();
    let findings = "FILE:2: ada@example.com appears more than once, ignoring case: skipped\nFILE:3: the name was shortened or cleaned: it was too long, or had characters that cannot be displayed\nFILE:3: the picture was left out: The picture must be an http or https address.\nFILE:3: the password hash is damaged or of an unknown kind: the account has no password\nFILE:4: `no address` is not a valid e-mail address: skipped\nFILE:6: the password hash is damaged or of an unknown kind: the account has no password\nFILE:7: the password hash is damaged or of an unknown kind: the account has no password\n";
    let dry = import(&folder, &file, &["--format", "prisma", "--dry-run"]);
    assert_eq!(
        (dry.code, dry.out.as_str(), dry.err.as_str()),
        (0, "would import 5 of 7 accounts, skipped 2\n", findings)
    );
    let strict = import(&folder, &file, &["--format", "prisma", "--strict"]);
    assert_eq!((strict.code, strict.out.as_str()), (1, ""));
    assert_eq!(strict.err, format!("{findings}authgate: 7 findings with --strict: nothing was imported\n"));
    assert!(users(&folder).is_empty());
    let run = import(&folder, &file, &["--format", "prisma"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "imported 5 of 7 accounts, skipped 2\n", findings));
    let grace = users(&folder).into_iter().find(|user| user["email"] == "grace@example.com").unwrap();
    assert_eq!(
        (&grace["id"], &grace["name"], &grace["picture"], &grace["password"]),
        (&json!("3"), &json!("Grace X-Evil: 1"), &json!(""), &json!(false))
    );
    for (email, password, status) in [
        ("ada@example.com", "one", 200),
        ("ada@example.com", "two", 401),
        ("long@example.com", &long[..71], 401),
        ("long@example.com", &long, 200),
        ("grace@example.com", "hunter2", 401),
        ("empty@example.com", "", 401),
        ("dear@example.com", "", 401),
    ] {
        assert_eq!(gateway.login(email, password).status, status, "{email} {password}");
    }
    // once more: all are there already
    let again = import(&folder, &file, &["--format", "prisma"]);
    assert_eq!((again.code, again.out.as_str()), (0, "imported 0 of 7 accounts, skipped 7\n"));
    assert_eq!(users(&folder).len(), 5);
}

#[test]
fn columns_and_tables_have_the_names_that_they_have() {
    let config = configured(CHEAP);
    let folder = config.path();
    let file = folder.join("dev.db");
    let db = Connection::open(&file).unwrap();
    db.execute_batch("CREATE TABLE \"app\"\"users\" (uid TEXT, mail_address TEXT, secret TEXT, nick TEXT, roles TEXT)")
        .unwrap();
    let values = ("c1-x", "ada@example.com", hash("one"), "Ada", "staff,admin");
    db.execute("INSERT INTO \"app\"\"users\" VALUES (?1, ?2, ?3, ?4, ?5)", values).unwrap();
    let missing = import(folder, &file, &["--format", "prisma"]);
    assert_eq!(
        (missing.code, missing.err.as_str()),
        (1, "authgate: FILE has no table `User`; its tables are app\"users; nothing was imported\n")
    );
    let no_email = import(folder, &file, &["--format", "prisma", "--table", "app\"users"]);
    assert!(no_email.code == 1 && no_email.err.contains("--email-column"), "{}", no_email.err);
    let columns = [
        "--format",
        "prisma",
        "--table",
        "app\"users",
        "--id-column",
        "uid",
        "--email-column",
        "mail_address",
        "--password-column",
        "secret",
        "--name-column",
        "nick",
        "--groups-column",
        "roles",
    ];
    let run = import(folder, &file, &columns);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.starts_with("created a new database in ") && run.err.lines().count() == 1, "{}", run.err);
    let user = users(folder).remove(0);
    assert_eq!(
        (&user["id"], &user["name"], &user["groups"]),
        (&json!("c1-x"), &json!("Ada"), &json!(["admin", "staff"]))
    );
}

#[test]
fn csv_htpasswd_and_authelia_files_are_read() {
    let config = configured(CHEAP);
    let gateway = Gateway::serve(config);
    let folder = gateway.folder().to_path_buf();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    // as PostgreSQL's \copy writes it: NULL is an empty field, a line end may stand in quotes
    let csv = write(
        "users.csv",
        &format!(
            "\u{feff}id,email,password,name,photo\r\n41,ada@example.com,{},\"Ada, Countess\",\r\n42,bob@example.com,{},\"a\nb\",\r\n,eve@example.com,,,\r\n",
            hash("one"),
            hash("two")
        ),
    );
    let run = import(&folder, &csv, &["--format", "csv"]);
    assert_eq!(
        (run.code, run.out.as_str(), run.err.as_str()),
        (
            0,
            "imported 3 of 3 accounts, skipped 0\n",
            "FILE:3: the name was shortened or cleaned: it was too long, or had characters that cannot be displayed\n"
        )
    );
    let htpasswd = write(
        "htpasswd",
        &format!(
            "# people\ncarol:{}\n\ndave:$apr1$abcdefgh$sIQmFnT1CuEXAsyjuXjUX/\nfrank@example.com:{{SHA}}SHA1\n",
            hash("three")
        )
        .replace("SHA1", SHA1),
    );
    let without = import(&folder, &htpasswd, &["--format", "htpasswd", "--dry-run"]);
    assert!(without.err.starts_with("FILE:2: `carol` is not a valid e-mail address: skipped\n"), "{}", without.err);
    let run = import(&folder, &htpasswd, &["--format", "htpasswd", "--domain", "example.com"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "imported 3 of 3 accounts, skipped 0\n", ""));
    let authelia = write(
        "users_database.yml",
        "users:\n  grace:\n    disabled: false\n    displayname: 'Grace H'\n    password: '$pbkdf2-sha512$1000$MDEyMzQ1Njc4OWFiY2RlZg$OM0FAoIqCVK1sWtxDiffVlBejtLa.ks4TP71JiecwuSZCG8iLbnlIEPOMoVX.i2B2wkSxjQ8CRGR9OkNGuIPMQ'\n    email: grace@example.com\n    groups: ['admins', 'dev']\n  heidi:\n    disabled: true\n    displayname: Heidi\n    password: '$6$saltsalt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0'\n    email: heidi@example.com\n  ivan:\n    displayname: Ivan\n    email: nobody\n",
    );
    let run = import(&folder, &authelia, &["--format", "authelia"]);
    assert_eq!(
        (run.code, run.out.as_str(), run.err.as_str()),
        (0, "imported 2 of 3 accounts, skipped 1\n", "FILE:13: `nobody` is not a valid e-mail address: skipped\n")
    );
    for (email, password, status) in [
        ("ada@example.com", "one", 200),
        ("bob@example.com", "two", 200),
        ("eve@example.com", "", 401),
        ("carol@example.com", "three", 200),
        ("dave@example.com", "correct horse", 200),
        ("frank@example.com", "correct horse", 200),
        ("grace@example.com", "correct horse", 200),
        ("grace@example.com", "correct horse ", 401),
        ("heidi@example.com", "correct horse", 401),
    ] {
        assert_eq!(gateway.login(email, password).status, status, "{email}");
    }
    gateway.cli(&["user", "enable", "heidi@example.com"]);
    assert_eq!(gateway.login("heidi@example.com", "correct horse").status, 200);
    let all = users(&folder);
    let one = |email: &str| all.iter().find(|user| user["email"] == email).unwrap().clone();
    assert_eq!(
        (&one("ada@example.com")["id"], &one("ada@example.com")["name"]),
        (&json!("41"), &json!("Ada, Countess"))
    );
    assert_eq!(one("bob@example.com")["name"], "a b");
    assert_eq!(one("eve@example.com")["id"], "43", "above those that were given");
    assert_eq!(one("grace@example.com")["groups"], json!(["admins", "dev"]));
}

const SHA1: &str = "L55TUjtiq8FBorTWAZ0jy6g129A=";

#[test]
fn a_file_that_cannot_be_read_leaves_nothing_behind() {
    let config = configured(CHEAP);
    let folder = config.path();
    for (name, bytes, format) in [
        ("missing", None, "csv"),
        ("text.db", Some(&b"this is no database, it is a text"[..]), "prisma"),
        ("latin1.csv", Some(b"email\ncaf\xe9@example.com\n"), "csv"),
        ("uneven.csv", Some(b"email,name\nada@example.com\n"), "csv"),
        ("no-users.yml", Some(b"people: {}\n"), "authelia"),
        ("broken.yml", Some(b"users: [\n"), "authelia"),
        ("no-column.csv", Some(b"login,hash\nada,x\n"), "csv"),
    ] {
        let file = folder.join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&file, bytes).unwrap();
        }
        let run = import(folder, &file, &["--format", format]);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{name}");
        assert!(
            run.err.contains("FILE") && run.err.ends_with("nothing was imported\n") && run.err.lines().count() == 1,
            "{name}: {}",
            run.err
        );
        assert!(!folder.join("state").exists(), "{name}");
    }
    assert_eq!(import(folder, Path::new("x"), &["--format", "xml"]).code, 2);
    assert_eq!(import(folder, Path::new("x"), &[]).code, 2);
}

/// Whoever has an odd address keeps it and the way in; what an app could take for a path or an option makes no account.
#[test]
fn people_keep_odd_addresses_and_dangerous_ones_are_left_out() {
    let config = configured(CHEAP);
    let file = config.path().join("people.csv");
    let emails =
        ["ada@example.com", "\u{17f}am@example.com", "a..b@example.com", "-rf@example.com", "../../x@example.com"];
    let rows = emails.map(|email| format!("{email},{}\n", hash("old password")));
    std::fs::write(&file, format!("email,password\n{}", rows.concat())).unwrap();
    let gateway = Gateway::serve(config);
    let folder = gateway.folder().to_path_buf();
    assert_eq!(import(&folder, &file, &["--format", "csv", "--strict"]).code, 1);
    let run = import(&folder, &file, &["--format", "csv"]);
    assert_eq!((run.code, run.out.as_str()), (0, "imported 3 of 5 accounts, skipped 2\n"), "{}", run.err);
    assert_eq!(run.err.lines().filter(|line| line.contains("it was kept")).count(), 2, "{}", run.err);
    assert_eq!(run.err.lines().filter(|line| line.contains("skipped")).count(), 2, "{}", run.err);
    for email in &emails[..3] {
        assert_eq!(gateway.login(email, "old password").status, 200, "{email}");
    }
    gateway.cli(&["user", "set", "\u{17f}am@example.com", "--name", "Sam"]);
    let taken = gateway.cli_with(&["user", "add", "\u{17f}ue@example.com"], "");
    assert_eq!(taken.status.code(), Some(1), "who comes new is asked for another");
}
