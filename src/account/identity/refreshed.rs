//! New tokens for a session: its refresh token is exchanged by one at a time, and what comes is stored before it is used.

use crate::account::accounts::Accounts;
use crate::account::errors::{StoreDown, store_down};
use crate::account::provider::providers::Providers;
use crate::account::provider::refresh::{self, NoAnswer, PersonOf, Refreshed};
use crate::account::provider::token_seal;
use crate::account::provider::tokens::TimedToken;
use crate::account::session::begun_with::BegunWith;
use crate::account::session::session::Session;
use crate::store::{self, SealedToken};

/// What came of an exchange.
pub(super) enum Exchange {
    /// New tokens, which are stored as far as the configuration says.
    Done(Refreshed),
    /// The provider has none for it.
    NoAnswer(NoAnswer),
    /// The session has no refresh token; its access token, if that is kept.
    NoRefreshToken(Option<TimedToken>),
    /// The session has ended, or its tokens have been exchanged elsewhere.
    Overtaken,
}

/// Exchanges the session's refresh token. The caller holds no lock.
pub(super) async fn exchange(
    accounts: &Accounts,
    providers: &Providers,
    session: &Session,
    begun: &BegunWith,
) -> Result<Exchange, StoreDown> {
    let _one = begun.refreshing.lock().await;
    let shared = &*accounts.shared;
    let id = session.id.clone();
    let read = move |db: &mut store::Db| {
        Ok((store::sealed_tokens::of_session(db, &id)?, store::sealed_tokens::issuer_of_session(db, &id)?))
    };
    let (held, pinned) = shared.store.run(read).await.map_err(|error| store_down(&error))?;
    let key = accounts.sealing_key();
    let find = |kind: &str| held.iter().find(|token| token.kind == kind);
    let refresh = find(token_seal::REFRESH)
        .and_then(|sealed| Some((sealed, token_seal::open(&key, &session.id, sealed.kind, &sealed.value)?)));
    let Some((sealed, token)) = refresh else {
        let access = find(token_seal::ACCESS).and_then(|sealed| token_seal::open_timed(&key, &session.id, sealed));
        return Ok(Exchange::NoRefreshToken(access));
    };
    let of = PersonOf { provider: &begun.provider, subject: &begun.subject, issuer: pinned.as_deref() };
    let refreshed = match refresh::refresh(providers, &of, &token).await {
        Ok(refreshed) => refreshed,
        Err(none) => return Ok(Exchange::NoAnswer(none)),
    };
    let provider = providers.list().find(|own| own.name == *begun.provider);
    let kept = provider.map(|provider| provider.kept).unwrap_or_default();
    let rows = token_seal::seal(&key, &session.id, &refreshed.tokens, kept).map_err(|_| StoreDown)?;
    Ok(if store_new(accounts, session, sealed, rows).await? { Exchange::Done(refreshed) } else { Exchange::Overtaken })
}

/// Stores new tokens over those that were exchanged. A provider that keeps its refresh token sends none.
async fn store_new(
    accounts: &Accounts,
    session: &Session,
    exchanged: &SealedToken,
    rows: Vec<SealedToken>,
) -> Result<bool, StoreDown> {
    let (id, old) = (session.id.clone(), exchanged.value.clone());
    let stored = accounts.shared.store.run(move |db| store::sealed_tokens::replace(db, &id, &old, &rows)).await;
    stored.map_err(|error| store_down(&error))
}
