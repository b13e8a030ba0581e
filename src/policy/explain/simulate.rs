//! The decision about a request that nobody sent, for `check` and `explain`: asked of the same functions as
//! every real one, without a socket, a session or a backend.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, header};

use super::report::{Explanation, Forwarded, ReadingReport, RouteTried, SimulatedRequest};
use crate::account::{Identity, IssuedToken, Session, User};
use crate::config::{AppCookieRule, Config, Listen, Paths, Test, UpstreamHost};
use crate::pages::Site;
use crate::policy::authenticate::{Authentication, TOKEN_FIELD, api_token, own_credential};
use crate::policy::authorize::{Admission, Refusal};
use crate::policy::decide::{self, Verdict};
use crate::policy::header_filter::HeaderFilter;
use crate::policy::normalize::{self, Known, Peer};
use crate::policy::oversized_head::{self, Oversize};
use crate::policy::request_headers::{self, ForwardContext};
use crate::policy::route::{Reading, Routed};
use crate::policy::{cors, loop_detection, refuse, websocket_credentials};
use crate::upstream::server_name;
use crate::web::cookie;
use crate::web::host::Host;
use crate::web::incoming::{Incoming, wants_page};
use crate::web::origin::{Origin, Scheme};
use crate::web::readings::shown;
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;
use crate::wire::request_target;
use crate::wire::tls_info::TlsInfo;

/// What stands where a request's own id would.
const REQUEST_ID: &str = "REQUEST-ID";
/// What stands where a running gateway names itself.
const GATEWAY_ID: &str = "GATEWAY-ID";

/// Answers for one configuration.
pub struct Simulator<'c> {
    config: &'c Config,
    site: Site,
    header_filter: HeaderFilter,
}

/// A request as far as it has been read.
struct ParsedRequest<'a> {
    incoming: Incoming<'a>,
    known: &'a Known,
    target: &'a str,
}

impl<'c> Simulator<'c> {
    /// Makes ready what a gateway makes ready at its start.
    pub fn new(config: &'c Config) -> Self {
        Self { config, site: Site::new(config), header_filter: HeaderFilter::new(config) }
    }

    /// What came out of a test, in the words of `expect`: `forward NAME`, `login`, `page`, or a status.
    ///
    /// # Errors
    /// One sentence: this is no request.
    pub fn prove(&self, test: &Test) -> Result<String, String> {
        let (method, target, headers) = (test.method.clone(), test.target.clone(), test.headers.clone());
        let user = test.user.as_ref().map(|user| {
            let email = user.email.clone().unwrap_or_else(|| "user@example.com".to_owned());
            User::new("0".to_owned(), email, String::new(), String::new(), user.groups.clone(), false)
        });
        Ok(self.explain(&SimulatedRequest { method, target, headers, user })?.verdict)
    }

    /// What becomes of a request, and why.
    ///
    /// # Errors
    /// One sentence: this is no request.
    pub fn explain(&self, asked: &SimulatedRequest) -> Result<Explanation, String> {
        let (host, scheme, target) = split_target(self.config, &asked.target)?;
        let parts = head_of(asked, &host, &target)?;
        let server = &self.config.server;
        let over_tls = scheme == Scheme::Https && server.listen.iter().any(|listen| matches!(listen, Listen::Tls(_)));
        let hsts = over_tls && server.public_url.scheme() == Scheme::Https;
        let site = wants_page(&parts.headers).then_some(&self.site);
        let mut explanation = Explanation::of(asked, scheme, &host, &target, hsts);
        let known = match self.read(&parts, &target, scheme, over_tls.then_some(&*host)) {
            Ok(known) => known,
            Err(bad) => {
                explanation.refuse_unread(
                    bad,
                    &oversized_head::bad_head(bad, REQUEST_ID, &mut None, site, &Oversize::default()),
                );
                return Ok(explanation);
            }
        };
        let incoming = match normalize::incoming(&parts, target.as_bytes(), &known) {
            Ok(incoming) => incoming,
            Err(bad) => {
                explanation.refuse_unread(
                    bad,
                    &oversized_head::bad_head(bad, REQUEST_ID, &mut None, site, &Oversize::default()),
                );
                return Ok(explanation);
            }
        };
        explanation.note(&incoming, self.carries_credential(&incoming));
        let seen = ParsedRequest { incoming, known: &known, target: &target };
        self.judge(&seen, asked, &mut explanation);
        Ok(explanation)
    }

