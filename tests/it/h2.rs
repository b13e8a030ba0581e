//! HTTP/2 from a client through the gateway, to servers that speak HTTP/1.1 and to those that speak HTTP/2.

use std::future::Future;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, Request, Response};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::backend::{Backend, accept, nobody, ok, silent};
use crate::gateway::is_here;
use crate::tls::{Authority, Secure};
use crate::websockets::HANDSHAKE;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test's own tasks; nothing that does not come holds it for ever.
pub fn run<T>(what: impl Future<Output = T>) -> T {
    // the test itself may block; connections are driven on another thread
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, what).await.expect("nothing came of it") })
}

/// A connection in HTTP/2; streams are opened on the clone that one holds.
pub async fn connect(authority: &Authority, address: SocketAddr, name: &str) -> SendRequest<Bytes> {
    connect_with(&h2::client::Builder::new(), authority, address, name).await
}

/// The same, with settings of the client's own.
pub async fn connect_with(
    builder: &h2::client::Builder,
    authority: &Authority,
    address: SocketAddr,
    name: &str,
) -> SendRequest<Bytes> {
    let connector = tokio_rustls::TlsConnector::from(authority.client_config("h2"));
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = connector.connect(name.to_owned().try_into().unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (send, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

/// A request's head for `https://a.example.com`.
pub fn request(line: &str, fields: &[(&str, &str)]) -> Request<()> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(format!("https://a.example.com{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// Sends a whole request and waits for the head of its answer.
pub async fn ask(
    send: &SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
) -> Result<Response<RecvStream>, h2::Error> {
    let mut send = send.clone().ready().await?;
    let (answer, mut stream) = send.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        // an answer may come before the body was asked for, and end the stream
        let _ = stream.send_data(Bytes::copy_from_slice(body), true);
    }
    answer.await
}

/// The rest of an answer.
pub async fn read(answer: Response<RecvStream>) -> Result<(u16, String, Option<HeaderMap>), h2::Error> {
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        text.extend_from_slice(&data);
    }
    Ok((status, String::from_utf8(text).unwrap(), body.trailers().await?))
}

/// Whether nothing more comes, and the end is a clean one.
pub async fn ends(body: &mut RecvStream) -> bool {
    match body.data().await {
        // the end may have a frame of its own
        Some(Ok(data)) => data.is_empty() && body.data().await.is_none(),
        Some(Err(_)) => false,
        None => true,
    }
}

impl Secure {
    pub async fn h2(&self) -> SendRequest<Bytes> {
        connect(&self.authority, self.gateway.tls, "a.example.com").await
    }
}

#[test]
fn curl_speaks_http2_and_backends_and_pages_see_no_difference() {
    if !is_here("curl") {
        return;
    }
    let secure = Secure::whoami();
    let cookie = secure.first_account();
    let told = "%{http_version} %{http_code} %header{strict-transport-security}";
    let body = secure.curl(&["-H", &format!("Cookie: {cookie}"), "-w", told, "https://a.example.com/x?y=z"]);
    assert!(body.ends_with("}2 200 max-age=63072000"), "{body}");
    for seen in
        ["[\"x-forwarded-proto\",\"https\"]", "[\"remote-email\",\"ada@example.com\"]", "\"a.example.com\"", "/x?y=z"]
    {
        assert!(body.to_lowercase().contains(seen), "{seen}: {body}");
    }
    assert!(!body.contains("authgate="), "{body}");
    let refused = secure.curl(&["-w", " %{http_version} %{http_code}", "https://a.example.com/x"]);
    assert!(refused.starts_with("{\"error\":\"signed_out\"") && refused.ends_with(" 2 401"), "{refused}");
    let page =
        secure.curl(&["-H", "Accept: text/html", "-w", " %{http_code} %{redirect_url}", "https://a.example.com/x"]);
    assert!(page.starts_with(" 303 https://a.example.com/.auth/login?callbackUrl="), "{page}");
    let form =
        ["--data-urlencode", "email=ada@example.com", "--data-urlencode", "password=correct horse battery staple"];
    let arguments =
        [&form[..], &["-o", "/dev/null", "-w", "%{http_version} %{http_code} %header{set-cookie}"]].concat();
    let signed_in = secure.curl(&[&arguments[..], &["https://a.example.com/.auth/login"]].concat());
    assert!(signed_in.starts_with("2 303 __Host-authgate="), "{signed_in}");
    assert_eq!(secure.curl(&["-I", "-o", "/dev/null", "-w", "%{http_code}", "https://a.example.com/public/x"]), "200");
}

/// RFC 9113, 8.1: an answer may overtake the body. Whoever goes on sending, as curl 7.88 does for a moment, gets it.
#[test]
fn an_upload_that_is_refused_before_its_end_has_its_answer() {
    if !is_here("curl") {
        return;
    }
    let backend = Backend::start(ok);
    let secure = Secure::start(&format!(
        "[[route]]\npath = \"/small/**\"\naccess = \"public\"\nbody_max = \"1KiB\"\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("upload");
    std::fs::write(&file, vec![b'y'; 2_000_000]).unwrap();
    for (path, chunked, status) in
        [("x", "X: y", " 2 401"), ("small/x", "X: y", " 2 413"), ("small/x", "Content-Length:", " 2 413")]
    {
        let url = format!("https://a.example.com/{path}");
        let told =
            secure.curl(&["-T", file.to_str().unwrap(), "-H", chunked, "-w", " %{http_version} %{http_code}", &url]);
        assert!(told.starts_with("{\"error\":") && told.ends_with(status), "{path}: {told:?}");
    }
}

#[test]
fn bodies_of_any_size_pass_both_ways_and_connections_to_the_server_are_kept() {
    if !is_here("curl") {
        return;
    }
    let backend = Backend::start(|request, stream| {
        let chunked = request.line.starts_with("POST /chunked");
        let mut head = format!("HTTP/1.1 200 OK\r\nApp: {}\r\n", request.body.len());
        head += if chunked { "Transfer-Encoding: chunked\r\n\r\n" } else { "Content-Length: 3000000\r\n\r\n" };
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..30 {
            let piece = vec![b'x'; 100_000];
            let sent = if chunked {
                stream
                    .write_all(b"186a0\r\n")
                    .and_then(|()| stream.write_all(&piece))
                    .and_then(|()| stream.write_all(b"\r\n"))
            } else {
                stream.write_all(&piece)
            };
            if sent.is_err() {
                return false;
            }
        }
        !chunked || stream.write_all(b"0\r\n\r\n").is_ok()
    });
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address));
    let folder = TempDir::new().unwrap();
    let (sent, got) = (folder.path().join("sent"), folder.path().join("got"));
    for length in [0, 60_000, 2_000_000] {
        std::fs::write(&sent, vec![b'y'; length]).unwrap();
        for (path, field) in [("length", "X: y"), ("chunked", "Content-Length:")] {
            let (data, url) = (format!("@{}", sent.display()), format!("https://a.example.com/{path}"));
            let arguments = ["--http2", "-H", field, "--data-binary", &data, "-o", got.to_str().unwrap()];
            let told =
                secure.curl(&[&arguments[..], &["-w", "%{http_version} %{http_code} %header{app}", &url]].concat());
            assert_eq!(told, format!("2 200 {length}"), "{path}");
            assert_eq!(std::fs::metadata(&got).unwrap().len(), 3_000_000);
        }
    }
}

#[test]
fn a_thousand_requests_of_h2load_are_all_answered() {
    if !is_here("h2load") {
        return;
    }
    let secure = Secure::whoami();
    let output = Command::new("h2load")
        .args(["-n", "1000", "-c", "4", "-m", "25", "-t", "1", "--connect-to", &secure.gateway.tls.to_string()])
        .arg("https://a.example.com/public/x")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("Application protocol: h2"), "{said}");
    assert!(said.contains("1000 succeeded, 0 failed, 0 errored"), "{said}");
    assert!(said.contains("status codes: 1000 2xx"), "{said}");
}

/// A dead server is 502 and a slow one 504 (RFC 9110, 15.6), each with the request id.
#[test]
fn a_dead_and_a_slow_server_are_502_and_504_and_the_connection_continues() {
    let (listener, slow) = silent();
    let secure = Secure::start(&format!(
        "[[route]]\npath = \"/dead\"\naccess = \"public\"\nupstream = \"http://{}\"\n[[route]]\npath = \"/slow\"\naccess = \"public\"\nupstream = \"http://{slow}\"\ntimeout = \"500ms\"\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n",
        nobody()
    ));
    run(async {
        let send = secure.h2().await;
        for (line, status, word) in [("GET /dead", 502, "bad_gateway"), ("POST /slow", 504, "gateway_timeout")] {
            let answer = ask(&send, request(line, &[]), b"body").await.unwrap();
            let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
            let (code, text, _) = read(answer).await.unwrap();
            assert_eq!((code, text), (status, format!("{{\"error\":\"{word}\",\"request_id\":\"{id}\"}}")));
        }
        assert_eq!(ask(&send, request("GET /x", &[]), b"").await.unwrap().status(), 200);
    });
    drop(listener);
}

#[test]
fn a_client_that_takes_its_stream_back_frees_the_server() {
    let (listener, address) = silent();
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n"));
    run(async {
        let mut send = secure.h2().await;
        let (answer, mut stream) = send.send_request(request("GET /", &[]), true).unwrap();
        let mut upstream = accept(&listener);
        assert!(std::io::Read::read(&mut upstream, &mut [0; 4096]).unwrap() > 0);
        stream.send_reset(Reason::CANCEL);
        drop(answer);
        let ended = tokio::task::spawn_blocking(move || std::io::Read::read(&mut upstream, &mut [0; 1]).unwrap_or(0));
        assert_eq!(ended.await.unwrap(), 0);
    });
}

/// When a session ends, other connections are untouched. WebKitGTK tells its pages nothing of a reset.
#[test]
fn an_event_stream_ends_cleanly_when_its_session_ends_and_other_streams_go_on() {
    let backend = Backend::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n").unwrap();
        // open until the gateway goes
        std::thread::park();
        false
    });
    let secure = Secure::start(&format!(
        "[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"http://{0}\"\n[[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let cookie = secure.first_account();
    run(async {
        let send = secure.h2().await;
        let ask = |path: &str, cookie: &str| ask(&send, request(&format!("GET {path}"), &[("cookie", cookie)]), b"");
        let (own, others) = (ask("/events", &cookie).await.unwrap(), ask("/public/events", "app=1").await.unwrap());
        let (mut own, mut others) = (own.into_body(), others.into_body());
        for stream in [&mut own, &mut others] {
            assert_eq!(stream.data().await.unwrap().unwrap(), "data: one\n\n");
        }
        secure.gateway.cli(&["session", "revoke", "--user", "ada@example.com"]);
        assert!(ends(&mut own).await);
        assert_eq!(ask("/events", &cookie).await.unwrap().status(), 401);
        let nothing = tokio::time::timeout(Duration::from_millis(100), others.data()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    });
}

/// A gRPC call may stay open as long as a WebSocket: it belongs to its session, too. Shutting down lets it end.
#[test]
fn a_grpc_call_ends_when_its_session_ends_and_others_continue_until_they_end() {
    const ONE: &[u8] = b"\0\0\0\0\x03one";
    let (address, _received) = echo(None);
    let mut secure = Secure::start(&format!(
        "[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"h2c://{address}\"\n[[route]]\nupstream = \"h2c://{address}\"\n"
    ));
    let cookie = secure.first_account();
    run(async {
        let send = secure.h2().await;
        let call = async |path: &str, cookie: &str| {
            // whichever of them the server reads
            let fields =
                [("cookie", cookie), ("content-type", "text/plain"), ("content-type", "application/grpc+proto")];
            let mut send = send.clone().ready().await.unwrap();
            let (answer, mut up) = send.send_request(request(&format!("POST {path}"), &fields), false).unwrap();
            let mut down = answer.await.unwrap().into_body();
            up.send_data(Bytes::from_static(ONE), false).unwrap();
            assert_eq!(down.data().await.unwrap().unwrap(), ONE);
            (up, down)
        };
        let ((_up, mut own), (mut up, mut others)) =
            (call("/app.Service/Talk", &cookie).await, call("/public/Talk", "app=1").await);
        assert_eq!(secure.gateway.metric("authgate_live_connections"), 2);
        let began = std::time::Instant::now();
        secure.gateway.cli(&["session", "revoke", "--user", "ada@example.com"]);
        assert!(own.data().await.is_none());
        assert_eq!(own.trailers().await.unwrap().unwrap()["grpc-status"], "16");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        secure.gateway.signal("TERM");
        secure.gateway.wait_for(|_, line| line.contains("draining"));
        while send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        up.send_data("two".into(), true).unwrap();
        assert_eq!(others.data().await.unwrap().unwrap(), "two");
        assert!(others.data().await.is_none());
        assert_eq!(others.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
    secure.gateway.terminate();
}

/// Issue 5, item 2: "requests in flight keep the configuration they began with", streams of one connection too.
#[test]
fn an_open_stream_keeps_the_configuration_that_it_began_with_and_the_next_one_has_the_new_one() {
    let (listener, address) = silent();
    let mut secure = Secure::start(&format!(
        "[[route]]\npath = \"/old/**\"\naccess = \"public\"\nupstream = \"http://{address}\"\n"
    ));
    let file = secure.gateway.folder().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("/old/**", "/new/**");
    run(async {
        let send = secure.h2().await;
        let mut first = send.clone();
        let (answer, _) = first.send_request(request("GET /old/x", &[]), true).unwrap();
        let mut upstream = accept(&listener);
        assert!(std::io::Read::read(&mut upstream, &mut [0; 4096]).unwrap() > 0);
        secure.gateway.write(&text);
        secure.gateway.signal("HUP");
        secure.gateway.wait_for(|_, line| line.contains("configuration reloaded"));
        assert_eq!(ask(&send, request("GET /old/x", &[]), b"").await.unwrap().status(), 404);
        std::io::Write::write_all(
            &mut upstream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        )
        .unwrap();
        assert_eq!(read(answer.await.unwrap()).await.unwrap().1, "ok");
        let (answer, _) = first.ready().await.unwrap().send_request(request("GET /new/x", &[]), true).unwrap();
        let mut upstream = accept(&listener);
        assert!(std::io::Read::read(&mut upstream, &mut [0; 4096]).unwrap() > 0);
        std::io::Write::write_all(&mut upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew").unwrap();
        assert_eq!(read(answer.await.unwrap()).await.unwrap().1, "new");
    });
}

#[test]
fn a_stopping_gateway_lets_streams_end_and_takes_no_new_ones() {
    let (listener, address) = silent();
    let mut secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n"));
    run(async {
        let mut send = secure.h2().await;
        let (answer, _) = send.send_request(request("GET /", &[]), true).unwrap();
        let mut upstream = accept(&listener);
        assert!(std::io::Read::read(&mut upstream, &mut [0; 4096]).unwrap() > 0);
        secure.gateway.signal("TERM");
        // the connection says so: GOAWAY
        while send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        std::io::Write::write_all(&mut upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        assert_eq!(read(answer.await.unwrap()).await.unwrap().1, "ok");
    });
    secure.gateway.terminate();
}

/// A server in HTTP/2 that sends back what it gets, then trailers; gives the heads that it received.
pub fn echo(authority: Option<&Authority>) -> (SocketAddr, Receiver<Request<()>>) {
    let (sender, received) = channel();
    let acceptor = authority.map(|authority| authority.acceptor(&["h2", "http/1.1"]));
    let address = serve(move |stream| {
        let (sender, acceptor) = (sender.clone(), acceptor.clone());
        async move {
            match acceptor {
                Some(tls) => echo_on(tls.accept(stream).await.unwrap(), sender).await,
                None => echo_on(stream, sender).await,
            }
        }
    });
    (address, received)
}

/// A server on a thread of its own; each connection is a task.
pub fn serve<F: Future<Output = ()> + 'static>(on: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(on(stream));
            }
        });
    });
    address
}

async fn echo_on(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    sender: std::sync::mpsc::Sender<Request<()>>,
) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (parts, mut body) = request.into_parts();
        sender.send(Request::from_parts(parts.clone(), ())).unwrap();
        tokio::spawn(async move {
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            // trailers pass until the answer begins
            let is_held = parts.uri.path() == "/held";
            if is_held {
                body.data().await;
            }
            let mut answer = respond.send_response(head, false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                if answer.send_data(data, false).is_err() {
                    return;
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            for name in parts.headers.get_all("x-trailer") {
                trailers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), "evil".parse().unwrap());
            }
            if let Ok(Some(told)) = body.trailers().await {
                let names: Vec<&str> = told.keys().map(HeaderName::as_str).collect();
                trailers.insert("x-told", names.join(" ").parse().unwrap());
                trailers.extend(told);
            }
            let _ = answer.send_trailers(trailers);
        });
    }
}

