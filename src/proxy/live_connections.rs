//! The registry of live connections: WebSockets and other upgrades, event streams, gRPC calls, and long responses
//! without a declared length. An entry is closed when its session ends or may no longer use the route. After a reload,
//! each entry is checked again, from a snapshot of its request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER};
use parking_lot::Mutex;

use super::connection_handle::ConnectionHandle;
use crate::account::{Accounts, Grant, Identity, Session, SessionState};
use crate::policy::authenticate::Authentication;
use crate::policy::authorize::{self, Admission};
use crate::policy::decide::{self, Approval, Rules, Verdict};
use crate::policy::second_method;
use crate::web::host::Host;
use crate::web::incoming::Incoming;
use crate::web::names::Names;
use crate::web::origin::Scheme;
use crate::web::readings::RequestPath;
use crate::wire::websocket_frames::Closing;

/// The fields that a request is judged by, besides those that say who asks.
const JUDGED: [HeaderName; 3] = [ORIGIN, REFERER, HeaderName::from_static("sec-fetch-site")];
/// Where a second method is kept that stood in the query.
const SECOND_METHOD: HeaderName = HeaderName::from_static("x-http-method-override");

/// What connections are judged by: one configuration, and who is signed in.
pub(crate) struct LiveRules<'g> {
    pub(crate) policy: Rules<'g>,
    /// Counts configurations.
    pub(crate) generation: u64,
    pub(crate) accounts: &'g Accounts,
}

/// The registry. Bounded by `limits.connections`: each entry is an open connection.
#[derive(Debug, Default)]
pub(crate) struct LiveConnections {
    entries: Mutex<Entries>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Entries {
    open: HashMap<u64, Entry, ahash::RandomState>,
    sockets_of: HashMap<String, usize, ahash::RandomState>,
    draining: bool,
}

#[derive(Debug)]
struct Entry {
    connection: Arc<ConnectionHandle>,
    who: Option<Principal>,
    /// The account whose socket is counted.
    counted_for: Option<String>,
    /// It ends by itself, so draining waits for it.
    ends: bool,
    asked: RequestSnapshot,
    judged: AdmittedOn,
}

/// Whom a connection was admitted for.
#[derive(Debug)]
struct Principal {
    session: Arc<Session>,
    grant: Option<Arc<Grant>>,
}

/// What a connection asked for when it began, without the buffer that it came in.
#[derive(Debug)]
pub(crate) struct RequestSnapshot {
    method: Method,
    path: Box<str>,
    host: Host,
    scheme: Scheme,
    headers: HeaderMap,
    is_websocket: bool,
    ambient_credential: bool,
}

/// The routes that a connection was admitted on, in which configuration.
#[derive(Debug)]
pub(crate) struct AdmittedOn {
    generation: u64,
    route: usize,
    /// Those that other readings of its path lead to.
    others: Box<[usize]>,
}

/// One registered connection; takes itself out when dropped.
#[derive(Debug)]
pub(crate) struct LiveHandle {
    live: Arc<LiveConnections>,
    key: u64,
}

/// The account has as many sockets open as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketLimitExceeded;

impl LiveConnections {
    /// Registers a WebSocket or another upgrade, which counts towards the account's `limits.sockets_per_user`.
    pub(crate) fn socket(
        self: &Arc<Self>,
        connection: &Arc<ConnectionHandle>,
        admission: &Admission,
        asked: RequestSnapshot,
        rules: &LiveRules<'_>,
    ) -> Result<LiveHandle, SocketLimitExceeded> {
        let mut entries = self.entries.lock();
        let counted_for = admission.identity().map(|identity| identity.user.id.clone());
        if let Some(user) = &counted_for {
            let count = entries.sockets_of.get(user).copied().unwrap_or(0);
            if count >= rules.policy.config.limits.sockets_per_user {
                return Err(SocketLimitExceeded);
            }
            entries.sockets_of.insert(user.clone(), count + 1);
        }
        let entry = Entry { counted_for, ..Entry::new(connection, admission, asked, rules) };
        Ok(self.insert(&mut entries, entry))
    }

    /// Registers a response: an event stream, a gRPC call or a long response. `ends`: it ends by itself.
    pub(crate) fn stream(
        self: &Arc<Self>,
        connection: &Arc<ConnectionHandle>,
        admission: &Admission,
        asked: RequestSnapshot,
        ends: bool,
        rules: &LiveRules<'_>,
    ) -> LiveHandle {
        let entry = Entry { ends, ..Entry::new(connection, admission, asked, rules) };
        self.insert(&mut self.entries.lock(), entry)
    }