    /// `over_tls`: the address that the connection is made to.
    fn read(&self, parts: &Parts, target: &str, scheme: Scheme, over_tls: Option<&str>) -> Result<Known, BadHead> {
        let address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let peer = Peer { address, trusted: false, secure: scheme == Scheme::Https };
        let names = normalize::check(parts, target.len(), 0, &self.config.limits)?;
        request_target::head_with(parts.method.clone(), target.as_bytes()).map_err(|_| BadHead::Ambiguous("target"))?;
        let known = normalize::read(parts, names, peer, &self.config.server)?;
        // whoever connects to a number asks for no name
        let is_name = |host: &Host| !host.name().starts_with('[') && host.name().parse::<IpAddr>().is_err();
        let to = over_tls.and_then(Host::parse).filter(is_name);
        if let Some(certificate) = to.as_ref().and_then(|to| self.config.server.tls.shown_to(to.name())) {
            let secured = TlsInfo { name: to.map(|to| to.name().to_owned()), certificate: Arc::clone(certificate) };
            if !secured.covers(known.host.name()) {
                return Err(BadHead::Misdirected);
            }
        }
        Ok(known)
    }

    fn judge(&self, seen: &ParsedRequest<'_>, asked: &SimulatedRequest, explanation: &mut Explanation) {
        let (config, incoming) = (self.config, &seen.incoming);
        if loop_detection::is_loop(incoming, GATEWAY_ID) {
            explanation.answer("508", "the request came through too many gateways");
            let reply = refuse::status(&self.site, StatusCode::LOOP_DETECTED, incoming, REQUEST_ID);
            return explanation.reply(&reply, REQUEST_ID);
        }
        let authentication = match &asked.user {
            None => Authentication::Anonymous,
            Some(user) => Authentication::Known { identity: synthetic_identity(user), ambient_credential: true },
        };
        let routed = Routed::new(config, &self.site, incoming);
        let found = routed.first.found;
        if routed.page.is_none() {
            explanation.routes = self.tried(found.map(|(index, _)| index), &routed.first.path, incoming);
        }
        explanation.route = found.map(|(index, _)| index + 1);
        if !incoming.path.is_plain() {
            explanation.readings = self.readings(&routed, incoming, &authentication);
        }
        let cors = routed.cors(config, incoming);
        let verdict = decide::decide(config, &routed, incoming, &authentication);
        let reply = match verdict {
            Verdict::Page(page) => return explanation.page(page),
            Verdict::Preflight => {
                explanation.answer("204", "preflight from an allowed origin, answered by the gateway");
                cors::preflight_reply(incoming)
            }
            Verdict::ToHttps => {
                explanation.answer("308", "server.public_url is https, and the request came over plain http");
                refuse::to_https(config, incoming)
            }
            Verdict::Status(code) => {
                let page = "no route matches this host, so the gateway's own pages are not served on it";
                explanation.answer(code.as_str(), if routed.page.is_some() { page } else { "no route matches" });
                refuse::status(&self.site, code, incoming, REQUEST_ID)
            }
            Verdict::Ambiguous(what) => {
                explanation.answer("400", why_ambiguous(what, &routed, config));
                refuse::bad_request(&self.site, what, incoming, REQUEST_ID)
            }
            Verdict::Refuse(index, refusal) => {
                explanation.route = Some(index + 1);
                let route = &config.routes[index];
                let reply = refuse::refusal(&self.site, refusal, route, incoming, REQUEST_ID);
                let word = match refusal {
                    Refusal::SignedOut if reply.status == StatusCode::SEE_OTHER => "login",
                    Refusal::SignedOut => "401",
                    Refusal::Forbidden | Refusal::OutOfScope | Refusal::CrossOrigin => "403",
                };
                explanation.refused(word, refusal, route, asked.user.as_ref());
                reply
            }
            Verdict::Forward(admission) => match self.forward(&admission, seen, explanation) {
                Some(reply) => reply,
                None => return,
            },
        };
        explanation.reply(&cors.dress(reply), REQUEST_ID);
    }