impl Authority {
    /// For `localhost`, in these protocols.
    pub fn acceptor(&self, protocols: &[&str]) -> tokio_rustls::TlsAcceptor {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        self.pair("localhost", &["localhost"]);
        let path = |ending: &str| self.folder.path().join(format!("localhost.{ending}"));
        let chain = CertificateDer::pem_file_iter(path("pem")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))
    }
}

/// README: "gRPC". Both directions at once, trailers both ways, identity on the way.
#[test]
fn streams_pass_both_ways_at_once_with_trailers_to_a_server_in_http2() {
    let (address, received) = echo(None);
    let secure = Secure::start(&format!("[[route]]\nupstream = \"h2c://{address}\"\n"));
    let cookie = secure.first_account();
    run(async {
        let mut send = secure.h2().await;
        let fields = [("cookie", cookie.as_str()), ("te", "trailers"), ("content-type", "application/grpc")];
        for _ in 0..3 {
            send = send.ready().await.unwrap();
            let (answer, mut up) = send.send_request(request("POST /app.Service/Talk", &fields), false).unwrap();
            let mut down = answer.await.unwrap().into_body();
            for word in ["one", "two", "three"] {
                up.send_data(Bytes::from(word), false).unwrap();
                assert_eq!(down.data().await.unwrap().unwrap(), word);
            }
            up.send_trailers([("x-own".parse().unwrap(), "y".parse().unwrap())].into_iter().collect()).unwrap();
            assert!(down.data().await.is_none());
            let trailers = down.trailers().await.unwrap().unwrap();
            // what stands behind a request whose answer has begun stays here
            assert_eq!((&trailers["grpc-status"], trailers.get("x-own")), (&"0".parse().unwrap(), None));
        }
    });
    let head = received.recv().unwrap();
    let field = |name: &str| head.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(head.uri().to_string(), "http://a.example.com/app.Service/Talk");
    assert_eq!(
        (field("te"), field("remote-email"), field("cookie")),
        (Some("trailers"), Some("ada@example.com"), None)
    );
    assert_eq!((field("x-forwarded-proto"), field("host")), (Some("https"), None));
}

