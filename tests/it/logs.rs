//! Nothing secret in any log, at any level (README, "Observability"; Traefik CVE-2022-23469, ASVS 16.2.5).

use std::io::Write;

use serde_json::json;

use crate::backend::{Backend, nobody, ok};
use crate::client::Client;
use crate::gateway::{Gateway, PASSWORD, configured, eventually};
use crate::websockets::open;

/// Part of everything secret that is sent or received here.
const CANARY: &str = "canary";

/// Answers with a secret of its own, in a head that cannot be read where the path says so.
fn app(request: &crate::backend::Received, stream: &mut dyn Write) -> bool {
    let broken = if request.line.contains("/broken") { "no field\r\n" } else { "" };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nSet-Cookie: app=canary-of-the-app\r\n{broken}Content-Length: 12\r\n\r\ncanary-body\n"
    )
    .is_ok()
}

/// A pipe that is full holds up nothing: not the requests, and not the end.
#[test]
fn a_log_that_no_one_reads_keeps_the_gateway_from_nothing() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let file = format!(
        "[server]\nlisten = [\"{port}\"]\nadmin_listen = \"127.0.0.1:0\"\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n"
    );
    std::fs::write(folder.path().join("gateway.toml"), file).unwrap();
    let mut child =
        crate::gateway::command(folder.path(), &["run"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it listens", || std::net::TcpStream::connect(port).is_ok());
    let mut client = Client::connect(port);
    let path = format!("/{}", "x".repeat(2000));
    for _ in 0..100 {
        assert_eq!(client.get(&path, &[]).status, 200);
    }
    crate::gateway::send(child.id(), "TERM");
    eventually("it ends", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
}

/// Everything goes to standard error here, at `trace`, and what a library says goes there too.
#[test]
fn a_secret_is_in_no_log_at_any_level() {
    let backend = Backend::start(app);
    let gateway = Gateway::serve_with(
        configured(&format!(
            "[[route]]\npath = \"/ws/**\"\nupstream = \"builtin:whoami\"\nwebsocket = {{ token = [\"query:access_token\", \"subprotocol\"] }}\n[[route]]\naccess = \"optional\"\nupstream = \"http://{}\"\n",
            backend.address
        )),
        &[("RUST_LOG", "trace")],
    );
    let link = gateway.invite.clone().unwrap();
    let cookie = gateway.first_account();
    let token = gateway.cli(&["token", "create", "ada@example.com", "--name", "backup"]).trim().to_owned();
    let reset = gateway.cli(&["user", "reset", "ada@example.com"]).trim().to_owned();
    gateway.login("ada@example.com", "canary-password-that-is-wrong");
    let own = [("Cookie", cookie.as_str())];
    let mut client = gateway.client();
    for path in ["/app?code=canary-query", "/.auth/login?callbackUrl=%2Fcanary", "/.auth/invite/canary-link"] {
        client.get(path, &own);
    }
    let bearer = format!("Bearer {token}");
    let basic = format!("Basic {}", data_encoding::BASE64.encode(format!("ada:{token}").as_bytes()));
    for authorization in [bearer.as_str(), basic.as_str(), "Bearer canary-bearer", "Bearer agt_canary"] {
        client.get("/app", &[("Authorization", authorization), ("X-Secret", "canary-field")]);
    }
    let ticket = client.post_json("/.auth/ws-ticket", &own, &json!({})).json()["ticket"].as_str().unwrap().to_owned();
    drop(open(&gateway, &format!("/ws/x?access_token={ticket}"), "none=canary-cookie"));
    for broken in [
        // both kinds of exchange: heads and bodies that are quoted where they cannot be read
        "GET /broken HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST /broken HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        format!("POST /app HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nTransfer-Encoding: chunked\r\n\r\ncanary-chunk\r\n0\r\n\r\n"),
        "POST /.auth/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ncanary-password-in-a-chunk\r\n".to_owned(),
        "POST /.auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"password\": \"canary-no-json\",".to_owned(),
        "GET /app HTTP/1.1\r\nHost: a\r\nCookie canary-cookie\r\n\r\n".to_owned(),
        "GET /app?canary HTTP/1.1\r\nHost: a\r\nContent-Length: canary\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ncanary".to_owned(),
    ] {
        let mut client = gateway.client();
        client.send(broken.as_bytes());
        client.head();
    }
    let log = gateway.into_log();
    let last = |text: &str, by: char| text.rsplit(by).next().unwrap().to_owned();
    let secrets = [
        CANARY.to_owned(),
        PASSWORD.to_owned(),
        last(&cookie, '='),
        last(&cookie, '.'),
        token.trim_start_matches("agt_").to_owned(),
        last(&last(&basic, ' '), '='),
        last(&reset, '/'),
        ticket,
    ];
    // the first link is printed beside the log, for whoever installs the gateway
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('{')).collect();
    for line in &lines {
        for secret in &secrets {
            assert!(!line.contains(secret.as_str()), "{secret}: {line}");
        }
        assert!(!line.contains(&last(&link, '/')), "{line}");
    }
    // what the log is for is there
    for told in
        ["\"path\":\"/app\"", "\"path\":\"/broken\"", "sign_in_failed", "upstream request failed", "\"path\":\"/ws/x\""]
    {
        assert!(lines.iter().any(|line| line.contains(told)), "{told}\n{log}");
    }
}

/// What an operator asks the log: which rule, which server, which program, and why not.
#[test]
fn an_access_line_shows_the_route_the_server_the_token_and_why() {
    let backend = Backend::start(ok);
    let dead = nobody();
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"pool\"\nservers = [\"{dead}\", \"{}\"]\n\
         [[route]]\npath = \"/staff/**\"\ngroups = [\"staff\"]\nupstream = \"pool\"\n\
         [[route]]\nmethods = [\"GET\"]\nupstream = \"pool\"\n",
        backend.address
    ));
    gateway.add_user("ada@example.com", &[]);
    let make = ["token", "create", "ada@example.com", "--name", "t", "--scope", "* /api/**", "--scope", "* /staff/**"];
    let bearer = format!("Bearer {}", gateway.cli(&make).trim());
    let program = [("Authorization", bearer.as_str())];
    let tokens = gateway.cli(&["token", "list", "--json"]);
    let id = serde_json::from_str::<serde_json::Value>(&tokens).unwrap()[0]["id"].clone();
    let mut client = gateway.client();
    for (path, status) in [("/api/x", 200), ("/api/y", 200), ("/other", 403), ("/staff/x", 403)] {
        assert_eq!(client.get(path, &program).status, status, "{path}");
    }
    let log = gateway.into_log();
    let lines: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line = |path: &str| lines.iter().find(|line| line["path"] == path).unwrap();
    for path in ["/api/x", "/api/y"] {
        let told = line(path);
        assert_eq!((&told["route"], &told["upstream"], &told["token"]), (&json!(2), &json!("pool"), &id));
        assert_eq!(told["server"], json!(backend.address.to_string()), "{told}");
        let (answer, whole) = (told["answer_ms"].as_f64().unwrap(), told["duration_ms"].as_f64().unwrap());
        assert!(answer > 0.0 && answer <= whole, "{told}");
    }
    assert_eq!((&line("/other")["why"], &line("/other")["token"]), (&json!("scope"), &id));
    assert_eq!((&line("/staff/x")["why"], &line("/staff/x")["route"]), (&json!("forbidden"), &json!(1)));
    assert!(line("/other")["answer_ms"].is_null());
    assert!(line("/other")["server"].is_null());
    // the dead one is told of once, when it is passed over
    let passed: Vec<_> =
        lines.iter().filter(|line| line["message"] == "upstream server unreachable, removed from rotation").collect();
    assert_eq!((passed.len(), &passed[0]["server"]), (1, &json!(dead.to_string())), "{log}");
    assert!(passed[0]["cause"].as_str().unwrap().contains("Connection refused"), "{log}");
}
