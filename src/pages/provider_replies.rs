//! Replies of sign-ins through providers: the cookie that binds them to a browser, and pages with one sentence.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::call::{Call, Pages};
use super::site::Site;
use super::view::{Message, Refresh};
use super::{errors, login, view};
use crate::account::provider::attempt::Browser;
use crate::account::provider::errors::{Failure, Reason};
use crate::account::provider::start::Started;
use crate::web::cookie::{self, Presented};
use crate::web::reply::Reply;

/// Lifetime of that cookie, seconds; renewed at each start.
const BROWSER_SECS: u64 = 1800;

/// The login page with an error code and the attempt's return URL; people who are signed in see the error on a
/// page of its own.
pub(super) fn back_to_login(pages: &Pages, call: &Call<'_>, wanted: Option<&str>, code: &str) -> Reply {
    if call.identity.is_some() {
        return message(pages, call, StatusCode::OK, login::told(code));
    }
    let page = match wanted {
        Some(wanted) => {
            let place = pages.return_to(Some(wanted), call.incoming);
            format!("{}&error={code}", Site::leading_to(&pages.login_path, place.as_str()))
        }
        None => format!("{}?error={code}", pages.login_path),
    };
    Site::see_other(&page)
}

/// The page that asks people to try again, after as long as is known.
pub(super) fn wait(pages: &Pages, call: &Call<'_>, failure: &Failure) -> Reply {
    let status = match failure.reason {
        Reason::Throttled => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let secs = failure.retry_after_secs.unwrap_or(u64::from(login::BUSY_SECS));
    errors::refused(pages, status, call).with(header::RETRY_AFTER, HeaderValue::from(secs))
}

/// The browser of a request, if it presents exactly one cookie of ours.
pub(super) fn browser(pages: &Pages, headers: &HeaderMap) -> Option<Browser> {
    match cookie::find(headers, pages.cookies.oauth()) {
        Presented::One(value) => Browser::parse(value),
        _ => None,
    }
}

/// Sets or renews the cookie.
pub(super) fn with_browser(pages: &Pages, reply: Reply, browser: &Browser) -> Reply {
    match pages.cookies.set_oauth(&browser.cookie(), BROWSER_SECS) {
        Some(cookie) => reply.with(header::SET_COOKIE, cookie),
        None => reply,
    }
}

/// The reply to a form that starts a sign-in: a page that leads to the provider, because `form-action` would apply to a
/// redirect, or its address as JSON.
pub(super) fn started(pages: &Pages, call: &Call<'_>, as_json: bool, started: &Started) -> Reply {
    let url = started.url.as_str();
    let reply =
        if as_json { Reply::json(StatusCode::OK, &json!({ "url": url })) } else { leading_on(pages, call, url) };
    with_browser(pages, reply, &started.browser)
}

/// A page that forwards by itself, without a redirect: browsers then treat the next request as one of our own
/// site's, and `form-action` does not apply to it.
pub(super) fn leading_on(pages: &Pages, call: &Call<'_>, place: &str) -> Reply {
    let page = Refresh { frame: pages.assets.frame(), heading: "One moment...", place };
    view::html(pages, StatusCode::OK, &page, Some(call.incoming), false)
}

/// A page with one sentence, and a link to the login or account page.
pub(super) fn message(pages: &Pages, call: &Call<'_>, status: StatusCode, what: &str) -> Reply {
    let account = format!("{}/account", pages.prefix);
    let (link, link_text) = if call.identity.is_some() {
        (account.as_str(), "Your account")
    } else {
        (pages.login_path.as_str(), "Sign in")
    };
    let page = Message {
        frame: pages.assets.frame(),
        heading: "Sign-in was not completed",
        what,
        remedy: "",
        link,
        link_text,
        target: "",
        turbo_frame: false,
        request_id: &call.caller.request_id,
    };
    view::html(pages, status, &page, Some(call.incoming), true)
}
