//! The line of a request, from listener to access log. Each method below is a few calls; what they
//! decide stands in [`crate::policy`]. Without an [`Admission`] nothing is forwarded.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderValue, StatusCode, Version, header};
use pingora_http::RequestHeader;
use tokio::sync::Notify;

use super::connection_limits::Connections;
use super::live_connections::{LiveConnections, RequestSnapshot, Rules};
use super::request_state::RequestState;
use super::untrusted_proxy_warning;
use crate::account::Accounts;
use crate::clock::Clock;
use crate::config::Config;
use crate::logging::Log;
use crate::metrics::{Authz, Counted, Metrics, RouteMetrics};
use crate::pages::{Page, Pages};
use crate::policy::app_cookies::{self, Settled};
use crate::policy::authenticate::{self, Authentication};
use crate::policy::authorize::Admission;
use crate::policy::decide::{self, Verdict};
use crate::policy::header_filter::HeaderFilter;
use crate::policy::normalize::{self, Known, Peer};
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::route::Routed;
use crate::policy::{cors, loop_detection, reasons, refuse, websocket_credentials};
use crate::upstream::health::HealthChecks;
use crate::upstream::targets::{Resolved, Targets};
use crate::web::cookie::CookieStyle;
use crate::web::incoming::{Incoming, wants_page};
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;
use crate::wire::request_target;

/// Everything a request may need, under one configuration: a request holds on to the one that it began
/// with. Shared by all threads.
#[derive(Clone)]
pub struct Gateway(pub(super) Arc<Generation>);

/// What a [`Gateway`] is made of: what follows from its configuration, and all of [`ProcessState`].
pub struct Generation {
    pub(super) config: Arc<Config>,
    /// Counts configurations: what was judged under one is told apart from another's.
    pub(super) number: u64,
    pub(super) accounts: Accounts,
    pub(super) pages: Pages,
    pub(super) cookies: CookieStyle,
    pub(super) header_filter: HeaderFilter,
    pub(super) targets: Vec<Arc<Targets>>,
    pub(super) counted: Counted,
    /// A proxy that is not believed was told of.
    pub(super) proxy_warning_logged: AtomicBool,
    pub(super) process: Arc<ProcessState>,
}

/// What there is once, whatever the configuration.
pub struct ProcessState {
    pub(super) live: Arc<LiveConnections>,
    pub(super) connections: Arc<Connections>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Log,
    pub(super) clock: Clock,
    pub(super) settled: Settled,
    /// Random per process: request ids and the guard against loops are made from it.
    pub(super) ids: ahash::RandomState,
    pub(super) via: String,
    pub(super) next_id: AtomicU64,
    /// A server could not be reached: its name may lead elsewhere by now.
    pub(super) look_up: Notify,
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

/// What the first phase came to.
pub(crate) enum Step {
    Forward,
    Reply(Reply),
    Page(Page),
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

    /// Tells in the metrics what a load of the configuration came to.
    pub fn reloaded(&self, successful: bool) {
        self.metrics.reloaded(successful, self.clock.now());
    }

    /// Lets go of the series that only configurations before this one counted in.
    pub fn forget_others(&self) {
        self.metrics.forget(&self.counted);
    }

    /// Host names of upstreams that need a resolver.
    pub fn names(&self) -> Vec<(String, u16)> {
        self.targets.iter().flat_map(|targets| targets.names()).collect()
    }

    /// Takes over what the resolver found.
    pub fn resolved(&self, found: &[Resolved]) {
        for targets in &self.targets {
            targets.store(found);
        }
    }

    /// Begins the health checks that are due.
    pub(crate) fn begin_health_checks(&self, checks: &HealthChecks) {
        checks.begin(self.config.upstreams.iter().zip(&self.targets), self.now_millis());
    }

    /// Waits until a server could not be reached.
    pub async fn look_up_wanted(&self) {
        self.look_up.notified().await;
    }

    /// Closes live connections whose session has ended, or that this configuration does not allow any more;
    /// called several times a second.
    pub fn sweep(&self) {
        self.live.sweep(&self.rules());
    }

    /// Tells WebSockets and event streams that the gateway stops.
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

    /// Routes, authenticates and authorizes, and counts what that took. Nothing is written here. `head_bytes` is what
    /// the head took on the wire.
    pub(super) fn open(&self, head: &mut RequestHeader, head_bytes: usize, state: &mut RequestState) -> Step {
        let step = self.read_and_judge(head, head_bytes, state);
        state.decided = Instant::now();
        self.series(state).decided(state.decided - state.began);
        step
    }

