//! A gateway under one configuration, and the steps of a request from its head to the decision. Each method is a few
//! calls; the rules are in [`crate::policy`]. Without an [`Admission`] nothing is forwarded.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderValue, StatusCode, Version, header};
use tokio::sync::Notify;

use super::connection_limits::Connections;
use super::live_connections::{LiveConnections, LiveRules, RequestSnapshot};
use super::request_state::{Decision, RequestState, Step, Subject};
use super::untrusted_proxy_warning;
use crate::account::identity::upstream_token::{self, Lookup};
use crate::account::{Accounts, User, credentials};
use crate::clock::Clock;
use crate::config::Config;
use crate::logging::Log;
use crate::metrics::{Authz, Counted, Metrics, RouteMetrics};
use crate::pages::Pages;
use crate::policy::app_cookies::{self, Settled};
use crate::policy::authenticate::{self, Authentication, CatchUp};
use crate::policy::authorize::Admission;
use crate::policy::decide::{self, Approval, Decided, Rules};
use crate::policy::forwarding::{Additions, Forwarding};
use crate::policy::header_filter::HeaderFilter;
use crate::policy::normalize::{self, NormalRequest, Peer};
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::provider_token;
use crate::policy::reasons::{self, Outcome, Reason};
use crate::policy::refuse::{self, Handling, Refused};
use crate::policy::websocket_credentials::Handshake;
use crate::secret::Secret;
use crate::upstream::health::HealthChecks;
use crate::upstream::targets::{Resolved, Targets};
use crate::web::cookie::CookieStyle;
use crate::web::incoming::{Incoming, wants_page};
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;
use crate::wire::request_head::Head;

/// Everything that a request may need, under one configuration. A request keeps the gateway that it began with. Shared
/// by all threads.
#[derive(Clone)]
pub struct Gateway(pub(super) Arc<Generation>);

/// What a [`Gateway`] is made of: what follows from its configuration, and all of [`ProcessState`].
pub struct Generation {
    pub(super) config: Arc<Config>,
    /// The number of the configuration, which distinguishes decisions under it from those under another.
    pub(super) number: u64,
    pub(super) accounts: Accounts,
    pub(super) pages: Pages,
    pub(super) cookies: CookieStyle,
    pub(super) header_filter: HeaderFilter,
    pub(super) targets: Vec<Arc<Targets>>,
    pub(super) route_metrics: Counted,
    /// The warning about an untrusted proxy was logged.
    pub(super) proxy_warning_logged: AtomicBool,
    pub(super) process: Arc<ProcessState>,
}

/// State that exists once per process and survives reloads.
pub struct ProcessState {
    pub(super) live: Arc<LiveConnections>,
    pub(super) connections: Arc<Connections>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Log,
    pub(super) clock: Clock,
    pub(super) settled: Settled,
    /// Random per process: request ids and the guard against loops are made from it.
    pub(super) id_hasher: ahash::RandomState,
    pub(super) via: String,
    pub(super) next_id: AtomicU64,
    /// Notified when a server could not be reached: its name may have another address by now.
    pub(super) dns_refresh: Notify,
}

impl Deref for Gateway {
    type Target = Generation;

    fn deref(&self) -> &Generation {
        &self.0
    }
}

impl Deref for Generation {
    type Target = ProcessState;

    fn deref(&self) -> &ProcessState {
        &self.process
    }
}

impl Gateway {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// People and their sessions, under this configuration.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Whether an upstream has no address yet.
    pub fn has_unknown_names(&self) -> bool {
        self.targets.iter().any(|targets| targets.is_unknown())
    }

    /// Records in the metrics whether a reload succeeded.
    pub fn reloaded(&self, successful: bool) {
        self.metrics.reloaded(successful, self.clock.now());
    }

    /// Drops the metric series that only earlier configurations used.
    pub fn prune_metrics(&self) {
        self.metrics.forget(&self.route_metrics);
    }