/// RFC 9110, 6.5.1: trailers may be merged into the head, so whoever could not say it there cannot say it behind.
#[test]
fn trailers_carry_no_identity_credentials_cookies_or_framing_either_way() {
    let (address, _received) = echo(None);
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    let bad_up = [
        "remote-user",
        "remote_user",
        "x-authgate-jwt-assertion",
        "x-forwarded-for",
        "x-real-ip",
        "authorization",
        "cookie",
        "content-length",
        "host",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "destination",
    ];
    let bad_down = ["set-cookie", "access-control-allow-origin", "access-control-allow-credentials", "content-length"];
    run(async {
        let send = secure.h2().await;
        let fields: Vec<_> =
            bad_down.iter().chain(&["grpc-message", "app.meta_data"]).map(|name| ("x-trailer", *name)).collect();
        let mut send = send.ready().await.unwrap();
        let (answer, mut up) = send.send_request(request("POST /held", &fields), false).unwrap();
        let trailer = |name: &str| (name.parse::<HeaderName>().unwrap(), "evil".parse().unwrap());
        up.send_trailers(bad_up.iter().chain(&["grpc-x", "x-own"]).map(|name| trailer(name)).collect()).unwrap();
        let (status, _, trailers) = read(answer.await.unwrap()).await.unwrap();
        let trailers = trailers.unwrap();
        let mut told: Vec<&str> = trailers["x-told"].to_str().unwrap().split(' ').collect();
        told.sort_unstable();
        assert_eq!((status, told), (200, vec!["grpc-x", "x-own"]));
        let mut got: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        got.sort_unstable();
        assert_eq!(got, ["app.meta_data", "grpc-message", "grpc-status", "grpc-x", "x-own", "x-told"]);
    });
}

