//! The admin listener: `/healthz` (the process runs), `/readyz` (the store responds; 503 while draining), `/metrics`.
//! Meant for loopback. It accepts only requests whose Host is an IP address, `localhost` or one of
//! `server.admin_hosts`, so that no web page can read it through DNS rebinding.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::error::ServeError;
use super::listen::{Listener, Socket};
use crate::account::Accounts;
use crate::critical;
use crate::metrics::Format;
use crate::proxy::{Current, report};
use crate::web::host::Host;
use crate::wire::stream::Stream;

const HEAD_BYTES_MAX: usize = 8 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
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
async fn serve<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S, context: AdminContext) {
    let mut head = Vec::new();
    let read = timeout(HEAD_TIMEOUT, async {
        while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
            if stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                continue;
            }
            break;
        }
    });
    if read.await.is_err() {
        return;
    }
    let (status, kind, body) = respond(&head, &context).await;
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let sent = if head.starts_with(b"HEAD ") { "" } else { body.as_str() };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{allow}Connection: close\r\n\r\n{sent}",
        body.len()
    );
    let _ = timeout(HEAD_TIMEOUT, stream.write_all(text.as_bytes())).await;
    let _ = stream.shutdown().await;
}

async fn respond(head: &[u8], context: &AdminContext) -> (&'static str, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    if !request.parse(head).is_ok_and(|parsed| parsed.is_complete()) {
        return ("400 Bad Request", TEXT, "bad request\n".to_owned());
    }
    let field = |name: &str| {
        let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    // HTTP/1.0 does not require Host (RFC 9112, 3.2), and no browser uses it
    let names_host = request.headers.iter().any(|field| field.name.eq_ignore_ascii_case("host"));
    let nameless = request.version == Some(0) && !names_host;
    let is_known = |host: Host| {
        let gateway = context.current.gateway();
        is_literal(host.name()) || gateway.config().server.admin_hosts.iter().any(|own| own == host.name())
    };
    if !nameless && !field("host").and_then(Host::parse).is_some_and(is_known) {
        let remedy = "use an IP address or localhost, or add this host to server.admin_hosts\n";
        return ("421 Misdirected Request", TEXT, remedy.to_owned());
    }
    if !matches!(request.method, Some("GET" | "HEAD")) {
        return ("405 Method Not Allowed", TEXT, "GET and HEAD only\n".to_owned());
    }
    match request.path.and_then(|target| target.split('?').next()) {
        Some("/healthz") => ("200 OK", TEXT, "ok\n".to_owned()),
        Some("/readyz") if *context.stopped.borrow() => ("503 Service Unavailable", TEXT, "draining\n".to_owned()),
        Some("/readyz") => match context.accounts.unready().await {
            None => ("200 OK", TEXT, "ok\n".to_owned()),
            Some(why) => ("503 Service Unavailable", TEXT, why.to_owned()),
        },
        Some("/metrics") => {
            let format = Format::of_accept(field("accept"));
            ("200 OK", format.content_type(), report::metrics_text(&context.current.gateway(), format))
        }
        _ => ("404 Not Found", TEXT, "not found\n".to_owned()),
    }
}

fn is_literal(name: &str) -> bool {
    let inside = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || inside.parse::<std::net::IpAddr>().is_ok()
}
