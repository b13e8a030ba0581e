//! The access log: one line per request, and the counters. A line has the method, host, path, user and outcome; never
//! the query, a cookie, a token or a body.

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pingora_http::RequestHeader;
use serde::Serialize;

use super::gateway::Gateway;
use super::request_state::RequestState;
use crate::logging::{Timestamp, printable};
use crate::policy::normalize::Facts;
use crate::policy::reasons::{Outcome, Reason};
use crate::web::host::Host;
use crate::wire::request_target;

/// One access line.
struct AccessLine<'a> {
    time: Timestamp,
    request_id: &'a str,
    /// `None` on a Unix socket.
    client: Option<&'a str>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    status: u16,
    outcome: &'static str,
    route: Option<usize>,
    upstream: Option<&'a str>,
    /// The server that was tried last, if the upstream has several.
    server: Option<&'a str>,
    user: Option<&'a str>,
    /// The API token that spoke for the account.
    token: Option<&'a str>,
    why: Option<&'static str>,
    bytes_in: usize,
    bytes_out: usize,
    /// From the request's head to the server's.
    answer_ms: Option<Millis>,
    duration_ms: Millis,
}

/// A time in hundredths of a millisecond: fine enough for what the gateway itself takes.
#[derive(Debug, Clone, Copy)]
struct Millis(u64);

impl From<Duration> for Millis {
    fn from(time: Duration) -> Self {
        Self(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).saturating_add(5) / 10)
    }
}

/// What the connection counted.
pub(crate) struct Counts {
    pub(crate) status: u16,
    pub(crate) bytes_in: usize,
    pub(crate) bytes_out: usize,
}

/// Writes the access line and counts the request. `facts` were read from `head`; `None` if it was rejected. Returns
/// when the request ended.
pub(crate) fn record(
    gateway: &Gateway,
    head: &RequestHeader,
    facts: Option<&Facts>,
    state: &RequestState,
    counts: &Counts,
) -> Instant {
    let now = Instant::now();
    let elapsed = now - state.began;
    gateway.series(state).answered(head.method.as_str(), counts.status, elapsed);
    if let Some(page) = state.page {
        gateway.metrics.page(page, counts.status);
    }
    let raw_path = request_target::of(head);
    let path = &raw_path[..memchr::memchr(b'?', raw_path).unwrap_or(raw_path.len())];
    let path = as_text(path);
    let client = facts.and_then(|facts| facts.client).or(state.peer.address);
    let peer = Some(&state.connection).filter(|connection| connection.address() == client);
    let client = match peer.and_then(|connection| connection.address_text()) {
        Some(text) => Some(Cow::Borrowed(text)),
        None => client.map(|client| Cow::Owned(client.to_string())),
    };
    let several = state.upstream.is_some_and(|upstream| gateway.targets[upstream].all().len() > 1);
    let asked = state.tried.last().filter(|_| several);
    let program = state.identity.as_ref().filter(|identity| identity.grant.is_some());
    let line = AccessLine {
        time: Timestamp::new(gateway.clock.millis_at(now)),
        request_id: &state.request_id,
        client: client.as_deref(),
        method: head.method.as_str(),
        host: facts.map_or_else(|| asked_host(head), |facts| facts.host.as_str()),
        path: &shown(&gateway.config.server.prefix, &path),
        status: counts.status,
        outcome: state.outcome.as_str(),
        route: state.route.map(|index| index + 1),
        upstream: state.upstream.map(|upstream| gateway.config.upstreams[upstream].name.as_str()),
        server: asked.map(|target| target.server()),
        user: state.identity.as_ref().map(|identity| identity.user.id.as_str()),
        token: program.map(|identity| identity.session.id.as_str()),
        why: state.reason.map(Reason::as_str),
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        answer_ms: state.time_to_response_head.map(Millis::from),
        duration_ms: elapsed.into(),
    };
    write(gateway, &line);
    now
}

/// A path as it came; bytes that are no text, as their escapes.
fn as_text(path: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(path) {
        Ok(text) => text.into(),
        Err(_) => percent_encoding::percent_encode(path, percent_encoding::CONTROLS).to_string().into(),
    }
}

/// The host that a rejected head names.
fn asked_host(head: &http::request::Parts) -> &str {
    let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    host.filter(|host| Host::parse(host).is_some()).unwrap_or_default()
}

