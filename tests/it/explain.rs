//! `authgate explain` asks the functions that requests are judged by: what it tells is what happens.

use serde_json::{Value, json};

use crate::client::Answer;
use crate::gateway::{Gateway, command};

const ROUTES: &str = r#"
[[upstream]]
name = "app"
servers = ["builtin:whoami"]
token = { secret = { env = "APP_SECRET" }, send = ["cookie:app.token"] }
[[upstream]]
name = "own"
servers = ["builtin:whoami"]
host = "upstream"
identity = { "X-User" = "{id}:{email}" }
[[route]]
path = "/public/**"
access = "public"
upstream = "own"
[[route]]
path = "/closed/**"
access = "deny"
[[route]]
path = "/staff/**"
methods = ["GET", "POST"]
groups = ["staff", "boss"]
strip_prefix = "/staff"
upstream = "own"
[[route]]
path = "/small/**"
body_max = "10B"
upstream = "app"
[[route]]
host = "other.example.com"
upstream = "own"
[[route]]
path = "/ws/**"
websocket = { token = ["query:access_token"] }
upstream = "own"
[[route]]
path = "/app/**"
cors = { origins = ["https://pages.example.com"] }
upstream = "app"
"#;

const NAVIGATION: &[(&str, &str)] = &[("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];
const JSON: &[(&str, &str)] = &[("Accept", "application/json")];
const GRPC: &[(&str, &str)] = &[("Content-Type", "application/grpc"), ("TE", "trailers")];
const FOREIGN: &[(&str, &str)] = &[("Origin", "https://evil.test"), ("Accept", "*/*")];
const ALLOWED: &[(&str, &str)] = &[("Origin", "https://pages.example.com"), ("Accept", "*/*")];
const PREFLIGHT: &[(&str, &str)] = &[("Origin", "https://pages.example.com"), ("Access-Control-Request-Method", "PUT")];
const SOCKET: &[(&str, &str)] = &[
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
];
/// More gateways than a request may come through.
const LOOP: &[(&str, &str)] = &[
    ("Accept", "*/*"),
    (
        "X-Authgate-Via",
        "0123456789abcdef, 0123456789abcdef, 0123456789abcdef, 0123456789abcdef, 0123456789abcdef, 0123456789abcdef, 0123456789abcdef, 0123456789abcdef, 0123456789abcdef",
    ),
];
const SPOOFS: &[(&str, &str)] = &[
    ("Accept", "*/*"),
    ("Remote-User", "root"),
    ("remote_user", "root"),
    ("X-Forwarded-For", "203.0.113.1"),
    ("X-Authgate-Sub", "1"),
    ("X-Custom", "1"),
    ("Authorization", "Basic YTpi"),
];

fn gateway() -> Gateway {
    let secret = [("APP_SECRET", "0123456789abcdef0123456789abcdef")];
    Gateway::serve_with(crate::gateway::configured(ROUTES), &secret)
}

/// What `explain --json` tells of a request with these fields.
fn explained(gateway: &Gateway, line: &str, user: Option<&str>, fields: &[(&str, &str)]) -> Value {
    let (method, target) = line.split_once(' ').unwrap();
    let url = format!("http://{}{target}", gateway.host());
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut arguments = vec!["explain", method, &url, "--json"];
    arguments.extend(user.iter().flat_map(|user| ["--user", user]));
    arguments.extend(fields.iter().flat_map(|field| ["--header", field]));
    serde_json::from_str(&gateway.cli(&arguments)).unwrap()
}

/// Names in lower case, in order of names; without what is different each time.
fn sorted(pairs: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let constant = |name: &str| !["x-request-id", "x-authgate-via", "date", "server", "connection"].contains(&name);
    let mut pairs: Vec<_> = pairs.map(|(name, value)| (name.to_lowercase(), value)).collect();
    pairs.retain(|(name, _)| constant(name));
    pairs.sort();
    pairs
}

fn pairs(list: &Value) -> Vec<(String, String)> {
    let list = list.as_array().unwrap().iter();
    sorted(list.map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned())))
}