    /// What the upstream gets; or the reply, where the request does not fit what may be forwarded.
    fn forward(&self, admission: &Admission, seen: &ParsedRequest<'_>, explanation: &mut Explanation) -> Option<Reply> {
        let (config, incoming) = (self.config, &seen.incoming);
        let route = &config.routes[admission.route()];
        if let Some(reply) = refuse::unfit(&self.site, (admission, route), incoming, REQUEST_ID) {
            let large = reply.status == StatusCode::PAYLOAD_TOO_LARGE;
            let hidden = "the path spells the route's strip_prefix with percent-escapes";
            explanation.answer(
                reply.status.as_str(),
                if large { "the body is larger than the route's body_max" } else { hidden },
            );
            return Some(reply);
        }
        let to = &config.upstreams[admission.upstream()];
        let user = admission.identity().map(|identity| &identity.user);
        let token = to.token.as_ref().zip(user).map(|(spec, user)| IssuedToken::placeholder(spec, &to.name, user));
        let handshake = incoming.is_websocket.then(|| websocket_credentials::read(&route.websocket_token, incoming));
        let own_host = to.servers.first().map(server_name::authority);
        let client = seen.known.client.map(|client| client.to_string());
        let changes = request_headers::changes(
            incoming.headers,
            seen.target.as_bytes(),
            &self.header_filter,
            &ForwardContext {
                upstream: to,
                user: user.map(|user| &**user),
                token: token.as_ref(),
                foreign: None,
                drops_cookies: admission.routes().any(|route| config.routes[route].drops_cookies),
                handshake: handshake.as_ref(),
                peer: client.as_deref(),
                trusted: false,
                scheme: seen.known.scheme.as_str(),
                host: seen.known.host.as_str(),
                port: seen.known.port(&config.server.public_url),
                request_id: REQUEST_ID,
                names: incoming.names,
                via: GATEWAY_ID,
                prefix: &route.strip_prefix,
                host_override: own_host
                    .as_deref()
                    .filter(|_| to.host == UpstreamHost::Upstream)
                    .or(seen.known.judged_host()),
            },
        );
        let per_account = config.session.app_cookies == AppCookieRule::PerAccount;
        explanation.forward(Forwarded::new(to, incoming, seen.target, &changes), per_account);
        None
    }

    /// The routes up to the one that takes it, with what each of them misses.
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

    /// What becomes of the request under each reading of its path.
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
                    Verdict::Forward(admission) => {
                        format!("forward {}", self.config.upstreams[admission.upstream()].name)
                    }
                    Verdict::Preflight => "204".to_owned(),
                    Verdict::Refuse(_, Refusal::SignedOut) => "401".to_owned(),
                    Verdict::Refuse(..) => "403".to_owned(),
                    _ => "404".to_owned(),
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
fn head_of(asked: &SimulatedRequest, host: &str, target: &str) -> Result<Parts, String> {
    let mut request = Request::builder().method(asked.method.clone()).uri("/");
    let tells = |name: &str| asked.headers.iter().any(|(own, _)| own == name);
    if !tells("host") {
        request = request.header(header::HOST, host);
    }
    if asked.method == Method::GET && !["accept", "sec-fetch-mode", "upgrade", "content-type"].into_iter().any(tells) {
        request = request
            .header("sec-fetch-mode", HeaderValue::from_static("navigate"))
            .header(header::ACCEPT, HeaderValue::from_static("text/html"));
    }
    for (name, value) in &asked.headers {
        request = request.header(name, value);
    }
    Ok(request.body(()).map_err(|error| format!("`{target}`: {error}"))?.into_parts().0)
}

/// Somebody who is signed in for one question.
fn synthetic_identity(user: &User) -> Identity {
    let user = Arc::new(user.clone());
    let session = Session::new(String::new(), Arc::new(ArcSwap::new(user.clone())), 0, u64::MAX, 0);
    Identity { session: Arc::new(session), user, issued: 0, grant: None }
}
