//! The callback of a provider: begins a session, asks a question, or shows an error. Nothing of its query gets into
//! an address, a page or the log.

use http::{HeaderValue, StatusCode, header};

use super::call::{Call, Pages};
use super::pending_question::{FIRST, Question, ask, refusal};
use super::provider_relay::{self, Relay};
use super::site::Site;
use super::{errors, pending_sign_in, provider_lists, provider_replies, session_cookies};
use crate::account::identity::rules::ProviderRules;
use crate::account::identity::sign_in::{self, Finished};
use crate::account::provider::attempt::{AttemptId, Browser};
use crate::account::provider::errors::{Failure, Reason};
use crate::account::provider::finish::{self, Callback, Known, Unfinished};
use crate::account::provider::identity::{Intent, ProviderIdentity};
use crate::account::provider::tokens::ProviderTokens;
use crate::config::{AuthJsClient, Provider, SameSite};
use crate::metrics;
use crate::web::reply::Reply;

/// Marks a callback that a page of ours has forwarded. With `session.same_site = "strict"` a navigation from
/// the provider carries no session cookie, and a redirect after it would not carry the new one either.
const FROM_HERE: &str = "from_here";

/// GET at a provider's redirect URI.
pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    let path = call.incoming.path.as_str();
    let provider = provider_lists::all(pages).find(|provider| provider.callback == path);
    let (Some(provider), Some(providers)) = (provider, pages.accounts.providers()) else {
        return errors::refused(pages, StatusCode::NOT_FOUND, call);
    };
    let pairs = form_urlencoded::parse(call.incoming.query.unwrap_or_default());
    let mut query: Vec<(String, String)> = pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let origin = match provider_relay::read(pages, call, &mut query) {
        Relay::Here(origin) => origin.to_string(),
        Relay::Elsewhere(reply) => return reply,
    };
    if pages.same_site == SameSite::Strict && !query.is_empty() && !query.iter().any(|(name, _)| name == FROM_HERE) {
        let here = format!("{}&{FROM_HERE}=1", call.incoming.origin_form());
        return provider_replies::leading_on(pages, call, &here);
    }
    let browser = provider_replies::browser(pages, call.incoming.headers);
    let callback = Callback {
        provider: &provider.name,
        path,
        origin: &origin,
        query: &query,
        address: call.caller.counted_address(),
        browser: browser.clone(),
    };
    match (finish::finish(providers, &callback).await, browser) {
        (Ok(finished), Some(browser)) => {
            if let Intent::Pending { hash } = &finished.intent {
                return pending_sign_in::finish(pages, call, provider, &browser, &finished, hash).await;
            }
            let what = (&finished.identity, &finished.intent, false);
            let place = finished.return_to.as_deref();
            let attempt = Some((&finished.attempt, &finished.tokens));
            decide(pages, call, provider, &browser, what, (place, attempt)).await
        }
        (Ok(_), None) => errors::refused(pages, StatusCode::BAD_REQUEST, call),
        (Err(unfinished), browser) => not_finished(pages, call, provider, browser.as_ref(), &unfinished),
    }
}

/// Decides which account the identity belongs to; gives the reply.
pub(super) async fn decide(
    pages: &Pages,
    call: &Call<'_>,
    provider: &Provider,
    browser: &Browser,
    (identity, intent, is_decided): (&ProviderIdentity, &Intent, bool),
    (place, attempt): (Option<&str>, Option<(&AttemptId, &ProviderTokens)>),
) -> Reply {
    let rules = ProviderRules::new(provider);
    let tokens = attempt.map(|(_, tokens)| tokens);
    let decided = sign_in::finish(&pages.accounts, &call.caller, &rules, identity, intent, is_decided, tokens).await;
    let Ok(decided) = decided else {
        return errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call)
            .with(header::RETRY_AFTER, HeaderValue::from(2u16));
    };
    match decided {
        Finished::SignedIn(begun, _) => {
            if let (Some(providers), Some((attempt, _))) = (pages.accounts.providers(), attempt) {
                providers.began(attempt, &begun.session.id);
            }
            let place = pages.return_to(place, call.incoming);
            let reply = Site::see_other(place.as_str());
            session_cookies::signed_in(pages, call, reply, Some(place.as_str()), &begun)
        }
        Finished::Kept => Site::see_other(pages.return_to(place, call.incoming).as_str()),
        Finished::Linked(_) => Site::see_other(&format!("{}/account?saved=linked", pages.prefix)),
        Finished::Collision => ask(pages, call, provider, browser, identity, (&Question::Collision, place, FIRST)),
        Finished::SignedInAs(email) => {
            ask(pages, call, provider, browser, identity, (&Question::SignedInAs(&email), place, FIRST))
        }
        Finished::Refused(why) => provider_replies::message(pages, call, StatusCode::FORBIDDEN, refusal(why)),
    }
}

