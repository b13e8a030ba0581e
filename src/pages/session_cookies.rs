//! Cookies at the beginning and end of a session.

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use super::call::{Call, Pages, user_json};
use super::form::Fields;
use super::site::Site;
use crate::account::{Identity, SignedIn};
use crate::web::cookie::{self, Presented};
use crate::web::reply::Reply;

/// Clears the browser's cache for this origin, but not its cookies (W3C Clear Site Data, 3.1).
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const CACHE: &str = "\"cache\"";
/// How long the login page is shown to a browser that has signed out, seconds: links of apps and the back button lead there.
const SIGNED_OUT_SECS: u64 = 600;

/// The reply with a new session, to a form or JSON.
pub(super) fn signed_in_to(
    pages: &Pages,
    call: &Call<'_>,
    fields: &Fields,
    wanted: Option<&str>,
    begun: &SignedIn,
) -> Reply {
    let place = pages.return_to(wanted, call.incoming);
    if fields.is_json() {
        let told = json!({ "user": user_json(&begun.session.user.load()), "callbackUrl": place.as_str() });
        return signed_in(pages, call, Reply::json(StatusCode::OK, &told), None, begun);
    }
    signed_in(pages, call, Site::see_other(place.as_str()), Some(place.as_str()), begun)
}

/// Adds the cookies of a new session to a reply that redirects a browser to `place`; `None`: the client is a program.
pub(super) fn signed_in(pages: &Pages, call: &Call<'_>, reply: Reply, place: Option<&str>, begun: &SignedIn) -> Reply {
    const DEVICE_SECS: u64 = 400 * 86_400;
    if let Some(place) = place {
        pages.accounts.expect_cookie(&call.caller, place, &begun.session);
    }
    let max_age = pages.accounts.cookie_max_age(&begun.session);
    let session = pages.cookies.set(pages.cookies.session(), begun.token.expose(), max_age);
    let device = pages.cookies.set(pages.cookies.device(), begun.device.expose(), Some(DEVICE_SECS));
    // the browser may still have cached pages of the last session
    let is_same = |before: &Identity| before.user.id == begun.session.user.load().id;
    let reply = if call.identity.as_ref().map_or(begun.is_same_account, is_same) {
        reply
    } else {
        reply.with(CLEAR_SITE_DATA, HeaderValue::from_static(CACHE))
    };
    [session, device].into_iter().flatten().fold(reply, |reply, cookie| reply.with(header::SET_COOKIE, cookie))
}

/// Deletes the session cookie, and clears what the browser has cached for this account. `Clear-Site-Data:
/// "cookies"` would also delete the app's own cookies.
pub(super) fn without_cookie(pages: &Pages, reply: Reply) -> Reply {
    let reply = reply.with(CLEAR_SITE_DATA, HeaderValue::from_static(CACHE));
    let mark = pages
        .first_provider
        .as_ref()
        .and_then(|_| pages.cookies.set(pages.cookies.signed_out(), "1", Some(SIGNED_OUT_SECS)));
    let cookies = [pages.cookies.remove(pages.cookies.session()), mark];
    cookies.into_iter().flatten().fold(reply, |reply, cookie| reply.with(header::SET_COOKIE, cookie))
}

/// Whether this browser has just signed out, so that it may not be signed in again without a click.
pub(super) fn has_signed_out(pages: &Pages, call: &Call<'_>) -> bool {
    cookie::find(call.incoming.headers, pages.cookies.signed_out()) != Presented::Absent
}
