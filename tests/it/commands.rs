//! The command line: exit codes, `check` and its tests, `run --to`.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::gateway::{Gateway, PASSWORD, command, configured, refused_start};

fn run(text: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let output = command(folder.path(), arguments).stdin(Stdio::null()).output().unwrap();
    let place = folder.path().display().to_string();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&place, "DIR");
    assert!(!folder.path().join("state").exists() || arguments[0] != "check", "check created something");
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_reports_all_faults_at_once_with_place_and_remedy() {
    let text = "[server]\nlistne = [\"127.0.0.1:1\"]\nmax_age = \"3d\"\n[[route]]\nupstream = \"ap\"\n[[upstream]]\nname = \"app\"\nservers = [\"127.0.0.1:3000\"]\n";
    let (code, out, err) = run(text, &["check"]);
    assert_eq!((code, out.as_str()), (64, ""));
    let expected = "error: unknown key `listne` in [server]\n --> DIR/gateway.toml:2:1\n  |\n2 | listne = [\"127.0.0.1:1\"]\n  | ^^^^^^\n  |\n  = help: did you mean `listen`?\n\nerror: unknown key `max_age` in [server]\n --> DIR/gateway.toml:3:1\n  |\n3 | max_age = \"3d\"\n  | ^^^^^^^\n  |\n  = help: `max_age` belongs in [session]\n\nerror: unknown upstream \"ap\"\n --> DIR/gateway.toml:5:12\n  |\n5 | upstream = \"ap\"\n  |            ^^^^\n  |\n  = help: did you mean \"app\"?\n\n3 errors in DIR/gateway.toml\n";
    assert_eq!(err, expected);
    let (code, out, _) = run(text, &["check", "--json"]);
    let faults: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &faults["faults"][2]["line"], &faults["faults"][2]["column"]), (64, &5.into(), &12.into()));
    assert_eq!(run(text, &["run"]).0, 64);
}

#[test]
fn check_proves_the_tests_of_a_configuration() {
    let routes = "[[upstream]]\nname = \"app\"\nservers = [\"127.0.0.1:3000\"]\n[[route]]\npath = \"/api/**\"\ngroups = [\"staff\"]\nupstream = \"app\"\n[[route]]\npath = \"/open/**\"\naccess = \"public\"\nupstream = \"http://127.0.0.1:3001\"\n";
    let test = |request: &str, rest: &str, expect: &str| {
        format!("[[test]]\nrequest = \"{request}\"\n{rest}expect = \"{expect}\"\n")
    };
    let staff = "user = { groups = [\"staff\"] }\n";
    let good = [
        test("GET /api/x", "", "login"),
        test("GET /api/x", "headers = { Accept = \"application/json\" }\n", "401"),
        test("POST /api/x", "", "401"),
        test("GET /api/x", staff, "forward app"),
        test("GET /api/x", "user = { groups = [\"guests\"] }\n", "403"),
        test("GET /open/x", "", "forward http://127.0.0.1:3001"),
        test("GET /nothing", staff, "404"),
        test("GET /api/../x", staff, "404"),
        test("GET /api/%00", staff, "400"),
        test("GET /.auth/login", "", "page"),
        test("POST /api/x", &format!("{staff}headers = {{ Origin = \"https://evil.test\" }}\n"), "403"),
        test("GET http://other.test/open/x", "", "forward http://127.0.0.1:3001"),
    ]
    .concat();
    let (code, out, err) = run(&format!("{routes}{good}"), &["check"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "DIR/gateway.toml is valid; 12 of 12 tests passed\n", ""));
    let bad = test("GET /api/x", "", "forward app");
    let (code, out, _) = run(&format!("{routes}{bad}"), &["check"]);
    assert_eq!(code, 1);
    assert_eq!(
        out,
        "DIR/gateway.toml:12: GET /api/x\n  expected forward app\n  got      login\nDIR/gateway.toml: 1 of 1 tests FAILED\n"
    );
}

