//! Signing in.

use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::call::{Call, Pages};
use super::flash::Flash;
use super::form::{BadBody, Fields, means_yes, query};
use super::site::Site;
use super::view::Login;
use super::{flash, form, loops, provider_lists, session_cookies, view};
use crate::account::{SignInError, sign_in};
use crate::config::SignUp;
use crate::web::reply::Reply;

/// Query parameters that hold the return URL.
pub(super) const RETURN_NAMES: [&str; 3] = ["callbackUrl", "rd", "next"];

/// Longest return URL in the form's field, to which the script adds a fragment: with every byte escaped it fits
/// into `limits.form_bytes`. A longer one is only in the form's address.
const FIELD_BYTES_MAX: usize = 2048;
/// `Retry-After` when the hash queue is full, seconds.
pub(super) const BUSY_SECS: u16 = 5;

/// The form that a [`Flash`] belongs to.
const FORM: &str = "login";
/// The message for forms that would check or set a password.
pub(super) const PASSWORDS_OFF: &str = "This site does not use passwords. Sign in through a provider.";

pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    if call.incoming.method == http::Method::POST {
        return match Fields::read(call) {
            Ok(fields) => sign_in(pages, call, &fields).await,
            Err(bad) => form::unread_body(pages, call, bad),
        };
    }
    let wanted = query(call, &RETURN_NAMES);
    if call.identity.is_some() {
        return Site::see_other(pages.return_to(wanted.as_deref(), call.incoming).as_str());
    }
    let created = query(call, &["created"]).is_some();
    let notice = if created {
        "You can now sign in. If you already had an account, use its existing password."
    } else if query(call, &["shortened"]).is_some() {
        "The address you came from is too long to keep: after signing in, you return to its page without the part after the question mark."
    } else {
        ""
    };
    let wanted = wanted.as_deref().unwrap_or_default();
    if let Some((_, flash)) = flash::take(pages, call, &[FORM], "") {
        let ((error, word), fields) = (flash.told(), flash.fields());
        let typed = (fields.text("email"), remembers(&fields));
        let error = (error, word == "credentials");
        return flash::without_flash(
            pages,
            login_page_with(pages, call, StatusCode::OK, wanted, "", error, typed).await,
        );
    }
    let mut error = query(call, &["error"]).map_or("", |code| told(&code)).to_owned();
    if error.is_empty() {
        error = loops::why_not_returned(pages, call, pages.return_to(Some(wanted), call.incoming).as_str());
    }
    let has_signed_out = session_cookies::has_signed_out(pages, call);
    if error.is_empty()
        && notice.is_empty()
        && !has_signed_out
        && let Some(start) = start_at_once(pages, call, wanted)
    {
        return Site::see_other(&start);
    }
    login_page_with(pages, call, StatusCode::OK, wanted, notice, (&error, false), ("", true)).await
}

/// The address that starts a sign-in through the provider that the query names, or through the only way in. People have
/// to see errors and notices first, so then the page is shown.
fn start_at_once(pages: &Pages, call: &Call<'_>, wanted: &str) -> Option<String> {
    let name = query(call, &["provider"]).or_else(|| pages.first_provider.clone())?;
    let provider = provider_lists::all(pages).find(|provider| provider.name == name)?;
    let start = format!("{}/oauth/{}", pages.prefix, provider.name);
    let params =
        form_urlencoded::Serializer::new(String::new()).extend_pairs(provider_lists::client_params(call)).finish();
    let (start, separator) = match wanted {
        "" => (start, "?"),
        wanted => (Site::leading_to(&start, pages.return_to(Some(wanted), call.incoming).as_str()), "&"),
    };
    Some(if params.is_empty() { start } else { start + separator + &params })
}

async fn sign_in(pages: &Pages, call: &Call<'_>, fields: &Fields) -> Reply {
    let (Some(email), Some(_)) = (fields.get("email"), fields.get("password")) else {
        return form::unread_body(pages, call, BadBody::Malformed);
    };
    let wanted = fields.get("callbackUrl").map(str::to_owned).or_else(|| query(call, &RETURN_NAMES));
    let remember = remembers(fields);
    let begun =
        match sign_in::with_password(&pages.accounts, &call.caller, email, fields.secret("password"), remember).await {
            Ok(begun) => begun,
            Err(error) => return not_signed_in(pages, call, fields, wanted.as_deref(), remember, error).await,
        };
    session_cookies::signed_in_to(pages, call, fields, wanted.as_deref(), &begun)
}

