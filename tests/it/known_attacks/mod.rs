//! Attacks that systems of this kind fell to, one test for each, named by its row: A identity headers and
//! trust, B paths, hosts and rules, C cookies and sessions, D tokens, E signing in and up, F HTTP/1 framing, W WebSocket, R resources, J operations.
//! Each names the advisory or the rule that it comes from, has a positive twin beside it, and ends with a
//! fresh connection that is served. `tests/run` counts them by group.
//!
//! Where a case is not what the gateway does, its test says so and proves what stands in its place: there are
//! no servers for error pages (A16), no expressions as patterns (B8), a first start has no users (B17), an unmet
//! rule is 404 (B12, B13), `Clear-Site-Data` would take what is not ours (C10), Autobahn runs in the benchmarks
//! (W5), and slow is not idle (R5). Floods are as large as a test may be; each says how large.
//!
//! Most share one gateway, which lives as long as any of them runs. What is asked goes both ways that a
//! request may take: a plain exchange, and a streamed body.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use crate::backend::{Backend, Received};
use crate::client::Answer;
use crate::gateway::Gateway;

mod a_identity;
mod b_paths;
mod c_sessions;
mod d_tokens;
mod e_login;
mod j_operations;
mod f_framing;
mod h_websocket;
mod i_resources;

/// A backend before which the gateway stands, and an account that is signed in.
pub struct Stage {
    pub gateway: Gateway,
    /// Ada's session cookie.
    pub ada: String,
    backend: Mutex<(Backend, Vec<Received>)>,
}

static SHARED: Mutex<Weak<Stage>> = Mutex::new(Weak::new());

/// The one that all share.
pub fn stage() -> Arc<Stage> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stage) = shared.upgrade() {
        return stage;
    }
    let stage = Arc::new(Stage::start());
    *shared = Arc::downgrade(&stage);
    stage
}

/// Answers with what it received, in the form of the built-in backend.
pub fn mirror(request: &Received, stream: &mut dyn Write) -> bool {
    let body = String::from_utf8_lossy(&request.body);
    let body = json!({ "line": request.line, "headers": request.fields, "body": body }).to_string();
    let shown = if request.line.starts_with("HEAD ") { "" } else { &body };
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{shown}", body.len());
    stream.write_all(head.as_bytes()).is_ok()
}

/// The built-in paths of the stage, in front of one backend.
pub fn routes(backend: &Backend) -> String {
    format!(
        r#"
[limits]
connections_per_address = 2000
[[upstream]]
name = "app"
servers = ["{}"]
identity = {{ "X-User-Id" = "{{id}}", "X-User-Email" = "{{email}}", "X-User-Name" = "{{name}}" }}
[[route]]
path = "/public/**"
access = "public"
upstream = "app"
[[route]]
path = "/optional/**"
access = "optional"
upstream = "app"
[[route]]
upstream = "app"
"#,
        backend.address
    )
}

impl Stage {
    fn start() -> Self {
        let backend = Backend::start(mirror);
        let gateway = Gateway::start(&routes(&backend));
        let ada = gateway.first_account();
        Self { gateway, ada, backend: Mutex::new((backend, Vec::new())) }
    }

    /// What the backend received with these letters in its target, in a field or in the body.
    pub fn arrived(&self, letters: &str) -> Vec<Received> {
        let mut backend = self.backend.lock().unwrap_or_else(PoisonError::into_inner);
        let (backend, seen) = &mut *backend;
        seen.extend(backend.all());
        let holds = |request: &&Received| {
            request.line.contains(letters)
                || request.fields.iter().any(|(_, value)| value.contains(letters))
                || String::from_utf8_lossy(&request.body).contains(letters)
        };
        seen.iter().filter(holds).cloned().collect()
    }

    pub fn get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.gateway.client().get(path, fields)
    }

    /// As Ada.
    pub fn get_as_ada(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.get(path, &[&[("Cookie", self.ada.as_str())], fields].concat())
    }

    /// Sends bytes on a connection of their own: refused with this status, the connection closed, and a
    /// fresh one is served.
    pub fn refuses(&self, bytes: &[u8], status: u16) {
        let said = String::from_utf8_lossy(bytes);
        let mut client = self.gateway.client();
        client.send(bytes);
        assert_eq!(client.answer().status, status, "{said}");
        assert!(client.is_closed(), "{said}");
        still_serves(&self.gateway);
    }
}

/// A connection made now is served.
pub fn still_serves(gateway: &Gateway) {
    assert_eq!(gateway.client().get("/.auth/login", &[("Accept", "text/html")]).status, 200);
}

/// The same request both ways that one may take: a GET, and a POST whose body is streamed.
pub fn both_ways(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> [Answer; 2] {
    let plain = gateway.client().get(path, fields);
    let mut client = gateway.client();
    let host = gateway.host();
    client.send(head(&format!("POST {path}"), &[&[("Host", host.as_str())], fields, CHUNKED].concat()).as_bytes());
    client.send(b"2\r\nhi\r\n0\r\n\r\n");
    [plain, client.answer()]
}

pub const CHUNKED: &[(&str, &str)] = &[("Transfer-Encoding", "chunked")];

/// The bytes of a head.
pub fn head(line: &str, fields: &[(&str, &str)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line} HTTP/1.1\r\n{}\r\n", fields.concat())
}

/// The fields that the backend told of, as it got them.
pub fn fields(answer: &Answer) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    answer.json()["headers"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

/// Memory that the gateway holds now.
pub fn resident_kib(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