/// The token differs each time; that it is there does not.
fn without_token(mut fields: Vec<(String, String)>) -> Vec<(String, String)> {
    for (_, value) in fields.iter_mut().filter(|(name, _)| name == "cookie") {
        let at = value.find("app.token=").map_or(value.len(), |at| at + "app.token=".len());
        value.truncate(at);
    }
    fields
}

fn same_reply(told: &Value, answer: &Answer, what: &str) {
    let reply = &told["reply"];
    assert_eq!(reply["status"], answer.status, "{what}: {told}");
    let id = answer.field("x-request-id").unwrap();
    // the stand-in for the id is shorter than an id
    let sized = |(name, _): &(String, String)| name != "content-length";
    let mut ours = pairs(&reply["headers"]);
    let mut theirs = sorted(answer.fields.iter().cloned());
    ours.retain(sized);
    theirs.retain(sized);
    assert_eq!(ours, theirs, "{what}");
    if let Some(body) = reply["body"].as_str() {
        assert_eq!(body, answer.text().replace(id, "REQUEST-ID"), "{what}");
    }
}

#[test]
fn what_explain_shows_is_what_a_request_gets_and_what_its_upstream_sees() {
    let gateway = gateway();
    let ada = ("ada@example.com", gateway.first_account());
    gateway.add_user("bob@example.com", &["staff", "ops"]);
    let bob = ("bob@example.com", gateway.sign_in("bob@example.com"));
    for (line, who, fields, verdict) in [
        ("GET /app/x?y=1", None, NAVIGATION, "login"),
        ("GET /app/x?y=1", None, JSON, "401"),
        ("GET /app/x?y=1", None, LOOP, "508"),
        ("GET /app/x?y=1", None, &LOOP[..1], "401"),
        ("POST /app/x", None, NAVIGATION, "401"),
        ("POST /app/x", None, GRPC, "401"),
        ("GET /app/x", None, ALLOWED, "401"),
        ("OPTIONS /app/x", None, PREFLIGHT, "204"),
        ("POST /app/x", Some(&ada), FOREIGN, "403"),
        ("POST /app/x", Some(&ada), ALLOWED, "forward app"),
        ("GET /app/x?y=%2F", Some(&ada), SPOOFS, "forward app"),
        ("GET /staff/x?y", Some(&ada), JSON, "403"),
        ("GET /staff/x?y", Some(&ada), NAVIGATION, "403"),
        ("GET /staff/x?y", Some(&bob), JSON, "forward own"),
        ("GET /%73taff/x", Some(&bob), JSON, "404"),
        ("GET /staff/a%2Fb;c", Some(&bob), JSON, "forward own"),
        ("GET /staff/a%2Fb;c", Some(&ada), JSON, "403"),
        ("GET /public/..%2Fstaff/x", Some(&ada), JSON, "403"),
        ("GET /public/..%2Fclosed/x", Some(&bob), JSON, "403"),
        ("GET /public/%00", Some(&bob), JSON, "400"),
        ("DELETE /staff/x", Some(&bob), JSON, "404"),
        ("GET /closed/x", Some(&ada), JSON, "403"),
        ("GET /public/x", None, SPOOFS, "forward own"),
        ("GET /public/../app", Some(&ada), JSON, "400"),
        ("GET /app/x?y=\"1\"", Some(&ada), JSON, "forward app"),
        ("GET /app/<x>", Some(&ada), JSON, "400"),
        ("GET /app/x?y='[1]'", Some(&ada), JSON, "forward app"),
        ("TRACE /app/x", Some(&ada), JSON, "405"),
        ("GET /nothing", Some(&ada), JSON, "404"),
        ("GET /ws/x", None, SOCKET, "401"),
        ("POST /small/x", Some(&ada), &[("Accept", "*/*"), ("Content-Length", "11")], "413"),
    ] {
        let told = explained(&gateway, line, who.map(|(email, _)| *email), fields);
        let what = format!("{line} {who:?} {fields:?}");
        assert_eq!(told["verdict"], verdict, "{what}: {told}");
        let cookie = who.map(|(_, cookie)| ("Cookie", cookie.as_str()));
        let sent: Vec<_> = fields.iter().copied().chain(cookie).collect();
        let answer = gateway.client().request(line, &sent, b"");
        if told["upstream"].is_null() {
            same_reply(&told, &answer, &what);
            continue;
        }
        assert_eq!(answer.status, 200, "{what}");
        let seen = answer.json();
        let request = format!("{} {}", seen["method"].as_str().unwrap(), seen["path"].as_str().unwrap());
        assert_eq!(told["upstream"]["request"], request.as_str(), "{what}");
        let (ours, theirs) = (pairs(&told["upstream"]["headers"]), pairs(&seen["headers"]));
        assert_eq!(without_token(ours), without_token(theirs), "{what}");
    }
}

