//! The servers of an upstream: which one is next, which ones are skipped, how they are reached. Names are resolved
//! apart from requests; a request never waits for a resolver.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::protocols::ALPN;
use pingora_core::{Error, ErrorType, Result};
use tokio::time::timeout;

use super::server_name::{authority, resolvable};
use super::tls::{CONNECT, Connector, Trust};
use crate::config::{Upstream, UpstreamHost, UpstreamProtocol, UpstreamServer, UpstreamTls};
use crate::web::origin::Origin;
use crate::wire::stream::{Stream, Transport};

/// How long the connections of a server are not reused after it sent unsolicited bytes.
const DISTRUST_MILLIS: u64 = 60_000;

/// A name and its port, with what a resolver found, or why it found nothing.
pub(crate) type Resolved = ((String, u16), Result<Vec<SocketAddr>, String>);

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// One address of one server.
#[derive(Debug)]
pub(crate) struct Target {
    /// Unique in the process: names the pool of idle connections.
    id: u64,
    address: Address,
    protocol: UpstreamProtocol,
    /// The name that it is reached by, for its certificate; empty without one.
    name: String,
    /// `Host` for `host = "upstream"`.
    authority: String,
    /// Its name and address, for logs.
    server: String,
    /// How it is verified, if this machine's CA certificates are not enough.
    trust: Option<Arc<Trust>>,
    /// Unreachable or unhealthy: others are tried first.
    down: AtomicBool,
    /// It chose HTTP/1.1 when it was last offered HTTP/2.
    declines_h2: AtomicBool,
    /// A probe is in progress.
    asked: AtomicBool,
    /// Millisecond of the gateway's clock at which the next probe is due.
    ask_at: AtomicU64,
    /// Millisecond until which its connections are not reused; 0: they are.
    distrusted_until: AtomicU64,
}

/// Where a server listens.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// All targets of one upstream, in the order they are tried.
#[derive(Debug)]
pub(crate) struct Targets {
    servers: Vec<UpstreamServer>,
    sends_own_host: bool,
    tls: UpstreamTls,
    trust: Option<Arc<Trust>>,
    whoami: Option<SocketAddr>,
    live: ArcSwap<Vec<Arc<Target>>>,
    /// What a resolver last found for each name.
    found: Mutex<HashMap<(String, u16), Vec<SocketAddr>>>,
    /// Why the last lookup of a name failed.
    unfound: Mutex<HashMap<(String, u16), String>>,
    turn: AtomicUsize,
}

impl Targets {
    pub(crate) fn new(upstream: &Upstream, whoami: Option<SocketAddr>) -> Self {
        let targets = Self {
            servers: upstream.servers.clone(),
            sends_own_host: upstream.host == UpstreamHost::Upstream,
            trust: Trust::new(&upstream.tls).map(Arc::new),
            tls: upstream.tls.clone(),
            whoami,
            live: ArcSwap::from_pointee(Vec::new()),
            found: Mutex::default(),
            unfound: Mutex::default(),
            turn: AtomicUsize::new(0),
        };
        targets.store(&[]);
        targets
    }

    /// Whether these are what an upstream of another configuration would have, connections included.
    pub(crate) fn serve(&self, upstream: &Upstream, whoami: Option<SocketAddr>) -> bool {
        let sends_own_host = upstream.host == UpstreamHost::Upstream;
        self.servers == upstream.servers
            && self.tls == upstream.tls
            && (self.sends_own_host, self.whoami) == (sends_own_host, whoami)
    }

    /// Whether no address is known: names were not looked up yet, or not found.
    pub(crate) fn is_unknown(&self) -> bool {
        self.live.load().is_empty()
    }

    /// Why there are no targets: the names, and the resolver's errors.
    pub(crate) fn why_unknown(&self) -> Option<String> {
        if !self.is_unknown() {
            return None;
        }
        let unfound = self.unfound.lock();
        let told = self.names().into_iter().map(|name| {
            let error = unfound.get(&name).map_or("not resolved yet", String::as_str);
            format!("{}: DNS lookup failed: {error}", name.0)
        });
        Some(told.collect::<Vec<_>>().join(", "))
    }

    /// Host names that need a resolver, with their ports.
    pub(crate) fn names(&self) -> Vec<(String, u16)> {
        self.servers.iter().filter_map(resolvable).collect()
    }

