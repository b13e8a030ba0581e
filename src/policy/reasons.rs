//! How a request ended and why, as values. Only this file defines their words for the access log and the counters.

use http::StatusCode;

use super::authorize::Refusal;
use crate::account::Rejected;
use crate::metrics::Authz;
use crate::pages::word;
use crate::wire::head_error::BadHead;
use crate::wire::websocket_frames::Closing;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Forwarded to an upstream.
    Forward,
    /// Answered by one of the gateway's own pages.
    Page,
    /// A CORS preflight, answered by the gateway.
    Preflight,
    /// Redirected to https.
    ToHttps,
    /// No route matches.
    NoRoute,
    /// Refused by a rule or a limit.
    Refused,
    /// Came back to a gateway that had forwarded it.
    Loop,
    /// Malformed or ambiguous.
    BadRequest,
    /// The upstream could not be reached, or the connection to it broke.
    BadGateway,
    /// The upstream was too slow.
    Timeout,
    /// An internal error of the gateway.
    Internal,
    /// The client disconnected first.
    ClientGone,
    /// Not known yet.
    Error,
}

impl Outcome {
    /// The word for the access log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Page => "page",
            Self::Preflight => "preflight",
            Self::ToHttps => "to_https",
            Self::NoRoute => "no_route",
            Self::Refused => "refused",
            Self::Loop => "loop",
            Self::BadRequest => "bad_request",
            Self::BadGateway => "bad_gateway",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::ClientGone => "client_gone",
            Self::Error => "error",
        }
    }
}

/// Why a request ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A credential was presented and is not valid.
    Credential(Rejected),
    /// The route refuses it.
    Refused(Refusal),
    /// A CORS preflight from an origin that is not allowed.
    PreflightNotAllowed,
    NoRoute,
    Loop,
    /// Which part of the head is ambiguous or over a limit.
    Head(BadHead),
    /// A status of the gateway's own.
    Status(StatusCode),
    /// The body is larger than the route's `body_max`.
    BodyMax,
    /// Escapes in the path hide the route's `strip_prefix`.
    StripPrefix,
    /// `limits.sockets_per_user`.
    SocketsPerUser,
    /// `limits.connections`.
    Connections,
    /// No token could be issued for the upstream.
    BackendToken,
    /// The provider gives no token for the upstream now.
    ProviderToken,
    /// `X-Forwarded-Proto: https` from an untrusted address.
    UntrustedForwardedProto,
    /// The trusted proxy sent no `X-Forwarded-Proto: https`.
    MissingForwardedProto,
    /// Plain HTTP on a TLS listener.
    PlainOnTls,
    /// The exchange with the upstream failed.
    Failed(Outcome),
    /// The gateway closed the connection.
    Closed(Closing),
}

impl Reason {
    /// The text for the access log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Credential(Rejected::Invalid | Rejected::Unknown | Rejected::UnknownUse) => "invalid credential",
            Self::Credential(Rejected::Expired) => "session expired",
            Self::Credential(Rejected::Ended | Rejected::UnknownSession) => "session ended",
            Self::Refused(Refusal::SignedOut) => "signed out",
            Self::Refused(Refusal::Forbidden) => "forbidden",
            Self::Refused(Refusal::OutOfScope) => "scope",
            Self::Refused(Refusal::CrossOrigin) => "cross-origin",
            Self::Refused(Refusal::Unavailable) => "account store away",
            Self::PreflightNotAllowed => "preflight not allowed",
            Self::NoRoute => "no route",
            Self::Loop => "loop",
            Self::Head(bad) => of_head(bad),
            Self::Status(status) => word(status),
            Self::BodyMax => "body_max",
            Self::StripPrefix => "strip_prefix",
            Self::SocketsPerUser => "sockets_per_user",
            Self::Connections => "connections",
            Self::BackendToken => "backend token",
            Self::ProviderToken => "provider token",
            Self::UntrustedForwardedProto => "X-Forwarded-Proto from an address that is not in trusted_proxies",
            Self::MissingForwardedProto => "no X-Forwarded-Proto: https from the trusted proxy",
            Self::PlainOnTls => "plain http on a TLS listener",
            Self::Failed(outcome) => outcome.as_str(),
            Self::Closed(why) => why.reason(),
        }
    }
}

/// The part of a head that is invalid.
pub(crate) fn of_head(bad: BadHead) -> &'static str {
    match bad {
        BadHead::Ambiguous(what) => what,
        BadHead::Method => "method",
        BadHead::TargetTooLong => "target",
        BadHead::TooLarge => "head",
        BadHead::TooSlow => "head_time",
        BadHead::Misdirected => "host of another certificate",
    }
}

/// The counter of a refusal.
pub(crate) fn authz(refusal: Refusal) -> Authz {
    match refusal {
        Refusal::SignedOut => Authz::SignedOut,
        Refusal::Forbidden | Refusal::OutOfScope => Authz::Forbidden,
        Refusal::CrossOrigin => Authz::CrossOrigin,
        Refusal::Unavailable => Authz::Unavailable,
    }
}
