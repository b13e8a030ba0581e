//! The decision about a simulated request, for `check` and `explain`. It uses the same functions as a live one, without
//! a socket, a session or a backend.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_http::RequestHeader;

use super::report::{Explanation, Forwarded, ReadingReport, RouteTried, SimulatedRequest};
use crate::account::{Identity, IssuedToken, Session, User};
use crate::config::{AppCookieRule, Config, Listen, Paths, Test, UpstreamHost};
use crate::pages::Site;
use crate::policy::authenticate::{Authentication, TOKEN_FIELD, api_token, own_credential};
use crate::policy::authorize::{Admission, Refusal};
use crate::policy::decide::{self, Decided, Rules, Verdict};
use crate::policy::header_filter::HeaderFilter;
use crate::policy::normalize::{self, NormalRequest, Peer};
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::provider_token;
use crate::policy::reasons::{Outcome, Reason};
use crate::policy::refuse::{self, Handling};
use crate::policy::request_headers::{self, ForwardContext};
use crate::policy::route::{Reading, Routed};
use crate::policy::websocket_credentials::Handshake;
use crate::upstream::server_name;
use crate::web::cookie;
use crate::web::host::Host;
use crate::web::incoming::{Incoming, wants_page};
use crate::web::origin::{Origin, Scheme};
use crate::web::readings::shown;
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;
use crate::wire::request_head::Head;
use crate::wire::request_target;
use crate::wire::tls_info::TlsInfo;

/// Placeholder for a request's own id.
const REQUEST_ID: &str = "REQUEST-ID";
/// Placeholder for the name of a running gateway.
const GATEWAY_ID: &str = "GATEWAY-ID";

/// Simulates requests under one configuration.
pub struct Simulator<'c> {
    config: &'c Config,
    site: Site,
    header_filter: HeaderFilter,
}

impl<'c> Simulator<'c> {
    /// Prepares what a gateway prepares at startup.
    pub fn new(config: &'c Config) -> Self {
        Self { config, site: Site::new(config), header_filter: HeaderFilter::new(config) }
    }

    /// The result of a test, in the words of `expect`: `forward NAME`, `login`, `page`, or a status.
    ///
    /// # Errors
    /// One sentence: the request is invalid.
    pub fn prove(&self, test: &Test) -> Result<String, String> {
        let (method, target, headers) = (test.method.clone(), test.target.clone(), test.headers.clone());
        let user = test.user.as_ref().map(|user| {
            let email = user.email.clone().unwrap_or_else(|| "user@example.com".to_owned());
            User::new("0".to_owned(), email, String::new(), String::new(), user.groups.clone(), false)
        });
        Ok(self.explain(&SimulatedRequest { method, target, headers, user })?.verdict)
    }

    /// How a request would be handled, and why.
    ///
    /// # Errors
    /// One sentence: the request is invalid.
    pub fn explain(&self, asked: &SimulatedRequest) -> Result<Explanation, String> {
        let (host, scheme, target) = split_target(self.config, &asked.target)?;
        let server = &self.config.server;
        let over_tls = scheme == Scheme::Https && server.listen.iter().any(|listen| matches!(listen, Listen::Tls(_)));
        let hsts = over_tls && server.public_url.scheme() == Scheme::Https;
        let mut explanation = Explanation::of(asked, scheme, &host, &target, hsts);
        let holds = request_target::head_with(asked.method.clone(), target.as_bytes()).is_ok();
        let mut head = head_of(asked, &host, if holds { &target } else { "/" })?;
        let address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let peer = Peer { address, trusted: false, secure: scheme == Scheme::Https };
        let tls = over_tls.then(|| self.handshake_to(&host)).flatten();
        let read = normalize::read(&mut head, 0, peer, tls.as_ref(), self.config);
        match if holds { read } else { Err(BadHead::Ambiguous("target")) } {
            Ok(facts) => {
                let head = Box::new(Head { parsed: head, bytes: Bytes::new() });
                self.judge(&NormalRequest::new(head, facts), asked, &mut explanation);
            }
            Err(bad) => {
                let site = wants_page(&head.headers).then_some(&self.site);
                let reply = oversized_head::bad_head(bad, REQUEST_ID, site, &Oversize::default());
                explanation.refuse_unread(bad, &reply);
            }
        }
        Ok(explanation)
    }

    /// The TLS handshake of a client that connects to this host, if the host is a name.
    fn handshake_to(&self, host: &str) -> Option<TlsInfo> {
        let is_name = |host: &Host| !host.name().starts_with('[') && host.name().parse::<IpAddr>().is_err();
        let host = Host::parse(host).filter(is_name)?;
        let certificate = Arc::clone(self.config.server.tls.shown_to(host.name())?);
        Some(TlsInfo { name: Some(host.name().to_owned()), certificate })
    }

