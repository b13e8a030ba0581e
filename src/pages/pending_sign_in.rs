//! The question about a pending identity, answered by signing in through another provider: to the account with the
//! identity's address and to no other. The identity is then added to it.

use http::{HeaderValue, StatusCode, header};

use super::call::{Call, Pages};
use super::form::Fields;
use super::pending_question::{self, Question, ask, refusal, too_late};
use super::site::Site;
use super::{errors, login, provider_lists, provider_replies, providers, session_cookies};
use crate::account::Identity;
use crate::account::identity::fresh;
use crate::account::identity::pending::PendingIdentity;
use crate::account::identity::rules::ProviderRules;
use crate::account::identity::sign_in::{self, Finished, Refusal};
use crate::account::provider::attempt::Browser;
use crate::account::provider::finish;
use crate::account::provider::identity::{Intent, ProviderIdentity};
use crate::config::Provider;
use crate::web::reply::Reply;

/// Starts at the provider with this name. The identity waits here meanwhile, still sealed.
pub(super) async fn start(
    pages: &Pages,
    call: &Call<'_>,
    fields: &Fields,
    name: &str,
    (browser, provider, waiting): (&Browser, &Provider, &PendingIdentity),
) -> Reply {
    let other = provider_lists::all(pages).find(|other| other.name == name && other.name != provider.name);
    let (Some(_), Some(providers)) = (other, pages.accounts.providers()) else {
        return errors::refused(pages, StatusCode::NOT_FOUND, call);
    };
    let place = fields.get("callbackUrl").filter(|place| !place.is_empty());
    // linking requires that the person has just proved who they are
    let what = (Intent::Pending { hash: providers.keep_pending(fields.text("pending")) }, true);
    if let Ok(started) = providers::begin(pages, call, name, place, what, &[]).await {
        return provider_replies::started(pages, call, fields.is_json(), &started);
    }
    let error = (StatusCode::SERVICE_UNAVAILABLE, login::told("OAuthSignin"));
    ask(pages, call, provider, browser, &waiting.identity, (&Question::Collision, place, error))
}

/// The callback of the other provider.
pub(super) async fn finish(
    pages: &Pages,
    call: &Call<'_>,
    other: &Provider,
    browser: &Browser,
    finished: &finish::Finished,
    hash: &[u8; 32],
) -> Reply {
    let Some((sealed, waiting, provider)) = waiting(pages, call, browser, hash) else {
        return too_late(pages, call);
    };
    let (accounts, place) = (&pages.accounts, finished.return_to.as_deref());
    let (rules, tokens) = (ProviderRules::new(other), Some(&finished.tokens));
    let pending = &waiting.identity;
    let decided = sign_in::finish_for(accounts, &call.caller, &rules, &finished.identity, pending, tokens).await;
    let why = match decided {
        Ok(Finished::SignedIn(begun, _)) => {
            if let Some(providers) = accounts.providers() {
                providers.began(&finished.attempt, &begun.session.id);
            }
            let who = accounts.identity_of(&begun.session);
            let place = pages.return_to(place, call.incoming);
            let reply = if pending_question::use_up(pages, &sealed) {
                add(pages, call, &who, provider, pending, place.as_str()).await
            } else {
                too_late(pages, call)
            };
            return session_cookies::signed_in(pages, call, reply, Some(place.as_str()), &begun);
        }
        // another tab has just signed in with this identity
        Ok(Finished::Kept) => {
            let Some(who) = &call.identity else { return too_late(pages, call) };
            if !pending_question::use_up(pages, &sealed) {
                return too_late(pages, call);
            }
            let place = pages.return_to(place, call.incoming);
            return add(pages, call, who, provider, pending, place.as_str()).await;
        }
        Ok(Finished::Refused(Refusal::OfAnother)) => "belongs to another account",
        Ok(Finished::Refused(Refusal::NoAccount | Refusal::NoVerifiedEmail) | Finished::Collision) => {
            "is not a way to sign in to this account yet"
        }
        Ok(Finished::Refused(why)) => {
            return provider_replies::message(pages, call, StatusCode::FORBIDDEN, refusal(why));
        }
        Ok(Finished::Linked(_) | Finished::SignedInAs(_)) | Err(_) => return unavailable(pages, call),
    };
    let error = format!("Your sign-in with {} {why}, so nothing was added. Sign in another way.", other.label);
    let error = (StatusCode::FORBIDDEN, error.as_str());
    ask(pages, call, provider, browser, pending, (&Question::Collision, place, error))
}

/// Asks again after a sign-in through another provider that failed. `None`: the identity does not wait any more.
pub(super) fn ask_again(
    pages: &Pages,
    call: &Call<'_>,
    browser: &Browser,
    hash: &[u8; 32],
    (place, code): (Option<&str>, &str),
) -> Option<Reply> {
    let (_, waiting, provider) = waiting(pages, call, browser, hash)?;
    let error = (StatusCode::OK, login::told(code));
    Some(ask(pages, call, provider, browser, &waiting.identity, (&Question::Collision, place, error)))
}

fn waiting<'p>(
    pages: &'p Pages,
    call: &Call<'_>,
    browser: &Browser,
    hash: &[u8; 32],
) -> Option<(String, PendingIdentity, &'p Provider)> {
    let sealed = pages.accounts.providers()?.pending(hash)?;
    let (waiting, provider) = pending_question::opened(pages, call, browser, &sealed)?;
    Some((sealed, waiting, provider))
}

/// Adds the identity to the account that its owner has just signed in to.
pub(super) async fn add(
    pages: &Pages,
    call: &Call<'_>,
    who: &Identity,
    provider: &Provider,
    identity: &ProviderIdentity,
    place: &str,
) -> Reply {
    let linked = match fresh::by_age(&pages.accounts, who) {
        Some(proof) => {
            let rules = ProviderRules::new(provider);
            sign_in::link_pending(&pages.accounts, &call.caller, who, &proof, &rules, identity).await
        }
        None => Ok(Finished::Refused(Refusal::SessionEnded)),
    };
    match linked {
        Ok(Finished::Linked(_)) => Site::see_other(place),
        Ok(Finished::Refused(why)) => provider_replies::message(pages, call, StatusCode::FORBIDDEN, refusal(why)),
        _ => unavailable(pages, call),
    }
}

fn unavailable(pages: &Pages, call: &Call<'_>) -> Reply {
    errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call).with(header::RETRY_AFTER, HeaderValue::from(2u16))
}
