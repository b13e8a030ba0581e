//! The account page: profile, password, sessions.

use http::StatusCode;
use serde_json::json;

use super::call::{Call, Pages, user_json};
use super::flash::{Flash, is_browsers};
use super::form::{Fields, query};
use super::signup::{change_json, retry, told};
use super::site::Site;
use super::view::{Account, SessionRow, TokenRow};
use super::{errors, flash, form, provider_lists, session_cookies, view};
use crate::account::identity::fresh;
use crate::account::{ChangeError, Identity, profile, user_sessions, user_tokens};
use crate::secret::{Secret, random_token};
use crate::web::reply::Reply;

/// Forms on this page that a [`Flash`] may belong to.
const FORMS: [&str; 4] = ["profile", "password", "identities", "token"];

/// What the account page shows.
pub(super) enum Shown<'a> {
    /// Nothing, or the notice that `?saved=` names.
    Nothing,
    /// The form of this name failed: what was typed, the reason, and the invalid field.
    Failed(StatusCode, &'static str, &'a Fields, (&'a str, &'a str)),
    /// A new token, shown only once.
    Token(Secret),
}

/// The page, also after one of its forms failed.
pub(super) async fn answer(pages: &Pages, call: &Call<'_>, who: &Identity) -> Reply {
    match flash::take(pages, call, &FORMS, &who.user.id) {
        Some((form, flash)) => {
            let shown = Shown::Failed(StatusCode::OK, form, &flash.fields(), flash.told());
            flash::without_flash(pages, show(pages, call, who, shown).await)
        }
        None => show(pages, call, who, Shown::Nothing).await,
    }
}

/// The reply to a form that failed.
pub(super) async fn form_failed(
    pages: &Pages,
    call: &Call<'_>,
    who: &Identity,
    form: &'static str,
    fields: &Fields,
    error: &ChangeError,
) -> Reply {
    if fields.is_json() {
        return change_json(error);
    }
    let (status, message, field) = told(error);
    let flash = Flash::new((form, &who.user.id), (&message, field), fields);
    if let Some(reply) = flash::failed_form(pages, call, &format!("{}/account", pages.prefix), &flash) {
        return reply;
    }
    let shown = Shown::Failed(status, form, fields, (&message, field));
    retry(error, show(pages, call, who, shown).await)
}

pub(super) async fn show(pages: &Pages, call: &Call<'_>, who: &Identity, shown: Shown<'_>) -> Reply {
    let (Ok(sessions), Ok(tokens), Some(identities), Ok(has_password)) = (
        user_sessions::list(&pages.accounts, who).await,
        user_tokens::list(&pages.accounts, who).await,
        provider_lists::identity_lines(pages, who).await,
        profile::has_password(&pages.accounts, who).await,
    ) else {
        return errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call);
    };
    let (status, form, (error, field)) = match shown {
        Shown::Failed(status, form, _, told) => (status, form, told),
        _ => (StatusCode::OK, "", ("", "")),
    };
    let typed = |of: &str, name: &str| match shown {
        Shown::Failed(_, form, fields, _) if form == of => fields.get(name),
        _ => None,
    };
    let saved = query(call, &["saved"]).filter(|_| form.is_empty());
    let template = Account {
        frame: pages.assets.frame(),
        heading: "Your account",
        notice: saved.as_deref().map_or("", notice),
        form,
        error,
        field,
        email: &who.user.email,
        groups: &who.user.groups.join(", "),
        home: &pages.rules.after_login,
        logout: &format!("{}/logout", pages.prefix),
        base: &format!("{}/account", pages.prefix),
        name: typed("profile", "name").unwrap_or(&who.user.name),
        picture: typed("profile", "picture").unwrap_or(&who.user.picture),
        has_password,
        min_length: pages.min_length,
        identities,
        providers: &provider_lists::all(pages).map(|own| (own.name.clone(), own.label.clone())).collect::<Vec<_>>(),
        is_fresh: fresh::by_age(&pages.accounts, who).is_some(),
        sessions: sessions.into_iter().map(|info| SessionRow::new(info, &who.session.id)).collect(),
        tokens: tokens.into_iter().map(TokenRow::new).collect(),
        new_token: if let Shown::Token(token) = &shown { token.expose() } else { "" },
        form_id: &random_token().map_or_else(|_| String::new(), |id| id.expose().to_owned()),
        token_name: typed("token", "token_name").unwrap_or_default(),
        scopes: typed("token", "scopes").unwrap_or_default(),
        days: typed("token", "days").unwrap_or("90"),
    };
    view::html(pages, status, &template, Some(call.incoming), false)
}