/// HTTP 200 with `grpc-status` 16 (unauthenticated) or 7 (permission denied).
#[test]
fn grpc_calls_that_are_refused_learn_it_in_their_own_words() {
    let (address, received) = echo(None);
    let secure = Secure::start(&format!(
        "[[route]]\npath = \"/staff/**\"\ngroups = [\"staff\"]\nupstream = \"h2c://{address}\"\n[[route]]\nupstream = \"h2c://{address}\"\n"
    ));
    let cookie = secure.first_account();
    run(async {
        let send = secure.h2().await;
        for (path, cookie, status) in [("/x", "", "16"), ("/staff/x", cookie.as_str(), "7")] {
            let fields = [("cookie", cookie), ("content-type", "application/grpc"), ("te", "trailers")];
            let answer = ask(&send, request(&format!("POST {path}"), &fields), b"body").await.unwrap();
            assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &status.parse().unwrap()));
            assert_eq!(read(answer).await.unwrap().1, "");
        }
    });
    assert!(received.try_recv().is_err(), "a refused call reached the server");
}

#[test]
fn an_https_server_is_spoken_to_in_http2_where_it_offers_that() {
    let authority = Authority::new();
    let (address, received) = echo(Some(&authority));
    let secure = Secure::start_with(
        &format!("[[route]]\naccess = \"public\"\nupstream = \"https://localhost:{}\"\n", address.port()),
        &[("SSL_CERT_FILE", authority.roots().to_str().unwrap())],
    );
    run(async {
        let send = secure.h2().await;
        for _ in 0..2 {
            let (status, text, trailers) =
                read(ask(&send, request("POST /x", &[]), b"hello").await.unwrap()).await.unwrap();
            assert_eq!((status, text.as_str()), (200, "hello"));
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
    });
    let head = received.recv().unwrap();
    assert_eq!(head.uri().to_string(), "https://a.example.com/x");
}

/// Clients in HTTP/1.1 reach such a server too; trailers are HTTP/2's alone.
#[test]
fn a_client_in_http1_is_served_by_a_server_in_http2() {
    let (address, received) = echo(None);
    let gateway =
        crate::gateway::Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    let mut client = gateway.client();
    for length in [0, 5, 100_000] {
        let answer = client.request("POST /x", &[("Remote-User", "root")], &vec![b'x'; length]);
        assert_eq!((answer.status, answer.body.len()), (200, length));
        let head = received.recv().unwrap();
        assert_eq!((head.uri().path(), head.headers().get("remote-user")), ("/x", None));
    }
}

/// A server in HTTP/2 that answers `ok` with these lengths.
fn with_lengths(lengths: &'static [&'static str]) -> SocketAddr {
    serve(move |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut head = Response::new(());
            for length in lengths {
                head.headers_mut().append("content-length", length.parse().unwrap());
            }
            if let Ok(mut body) = respond.send_response(head, false) {
                let _ = body.send_data(Bytes::from("ok"), true);
            }
        }
    })
}