/// The lines of a folder's gateway.toml at which its routes begin.
fn route_lines(folder: &std::path::Path) -> Vec<usize> {
    let text = std::fs::read_to_string(folder.join("gateway.toml")).unwrap();
    (1..).zip(text.lines()).filter(|(_, line)| *line == "[[route]]").map(|(number, _)| number).collect()
}

#[test]
fn explain_names_what_is_removed_and_why_earlier_routes_were_passed_over() {
    let gateway = gateway();
    gateway.add_user("bob@example.com", &["staff"]);
    let fields =
        [("Accept", "*/*"), ("Remote-User", "root"), ("Cookie", "authgate=x; theme=dark; __Host-authgate-device=y")];
    let told = explained(&gateway, "POST /staff/x", Some("BOB@example.com"), &fields);
    assert_eq!(
        told["upstream"]["removed"],
        json!(["host", "remote-user", "cookie authgate", "cookie __Host-authgate-device"])
    );
    assert_eq!(
        told["notes"],
        json!(["credentials in the headers are ignored here: use --user to set who is signed in"])
    );
    let tried: Vec<_> = told["routes"].as_array().unwrap().iter().map(|tried| &tried["misses"]).collect();
    assert_eq!(tried, [&json!("path"), &json!("path"), &Value::Null]);
    let lines = route_lines(gateway.folder());
    assert_eq!((&told["route"], &told["routes"][2]["line"]), (&json!(3), &json!(lines[2])));
    let elsewhere = explained(&gateway, "PUT /app/x", None, &[("Host", "x.example.com")]);
    let tried: Vec<_> = elsewhere["routes"].as_array().unwrap().iter().map(|tried| tried["misses"].clone()).collect();
    assert_eq!(
        tried,
        ["path", "path", "method", "path", "host", "path"]
            .map(Value::from)
            .into_iter()
            .chain([Value::Null])
            .collect::<Vec<_>>()
    );
    let socket = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let told = explained(&gateway, "GET /ws/x?a=1&access_token=secret", Some("bob@example.com"), &socket);
    assert_eq!(told["upstream"]["request"], "GET /ws/x?a=1");
}

