//! TLS: which certificate a client is shown, what is said of files that do not fit, new files while
//! connections are open, and what https changes for HTTP/1.1. README: "TLS".

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tempfile::TempDir;

use crate::client::Client;
use crate::gateway::{Gateway, PASSWORD, command, eventually, is_here};

/// An authority, and a folder in which certificates of it are.
pub struct Authority {
    pub folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut own = CertificateParams::new(Vec::new()).unwrap();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.distinguished_name.push(rcgen::DnType::CommonName, "authority of tests");
        let issuer = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("authority.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Writes `FILE.pem` and `FILE.key`; gives the entry for `certificates`.
    pub fn pair(&self, file: &str, names: &[&str]) -> String {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let own = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.folder.path().join(format!("{file}.{ending}"));
        std::fs::write(path("pem"), own.pem() + &self.issuer.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(path("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        format!("{{ certificate = \"{}\", key = {{ file = \"{}\" }} }}", path("pem").display(), path("key").display())
    }

    pub fn client_config(&self, protocol: &str) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.roots()).unwrap()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }

    /// A TLS connection that must come about. Without a `name` none is asked for.
    pub fn connect(&self, address: SocketAddr, name: Option<&str>, protocol: &str) -> Tls {
        let name = name.map_or_else(|| ServerName::from(address.ip()), |name| name.to_owned().try_into().unwrap());
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let connection = rustls::ClientConnection::new(self.client_config(protocol), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream
    }
}

pub type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// `a.example.com` first, then `b.example.com` with all names below `wild.example.com`; served over TLS and plain.
pub struct Secure {
    pub authority: Authority,
    pub gateway: Gateway,
}

impl Secure {
    /// `rest` follows `[server.tls]`.
    pub fn start(rest: &str) -> Self {
        Self::start_with(rest, &[])
    }

    /// With some environment variables set.
    pub fn start_with(rest: &str, variables: &[(&str, &str)]) -> Self {
        let authority = Authority::new();
        let (a, b) = (
            authority.pair("a", &["a.example.com", "127.0.0.1"]),
            authority.pair("b", &["b.example.com", "*.wild.example.com"]),
        );
        let folder = TempDir::new().unwrap();
        let text = format!(
            "[server]\nlisten = [\"https://127.0.0.1:0\", \"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\npublic_url = \"https://a.example.com\"\n[server.tls]\ncertificates = [{a}, {b}]\n{rest}"
        );
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        Self { authority, gateway: Gateway::serve_with(folder, variables) }
    }

    pub fn whoami() -> Self {
        Self::start(
            "[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
        )
    }

    /// HTTP/1.1 over TLS.
    pub fn client(&self, name: &str) -> Client {
        let stream = self.authority.connect(self.gateway.tls, Some(name), "http/1.1");
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        Client::over(stream, name.to_owned())
    }

    /// Makes the first account and gives its session cookie.
    pub fn first_account(&self) -> String {
        let path = self.gateway.invite.clone().unwrap();
        let body = json!({ "email": "ada@example.com", "name": "Ada", "password": PASSWORD });
        let answer = self.client("a.example.com").post_json(&path, &[], &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.session_cookie()
    }

    pub fn curl(&self, arguments: &[&str]) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
            .arg(self.authority.roots())
            .args(["--connect-to", &format!("::{}", self.gateway.tls)])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What `openssl s_client` is shown: the names in the certificate; an error where there is no handshake.
fn shown(address: SocketAddr, arguments: &[&str]) -> Result<String, String> {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &address.to_string()]).args(arguments).stdin(Stdio::null());
    let output = client.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut reader = Command::new("openssl");
    reader.args(["x509", "-noout", "-ext", "subjectAltName"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut reader = reader.spawn().unwrap();
    std::io::Write::write_all(&mut reader.stdin.take().unwrap(), &output.stdout).unwrap();
    let names = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
    Ok(names.lines().last().unwrap().trim().to_owned())
}

/// "chosen by SNI; the first one is for names that none has."
#[test]
fn openssl_is_shown_the_certificate_of_the_name_it_asks_for_and_else_the_first() {
    if !is_here("openssl") {
        return;
    }
    let secure = Secure::whoami();
    let (a, b) = ("DNS:a.example.com, IP Address:127.0.0.1", "DNS:b.example.com, DNS:*.wild.example.com");
    for (name, names) in [
        ("a.example.com", a),
        ("A.Example.COM", a),
        ("b.example.com", b),
        ("x.wild.example.com", b),
        ("wild.example.com", a),
        ("y.x.wild.example.com", a),
        ("unknown.example.org", a),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            assert_eq!(shown(secure.gateway.tls, &["-servername", name, version]).unwrap(), names, "{name}");
        }
    }
    assert_eq!(shown(secure.gateway.tls, &["-noservername"]).unwrap(), a);
}

/// RFC 8996: TLS 1.0 and 1.1 are not spoken.
#[test]
fn versions_before_1_2_get_no_handshake() {
    if !is_here("openssl") {
        return;
    }
    let secure = Secure::whoami();
    for version in ["-tls1", "-tls1_1"] {
        let refused =
            shown(secure.gateway.tls, &["-servername", "a.example.com", version, "-cipher", "ALL:@SECLEVEL=0"]);
        let said = refused.unwrap_err();
        assert!(said.contains("SSL alert number"), "{said}");
    }
    assert!(shown(secure.gateway.tls, &["-servername", "a.example.com", "-tls1_2"]).is_ok());
}

#[test]
fn https_is_reported_to_backends_and_browsers_and_plain_http_is_sent_there() {
    let secure = Secure::whoami();
    let cookie = secure.first_account();
    assert!(cookie.starts_with("__Host-authgate="), "{cookie}");
    let mut client = secure.client("a.example.com");
    for _ in 0..2 {
        let answer = client.get("/x", &[("Cookie", &cookie)]);
        assert_eq!((answer.status, answer.seen("x-forwarded-proto")), (200, vec!["https".to_owned()]));
        assert_eq!(answer.field("strict-transport-security"), Some("max-age=63072000"));
    }
    // a refusal, a page and a streamed exchange say it too
    for (line, fields) in [
        ("GET /y", vec![]),
        ("GET /.auth/login", vec![]),
        ("POST /z", vec![("Expect", "100-continue")]),
        ("GET /public/x", vec![("Connection", "x-odd")]),
    ] {
        let body: &[u8] = if line.starts_with("POST") { b"hi" } else { b"" };
        let answer = secure.client("a.example.com").request(line, &fields, body);
        assert_eq!(answer.field("strict-transport-security"), Some("max-age=63072000"), "{line}: {answer:?}");
    }
    let plain = secure.gateway.client().get("/x?y=z", &[("Host", "a.example.com"), ("Cookie", &cookie)]);
    assert_eq!((plain.status, plain.field("location")), (308, Some("https://a.example.com/x?y=z")));
    assert_eq!(plain.field("strict-transport-security"), None);
    assert_eq!(secure.gateway.client().get("/x", &[("X-Forwarded-Proto", "https")]).status, 308);
    let mut admin = Client::connect(secure.gateway.admin);
    assert_eq!(admin.get("/healthz", &[("Host", "localhost")]).status, 200);
}

/// RFC 9110, 7.4 and 15.5.20; Traefik's SNI advisories: rules of one name must not be gone round under another's.
#[test]
fn a_host_that_the_connections_certificate_does_not_speak_for_is_misdirected() {
    let secure = Secure::whoami();
    let ask = |name: &str, host: &str| secure.client(name).get("/public/x", &[("Host", host)]).status;
    assert_eq!(ask("a.example.com", "b.example.com"), 421);
    assert_eq!(ask("b.example.com", "a.example.com"), 421);
    assert_eq!(ask("b.example.com", "x.y.wild.example.com"), 421);
    assert_eq!(ask("a.example.com", "a.example.com:443"), 200);
    assert_eq!(ask("b.example.com", "x.wild.example.com"), 200);
    assert_eq!(ask("x.wild.example.com", "b.example.com"), 200);
    // and a [[test]] may expect it
    let mut config = std::fs::read_to_string(secure.gateway.folder().join("gateway.toml")).unwrap();
    config += "[[test]]\nrequest = \"GET https://a.example.com/public/x\"\nheaders = { Host = \"b.example.com\" }\nexpect = \"421\"\n\
               [[test]]\nrequest = \"GET https://127.0.0.1/public/x\"\nheaders = { Host = \"b.example.com\" }\nexpect = \"forward builtin:whoami\"\n";
    secure.gateway.write(&config);
    assert!(secure.gateway.cli(&["check"]).contains("2 of 2 tests passed"));
    // whoever asked for no name was promised none
    let stream = secure.authority.connect(secure.gateway.tls, None, "http/1.1");
    assert_eq!(Client::over(stream, "b.example.com".to_owned()).get("/public/x", &[]).status, 200);
}

#[test]
fn new_files_are_shown_to_new_connections_and_open_ones_go_on() {
    if !is_here("openssl") {
        return;
    }
    let mut secure = Secure::whoami();
    let mut open = secure.client("a.example.com");
    assert_eq!(open.get("/public/1", &[]).status, 200);
    secure.authority.pair("a", &["a.example.com", "new.example.com"]);
    eventually("the new certificate is shown", || {
        shown(secure.gateway.tls, &["-servername", "a.example.com"]).unwrap().contains("new.example.com")
    });
    assert_eq!(open.get("/public/2", &[]).status, 200);
    assert_eq!(secure.client("new.example.com").get("/public/3", &[]).status, 200);
    // somebody else's key: the one before it is kept, and the log says so
    let key = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(secure.authority.folder.path().join("a.key"), key).unwrap();
    secure.gateway.wait_for(|_, line| line.contains("certificate not reloaded, previous one stays in use"));
    assert!(shown(secure.gateway.tls, &["-servername", "a.example.com"]).unwrap().contains("new.example.com"));
    let mut admin = Client::connect(secure.gateway.admin);
    let metrics = admin.get("/metrics", &[("Host", "localhost")]).text();
    assert!(metrics.contains("authgate_tls_certificates_unfit_total 1\n"), "{metrics}");
    // files that fit again are taken
    secure.authority.pair("a", &["a.example.com", "newest.example.com"]);
    eventually("the newest certificate is shown", || {
        shown(secure.gateway.tls, &["-servername", "a.example.com"]).unwrap().contains("newest.example.com")
    });
    let read = |_: &mut Gateway, line: &str| line.contains("certificate reloaded") && line.contains("newest");
    secure.gateway.wait_for(read);
    // so are those that can be read at last
    let key = secure.authority.folder.path().join("a.key");
    std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    secure.gateway.wait_for(read);
}

#[test]
fn a_certificate_that_has_expired_is_served_and_told_of() {
    if !is_here("openssl") {
        return;
    }
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap();
    (own.not_before, own.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let own = own.signed_by(&key, &authority.issuer).unwrap();
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("old.pem"), own.pem()).unwrap();
    std::fs::write(folder.path().join("old.key"), key.serialize_pem()).unwrap();
    let text = "[server]\nlisten = [\"https://127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\n[server.tls]\ncertificates = [{ certificate = \"old.pem\", key = { file = \"old.key\" } }]\n[[route]]\nupstream = \"builtin:whoami\"\n";
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let checked = command(folder.path(), &["check"]).output().unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(
        checked.status.success() && said.contains("warning: this certificate has expired") && said.contains("toml:5:"),
        "{said}"
    );
    let gateway = Gateway::serve(folder);
    assert_eq!(shown(gateway.tls, &["-servername", "a.example.com"]).unwrap(), "DNS:a.example.com");
    assert!(gateway.into_log().contains("certificate expired"));
}

/// What `check` says of `[server.tls]`, whose line is the fourth.
fn judged(folder: &Path, tls: &str) -> String {
    let text = format!(
        "[server]\nlisten = [\"https://127.0.0.1:0\"]\n[server.tls]\n{tls}\n[[route]]\nupstream = \"builtin:whoami\"\n"
    );
    std::fs::write(folder.join("gateway.toml"), text).unwrap();
    let output = command(folder, &["check"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(if said.contains("error: ") { 64 } else { 0 }), "{said}");
    said.replace(&folder.display().to_string(), "DIR")
}

#[test]
fn what_does_not_fit_is_said_with_its_place_and_a_remedy() {
    if !is_here("openssl") {
        return;
    }
    let authority = Authority::new();
    let folder = authority.folder.path();
    authority.pair("a", &["a.example.com"]);
    authority.pair("b", &["b.example.com"]);
    let encrypted = Command::new("openssl")
        .args(["pkey", "-in", "a.key", "-aes256", "-passout", "pass:x", "-out", "locked.key"])
        .current_dir(folder)
        .status();
    assert!(encrypted.unwrap().success());
    std::fs::write(folder.join("none.pem"), "nothing\n").unwrap();
    std::fs::write(folder.join("torn.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let entry = |certificate: &str, key: &str| {
        format!("certificates = [{{ certificate = \"{certificate}\", key = {{ file = \"{key}\" }} }}]")
    };
    for (certificate, key, at_fault, said) in [
        ("a.pem", "b.key", "key", "the key does not match the first certificate in DIR/a.pem"),
        ("missing.pem", "a.key", "certificate", "cannot read DIR/missing.pem: No such file or directory"),
        ("a.pem", "missing.key", "key", "cannot read DIR/missing.key: No such file or directory"),
        ("none.pem", "a.key", "certificate", "DIR/none.pem contains no PEM certificate"),
        ("torn.pem", "a.key", "certificate", "cannot parse the first certificate in DIR/torn.pem"),
        ("a.pem", "none.pem", "key", "the source of the key contains no PEM private key"),
        ("a.pem", "locked.key", "key", "the key is encrypted with a passphrase"),
    ] {
        let entry = entry(certificate, key);
        let column = entry.find(&format!("{at_fault} = ")).unwrap() + at_fault.len() + 4;
        let judged = judged(folder, &entry);
        assert!(judged.contains(&format!("error: {said}")), "{judged}");
        assert!(judged.contains(&format!("DIR/gateway.toml:4:{column}")), "{column}: {judged}");
        assert!(judged.contains("= help: ") && judged.contains("1 error in"), "{judged}");
    }
    assert!(!judged(folder, &entry("a.pem", "a.key")).contains("error"));
    let none = judged(folder, "certificates = []");
    assert!(none.contains("error: `https://127.0.0.1:0` has no certificate\n") && none.contains("toml:2:11"), "{none}");
    let half = judged(folder, "certificates = [{ certificate = \"a.pem\" }]");
    assert!(half.contains("error: the certificate has no `key`"), "{half}");
}

/// As in the example of gateway.toml: an environment variable holds it as well as a file.
#[test]
fn a_key_may_stand_in_the_environment() {
    let authority = Authority::new();
    authority.pair("a", &["a.example.com"]);
    let key = std::fs::read_to_string(authority.folder.path().join("a.key")).unwrap();
    let text = format!(
        "[server]\nlisten = [\"https://127.0.0.1:0\"]\nadmin_listen = \"\"\n[server.tls]\ncertificates = [{{ certificate = {:?}, key = {{ env = \"TLS_KEY\" }} }}]\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n",
        authority.folder.path().join("a.pem")
    );
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let gateway = Gateway::serve_with(folder, &[("TLS_KEY", &key)]);
    let stream = authority.connect(gateway.tls, Some("a.example.com"), "http/1.1");
    assert_eq!(Client::over(stream, "a.example.com".to_owned()).get("/", &[]).status, 200);
}

/// limits: "10 s for a TLS handshake"; whoever says nothing holds a connection no longer.
#[test]
fn a_handshake_that_does_not_come_is_given_up() {
    let secure = Secure::whoami();
    let mut silent = Client::connect(secure.gateway.tls);
    assert!(silent.is_closed());
    // and bytes that are neither TLS nor HTTP get nothing but an alert
    let mut plain = TcpStream::connect(secure.gateway.tls).unwrap();
    std::io::Write::write_all(&mut plain, b"\x7f\x45\x4c\x46\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _ = std::io::Read::read_to_end(&mut plain, &mut said);
    assert!(!said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));
    assert_eq!(secure.client("a.example.com").get("/public/x", &[]).status, 200);
}

/// The end of a session closes its WebSockets over TLS, too.
#[test]
fn a_websocket_over_tls_echoes_and_is_closed_with_its_session() {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::{Message, client};
    let secure = Secure::whoami();
    let cookie = secure.first_account();
    let mut request = "wss://a.example.com/".into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    let stream = secure.authority.connect(secure.gateway.tls, Some("a.example.com"), "http/1.1");
    let (mut socket, _) = client(request, stream).unwrap();
    assert!(socket.read().unwrap().is_text(), "what the backend received comes first");
    for text in ["one".to_owned(), "x".repeat(300_000)] {
        socket.send(Message::text(text.clone())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(text));
    }
    secure.gateway.cli(&["session", "revoke", "--user", "ada@example.com"]);
    match socket.read().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 4403),
        other => panic!("no Close: {other:?}"),
    }
}

/// Large answers and bodies, both ways of the front, by curl.
#[test]
fn curl_sends_and_gets_megabytes_over_tls() {
    if !is_here("curl") {
        return;
    }
    let backend = crate::backend::Backend::start(|request, stream| {
        let body = vec![b'x'; 3_000_000];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nApp: {}\r\n\r\n", body.len(), request.body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_ok()
    });
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    let folder = TempDir::new().unwrap();
    let (sent, got) = (folder.path().join("sent"), folder.path().join("got"));
    for length in [0, 60_000, 2_000_000] {
        std::fs::write(&sent, vec![b'y'; length]).unwrap();
        let data = format!("@{}", sent.display());
        let told = secure.curl(&[
            "--http1.1",
            "--data-binary",
            &data,
            "-o",
            got.to_str().unwrap(),
            "-w",
            "%{http_code} %header{app}",
            "https://a.example.com/",
        ]);
        assert_eq!(told, format!("200 {length}"));
        assert_eq!(std::fs::metadata(&got).unwrap().len(), 3_000_000);
    }
}

/// Whoever writes http:// with the port of TLS is told so, and sees no mere end of the connection.
#[test]
fn plain_http_on_a_tls_listener_is_reported_in_a_sentence() {
    let secure = Secure::whoami();
    for request in ["GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x HTTP/1.0\r\n\r\n"] {
        let mut client = Client::connect(secure.gateway.tls);
        client.send(request.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("strict-transport-security")), (400, None));
        assert!(answer.text().contains("https://"), "{answer:?}");
        assert!(client.is_closed());
    }
    assert_eq!(secure.client("a.example.com").get("/public/x", &[]).status, 200);
    assert!(secure.gateway.into_log().contains("plain http on a TLS listener"));
}