    fn judge(&self, request: &NormalRequest, asked: &SimulatedRequest, explanation: &mut Explanation) {
        let rules = Rules { config: self.config, site: &self.site, via: GATEWAY_ID };
        let incoming = &request.incoming();
        explanation.note(incoming, self.carries_credential(incoming));
        let decided = decide::decide(&rules, incoming, true, |_| match &asked.user {
            None => Authentication::Anonymous,
            Some(user) => Authentication::Known { identity: synthetic_identity(user), ambient_credential: true },
        });
        if !matches!(decided.verdict, Verdict::Loop) {
            self.note_routes(&decided, incoming, explanation);
        }
        let Decided { routed, cors, handshake, authentication, verdict, .. } = decided;
        let why_ambiguous = match verdict {
            Verdict::Ambiguous(what) => why_ambiguous(what, &routed, self.config),
            _ => "",
        };
        match refuse::handle(&rules, verdict, &authentication, incoming, REQUEST_ID) {
            Handling::Page(page) => explanation.page(page),
            Handling::Forward(admission) => self.forward(&admission, request, handshake.as_ref(), explanation),
            Handling::Reply(refused) => {
                let code = refused.reply.status.as_str().to_owned();
                let why = match refused.outcome {
                    Outcome::Preflight => "preflight from an allowed origin, answered by the gateway",
                    Outcome::ToHttps => "server.public_url is https, and the request came over plain http",
                    Outcome::Loop => "the request came through too many gateways",
                    Outcome::NoRoute if routed.page.is_some() => {
                        "no route matches this host, so the gateway's own pages are not served on it"
                    }
                    Outcome::NoRoute => "no route matches",
                    _ => match refused.reason {
                        Some(Reason::BodyMax) => "the body is larger than the route's body_max",
                        Some(Reason::StripPrefix) => "the path spells the route's strip_prefix with percent-escapes",
                        _ => why_ambiguous,
                    },
                };
                match refused.refusal.zip(refused.route) {
                    Some((refusal, route)) => {
                        self.explain_refusal((refusal, route), &refused.reply, asked, explanation);
                    }
                    None => explanation.answer(&code, why),
                }
                explanation.reply(&cors.dress(refused.reply), REQUEST_ID);
            }
        }
    }

    fn note_routes(&self, decided: &Decided<'_, '_>, incoming: &Incoming<'_>, explanation: &mut Explanation) {
        let routed = &decided.routed;
        let found = routed.first.found.map(|(index, _)| index);
        if routed.page.is_none() {
            explanation.routes = self.tried(found, &routed.first.path, incoming);
        }
        explanation.route = found.map(|index| index + 1);
        if !incoming.path.is_plain() {
            explanation.readings = self.readings(routed, incoming, &decided.authentication);
        }
    }

    fn explain_refusal(
        &self,
        (refusal, route): (Refusal, usize),
        reply: &Reply,
        asked: &SimulatedRequest,
        explanation: &mut Explanation,
    ) {
        explanation.route = Some(route + 1);
        let verdict = match refusal {
            Refusal::SignedOut if reply.status == StatusCode::SEE_OTHER => "login",
            Refusal::SignedOut => "401",
            Refusal::Forbidden | Refusal::OutOfScope | Refusal::CrossOrigin => "403",
            Refusal::Unavailable => "503",
        };
        explanation.refused(verdict, refusal, &self.config.routes[route], asked.user.as_ref());
    }

    /// Reports the request that the upstream receives.
    fn forward(
        &self,
        admission: &Admission,
        request: &NormalRequest,
        handshake: Option<&Handshake>,
        explanation: &mut Explanation,
    ) {
        let (config, incoming, target) = (self.config, &request.incoming(), request.target());
        let to = &config.upstreams[admission.upstream()];
        let user = admission.identity().map(|identity| &identity.user);
        let token = to.token.as_ref().zip(user).map(|(spec, user)| IssuedToken::placeholder(spec, &to.name, user));
        let own_host = to.servers.first().map(server_name::authority);
        let own_host = own_host.as_deref().filter(|_| to.host == UpstreamHost::Upstream);
        let client = incoming.client.map(|client| client.to_string());
        let provider_token = provider_token::wanted(config, admission);
        if provider_token.is_some() {
            explanation.notes.push("a provider's token is sent only for sessions that began through that provider");
        }
        let context = ForwardContext {
            token: token.as_ref(),
            provider_token: provider_token.map(|(token, _)| (token.header.as_str(), "***")),
            handshake,
            peer: client.as_deref(),
            request_id: REQUEST_ID,
            via: GATEWAY_ID,
            ..ForwardContext::new(config, admission, request.facts(), own_host)
        };
        let changes = request_headers::changes(incoming.headers, target, &self.header_filter, &context);
        let per_account = config.session.app_cookies == AppCookieRule::PerAccount;
        explanation.forward(Forwarded::new(to, incoming, target, &changes), per_account);
    }