    /// Host names of upstreams that need a resolver.
    pub fn names(&self) -> Vec<(String, u16)> {
        self.targets.iter().flat_map(|targets| targets.names()).collect()
    }

    /// Stores what the resolver found.
    pub fn resolved(&self, found: &[Resolved]) {
        for targets in &self.targets {
            targets.store(found);
        }
    }

    /// Begins the health checks that are due.
    pub(crate) fn begin_health_checks(&self, checks: &HealthChecks) {
        checks.begin(self.config.upstreams.iter().zip(&self.targets), self.now_millis());
    }

    /// Waits for the next server that cannot be reached.
    pub async fn look_up_wanted(&self) {
        self.dns_refresh.notified().await;
    }

    /// Closes live connections whose session has ended, or that this configuration does not allow any more;
    /// called several times a second.
    pub fn sweep(&self) {
        self.live.sweep(&self.live_rules());
    }

    /// Closes WebSockets and event streams, because the gateway is stopping.
    pub fn drain(&self) {
        self.live.drain();
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.connections.open()
    }

    /// The time, in milliseconds since 1970.
    pub fn now_millis(&self) -> u64 {
        self.clock.now_millis()
    }

    /// Routes, authenticates and authorizes, and counts the time it took. Nothing is sent here. `head_bytes` is the
    /// size of the head on the wire.
    pub(super) fn decide_request(&self, head: Box<Head>, head_bytes: usize, state: &mut RequestState) -> Step {
        let step = match self.read_head(head, head_bytes, state) {
            Ok(request) => self.decide_normalized(request, &CatchUp::NotAsked, state),
            Err((bad, head)) => Step::Decided(self.reject_head(bad, head, state)),
        };
        state.decided = Instant::now();
        self.series(state).decided(state.decided - state.began);
        step
    }

    /// The series that a request is counted in.
    pub(super) fn series(&self, state: &RequestState) -> &RouteMetrics {
        match (state.route, state.page) {
            (None, Some(_)) => self.route_metrics.pages(),
            (route, _) => self.route_metrics.route(route),
        }
    }

    fn read_head(
        &self,
        mut head: Box<Head>,
        head_bytes: usize,
        state: &mut RequestState,
    ) -> Result<NormalRequest, (BadHead, Box<Head>)> {
        let tls = state.connection.tls();
        state.peer = Peer::new(state.connection.address(), tls.is_some(), &self.config.server);
        let trusted = Some(&head.parsed.headers).filter(|_| state.peer.trusted);
        if let Some(id) = trusted.and_then(normalize::trusted_request_id) {
            state.request_id = id;
        }
        match normalize::read(&mut head.parsed, head_bytes, state.peer, tls.map(Arc::as_ref), &self.config) {
            Ok(facts) => {
                state.field_names = facts.names;
                Ok(NormalRequest::new(head, facts))
            }
            Err(bad) => Err((bad, head)),
        }
    }

    fn reject_head(&self, bad: BadHead, head: Box<Head>, state: &mut RequestState) -> Decision {
        (state.outcome, state.reason) = (Outcome::BadRequest, Some(Reason::Head(bad)));
        let parsed = &head.parsed;
        let site = wants_page(&parsed.headers).then_some(&*self.pages);
        let prefix = &self.config.server.prefix;
        let seen = Oversize::of_head(&parsed.method, parsed.raw_path(), None, &parsed.headers, prefix);
        Decision::Reply(oversized_head::bad_head(bad, &state.request_id, site, &seen), Subject::Malformed(head))
    }

