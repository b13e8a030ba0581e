//! Sign-up, and the registration form that it shares with invite and reset links.

use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::call::{Call, Pages};
use super::flash::{Flash, is_browsers};
use super::form::{Fields, query};
use super::login::{BUSY_SECS, PASSWORDS_OFF, wait};
use super::site::Site;
use super::view::{Message, Register};
use super::{errors, flash, form, provider_lists, provider_replies, view};
use crate::account::{ChangeError, sign_up};
use crate::config::SignUp;
use crate::web::reply::Reply;

/// The form that a [`Flash`] belongs to, on all of these pages.
const FORM: &str = "register";

/// How to show a registration form.
pub(super) struct Shown<'a> {
    pub(super) heading: &'a str,
    pub(super) lead: &'a str,
    pub(super) action: &'a str,
    pub(super) button: &'a str,
    pub(super) ask_name: bool,
    pub(super) fixed_email: Option<&'a str>,
    /// Asks whether to keep API tokens.
    pub(super) offer_tokens: bool,
    /// A further query parameter of links to providers; `None`: no links here.
    pub(super) provider_query: Option<(&'a str, &'a str)>,
}

pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    let posted = call.incoming.method == http::Method::POST;
    let shown = Shown {
        heading: "Create an account",
        lead: "",
        action: &pages.signup_path,
        button: "Create account",
        ask_name: true,
        fixed_email: None,
        offer_tokens: false,
        provider_query: Some(("signup", "1")),
    };
    if !posted {
        if pages.sign_up != SignUp::Open {
            return closed(pages, call, !call.incoming.wants_page());
        }
        return registration(pages, call, &shown);
    }
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    if pages.sign_up != SignUp::Open {
        return nothing_there(call, &fields).unwrap_or_else(|| closed(pages, call, fields.is_json()));
    }
    let password = fields.secret("password");
    match sign_up::register(&pages.accounts, &call.caller, fields.text("email"), fields.text("name"), password).await {
        Ok(()) if fields.is_json() => Reply::json(StatusCode::CREATED, &json!({ "login": pages.login_path })),
        Ok(()) => Site::see_other(&login_after_signup(pages, call, &fields)),
        Err(error) => not_changed(pages, call, &fields, &shown, &error),
    }
}

fn login_after_signup(pages: &Pages, call: &Call<'_>, fields: &Fields) -> String {
    let wanted = fields.get("callbackUrl").filter(|wanted| !wanted.is_empty());
    let Some(wanted) = wanted else { return format!("{}?created=1", pages.login_path) };
    let place = pages.return_to(Some(wanted), call.incoming);
    Site::leading_to(&pages.login_path, place.as_str()) + "&created=1"
}

fn closed(pages: &Pages, call: &Call<'_>, as_json: bool) -> Reply {
    if as_json {
        return Reply::json(StatusCode::FORBIDDEN, &json!({ "error": "closed" }));
    }
    let by_invite = pages.sign_up == SignUp::Invite;
    let message = Message {
        frame: pages.assets.frame(),
        heading: "Sign-up is closed",
        what: if by_invite {
            "New accounts are created by invitation only."
        } else {
            "New accounts are created by the site administrator."
        },
        remedy: if by_invite { "Ask for an invite link and open it to create an account." } else { "" },
        link: &pages.login_path,
        link_text: "Sign in",
        target: "",
        turbo_frame: false,
        request_id: "",
    };
    view::html(pages, StatusCode::FORBIDDEN, &message, Some(call.incoming), true)
}

/// The reply to links that set a password.
pub(super) fn passwords_off(pages: &Pages, call: &Call<'_>, as_json: bool) -> Reply {
    if as_json {
        return change_json(&ChangeError::PasswordsOff);
    }
    provider_replies::message(pages, call, StatusCode::FORBIDDEN, PASSWORDS_OFF)
}

/// The reply to a failed form, as a page or JSON.
pub(super) fn not_changed(
    pages: &Pages,
    call: &Call<'_>,
    fields: &Fields,
    shown: &Shown<'_>,
    error: &ChangeError,
) -> Reply {
    if fields.is_json() {
        return change_json(error);
    }
    if *error == ChangeError::Closed {
        return errors::refused(pages, StatusCode::NOT_FOUND, call);
    }
    let (status, message, field) = told(error);
    let wanted = fields.get("callbackUrl").filter(|wanted| !wanted.is_empty());
    let page = pages.leading_back(call.incoming, shown.action, wanted);
    flash::failed_form(pages, call, &page, &Flash::new((FORM, ""), (&message, field), fields))
        .unwrap_or_else(|| retry(error, register(pages, call, status, shown, Some(fields), (&message, field))))
}

