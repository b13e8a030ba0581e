//! Exchanges over real sockets: what an outbound request may cost, and what is read of its response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::limits::{DOCUMENT_BYTES_MAX, HEAD_BYTES_MAX, PER_DESTINATION_MAX, Times};
use super::{Client, Destination, FetchError, Place, Reach, Request, Response};
use crate::config::Authority;
use crate::web::strict_json::JsonError;

const QUICK: Times = Times { connect: Duration::from_millis(400), whole: Duration::from_millis(800) };
/// For exchanges that must not end by time.
const PATIENT: Times = Times { connect: Duration::from_secs(20), whole: Duration::from_secs(20) };

/// Answers every connection with these bytes once a request head has come; `None` bytes never answer.
async fn serve(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer: Arc<[u8]> = answer.into().into();
    serve_with(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            head(&mut stream).await;
            let _ = stream.write_all(&answer).await;
            // the client closes
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await
}

async fn serve_with<F: Future<Output = ()> + Send + 'static>(
    answer: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

/// Reads to the end of a request head; returns all that was read.
async fn head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

fn json(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn request(url: &str) -> Request {
    Request {
        url: Url::parse(url).unwrap(),
        reach: Reach::Operator,
        authorization: None,
        form: None,
        body_bytes_max: DOCUMENT_BYTES_MAX,
    }
}

async fn fetch_within(times: Times, url: &str) -> Result<Response, FetchError> {
    Client::with_times(times).unwrap().fetch(&Destination::new(&[]), request(url)).await
}

async fn fetch(answer: impl Into<Vec<u8>>) -> Result<Response, FetchError> {
    fetch_within(PATIENT, &format!("http://{}/token", serve(answer).await)).await
}

#[tokio::test]
async fn an_honest_response_is_read_whole() {
    let response = fetch(json(r#"{"a":1}"#)).await.unwrap();
    assert_eq!((response.status, response.json["a"].as_u64()), (200, Some(1)));
    let chunked = "HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nDate: today\r\n\
                   Transfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n5\r\n\":\"b\"\r\n1\r\n}\r\n0\r\n\r\n";
    let response = fetch(chunked).await.unwrap();
    assert_eq!((response.status, response.json["a"].as_str()), (400, Some("b")), "an error is a response too");
    assert!(!response.is_success());
    assert_eq!(response.date.as_deref(), Some("today"));
    let largest = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 2));
    assert_eq!(fetch(json(&largest)).await.unwrap().json.as_str().map(str::len), Some(DOCUMENT_BYTES_MAX - 2));
}

#[tokio::test]
async fn the_request_says_what_it_should_and_no_more() {
    let (sent, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let address = serve_with(move |mut stream| {
        let sent = sent.clone();
        async move {
            let mut text = head(&mut stream).await;
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).await.unwrap();
            text.push_str(std::str::from_utf8(&body).unwrap());
            sent.send(text).unwrap();
            stream.write_all(json("{}").as_bytes()).await.unwrap();
        }
    })
    .await;
    let client = Client::with_times(PATIENT).unwrap();
    let to = Destination::new(&[]);
    client.fetch(&to, request(&format!("http://{address}/a/b?c=d"))).await.unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        requests.recv().await.unwrap(),
        format!(
            "GET /a/b?c=d HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\n\
             user-agent: authgate/{version}\r\nconnection: close\r\n\r\n"
        )
    );
    let post = Request {
        authorization: Some("Basic eDp5".parse().unwrap()),
        form: Some("grant_type=x".to_owned()),
        ..request(&format!("http://{address}/token"))
    };
    client.fetch(&to, post).await.unwrap();
    let sent = requests.recv().await.unwrap();
    assert!(sent.starts_with("POST /token HTTP/1.1\r\n"), "{sent}");
    assert!(sent.ends_with("content-length: 12\r\n\r\ngrant_type=x"), "{sent}");
    for line in ["authorization: Basic eDp5\r\n", "content-type: application/x-www-form-urlencoded\r\n"] {
        assert!(sent.contains(line), "{line} in {sent}");
    }
}

#[tokio::test]
async fn other_bodies_than_json_are_refused_unread() {
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    assert_eq!(fetch(html).await, Err(FetchError::NotJson { status: 200, bytes: Some(6) }));
    let charset = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-16\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(fetch(charset).await, Err(FetchError::NotJson { status: 200, bytes: Some(2) }));
    let lie = json("<html>");
    assert_eq!(fetch(lie).await, Err(FetchError::BadJson { status: 200, error: JsonError::Syntax(1, 1) }));
    let twice = json(r#"{"access_token":"a","access_token":"b"}"#);
    assert_eq!(fetch(twice).await, Err(FetchError::BadJson { status: 200, error: JsonError::DuplicateName }));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = serve(json("{}")).await;
    for status in [301, 302, 303, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} X\r\nLocation: http://{target}/\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(fetch(answer).await, Err(FetchError::Redirect(status)));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_cut_off_declared_or_not() {
    let body = format!("\"{}\"", "x".repeat(70 << 10));
    assert_eq!(fetch(json(&body)).await, Err(FetchError::TooLarge(DOCUMENT_BYTES_MAX)));
    // endless, by chunks
    let address = serve_with(|mut stream| async move {
        head(&mut stream).await;
        let start = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = stream.write_all(start.as_bytes()).await;
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    })
    .await;
    let result = fetch_within(PATIENT, &format!("http://{address}/")).await;
    assert_eq!(result, Err(FetchError::TooLarge(DOCUMENT_BYTES_MAX)));
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let padded = |bytes: usize| {
        let filler = "x".repeat(bytes);
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX: {filler}\r\nContent-Length: 2\r\n\r\n{{}}")
    };
    assert!(matches!(fetch(padded(HEAD_BYTES_MAX)).await, Err(FetchError::Protocol(_))));
    assert_eq!(fetch(padded(HEAD_BYTES_MAX / 2)).await.unwrap().status, 200);
    let fields = |count: usize| {
        let fields = "X: y\r\n".repeat(count);
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}Content-Length: 2\r\n\r\n{{}}")
    };
    assert!(matches!(fetch(fields(120)).await, Err(FetchError::Protocol(_))));
    assert_eq!(fetch(fields(80)).await.unwrap().status, 200);
}

#[tokio::test]
async fn rubbish_and_a_cut_body_are_no_responses() {
    for answer in
        ["nonsense\r\n\r\n", "", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{}"]
    {
        let answer = answer.to_owned();
        let address = serve_with(move |mut stream| {
            let answer = answer.clone();
            async move {
                head(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
        .await;
        let result = fetch_within(PATIENT, &format!("http://{address}/")).await;
        assert!(matches!(result, Err(FetchError::Protocol(_))), "{result:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_or_slow_is_given_up() {
    let timed_out = Err(FetchError::TimedOut("waiting for the response"));
    let silent = serve("").await;
    assert_eq!(fetch_within(QUICK, &format!("http://{silent}/")).await, timed_out);
    // one byte at a time, for ever
    let slow = serve_with(|mut stream| async move {
        head(&mut stream).await;
        let start = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n";
        let _ = stream.write_all(start.as_bytes()).await;
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b" ").await.is_ok() {
            interval.tick().await;
        }
    })
    .await;
    assert_eq!(fetch_within(QUICK, &format!("http://{slow}/")).await, timed_out);
    // TLS is never answered
    let silent = serve_with(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!(fetch_within(QUICK, &format!("https://{silent}/")).await, timed_out);
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for url in [format!("http://{address}/"), "http://no-such-host.invalid/".to_owned()] {
        let result = fetch_within(PATIENT, &url).await;
        assert!(matches!(result, Err(FetchError::Unreachable(_))), "{url}: {result:?}");
    }
}

#[tokio::test]
async fn names_that_no_server_answers_for_hold_up_their_own_provider_alone() {
    let address = serve(json("{}")).await;
    let url = format!("http://localhost:{}/", address.port());
    let client = Client::with_times(QUICK).unwrap();
    let (silent, other) = (Destination::new(&[]), Destination::new(&[]));
    // two lookups that the system's resolver still works on
    let stuck = Arc::clone(&silent.lookups).acquire_many_owned(2).await.unwrap();
    assert_eq!(client.fetch(&silent, request(&url)).await, Err(FetchError::TimedOut("connecting")));
    assert_eq!(client.fetch(&other, request(&url)).await.unwrap().status, 200);
    drop(stuck);
    assert_eq!(client.fetch(&silent, request(&url)).await.unwrap().status, 200);
}

// the address that is connected to decides
#[tokio::test]
async fn a_url_out_of_a_document_leads_inside_only_where_the_operator_leads_there() {
    let address = serve(json("{}")).await;
    let fetch = |url: String, from: Place| {
        let request = Request { reach: Reach::Document(from), ..request(&url) };
        async move { Client::with_times(PATIENT).unwrap().fetch(&Destination::new(&[]), request).await }
    };
    let forbidden = Err(FetchError::ForbiddenAddress(address.ip()));
    let port = address.port();
    assert_eq!(fetch(format!("http://{address}/"), Place::Private).await, forbidden);
    assert_eq!(fetch(format!("http://{address}/"), Place::Public).await, forbidden);
    // a name that leads inside is what rebinding ends in
    let named = fetch(format!("http://localhost:{port}/"), Place::Public).await;
    assert!(matches!(named, Err(FetchError::ForbiddenAddress(inner)) if inner.is_loopback()), "{named:?}");
    let metadata = fetch("http://169.254.169.254/latest/meta-data".to_owned(), Place::Loopback).await;
    assert_eq!(metadata, Err(FetchError::ForbiddenAddress("169.254.169.254".parse().unwrap())));
    let own = fetch(format!("http://{address}/"), Place::Loopback).await.unwrap();
    assert_eq!((own.status, own.place), (200, Place::Loopback), "the document came from this machine");
}

/// A server over TLS with a certificate for this name; returns its address and the authority in PEM.
async fn serve_tls(name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> (SocketAddr, String) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    change(&mut leaf);
    let leaf = leaf.signed_by(&key, &rcgen::Issuer::from_params(&authority, &authority_key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(leaf.der().to_vec())],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = serve_with(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            head(&mut stream).await;
            let _ = stream.write_all(json("{}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    (address, pem)
}

fn authorities(pem: &str) -> Vec<Authority> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    Authority::read(file.path()).unwrap()
}

#[tokio::test]
async fn a_certificate_of_another_authority_of_another_name_or_of_the_past_is_refused() {
    let expired = |leaf: &mut rcgen::CertificateParams| {
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
    };
    let (good, own) = serve_tls("127.0.0.1", |_| {}).await;
    let (other_name, of_other_name) = serve_tls("id.example.com", |_| {}).await;
    let (past, of_past) = serve_tls("127.0.0.1", expired).await;
    let client = Client::with_times(PATIENT).unwrap();
    let fetch = |address: SocketAddr, trusted: Vec<Authority>| {
        let client = client.clone();
        async move { client.fetch(&Destination::new(&trusted), request(&format!("https://{address}/"))).await }
    };
    assert_eq!(fetch(good, authorities(&own)).await.unwrap().status, 200, "its own `ca`");
    for (address, trusted, what) in [
        (good, vec![], "UnknownIssuer"),
        (good, authorities(&of_past), "BadSignature"),
        (other_name, authorities(&of_other_name), "not valid for name"),
        (past, authorities(&of_past), "expired"),
    ] {
        match fetch(address, trusted).await {
            Err(FetchError::Tls(why)) => assert!(why.to_lowercase().contains(&what.to_lowercase()), "{what}: {why}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_destination_that_hangs_occupies_its_own_places_alone() {
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, arrived) = (Arc::clone(&connections), Arc::new(Semaphore::new(0)));
    let arrival = Arc::clone(&arrived);
    let hanging = serve_with(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let arrival = Arc::clone(&arrival);
        async move {
            head(&mut stream).await;
            arrival.add_permits(1);
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await;
    let client = Client::with_times(PATIENT).unwrap();
    let (hung, well) = (Destination::new(&[]), Destination::new(&[]));
    let url = format!("http://{hanging}/");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..PER_DESTINATION_MAX {
        let (client, hung, url) = (client.clone(), hung.clone(), url.clone());
        waiting.spawn(async move { client.fetch(&hung, request(&url)).await });
    }
    arrived.acquire_many(u32::try_from(PER_DESTINATION_MAX).unwrap()).await.unwrap().forget();
    for _ in 0..200 {
        assert_eq!(client.fetch(&hung, request(&url)).await, Err(FetchError::Busy));
    }
    assert_eq!(connections.load(Ordering::SeqCst), PER_DESTINATION_MAX);
    let address = serve(json("{}")).await;
    assert_eq!(client.fetch(&well, request(&format!("http://{address}/"))).await.unwrap().status, 200);
    // the thread ends with its last handle, and those who wait learn it
    drop(client);
    waiting.abort_all();
}

#[tokio::test]
async fn places_are_free_again_after_every_kind_of_end() {
    let client = Client::with_times(QUICK).unwrap();
    let to = Destination::new(&[]);
    let (good, silent) = (serve(json("{}")).await, serve("").await);
    for _ in 0..3 {
        for _ in 0..PER_DESTINATION_MAX {
            client.fetch(&to, request(&format!("http://{good}/"))).await.unwrap();
        }
        let ends = (0..PER_DESTINATION_MAX).map(|_| client.fetch(&to, request(&format!("http://{silent}/"))));
        for end in futures_util::future::join_all(ends).await {
            assert_eq!(end, Err(FetchError::TimedOut("waiting for the response")));
        }
    }
}