    fn insert(self: &Arc<Self>, entries: &mut Entries, entry: Entry) -> LiveHandle {
        if entries.draining && !entry.ends {
            entry.connection.close(Closing::GoingAway);
        }
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        entries.open.insert(key, entry);
        LiveHandle { live: self.clone(), key }
    }

    /// Number of entries.
    pub(crate) fn open(&self) -> usize {
        self.entries.lock().open.len()
    }

    /// Closes every connection whose session has ended or that this configuration no longer allows, and those of all
    /// sessions while the shared database is away for too long; called several times a second.
    pub(crate) fn sweep(&self, rules: &LiveRules<'_>) {
        let is_blind = rules.accounts.is_blind();
        for entry in self.entries.lock().open.values_mut() {
            // whatever its route: the app has been told who this is
            if is_blind && entry.who.is_some() {
                entry.connection.close(Closing::Unavailable);
                continue;
            }
            let standing = entry.who.as_ref().map(|who| {
                who.session.has_open_connection(rules.accounts.now());
                rules.accounts.session_state(&who.session)
            });
            match standing {
                Some(SessionState::Expired) => entry.connection.close(Closing::Expired),
                Some(SessionState::Active) | None if entry.is_allowed(rules) => {}
                _ => entry.connection.close(Closing::Revoked),
            }
        }
    }

    /// Starts draining: closes all entries that do not end by themselves, and those that are added later.
    pub(crate) fn drain(&self) {
        let mut entries = self.entries.lock();
        entries.draining = true;
        for entry in entries.open.values().filter(|entry| !entry.ends) {
            entry.connection.close(Closing::GoingAway);
        }
    }
}

impl Entry {
    fn new(
        connection: &Arc<ConnectionHandle>,
        admission: &Admission,
        asked: RequestSnapshot,
        rules: &LiveRules<'_>,
    ) -> Self {
        let who = admission
            .identity()
            .map(|identity| Principal { session: identity.session.clone(), grant: identity.grant.clone() });
        let judged = AdmittedOn::new(rules, admission);
        Self { connection: connection.clone(), who, counted_for: None, ends: false, asked, judged }
    }

    /// Whether the connection is still allowed. If the configuration has changed, the request is decided again.
    fn is_allowed(&mut self, rules: &LiveRules<'_>) -> bool {
        if self.judged.generation > rules.generation {
            // a sweep that began before a reload
            return true;
        }
        if self.judged.generation == rules.generation {
            let Some(who) = &self.who else { return true };
            let user = who.session.user.load();
            return self.judged.routes().all(|route| {
                let route = rules.policy.config.routes.get(route);
                route.is_some_and(|route| authorize::still_allowed(route, &user.groups))
            });
        }
        let Some(admission) = self.asked.judge(rules, self.who.as_ref()) else { return false };
        self.judged = AdmittedOn::new(rules, &admission);
        true
    }
}

impl AdmittedOn {
    fn new(rules: &LiveRules<'_>, admission: &Admission) -> Self {
        let others = admission.routes().skip(1).collect();
        Self { generation: rules.generation, route: admission.route(), others }
    }

    fn routes(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.route).chain(self.others.iter().copied())
    }
}

