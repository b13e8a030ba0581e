//! Small pure steps of the line: what a head's fault is answered with, how a failure is told apart,
//! what an upstream's answer may carry to the client.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_core::{Error, ErrorSource, ErrorType, ImmutStr};
use pingora_http::authority::{RawTargetAuthority, is_http_family_scheme, raw_target_authority};
use pingora_http::{RequestHeader, ResponseHeader};

use super::authorize::Refusal;
use super::cors::CorsAnswer;
use super::forward::Stripper;
use super::guard::Guard;
use super::head::BadHead;
use super::{Gateway, RequestState, refuse};
use crate::account::Rejected;
use crate::config::Config;
use crate::metrics::Authz;
use crate::web::cookie;
use crate::web::incoming::Incoming;
use crate::web::origin::Scheme;
use crate::web::reply::Reply;

/// Two years (RFC 6797, 6.1). Hosts below this one may be somebody else's: they are not spoken for.
pub(super) const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Whether answers tell browsers never to come over plain http again: those over TLS do, once browsers use
/// nothing else.
pub(super) fn sends_hsts(config: &Config, guard: &Guard) -> bool {
    guard.secured().is_some() && config.server.public_url.scheme() == Scheme::Https
}

/// The answer to a head that is refused unread.
pub(super) fn bad_head(bad: BadHead, request_id: &str, why: &mut Option<&'static str>) -> Reply {
    let (code, reason) = match bad {
        BadHead::Ambiguous(what) => (StatusCode::BAD_REQUEST, what),
        BadHead::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
        BadHead::TargetTooLong => (StatusCode::URI_TOO_LONG, "target"),
        BadHead::TooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head"),
        BadHead::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "host of another certificate"),
    };
    *why = Some(reason);
    refuse::unread(code, request_id)
}

/// What the access line says of a credential that was not accepted.
pub(super) fn why_rejected(why: Rejected) -> &'static str {
    match why {
        Rejected::Invalid => "invalid credential",
        Rejected::Expired => "session expired",
        Rejected::Ended => "session ended",
    }
}

/// What the access line says of a refusal.
pub(super) fn why_refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::SignedOut => "signed out",
        Refusal::Forbidden => "forbidden",
        Refusal::CrossOrigin => "cross-origin",
    }
}

/// What the counters say of a refusal.
pub(super) fn authz(refusal: Refusal) -> Authz {
    match refusal {
        Refusal::SignedOut => Authz::SignedOut,
        Refusal::Forbidden => Authz::Forbidden,
        Refusal::CrossOrigin => Authz::CrossOrigin,
    }
}

/// 308 to the same place over https (RFC 9110, 15.4.9).
pub(super) fn to_https(config: &Config, incoming: &Incoming<'_>) -> Reply {
    let public = &config.server.public_url;
    let host = if incoming.host.name() == public.host() { public.authority() } else { incoming.host.name().to_owned() };
    let query = incoming.query.map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("https://{host}{}{query}", incoming.path.as_str());
    let reply = Reply::empty(StatusCode::PERMANENT_REDIRECT);
    match HeaderValue::try_from(location) {
        Ok(location) => reply.with(header::LOCATION, location),
        Err(_) => Reply::empty(StatusCode::BAD_REQUEST),
    }
}

/// Absolute-form (RFC 9112, 3.2.2) becomes origin-form; every other target that is not a path is
/// refused. That the authority equals Host was checked by the parser.
pub(super) fn to_origin_form(head: &mut RequestHeader) -> Result<(), BadHead> {
    let raw = head.raw_path();
    if raw.first() == Some(&b'/') {
        return Ok(());
    }
    let target = match raw_target_authority(raw) {
        RawTargetAuthority::Absolute { scheme, path_and_query, .. } if is_http_family_scheme(scheme) => {
            if path_and_query.first() == Some(&b'/') {
                path_and_query.to_vec()
            } else {
                [b"/", path_and_query].concat()
            }
        }
        _ => return Err(BadHead::Ambiguous("target")),
    };
    head.set_raw_path(&target).map_err(|_| BadHead::Ambiguous("target"))
}

/// A request id that a trusted proxy gave, if it is fit to be logged and echoed.
pub(super) fn told_request_id(headers: &HeaderMap) -> Option<String> {
    let told = headers.get("x-request-id")?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (!told.is_empty() && told.len() <= 64 && told.bytes().all(plain)).then(|| told.to_owned())
}

