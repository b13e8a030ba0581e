//! The callback of a provider: begins a session, asks a question, or shows an error. Nothing of its query gets into
//! an address, a page or the log.

use http::{HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};

use super::call::{Call, Pages};
use super::form::Fields;
use super::provider_relay::{self, Relay};
use super::site::Site;
use super::view::Pending;
use super::{errors, form, login, provider_lists, provider_replies, session_cookies, view};
use crate::account::identity::fresh;
use crate::account::identity::pending::{self, PendingIdentity};
use crate::account::identity::rules::ProviderRules;
use crate::account::identity::sign_in::{self, Finished, Refusal};
use crate::account::provider::attempt::{AttemptId, Browser};
use crate::account::provider::errors::{Failure, Reason};
use crate::account::provider::failure_windows::WINDOW_SECS;
use crate::account::provider::finish::{self, Callback, Known, Unfinished};
use crate::account::provider::identity::{Intent, ProviderIdentity};
use crate::account::provider::tokens::ProviderTokens;
use crate::account::{self, Identity, SignInError};
use crate::config::{AuthJsClient, Provider, SameSite};
use crate::metrics;
use crate::web::reply::Reply;

/// Marks a callback that a page of ours has forwarded. With `session.same_site = "strict"` a navigation from
/// the provider carries no session cookie, and a redirect after it would not carry the new one either.
const FROM_HERE: &str = "from_here";

/// The question about a pending identity.
enum Question<'q> {
    /// Its e-mail address belongs to an account.
    Collision,
    /// The browser is signed in to another account, with this address.
    SignedInAs(&'q str),
}

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
            let what = (&finished.identity, &finished.intent, false);
            let place = finished.return_to.as_deref();
            let attempt = Some((&finished.attempt, &finished.tokens));
            decide(pages, call, provider, &browser, what, (place, attempt)).await
        }
        (Ok(_), None) => errors::refused(pages, StatusCode::BAD_REQUEST, call),
        (Err(unfinished), _) => not_finished(pages, call, provider, &unfinished),
    }
}

/// Decides which account the identity belongs to; gives the reply.
async fn decide(
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
        Finished::Collision => ask(pages, call, provider, browser, identity, (&Question::Collision, place, "")),
        Finished::SignedInAs(email) => {
            ask(pages, call, provider, browser, identity, (&Question::SignedInAs(&email), place, ""))
        }
        Finished::Refused(why) => provider_replies::message(pages, call, StatusCode::FORBIDDEN, refusal(why)),
    }
}

fn not_finished(pages: &Pages, call: &Call<'_>, provider: &Provider, unfinished: &Unfinished) -> Reply {
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
        Reason::Busy => errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call),
        Reason::Throttled => errors::refused(pages, StatusCode::TOO_MANY_REQUESTS, call)
            .with(header::RETRY_AFTER, HeaderValue::from(WINDOW_SECS)),
        Reason::NotAllowed => provider_replies::message(
            pages,
            call,
            StatusCode::FORBIDDEN,
            "You are not allowed to sign in here with this account.",
        ),
        Reason::Denied | Reason::ProviderError => provider_replies::back_to_login(pages, call, place, cancelled),
        Reason::GroupsUnavailable => provider_replies::back_to_login(pages, call, place, "OAuthGroups"),
        _ => provider_replies::back_to_login(pages, call, place, "OAuthCallback"),
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

