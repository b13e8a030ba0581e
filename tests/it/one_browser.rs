//! Several people at one browser, for tests. A small jar stands for the browser: it keeps and sends cookies by RFC 6265, 5.3
//! and 5.4, for one host.

use std::io::Write;

use crate::backend::{Backend, Received};
use crate::client::Answer;
use crate::gateway::Gateway;

/// What an app does: `/PATH?set=NAME=VALUE;ATTRIBUTES` sets that cookie; below `/fresh` with a 304, below `/ws` with a 101 to the handshake of RFC 6455, 1.3.
fn app(received: &Received, stream: &mut dyn Write) -> bool {
    let target = received.line.split(' ').nth(1).unwrap();
    let set = target
        .split_once("?set=")
        .map_or(String::new(), |(_, set)| format!("Set-Cookie: {}\r\n", set.replace(',', "; ")));
    let answer = if target.starts_with("/ws") {
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n{set}\r\n"
        )
    } else if target.starts_with("/fresh") {
        format!("HTTP/1.1 304 Not Modified\r\n{set}\r\n")
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{set}\r\nok")
    };
    stream.write_all(answer.as_bytes()).is_ok()
}

#[derive(Default, Clone)]
pub struct Jar(pub Vec<Stored>);

#[derive(Clone, PartialEq)]
pub struct Stored {
    pub name: String,
    pub path: String,
    pub domain: bool,
    pub value: String,
}

impl Jar {
    pub fn header(&self, path: &str) -> String {
        let matches = |own: &str| {
            path == own || path.strip_prefix(own).is_some_and(|rest| own.ends_with('/') || rest.starts_with('/'))
        };
        let mut sent: Vec<&Stored> = self.0.iter().filter(|cookie| matches(&cookie.path)).collect();
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        sent.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>().join("; ")
    }

    pub fn take(&mut self, path: &str, answer: &Answer) {
        for line in answer.all("set-cookie") {
            let mut parts = line.split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let attributes: Vec<(&str, &str)> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
            let find =
                |wanted: &str| attributes.iter().find(|(own, _)| own.eq_ignore_ascii_case(wanted)).map(|(_, v)| *v);
            let folder = &path[..path.rfind('/').unwrap().max(1)];
            let stored = Stored {
                name: name.to_owned(),
                path: find("path").unwrap_or(folder).to_owned(),
                domain: find("domain").is_some(),
                value: value.to_owned(),
            };
            self.0.retain(|own| (&own.name, &own.path, own.domain) != (&stored.name, &stored.path, stored.domain));
            if find("max-age") != Some("0") {
                self.0.push(stored);
            }
        }
    }

    /// The value of one of the gateway's own.
    pub fn own(&self, name: &str) -> String {
        self.0.iter().find(|cookie| cookie.name == name).unwrap().value.clone()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(|cookie| format!("{}{}", cookie.name, cookie.path)).collect();
        names.retain(|name| !name.starts_with("authgate"));
        names.sort();
        names
    }
}

pub struct World {
    pub gateway: Gateway,
    pub backend: Backend,
    pub jar: Jar,
    passwords: &'static str,
}

impl World {
    pub fn start(more: &str) -> Self {
        let backend = Backend::start(app);
        let route = |path: &str, more: &str| {
            format!("[[route]]\npath = \"{path}\"\nupstream = \"http://{}\"\n{more}\n", backend.address)
        };
        let routes = [
            route("/public/**", "access = \"public\""),
            route("/bare/**", "access = \"public\"\ncookies = \"drop\""),
            route("/**", ""),
        ];
        let gateway = Gateway::start(&format!("{more}\n{}", routes.concat()));
        gateway.first_account();
        gateway.add_user("bob@example.com", &[]);
        Self { gateway, backend, jar: Jar::default(), passwords: crate::gateway::PASSWORD }
    }

    pub fn sign_in(&mut self, email: &str) {
        let body = serde_json::json!({ "email": email, "password": self.passwords });
        let header = self.jar.header("/.auth/login");
        let answer = self.gateway.client().post_json("/.auth/login", &[("Cookie", &header)], &body);
        assert_eq!(answer.status, 200);
        self.jar.take("/.auth/login", &answer);
    }

    pub fn sign_out(&mut self) {
        let header = self.jar.header("/.auth/logout");
        let answer = self.gateway.client().request("POST /.auth/logout", &[("Cookie", &header)], b"");
        self.jar.take("/.auth/logout", &answer);
    }

    /// Opens a page; the cookies that the app saw.
    pub fn open(&mut self, target: &str) -> String {
        let path = target.split('?').next().unwrap().to_owned();
        let header = self.jar.header(&path);
        let fields = if header.is_empty() { vec![] } else { vec![("Cookie", header.as_str())] };
        let answer = self.gateway.client().get(target, &fields);
        assert_eq!(answer.status, if target.starts_with("/fresh") { 304 } else { 200 }, "{target}");
        self.jar.take(&path, &answer);
        self.backend.next().field("cookie").unwrap_or_default().to_owned()
    }
}
