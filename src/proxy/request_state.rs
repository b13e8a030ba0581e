//! One request, between the phases that decide it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use smallvec::SmallVec;

use super::connection_handle::ConnectionHandle;
use super::live_connections::LiveHandle;
use crate::account::{Identity, IssuedToken};
use crate::policy::app_cookies::Foreign;
use crate::policy::authorize::Admission;
use crate::policy::cors::CorsAnswer;
use crate::policy::normalize::{Known, Peer};
use crate::policy::websocket_credentials::Handshake;
use crate::upstream::targets::Target;
use crate::web::names::Names;

/// What earlier phases of one request decided.
pub(crate) struct RequestState {
    pub(super) began: Instant,
    /// When it was known what becomes of it.
    pub(super) decided: Instant,
    pub(super) request_id: String,
    pub(super) outcome: &'static str,
    pub(super) why: Option<&'static str>,
    pub(super) route: Option<usize>,
    pub(super) page: Option<&'static str>,
    pub(super) peer: Peer,
    pub(super) known: Option<Known>,
    pub(super) identity: Option<Identity>,
    /// Whether a credential said who asks that a browser sends by itself.
    pub(super) ambient_credential: bool,
    pub(super) admission: Option<Admission>,
    pub(super) connection: Option<Arc<ConnectionHandle>>,
    pub(super) live: Option<LiveHandle>,
    /// A gRPC call, for as long as it lasts.
    pub(super) call: Option<LiveHandle>,
    pub(super) tried: SmallVec<[Arc<Target>; 1]>,
    pub(super) retried: bool,
    /// When the server's answer began, after `began`.
    pub(super) answered: Option<Duration>,
    /// Cookies of apps that are another account's, or not known so far.
    pub(super) foreign: Option<Box<Foreign>>,
    pub(super) renewed: Option<HeaderValue>,
    pub(super) cors: CorsAnswer,
    pub(super) handshake: Option<Handshake>,
    /// HTTP/1.1, where a connection can be switched to another protocol.
    pub(super) can_switch: bool,
    /// The protocol, none of WebSockets, that the client asks to switch to and its route lets it.
    pub(super) upgrade: Option<String>,
    pub(super) token: Option<Arc<IssuedToken>>,
}

impl RequestState {
    /// A request that has just begun.
    pub(super) fn new(request_id: String) -> Self {
        let now = Instant::now();
        Self {
            began: now,
            decided: now,
            request_id,
            outcome: "error",
            why: None,
            route: None,
            page: None,
            peer: Peer::default(),
            known: None,
            identity: None,
            ambient_credential: false,
            admission: None,
            connection: None,
            live: None,
            call: None,
            tried: SmallVec::new(),
            retried: false,
            answered: None,
            foreign: None,
            renewed: None,
            cors: CorsAnswer::default(),
            handshake: None,
            can_switch: false,
            upgrade: None,
            token: None,
        }
    }

    /// Which fields the head may have.
    pub(super) fn names(&self) -> Names {
        self.known.as_ref().map_or(Names::ANY, |known| known.names)
    }
}
