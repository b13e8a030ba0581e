//! Refusal x kind of request -> reply (docs/http.md, "Denied requests"). Navigations are sent to the login page,
//! programs get a status and JSON, WebSocket handshakes a plain status, gRPC calls a gRPC status.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::authenticate::Authentication;
use super::authorize::{Admission, Refusal};
use super::cors;
use super::decide::{Approval, Rules, Verdict};
use super::reasons::{Outcome, Reason};
use crate::config::{Config, Refuse, Route};
use crate::pages::{Page, Site, errors, loops, word};
use crate::web::incoming::{CALLER_FIELDS, CallerKind, Incoming};
use crate::web::reply::Reply;
use crate::wire::head_error::BadHead;

/// RFC 7617. Browsers prompt for a password when they see it, so only a route that asks for Basic sends it.
const BASIC: &str = "Basic realm=\"authgate\", charset=\"UTF-8\"";

/// Where htmx navigates instead of showing the response.
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// When a client may try again, if the account store is away.
const UNAVAILABLE_SECS: u16 = 2;

/// What a refused client receives.
fn refusal(site: &Site, refusal: Refusal, route: &Route, incoming: &Incoming<'_>, request_id: &str) -> Reply {
    match refusal {
        Refusal::SignedOut => signed_out(site, route, incoming, request_id),
        Refusal::CrossOrigin if incoming.wants_page() && !incoming.is_grpc() => {
            vary(errors::from_elsewhere(site, request_id, incoming))
        }
        Refusal::Unavailable => status(site, StatusCode::SERVICE_UNAVAILABLE, incoming, request_id)
            .with(header::RETRY_AFTER, HeaderValue::from(UNAVAILABLE_SECS)),
        Refusal::Forbidden | Refusal::OutOfScope | Refusal::CrossOrigin => {
            status(site, StatusCode::FORBIDDEN, incoming, request_id)
        }
    }
}

/// A refusal or failure with only a status, as page, JSON, plain text or gRPC.
pub(crate) fn status(site: &Site, code: StatusCode, incoming: &Incoming<'_>, request_id: &str) -> Reply {
    if incoming.is_websocket {
        return plain(code);
    }
    if incoming.is_grpc() {
        return grpc(code);
    }
    if incoming.wants_page() {
        return vary(errors::error_page(site, code, request_id, Some(incoming)));
    }
    json_status(code, request_id)
}

/// How a request is handled.
#[derive(Debug)]
#[must_use]
pub(crate) enum Handling {
    Forward(Approval),
    Page(Page),
    Reply(Refused),
}

/// The gateway's reply to a request that it neither forwards nor shows a page for.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reply: Reply,
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<Reason>,
    /// The route that decided, by index.
    pub(crate) route: Option<usize>,
    /// Why the route refused it; `None` if it was admitted but cannot be forwarded as it is.
    pub(crate) refusal: Option<Refusal>,
}

impl Refused {
    fn new(outcome: Outcome, reason: Option<Reason>, reply: Reply) -> Self {
        Self { reply, outcome, reason, route: None, refusal: None }
    }
}

/// How a verdict is carried out. `id` is the request id.
pub(crate) fn handle(
    rules: &Rules<'_>,
    verdict: Verdict,
    authentication: &Authentication,
    incoming: &Incoming<'_>,
    id: &str,
) -> Handling {
    let Rules { config, site, .. } = *rules;
    Handling::Reply(match verdict {
        Verdict::Page(page) => return Handling::Page(page),
        Verdict::Forward(admission) => match unfit(rules, &admission, incoming, id) {
            None => return Handling::Forward(admission),
            Some(refused) => refused,
        },
        Verdict::Preflight => Refused::new(Outcome::Preflight, None, cors::preflight_reply(incoming)),
        Verdict::ToHttps => Refused::new(Outcome::ToHttps, None, to_https(config, incoming)),
        Verdict::Loop => {
            Refused::new(Outcome::Loop, Some(Reason::Loop), status(site, StatusCode::LOOP_DETECTED, incoming, id))
        }
        Verdict::Status(code) => {
            Refused::new(Outcome::NoRoute, Some(Reason::NoRoute), status(site, code, incoming, id))
        }
        Verdict::Ambiguous(what) => {
            let reason = Reason::Head(BadHead::Ambiguous(what));
            Refused::new(Outcome::BadRequest, Some(reason), bad_request(site, what, incoming, id))
        }
        Verdict::Refuse(route, refused) => {
            let reason = match (authentication, refused) {
                (Authentication::Rejected(why), _) => Reason::Credential(*why),
                (_, Refusal::SignedOut) if cors::preflight(incoming).is_some() => Reason::PreflightNotAllowed,
                _ => Reason::Refused(refused),
            };
            let reply = refusal(site, refused, &config.routes[route], incoming, id);
            let (route, refusal) = (Some(route), Some(refused));
            Refused { route, refusal, ..Refused::new(Outcome::Refused, Some(reason), reply) }
        }
    })
}

