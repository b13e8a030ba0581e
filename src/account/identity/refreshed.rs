//! New tokens for a session: its refresh token is exchanged by one at a time, and what comes is stored before it is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::errors::{StoreDown, store_down};
use crate::account::provider::providers::Providers;
use crate::account::provider::refresh::{self, NoAnswer, PersonOf, Refreshed};
use crate::account::provider::token_seal;
use crate::account::provider::tokens::TimedToken;
use crate::account::session::begun_with::BegunWith;
use crate::account::session::session::Session;
use crate::account::session::upstream_tokens::{UpstreamToken, UpstreamTokens};
use crate::config::ProviderTokenKind;
use crate::sealing::SealingKey;
use crate::secret::Secret;
use crate::store::sealed_tokens::{self, Claimed};
use crate::store::{self, AuditRow, Db, SealedToken, SessionSelector};

/// Many servers refuse heads with longer fields.
const LONG_BYTES: usize = 8000;

/// What came of an exchange.
pub(super) enum Exchange {
    /// New tokens, which are stored as far as the configuration says.
    Done(Refreshed),
    /// The provider has none for it.
    NoAnswer(NoAnswer),
    /// The session has no refresh token; its access token, if that is kept.
    NoRefreshToken(Option<TimedToken>),
    /// The session has ended, or its tokens are exchanged elsewhere.
    Overtaken,
}

/// A session's tokens, as the store has them.
pub(super) struct AtRest {
    key: Arc<SealingKey>,
    rows: Vec<SealedToken>,
    /// The issuer that the identity is pinned to.
    issuer: Option<String>,
}

impl AtRest {
    pub(super) async fn read(accounts: &Accounts, session: &Session) -> Result<Self, StoreDown> {
        let id = session.id.clone();
        let read =
            move |db: &mut Db| Ok((sealed_tokens::of_session(db, &id)?, sealed_tokens::issuer_of_session(db, &id)?));
        let (rows, issuer) = accounts.shared.store.run(read).await.map_err(|error| store_down(&error))?;
        Ok(Self { key: accounts.sealing_key(), rows, issuer })
    }

    fn row(&self, kind: &str) -> Option<&SealedToken> {
        self.rows.iter().find(|token| token.kind == kind)
    }

    fn timed(&self, session: &Session, kind: &str) -> Option<TimedToken> {
        token_seal::open_timed(&self.key, &session.id, self.row(kind)?)
    }

    fn refresh(&self, session: &Session) -> Option<(&SealedToken, Secret)> {
        let row = self.row(token_seal::REFRESH)?;
        Some((row, token_seal::open(&self.key, &session.id, row.kind, &row.value)?))
    }

    /// Whether there is one, even if it cannot be sent.
    pub(super) fn has(&self, kind: ProviderTokenKind) -> bool {
        let kind = match kind {
            ProviderTokenKind::Access => token_seal::ACCESS,
            ProviderTokenKind::Id => token_seal::ID,
        };
        self.row(kind).is_some()
    }

    /// As apps get them. `is_renewable`: there may be others after them.
    pub(super) fn for_upstreams(&self, accounts: &Accounts, session: &Session, is_renewable: bool) -> UpstreamTokens {
        let is_renewable = is_renewable && self.row(token_seal::REFRESH).is_some();
        let token = |kind| self.timed(session, kind).and_then(|token| for_upstream(accounts, &token, is_renewable));
        UpstreamTokens { access: token(token_seal::ACCESS), id: token(token_seal::ID) }
    }
}

/// `None`: no header can hold it, which is logged once.
fn for_upstream(accounts: &Accounts, token: &TimedToken, is_renewable: bool) -> Option<Arc<UpstreamToken>> {
    static IS_LOGGED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
    let shared = &*accounts.shared;
    let lifetime = token.expires.map(|expires| expires.saturating_sub(shared.clock.now()));
    let bytes = token.value.expose().len();
    match UpstreamToken::new(&token.value, lifetime, is_renewable, shared.monotonic_secs()) {
        Ok(token) => {
            if bytes > LONG_BYTES && !IS_LOGGED[0].swap(true, Ordering::Relaxed) {
                tracing::warn!(bytes, "provider token is long: many servers refuse request heads of this size");
            }
            Some(Arc::new(token))
        }
        Err(why) => {
            if !IS_LOGGED[1].swap(true, Ordering::Relaxed) {
                tracing::warn!(bytes, why, "provider token cannot be sent");
            }
            None
        }
    }
}