/// The page that asks about a pending identity.
fn ask(
    pages: &Pages,
    call: &Call<'_>,
    provider: &Provider,
    browser: &Browser,
    identity: &ProviderIdentity,
    (question, place, error): (&Question<'_>, Option<&str>, &str),
) -> Reply {
    let key = pages.accounts.sealing_key();
    let asked = call.identity.as_ref().map(|who| who.session.id.as_str());
    let Some(sealed) = pending::seal(&key, &bound(browser), identity, asked, pages.accounts.now()) else {
        return provider_replies::message(
            pages,
            call,
            StatusCode::BAD_REQUEST,
            "Sign in first, then add this provider on your account page.",
        );
    };
    let address = identity.email.as_ref().map_or("", |email| email.address.as_str());
    let (heading, signed_in_as) = match question {
        Question::Collision => ("This address has an account", ""),
        Question::SignedInAs(email) => ("You are signed in already", *email),
    };
    let is_fresh = call.identity.as_ref().is_some_and(|who| fresh::by_age(&pages.accounts, who).is_some());
    let page = Pending {
        frame: pages.assets.frame(),
        heading,
        error,
        label: &provider.label,
        action: &format!("{}/oauth/link", pages.prefix),
        sealed: &sealed,
        callback_url: place.unwrap_or_default(),
        email: address,
        signed_in_as,
        is_fresh,
    };
    let status = if error.is_empty() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    view::html(pages, status, &page, Some(call.incoming), false)
}

/// POST oauth/link: the answer to that page.
pub(super) async fn link_pending(pages: &Pages, call: &Call<'_>) -> Reply {
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    let key = pages.accounts.sealing_key();
    let browser = provider_replies::browser(pages, call.incoming.headers);
    let waiting = browser
        .as_ref()
        .and_then(|browser| pending::open(&key, &bound(browser), fields.text("pending"), pages.accounts.now()));
    // a person who signed in meanwhile was not asked
    let asked_is_here = |asked: &Option<String>| {
        asked.as_ref().is_none_or(|asked| call.identity.as_ref().is_some_and(|who| who.session.id == *asked))
    };
    let found = waiting.filter(|waiting| asked_is_here(&waiting.asked)).and_then(|waiting| {
        let provider = provider_lists::all(pages).find(|provider| provider.name == waiting.identity.provider)?;
        Some((waiting, provider))
    });
    let (Some(browser), Some((PendingIdentity { identity, asked }, provider))) = (browser, found) else {
        return too_late(pages, call);
    };
    let first_use =
        || pages.accounts.providers().is_some_and(|providers| providers.use_pending(fields.text("pending")));
    let place = fields.get("callbackUrl").filter(|place| !place.is_empty());
    match (&call.identity, fields.get("answer")) {
        // the person wants to switch accounts
        (Some(_), Some("switch")) if asked.is_some() => {
            if !first_use() {
                return too_late(pages, call);
            }
            decide(pages, call, provider, &browser, (&identity, &Intent::SignIn, true), (place, None)).await
        }
        (Some(who), Some("link")) if asked.is_some() => {
            let proof = match fresh::by_age(&pages.accounts, who) {
                Some(proof) => Ok(proof),
                None => fresh::by_password(&pages.accounts, &call.caller, who, fields.secret("password")).await,
            };
            let Ok(proof) = proof else {
                let question = Question::SignedInAs(&who.user.email);
                return ask(pages, call, provider, &browser, &identity, (&question, place, "Incorrect password."));
            };
            if !first_use() {
                return too_late(pages, call);
            }
            linked(pages, call, who, &proof, provider, &identity).await
        }
        _ => sign_in_and_link(pages, call, &fields, provider, (&browser, &identity), place).await,
    }
}

fn too_late(pages: &Pages, call: &Call<'_>) -> Reply {
    let what = "That took too long, was answered before, or began in another browser. Start again.";
    provider_replies::message(pages, call, StatusCode::BAD_REQUEST, what)
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
            return ask(pages, call, provider, browser, identity, (&Question::Collision, place, "Incorrect password."));
        }
        Err(SignInError::Throttled { retry_after_secs }) => {
            let text = login::wait(retry_after_secs);
            return ask(pages, call, provider, browser, identity, (&Question::Collision, place, &text));
        }
        Err(SignInError::Busy | SignInError::Unavailable) => {
            return errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call);
        }
    };
    let who = pages.accounts.identity_of(&begun.session);
    let linked = match fresh::by_age(&pages.accounts, &who) {
        Some(proof) => {
            sign_in::link_pending(&pages.accounts, &call.caller, &who, &proof, &ProviderRules::new(provider), identity)
                .await
        }
        None => Ok(Finished::Refused(Refusal::SessionEnded)),
    };
    let place = pages.return_to(place, call.incoming);
    // the password was right, so the session begins even if the link failed
    let reply = match linked {
        Ok(Finished::Linked(_)) => Site::see_other(place.as_str()),
        Ok(Finished::Refused(why)) => provider_replies::message(pages, call, StatusCode::FORBIDDEN, refusal(why)),
        _ => errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call),
    };
    session_cookies::signed_in(pages, call, reply, Some(place.as_str()), &begun)
}

/// What a browser's pending identities are bound to.
fn bound(browser: &Browser) -> [u8; 32] {
    let hash = digest(&SHA256, browser.cookie().as_bytes());
    let mut bound = [0; 32];
    bound.copy_from_slice(hash.as_ref());
    bound
}

/// The message for a refusal. Unknown and unverified addresses get the same one.
fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::NotAllowed(_) | Refusal::Disabled | Refusal::OtherIssuer => {
            "You are not allowed to sign in here with this account."
        }
        Refusal::NoVerifiedEmail => {
            "The provider did not confirm your e-mail address, so no account could be found or created for it."
        }
        Refusal::NoAccount => {
            "There is no account here for you yet. Ask the site administrator for an invite, or sign in as you usually do \
             and add this provider on your account page."
        }
        Refusal::OfAnother => {
            "This sign-in belongs to another account here. Sign in with it instead, or remove it there first."
        }
        Refusal::LoggedOut => "You were signed out at the provider in the meantime. Start again.",
        Refusal::SessionEnded => "Your session ended in the meantime. Sign in, then try again.",
        Refusal::TooMany => "Your account has too many sign-ins already. Remove one first.",
        Refusal::InviteWhileSignedIn => {
            "You are signed in to another account. Sign out first, then open the invite again."
        }
        Refusal::NoInvite => "The invite is not valid any more. Ask the person who sent it for a new one.",
    }
}
