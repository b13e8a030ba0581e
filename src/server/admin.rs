//! The admin listener: `/healthz` (the process lives), `/readyz` (the store answers; 503 while
//! draining), `/metrics`. Meant for loopback: it answers only requests whose Host is an address or
//! `localhost`, so that no web page can read it by pointing a name at it (DNS rebinding).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::ServeError;
use crate::account::Accounts;
use crate::config::Listen;
use crate::gateway::Gateway;
use crate::metrics::Format;
use crate::web::host::Host;

const HEAD_BYTES_MAX: usize = 8 << 10;
const HEAD_TIME: Duration = Duration::from_secs(5);

/// The bound listener, if there is to be one.
pub(super) enum Admin {
    Off,
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

pub(super) fn bind(address: Option<&Listen>) -> Result<Admin, ServeError> {
    let Some(address) = address else { return Ok(Admin::Off) };
    let bound = super::listen::bind(std::slice::from_ref(address))?;
    Ok(match bound.into_iter().next() {
        Some(super::listen::Socket::Tcp(listener, address) | super::listen::Socket::Tls(listener, address)) => {
            tracing::info!(address = %format!("http://{address}"), "admin listening");
            Admin::Tcp(listener)
        }
        Some(super::listen::Socket::Unix(listener, path)) => {
            tracing::info!(address = %format!("unix:{}", path.display()), "admin listening");
            Admin::Unix(listener)
        }
        None => Admin::Off,
    })
}

/// Answers in the background until the process ends.
pub(super) fn start(admin: Admin, gateway: Gateway, accounts: Accounts, stopped: watch::Receiver<bool>) {
    let asked = Asked { gateway, accounts, stopped };
    match admin {
        Admin::Off => {}
        Admin::Tcp(listener) => {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            tokio::spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => drop(tokio::spawn(serve(stream, asked.clone()))),
                        Err(_) => sleep(Duration::from_millis(100)).await,
                    }
                }
            });
        }
        Admin::Unix(listener) => {
            let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
            tokio::spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => drop(tokio::spawn(serve(stream, asked.clone()))),
                        Err(_) => sleep(Duration::from_millis(100)).await,
                    }
                }
            });
        }
    }
}

#[derive(Clone)]
struct Asked {
    gateway: Gateway,
    accounts: Accounts,
    stopped: watch::Receiver<bool>,
}

/// One request a connection: read the head, answer, close.
async fn serve<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S, asked: Asked) {
    let mut head = Vec::new();
    let read = timeout(HEAD_TIME, async {
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
    let (status, kind, body) = answer(&head, &asked).await;
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = timeout(HEAD_TIME, stream.write_all(text.as_bytes())).await;
    let _ = stream.shutdown().await;
}

async fn answer(head: &[u8], asked: &Asked) -> (&'static str, &'static str, String) {
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
    if !field("host").and_then(Host::parse).is_some_and(|host| is_literal(host.name())) {
        return ("421 Misdirected Request", TEXT, "ask for an address or localhost\n".to_owned());
    }
    match (request.method, request.path) {
        (Some("GET"), Some("/healthz")) => ("200 OK", TEXT, "ok\n".to_owned()),
        (Some("GET"), Some("/readyz")) if *asked.stopped.borrow() => {
            ("503 Service Unavailable", TEXT, "draining\n".to_owned())
        }
        (Some("GET"), Some("/readyz")) if asked.accounts.ready().await => ("200 OK", TEXT, "ok\n".to_owned()),
        (Some("GET"), Some("/readyz")) => ("503 Service Unavailable", TEXT, "the store does not answer\n".to_owned()),
        (Some("GET"), Some("/metrics")) => {
            let format = Format::of_accept(field("accept"));
            ("200 OK", format.content_type(), asked.gateway.metrics_text(format))
        }
        (Some("GET"), _) => ("404 Not Found", TEXT, "not found\n".to_owned()),
        _ => ("405 Method Not Allowed", TEXT, "GET only\n".to_owned()),
    }
}

fn is_literal(name: &str) -> bool {
    let inside = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || inside.parse::<std::net::IpAddr>().is_ok()
}
