//! Sign-out: GET shows a button, POST ends the session.

use http::StatusCode;

use super::call::{Call, Pages};
use super::form::{Fields, query};
use super::site::Site;
use super::view::{Logout, Message};
use super::{errors, form, provider_replies, session_cookies, view};
use crate::account::identity::sign_out::sign_out;
use crate::web::reply::Reply;

/// Query parameter of the page that leads on to a provider.
pub(super) const TICKET: &str = "ticket";

pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    if call.incoming.method != http::Method::POST {
        if call.identity.is_none() && !call.is_unavailable {
            return Site::see_other(&format!("{}/signed-out", pages.prefix));
        }
        let action = format!("{}/logout", pages.prefix);
        let template = Logout {
            frame: pages.assets.frame(),
            heading: "Sign out?",
            action: &action,
            back: &pages.rules.after_login,
        };
        return view::html(pages, StatusCode::OK, &template, Some(call.incoming), true);
    }
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    if call.is_unavailable {
        return not_ended(pages, call);
    }
    let mut at_provider = None;
    if let Some(who) = &call.identity {
        let Ok(further) = sign_out(&pages.accounts, &call.caller, &who.session, &return_uri(pages)).await else {
            return not_ended(pages, call);
        };
        at_provider = further;
    }
    let reply = match at_provider {
        _ if fields.is_json() => Reply::empty(StatusCode::NO_CONTENT),
        // not a redirect: the page's `form-action` would block it
        Some(url) if !is_for_a_script(call) => provider_replies::leading_on(pages, call, url.as_str()),
        _ => Site::see_other(&format!("{}/signed-out", pages.prefix)),
    };
    session_cookies::without_cookie(pages, reply)
}

/// The session is still valid, so the response must not claim otherwise. While a shared database is away, the browser at
/// least gives up its cookie.
fn not_ended(pages: &Pages, call: &Call<'_>) -> Reply {
    if !pages.accounts.is_shared() {
        return errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call);
    }
    if !call.incoming.wants_page() {
        let reply = errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call);
        return session_cookies::without_cookie(pages, reply);
    }
    let message = Message {
        frame: pages.assets.frame(),
        heading: "Signed out in this browser alone",
        what: "This browser has given up its session, but the session could not be ended: it stays valid until it expires.",
        remedy: "To end it, sign in again later and revoke it on your account page.",
        link: &pages.login_path,
        link_text: "Sign in again",
        target: "",
        turbo_frame: false,
        request_id: &call.caller.request_id,
    };
    let reply = view::html(pages, StatusCode::SERVICE_UNAVAILABLE, &message, Some(call.incoming), true);
    session_cookies::without_cookie(pages, reply)
}

/// Whether a script gets the response, by what the browser says: the ID token is not for scripts, which any app on this
/// host has.
fn is_for_a_script(call: &Call<'_>) -> bool {
    const MODE: &str = "sec-fetch-mode";
    call.incoming.headers.contains_key(MODE) && call.incoming.single(MODE) != Some("navigate")
}

/// Where a provider redirects people after sign-out; registered with it.
pub(super) fn return_uri(pages: &Pages) -> String {
    format!("{}{}/signed-out", pages.public_url, pages.prefix)
}

/// The page after sign-out. It never starts a sign-in: a provider with a session of its own would sign the person in
/// again.
pub(super) fn signed_out_page(pages: &Pages, call: &Call<'_>) -> Reply {
    let ticket = query(call, &[TICKET]).filter(|_| !is_for_a_script(call));
    let waiting = ticket.and_then(|ticket| pages.accounts.providers()?.waiting_sign_out(&ticket));
    if let Some(url) = waiting {
        return provider_replies::leading_on(pages, call, url.as_str());
    }
    if call.identity.is_some() {
        return Site::see_other(&format!("{}/account", pages.prefix));
    }
    // the login page would only show the same button again
    let start = pages.first_provider.as_ref().map(|name| format!("{}/oauth/{name}", pages.prefix));
    let message = Message {
        frame: pages.assets.frame(),
        heading: "Signed out",
        what: "You are signed out on this device.",
        remedy: "",
        link: start.as_ref().unwrap_or(&pages.login_path),
        link_text: "Sign in again",
        target: "",
        turbo_frame: false,
        request_id: "",
    };
    view::html(pages, StatusCode::OK, &message, Some(call.incoming), true)
}
