//! Starts sign-ins through providers. A start is a link (GET): Chromium applies the page's `form-action`, which
//! lists no provider, to redirects of forms.

use http::{StatusCode, header};

use super::call::{Call, Pages};
use super::form::query;
use super::login::RETURN_NAMES;
use super::site::Site;
use super::{errors, guard, provider_lists, provider_relay, provider_replies};
use crate::account::provider::errors::{Failure, Reason};
use crate::account::provider::identity::Intent;
use crate::account::provider::start::{Start, Started, start};
use crate::metrics;
use crate::secret::token_hash;
use crate::web::reply::Reply;

/// A further name of the return URL (OpenID Connect Core, 4).
const TARGET: &str = "target_link_uri";

/// GET oauth/NAME: redirects to the provider, so any site may link to it.
pub(super) async fn answer(pages: &Pages, call: &Call<'_>, name: &str) -> Reply {
    if !provider_lists::all(pages).any(|provider| provider.name == name) {
        return errors::refused(pages, StatusCode::NOT_FOUND, call);
    }
    let names: Vec<&str> = RETURN_NAMES.into_iter().chain([TARGET]).collect();
    let wanted = query(call, &names);
    let invite = query(call, &["invite"]);
    if let Some(token) = &invite
        && !is_from_own_page(call)
    {
        return to_invite(pages, call, token);
    }
    if pages.rules.domain.is_some() && call.incoming.origin() != pages.public_url {
        // with a shared session people sign in at `public_url`, where the redirect URI is
        let place = pages.return_to(wanted.as_deref(), call.incoming);
        let place = place.as_str();
        let absolute =
            if place.starts_with('/') { format!("{}{place}", call.incoming.origin()) } else { place.to_owned() };
        if let Some(token) = &invite {
            return Site::see_other(&format!("{}{}/invite/{token}", pages.public_url, pages.prefix));
        }
        let page = format!("{}{}/oauth/{name}", pages.public_url, pages.prefix);
        return Site::see_other(&Site::leading_to(&page, &absolute));
    }
    let intent = match invite {
        Some(token) => Intent::Invite { hash: token_hash(&token) },
        None if query(call, &["signup"]).is_some() => Intent::SignUp,
        None => Intent::SignIn,
    };
    let is_fresh = query(call, &["fresh"]).is_some();
    match begin(pages, call, name, wanted.as_deref(), (intent, is_fresh), &provider_lists::client_params(call)).await {
        Ok(started) => provider_replies::with_browser(pages, Site::see_other(started.url.as_str()), &started.browser),
        Err(failure) => not_started(pages, call, wanted.as_deref(), &failure),
    }
}

/// Whether a page of this host linked here. Nothing else may accept an invite: the identity would be linked to an
/// account that someone else chose (login CSRF; RFC 9700, 4.7).
fn is_from_own_page(call: &Call<'_>) -> bool {
    let incoming = call.incoming;
    match incoming.single("sec-fetch-site") {
        Some(site) => site == "same-origin",
        // browsers do not send it over plain http
        None => {
            incoming.headers.contains_key(header::REFERER)
                && !guard::is_cross_origin(incoming, &[incoming.origin()], &[])
        }
    }
}

/// Redirects to the page of an invite, where people see what it is for.
fn to_invite(pages: &Pages, call: &Call<'_>, token: &str) -> Reply {
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return errors::refused(pages, StatusCode::NOT_FOUND, call);
    }
    Site::see_other(&format!("{}/invite/{token}", pages.prefix))
}

/// Begins an attempt, and logs failures.
pub(super) async fn begin(
    pages: &Pages,
    call: &Call<'_>,
    name: &str,
    wanted: Option<&str>,
    (intent, is_fresh): (Intent, bool),
    params: &[(String, String)],
) -> Result<Started, Failure> {
    let Some(providers) = pages.accounts.providers() else {
        return Err(Failure::new(Reason::UnknownProvider, "no providers"));
    };
    let (origin, address) = provider_relay::redirect(pages, call.incoming.origin());
    let place = wanted.map(|wanted| pages.return_to(Some(wanted), call.incoming).as_str().to_owned());
    let what = Start {
        provider: name,
        browser: provider_replies::browser(pages, call.incoming.headers),
        origin: &origin.to_string(),
        address: &address,
        return_to: place,
        intent,
        is_fresh,
        params,
        caller: call.caller.counted_address(),
    };
    let started = start(providers, what).await;
    if let Err(failure) = &started {
        let request_id = call.caller.request_id.as_str();
        let (reason, detail) = (failure.reason.word(), failure.detail.as_str());
        tracing::warn!(request_id, provider = name, reason, detail, "sign-in through provider not started");
        if failure.reason != Reason::UnknownProvider {
            metrics::PROVIDERS.login(name, reason);
        }
    }
    started
}

fn not_started(pages: &Pages, call: &Call<'_>, wanted: Option<&str>, failure: &Failure) -> Reply {
    if matches!(failure.reason, Reason::Busy | Reason::Throttled) {
        return provider_replies::wait(pages, call, failure);
    }
    provider_replies::back_to_login(pages, call, wanted, "OAuthSignin")
}