    /// What a request is counted in.
    pub(super) fn series(&self, state: &RequestState) -> &RouteMetrics {
        match (state.route, state.page) {
            (None, Some(_)) => self.counted.pages(),
            (route, _) => self.counted.route(route),
        }
    }

    fn read_and_judge(&self, head: &mut RequestHeader, head_bytes: usize, state: &mut RequestState) -> Step {
        state.can_switch = head.version == Version::HTTP_11;
        let judged = self.read_head(head, head_bytes, state).and_then(|known| {
            let incoming = normalize::incoming(head, request_target::of(head), &known);
            let step = incoming.map(|incoming| self.judge(&incoming, state));
            state.known = Some(known);
            step
        });
        judged.unwrap_or_else(|bad| {
            state.outcome = "bad_request";
            let site = wants_page(&head.headers).then_some(&*self.pages);
            let prefix = &self.config.server.prefix;
            let seen = Oversize::of_head(&head.method, head.raw_path(), None, &head.headers, prefix);
            Step::Reply(oversized_head::bad_head(bad, &state.request_id, &mut state.why, site, &seen))
        })
    }

    fn judge(&self, incoming: &Incoming<'_>, state: &mut RequestState) -> Step {
        if loop_detection::is_loop(incoming, &self.via) {
            (state.outcome, state.why) = ("loop", Some("loop"));
            return Step::Reply(refuse::status(&self.pages, StatusCode::LOOP_DETECTED, incoming, &state.request_id));
        }
        let routed = Routed::new(&self.config, &self.pages, incoming);
        state.cors = routed.cors(&self.config, incoming);
        if let Some((_, route)) = routed.first.found.filter(|_| incoming.is_websocket) {
            state.handshake = Some(websocket_credentials::read(&route.websocket_token, incoming));
        }
        // a path with two readings is one request and no tunnel
        if let Some((_, route)) = routed.first.found.filter(|_| state.can_switch && routed.others.is_empty()) {
            state.upgrade = websocket_credentials::asked_protocol(&route.upgrade, incoming);
        }
        let carried = state.handshake.as_ref().map_or(&[][..], |handshake| &handshake.tokens);
        let authentication = authenticate::authenticate(&self.accounts, &self.cookies, incoming, carried);
        state.ambient_credential = matches!(authentication, Authentication::Known { ambient_credential: true, .. });
        state.renewed = self.renewed(&authentication);
        if let Authentication::Rejected(why) = &authentication {
            state.why = Some(reasons::why_rejected(*why));
        }
        let verdict = decide::decide(&self.config, &routed, incoming, &authentication);
        state.identity = authentication.into_identity();
        self.apply_verdict(verdict, incoming, state)
    }

    fn apply_verdict(&self, verdict: Verdict, incoming: &Incoming<'_>, state: &mut RequestState) -> Step {
        match verdict {
            Verdict::Page(page) => {
                state.outcome = "page";
                state.page = Some(page.name());
                self.warn_of_proxy(incoming, state.peer);
                Step::Page(page)
            }
            Verdict::Preflight => {
                state.outcome = "preflight";
                Step::Reply(cors::preflight_reply(incoming))
            }
            Verdict::ToHttps => {
                state.outcome = "to_https";
                state.why = untrusted_proxy_warning::why_plain(incoming, state.peer);
                self.warn_of_proxy(incoming, state.peer);
                Step::Reply(refuse::to_https(&self.config, incoming))
            }
            Verdict::Status(code) => {
                (state.outcome, state.why) = ("no_route", Some("no route"));
                Step::Reply(refuse::status(&self.pages, code, incoming, &state.request_id))
            }
            Verdict::Ambiguous(what) => {
                (state.outcome, state.why) = ("bad_request", Some(what));
                Step::Reply(refuse::bad_request(&self.pages, what, incoming, &state.request_id))
            }
            Verdict::Refuse(route, refusal) => {
                self.counted.route(Some(route)).judged(reasons::authz(refusal));
                state.outcome = "refused";
                state.route = Some(route);
                state.why = state.why.or(Some(reasons::why_refused(refusal, incoming)));
                let route = &self.config.routes[route];
                Step::Reply(refuse::refusal(&self.pages, refusal, route, incoming, &state.request_id))
            }
            Verdict::Forward(admission) => self.admit(admission, incoming, state),
        }
    }

