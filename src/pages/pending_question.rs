//! The page that asks what to do with an identity at a provider that belongs to no account yet, and how it comes back from
//! there: sealed, in a field of its form.

use http::StatusCode;
use ring::digest::{SHA256, digest};

use super::call::{Call, Pages};
use super::view::Pending;
use super::{provider_lists, provider_replies, view};
use crate::account::identity::fresh;
use crate::account::identity::pending::{self, PendingIdentity};
use crate::account::identity::sign_in::Refusal;
use crate::account::provider::attempt::Browser;
use crate::account::provider::identity::ProviderIdentity;
use crate::config::Provider;
use crate::web::reply::Reply;

/// The question about a pending identity.
pub(super) enum Question<'q> {
    /// Its e-mail address belongs to an account.
    Collision,
    /// The browser is signed in to another account, with this address.
    SignedInAs(&'q str),
}

/// Status and error message of a page that asks for the first time.
pub(super) const FIRST: (StatusCode, &str) = (StatusCode::OK, "");

/// The page that asks about a pending identity. It does not depend on how people sign in to the account.
pub(super) fn ask(
    pages: &Pages,
    call: &Call<'_>,
    provider: &Provider,
    browser: &Browser,
    identity: &ProviderIdentity,
    (question, place, (status, error)): (&Question<'_>, Option<&str>, (StatusCode, &str)),
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
    let (heading, signed_in_as, others) = match question {
        Question::Collision => ("This address has an account", "", provider_lists::others(pages, &provider.name)),
        Question::SignedInAs(email) => ("You are signed in already", *email, Vec::new()),
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
        has_passwords: pages.has_passwords,
        is_fresh,
        others: &others,
    };
    view::html(pages, status, &page, Some(call.incoming), false)
}

/// A pending identity that comes back, and its provider. `None`: another browser's, altered, too old, of a removed
/// provider, or of a question to someone who is not signed in any more.
pub(super) fn opened<'p>(
    pages: &'p Pages,
    call: &Call<'_>,
    browser: &Browser,
    sealed: &str,
) -> Option<(PendingIdentity, &'p Provider)> {
    let waiting = pending::open(&pages.accounts.sealing_key(), &bound(browser), sealed, pages.accounts.now())?;
    // a person who signed in meanwhile was not asked
    let is_here = |asked: &String| call.identity.as_ref().is_some_and(|who| who.session.id == *asked);
    let provider = provider_lists::all(pages).find(|provider| provider.name == waiting.identity.provider)?;
    waiting.asked.as_ref().is_none_or(is_here).then_some((waiting, provider))
}

/// Marks a sealed identity as used; `false`: it was used before.
pub(super) fn use_up(pages: &Pages, sealed: &str) -> bool {
    pages.accounts.providers().is_some_and(|providers| providers.use_pending(sealed))
}

pub(super) fn too_late(pages: &Pages, call: &Call<'_>) -> Reply {
    let what = "That took too long, was answered before, or began in another browser. Start again.";
    provider_replies::message(pages, call, StatusCode::BAD_REQUEST, what)
}

/// What a browser's pending identities are bound to.
fn bound(browser: &Browser) -> [u8; 32] {
    let hash = digest(&SHA256, browser.cookie().as_bytes());
    let mut bound = [0; 32];
    bound.copy_from_slice(hash.as_ref());
    bound
}

/// The message for a refusal. Unknown and unverified addresses get the same one.
pub(super) fn refusal(why: Refusal) -> &'static str {
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
