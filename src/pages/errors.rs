//! Error pages: one sentence on what happened, one on what to do, and the request id
//! that operators can find in the log. Nothing about internals.

use http::{HeaderValue, Method, StatusCode, header};

use super::call::Call;
use super::site::Site;
use super::view::{CROSS_ORIGIN_OPENER_POLICY, Cookies, Message};
use super::{loops, view};
use crate::web::incoming::Incoming;
use crate::web::reply::Reply;

/// Status, error code in JSON bodies, heading, what happened, what to do.
const TEXTS: [(u16, &str, &str, &str, &str); 16] = [
    (
        400,
        "bad_request",
        "Bad request",
        "The address or the request is malformed or ambiguous.",
        "Check the address, or go back and try again.",
    ),
    (
        401,
        "signed_out",
        "You are signed out",
        "Your session has ended, so the form was not sent.",
        "Sign in in a new tab, then come back here and reload. Your browser will ask whether to send the form again.",
    ),
    (
        403,
        "forbidden",
        "Access denied",
        "You do not have permission to do this.",
        "If you think you should, ask the site administrator.",
    ),
    (
        404,
        "not_found",
        "Not found",
        "There is nothing at this address.",
        "Check the address, or start again from the home page.",
    ),
    (
        405,
        "method_not_allowed",
        "Method not allowed",
        "This address does not accept this kind of request.",
        "Go back and try again.",
    ),
    (408, "request_timeout", "Request timed out", "The request took too long to arrive.", "Try again."),
    (413, "too_large", "Too large", "What you sent is larger than this site accepts.", "Send something smaller."),
    (414, "uri_too_long", "Address too long", "The address is longer than this site accepts.", "Check the address."),
    (
        415,
        "unsupported_media_type",
        "Unsupported format",
        "What you sent is not in a format that this site accepts.",
        "Go back and try again.",
    ),
    (
        421,
        "misdirected",
        "Wrong connection",
        "Your browser requested this site over a connection that belongs to another one.",
        "Close the tab and open the address again.",
    ),
    (
        429,
        "throttled",
        "Too many attempts",
        "There were too many attempts in a short time.",
        "Wait a few minutes, then try again.",
    ),
    (
        431,
        "header_too_large",
        "Too many cookies",
        "Your browser sent more cookies than this site accepts.",
        "Delete this site's cookies, then try again.",
    ),
    (502, "bad_gateway", "Site unavailable", "The app at this address cannot be reached.", "Try again in a moment."),
    (
        503,
        "unavailable",
        "Temporarily unavailable",
        "The site cannot handle this request right now.",
        "Try again in a moment.",
    ),
    (
        504,
        "gateway_timeout",
        "Site timed out",
        "The app at this address did not respond in time.",
        "Try again in a moment.",
    ),
    (
        508,
        "loop_detected",
        "Loop detected",
        "This site is configured to forward to itself.",
        "Tell the site administrator.",
    ),
];

/// The policy of the page that may be framed: no scripts, no forms.
const FRAMED_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'";

fn is_read(incoming: &Incoming<'_>) -> bool {
    matches!(*incoming.method, Method::GET | Method::HEAD)
}

fn asks_for_turbo_frame(incoming: &Incoming<'_>) -> bool {
    incoming.headers.contains_key("turbo-frame")
}

/// The stable error code of a status in JSON bodies.
pub fn word(code: StatusCode) -> &'static str {
    TEXTS.iter().find(|text| text.0 == code.as_u16()).map_or("error", |text| text.1)
}

/// The page for a status, with a link if there is somewhere to go.
pub fn error_page(site: &Site, code: StatusCode, request_id: &str, incoming: Option<&Incoming<'_>>) -> Reply {
    let fallback = (0, "error", "Something went wrong", "The request failed.", "Try again in a moment.");
    let text = TEXTS.iter().find(|text| text.0 == code.as_u16()).unwrap_or(&fallback);
    if let Some(incoming) = incoming.filter(|incoming| code == StatusCode::UNAUTHORIZED && is_read(incoming)) {
        return session_ended(site, incoming, request_id);
    }
    let (link, link_text) = match (code, incoming) {
        (StatusCode::UNAUTHORIZED, Some(incoming)) => (login_after_form(site, incoming), "Sign in in a new tab"),
        // people who are signed in to another account see that there, and can switch
        (StatusCode::FORBIDDEN, Some(_)) => (format!("{}/account", site.prefix), "Your account"),
        (StatusCode::NOT_FOUND, Some(incoming)) if incoming.path.as_str() != site.rules.after_login => {
            (site.rules.after_login.clone(), "Home page")
        }
        _ => (String::new(), ""),
    };
    let message = Message {
        frame: site.assets.frame(),
        heading: text.2,
        what: text.3,
        remedy: text.4,
        link: &link,
        link_text,
        // after sign-in, reloading this page sends the form again
        target: if code == StatusCode::UNAUTHORIZED { "_blank" } else { "" },
        turbo_frame: incoming.is_some_and(asks_for_turbo_frame),
        request_id,
    };
    in_place(site, code, &message, incoming)
}