/// A request that was admitted but cannot be forwarded as it is: its declared body is too large, or escapes in its path
/// hide the prefix to strip.
fn unfit(rules: &Rules<'_>, admission: &Admission, incoming: &Incoming<'_>, id: &str) -> Option<Refused> {
    let route = &rules.config.routes[admission.route()];
    let has_length = incoming.names.may_have(b"content-length");
    let length = || incoming.single(header::CONTENT_LENGTH).and_then(|digits| digits.parse::<u64>().ok());
    let (outcome, reason, reply) =
        if has_length && admission.body_max().is_some_and(|max| length().is_some_and(|length| length > max)) {
            let reply = status(rules.site, StatusCode::PAYLOAD_TOO_LARGE, incoming, id).closing();
            (Outcome::Refused, Reason::BodyMax, reply)
        } else if !incoming.path.as_str().starts_with(&route.strip_prefix) {
            let reason = Reason::StripPrefix;
            (Outcome::BadRequest, reason, bad_request(rules.site, reason.as_str(), incoming, id))
        } else {
            return None;
        };
    Some(Refused { route: Some(admission.route()), ..Refused::new(outcome, Some(reason), reply) })
}

/// A status for a request that could not be read.
pub(crate) fn unread(code: StatusCode, request_id: &str) -> Reply {
    json_status(code, request_id).closing()
}

/// A 400 to a request that was parsed; `what` names the invalid part.
fn bad_request(site: &Site, what: &str, incoming: &Incoming<'_>, request_id: &str) -> Reply {
    let reply = status(site, StatusCode::BAD_REQUEST, incoming, request_id);
    let is_json = reply.headers.iter().any(|(name, kind)| name == header::CONTENT_TYPE && kind == "application/json");
    if is_json { bad_head(what, request_id) } else { reply }.closing()
}

/// A 400 for programs; `what` names the invalid part of the request.
pub(crate) fn bad_head(what: &str, request_id: &str) -> Reply {
    let code = StatusCode::BAD_REQUEST;
    vary(Reply::json(code, &json!({ "error": word(code), "reason": what, "request_id": request_id }))).closing()
}

fn json_status(code: StatusCode, request_id: &str) -> Reply {
    vary(Reply::json(code, &json!({ "error": word(code), "request_id": request_id })))
}

fn signed_out(site: &Site, route: &Route, incoming: &Incoming<'_>, request_id: &str) -> Reply {
    let caller = incoming.caller_kind();
    match caller {
        CallerKind::WebSocket => return plain(StatusCode::UNAUTHORIZED),
        CallerKind::Grpc => return grpc(StatusCode::UNAUTHORIZED),
        _ => {}
    }
    let to_people = matches!(route.refuse, Refuse::Auto | Refuse::Redirect);
    let always = route.refuse == Refuse::Redirect && matches!(*incoming.method, Method::GET | Method::HEAD);
    let reply = match caller {
        CallerKind::Frame if to_people => errors::login_outside_frame(site, incoming, request_id),
        CallerKind::Navigation if to_people => return vary(loops::login_redirect(site, incoming, request_id)),
        CallerKind::Htmx if to_people => json_signed_out(site, incoming).with(HX_REDIRECT, site.htmx_login(incoming)),
        CallerKind::Form | CallerKind::Turbo if to_people => {
            errors::error_page(site, StatusCode::UNAUTHORIZED, request_id, Some(incoming))
        }
        CallerKind::Program if always => return vary(loops::login_redirect(site, incoming, request_id)),
        _ => json_signed_out(site, incoming),
    };
    let asks_for = if route.refuse == Refuse::Basic { BASIC } else { "Bearer" };
    vary(reply.with(header::WWW_AUTHENTICATE, HeaderValue::from_static(asks_for)))
}

fn json_signed_out(site: &Site, incoming: &Incoming<'_>) -> Reply {
    let login = site.login_url(incoming);
    Reply::json(StatusCode::UNAUTHORIZED, &json!({ "error": "signed_out", "login": login }))
}

fn plain(code: StatusCode) -> Reply {
    let line = match code {
        StatusCode::UNAUTHORIZED => "signed out\n",
        StatusCode::FORBIDDEN => "forbidden\n",
        StatusCode::TOO_MANY_REQUESTS => "too many connections\n",
        _ => "not available\n",
    };
    Reply::text(code, line)
}

/// gRPC over HTTP: "Trailers-Only" with the status in the head.
fn grpc(code: StatusCode) -> Reply {
    let status = match code {
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN => "7",
        StatusCode::NOT_FOUND => "12",
        StatusCode::GATEWAY_TIMEOUT => "4",
        _ => "14",
    };
    Reply::empty(StatusCode::OK)
        .with(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .with(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))
}

/// Whether it may be a gRPC call, possibly from a page: these may stay open indefinitely.
pub(crate) fn may_be_grpc(incoming: &Incoming<'_>) -> bool {
    if !incoming.names.may_have(b"content-type") {
        return false;
    }
    let mut kinds = incoming.headers.get_all(header::CONTENT_TYPE).iter().filter_map(|kind| kind.as_bytes().get(..16));
    kinds.any(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

/// 308 to the same URL over https (RFC 9110, 15.4.9).
fn to_https(config: &Config, incoming: &Incoming<'_>) -> Reply {
    let public = &config.server.public_url;
    let location = format!("{}{}", public.with_host(incoming.host), incoming.origin_form());
    let reply = Reply::empty(StatusCode::PERMANENT_REDIRECT);
    match HeaderValue::try_from(location) {
        Ok(location) => reply.with(header::LOCATION, location),
        Err(_) => Reply::empty(StatusCode::BAD_REQUEST),
    }
}

/// Adds `Vary`, so that no cache mixes up the forms of a refusal.
fn vary(reply: Reply) -> Reply {
    if reply.headers.iter().any(|(name, _)| name == header::VARY) {
        return reply;
    }
    reply.with(header::VARY, HeaderValue::from_static(CALLER_FIELDS))
}
