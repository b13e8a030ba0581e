//! What comes of a request: one JSON document, or why there is none.

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use super::address::Place;
use crate::web::strict_json::JsonError;

/// A response with a JSON body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    /// Status code; 3xx never comes here.
    pub(crate) status: u16,
    /// The body.
    pub(crate) json: Value,
    /// The `Date` field, as sent.
    pub(crate) date: Option<String>,
    /// Where the address is that it came from.
    pub(crate) place: Place,
}

impl Response {
    /// Whether the status is 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no response. Says nothing of what was sent or received beyond status, type and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FetchError {
    /// Too many exchanges are in progress.
    Busy,
    /// The client is shutting down.
    Stopped,
    /// The name has no address, or no address accepts connections.
    Unreachable(String),
    /// An address from a document led inside.
    ForbiddenAddress(IpAddr),
    /// The connection is not secure: the certificate, for example.
    Tls(String),
    /// A limit of time was reached while doing this.
    TimedOut(&'static str),
    /// No HTTP, or a head that is too large.
    Protocol(String),
    /// The body is larger than this many bytes.
    TooLarge(usize),
    /// A redirect.
    Redirect(u16),
    /// Another media type or character set than JSON in UTF-8.
    NotJson {
        /// Status code.
        status: u16,
        /// Length of the body, bytes, as far as it was declared.
        bytes: Option<u64>,
    },
    /// A body that is not one JSON document.
    BadJson {
        /// Status code.
        status: u16,
        /// What is wrong with it.
        error: JsonError,
    },
}

impl FetchError {
    /// One word for metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Stopped => "stopped",
            Self::Unreachable(_) => "unreachable",
            Self::ForbiddenAddress(_) => "forbidden_address",
            Self::Tls(_) => "tls",
            Self::TimedOut(_) => "timeout",
            Self::Protocol(_) | Self::TooLarge(_) | Self::Redirect(_) | Self::NotJson { .. } | Self::BadJson { .. } => {
                "invalid"
            }
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too many requests to providers are in progress"),
            Self::Stopped => f.write_str("the gateway is shutting down"),
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::ForbiddenAddress(address) => {
                write!(f, "the provider's metadata leads to the internal address {address}")
            }
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::TimedOut(what) => write!(f, "timed out while {what}"),
            Self::Protocol(why) => write!(f, "invalid HTTP response: {why}"),
            Self::TooLarge(max) => write!(f, "the response is larger than {max} bytes"),
            Self::Redirect(status) => write!(f, "status {status}: redirects are not followed"),
            Self::NotJson { status, bytes: Some(bytes) } => {
                write!(f, "status {status} with {bytes} bytes that are not JSON")
            }
            Self::NotJson { status, bytes: None } => write!(f, "status {status} with a body that is not JSON"),
            Self::BadJson { status, error } => write!(f, "status {status} with invalid JSON: {error}"),
        }
    }
}

impl std::error::Error for FetchError {}