#[test]
fn exit_codes_tell_usage_from_refusal() {
    let route = "[[route]]\nupstream = \"builtin:whoami\"\n";
    for (arguments, code) in [
        (&["check"][..], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["nonsense"], 2),
        (&["check", "--nonsense"], 2),
        (&["session", "revoke"], 2),
        (&["session", "revoke", "x", "--all"], 2),
        (&["invite", "--expires", "soon"], 2),
        (&["user", "show", "nobody@example.com"], 1),
        (&["user", "add", "no e-mail", "--password-stdin"], 1),
        (&["healthcheck"], 1),
    ] {
        let (got, _, err) = run(&format!("[server]\nadmin_listen = \"127.0.0.1:1\"\n{route}"), arguments);
        assert_eq!(got, code, "{arguments:?}: {err}");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let missing = command(folder.path(), &["check"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(64));
}

#[test]
fn healthcheck_asks_the_running_gateway() {
    let gateway = Gateway::whoami();
    let file = gateway.folder().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = \"{}\"", gateway.admin)),
    )
    .unwrap();
    gateway.cli(&["healthcheck"]);
}

#[test]
fn the_shipped_configuration_is_good_and_one_app_needs_none() {
    let shipped = Command::new(env!("CARGO_BIN_EXE_authgate"))
        .args(["check"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(shipped.status.success(), "{}", String::from_utf8_lossy(&shipped.stderr));
    let folder = configured("");
    let bad = Command::new(env!("CARGO_BIN_EXE_authgate"))
        .args(["run", "--to", "nonsense"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(bad.status.code(), Some(64));
    let both = command(folder.path(), &["run", "--to", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2), "a file would go unread");
    assert!(String::from_utf8(both.stderr).unwrap().contains("leave out --config"));
}

/// Nothing names another address for /healthz there, so that a taken one is no reason not to serve.
#[test]
fn one_app_is_served_beside_another_gateway_and_healthcheck_needs_no_file_either() {
    // whoever holds it already will do as well; ours answers nothing
    let holder = std::net::TcpListener::bind("127.0.0.1:9180").ok();
    let folder = tempfile::TempDir::new().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_authgate"));
    run.args(["run", "--to", "http://127.0.0.1:9/", "--listen", "127.0.0.1:0"]).current_dir(folder.path());
    let gateway = Gateway::spawn(run, folder);
    assert!(gateway.folder().join("state/authgate.db").is_file());
    assert_eq!(gateway.client().get("/x", &[]).status, 401);
    if let Some(holder) = holder {
        drop(holder);
        let mut asked = Command::new(env!("CARGO_BIN_EXE_authgate"));
        let asked = asked.arg("healthcheck").current_dir(gateway.folder()).output().unwrap();
        let said = String::from_utf8_lossy(&asked.stderr);
        assert_eq!(asked.status.code(), Some(1), "nobody is there: {said}");
        assert!(said.contains("127.0.0.1:9180"), "{said}");
    }
    assert!(gateway.into_log().contains("admin listener not started: no /healthz, /readyz or /metrics"));
}

#[test]
fn commands_work_without_a_running_gateway() {
    let folder = Gateway::whoami().into_folder();
    let cli = |arguments: &[&str]| {
        let output = command(folder.path(), arguments).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(cli(&["user", "add", "bea@example.com", "--group", "staff"]).contains("/.auth/invite/"));
    let user: Value = serde_json::from_str(&cli(&["user", "show", "BEA@example.com", "--json"])).unwrap();
    assert_eq!((&user["email"], &user["groups"][0]), (&"bea@example.com".into(), &"staff".into()));
    assert_eq!(cli(&["session", "list", "--json"]).trim(), "[]");
    assert!(cli(&["explain", "get", "/x"]).contains("400: the method is ambiguous or malformed"));
    assert!(!cli(&["explain", "GET", "/x"]).contains("400"));
    cli(&["user", "remove", "bea@example.com"]);
}

/// "Every listing takes --json": one of each, told as JSON and in columns.
#[test]
fn every_listing_is_reported_in_columns_and_as_json() {
    let gateway = Gateway::start(
        "[users]\nids = \"uuid\"\n[throttle]\nmax_retries = 1\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    gateway.first_account();
    gateway.cli(&["token", "create", "ada@example.com", "--name", "backup", "--scope", "GET /api/**"]);
    assert_eq!(gateway.login("bob@example.com", "wrong").status, 401);
    for (listing, columns, key, value) in [
        (&["user", "list"][..], "ID  ", "email", "ada@example.com"),
        (&["session", "list"], "ID  ", "email", "ada@example.com"),
        (&["session", "list", "ada@example.com"], "ID  ", "email", "ada@example.com"),
        (&["token", "list"], "ID  ", "name", "backup"),
        (&["key", "list"], "ID  ", "algorithm", "HS256"),
        (&["ban", "list"], "WHAT  ", "what", "bob@example.com"),
        (&["audit", "list"], "TIME  ", "event", "banned"),
        (&["audit", "list", "BOB@example.com", "--since", "1h"], "TIME  ", "event", "sign_in_failed"),
    ] {
        let text = gateway.cli(listing);
        assert!(text.starts_with(columns) && text.contains(value), "{listing:?}: {text}");
        let rows: Vec<Value> = serde_json::from_str(&gateway.cli(&[listing, &["--json"]].concat())).unwrap();
        assert!(rows.iter().any(|row| row[key] == value), "{listing:?}: {rows:?}");
    }
    let user: Value = serde_json::from_str(&gateway.cli(&["user", "show", "ada@example.com", "--json"])).unwrap();
    // RFC 9562, 5.7
    let id = user["id"].as_str().unwrap();
    assert!(id.len() == 36 && id.as_bytes()[14] == b'7', "{id}");
    gateway.cli(&["ban", "lift", "bob@example.com"]);
    assert_eq!(gateway.cli(&["ban", "list", "--json"]).trim(), "[]");
}

#[test]
fn events_are_listed_for_accounts_that_are_gone_and_for_commands_too() {
    let gateway = Gateway::whoami();
    // who did it and whether it was a command is told, and an account that is gone is still found
    gateway.add_user("eve@example.com", &[]);
    gateway.sign_in("eve@example.com");
    gateway.cli(&["user", "remove", "eve@example.com"]);
    let events: Vec<Value> =
        serde_json::from_str(&gateway.cli(&["audit", "list", "eve@example.com", "--json"])).unwrap();
    let told: Vec<_> =
        events.iter().map(|event| (event["event"].as_str().unwrap(), event["address"].as_str().unwrap())).collect();
    assert_eq!(told, [("user_removed", ""), ("sign_in", "127.0.0.1"), ("user_added", "")]);
    assert_eq!(events[1]["request_id"].as_str().unwrap().len(), 16);
    assert!(!gateway.cli(&["audit", "list"]).contains(PASSWORD));
    let refused = gateway.cli_with(&["audit", "list", "nobody"], "");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(gateway.cli_with(&["audit", "list", "--since", "soon"], "").status.code(), Some(2));
}

#[test]
fn an_account_gets_another_address_and_keeps_its_id_and_its_sessions() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    // another address: the account, its id and its sessions stay, and the old address is nobody's
    gateway.add_user("flo@example.com", &[]);
    let cookie = gateway.sign_in("flo@example.com");
    let taken = gateway.cli_with(&["user", "set", "flo@example.com", "--email", "ADA@example.com"], "");
    assert_eq!(taken.status.code(), Some(1));
    assert!(
        String::from_utf8(taken.stderr).unwrap().contains("an account with the e-mail ada@example.com already exists")
    );
    gateway.cli(&["user", "set", "flo@example.com", "--email", "Flo.New@example.com"]);
    let seen = gateway.client().get("/", &[("Cookie", cookie.as_str())]);
    assert_eq!((seen.status, seen.seen("remote-user")), (200, vec!["flo.new@example.com".to_owned()]));
    assert_eq!(gateway.login("flo@example.com", PASSWORD).status, 401);
    gateway.sign_in("flo.new@example.com");
    let events: Vec<Value> =
        serde_json::from_str(&gateway.cli(&["audit", "list", "flo@example.com", "--json"])).unwrap();
    assert!(events.iter().any(|event| event["detail"] == "now flo.new@example.com"), "{events:?}");
}

#[test]
fn warnings_are_said_and_harm_nothing() {
    let text =
        "[server]\nlisten = [\"127.0.0.1:8080\", \"0.0.0.0:8081\"]\n[[route]]\nupstream = \"http://127.0.0.1:3000\"\n";
    let (code, out, err) = run(text, &["check"]);
    assert_eq!((code, out.as_str()), (0, "DIR/gateway.toml is valid; 0 of 0 tests passed\n"));
    let said = "warning: `0.0.0.0:8081` is reachable from other machines over plain http: passwords and sessions can be intercepted\n --> DIR/gateway.toml:2:29\n  |\n2 | listen = [\"127.0.0.1:8080\", \"0.0.0.0:8081\"]\n  |                             ^^^^^^^^^^^^^^\n  |\n  = help: listen on \"https://...\" with [server.tls], or on loopback behind a TLS proxy listed in trusted_proxies\n\n1 warning in DIR/gateway.toml\n";
    assert_eq!(err, said);
    let (code, out, _) = run(text, &["check", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["ok"], &told["faults"]), (0, &true.into(), &Value::Array(vec![])));
    let place = ["file", "line", "column"].map(|key| told["warnings"][0][key].clone());
    assert_eq!(Value::from(place.to_vec()), serde_json::json!(["DIR/gateway.toml", 2, 29]));
    let behind = text.replace("[server]", "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]");
    assert_eq!(run(&behind, &["check"]).2, "");
}

#[test]
fn a_group_that_no_one_is_in_is_a_warning_once_there_are_accounts() {
    let folder =
        Gateway::start("[[route]]\ngroups = [\"staf\", \"admin\"]\nupstream = \"builtin:whoami\"\n").into_folder();
    let run = |arguments: &[&str]| {
        let output = command(folder.path(), arguments).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(run(&["check"]), "", "nobody is there yet");
    run(&["user", "add", "ada@example.com", "--group", "admin", "--group", "staff"]);
    let said = run(&["check"]);
    assert!(said.starts_with("warning: no account is in the group \"staf\"\n"), "{said}");
    assert!(said.contains("= help: did you mean \"staff\"?\n") && said.contains("\n1 warning in "), "{said}");
    run(&["user", "add", "bob@example.com", "--group", "staf"]);
    assert_eq!(run(&["check"]), "");
}

#[test]
fn an_address_that_is_taken_is_reported_with_the_key_that_names_it() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let address = holder.local_addr().unwrap();
    let text =
        format!("[server]\nlisten = [\"{address}\"]\nadmin_listen = \"\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let (code, said) = refused_start(folder.path());
    assert_eq!(code, 1);
    assert!(said.contains(&format!("cannot listen on {address}: ")) && said.contains("server.listen"), "{said}");
}

#[test]
fn a_state_folder_that_cannot_be_made_is_reported_with_the_key_that_names_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let text = "[server]\nstate_dir = \"gateway.toml/state\"\n[[route]]\nupstream = \"builtin:whoami\"\n";
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let (code, said) = refused_start(folder.path());
    assert_eq!(code, 1);
    assert!(said.contains("cannot create the state directory: ") && said.contains("server.state_dir"), "{said}");
}