    /// Stores what a resolver found. Names that it did not find keep their addresses.
    pub(crate) fn store(&self, news: &[Resolved]) {
        let before = self.live.load();
        let (mut found, mut unfound) = (self.found.lock(), self.unfound.lock());
        for name in self.names() {
            match news.iter().find(|(own, _)| *own == name) {
                Some((_, Ok(addresses))) => drop(found.insert(name, addresses.clone())),
                Some((_, Err(error))) => drop(unfound.insert(name, error.clone())),
                None => {}
            }
        }
        let mut targets = Vec::new();
        for server in &self.servers {
            for peer in self.peers(server, &found) {
                let kept = before.iter().find(|old| old.is_same(&peer));
                targets.push(kept.cloned().unwrap_or_else(|| Arc::new(peer)));
            }
        }
        self.live.store(Arc::new(targets));
    }

    fn peers(&self, server: &UpstreamServer, found: &HashMap<(String, u16), Vec<SocketAddr>>) -> Vec<Target> {
        let plain = UpstreamProtocol::Http1;
        match server {
            UpstreamServer::Whoami => {
                self.whoami.iter().map(|&address| self.target(Address::Inet(address), plain, "", server)).collect()
            }
            UpstreamServer::Unix(path) => vec![self.target(Address::Unix(path.clone()), plain, "", server)],
            UpstreamServer::Tcp { host, port, protocol } => {
                let addresses = match host.parse() {
                    Ok(ip) => vec![SocketAddr::new(ip, *port)],
                    Err(_) => found.get(&(host.clone(), *port)).cloned().unwrap_or_default(),
                };
                let target = |address| self.target(Address::Inet(address), *protocol, host, server);
                addresses.into_iter().map(target).collect()
            }
        }
    }

    fn target(&self, address: Address, protocol: UpstreamProtocol, name: &str, server: &UpstreamServer) -> Target {
        let authority = authority(server);
        let server = match &address {
            // two names may have one address
            Address::Inet(address) if !name.is_empty() && name.parse::<IpAddr>().is_err() => {
                format!("{authority} ({address})")
            }
            Address::Inet(address) => address.to_string(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        };
        Target {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address,
            protocol,
            name: name.to_owned(),
            authority,
            server,
            trust: self.trust.clone(),
            down: AtomicBool::new(false),
            declines_h2: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            ask_at: AtomicU64::new(0),
            distrusted_until: AtomicU64::new(0),
        }
    }

    /// The next target in round-robin order that is not down and was not `tried` yet. If all are down, the next one
    /// anyway: it may have just recovered.
    pub(crate) fn next(&self, tried: &[Arc<Target>]) -> Option<Arc<Target>> {
        let live = self.live.load();
        if live.len() == 1 {
            return live.first().filter(|_| tried.is_empty()).cloned();
        }
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..live.len()).map(|step| &live[(start.wrapping_add(step)) % live.len()]);
        let fresh = |target: &&Arc<Target>| !tried.iter().any(|used| Arc::ptr_eq(used, target));
        in_turn().filter(fresh).find(|target| !target.is_down()).or_else(|| in_turn().find(fresh)).cloned()
    }

    pub(crate) fn all(&self) -> arc_swap::Guard<Arc<Vec<Arc<Target>>>> {
        self.live.load()
    }

    /// Whether any of the servers speaks only HTTP/2.
    pub(crate) fn has_h2c(&self) -> bool {
        let h2c =
            |server: &UpstreamServer| matches!(server, UpstreamServer::Tcp { protocol: UpstreamProtocol::H2c, .. });
        self.servers.iter().any(h2c)
    }

    /// Whether a server may be among them that speaks HTTP/2.
    pub(crate) fn may_speak_h2(&self) -> bool {
        self.all().iter().any(|target| target.is_h2c() || target.may_speak_h2())
    }

    /// `Host` to send instead of the client's.
    pub(crate) fn host_override<'t>(&self, target: &'t Target) -> Option<&'t str> {
        self.sends_own_host.then_some(target.authority.as_str())
    }
}

impl Target {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn is_tls(&self) -> bool {
        self.protocol == UpstreamProtocol::Https
    }

    /// Whether both are one server, asked in one protocol: two names may have one address.
    fn is_same(&self, other: &Self) -> bool {
        self.address == other.address && self.authority == other.authority && self.protocol == other.protocol
    }

