//! The admin listener: `/healthz` (the process runs), `/readyz` (the store responds; 503 while draining), `/metrics`.
//! Meant for loopback. It accepts only requests whose Host is an IP address, `localhost` or one of
//! `server.admin_hosts`, so that no web page can read it through DNS rebinding.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::error::ServeError;
use super::listen::{Listener, Socket};
use crate::account::Accounts;
use crate::critical;
use crate::metrics::Format;
use crate::proxy::{Current, metrics_report};
use crate::web::host::Host;
use crate::wire::stream::Stream;

const HEAD_BYTES_MAX: usize = 8 << 10;
const FIELDS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For the whole connection: the head, the store's response to a readiness check, and a client that reads slowly.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum number of concurrent connections; others wait. Local processes must not use up the gateway's descriptors.
const CONNECTIONS_MAX: usize = 32;

/// What the endpoints report on.
#[derive(Clone)]
pub(super) struct AdminContext {
    pub(super) current: Current,
    pub(super) accounts: Accounts,
    pub(super) stopped: watch::Receiver<bool>,
}

/// Serves in the background until `closed` becomes `true` or the process exits.
pub(super) fn start(socket: &Socket, context: AdminContext, closed: watch::Receiver<bool>) -> Result<(), ServeError> {
    tracing::info!(address = %socket.address(), "admin listening");
    let listener = Listener::new(socket.share().map_err(ServeError::new)?).map_err(ServeError::new)?;
    critical::spawn("admin", accept(listener, context, closed));
    Ok(())
}

async fn accept(listener: Listener, context: AdminContext, mut closed: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        let Ok((wire, _)) = accepted else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let context = context.clone();
        drop(tokio::spawn(async move {
            serve(Stream::new(wire), context).await;
            drop(permit);
        }));
    }
}

/// Serves one request and closes the connection.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, context: AdminContext) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .keep_alive(false)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service_fn(|request| respond(request, context.clone())));
    // hyper has answered what it could not read; otherwise the client is gone or too slow
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

async fn respond(request: Request<Incoming>, context: AdminContext) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = answer(&request, &context).await;
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

async fn answer(request: &Request<Incoming>, context: &AdminContext) -> (StatusCode, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !is_meant(request, context) {
        let remedy = "use an IP address or localhost, or add this host to server.admin_hosts\n";
        return (StatusCode::MISDIRECTED_REQUEST, TEXT, remedy.to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" if *context.stopped.borrow() => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n".to_owned()),
        "/readyz" => match readiness(request, context).await {
            None => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, why.to_owned()),
        },
        "/metrics" => {
            let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
            let format = Format::of_accept(accept);
            (StatusCode::OK, format.content_type(), metrics_report::metrics_text(&context.current.gateway(), format))
        }
        _ => (StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
    }
}

/// Why it is not ready, if so; with `?store`, why nobody can sign in.
async fn readiness(request: &Request<Incoming>, context: &AdminContext) -> Option<&'static str> {
    // under the configuration that is in force
    let gateway = context.current.gateway();
    if request.uri().query() == Some("store") {
        return gateway.accounts().unwritable().await;
    }
    gateway.accounts().unready().await
}

/// Whether the request names a host of this listener. HTTP/1.0 does not require Host (RFC 9112, 3.2), and no browser uses
/// it.
fn is_meant(request: &Request<Incoming>, context: &AdminContext) -> bool {
    let is_known = |host: Host| {
        let gateway = context.current.gateway();
        is_literal(host.name()) || gateway.config().server.admin_hosts.iter().any(|own| own == host.name())
    };
    match request.headers().get(header::HOST) {
        None => request.version() == Version::HTTP_10,
        Some(host) => host.to_str().ok().and_then(Host::parse).is_some_and(is_known),
    }
}

fn is_literal(name: &str) -> bool {
    let inside = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || inside.parse::<std::net::IpAddr>().is_ok()
}