    /// The routes up to the one that matches, with what each of them misses.
    fn tried(&self, found: Option<usize>, path: &[u8], incoming: &Incoming<'_>) -> Vec<RouteTried> {
        let last = found.map_or(self.config.routes.len(), |index| index + 1);
        let routes = self.config.routes[..last].iter().enumerate();
        routes
            .map(|(index, route)| {
                let miss = route.miss(incoming.host, path, incoming.method);
                RouteTried::new(index, route, miss.filter(|_| found != Some(index)))
            })
            .collect()
    }

    /// How the request would be handled under each reading of its path.
    fn readings(
        &self,
        routed: &Routed<'_, '_>,
        incoming: &Incoming<'_>,
        authentication: &Authentication,
    ) -> Vec<ReadingReport> {
        let explanation = |reading: &Reading<'_, '_>| {
            let verdict = if self.site.is_own(&reading.path) {
                "page".to_owned()
            } else {
                match decide::under(self.config, reading, incoming, authentication) {
                    Ok(admission) => {
                        format!("forward {}", self.config.upstreams[admission.upstream()].name)
                    }
                    Err(Verdict::Preflight) => "204".to_owned(),
                    Err(Verdict::Refuse(_, Refusal::SignedOut)) => "401".to_owned(),
                    Err(Verdict::Refuse(..)) => "403".to_owned(),
                    Err(_) => "404".to_owned(),
                }
            };
            ReadingReport { path: shown(&reading.path), route: reading.found.map(|(index, _)| index + 1), verdict }
        };
        routed.readings().map(explanation).collect()
    }

    fn carries_credential(&self, incoming: &Incoming<'_>) -> bool {
        cookie::pairs(incoming.headers).any(|(name, _)| self.header_filter.is_ours(name))
            || incoming.headers.contains_key(&TOKEN_FIELD)
            || incoming.headers.get_all(header::PROXY_AUTHORIZATION).iter().any(|value| api_token(value).is_some())
            || incoming.headers.get_all(header::AUTHORIZATION).iter().any(|value| own_credential(value).is_some())
    }
}

fn why_ambiguous(what: &str, routed: &Routed<'_, '_>, config: &Config) -> &'static str {
    if what == "destination" {
        return "the Destination header is ambiguous, which `paths` does not allow here, or malformed";
    }
    if routed.readings().any(|reading| reading.paths(config) == Paths::Plain) {
        return "the path is ambiguous, and the route has `paths = \"plain\"`";
    }
    if routed.ambiguous {
        return "the path can be read as one of the gateway's own pages, or has too many readings";
    }
    "readings of the path lead to different upstreams or prefixes"
}

fn split_target(config: &Config, target: &str) -> Result<(String, Scheme, String), String> {
    let public = &config.server.public_url;
    if !target.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '#') {
        return Err(format!("invalid URL `{target}`: percent-encode non-printable characters, and leave `#...` out"));
    }
    if target.starts_with('/') {
        return Ok((public.authority(), public.scheme(), target.to_owned()));
    }
    let bad = || format!("`{target}` is neither a path nor an http(s) URL");
    let (scheme, rest) = target.split_once("://").ok_or_else(bad)?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let origin = Origin::parse(&format!("{scheme}://{}", &rest[..at])).ok_or_else(bad)?;
    let slash = if rest[at..].starts_with('/') { "" } else { "/" };
    Ok((origin.authority(), origin.scheme(), format!("{slash}{}", &rest[at..])))
}

/// A GET is a navigation unless the headers say otherwise.
fn head_of(asked: &SimulatedRequest, host: &str, target: &str) -> Result<RequestHeader, String> {
    let bad = |error: &dyn std::fmt::Display| format!("`{target}`: {error}");
    let mut head =
        request_target::head_with(asked.method.clone(), target.as_bytes()).map_err(|_| bad(&"invalid target"))?;
    let sends = |name: &str| asked.headers.iter().any(|(own, _)| own == name);
    let mut fields = Vec::new();
    if !sends("host") {
        fields.push((header::HOST, HeaderValue::from_str(host).map_err(|error| bad(&error))?));
    }
    if asked.method == Method::GET && !["accept", "sec-fetch-mode", "upgrade", "content-type"].into_iter().any(sends) {
        fields.push((HeaderName::from_static("sec-fetch-mode"), HeaderValue::from_static("navigate")));
        fields.push((header::ACCEPT, HeaderValue::from_static("text/html")));
    }
    for (name, value) in fields.into_iter().chain(asked.headers.iter().cloned()) {
        head.append_header(name, value).map_err(|_| bad(&"too many header fields"))?;
    }
    Ok(head)
}

/// The identity of a signed-in user for one simulation.
fn synthetic_identity(user: &User) -> Identity {
    let user = Arc::new(user.clone());
    let session = Session::new(String::new(), Arc::new(ArcSwap::new(user.clone())), 0, u64::MAX, 0);
    Identity { session: Arc::new(session), user, issued: 0, grant: None }
}