    /// A new connection, within the connect timeout.
    pub(crate) async fn connect(&self, connector: &Connector) -> Result<Stream> {
        if self.is_tls() {
            return Box::pin(self.connect_tls(connector, false)).await;
        }
        let connected = match &self.address {
            Address::Inet(address) => timeout(CONNECT, Stream::connect(*address)).await,
            Address::Unix(path) => timeout(CONNECT, Stream::connect_unix(path)).await,
        };
        match connected {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) => {
                let refused = e.kind() == std::io::ErrorKind::ConnectionRefused;
                let kind = if refused { ErrorType::ConnectRefused } else { ErrorType::ConnectError };
                Err(Error::because(kind, "connecting", e).into_up())
            }
            Err(_) => Err(Error::explain(ErrorType::ConnectTimedout, "connecting").into_up()),
        }
    }

    /// The same for a caller that also speaks HTTP/2, which TLS then offers.
    pub(crate) async fn connect_any(&self, connector: &Connector) -> Result<Stream> {
        if !self.is_tls() {
            return self.connect(connector).await;
        }
        let stream = Box::pin(self.connect_tls(connector, true)).await?;
        self.declines_h2.store(self.agreed_on_h2(&stream).is_none(), Ordering::Relaxed);
        Ok(stream)
    }

    async fn connect_tls(&self, connector: &Connector, offers_h2: bool) -> Result<Stream> {
        let Address::Inet(address) = self.address else {
            return Err(Error::explain(ErrorType::ConnectError, "TLS over a Unix socket").into_up());
        };
        let Some(trust) = &self.trust else { return connector.open(address, &self.name, offers_h2).await };
        timeout(CONNECT, trust.open(address, &self.name, offers_h2))
            .await
            .unwrap_or_else(|_| Err(Error::explain(ErrorType::TLSHandshakeTimedout, "connecting").into_up()))
    }

    /// Whether an HTTP/2 client gets a new connection rather than an idle one in HTTP/1.1: trailers do not pass there,
    /// and a gRPC call is incomplete without them.
    pub(crate) fn may_speak_h2(&self) -> bool {
        self.is_tls() && !self.declines_h2.load(Ordering::Relaxed)
    }

    /// The scheme of HTTP/2 requests, if this new connection is to use HTTP/2.
    pub(crate) fn agreed_on_h2(&self, stream: &Stream) -> Option<&'static str> {
        match stream.transport() {
            Transport::TlsClient(stream) => (stream.selected_alpn_proto() == Some(ALPN::H2)).then_some("https"),
            Transport::Verified(stream) => (stream.get_ref().1.alpn_protocol() == Some(b"h2")).then_some("https"),
            _ => self.is_h2c().then_some("http"),
        }
    }

    /// Whether it speaks only HTTP/2.
    pub(crate) fn is_h2c(&self) -> bool {
        self.protocol == UpstreamProtocol::H2c
    }

    /// Marks it unreachable: others are tried first until it recovers. Returns whether that is new.
    pub(crate) fn mark_down(&self) -> bool {
        !self.down.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Records unsolicited bytes from it: the next ones could be mistaken for the response to another request. Returns
    /// whether that is new.
    pub(crate) fn distrust(&self, now_millis: u64) -> bool {
        let until = self.distrusted_until.swap(now_millis + DISTRUST_MILLIS, Ordering::Relaxed);
        until <= now_millis
    }

    /// Whether its connections are reused.
    pub(crate) fn is_trusted(&self, now_millis: impl FnOnce() -> u64) -> bool {
        let until = self.distrusted_until.load(Ordering::Relaxed);
        until == 0 || until <= now_millis()
    }

    /// Whether a probe is due and none is in progress. The next one is due `every` later.
    pub(crate) fn begin_check(&self, now_millis: u64, every: Duration) -> bool {
        if now_millis < self.ask_at.load(Ordering::Relaxed) || self.asked.swap(true, Ordering::Relaxed) {
            return false;
        }
        let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        self.ask_at.store(now_millis.saturating_add(every), Ordering::Relaxed);
        true
    }

    /// Ends a probe without a result.
    pub(crate) fn break_off_check(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Ends a probe with a result. Returns whether that is new.
    pub(crate) fn end_check(&self, well: bool) -> bool {
        self.asked.store(false, Ordering::Relaxed);
        self.down.swap(!well, Ordering::Relaxed) == well
    }

    /// The origin that it considers its own if it receives its own name as `Host`.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let scheme = if self.is_tls() { "https" } else { "http" };
        Origin::parse(&format!("{scheme}://{}", self.authority))
    }

    /// Its own name, for `Host`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Its name and address, for logs.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_found_now_keeps_its_addresses_and_a_new_answer_replaces_them() {
        let text = "[[route]]\nupstream = \"http://app.example.com\"\n";
        let config = crate::config::parse(text, "gateway.toml", std::path::PathBuf::new(), &|_| None).unwrap();
        let targets = Targets::new(&config.upstreams[0], None);
        let name = ("app.example.com".to_owned(), 80);
        let servers = || targets.all().iter().map(|target| target.server().to_owned()).collect::<Vec<_>>();
        assert!(servers().is_empty());
        assert!(targets.next(&[]).is_none());
        targets.store(&[(name.clone(), Err("no such name".to_owned()))]);
        let why = "app.example.com: DNS lookup failed: no such name";
        assert_eq!(targets.why_unknown().as_deref(), Some(why));
        targets.store(&[(name.clone(), Ok(vec!["192.0.2.1:80".parse().unwrap()]))]);
        assert_eq!(targets.why_unknown(), None);
        let first = targets.next(&[]).unwrap();
        targets.store(&[(name.clone(), Err("no such name".to_owned()))]);
        assert!(Arc::ptr_eq(&first, &targets.next(&[]).unwrap()), "its connections and standing are kept");
        targets.store(&[(name, Ok(vec!["192.0.2.2:80".parse().unwrap()]))]);
        assert_eq!(servers(), ["app.example.com (192.0.2.2:80)"]);
    }

    #[test]
    fn two_names_at_one_address_stay_two_servers() {
        let text = "[[upstream]]\nname = \"a\"\nservers = [\"https://a.example.com\", \"https://b.example.com\"]\n[[route]]\nupstream = \"a\"\n";
        let config = crate::config::parse(text, "gateway.toml", std::path::PathBuf::new(), &|_| None).unwrap();
        let targets = Targets::new(&config.upstreams[0], None);
        let address = "192.0.2.1:443".parse().unwrap();
        let found = ["a.example.com", "b.example.com"].map(|name| ((name.to_owned(), 443), Ok(vec![address])));
        let names = || targets.all().iter().map(|target| target.server().to_owned()).collect::<Vec<_>>();
        for _ in 0..2 {
            targets.store(&found);
            assert_eq!(names(), ["a.example.com (192.0.2.1:443)", "b.example.com (192.0.2.1:443)"]);
        }
    }

    #[test]
    fn one_name_and_port_in_two_protocols_stays_two_servers() {
        let text = "[[upstream]]\nname = \"a\"\nservers = [\"http://192.0.2.1:8443\", \"https://192.0.2.1:8443\"]\n[[route]]\nupstream = \"a\"\n";
        let config = crate::config::parse(text, "gateway.toml", std::path::PathBuf::new(), &|_| None).unwrap();
        let targets = Targets::new(&config.upstreams[0], None);
        targets.store(&[]);
        assert_eq!(targets.all().iter().map(|target| target.is_tls()).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_server_that_sends_unsolicited_bytes_is_not_trusted_for_a_minute() {
        let text = "[[route]]\nupstream = \"http://192.0.2.1:1\"\n";
        let config = crate::config::parse(text, "gateway.toml", std::path::PathBuf::new(), &|_| None).unwrap();
        let server = Targets::new(&config.upstreams[0], None).next(&[]).unwrap();
        assert!(server.is_trusted(|| unreachable!("the clock is not asked")));
        assert!(server.distrust(1000));
        assert!(!server.distrust(2000));
        assert!(!server.is_trusted(|| 61_999));
        assert!(server.is_trusted(|| 62_000));
        assert!(server.distrust(62_000), "news again");
    }

    #[test]
    fn others_go_before_a_server_that_is_down_and_the_last_one_is_tried_all_the_same() {
        let text =
            "[[upstream]]\nname = \"a\"\nservers = [\"192.0.2.1:1\", \"192.0.2.2:1\"]\n[[route]]\nupstream = \"a\"\n";
        let config = crate::config::parse(text, "gateway.toml", std::path::PathBuf::new(), &|_| None).unwrap();
        let targets = Targets::new(&config.upstreams[0], None);
        let first = targets.next(&[]).unwrap();
        assert!(first.mark_down());
        assert!(!first.mark_down());
        for _ in 0..4 {
            assert!(!Arc::ptr_eq(&first, &targets.next(&[]).unwrap()));
        }
        let other = targets.next(&[]).unwrap();
        assert!(Arc::ptr_eq(&first, &targets.next(std::slice::from_ref(&other)).unwrap()));
        assert!(first.begin_check(10, Duration::from_secs(1)));
        assert!(!first.begin_check(2000, Duration::from_secs(1)));
        assert!(first.end_check(true));
        assert!(!first.is_down());
        assert!(!first.begin_check(1009, Duration::from_secs(1)));
        assert!(first.begin_check(1010, Duration::from_secs(1)));
        assert!(!first.end_check(true), "no news");
    }
}
