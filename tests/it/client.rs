//! A client that sends exactly the bytes it is told to, and refuses answers with header fields that
//! nobody listed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Every header field that the gateway or the backends of these tests may send.
const LISTED: &[&str] = &[
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "app",
    "cache-control",
    "cdn-cache-control",
    "clear-site-data",
    "connection",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "date",
    "expires",
    "grpc-status",
    "hx-redirect",
    "last-modified",
    "link",
    "location",
    "permissions-policy",
    "referrer-policy",
    "retry-after",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "server",
    "service-worker-allowed",
    "set-cookie",
    "strict-transport-security",
    "surrogate-control",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
    "x-litespeed-cache-control",
    "x-own",
    "x-request-id",
    "x-robots-tag",
];

/// A socket, or TLS over one.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
    host: String,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The only field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands twice: {self:?}");
        first
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// `name=value` of the session cookie that was set.
    pub fn session_cookie(&self) -> String {
        let cookies = self.all("set-cookie");
        let cookie = cookies.iter().find(|cookie| cookie.split('=').next().unwrap().ends_with("authgate"));
        cookie.unwrap_or_else(|| panic!("no session cookie: {self:?}")).split(';').next().unwrap().to_owned()
    }

    /// What the built-in backend saw under a header name, in any spelling that folds onto it.
    pub fn seen(&self, name: &str) -> Vec<String> {
        let fold = |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "-");
        let headers = self.json()["headers"].as_array().unwrap().clone();
        let pairs = headers.iter().map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
        pairs.filter(|(own, _)| fold(own) == fold(name)).map(|(_, value)| value.to_owned()).collect()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::connected(TcpStream::connect(address).unwrap(), address)
    }

    pub fn connected(stream: TcpStream, address: SocketAddr) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, address.to_string())
    }

    /// From another of loopback's addresses: somebody else, as far as the gateway can tell.
    pub fn connect_from(from: &str, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let from: std::net::IpAddr = from.parse().unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        Self::over(TcpStream::from(socket), address.to_string())
    }

    /// Over a stream that is there; `host` is what `Host` says.
    pub fn over(stream: impl Stream + 'static, host: String) -> Self {
        Self { stream: BufReader::new(Box::new(stream)), host }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // a server that refuses may have closed already: what it answered is still read
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Sends a request line and fields; `Host` is added unless one is given.
    pub fn request(&mut self, line: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{line} HTTP/1.1\r\n").into_bytes();
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            write!(head, "Host: {}\r\n", self.host).unwrap();
        }
        for (name, value) in fields {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if !body.is_empty() {
            write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        head.extend_from_slice(b"\r\n");
        self.send(&[head.as_slice(), body].concat());
        self.answer_to(line.starts_with("HEAD "))
    }

    pub fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.request(&format!("GET {path}"), fields, b"")
    }

    pub fn post_json(&mut self, path: &str, fields: &[(&str, &str)], body: &Value) -> Answer {
        let fields = [fields, &[("Content-Type", "application/json")]].concat();
        self.request(&format!("POST {path}"), &fields, body.to_string().as_bytes())
    }

    pub fn post_form(&mut self, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let fields = [fields, &[("Content-Type", "application/x-www-form-urlencoded")]].concat();
        self.request(&format!("POST {path}"), &fields, body.as_bytes())
    }

    pub fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    fn answer_to(&mut self, to_head: bool) -> Answer {
        loop {
            let answer = self.head();
            if answer.status != 100 {
                return self.with_body(answer, to_head);
            }
        }
    }

    /// One head, 100 Continue included.
    pub fn head(&mut self) -> Answer {
        let line = self.line();
        let status =
            line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {line:?}"));
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            assert!(LISTED.contains(&name.to_ascii_lowercase().as_str()), "nobody listed {line}");
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Answer { status, fields, body: Vec::new() }
    }

    fn with_body(&mut self, mut answer: Answer, to_head: bool) -> Answer {
        let length = answer.field("content-length").map(|digits| digits.parse::<usize>().unwrap());
        if to_head || matches!(answer.status, 101 | 204 | 304) {
            return answer;
        }
        if answer.field("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk();
                if chunk.is_empty() {
                    return answer;
                }
                answer.body.extend(chunk);
            }
        }
        if let Some(length) = length {
            answer.body = self.take(length);
        } else {
            self.stream.read_to_end(&mut answer.body).unwrap();
        }
        answer
    }

    /// One chunk; empty is the last.
    pub fn chunk(&mut self) -> Vec<u8> {
        let size = self.line();
        let length = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("no chunk size: {size:?}"));
        let chunk = self.take(length);
        assert_eq!(self.line(), "");
        chunk
    }

    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "no whole line: {:?}", String::from_utf8_lossy(&line));
        String::from_utf8(line[..line.len() - 2].to_vec()).unwrap()
    }

    /// Whether the gateway closes the connection without a reset, and sends nothing more.
    pub fn is_ended(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }

    /// Whether the gateway closes the connection (and sends nothing more).
    pub fn is_closed(&mut self) -> bool {
        let mut rest = [0; 1];
        match self.stream.read(&mut rest) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