/// 431: lists the largest cookies, and offers a form to `clear` under `prefix` that deletes all of them.
pub fn too_many_cookies(site: &Site, largest: &[(String, usize)], clear: &str, request_id: &str) -> Reply {
    let page = Cookies {
        frame: site.assets.frame(),
        heading: "Too many cookies",
        largest,
        action: &format!("{}{clear}", site.prefix),
        request_id,
    };
    view::html(site, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &page, None, true)
}

/// The reply to that form.
pub fn cookies_cleared(site: &Site) -> Reply {
    let front = HeaderValue::try_from(site.rules.after_login.as_str()).unwrap_or(HeaderValue::from_static("/"));
    let clear = header::HeaderName::from_static("clear-site-data");
    Reply::see_other(front).with(clear, HeaderValue::from_static("\"cookies\""))
}

/// 401 in place of a page, for Turbo: sign-in returns to the requested address.
fn session_ended(site: &Site, incoming: &Incoming<'_>, request_id: &str) -> Reply {
    let message = Message {
        frame: site.assets.frame(),
        heading: "You are signed out",
        what: "Your session has ended.",
        remedy: "Sign in again to continue.",
        link: &site.login_url_for(incoming, &incoming.origin_form()),
        link_text: "Sign in",
        target: "",
        turbo_frame: asks_for_turbo_frame(incoming),
        request_id,
    };
    in_place(site, StatusCode::UNAUTHORIZED, &message, Some(incoming))
}

/// 401 inside a frame, where the login page cannot be shown and a frame of another site would not get the cookie. Only
/// this page may be framed: it has nothing but a link out of the frame.
pub fn login_outside_frame(site: &Site, incoming: &Incoming<'_>, request_id: &str) -> Reply {
    if let Some(reply) = loops::outside_domain(site, incoming, request_id) {
        return reply;
    }
    let message = Message {
        frame: site.assets.frame(),
        heading: "Sign in",
        what: "You need to sign in to view this.",
        remedy: "",
        link: &site.login_url(incoming),
        link_text: "Sign in",
        target: "_top",
        turbo_frame: false,
        request_id,
    };
    let mut reply = in_place(site, StatusCode::UNAUTHORIZED, &message, Some(incoming));
    reply.headers.retain(|(name, _)| name != header::X_FRAME_OPTIONS && name != header::CONTENT_SECURITY_POLICY);
    reply.with(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(FRAMED_POLICY))
}

/// 403 for a request from a page of another site.
pub fn from_elsewhere(site: &Site, request_id: &str, incoming: &Incoming<'_>) -> Reply {
    let message = Message {
        frame: site.assets.frame(),
        heading: "Request blocked",
        what: "This form was submitted from another site or an unknown one, so it was blocked.",
        remedy: "Open this site directly, over https if possible, and try again.",
        link: &site.rules.after_login,
        link_text: "Home page",
        target: "",
        turbo_frame: false,
        request_id,
    };
    in_place(site, StatusCode::FORBIDDEN, &message, Some(incoming))
}

/// A page in place of an app's. It does not isolate its window: with `Cross-Origin-Opener-Policy` here and
/// none on the app's page, Back would lose what was typed in the app (Firefox, WebKit).
fn in_place(site: &Site, code: StatusCode, message: &Message<'_>, incoming: Option<&Incoming<'_>>) -> Reply {
    let mut reply = view::html(site, code, message, incoming, true);
    reply.headers.retain(|(name, _)| *name != CROSS_ORIGIN_OPENER_POLICY);
    reply
}

/// After a refused form, the page that contained it.
fn login_after_form(site: &Site, incoming: &Incoming<'_>) -> String {
    let page = site.login_page(incoming);
    let account = format!("{}/account", site.prefix);
    // our own pages send only their origin as the referrer
    if incoming.path.as_str().strip_prefix(&account).is_some_and(|rest| rest.starts_with('/')) {
        return Site::leading_to(&page, &account);
    }
    match incoming.single("referer") {
        Some(referer) => Site::leading_to(&page, site.return_to(Some(referer), incoming).as_str()),
        None => page,
    }
}

/// An error of one of our own endpoints, as a page or JSON.
pub(super) fn refused(site: &Site, code: StatusCode, call: &Call<'_>) -> Reply {
    if call.incoming.wants_page() {
        return error_page(site, code, &call.caller.request_id, Some(call.incoming));
    }
    let word = super::errors::word(code);
    Reply::json(code, &serde_json::json!({ "error": word, "request_id": call.caller.request_id }))
}
