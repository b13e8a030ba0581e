//! Links an identity at a provider to the account, or removes it. Both require a recent sign-in, because they outlive the
//! session.

use http::StatusCode;
use serde_json::json;

use super::call::{Call, Pages};
use super::form::Fields;
use super::site::Site;
use super::{account, errors, form, provider_lists, provider_replies, providers};
use crate::account::identity::fresh::{self, Fresh};
use crate::account::identity::links;
use crate::account::provider::identity::Intent;
use crate::account::{ChangeError, Identity, Unlinked};
use crate::web::reply::Reply;

/// Proof of a recent sign-in, or of the password in the form.
async fn freshness(pages: &Pages, call: &Call<'_>, who: &Identity, fields: &Fields) -> Result<Fresh, ChangeError> {
    match fresh::by_age(&pages.accounts, who) {
        Some(proof) => Ok(proof),
        None => fresh::by_password(&pages.accounts, &call.caller, who, fields.secret("current_password")).await,
    }
}

/// POST account/link/NAME: starts at the provider, to link the identity to this account.
pub(super) async fn link_provider(pages: &Pages, call: &Call<'_>, who: &Identity) -> Reply {
    let name = call.incoming.path.as_str().rsplit('/').next().unwrap_or_default();
    if !provider_lists::all(pages).any(|provider| provider.name == name) {
        return errors::refused(pages, StatusCode::NOT_FOUND, call);
    }
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    if let Err(error) = freshness(pages, call, who, &fields).await {
        return account::form_failed(pages, call, who, "identities", &fields, &error).await;
    }
    let intent = Intent::Link { session: who.session.id.clone(), account: who.user.id.clone() };
    if let Ok(started) = providers::begin(pages, call, name, None, (intent, false), &[]).await {
        return provider_replies::started(pages, call, fields.is_json(), &started);
    }
    // the login page would redirect a signed-in browser without a message
    let what = "This provider cannot be reached right now. Try again in a moment.";
    provider_replies::message(pages, call, StatusCode::SERVICE_UNAVAILABLE, what)
}

/// POST account/unlink with `provider` and `subject`.
pub(super) async fn unlink_provider(pages: &Pages, call: &Call<'_>, who: &Identity) -> Reply {
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    let proof = match freshness(pages, call, who, &fields).await {
        Ok(proof) => proof,
        Err(error) => return account::form_failed(pages, call, who, "identities", &fields, &error).await,
    };
    let configured = provider_lists::all(pages).map(|provider| provider.name.clone()).collect();
    let what = (fields.text("provider"), fields.text("subject"));
    let Ok(unlinked) = links::unlink(&pages.accounts, &call.caller, who, &proof, what, configured).await else {
        return account::form_failed(pages, call, who, "identities", &fields, &ChangeError::Unavailable).await;
    };
    match unlinked {
        Unlinked::Yes(_) if fields.is_json() => Reply::empty(StatusCode::NO_CONTENT),
        Unlinked::Yes(_) => Site::see_other(&format!("{}/account?saved=unlinked", pages.prefix)),
        Unlinked::Missing if fields.is_json() => errors::refused(pages, StatusCode::NOT_FOUND, call),
        Unlinked::Missing => Site::see_other(&format!("{}/account", pages.prefix)),
        Unlinked::LastCredential if fields.is_json() => Reply::json(StatusCode::CONFLICT, &json!({ "error": "last" })),
        Unlinked::LastCredential => {
            let what = "This is the only way to sign in to your account. Add another one first.";
            provider_replies::message(pages, call, StatusCode::CONFLICT, what)
        }
    }
}
