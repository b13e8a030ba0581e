//! Why a sign-in through a provider ends without an identity: a reason that pages and metrics name, and a detail for the
//! log alone. Neither holds a code, token, state or anything else of the callback's query.

use std::fmt;

use crate::client::FetchError;

/// What went wrong, as one word for logs and metrics; pages have a sentence for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No `[[provider]]` of this name.
    UnknownProvider,
    /// A parameter of the callback came twice.
    RepeatedParameter,
    /// The callback has no `state`.
    NoState,
    /// The browser did not send the cookie that binds the attempt to it.
    NoCookie,
    /// `state` is not one of this browser, provider and callback path, or it is too old.
    BadState,
    /// This callback was answered before.
    AlreadyUsed,
    /// The answer comes from another issuer than the one that was asked (RFC 9207).
    WrongIssuer,
    /// The person cancelled, or the provider refused them.
    Denied,
    /// The provider reported another error.
    ProviderError,
    /// The callback has neither a code nor an error.
    NoCode,
    /// The provider cannot be reached or answers wrongly.
    Unavailable,
    /// Too many sign-ins are in progress with this provider.
    Busy,
    /// Too many sign-ins from this network have failed, or begun.
    Throttled,
    /// The token endpoint refused the code.
    CodeRefused,
    /// The token endpoint refused this client: the secret is wrong, for example.
    ClientRefused,
    /// The provider refuses an access token.
    TokenRefused,
    /// The ID token or the profile does not hold.
    BadIdentity,
    /// The person's groups could not be read; without them no decision is made.
    GroupsUnavailable,
    /// The person's tenant is not allowed.
    NotAllowed,
    /// The random number generator or a key failed.
    Internal,
}

impl Reason {
    /// For logs, metrics and the audit trail.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::UnknownProvider => "unknown_provider",
            Self::RepeatedParameter => "repeated_parameter",
            Self::NoState => "no_state",
            Self::NoCookie => "no_cookie",
            Self::BadState => "bad_state",
            Self::AlreadyUsed => "already_used",
            Self::WrongIssuer => "wrong_issuer",
            Self::Denied => "denied",
            Self::ProviderError => "provider_error",
            Self::NoCode => "no_code",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Throttled => "throttled",
            Self::CodeRefused => "code_refused",
            Self::ClientRefused => "client_refused",
            Self::TokenRefused => "token_refused",
            Self::BadIdentity => "bad_identity",
            Self::GroupsUnavailable => "groups_unavailable",
            Self::NotAllowed => "not_allowed",
            Self::Internal => "internal",
        }
    }
}

/// A reason with its detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) reason: Reason,
    /// For the log: one line.
    pub(crate) detail: String,
    /// Seconds until it is worth another try, if that is known.
    pub(crate) retry_after_secs: Option<u64>,
}

impl Failure {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), retry_after_secs: None }
    }

    /// Too many calls of this network, for so long.
    pub(crate) fn throttled(detail: &str, retry_after_secs: u64) -> Self {
        Self { retry_after_secs: Some(retry_after_secs), ..Self::new(Reason::Throttled, detail) }
    }

    /// Whether what the browser sent was refused, after a request to the provider: made-up codes are.
    pub(crate) fn cost_a_request(&self) -> bool {
        matches!(self.reason, Reason::CodeRefused | Reason::BadIdentity)
    }

    /// A request to the provider that brought no response. `what` was asked for.
    pub(crate) fn fetching(what: &str, error: &FetchError) -> Self {
        let reason = if *error == FetchError::Busy { Reason::Busy } else { Reason::Unavailable };
        Self::new(reason, format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.word(), self.detail)
    }
}

impl std::error::Error for Failure {}