#[test]
fn explain_needs_no_running_gateway_and_makes_nothing() {
    let folder = crate::gateway::configured(
        "[[route]]\npath = \"/a/**\"\naccess = \"public\"\nupstream = \"http://127.0.0.1:9\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let run = |arguments: &[&str]| {
        let output = command(folder.path(), arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(folder.path().to_str().unwrap(), "DIR");
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = run(&["explain", "GET", "https://app.example.com/x?y", "--header", "Accept: */*"]);
    let lines = route_lines(folder.path());
    let expected = format!(
        "GET https://app.example.com/x?y (request)\nsigned in: no (anonymous)\n\nroute 1 (line {}) /a/**: path does not match\nroute 2 (line {}) /**: matches\n\n401: the route requires a signed-in user, and the request is anonymous\n\nresponse to the client\n  401\n",
        lines[0], lines[1]
    );
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with(&expected), "{out}");
    assert!(out.ends_with("  {\"error\":\"signed_out\",\"login\":\"/.auth/login\"}\n"), "{out}");
    let (_, out, _) = run(&["explain", "GET", "/a/b", "--header", "Accept: */*"]);
    assert!(out.contains("\nrequest to http://127.0.0.1:9 (127.0.0.1:9)\n  GET /a/b\n"), "{out}");
    for (arguments, code, said) in [
        (&["explain", "GET", "nonsense"][..], 2, "authgate: `nonsense` is neither a path nor an http(s) URL\n"),
        (&["explain", "GET", "ftp://a/b"], 2, "authgate: `ftp://a/b` is neither a path nor an http(s) URL\n"),
        (&["explain", "G T", "/"], 2, "authgate: invalid method `G T` (example: GET)\n"),
        (
            &["explain", "GET", "/", "--header", "Accept"],
            2,
            "authgate: invalid header `Accept` (example: 'Accept: text/html')\n",
        ),
        (
            &["explain", "GET", "/#part"],
            2,
            "authgate: invalid URL `/#part`: percent-encode non-printable characters, and leave `#...` out\n",
        ),
        (
            &["explain", "GET", "/", "--user", "ada@example.com"],
            1,
            "authgate: DIR/state/authgate.db: no database: start the gateway, or set its state directory with --state-dir DIR\n",
        ),
    ] {
        assert_eq!(run(arguments), (code, String::new(), said.to_owned()));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was made");
    let folder = Gateway::serve(folder).into_folder();
    let output = command(folder.path(), &["explain", "GET", "/", "--user", "eve@example.com"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), said.as_str()),
        (Some(1), "authgate: no account with the e-mail eve@example.com\n")
    );
}

#[test]
fn a_disabled_account_gets_what_an_anonymous_user_gets() {
    let gateway = gateway();
    gateway.add_user("bob@example.com", &["staff"]);
    let verdict = || explained(&gateway, "GET /staff/x", Some("bob@example.com"), &[("Accept", "*/*")]);
    assert_eq!(verdict()["verdict"], "forward own");
    gateway.cli(&["user", "disable", "bob@example.com"]);
    assert_eq!((&verdict()["verdict"], &verdict()["user"]), (&json!("401"), &Value::Null));
}

/// `explain` is pasted into tickets: what the environment holds is not shown, as nowhere else.
#[test]
fn explain_shows_no_constant_of_an_identity_table_that_came_from_the_environment() {
    const SECRET: &str = "hush-0123456789";
    let folder = crate::gateway::configured(
        "[[upstream]]\nname = \"app\"\nservers = [\"builtin:whoami\"]\nidentity = { \"X-Webserver-Secret\" = \"${APP_SECRET}\", \
         \"X-Mixed\" = \"{id}:${APP_SECRET}\", \"X-Typed-Secret\" = \"typed-hush\", \"X-Script-Name\" = \"/cw\", \"X-User\" = \"{email}\" }\n[[route]]\nupstream = \"app\"\n",
    );
    let gateway = Gateway::serve_with(folder, &[("APP_SECRET", SECRET)]);
    let cookie = gateway.first_account();
    for form in [&[][..], &["--json"]] {
        let arguments =
            [&["explain", "GET", "/x", "--user", "ada@example.com", "--header", "Accept: */*"], form].concat();
        let output = command(gateway.folder(), &arguments).env("APP_SECRET", SECRET).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!said.contains("hush") && said.contains("X-Webserver-Secret"), "{said}");
        assert!(said.contains("/cw") && said.contains("ada@example.com") && said.contains("***"), "{said}");
    }
    let seen = gateway.client().get("/x", &[("Cookie", &cookie)]);
    assert_eq!(
        (seen.seen("x-webserver-secret"), seen.seen("x-mixed")),
        (vec![SECRET.to_owned()], vec![format!("1:{SECRET}")])
    );
}
