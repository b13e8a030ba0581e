//! Signing out, here and at the provider that the session began with (OpenID Connect RP-Initiated Logout 1.0). The session
//! here ends first, whatever the provider does.

use url::Url;

use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::{StoreDown, store_down};
use crate::account::provider::end_session::{self, EndSession};
use crate::account::provider::token_seal;
use crate::account::session::session::Session;
use crate::store;

/// Ends the session. Gives the address at its provider that ends the person's session there, too, if the configuration
/// asks for that and the provider has one. `return_uri` is where the provider sends people afterwards.
///
/// # Errors
/// [`StoreDown`]: the session has not ended.
pub(crate) async fn sign_out(
    accounts: &Accounts,
    caller: &Caller,
    session: &Session,
    return_uri: &str,
) -> Result<Option<Url>, StoreDown> {
    let shared = &*accounts.shared;
    let now = shared.clock.now();
    let user = session.user.load_full();
    let event = audit::about("sign_out", caller, now, &user.id, &user.email);
    let (id, written) = (session.id.clone(), event.clone());
    let left = shared.store.run(move |db| store::sealed_tokens::sign_out(db, &id, now, &written)).await;
    let left = left.map_err(|error| store_down(&error))?;
    audit::log(&event);
    let (Some(left), Some(providers)) = (left, accounts.providers()) else { return Ok(None) };
    let key = accounts.sealing_key();
    let id_token = left.id_token.and_then(|sealed| token_seal::open(&key, &session.id, token_seal::ID, &sealed));
    let wanted = EndSession {
        provider: &left.provider,
        issuer: left.issuer.as_deref(),
        return_uri,
        id_token: id_token.as_ref(),
    };
    Ok(end_session::address(providers, &wanted).await)
}