/// Writes the line of a head that the parser rejected: without method and path, with the host that it names.
pub(crate) fn unread(
    gateway: &Gateway,
    (client, host): (Option<IpAddr>, &str),
    status: u16,
    request_id: &str,
    reason: Reason,
) {
    gateway.route_metrics.route(None).answered("", status, Duration::ZERO);
    let client = client.map(|client| client.to_string());
    let line = AccessLine {
        time: Timestamp::new(gateway.clock.now_millis()),
        request_id,
        client: client.as_deref(),
        method: "",
        host,
        path: "",
        status,
        outcome: Outcome::BadRequest.as_str(),
        route: None,
        upstream: None,
        server: None,
        user: None,
        token: None,
        why: Some(reason.as_str()),
        bytes_in: 0,
        bytes_out: 0,
        answer_ms: None,
        duration_ms: Millis(0),
    };
    write(gateway, &line);
}

fn write(gateway: &Gateway, line: &AccessLine<'_>) {
    gateway.log.line(|out| {
        if gateway.log.is_human() {
            human(out, line);
        } else {
            json(out, line);
        }
    });
}

/// The line as one JSON object. Its names are written out here: that costs half of what a serializer takes.
fn json(out: &mut Vec<u8>, line: &AccessLine<'_>) {
    out.extend_from_slice(br#"{"time":""#);
    out.extend_from_slice(line.time.as_bytes());
    put_plain(out, br#"","level":"info","target":"access","message":"request","request_id":""#, line.request_id);
    if let Some(client) = line.client {
        put_plain(out, br#","client":""#, client);
    }
    put_plain(out, br#","method":""#, line.method);
    put(out, br#","host":"#, Some(line.host));
    put(out, br#","path":"#, Some(line.path));
    put_number(out, br#","status":"#, Some(line.status));
    put_plain(out, br#","outcome":""#, line.outcome);
    put_number(out, br#","route":"#, line.route);
    put(out, br#","upstream":"#, line.upstream);
    put(out, br#","server":"#, line.server);
    put(out, br#","user":"#, line.user);
    put(out, br#","token":"#, line.token);
    put(out, br#","why":"#, line.why);
    put_number(out, br#","bytes_in":"#, Some(line.bytes_in));
    put_number(out, br#","bytes_out":"#, Some(line.bytes_out));
    put_millis(out, br#","answer_ms":"#, line.answer_ms);
    put_millis(out, br#","duration_ms":"#, Some(line.duration_ms));
    out.push(b'}');
}

/// A name, token or number of ours, or a method: nothing in it needs an escape.
fn put_plain(out: &mut Vec<u8>, before: &[u8], text: &str) {
    out.extend_from_slice(before);
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Writes `before` and the text, if there is one. Text that needs no escape, which is nearly all, is copied unchanged.
fn put(out: &mut Vec<u8>, before: &[u8], text: Option<&str>) {
    let Some(text) = text else { return };
    out.extend_from_slice(before);
    let is_escaped = |b: &u8| !(b' '..=b'~').contains(b) || matches!(b, b'"' | b'\\');
    // counting all is faster than stopping at the first one
    if text.bytes().filter(is_escaped).count() == 0 {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // writing to memory cannot fail
        let _ = serde_json::to_writer(out, text);
    }
}

fn put_number(out: &mut Vec<u8>, before: &[u8], number: Option<impl Serialize>) {
    let Some(number) = number else { return };
    out.extend_from_slice(before);
    let _ = serde_json::to_writer(out, &number);
}

/// As a fraction of one digit or two.
fn put_millis(out: &mut Vec<u8>, before: &[u8], time: Option<Millis>) {
    let Some(Millis(hundredths)) = time else { return };
    put_number(out, before, Some(hundredths / 100));
    let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or(0);
    out.push(b'.');
    out.push(digit(hundredths / 10));
    if hundredths % 10 > 0 {
        out.push(digit(hundredths));
    }
}

/// Pages whose links carry a token in their path.
const ONE_TIME: [&str; 2] = ["invite", "reset"];

/// A path as it is logged: as received, but without the token of a one-time link. The token may still be valid if the
/// link was altered in transit, as mail programs do.
fn shown<'p>(prefix: &str, path: &'p str) -> Cow<'p, str> {
    let bytes = path.as_bytes();
    let odd = |(at, b): (usize, &u8)| match b {
        b'%' | b';' | b'\\' | b'@' => true,
        b'/' => at > 0 && matches!(bytes.get(at + 1), Some(b'/' | b'.')),
        _ => false,
    };
    if bytes.iter().enumerate().any(odd) {
        return shown_odd(prefix, path);
    }
    let own = path.split_at_checked(prefix.len()).filter(|(own, _)| own.eq_ignore_ascii_case(prefix));
    let mut words = own.map_or("", |(_, rest)| rest).splitn(3, '/').skip(1);
    match (words.next(), words.next()) {
        (Some(kind), Some(token)) if ONE_TIME.iter().any(|own| own.eq_ignore_ascii_case(kind)) => {
            path[..path.len() - token.len()].into()
        }
        _ => path.into(),
    }
}

/// The same for a path with several readings, as the most lenient reader would read it. User info before a host is left
/// out.
fn shown_odd<'p>(prefix: &str, path: &'p str) -> Cow<'p, str> {
    let decode = |bytes: &[u8]| percent_encoding::percent_decode(bytes).collect::<Vec<u8>>();
    let read = decode(&decode(path.as_bytes())).to_ascii_lowercase();
    let mut words: Vec<&[u8]> = Vec::new();
    for word in read.split(|b| b"/\\?#".contains(b)) {
        match word.split(|&b| b == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(words.pop()),
            word => words.push(word),
        }
    }
    let last = prefix.rsplit('/').next().unwrap_or_default().as_bytes();
    let page = words.windows(2).filter(|pair| pair[0].eq_ignore_ascii_case(last));
    let mut kinds = page.filter_map(|pair| ONE_TIME.iter().find(|kind| kind.as_bytes() == pair[1]));
    if let Some(kind) = kinds.next() {
        return format!("{prefix}/{kind}/").into();
    }
    if path.starts_with('/') { without_session(path) } else { path.rsplit('@').next().unwrap_or_default().into() }
}

/// A path with an app's session id (`;jsessionid=`, Jakarta Servlet 6.0, 7.1.3) masked.
fn without_session(path: &str) -> Cow<'_, str> {
    const NAME: &str = ";jsessionid=";
    let lower = path.to_ascii_lowercase();
    let Some(at) = lower.find(NAME).map(|at| at + NAME.len()) else { return path.into() };
    let end = path[at..].find(['/', ';']).map_or(path.len(), |length| at + length);
    format!("{}***{}", &path[..at], &path[end..]).into()
}

fn human(out: &mut Vec<u8>, line: &AccessLine<'_>) {
    let _ = write!(
        out,
        "{} {:<5} {} {} {}{} {} {}.{}ms {}",
        line.time.as_str(),
        "INFO",
        line.client.unwrap_or("unix"),
        line.method,
        printable(line.host),
        printable(line.path),
        line.status,
        line.duration_ms.0 / 100,
        line.duration_ms.0 / 10 % 10,
        line.outcome
    );
    if let Some(user) = line.user {
        let _ = write!(out, " user={}", printable(user));
    }
    if let Some(why) = line.why {
        let _ = write!(out, " why={why}");
    }
    let _ = write!(out, " id={}", line.request_id);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(line: &AccessLine<'_>) -> Value {
        let mut out = Vec::new();
        json(&mut out, line);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_line_is_one_json_object_whatever_a_client_wrote() {
        let mut line = AccessLine {
            time: Timestamp::new(1_795_564_805_042),
            request_id: "0123456789abcdef",
            client: Some("192.0.2.1"),
            method: "GET",
            host: "app.example.com",
            path: "/",
            status: 200,
            outcome: "forward",
            route: Some(3),
            upstream: Some("app"),
            server: Some("192.0.2.9:80"),
            user: Some("7"),
            token: Some("t"),
            why: None,
            bytes_in: 0,
            bytes_out: 128,
            answer_ms: Some(Millis(60)),
            duration_ms: Millis(85),
        };
        let whole = json!({ "time": "2026-11-25T00:00:05.042Z", "level": "info", "target": "access", "message": "request",
            "request_id": line.request_id, "client": "192.0.2.1", "method": "GET", "host": "app.example.com",
            "path": "/", "status": 200, "outcome": "forward", "route": 3, "upstream": "app", "server": "192.0.2.9:80",
            "user": "7", "token": "t", "bytes_in": 0, "bytes_out": 128, "answer_ms": 0.6, "duration_ms": 0.85 });
        assert_eq!(written(&line), whole);
        for text in ["", "\"", "\\", "\",\"user\":\"1", "\n", "\0", "\u{7f}", "\u{1b}[31m", "é", "\u{2028}", "\u{fffd}"]
        {
            (line.path, line.host, line.upstream) = (text, text, Some(text));
            let read = written(&line);
            assert_eq!([&read["path"], &read["host"], &read["upstream"]], [text; 3], "{text:?}");
            assert_eq!((read.as_object().unwrap().len(), &read["user"]), (20, &json!("7")));
        }
        (line.client, line.route, line.upstream, line.server) = (None, None, None, None);
        (line.user, line.token, line.answer_ms, line.why) = (None, None, None, Some("no route"));
        let read = written(&line);
        assert_eq!((read.as_object().unwrap().len(), &read["why"]), (14, &json!("no route")));
    }
}
