//! The backend inside the binary (`builtin:whoami`): shows, over HTTP, as an event stream and over
//! a WebSocket, what a backend behind the gateway receives. It speaks HTTP/1.1 on any byte stream.
//! It must never trust what it reads, keep a body, or know more of a request than its bytes say.

use std::time::Duration;

use askama::Template;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

mod socket;
mod wire;

use wire::{Fault, Head, Wire};

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

/// Serves one connection until it ends: HTTP/1.1 with keep-alive. Ends by itself on the first thing
/// that cannot be read; the client is told why where there is somebody to tell.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(stream: S) {
    let mut wire = Wire::new(stream);
    let fault = loop {
        match exchange(&mut wire).await {
            Ok(true) => {}
            Ok(false) => break None,
            Err(fault) => break Some(fault),
        }
    };
    let told = match fault {
        Some(Fault::Malformed(why)) => Some(("400 Bad Request", why)),
        Some(Fault::TooLarge) => Some(("431 Request Header Fields Too Large", "the head is too large")),
        Some(Fault::Gone) | None => None,
    };
    if let Some((status, why)) = told {
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{why}",
            why.len()
        );
        // who sent nonsense may be gone already
        let _ = wire.write(answer.as_bytes()).await;
    }
    wire.end().await;
}

/// One request and its answer; says whether the connection goes on.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send>(wire: &mut Wire<S>) -> Result<bool, Fault> {
    let head = wire.head().await?;
    let framing = head.framing()?;
    if let Some(handshake) = socket::Handshake::find(&head) {
        return socket::serve(wire, &head, handshake?).await.map(|()| false);
    }
    if head.expects_continue() {
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body_bytes = wire.skip_body(framing).await?;
    if head.method == "GET" && head.path().ends_with("/events") {
        return events(wire, &head).await.map(|()| false);
    }
    let (kind, body) = if wants_page(&head) {
        (PAGE_HEAD.as_str(), page(&head))
    } else {
        ("Content-Type: application/json\r\n", received(&head, body_bytes))
    };
    let keep = head.keeps_alive();
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\n{kind}Cache-Control: no-store\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
        body.len(),
        if keep { "keep-alive" } else { "close" }
    );
    if head.method != "HEAD" {
        answer.push_str(&body);
    }
    wire.write(answer.as_bytes()).await?;
    Ok(keep)
}

/// What was received, as JSON: method, target, fields in their order and the length of the body.
fn received(head: &Head, body_bytes: u64) -> String {
    let fields: Vec<_> = head.fields.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
    json!({ "method": head.method, "path": head.target, "headers": fields, "body_bytes": body_bytes }).to_string()
}

/// A browser looks at the answer.
fn wants_page(head: &Head) -> bool {
    (head.method == "GET" || head.method == "HEAD")
        && head.values("accept").any(|value| String::from_utf8_lossy(value).contains("text/html"))
}

/// The head fields of the page. Style and script are allowed by their hashes alone.
static PAGE_HEAD: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let hash = |text: &str| {
        data_encoding::BASE64.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
    };
    format!(
        "Content-Type: text/html; charset=utf-8\r\nContent-Security-Policy: default-src 'none'; style-src 'sha256-{}'; \
         script-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'\r\n\
         X-Content-Type-Options: nosniff\r\n",
        hash(STYLE),
        hash(SCRIPT)
    )
});

fn page(head: &Head) -> String {
    let fields = head.fields.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value))).collect();
    let page =
        WhoamiPage { who: who(head), method: &head.method, target: &head.target, fields, style: STYLE, script: SCRIPT };
    // rendering into memory cannot fail; were it to, the page is empty
    page.render().unwrap_or_default()
}

/// The name and e-mail of an identity preset, percent-decoded.
fn who(head: &Head) -> Option<String> {
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

/// One event at once and one every second, counted from 0, until the client goes.
async fn events<S: AsyncRead + AsyncWrite + Unpin + Send>(wire: &mut Wire<S>, head: &Head) -> Result<(), Fault> {
    let framing = if head.is_http_11 { "Transfer-Encoding: chunked\r\n" } else { "" };
    let start = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n{framing}Connection: close\r\n\r\n"
    );
    wire.write(start.as_bytes()).await?;
    for count in 0_u64.. {
        let event = format!("data: {count}\n\n");
        let chunk = if head.is_http_11 { format!("{:x}\r\n{event}\r\n", event.len()) } else { event };
        wire.write(chunk.as_bytes()).await?;
        tokio::select! {
            () = tokio::time::sleep(EVENT_EVERY) => {}
            () = wire.gone() => return Err(Fault::Gone),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