/// The form's page: empty, or after it failed.
pub(super) fn registration(pages: &Pages, call: &Call<'_>, shown: &Shown<'_>) -> Reply {
    match flash::take(pages, call, &[FORM], "") {
        Some((_, flash)) => flash::without_flash(
            pages,
            register(pages, call, StatusCode::OK, shown, Some(&flash.fields()), flash.told()),
        ),
        None => register(pages, call, StatusCode::OK, shown, None, ("", "")),
    }
}

fn register(
    pages: &Pages,
    call: &Call<'_>,
    status: StatusCode,
    shown: &Shown<'_>,
    fields: Option<&Fields>,
    (error, field): (&str, &str),
) -> Reply {
    let typed = |name: &str| fields.map_or("", |fields| fields.text(name));
    let asked = query(call, &["callbackUrl"]);
    let wanted =
        fields.and_then(|fields| fields.get("callbackUrl")).or(asked.as_deref()).filter(|wanted| !wanted.is_empty());
    let place = wanted.map(|wanted| pages.return_to(Some(wanted), call.incoming));
    let template = Register {
        frame: pages.assets.frame(),
        heading: shown.heading,
        lead: shown.lead,
        error,
        field,
        action: shown.action,
        callback_url: place.as_ref().map_or("", |place| place.as_str()),
        email: shown.fixed_email.unwrap_or_else(|| typed("email")),
        fixed_email: shown.fixed_email.is_some(),
        ask_name: shown.ask_name,
        offer_tokens: shown.offer_tokens,
        keep_tokens: fields.is_some_and(|fields| fields.ticked("keep_tokens")),
        name: typed("name"),
        has_passwords: pages.has_passwords,
        min_length: pages.min_length,
        button: shown.button,
        providers: &shown.provider_query.map_or_else(Vec::new, |more| {
            provider_lists::buttons(pages, place.as_ref().map_or("", |place| place.as_str()), &[more])
        }),
    };
    view::html(pages, status, &template, Some(call.incoming), true)
}

/// The form does not exist any more: browsers are redirected to the page, which says so.
pub(super) fn nothing_there(call: &Call<'_>, fields: &Fields) -> Option<Reply> {
    (!fields.is_json() && is_browsers(call)).then(|| Site::see_other(call.incoming.path.as_str()))
}

/// For a failed form: status, message, and the invalid field, if any.
pub(super) fn told(error: &ChangeError) -> (StatusCode, String, &'static str) {
    match error {
        ChangeError::Field(error) => (StatusCode::BAD_REQUEST, error.message.clone(), error.field),
        ChangeError::Throttled { retry_after_secs } => (StatusCode::TOO_MANY_REQUESTS, wait(*retry_after_secs), ""),
        ChangeError::PasswordsOff => (StatusCode::FORBIDDEN, PASSWORDS_OFF.to_owned(), ""),
        ChangeError::Busy => {
            (StatusCode::SERVICE_UNAVAILABLE, "The site is busy right now. Try again in a moment.".to_owned(), "")
        }
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "This is temporarily unavailable. Check whether the change was saved, then try again.".to_owned(),
            "",
        ),
    }
}

/// A failed change as JSON.
pub(super) fn change_json(error: &ChangeError) -> Reply {
    let reply = match error {
        ChangeError::Field(field) => Reply::json(
            StatusCode::BAD_REQUEST,
            &json!({ "error": field.code, "field": field.field, "message": field.message }),
        ),
        ChangeError::Closed => Reply::json(StatusCode::FORBIDDEN, &json!({ "error": "closed" })),
        ChangeError::PasswordsOff => Reply::json(StatusCode::FORBIDDEN, &json!({ "error": "passwords_off" })),
        ChangeError::Throttled { .. } => Reply::json(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": "throttled" })),
        ChangeError::Busy => Reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "busy" })),
        ChangeError::Unavailable => Reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "unavailable" })),
    };
    retry(error, reply)
}

pub(super) fn retry(error: &ChangeError, reply: Reply) -> Reply {
    match error {
        ChangeError::Throttled { retry_after_secs } => {
            reply.with(header::RETRY_AFTER, HeaderValue::from(*retry_after_secs))
        }
        ChangeError::Busy => reply.with(header::RETRY_AFTER, HeaderValue::from(BUSY_SECS)),
        ChangeError::Unavailable => reply.with(header::RETRY_AFTER, HeaderValue::from(2u16)),
        _ => reply,
    }
}
