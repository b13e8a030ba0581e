//! The backend inside the binary (`builtin:whoami`): shows, over HTTP, as an event stream and over
//! a WebSocket, what a backend behind the gateway receives. hyper serves HTTP/1 on any byte stream; what is shown is
//! parsed from a copy of the head's bytes ([`recorder`]), since hyper keeps neither the case nor the order of fields.
//! It must never trust what it reads, keep a body, or know more of a request than its bytes say.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use askama::Template;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Sleep, sleep};

mod raw_head;
mod recorder;
mod socket;

use raw_head::{FIELDS_MAX, RawHead};
use recorder::{HEAD_BYTES_MAX, Recorded, Recorder};

/// Time between two events of an event stream.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// Opens a WebSocket to the page's own address and shows what it says. Its hash stands in the
/// page's Content-Security-Policy.
const SCRIPT: &str = "\
const out = document.getElementById('socket');\n\
const show = text => out.append(text + '\\n');\n\
const socket = new WebSocket(location.href.replace(/^http/, 'ws').replace(/#.*/, ''));\n\
socket.onmessage = event => show(event.data);\n\
socket.onopen = () => { show('open'); socket.send('hello from this page'); };\n\
socket.onclose = event => show('closed ' + event.code + ' ' + event.reason);\n";

const STYLE: &str = "\
:root{color-scheme:light dark;font-family:system-ui,sans-serif;line-height:1.5}\
body{max-inline-size:60rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}\
table{border-collapse:collapse;inline-size:100%}\
th,td{text-align:start;vertical-align:top;padding:.3rem .5rem;border-block-end:1px solid #8888}\
td,pre{font-family:ui-monospace,monospace;white-space:pre-wrap}";

#[derive(Template)]
#[template(
    ext = "html",
    source = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>whoami</title>
<style>{{ style|safe }}</style>
<main>
<h1>whoami</h1>
<p id=\"who\">{% if let Some(who) = who %}You are <strong>{{ who }}</strong>.{% else %}You are not signed in.{% endif %}</p>
<p>This is the request as a backend behind the gateway receives it.</p>
<p><code id=\"line\">{{ method }} {{ target }}</code></p>
<table>
<thead><tr><th scope=\"col\">Header<th scope=\"col\">Value</thead>
<tbody>
{% for (name, value) in fields %}<tr><th scope=\"row\">{{ name }}<td>{{ value }}
{% endfor %}</tbody>
</table>
<h2>Over a WebSocket</h2>
<pre id=\"socket\"></pre>
<noscript><p>With JavaScript enabled, this page also opens a WebSocket and shows what it received.</p></noscript>
</main>
<script>{{ script|safe }}</script>
</html>
"
)]
struct WhoamiPage<'a> {
    who: Option<String>,
    method: &'a str,
    target: &'a str,
    fields: Vec<(&'a str, std::borrow::Cow<'a, str>)>,
    style: &'static str,
    script: &'static str,
}

/// The response's body.
type Body = Either<Full<Bytes>, Events>;

/// Serves one connection until it ends: HTTP/1 with keep-alive.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let (recorded, greeting) = (Recorded::new(), Arc::new(Mutex::new(None)));
    let io = TokioIo::new(Recorder::new(stream, recorded.clone()));
    let connection = http1::Builder::new()
        .half_close(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .header_read_timeout(None)
        .title_case_headers(true)
        .auto_date_header(false)
        .serve_connection(io, service_fn(|request| respond(request, recorded.clone(), greeting.clone())));
    // an error is the client's: hyper has answered it, or the client is gone
    let Ok(parts) = connection.without_shutdown().await else { return };
    let (mut stream, ahead) = parts.io.into_inner().into_parts();
    let greeting = greeting.lock().take();
    if let Some(greeting) = greeting {
        return socket::serve(stream, [parts.read_buf, ahead].concat(), greeting).await;
    }
    // the other side may have closed first
    let _ = stream.shutdown().await;
}

