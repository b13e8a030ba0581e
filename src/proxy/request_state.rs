//! One request on its way: what was decided about it, and what has become of it so far.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use super::connection_handle::ConnectionHandle;
use super::live_connections::LiveHandle;
use crate::account::Identity;
use crate::pages::Page;
use crate::policy::cors::CorsAnswer;
use crate::policy::forwarding::Forwarding;
use crate::policy::normalize::{Facts, NormalRequest, Peer};
use crate::policy::reasons::{Outcome, Reason};
use crate::secret::Secret;
use crate::upstream::targets::Target;
use crate::web::names::Names;
use crate::web::reply::Reply;
use crate::wire::request_head::Head;

/// What follows from a request's head.
#[must_use]
pub(crate) enum Step {
    /// This.
    Decided(Decision),
    /// It is admitted, and waits for a token of the account's provider: `provider_token::settle` decides.
    AwaitsToken(Box<Forwarding>),
    /// It has credentials that this node does not know, or the ticket of a handshake: `unknown_credentials::settle` asks the
    /// shared database.
    AwaitsStore(NormalRequest, Vec<Secret>),
}

impl Step {
    /// The head as it was parsed.
    pub(super) fn parsed(&self) -> &RequestHeader {
        match self {
            Self::Decided(decision) => decision.parsed(),
            Self::AwaitsToken(forwarding) => forwarding.request().parsed(),
            Self::AwaitsStore(request, _) => request.parsed(),
        }
    }

    /// The request, which is not served.
    pub(super) fn into_subject(self) -> Subject {
        match self {
            Self::Decided(Decision::Reply(_, subject)) => subject,
            Self::Decided(Decision::Page(_, request)) | Self::AwaitsStore(request, _) => Subject::Normal(request),
            Self::Decided(Decision::Forward(forwarding)) | Self::AwaitsToken(forwarding) => {
                Subject::Forwarded(forwarding)
            }
        }
    }
}

/// What is to be done with a request.
#[must_use]
pub(crate) enum Decision {
    /// Forward it.
    Forward(Box<Forwarding>),
    /// One of the gateway's own pages answers.
    Page(Page, NormalRequest),
    /// The gateway answers.
    Reply(Reply, Subject),
}

impl Decision {
    /// The head as it was parsed.
    pub(super) fn parsed(&self) -> &RequestHeader {
        match self {
            Self::Forward(forwarding) => forwarding.request().parsed(),
            Self::Page(_, request) => request.parsed(),
            Self::Reply(_, subject) => subject.parsed(),
        }
    }
}

/// The request that a reply is for.
pub(crate) enum Subject {
    /// Its head was accepted and normalized.
    Normal(NormalRequest),
    /// It was forwarded, or was about to be.
    Forwarded(Box<Forwarding>),
    /// Its head was refused.
    Malformed(Box<Head>),
}

impl Subject {
    /// The head as it was parsed.
    pub(super) fn parsed(&self) -> &RequestHeader {
        match self {
            Self::Normal(request) => request.parsed(),
            Self::Forwarded(forwarding) => forwarding.request().parsed(),
            Self::Malformed(head) => &head.parsed,
        }
    }

    /// The same with the method and the target alone.
    pub(super) fn without_fields(self) -> Self {
        match self {
            Self::Normal(request) => Self::Normal(request.without_fields()),
            Self::Forwarded(forwarding) => Self::Normal(forwarding.into_request().without_fields()),
            Self::Malformed(mut head) => {
                head.drop_fields();
                Self::Malformed(head)
            }
        }
    }

    /// What was read from the head.
    pub(super) fn facts(&self) -> Option<&Facts> {
        match self {
            Self::Normal(request) => Some(request.facts()),
            Self::Forwarded(forwarding) => Some(forwarding.request().facts()),
            Self::Malformed(_) => None,
        }
    }
}

/// One request, from its head to its access line.
pub(crate) struct RequestState {
    pub(super) connection: Arc<ConnectionHandle>,
    pub(super) began: Instant,
    /// When the decision was made.
    pub(super) decided: Instant,
    pub(super) request_id: String,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Reason>,
    pub(super) route: Option<usize>,
    pub(super) upstream: Option<usize>,
    pub(super) page: Option<&'static str>,
    pub(super) peer: Peer,
    /// Which fields the head may have.
    pub(super) field_names: Names,
    pub(super) identity: Option<Identity>,
    /// Whether the identity is by a credential that browsers send on their own.
    pub(super) ambient_credential: bool,
    /// Whether its credentials are valid cannot be known now.
    pub(super) is_unavailable: bool,
    pub(super) live_entry: Option<LiveHandle>,
    /// A gRPC call, for as long as it lasts.
    pub(super) grpc_entry: Option<LiveHandle>,
    pub(super) tried: SmallVec<[Arc<Target>; 1]>,
    pub(super) retried: bool,
    /// When the upstream's response began, after `began`.
    pub(super) time_to_response_head: Option<Duration>,
    pub(super) renewed_cookie: Option<HeaderValue>,
    pub(super) cors: CorsAnswer,
}

impl RequestState {
    /// A request that has just begun.
    pub(super) fn new(connection: Arc<ConnectionHandle>, request_id: String) -> Self {
        let now = Instant::now();
        Self {
            connection,
            began: now,
            decided: now,
            request_id,
            outcome: Outcome::Error,
            reason: None,
            route: None,
            upstream: None,
            page: None,
            peer: Peer::default(),
            field_names: Names::ANY,
            identity: None,
            ambient_credential: false,
            is_unavailable: false,
            live_entry: None,
            grpc_entry: None,
            tried: SmallVec::new(),
            retried: false,
            time_to_response_head: None,
            renewed_cookie: None,
            cors: CorsAnswer::default(),
        }
    }
}