async fn not_signed_in(
    pages: &Pages,
    call: &Call<'_>,
    fields: &Fields,
    wanted: Option<&str>,
    remember: bool,
    error: SignInError,
) -> Reply {
    let (status, word, wait_secs) = match error {
        SignInError::Credentials => (StatusCode::UNAUTHORIZED, "credentials", 0),
        SignInError::Throttled { retry_after_secs } => (StatusCode::TOO_MANY_REQUESTS, "throttled", retry_after_secs),
        SignInError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", 0),
        SignInError::PasswordsOff => (StatusCode::FORBIDDEN, "passwords_off", 0),
        SignInError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", 0),
    };
    let reply = if fields.is_json() {
        Reply::json(status, &json!({ "error": word }))
    } else {
        let text = message(word, wait_secs);
        let flash = Flash::new((FORM, ""), (&text, word), fields);
        if let Some(reply) =
            flash::failed_form(pages, call, &pages.leading_back(call.incoming, &pages.login_path, wanted), &flash)
        {
            return reply;
        }
        let (error, typed) = ((text.as_str(), word == "credentials"), (fields.text("email"), remember));
        login_page_with(pages, call, status, wanted.unwrap_or_default(), "", error, typed).await
    };
    match error {
        SignInError::Throttled { retry_after_secs } => {
            reply.with(header::RETRY_AFTER, HeaderValue::from(retry_after_secs))
        }
        SignInError::Busy => reply.with(header::RETRY_AFTER, HeaderValue::from(BUSY_SECS)),
        SignInError::Unavailable => reply.with(header::RETRY_AFTER, HeaderValue::from(2u16)),
        SignInError::Credentials | SignInError::PasswordsOff => reply,
    }
}

async fn login_page_with(
    pages: &Pages,
    call: &Call<'_>,
    status: StatusCode,
    wanted: &str,
    notice: &str,
    (error, forgotten): (&str, bool),
    (email, remember): (&str, bool),
) -> Reply {
    let place = if wanted.is_empty() {
        String::new()
    } else {
        pages.return_to(Some(wanted), call.incoming).as_str().to_owned()
    };
    let signup = if pages.sign_up == SignUp::Open { pages.signup_path.as_str() } else { "" };
    // in the address as well, for people who open it again after a wrong password
    let action = if place.is_empty() { pages.login_path.clone() } else { Site::leading_to(&pages.login_path, &place) };
    let template = Login {
        frame: pages.assets.frame(),
        heading: &pages.title,
        notice,
        error,
        action: &action,
        callback_url: &place,
        long_callback: place.len() > FIELD_BYTES_MAX,
        has_passwords: pages.has_passwords,
        email,
        remember,
        forgotten,
        signup,
        providers: &provider_lists::login_buttons(pages, call, &place).await,
    };
    let mut reply = view::html(pages, status, &template, Some(call.incoming), true);
    // apps that compare the referrer with their own host would refuse requests (qBittorrent)
    reply.headers.retain(|(name, _)| name != header::REFERRER_POLICY);
    reply.with(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"))
}

/// An unchecked checkbox sends nothing; the hidden marker distinguishes that from a form without one.
fn remembers(fields: &Fields) -> bool {
    fields.get("remember").map_or(fields.get("remember_shown").is_none(), means_yes)
}

/// The message for a failed sign-in.
fn message(error: &str, wait_secs: u64) -> String {
    match error {
        "credentials" => "Incorrect e-mail or password.".to_owned(),
        "throttled" => wait(wait_secs),
        "passwords_off" => PASSWORDS_OFF.to_owned(),
        "busy" => "Too many people are signing in right now. Try again in a moment.".to_owned(),
        _ => "Sign-in is temporarily unavailable. Try again soon.".to_owned(),
    }
}

/// The messages for Auth.js error codes.
pub(super) fn told(code: &str) -> &'static str {
    match code {
        "" => "",
        "CredentialsSignin" => "Incorrect e-mail or password.",
        "SessionRequired" => "Sign in to view that page.",
        "OAuthSignin" => "This provider cannot be reached right now. Try again in a moment, or sign in another way.",
        "Callback" | "OAuthCallbackError" => "The sign-in was cancelled.",
        "OAuthCallback" => "The provider's answer could not be accepted. Try again, or sign in another way.",
        "OAuthGroups" => "The provider did not say which groups you are in, so you were not signed in. Try again.",
        "RateLimited" => "Too many attempts. Wait a few minutes, then try again.",
        _ => "Sign-in failed. Try again.",
    }
}

/// How long to wait, in words.
pub(super) fn wait(secs: u64) -> String {
    let minutes = secs.div_ceil(60);
    let time = if minutes <= 1 { "a minute".to_owned() } else { format!("{minutes} minutes") };
    format!("Too many attempts. Wait {time}, then try again.")
}
