//! Signing out: GET shows a button and ends nothing, POST ends the session.

use http::StatusCode;

use super::call::{Call, Pages};
use super::form::Fields;
use super::site::Site;
use super::view::{Logout, Message};
use super::{errors, form, session_cookies, view};
use crate::account::user_sessions;
use crate::web::reply::Reply;

pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    if call.incoming.method != http::Method::POST {
        if call.identity.is_none() {
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
    if let Some(who) = &call.identity
        && user_sessions::sign_out(&pages.accounts, &call.caller, &who.session).await.is_err()
    {
        // the session still stands: to say otherwise would be a lie
        return errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call);
    }
    let reply = if fields.is_json() {
        Reply::empty(StatusCode::NO_CONTENT)
    } else {
        Site::see_other(&format!("{}/signed-out", pages.prefix))
    };
    session_cookies::without_cookie(pages, reply)
}

pub(super) fn signed_out_page(pages: &Pages, call: &Call<'_>) -> Reply {
    if call.identity.is_some() {
        return Site::see_other(&format!("{}/account", pages.prefix));
    }
    let message = Message {
        frame: pages.assets.frame(),
        heading: "Signed out",
        what: "You are signed out on this device.",
        remedy: "",
        link: &pages.login_path,
        link_text: "Sign in again",
        target: "",
        turbo_frame: false,
        request_id: "",
    };
    view::html(pages, StatusCode::OK, &message, Some(call.incoming), true)
}
