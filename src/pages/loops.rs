//! Login loops: the browser does not return the cookie, or cannot. The page names the cause instead of
//! asking for the password again and again.

use http::{StatusCode, header};

use super::call::{Call, Pages};
use super::site::Site;
use super::view;
use super::view::Message;
use crate::web::cookie::{self, Presented};
use crate::web::incoming::Incoming;
use crate::web::origin::{Origin, Scheme};
use crate::web::reply::Reply;

/// The message for a browser that has just signed in and returns without the cookie; empty: this is not such
/// a browser. `place` is the return URL.
pub(super) fn why_not_returned(pages: &Pages, call: &Call<'_>, place: &str) -> String {
    if !pages.accounts.is_cookie_missing(&call.caller, place, comes_from_here(call.incoming)) {
        return String::new();
    }
    let presented = cookie::find(call.incoming.headers, pages.cookies.session());
    let cause = match presented {
        Presented::Absent if pages.public_url.scheme() == Scheme::Https && !knows_https(call.incoming) => format!(
            "The cookie is only sent over https. If the address starts with http://, open {} instead.",
            pages.public_url
        ),
        Presented::Absent => format!(
            "Allow cookies for {} in your browser's settings, and check for a private window or an extension that blocks them.",
            call.incoming.host.name()
        ),
        Presented::One(_) | Presented::Conflict => {
            "The session cookie that your browser sent is not valid: the clocks of this site's \
            servers differ, or an old cookie of the same name is in the way. Delete this site's cookies; if that \
            does not help, tell the site administrator."
                .to_owned()
        }
    };
    let cookie = if presented == Presented::Absent { "not sent" } else { "sent, invalid" };
    let (request_id, host) = (call.caller.request_id.as_str(), call.incoming.host.to_string());
    tracing::warn!(request_id, host, cookie, "session cookie missing or invalid after sign-in");
    format!("You signed in, but your browser did not keep you signed in. {cause}")
}

/// A form of ours that was sent from the same host over the other scheme: a proxy in front reports https and
/// the browser http, or vice versa.
pub(super) fn wrong_scheme(pages: &Pages, call: &Call<'_>) -> Option<Reply> {
    let theirs = call.incoming.single("origin").and_then(Origin::parse)?;
    let ours = call.incoming.origin();
    let other = theirs.scheme() != ours.scheme() && theirs.host() == ours.host() && call.incoming.wants_page();
    let what = format!("This page was opened at {theirs}, but the gateway sees {ours}.");
    let remedy = "Open it over https. Site administrator: make the proxy in front send the correct X-Forwarded-Proto.";
    other.then(|| cause_page(pages, StatusCode::FORBIDDEN, &what, remedy, call.incoming, &call.caller.request_id))
}

/// The page for a host that `session.domain` does not cover: signing in has no effect there.
pub(super) fn outside_domain(site: &Site, incoming: &Incoming<'_>, request_id: &str) -> Option<Reply> {
    let domain = site.rules.domain.as_deref()?;
    let host = incoming.host.name();
    let covered = host == domain || host.strip_suffix(domain).is_some_and(|front| front.ends_with('.'));
    let what = format!("Sessions are shared across {domain}, and {host} is outside it.");
    let remedy = "Site administrator: use a host under that domain, or change session.domain.";
    (!covered).then(|| cause_page(site, StatusCode::UNAUTHORIZED, &what, remedy, incoming, request_id))
}

fn cause_page(
    site: &Site,
    code: StatusCode,
    what: &str,
    remedy: &str,
    incoming: &Incoming<'_>,
    request_id: &str,
) -> Reply {
    let message = Message {
        frame: site.assets.frame(),
        heading: "Sign-in does not work here",
        what,
        remedy,
        link: "",
        link_text: "",
        target: "",
        turbo_frame: false,
        request_id,
    };
    view::html(site, code, &message, Some(incoming), true)
}

/// 303 to the login page, with the return URL.
pub fn login_redirect(site: &Site, incoming: &Incoming<'_>, request_id: &str) -> Reply {
    if let Some(reply) = outside_domain(site, incoming, request_id) {
        return reply;
    }
    Site::see_other(&site.login_url(incoming))
}

/// Whether the browser came from a page of ours, through any redirects: when the address is opened in a
/// new window, no cookie was lost.
fn comes_from_here(incoming: &Incoming<'_>) -> bool {
    match incoming.single("sec-fetch-site") {
        Some(site) => site == "same-origin",
        // the browser may use another scheme than the proxy reports: that is one of the causes
        None => incoming.single("referer").is_some_and(|from| {
            let end = from.match_indices('/').nth(2).map_or(from.len(), |(at, _)| at);
            Origin::parse(&from[..end]).is_some_and(|theirs| theirs.host() == incoming.origin().host())
        }),
    }
}

/// Browsers send fetch metadata only to https and loopback; other clients send none.
fn knows_https(incoming: &Incoming<'_>) -> bool {
    incoming.headers.contains_key("sec-fetch-site") || !incoming.headers.contains_key(header::USER_AGENT)
}