/// Methods that may be sent again (RFC 9110, 9.2.1: safe).
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// An upstream cannot set our cookies, nor those that carry its own token, nor speak for other origins
/// unless the route leaves that to it; the renewed session cookie is laid on, unless the answer says
/// that caches may share it.
pub(super) fn dress(
    response: &mut ResponseHeader,
    stripper: &Stripper,
    renewed: Option<HeaderValue>,
    cors: &CorsAnswer,
) {
    let ours = |value: &HeaderValue| stripper.is_ours(cookie::name_of(value.as_bytes()));
    if response.headers.get_all(header::SET_COOKIE).iter().any(ours) {
        let kept: Vec<HeaderValue> =
            response.headers.get_all(header::SET_COOKIE).iter().filter(|value| !ours(value)).cloned().collect();
        response.remove_header(&header::SET_COOKIE);
        for value in kept {
            let _ = response.append_header(header::SET_COOKIE, value);
        }
    }
    if !matches!(cors, CorsAnswer::App) {
        let foreign = |name: &&HeaderName| CorsAnswer::is_replaced(name);
        let doomed: Vec<HeaderName> = response.headers.keys().filter(foreign).cloned().collect();
        for name in doomed {
            response.remove_header(&name);
        }
    }
    for (name, value) in cors.fields() {
        let _ = response.append_header(name, value);
    }
    if let Some(cookie) = renewed
        && !is_shared(response)
    {
        let _ = response.append_header(header::SET_COOKIE, cookie);
    }
}

fn is_shared(response: &ResponseHeader) -> bool {
    response.headers.get_all(header::CACHE_CONTROL).iter().any(|line| {
        line.to_str().is_ok_and(|line| {
            line.split(',')
                .map(|item| item.trim().to_ascii_lowercase())
                .any(|item| item == "public" || item.starts_with("s-maxage"))
        })
    })
}

/// Server-sent events (WHATWG HTML, 9.2).
pub(super) fn is_event_stream(response: &ResponseHeader) -> bool {
    response.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    })
}

/// The status that tells a failure; `None` when there is nobody left to tell.
pub(super) fn failure(e: &Error) -> Option<StatusCode> {
    match (e.etype(), e.esource()) {
        (ErrorType::HTTPStatus(code), _) => StatusCode::from_u16(*code).ok(),
        (
            ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout,
            ErrorSource::Upstream,
        ) => Some(StatusCode::GATEWAY_TIMEOUT),
        (_, ErrorSource::Upstream) => Some(StatusCode::BAD_GATEWAY),
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => Some(StatusCode::REQUEST_TIMEOUT),
        (ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed, ErrorSource::Downstream) => None,
        (_, ErrorSource::Downstream) => Some(StatusCode::BAD_REQUEST),
        _ => Some(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Counts a failure and says in the log what clients are not told.
pub(super) fn log_failure(gateway: &Gateway, state: &mut RequestState, e: &Error, code: Option<StatusCode>) {
    let kind = match code.map(|code| code.as_u16()) {
        None => {
            state.outcome = "client_gone";
            return;
        }
        Some(502) => "bad_gateway",
        Some(504) => "timeout",
        Some(413) => "too_large",
        Some(500) => "internal",
        Some(_) => "bad_request",
    };
    state.outcome = kind;
    state.why = Some(kind);
    if !matches!(kind, "bad_gateway" | "timeout" | "internal") {
        return;
    }
    gateway.counted.route(state.route).upstream_failed(kind_of(e, kind));
    let upstream =
        state.admission.as_ref().map_or("", |admission| &gateway.config.upstreams[admission.upstream()].name);
    let request_id = state.request_id.as_str();
    tracing::warn!(upstream, request_id, error = %e.etype().as_str(), cause = %root(e), "upstream failed");
}

/// What the counters say of an upstream's failure: it could not be reached, was too slow, or broke off.
fn kind_of(e: &Error, kind: &'static str) -> &'static str {
    match e.etype() {
        ErrorType::ConnectTimedout
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => "connect",
        _ if kind == "bad_gateway" => "broken",
        _ => kind,
    }
}

/// What is at the bottom of a failure, as far as it cannot hold what was sent: pingora's own texts quote heads and
/// bodies.
fn root(e: &Error) -> String {
    let io = e.cause.as_ref().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match (io, &e.context) {
        (Some(io), _) => io.to_string(),
        (None, Some(ImmutStr::Static(text))) => (*text).to_owned(),
        _ => String::new(),
    }
}
