//! `[[upstream]]` ca, server_name and client_certificate: servers that this machine's authorities do not speak for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::gateway::{Gateway, configured};
use crate::tls::Authority;

/// Serves with the pair that is in these files; with `asks`, only to those who show a certificate of that authority.
fn server(pem: &Path, key: &Path, asks: Option<&Path>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match asks {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(pem).unwrap().map(Result::unwrap).collect();
    let config = Arc::new(builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let asked = stream.conn.server_name().unwrap_or("nothing").to_owned();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{asked}", asked.len());
            let _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

/// As `openssl req -x509` makes it: signed by itself, CA:TRUE, with no name but the common one.
fn own_certificate(folder: &Path, names: &[&str], ends: Option<i32>) -> (PathBuf, PathBuf) {
    let mut own = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    own.distinguished_name.push(DnType::CommonName, "appliance");
    if let Some(year) = ends {
        own.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
        own.not_after = rcgen::date_time_ymd(year, 1, 1);
    }
    let issuer = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
    let (pem, key) = (folder.join("own.pem"), folder.join("own.key"));
    std::fs::write(&pem, issuer.pem()).unwrap();
    std::fs::write(&key, issuer.key().serialize_pem()).unwrap();
    (pem, key)
}

/// Status and body of a request to an upstream with these keys, and what the log says.
fn asked(address: SocketAddr, keys: &str) -> (u16, String, String) {
    let gateway = Gateway::serve(configured(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"https://{address}\"]\n{keys}[[route]]\naccess = \"public\"\nupstream = \"app\"\n"
    )));
    let answer = gateway.client().get("/x", &[]);
    (answer.status, answer.text(), gateway.into_log())
}

fn file(path: &Path) -> String {
    format!("ca = {{ file = {:?} }}\n", path.display().to_string())
}

#[test]
fn a_server_whose_certificate_signed_itself_is_trusted_where_ca_names_it() {
    let folder = TempDir::new().unwrap();
    let (pem, key) = own_certificate(folder.path(), &[], None);
    let address = server(&pem, &key, None);
    let (status, _, log) = asked(address, "");
    assert!(status == 502 && log.contains("invalid peer certificate"), "{log}");
    assert!(log.contains("upstream's `ca`"), "the log says which key helps: {log}");
    assert_eq!(asked(address, &file(&pem)).0, 200);
    // another one of the same look is another server's
    let other = TempDir::new().unwrap();
    let (stranger, _) = own_certificate(other.path(), &["127.0.0.1"], None);
    let (status, _, log) = asked(address, &file(&stranger));
    assert!(status == 502 && log.contains("invalid peer certificate"), "{log}");
}

#[test]
fn a_certificate_of_its_own_is_trusted_until_it_ends() {
    let folder = TempDir::new().unwrap();
    let (pem, key) = own_certificate(folder.path(), &["127.0.0.1"], Some(2020));
    let (status, _, log) = asked(server(&pem, &key, None), &file(&pem));
    assert!(status == 502 && log.contains("invalid peer certificate: Expired"), "{log}");
}

#[test]
fn an_authority_of_ones_own_replaces_this_machines_for_one_upstream_alone() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.pair("app", &["127.0.0.1", "app.internal"]);
    let at = |name: &str| authority.folder.path().join(name);
    let address = server(&at("app.pem"), &at("app.key"), None);
    assert_eq!(asked(address, &file(&authority.roots())).0, 200);
    let (status, _, log) = asked(address, &file(&stranger.roots()));
    assert!(status == 502 && log.contains("invalid peer certificate"), "{log}");
    // another upstream does not believe it
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"app\"\nservers = [\"https://{address}\"]\n{}[[upstream]]\nname = \"other\"\nservers = [\"https://{address}\"]\n\
         [[route]]\npath = \"/other\"\naccess = \"public\"\nupstream = \"other\"\n[[route]]\naccess = \"public\"\nupstream = \"app\"\n",
        file(&authority.roots())
    ));
    let ask = |path: &str| gateway.client().get(path, &[]).status;
    assert_eq!([ask("/x"), ask("/other"), ask("/x")], [200, 502, 200]);
}

#[test]
fn server_name_is_what_the_certificate_must_have_and_what_is_asked_for() {
    let authority = Authority::new();
    authority.pair("app", &["app.internal"]);
    let at = |name: &str| authority.folder.path().join(name);
    let address = server(&at("app.pem"), &at("app.key"), None);
    let ca = file(&authority.roots());
    let (status, _, log) = asked(address, &ca);
    assert!(status == 502 && log.contains("not valid for name") && log.contains("`server_name`"), "{log}");
    let (status, body, _) = asked(address, &format!("{ca}server_name = \"app.internal\"\n"));
    assert_eq!((status, body.as_str()), (200, "app.internal"));
    assert_eq!(asked(address, &format!("{ca}server_name = \"other.internal\"\n")).0, 502);
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_the_upstreams() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.pair("app", &["127.0.0.1"]);
    let (own, foreign) = (authority.pair("gate", &["gate"]), stranger.pair("gate", &["gate"]));
    let at = |name: &str| authority.folder.path().join(name);
    let address = server(&at("app.pem"), &at("app.key"), Some(&authority.roots()));
    let ca = file(&authority.roots());
    let (status, _, log) = asked(address, &ca);
    assert!(status == 502 && log.contains("`client_certificate`"), "{log}");
    assert_eq!(asked(address, &format!("{ca}client_certificate = {own}\n")).0, 200);
    let (status, _, log) = asked(address, &format!("{ca}client_certificate = {foreign}\n"));
    assert!(status == 502 && log.contains("`client_certificate`"), "{log}");
}

/// Kept connections of one configuration are not another's.
#[test]
fn a_reload_that_takes_the_authority_away_is_in_effect_at_once() {
    let authority = Authority::new();
    authority.pair("app", &["127.0.0.1"]);
    let at = |name: &str| authority.folder.path().join(name);
    let address = server(&at("app.pem"), &at("app.key"), None);
    let text = |keys: &str| {
        format!(
            "[[upstream]]\nname = \"app\"\nservers = [\"https://{address}\"]\n{keys}[[route]]\naccess = \"public\"\nupstream = \"app\"\n"
        )
    };
    let mut gateway = Gateway::start(&text(&file(&authority.roots())));
    assert_eq!(gateway.client().get("/x", &[]).status, 200);
    gateway.reload(&text(""));
    assert_eq!(gateway.client().get("/x", &[]).status, 502);
    gateway.reload(&text(&file(&authority.roots())));
    assert_eq!(gateway.client().get("/x", &[]).status, 200);
}