/// Exchanges the session's refresh token. The caller holds no lock.
pub(super) async fn exchange(
    accounts: &Accounts,
    providers: &Providers,
    session: &Session,
    begun: &BegunWith,
) -> Result<Exchange, StoreDown> {
    let _one = begun.refreshing.lock().await;
    let at_rest = AtRest::read(accounts, session).await?;
    exchange_locked(accounts, providers, session, begun, &at_rest).await
}

/// The same for one who holds `begun.refreshing`, and has read the tokens since.
pub(super) async fn exchange_locked(
    accounts: &Accounts,
    providers: &Providers,
    session: &Session,
    begun: &BegunWith,
    at_rest: &AtRest,
) -> Result<Exchange, StoreDown> {
    let without = || Exchange::NoRefreshToken(at_rest.timed(session, token_seal::ACCESS));
    let Some((sealed, token)) = at_rest.refresh(session) else { return Ok(without()) };
    let of = PersonOf { provider: &begun.provider, subject: &begun.subject, issuer: at_rest.issuer.as_deref() };
    let prepared = match refresh::prepare(providers, &of).await {
        Ok(prepared) => prepared,
        Err(none) => return Ok(Exchange::NoAnswer(none)),
    };
    let now = accounts.shared.clock.now();
    match with_row(accounts, session, sealed, move |db, id, row| sealed_tokens::claim(db, id, row, now)).await? {
        Claimed::Yes => {}
        Claimed::No => return Ok(Exchange::Overtaken),
        Claimed::Lost => return Ok(without()),
    }
    let refreshed = match refresh::exchange(prepared, &of, &token).await {
        Ok(refreshed) => refreshed,
        Err(NoAnswer::Ended(why)) => return Ok(Exchange::NoAnswer(NoAnswer::Ended(why))),
        Err(unclear) => {
            with_row(accounts, session, sealed, sealed_tokens::release).await?;
            return Ok(Exchange::NoAnswer(unclear));
        }
    };
    let provider = providers.list().find(|own| own.name == *begun.provider);
    let kept = provider.map(|provider| provider.kept).unwrap_or_default();
    // a provider that keeps its refresh token sends none
    let rows = token_seal::seal(&at_rest.key, &session.id, &refreshed.tokens, kept).map_err(|_| StoreDown)?;
    if !with_row(accounts, session, sealed, move |db, id, row| sealed_tokens::replace(db, id, row, &rows)).await? {
        return Ok(Exchange::Overtaken);
    }
    if begun.tokens.load().is_some() {
        begun.tokens.store(renewed(accounts, session, at_rest, &refreshed));
        begun.tokens.wake();
    }
    Ok(Exchange::Done(refreshed))
}

/// What apps get from now on. An ID token that was not renewed is the last one.
fn renewed(accounts: &Accounts, session: &Session, before: &AtRest, refreshed: &Refreshed) -> UpstreamTokens {
    let last = before.for_upstreams(accounts, session, false);
    let id = refreshed.tokens.id.as_ref().and_then(|token| for_upstream(accounts, token, true));
    UpstreamTokens { access: for_upstream(accounts, &refreshed.tokens.access, true), id: id.or(last.id) }
}

/// Runs a change of the row of a refresh token.
async fn with_row<T: Send + 'static>(
    accounts: &Accounts,
    session: &Session,
    sealed: &SealedToken,
    change: impl FnOnce(&mut Db, &str, &[u8]) -> Result<T, store::StoreError> + Send + 'static,
) -> Result<T, StoreDown> {
    let (id, row) = (session.id.clone(), sealed.value.clone());
    accounts.shared.store.run(move |db| change(db, &id, &row)).await.map_err(|error| store_down(&error))
}

/// Ends a session that its provider no longer confirms, with an audit event of this name.
pub(super) async fn end(
    accounts: &Accounts,
    session: &Session,
    begun: &BegunWith,
    (name, why): (&'static str, &str),
) -> Result<(), StoreDown> {
    let shared = &*accounts.shared;
    let now = shared.clock.now();
    let event = AuditRow { detail: format!("{} {why}", begun.provider), ..event(name, session, now) };
    let (id, written) = (session.id.clone(), event.clone());
    let selector = move |db: &mut Db| store::sessions::end_sessions(db, SessionSelector::Session(&id), now, &written);
    if shared.store.run(selector).await.map_err(|error| store_down(&error))? > 0 {
        audit::log(&event);
    }
    Ok(())
}

/// An audit event of a session's account.
pub(super) fn event(name: &'static str, session: &Session, now: u64) -> AuditRow {
    let user = session.user.load();
    AuditRow { at: now, event: name, user_id: user.id.clone(), email: user.email.clone(), ..AuditRow::default() }
}