    /// The same of a head that was read. A request with credentials that are unknown here waits once.
    pub(super) fn decide_normalized(
        &self,
        request: NormalRequest,
        catch_up: &CatchUp,
        state: &mut RequestState,
    ) -> Step {
        let (incoming, rules) = (request.incoming(), self.rules());
        let can_switch = request.parsed().version == Version::HTTP_11;
        let authenticate = |carried: &[Secret]| {
            authenticate::authenticate(&self.accounts, &self.cookies, &incoming, carried, catch_up)
        };
        let decided = decide::decide(&rules, &incoming, can_switch, authenticate);
        let Decided { cors, handshake, upgrade, authentication, verdict, .. } = decided;
        if let Authentication::Rejected(why) = authentication {
            if why.may_be_known_elsewhere() && verdict.depends_on_identity() {
                return Step::AwaitsStore(request, handshake.map_or_else(Vec::new, |handshake| handshake.tokens));
            }
            state.reason = Some(Reason::Credential(why));
        }
        state.is_unavailable = matches!(authentication, Authentication::Unavailable);
        state.ambient_credential = matches!(authentication, Authentication::Known { ambient_credential: true, .. });
        (state.cors, state.renewed_cookie) = (cors, self.renewed(&authentication));
        let handling = refuse::handle(&rules, verdict, &authentication, &incoming, &state.request_id);
        state.identity = authentication.into_identity();
        match handling {
            Handling::Forward(approval) => self.prepare_forward(approval, request, (handshake, upgrade), state),
            Handling::Page(page) => {
                (state.outcome, state.page) = (Outcome::Page, Some(page.name()));
                self.warn_of_proxy(&incoming, state.peer);
                Step::Decided(Decision::Page(page, request))
            }
            Handling::Reply(refused) => {
                self.note_refused(&refused, &incoming, state);
                Step::Decided(Decision::Reply(refused.reply, Subject::Normal(request)))
            }
        }
    }

    fn note_refused(&self, refused: &Refused, incoming: &Incoming<'_>, state: &mut RequestState) {
        (state.outcome, state.reason) = (refused.outcome, refused.reason.or(state.reason));
        if let Some(route) = refused.route {
            state.route = Some(route);
            self.route_metrics.route(state.route).judged(refused.refusal.map_or(Authz::Allowed, reasons::authz));
        }
        if refused.outcome == Outcome::ToHttps {
            state.reason = untrusted_proxy_warning::why_plain(incoming, state.peer);
            self.warn_of_proxy(incoming, state.peer);
        }
    }

    /// Prepares an admitted request: registers it if it may become a live connection, and gets the upstream's tokens.
    fn prepare_forward(
        &self,
        approval: Approval,
        request: NormalRequest,
        (handshake, upgrade): (Option<Handshake>, Option<String>),
        state: &mut RequestState,
    ) -> Step {
        let (route, upstream) = (approval.route(), approval.upstream());
        (state.route, state.upstream) = (Some(route), Some(upstream));
        self.route_metrics.route(state.route).judged(Authz::Allowed);
        let incoming = request.incoming();
        let owner = self.owner(&incoming, state);
        let foreign_cookies =
            owner.and_then(|user| self.app_cookies().judge(user, &incoming, state.ambient_credential));
        if incoming.is_websocket || upgrade.is_some() {
            let snapshot = RequestSnapshot::new(&incoming, state.ambient_credential);
            let socket = self.live.socket(&state.connection, &approval, snapshot, &self.live_rules());
            let Ok(handle) = socket else {
                let reply = self.too_many_sockets(&approval, &incoming, state);
                return Step::Decided(Decision::Reply(reply, Subject::Normal(request)));
            };
            state.live_entry = Some(handle);
        }
        if refuse::may_be_grpc(&incoming) {
            let snapshot = RequestSnapshot::new(&incoming, state.ambient_credential);
            let (connection, rules) = (&state.connection, self.live_rules());
            state.grpc_entry = Some(self.live.stream(connection, &approval, snapshot, true, &rules));
        }
        let mut token = None;
        if let Some(identity) = approval.identity() {
            let Ok(issued) = self.accounts.backend_token(upstream, identity) else {
                (state.outcome, state.reason) = (Outcome::Internal, Some(Reason::BackendToken));
                let code = StatusCode::INTERNAL_SERVER_ERROR;
                let reply = refuse::status(&self.pages, code, &incoming, &state.request_id);
                return Step::Decided(Decision::Reply(reply, Subject::Normal(request)));
            };
            token = issued;
        }
        state.outcome = Outcome::Forward;
        let additions = Additions { token, provider_token: None, foreign_cookies, handshake, upgrade };
        let forwarding = Box::new(Forwarding::new(approval, request, additions));
        if self.config.upstreams[upstream].provider_token.is_some() {
            return self.with_provider_token(forwarding);
        }
        Step::Decided(Decision::Forward(forwarding))
    }

