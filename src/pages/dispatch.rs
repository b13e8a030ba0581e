//! Dispatches a call to its endpoint. Method, origin and session are checked here, for all endpoints
//! in the same way.

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::call::{Call, Pages};
use super::site::Site;
use super::table::{Endpoint, Entry, Open, Page, Personal};
use super::{
    account, authjs, backchannel_logout, endpoints, errors, guard, identities, link, login, logout, loops,
    pending_answer, provider_callback, provider_form, providers, signup, tokens,
};
use crate::account::Identity;
use crate::web::incoming::CallerKind;
use crate::web::reply::Reply;

/// Handles a call: checks method, origin and session, then calls the endpoint.
pub async fn answer(pages: &Pages, page: Page, call: Call<'_>) -> Reply {
    // scopes of API tokens never cover a user's own pages
    let by_person = |who: &Identity| who.grant.is_none() || page.0 == Endpoint::Personal(Personal::Me);
    let call = Call { identity: call.identity.filter(by_person), ..call };
    let method = call.incoming.method;
    let Some(Entry { methods, .. }) = page.entry() else {
        return errors::refused(pages, StatusCode::NOT_FOUND, &call);
    };
    let reads = method == Method::GET || method == Method::HEAD;
    let is_callback = page.0 == Endpoint::Open(Open::ProviderCallback);
    if is_callback && method == Method::POST {
        // it is posted by the provider's page, without cookies, and changes nothing
        return provider_form::answer(pages, &call);
    }
    if !(methods.contains(method) || (reads && methods.contains(&Method::GET))) {
        if page.0 == Endpoint::Open(Open::AuthJs) {
            return authjs::answer(pages, &call).await;
        }
        // after a refused form the browser stays at the form's address, and may open it again
        if matches!(page.0, Endpoint::Personal(Personal::Profile | Personal::Password)) && call.incoming.is_navigation()
        {
            return Site::see_other(&format!("{}/account", pages.prefix));
        }
        let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let reply = errors::refused(pages, StatusCode::METHOD_NOT_ALLOWED, &call);
        return match HeaderValue::try_from(allowed) {
            Ok(allowed) => reply.with(header::ALLOW, allowed),
            Err(_) => reply,
        };
    }
    let is_guarded = !reads && !page.is_for_providers();
    if is_guarded && guard::is_cross_origin(call.incoming, &pages.own(call.incoming), &pages.shared_with) {
        if page.0 == Endpoint::Open(Open::AuthJs) {
            return authjs::cross_origin(pages, &call);
        }
        if let Some(reply) = loops::wrong_scheme(pages, &call) {
            return reply;
        }
        if call.incoming.wants_page() {
            return errors::from_elsewhere(pages, &call.caller.request_id, call.incoming);
        }
        return errors::refused(pages, StatusCode::FORBIDDEN, &call);
    }
    if call.is_unavailable && is_for_one(page) {
        return errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, &call)
            .with(header::RETRY_AFTER, HeaderValue::from(2u16));
    }
    match (page.0, &call.identity) {
        (Endpoint::Open(open), _) => answer_open(pages, open, &call).await,
        (Endpoint::Personal(personal), Some(who)) => answer_personal(pages, personal, &call, who).await,
        (Endpoint::Personal(personal), None) => signed_out(pages, personal, &call),
        (Endpoint::Unknown, _) => errors::refused(pages, StatusCode::NOT_FOUND, &call),
    }
}

/// Whether it says who is signed in, so that an answer for nobody would be wrong. Sign-in is possible without a session,
/// and sign-out has an answer of its own.
fn is_for_one(page: Page) -> bool {
    matches!(page.0, Endpoint::Personal(_) | Endpoint::Open(Open::AuthJs | Open::SignedOut))
}

async fn answer_open(pages: &Pages, endpoint: Open, call: &Call<'_>) -> Reply {
    match endpoint {
        Open::ChangePassword if !pages.has_passwords => errors::refused(pages, StatusCode::NOT_FOUND, call),
        Open::Root | Open::ChangePassword => Site::see_other(&format!("{}/account", pages.prefix)),
        Open::Login => login::answer(pages, call).await,
        Open::Signup => signup::answer(pages, call).await,
        Open::Link => link::answer(pages, call).await,
        Open::Logout => logout::answer(pages, call).await,
        Open::SignedOut => logout::signed_out_page(pages, call),
        Open::Jwks => endpoints::jwks(pages),
        Open::AuthJs => authjs::answer(pages, call).await,
        Open::Provider => oauth(pages, call).await,
        Open::ProviderCallback => provider_callback::answer(pages, call).await,
        Open::BackchannelLogout => backchannel_logout::answer(pages, call).await,
        Open::Asset => {
            pages.assets.answer(call.incoming).unwrap_or_else(|| errors::refused(pages, StatusCode::NOT_FOUND, call))
        }
    }
}

/// Below `oauth/`: a provider's name starts a sign-in, `link` answers the question about a pending identity.
async fn oauth(pages: &Pages, call: &Call<'_>) -> Reply {
    let path = call.incoming.path.as_str();
    let rest = path.strip_prefix(pages.prefix.as_str()).and_then(|rest| rest.strip_prefix("/oauth/"));
    match (rest, call.incoming.method == Method::POST) {
        (Some("link"), true) => pending_answer::answer(pages, call).await,
        (Some(name), false) if !name.contains('/') => providers::answer(pages, call, name).await,
        _ => errors::refused(pages, StatusCode::NOT_FOUND, call),
    }
}

async fn answer_personal(pages: &Pages, endpoint: Personal, call: &Call<'_>, who: &Identity) -> Reply {
    match endpoint {
        Personal::Account => account::answer(pages, call, who).await,
        Personal::Profile => account::change_profile(pages, call, who).await,
        Personal::Password => account::change_password(pages, call, who).await,
        Personal::Sessions => account::sessions(pages, call, who).await,
        Personal::Tokens => tokens::answer(pages, call, who).await,
        Personal::LinkProvider => identities::link_provider(pages, call, who).await,
        Personal::UnlinkProvider => identities::unlink_provider(pages, call, who).await,
        Personal::Me => endpoints::me(who),
        Personal::WsTicket => endpoints::ws_ticket(pages, call, who),
    }
}

/// Sign-in may return to the account page; the responses of other endpoints are for programs.
fn signed_out(pages: &Pages, endpoint: Personal, call: &Call<'_>) -> Reply {
    if endpoint == Personal::Account && call.incoming.is_navigation() {
        return loops::login_redirect(pages, call.incoming, &call.caller.request_id);
    }
    let reply = if matches!(call.incoming.caller_kind(), CallerKind::Form | CallerKind::Turbo) {
        errors::error_page(pages, StatusCode::UNAUTHORIZED, &call.caller.request_id, Some(call.incoming))
    } else {
        Reply::json(
            StatusCode::UNAUTHORIZED,
            &json!({ "error": "signed_out", "login": pages.login_url(call.incoming) }),
        )
    };
    reply.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
