//! POST oauth/link: the answer to the question about a pending identity.

use http::StatusCode;

use super::call::{Call, Pages};
use super::form::Fields;
use super::pending_question::{self, Question, ask, refusal, too_late};
use super::site::Site;
use super::{errors, form, login, pending_sign_in, provider_callback, provider_replies, session_cookies};
use crate::account::identity::fresh;
use crate::account::identity::rules::ProviderRules;
use crate::account::identity::sign_in::{self, Finished};
use crate::account::provider::attempt::Browser;
use crate::account::provider::identity::{Intent, ProviderIdentity};
use crate::account::{self, Identity, SignInError};
use crate::config::Provider;
use crate::web::reply::Reply;

pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    let sealed = fields.text("pending");
    let browser = provider_replies::browser(pages, call.incoming.headers);
    let found = browser.as_ref().and_then(|browser| pending_question::opened(pages, call, browser, sealed));
    let (Some(browser), Some((waiting, provider))) = (browser, found) else {
        return too_late(pages, call);
    };
    let identity = &waiting.identity;
    let place = fields.get("callbackUrl").filter(|place| !place.is_empty());
    match (&call.identity, fields.get("answer"), fields.get("with")) {
        // the person wants to switch accounts
        (Some(_), Some("switch"), _) if waiting.asked.is_some() => {
            if !pending_question::use_up(pages, sealed) {
                return too_late(pages, call);
            }
            let what = (identity, &Intent::SignIn, true);
            provider_callback::decide(pages, call, provider, &browser, what, (place, None)).await
        }
        (Some(who), Some("link"), _) if waiting.asked.is_some() => {
            let proof = match fresh::by_age(&pages.accounts, who) {
                Some(proof) => Ok(proof),
                None => fresh::by_password(&pages.accounts, &call.caller, who, fields.secret("password")).await,
            };
            let Ok(proof) = proof else {
                let question = Question::SignedInAs(&who.user.email);
                let text = if pages.has_passwords { "Incorrect password." } else { login::PASSWORDS_OFF };
                let error = (StatusCode::UNAUTHORIZED, text);
                return ask(pages, call, provider, &browser, identity, (&question, place, error));
            };
            if !pending_question::use_up(pages, sealed) {
                return too_late(pages, call);
            }
            linked(pages, call, who, &proof, provider, identity).await
        }
        (_, _, Some(other)) => {
            pending_sign_in::start(pages, call, &fields, other, (&browser, provider, &waiting)).await
        }
        _ => sign_in_and_link(pages, call, &fields, provider, (&browser, identity), place).await,
    }
}

async fn linked(
    pages: &Pages,
    call: &Call<'_>,
    who: &Identity,
    proof: &fresh::Fresh,
    provider: &Provider,
    identity: &ProviderIdentity,
) -> Reply {
    match sign_in::link_pending(&pages.accounts, &call.caller, who, proof, &ProviderRules::new(provider), identity)
        .await
    {
        Ok(Finished::Linked(_)) => Site::see_other(&format!("{}/account?saved=linked", pages.prefix)),
        Ok(Finished::Refused(why)) => provider_replies::message(pages, call, StatusCode::FORBIDDEN, refusal(why)),
        _ => errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call),
    }
}

/// Signs in to the account with its password, and links the pending identity.
async fn sign_in_and_link(
    pages: &Pages,
    call: &Call<'_>,
    fields: &Fields,
    provider: &Provider,
    (browser, identity): (&Browser, &ProviderIdentity),
    place: Option<&str>,
) -> Reply {
    let email = identity.email.as_ref().map_or("", |email| email.address.as_str());
    let password = fields.secret("password");
    let begun = account::sign_in::with_password(&pages.accounts, &call.caller, email, password, true).await;
    let begun = match begun {
        Ok(begun) => begun,
        Err(SignInError::Credentials) => {
            let error = (StatusCode::UNAUTHORIZED, "Incorrect password.");
            return ask(pages, call, provider, browser, identity, (&Question::Collision, place, error));
        }
        Err(SignInError::Throttled { retry_after_secs }) => {
            let text = login::wait(retry_after_secs);
            let error = (StatusCode::UNAUTHORIZED, text.as_str());
            return ask(pages, call, provider, browser, identity, (&Question::Collision, place, error));
        }
        Err(SignInError::PasswordsOff) => {
            return provider_replies::message(pages, call, StatusCode::FORBIDDEN, login::PASSWORDS_OFF);
        }
        Err(SignInError::Busy | SignInError::Unavailable) => {
            return errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call);
        }
    };
    let who = pages.accounts.identity_of(&begun.session);
    let place = pages.return_to(place, call.incoming);
    // the password was right, so the session begins even if the link failed
    let reply = pending_sign_in::add(pages, call, &who, provider, identity, place.as_str()).await;
    session_cookies::signed_in(pages, call, reply, Some(place.as_str()), &begun)
}