/// CWE-444: an answer in HTTP/2 that says two lengths would be two answers in HTTP/1.1.
#[test]
fn an_answer_in_http2_says_one_length_or_none() {
    for (lengths, status) in
        [(&["2"][..], 200), (&[], 200), (&["2", "2"], 200), (&["2", "3"], 502), (&["02", "2"], 502)]
    {
        let address = with_lengths(lengths);
        let gateway = crate::gateway::Gateway::start(&format!(
            "[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"
        ));
        let mut client = gateway.client();
        let answer = client.get("/x", &[]);
        assert_eq!(answer.status, status, "{lengths:?}: {answer:?}");
        assert_eq!(answer.all("content-length").len() + answer.all("transfer-encoding").len(), 1, "{answer:?}");
        assert!(status == 502 || answer.text() == "ok" && client.get("/x", &[]).text() == "ok");
    }
}

/// 64 KiB, as in HTTP/1.1.
#[test]
fn a_head_without_measure_of_a_server_in_http2_is_502() {
    let address = serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let fields = request.uri().path().trim_matches('/').parse().unwrap();
            let mut head = Response::new(());
            for _ in 0..fields {
                head.headers_mut().append("app", "x".repeat(1000).parse().unwrap());
            }
            let _ = respond.send_response(head, true);
        }
    });
    let gateway =
        crate::gateway::Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    for (fields, status) in [(50, 200), (70, 502), (5000, 502), (50, 200)] {
        assert_eq!(gateway.client().get(&format!("/{fields}"), &[]).status, status, "{fields}");
    }
}

