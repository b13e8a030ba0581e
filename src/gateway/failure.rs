//! What a failed exchange is answered with, counted as and logged as.

use http::StatusCode;
use pingora_core::{Error, ErrorSource, ErrorType, ImmutStr};
use rustix::io::Errno;

use super::request_state::RequestState;
use super::{Gateway, trust};

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
        (
            ErrorType::WriteError | ErrorType::WriteTimedout | ErrorType::ReadError | ErrorType::ConnectionClosed,
            ErrorSource::Downstream,
        ) => None,
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
        Some(413) => "refused",
        Some(500) => "internal",
        Some(_) => "bad_request",
    };
    state.outcome = kind;
    state.why = Some(if kind == "refused" { "body_max" } else { kind });
    if !matches!(kind, "bad_gateway" | "timeout" | "internal") {
        return;
    }
    gateway.counted.route(state.route).upstream_failed(kind_of(e, kind));
    let upstream =
        state.admission.as_ref().map_or("", |admission| &gateway.config.upstreams[admission.upstream()].name);
    let request_id = state.request_id.as_str();
    let tried: Vec<&str> = state.tried.iter().map(|target| target.server()).collect();
    let (server, error, cause) = (tried.join(", "), e.etype().as_str(), root(e));
    let error = if tried.is_empty() { "no address" } else { error };
    let remedy = trust::remedy(&cause);
    tracing::warn!(upstream, server, request_id, error, cause, remedy, "upstream request failed");
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
pub(super) fn root(e: &Error) -> String {
    let deeper = e.cause.as_deref().and_then(|cause| cause.downcast_ref::<Box<Error>>());
    match (deeper, io_error(e), &e.context) {
        (Some(deeper), _, _) => root(deeper),
        (None, Some(io), _) => io.to_string(),
        (None, None, Some(ImmutStr::Static(text))) => (*text).to_owned(),
        // before anything was sent: what is wrong with the server's certificate, or that it speaks no TLS
        (None, None, Some(text)) if *e.etype() == ErrorType::TLSHandshakeFailure => {
            let text = text.as_str();
            text.rsplit_once("cause: ").map_or(text, |(_, cause)| cause).to_owned()
        }
        // our own words: what a resolver said
        (None, None, Some(text)) if matches!(e.etype(), ErrorType::HTTPStatus(_)) => text.as_str().to_owned(),
        _ => String::new(),
    }
}

/// The error of the system's in it, if there is one; not what a deeper error of pingora's holds.
fn io_error(e: &Error) -> Option<&std::io::Error> {
    let cause = e.cause.as_deref()?;
    cause.downcast_ref().or_else(|| cause.source().and_then(|source| source.downcast_ref()))
}

/// Whether it is this machine that cannot connect, to whatever server: it has no descriptors or memory left.
pub(super) fn is_our_own(e: &Error) -> bool {
    const OWN: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    if let Some(deeper) = e.cause.as_deref().and_then(|cause| cause.downcast_ref::<Box<Error>>()) {
        return is_our_own(deeper);
    }
    let code = io_error(e).and_then(std::io::Error::raw_os_error);
    code.is_some_and(|code| OWN.iter().any(|own| own.raw_os_error() == code))
}