pub(super) async fn change_profile(pages: &Pages, call: &Call<'_>, who: &Identity) -> Reply {
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    let (name, picture) = (fields.get("name"), fields.get("picture"));
    let done = profile::change(&pages.accounts, &call.caller, who, name, picture).await;
    changed(pages, call, who, &fields, done, "profile").await
}

pub(super) async fn change_password(pages: &Pages, call: &Call<'_>, who: &Identity) -> Reply {
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    let (current, new) = (fields.secret("current_password"), fields.secret("password"));
    let keep_tokens = fields.ticked("keep_tokens");
    let done = profile::change_password(&pages.accounts, &call.caller, who, current, new, keep_tokens).await;
    changed(pages, call, who, &fields, done, "password").await
}

async fn changed(
    pages: &Pages,
    call: &Call<'_>,
    who: &Identity,
    fields: &Fields,
    done: Result<(), ChangeError>,
    what: &'static str,
) -> Reply {
    match done {
        Ok(()) if fields.is_json() => {
            Reply::json(StatusCode::OK, &json!({ "user": user_json(&who.session.user.load()) }))
        }
        Ok(()) => Site::see_other(&format!("{}/account?saved={what}", pages.prefix)),
        Err(error) => form_failed(pages, call, who, what, fields, &error).await,
    }
}

/// GET lists sessions as JSON; POST ends one (`id`) or all of them (`everywhere`).
pub(super) async fn sessions(pages: &Pages, call: &Call<'_>, who: &Identity) -> Reply {
    if call.incoming.method != http::Method::POST {
        return match user_sessions::list(&pages.accounts, who).await {
            Ok(sessions) => Reply::json(StatusCode::OK, &json!({ "sessions": sessions, "current": who.session.id })),
            Err(_) => errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call),
        };
    }
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    let everywhere = fields.ticked("everywhere");
    let ended = if everywhere {
        user_sessions::end_all(&pages.accounts, &call.caller, who, false).await.map(|()| true)
    } else {
        user_sessions::end(&pages.accounts, &call.caller, who, fields.text("id")).await
    };
    let own = everywhere || fields.get("id") == Some(who.session.id.as_str());
    match ended {
        Err(_) => errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call),
        // another tab ended it first: the page no longer lists it
        Ok(false) if !is_browsers(call) => errors::refused(pages, StatusCode::NOT_FOUND, call),
        Ok(_) => {
            let reply = match (fields.is_json(), own) {
                (true, _) => Reply::empty(StatusCode::NO_CONTENT),
                (false, true) => Site::see_other(&format!("{}/signed-out", pages.prefix)),
                (false, false) => Site::see_other(&format!("{}/account?saved=session", pages.prefix)),
            };
            if own { session_cookies::without_cookie(pages, reply) } else { reply }
        }
    }
}

/// The notice for a value of `?saved=`.
fn notice(saved: &str) -> &'static str {
    match saved {
        "profile" => "Your profile was saved.",
        "password" => {
            "Your password was changed. You have been signed out everywhere else, and API tokens that you did not keep have been revoked."
        }
        "linked" => "That sign-in was added to your account.",
        "unlinked" => "That sign-in was removed, and sessions that began with it have ended.",
        "session" => "That session was signed out.",
        "token" => "That token was revoked.",
        "token_made" => "That token has already been created. It is in the list below; its value was shown only once.",
        _ => "",
    }
}