impl RequestSnapshot {
    pub(crate) fn new(incoming: &Incoming<'_>, ambient_credential: bool) -> Self {
        let mut headers = HeaderMap::new();
        let is_judged = |name: &HeaderName| {
            JUDGED.contains(name) || *name == decide::DESTINATION || second_method::is_field(name.as_str())
        };
        let fields = incoming.headers.iter().filter(|(name, _)| is_judged(name));
        let fields = fields.map(|(name, value)| (name.clone(), value.as_bytes().to_vec()));
        // the query may hold a token, and is not kept
        let in_query = second_method::in_query(incoming.query.unwrap_or_default());
        for (name, value) in fields.chain(in_query.map(|value| (SECOND_METHOD, value))) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(name, value);
            }
        }
        Self {
            method: incoming.method.clone(),
            path: incoming.path.as_str().into(),
            host: incoming.host.clone(),
            scheme: incoming.scheme,
            headers,
            is_websocket: incoming.is_websocket,
            ambient_credential,
        }
    }

    /// Decides about the same request now; `None` if it would not be forwarded.
    fn judge(&self, rules: &LiveRules<'_>, who: Option<&Principal>) -> Option<Approval> {
        let incoming = Incoming {
            method: &self.method,
            path: RequestPath::parse(self.path.as_bytes()).ok()?,
            query: None,
            headers: &self.headers,
            names: Names::of(&self.headers),
            host: &self.host,
            scheme: self.scheme,
            client: None,
            is_websocket: self.is_websocket,
        };
        let authentication = who.map_or(Authentication::Anonymous, |who| {
            let (session, user) = (who.session.clone(), who.session.user.load_full());
            let identity = Identity { session, user, issued: 0, grant: who.grant.clone() };
            Authentication::Known { identity, ambient_credential: self.ambient_credential }
        });
        match decide::decide(&rules.policy, &incoming, false, |_| authentication).verdict {
            Verdict::Forward(admission) => Some(admission),
            _ => None,
        }
    }
}

impl Drop for LiveHandle {
    fn drop(&mut self) {
        let mut entries = self.live.entries.lock();
        let Some(user) = entries.open.remove(&self.key).and_then(|entry| entry.counted_for) else { return };
        if let Some(count) = entries.sockets_of.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                entries.sockets_of.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build_gateway;
    use super::super::gateway::Gateway;
    use super::*;
    use crate::clock::Clock;
    use crate::config;
    use crate::logging::Log;

    /// A configuration that lets everybody do anything but what `denied` says.
    fn parse(denied: &str, dir: &std::path::Path) -> Arc<config::Config> {
        let text = format!(
            "[server]\nstate_dir = \"{}\"\n{denied}[[route]]\naccess = \"public\"\nupstream = \"http://127.0.0.1:9\"\n",
            dir.join("state").display()
        );
        Arc::new(config::parse(&text, "gateway.toml", dir.into(), &|_| None).map_err(|_| ()).unwrap())
    }

    /// An event stream that was asked for with this field, under this configuration; `None`: it is not let in.
    fn stream(gateway: &Gateway, field: &'static str) -> Option<(Arc<ConnectionHandle>, LiveHandle)> {
        let mut headers = HeaderMap::new();
        headers.insert(field, HeaderValue::from_static("DELETE"));
        let host = Host::loopback();
        let incoming = Incoming {
            method: &Method::GET,
            path: RequestPath::parse(b"/x").unwrap(),
            query: None,
            headers: &headers,
            names: Names::of(&headers),
            host: &host,
            scheme: Scheme::Http,
            client: None,
            is_websocket: false,
        };
        let rules = gateway.live_rules();
        let verdict = decide::decide(&rules.policy, &incoming, false, |_| Authentication::Anonymous).verdict;
        let Verdict::Forward(admission) = verdict else { return None };
        let connection = Arc::new(ConnectionHandle::new(None, None));
        let handle =
            gateway.live.stream(&connection, &admission, RequestSnapshot::new(&incoming, false), false, &rules);
        Some((connection, handle))
    }

    /// A reload closes the connections that the new configuration no longer allows.
    #[tokio::test]
    async fn a_reload_closes_what_its_own_rules_refuse_and_nothing_by_the_rules_before() {
        let dir = tempfile::tempdir().unwrap();
        let (all, none) =
            (parse("", dir.path()), parse("[[route]]\nmethods = [\"DELETE\"]\naccess = \"deny\"\n", dir.path()));
        let accounts = Accounts::open(&none, Clock::system()).unwrap();
        let log = Log::start(Clock::system()).unwrap();
        let before = build_gateway::gateway(none, accounts.clone(), Clock::system(), log, None);
        assert!(stream(&before, "x-http-method").is_none());
        let now = build_gateway::reconfigured(&before, all, accounts.clone(), None);
        let (overriding, _handle) = stream(&now, "x-http-method").unwrap();
        let (plain, _other) = stream(&now, "x-own").unwrap();
        // one that had begun, and is late
        before.sweep();
        now.sweep();
        assert_eq!((overriding.close_reason(), plain.close_reason()), (None, None));
        // and then the rules are what they were
        build_gateway::reconfigured(&now, Arc::new(before.config().clone()), accounts, None).sweep();
        assert_eq!((overriding.close_reason(), plain.close_reason()), (Some(Closing::Revoked), None));
    }
}
