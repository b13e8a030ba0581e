//! Maps a failed exchange to its status, counter and log line.

use http::StatusCode;
use pingora_core::{Error, ErrorSource, ErrorType};

use super::gateway::Gateway;
use super::request_state::RequestState;
use crate::policy::reasons::{Outcome, Reason};
use crate::upstream::{error_cause, tls};

/// The status for a failure; `None` if the client has disconnected.
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
    let outcome = match code.map(|code| code.as_u16()) {
        None => {
            state.outcome = Outcome::ClientGone;
            return;
        }
        Some(502) => Outcome::BadGateway,
        Some(504) => Outcome::Timeout,
        Some(413) => Outcome::Refused,
        Some(500) => Outcome::Internal,
        Some(_) => Outcome::BadRequest,
    };
    state.outcome = outcome;
    state.reason = Some(if outcome == Outcome::Refused { Reason::BodyMax } else { Reason::Failed(outcome) });
    if !matches!(outcome, Outcome::BadGateway | Outcome::Timeout | Outcome::Internal) {
        return;
    }
    gateway.route_metrics.route(state.route).upstream_failed(kind_of(e, outcome));
    let upstream = state.upstream.map_or("", |upstream| &gateway.config.upstreams[upstream].name);
    let request_id = state.request_id.as_str();
    let tried: Vec<&str> = state.tried.iter().map(|target| target.server()).collect();
    let (server, error, cause) = (tried.join(", "), e.etype().as_str(), error_cause::root_cause(e));
    let error = if tried.is_empty() { "no address" } else { error };
    let remedy = tls::remedy(&cause);
    tracing::warn!(upstream, server, request_id, error, cause, remedy, "upstream request failed");
}

/// What the counters say of an upstream's failure: it could not be reached, was too slow, or broke off.
fn kind_of(e: &Error, outcome: Outcome) -> &'static str {
    match e.etype() {
        ErrorType::ConnectTimedout
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => "connect",
        _ if outcome == Outcome::BadGateway => "broken",
        _ => outcome.as_str(),
    }
}