/// One request is one question to the rules, whichever way it goes: a ticket for one handshake is still good for it.
#[test]
fn a_request_to_a_server_in_http2_is_checked_and_counted_once() {
    let (address, received) = echo(None);
    let gateway = crate::gateway::Gateway::start(&format!(
        "[[route]]\nupstream = \"h2c://{address}\"\nwebsocket = {{ token = [\"query:ticket\"] }}\n"
    ));
    let cookie = gateway.first_account();
    let ticket = gateway.client().request("POST /.auth/ws-ticket", &[("Cookie", &cookie)], b"").json();
    let path = format!("/ws?ticket={}", ticket["ticket"].as_str().unwrap());
    // no socket there: the server answers a plain request
    assert_eq!(gateway.client().get(&path, HANDSHAKE).status, 200);
    assert_eq!(received.recv().unwrap().uri().to_string(), format!("http://{}/ws", gateway.address));
    assert_eq!(gateway.client().get(&path, HANDSHAKE).status, 401, "it was good once");
    let mut client = gateway.client();
    client.send(
        format!(
            "POST /asked HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(client.head().status, 100);
    client.send(b"hi");
    assert_eq!(client.answer().text(), "hi");
    let text = crate::metrics::ask(gateway.admin, "/metrics", "").1;
    for line in [
        "authgate_authz_total{route=\"/**\",result=\"allowed\"} 2",
        "authgate_authz_total{route=\"/**\",result=\"signed_out\"} 1",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}: {text}");
    }
}

/// RFC 8441 is not announced, and a tunnel is not opened.
#[test]
fn websockets_over_http2_are_not_announced_and_tunnels_are_405() {
    let secure = Secure::whoami();
    run(async {
        let send = secure.h2().await;
        assert!(!send.is_extended_connect_protocol_enabled());
        let connect = Request::builder().method("CONNECT").uri("a.example.com:443").body(()).unwrap();
        let mut sender = send.clone().ready().await.unwrap();
        let (answer, _stream) = sender.send_request(connect, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 405);
        assert_eq!(ask(&send, request("GET /public/x", &[]), b"").await.unwrap().status(), 200);
    });
}

/// RFC 9113, 6.8 and 8.7: what a server has not looked at may be asked once more, whatever the method.
#[test]
fn a_request_that_a_server_in_http2_has_not_looked_at_is_sent_once_more() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for how in ["refuses", "goes away", "refuses always", "fails"] {
        let connections = Arc::new(AtomicUsize::new(0));
        let address = serve(move |mut stream| {
            let first = connections.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if how == "goes away" && first {
                    // no settings of note, and a GOAWAY behind which no stream was looked at
                    let frames =
                        [&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
                            .concat();
                    let mut piece = [0; 16 << 10];
                    while !piece[..].windows(4).any(|four| four == b"body")
                        && stream.read(&mut piece).await.unwrap() > 0
                    {}
                    stream.write_all(&frames).await.unwrap();
                    while stream.read(&mut piece).await.unwrap_or(0) > 0 {}
                    return;
                }
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    match how {
                        "refuses" if first => respond.send_reset(Reason::REFUSED_STREAM),
                        "refuses always" => respond.send_reset(Reason::REFUSED_STREAM),
                        "fails" => respond.send_reset(Reason::INTERNAL_ERROR),
                        _ => drop(tokio::spawn(async move {
                            let mut body = request.into_body();
                            let mut length = 0;
                            while let Some(Ok(data)) = body.data().await {
                                let _ = body.flow_control().release_capacity(data.len());
                                length += data.len();
                            }
                            let head = Response::builder().header("app", length).body(()).unwrap();
                            respond.send_response(head, true).unwrap();
                        })),
                    }
                }
            }
        });
        let gateway = crate::gateway::Gateway::start(&format!(
            "[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"
        ));
        let body = b"body".repeat(10_000);
        let answer = gateway.client().request("POST /x", &[], &body);
        let seen = (answer.status, answer.field("app"));
        assert_eq!(
            seen,
            if how.starts_with("refuses a") || how == "fails" { (502, None) } else { (200, Some("40000")) },
            "{how}"
        );
    }
}