/// The response to one request. A WebSocket gets its `greeting` once the connection is hyper's no more.
fn respond(
    request: Request<Incoming>,
    recorded: Recorded,
    greeting: Arc<Mutex<Option<String>>>,
) -> impl Future<Output = hyper::Result<Response<Body>>> {
    // in the call itself, before hyper reads on
    let length = request.body().size_hint().exact();
    let head = recorded.take(length);
    async move {
        let Some(head) = head.filter(RawHead::is_clearly_framed) else {
            return Ok(refusal("the framing is ambiguous"));
        };
        if socket::is_handshake(&head) {
            let accept = socket::accept(&head).filter(|_| length == Some(0));
            let Some(accept) = accept else { return Ok(refusal("this is no WebSocket handshake of version 13")) };
            *greeting.lock() = Some(received(&head, 0));
            return Ok(switching(&accept));
        }
        let body_bytes = match read_body(request.into_body()).await {
            Ok(bytes) => bytes,
            Err(error) if is_malformed(&error) => return Ok(refusal("the body cannot be read")),
            Err(error) => return Err(error),
        };
        recorded.body_ended();
        Ok(if head.method == "GET" && head.path().ends_with("/events") {
            events()
        } else if wants_page(&head) {
            let csp = [("content-security-policy", CSP.as_str()), ("x-content-type-options", "nosniff")];
            response("text/html; charset=utf-8", &csp, Either::Left(Full::from(page(&head))))
        } else {
            response("application/json", &[], Either::Left(Full::from(received(&head, body_bytes))))
        })
    }
}

fn response(kind: &str, fields: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    for (name, value) in [("content-type", kind), ("cache-control", "no-store")].iter().chain(fields) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// What cannot be read gets 400 and ends the connection.
fn refusal(why: &'static str) -> Response<Body> {
    let mut refusal = response("text/plain", &[("connection", "close")], Either::Left(Full::from(why)));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    refusal
}

fn switching(accept: &str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [(UPGRADE, "websocket"), (CONNECTION, "Upgrade"), (SEC_WEBSOCKET_ACCEPT, accept)] {
        response.headers_mut().extend(HeaderValue::from_str(value).map(|value| (name, value)));
    }
    response
}

/// Reads a body to its end and returns its length, bytes. Nothing of it is kept.
async fn read_body(mut body: Incoming) -> hyper::Result<u64> {
    let mut bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        bytes = bytes.saturating_add(frame?.data_ref().map_or(0, |data| data.len() as u64));
    }
    Ok(bytes)
}

/// A body that breaks the rules, not one that was cut off.
fn is_malformed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

/// What was received, as JSON: method, target, fields in their order and the length of the body.
fn received(head: &RawHead, body_bytes: u64) -> String {
    let fields: Vec<_> = head.fields.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
    json!({ "method": head.method, "path": head.target, "headers": fields, "body_bytes": body_bytes }).to_string()
}

/// A browser looks at the answer.
fn wants_page(head: &RawHead) -> bool {
    (head.method == "GET" || head.method == "HEAD")
        && head.values("accept").any(|value| String::from_utf8_lossy(value).contains("text/html"))
}

/// The page's policy. Style and script are allowed by their hashes alone.
static CSP: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| {
        data_encoding::BASE64.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
    };
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

fn page(head: &RawHead) -> String {
    let fields = head.fields.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value))).collect();
    let page =
        WhoamiPage { who: who(head), method: &head.method, target: &head.target, fields, style: STYLE, script: SCRIPT };
    // rendering into memory cannot fail; were it to, the page is empty
    page.render().unwrap_or_default()
}

/// The name and e-mail of an identity preset, percent-decoded.
fn who(head: &RawHead) -> Option<String> {
    let field = |name: &str| {
        let value = head.values(name).next()?;
        Some(percent_encoding::percent_decode(value).decode_utf8_lossy().into_owned())
    };
    let email = ["remote-user", "x-auth-request-user", "x-forwarded-user"].into_iter().find_map(field)?;
    Some(match field("remote-name").filter(|name| !name.is_empty()) {
        Some(name) => format!("{name} ({email})"),
        None => email,
    })
}

/// One event immediately and one every second, counted from 0, until the client is gone.
fn events() -> Response<Body> {
    let events = Events { next: 0, due: Box::pin(sleep(Duration::ZERO)) };
    response("text/event-stream", &[("connection", "close")], Either::Right(events))
}

/// The body of an event stream.
struct Events {
    next: u64,
    due: Pin<Box<Sleep>>,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.due.as_mut().poll(cx));
        let event = format!("data: {}\n\n", self.next);
        self.next += 1;
        let due = self.due.deadline() + EVENT_EVERY;
        self.due.as_mut().reset(due);
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

#[cfg(test)]
mod tests;