fn not_finished(
    pages: &Pages,
    call: &Call<'_>,
    provider: &Provider,
    browser: Option<&Browser>,
    unfinished: &Unfinished,
) -> Reply {
    let Unfinished { failure, known } = unfinished;
    let place = known.as_ref().and_then(|known| known.return_to.as_deref());
    if let Some(reply) = already_signed_in(pages, call, failure, known.as_ref()) {
        return reply;
    }
    let request_id = call.caller.request_id.as_str();
    let (reason, detail) = (failure.reason.word(), failure.detail.as_str());
    tracing::warn!(request_id, provider = provider.name, reason, detail, "sign-in through provider failed");
    metrics::PROVIDERS.login(&provider.name, reason);
    let cancelled = match pages.authjs.client {
        AuthJsClient::V5 => "OAuthCallbackError",
        AuthJsClient::V4 | AuthJsClient::Auto => "Callback",
    };
    // to where the person was
    let back = |code: &str| {
        let again = match (browser, known.as_ref().map(|known| &known.intent)) {
            (Some(browser), Some(Intent::Pending { hash })) => {
                pending_sign_in::ask_again(pages, call, browser, hash, (place, code))
            }
            _ => None,
        };
        again.unwrap_or_else(|| provider_replies::back_to_login(pages, call, place, code))
    };
    match failure.reason {
        Reason::RepeatedParameter | Reason::NoState | Reason::BadState | Reason::NoCode | Reason::AlreadyUsed => {
            let what = "This sign-in is not valid any more: it took too long, was finished before, or began in another \
                        browser. Start again.";
            provider_replies::message(pages, call, StatusCode::BAD_REQUEST, what)
        }
        Reason::NoCookie => {
            let what = "Your browser did not send the cookie that this sign-in began with. Allow cookies for this site, \
                        then start again.";
            provider_replies::message(pages, call, StatusCode::BAD_REQUEST, what)
        }
        Reason::Busy | Reason::Throttled => provider_replies::wait(pages, call, failure),
        Reason::NotAllowed => provider_replies::message(
            pages,
            call,
            StatusCode::FORBIDDEN,
            "You are not allowed to sign in here with this account.",
        ),
        Reason::Denied | Reason::ProviderError => back(cancelled),
        Reason::GroupsUnavailable => back("OAuthGroups"),
        _ => back("OAuthCallback"),
    }
}

/// An existing session wins over a callback that came late, twice or from elsewhere.
fn already_signed_in(pages: &Pages, call: &Call<'_>, failure: &Failure, known: Option<&Known>) -> Option<Reply> {
    let who = call.identity.as_ref()?;
    match failure.reason {
        Reason::AlreadyUsed => {
            let began_it = known.filter(|known| known.began_session.as_deref() == Some(who.session.id.as_str()));
            let place = began_it.and_then(|known| known.return_to.as_deref());
            Some(Site::see_other(pages.return_to(place, call.incoming).as_str()))
        }
        Reason::NoState | Reason::NoCookie | Reason::BadState => {
            Some(Site::see_other(pages.return_to(None, call.incoming).as_str()))
        }
        _ => None,
    }
}
