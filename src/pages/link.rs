//! One-time links: an invite creates an account, a reset sets a password. Both sign in.

use http::StatusCode;
use serde_json::json;

use super::call::{Call, Pages};
use super::form::Fields;
use super::signup::{Shown, change_json, nothing_there, retry};
use super::view::Message;
use super::{errors, form, session_cookies, signup, view};
use crate::account::{LinkKind, one_time_link};
use crate::web::reply::Reply;

pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    let path = call.incoming.path.as_str();
    let token = path.rsplit('/').next().unwrap_or_default();
    let posted = call.incoming.method == http::Method::POST;
    let fields = match posted.then(|| Fields::read(call)).transpose() {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    let kind = match one_time_link::inspect(&pages.accounts, &call.caller, token).await {
        Ok(Some(kind)) if is_at(&kind, &pages.prefix, path) => kind,
        Ok(_) => return dead_link(pages, call, fields.as_ref()),
        Err(error) if speaks_json(call, fields.as_ref()) => return change_json(&error),
        Err(error) => return retry(&error, errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call)),
    };
    if !pages.has_passwords && matches!(kind, LinkKind::Reset { .. }) {
        return signup::passwords_off(pages, call, speaks_json(call, fields.as_ref()));
    }
    let shown = shown(pages, &kind, path);
    match fields {
        None => signup::registration(pages, call, &shown),
        Some(fields) => use_link(pages, call, &fields, &shown, &kind, token).await,
    }
}

async fn use_link(
    pages: &Pages,
    call: &Call<'_>,
    fields: &Fields,
    shown: &Shown<'_>,
    kind: &LinkKind,
    token: &str,
) -> Reply {
    let password = fields.secret("password");
    let done = match kind {
        LinkKind::Reset { .. } => {
            one_time_link::reset_password(&pages.accounts, &call.caller, token, password, fields.ticked("keep_tokens"))
                .await
        }
        LinkKind::Invite { email } => {
            let email = email.as_deref().unwrap_or_else(|| fields.text("email"));
            one_time_link::accept_invite(&pages.accounts, &call.caller, token, email, fields.text("name"), password)
                .await
        }
    };
    let begun = match done {
        Ok(begun) => begun,
        // the link was used in the meantime
        Err(crate::account::ChangeError::Closed) => return dead_link(pages, call, Some(fields)),
        Err(error) => return signup::not_changed(pages, call, fields, shown, &error),
    };
    session_cookies::signed_in_to(
        pages,
        call,
        fields,
        fields.get("callbackUrl").filter(|wanted| !wanted.is_empty()),
        &begun,
    )
}

fn dead_link(pages: &Pages, call: &Call<'_>, fields: Option<&Fields>) -> Reply {
    if speaks_json(call, fields) {
        return Reply::json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }));
    }
    if let Some(reply) = fields.and_then(|fields| nothing_there(call, fields)) {
        return reply;
    }
    let message = Message {
        frame: pages.assets.frame(),
        heading: "This link is not valid",
        what: "It has already been used, has expired, or is incomplete.",
        remedy: "If you have just used it, sign in. Otherwise, ask the person who sent it for a new one.",
        link: &pages.login_path,
        link_text: "Sign in",
        target: "",
        turbo_frame: false,
        request_id: &call.caller.request_id,
    };
    view::html(pages, StatusCode::NOT_FOUND, &message, Some(call.incoming), true)
}

fn speaks_json(call: &Call<'_>, fields: Option<&Fields>) -> bool {
    fields.map_or(!call.incoming.wants_page(), Fields::is_json)
}

/// An invite does not open the reset page, nor vice versa.
fn is_at(kind: &LinkKind, prefix: &str, path: &str) -> bool {
    let place = match kind {
        LinkKind::Invite { .. } => "/invite/",
        LinkKind::Reset { .. } => "/reset/",
    };
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(place))
}

fn shown<'a>(pages: &Pages, kind: &'a LinkKind, path: &'a str) -> Shown<'a> {
    match kind {
        LinkKind::Invite { email } => Shown {
            heading: if pages.has_passwords { "Create your account" } else { "Choose how to sign in" },
            lead: if pages.has_passwords {
                "You have been invited. Choose a password to continue."
            } else {
                "You have been invited. From now on, the provider that you choose signs you in here."
            },
            action: path,
            button: "Create account",
            ask_name: true,
            fixed_email: email.as_deref(),
            offer_tokens: false,
            provider_query: Some(("invite", path.rsplit('/').next().unwrap_or_default())),
        },
        LinkKind::Reset { email, has_tokens } => Shown {
            heading: "Choose a new password",
            lead: "",
            action: path,
            button: "Save password",
            ask_name: false,
            fixed_email: Some(email),
            offer_tokens: *has_tokens,
            provider_query: None,
        },
    }
}