    /// Adds the provider's token that the app gets, if it is in memory.
    fn with_provider_token(&self, mut forwarding: Box<Forwarding>) -> Step {
        let wanted = provider_token::wanted(&self.config, forwarding.admission());
        let found = wanted.and_then(|(token, session)| upstream_token::look_up(&self.accounts, token, session));
        match found {
            Some(Lookup::Wait) => return Step::AwaitsToken(forwarding),
            Some(Lookup::Token(token)) => forwarding.add_provider_token(token),
            None => {}
        }
        Step::Decided(Decision::Forward(forwarding))
    }

    fn too_many_sockets(&self, admission: &Admission, incoming: &Incoming<'_>, state: &mut RequestState) -> Reply {
        self.metrics.sockets_refused.add_one();
        let who = || admission.identity().map_or_else(String::new, |identity| identity.user.id.clone());
        self.connections.log.refused("limits.sockets_per_user", who);
        (state.outcome, state.reason) = (Outcome::Refused, Some(Reason::SocketsPerUser));
        let reply = refuse::status(&self.pages, StatusCode::TOO_MANY_REQUESTS, incoming, &state.request_id);
        reply.with(header::RETRY_AFTER, HeaderValue::from_static("30"))
    }

    /// The renewed session cookie, if one was presented and is due for renewal.
    fn renewed(&self, authentication: &Authentication) -> Option<HeaderValue> {
        let Authentication::Known { identity, ambient_credential: true } = authentication else { return None };
        // an API token is no session
        if identity.grant.is_some() {
            return None;
        }
        let token = credentials::renewed_token(&self.accounts, identity)?;
        let max_age = self.accounts.cookie_max_age(&identity.session);
        self.cookies.set(self.cookies.session(), token.expose(), max_age)
    }

    /// The configuration that requests are judged by.
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules { config: &self.config, site: &self.pages, via: &self.via }
    }

    /// What live connections are judged by.
    pub(super) fn live_rules(&self) -> LiveRules<'_> {
        LiveRules { policy: self.rules(), generation: self.number, accounts: &self.accounts }
    }

    /// The account that the app cookies of a request belong to.
    pub(super) fn owner<'r>(&self, incoming: &Incoming<'_>, state: &'r RequestState) -> Option<&'r User> {
        let (rule, identity) = (self.config.session.app_cookies, state.identity.as_ref());
        app_cookies::owner(rule, &self.cookies, identity, incoming.headers)
    }

    /// What is known about cookies of apps, whatever the request.
    pub(super) fn app_cookies(&self) -> app_cookies::Context<'_> {
        app_cookies::Context {
            key: self.accounts.app_cookie_key(),
            cookies: &self.cookies,
            header_filter: &self.header_filter,
            settled: &self.settled,
        }
    }

    fn warn_of_proxy(&self, incoming: &Incoming<'_>, peer: Peer) {
        untrusted_proxy_warning::warn(&self.config.server.public_url, &self.proxy_warning_logged, incoming, peer);
    }

    /// An opaque id: unique within the process, not to be guessed from the one before.
    pub(super) fn fresh_id(&self) -> String {
        let next = self.next_id.fetch_add(1, Ordering::Relaxed);
        data_encoding::HEXLOWER.encode(&self.id_hasher.hash_one(next).to_be_bytes())
    }
}