    /// Limits that hang on what is forwarded: socket caps, body size, the prefix to be cut.
    fn admit(&self, admission: Admission, incoming: &Incoming<'_>, state: &mut RequestState) -> Step {
        let route = &self.config.routes[admission.route()];
        state.route = Some(admission.route());
        self.counted.route(state.route).judged(Authz::Allowed);
        let refused = |code| Step::Reply(refuse::status(&self.pages, code, incoming, &state.request_id));
        if let Some(reply) = refuse::unfit(&self.pages, (&admission, route), incoming, &state.request_id) {
            let large = reply.status == StatusCode::PAYLOAD_TOO_LARGE;
            (state.outcome, state.why) =
                if large { ("refused", Some("body_max")) } else { ("bad_request", Some("strip_prefix")) };
            return Step::Reply(reply);
        }
        if let Some(user) = app_cookies::owner(
            self.config.session.app_cookies,
            &self.cookies,
            state.identity.as_ref(),
            incoming.headers,
        ) {
            state.foreign = self.app_cookies().judge(user, incoming, state.ambient_credential);
        }
        if (incoming.is_websocket || state.upgrade.is_some())
            && let Some(connection) = &state.connection
        {
            let asked = RequestSnapshot::new(incoming, state.ambient_credential);
            if let Ok(handle) = self.live.socket(connection, &admission, asked, &self.rules()) {
                state.live = Some(handle);
            } else {
                self.metrics.sockets_refused.add_one();
                let who = || admission.identity().map_or_else(String::new, |identity| identity.user.id.clone());
                self.connections.log.refused("limits.sockets_per_user", who);
                (state.outcome, state.why) = ("refused", Some("sockets_per_user"));
                let reply = refuse::status(&self.pages, StatusCode::TOO_MANY_REQUESTS, incoming, &state.request_id);
                return Step::Reply(reply.with(header::RETRY_AFTER, HeaderValue::from_static("30")));
            }
        }
        if refuse::may_be_grpc(incoming)
            && let Some(connection) = &state.connection
        {
            state.call = Some(self.live.stream(
                connection,
                &admission,
                RequestSnapshot::new(incoming, state.ambient_credential),
                true,
                &self.rules(),
            ));
        }
        if let Some(identity) = admission.identity() {
            let Ok(token) = self.accounts.backend_token(admission.upstream(), identity) else {
                (state.outcome, state.why) = ("internal", Some("backend token"));
                return refused(StatusCode::INTERNAL_SERVER_ERROR);
            };
            state.token = token;
        }
        state.outcome = "forward";
        state.admission = Some(admission);
        Step::Forward
    }

    fn read_head(
        &self,
        head: &mut RequestHeader,
        head_bytes: usize,
        state: &mut RequestState,
    ) -> Result<Known, BadHead> {
        let address = state.connection.as_ref().and_then(|connection| connection.address());
        let secured = state.connection.as_ref().and_then(|connection| connection.secured());
        state.peer = Peer::new(address, secured.is_some(), &self.config.server);
        let names = normalize::check(head, request_target::of(head).len(), head_bytes, &self.config.limits)?;
        normalize::to_origin_form(head)?;
        if state.peer.trusted
            && let Some(id) = normalize::trusted_request_id(&head.headers)
        {
            state.request_id = id;
        }
        let known = normalize::read(head, names, state.peer, &self.config.server)?;
        // a proxy may speak for all hosts over one connection
        if secured.is_some_and(|secured| !state.peer.trusted && !secured.covers(known.host.name())) {
            return Err(BadHead::Misdirected);
        }
        Ok(known)
    }

    /// The rewritten cookie, where one was presented and it is time for a new one.
    fn renewed(&self, authentication: &Authentication) -> Option<HeaderValue> {
        let Authentication::Known { identity, ambient_credential: true } = authentication else { return None };
        // an API token is no session
        if identity.grant.is_some() {
            return None;
        }
        let token = self.accounts.renewed_token(identity)?;
        let max_age = self.accounts.cookie_max_age(&identity.session);
        self.cookies.set(self.cookies.session(), token.expose(), max_age)
    }

    /// What live connections are judged by.
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules { config: &self.config, generation: self.number, site: &self.pages, accounts: &self.accounts }
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
        data_encoding::HEXLOWER.encode(&self.ids.hash_one(next).to_be_bytes())
    }
}
