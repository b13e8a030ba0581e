//! `provider_token`: apps get the access or ID token of the provider that a session began through. It is kept sealed
//! with the session, in memory while the session is in use, and renewed when a request needs it. Requests of such a
//! session reach the app with a token or not at all: an app must not take one without it for another person's.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::recheck;
use super::refreshed::{self, AtRest, Exchange};
use crate::account::accounts::Accounts;
use crate::account::errors::StoreDown;
use crate::account::provider::refresh::{NoAnswer, Refreshed};
use crate::account::session::begun_with::BegunWith;
use crate::account::session::session::{Session, SessionState};
use crate::account::session::upstream_tokens::{Age, UpstreamToken};
use crate::config::{ProviderToken, ProviderTokenKind};

/// Longest wait of a request.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long after a failure a provider is asked again for a session, seconds.
pub(crate) const RETRY_SECS: u64 = 10;
/// The same if the store or another exchange was in the way.
const STORE_RETRY_SECS: u64 = 1;

/// What a request gets.
pub(crate) enum Lookup {
    /// This one.
    Token(Arc<UpstreamToken>),
    /// It is to be waited for: see [`wait`].
    Wait,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// The session has ended: the provider refuses to renew its tokens, or none were kept with it.
    SessionEnded,
    /// The provider or the store cannot be reached.
    Unavailable,
}

/// What came of a task.
enum Outcome {
    Held,
    /// The session can have no token any more, for this reason.
    Ended(&'static str),
    /// Not now; after how many seconds it is tried again.
    Failed(u64),
}

/// The token that a request of this session carries; `None`: the session did not begin through that provider. Memory
/// only.
pub(crate) fn look_up(accounts: &Accounts, wanted: &ProviderToken, session: &Arc<Session>) -> Option<Lookup> {
    let begun = begun(wanted, session)?;
    let now = accounts.shared.monotonic_secs();
    Some(match held(begun, wanted.kind, now) {
        Some((token, Age::Fresh)) => Lookup::Token(token),
        Some((token, Age::Old)) => {
            start(accounts, wanted.kind, session, now);
            Lookup::Token(token)
        }
        _ => Lookup::Wait,
    })
}

/// Waits for the token. All requests of a session wait for one task, which goes on if they leave.
///
/// # Errors
/// [`NoToken`]
pub(crate) async fn wait(
    accounts: &Accounts,
    wanted: &ProviderToken,
    session: &Arc<Session>,
) -> Result<Arc<UpstreamToken>, NoToken> {
    let begun = begun(wanted, session).ok_or(NoToken::Unavailable)?;
    let waited = timeout(WAIT_MAX, settled(accounts, wanted.kind, session, begun)).await;
    waited
        .unwrap_or_else(|_| unexpired(accounts, wanted.kind, begun).map(|(token, _)| token).ok_or(NoToken::Unavailable))
}

async fn settled(
    accounts: &Accounts,
    kind: ProviderTokenKind,
    session: &Arc<Session>,
    begun: &BegunWith,
) -> Result<Arc<UpstreamToken>, NoToken> {
    loop {
        let mut settled = pin!(begun.tokens.settled());
        settled.as_mut().enable();
        if accounts.session_state(session) != SessionState::Active {
            return Err(NoToken::SessionEnded);
        }
        let now = accounts.shared.monotonic_secs();
        let has_failed = begun.tokens.is_failed(now);
        match unexpired(accounts, kind, begun) {
            Some((token, age)) if has_failed || age != Age::Expiring => return Ok(token),
            None if has_failed => return Err(NoToken::Unavailable),
            _ => start(accounts, kind, session, now),
        }
        settled.await;
    }
}

/// A token that may still be sent.
fn unexpired(accounts: &Accounts, kind: ProviderTokenKind, begun: &BegunWith) -> Option<(Arc<UpstreamToken>, Age)> {
    held(begun, kind, accounts.shared.monotonic_secs()).filter(|(_, age)| *age != Age::Expired)
}

fn begun<'s>(wanted: &ProviderToken, session: &'s Session) -> Option<&'s BegunWith> {
    session.begun_with.as_deref().filter(|begun| *begun.provider == *wanted.provider)
}

fn held(begun: &BegunWith, kind: ProviderTokenKind, now: u64) -> Option<(Arc<UpstreamToken>, Age)> {
    let tokens = begun.tokens.load()?;
    let token = tokens.of(kind)?;
    Some((Arc::clone(token), token.age(now)))
}

/// Wakes all who wait, however the task ends.
struct Settles(Arc<Session>);

impl Drop for Settles {
    fn drop(&mut self) {
        if let Some(begun) = &self.0.begun_with {
            // it may have ended after its tokens were read
            if self.0.ended.load(Ordering::Acquire) {
                begun.tokens.forget();
            }
            begun.tokens.settle();
        }
    }
}

/// Starts the task, unless there is one or one has just failed.
fn start(accounts: &Accounts, kind: ProviderTokenKind, session: &Arc<Session>, now: u64) {
    let Some(begun) = &session.begun_with else { return };
    if !begun.tokens.begin(now) {
        return;
    }
    let (accounts, settles) = (accounts.clone(), Settles(Arc::clone(session)));
    drop(tokio::spawn(async move {
        let session = &settles.0;
        let Some(begun) = &session.begun_with else { return };
        let outcome = match renew(&accounts, kind, session, begun).await {
            Ok(Outcome::Ended(why)) => {
                let ended = refreshed::end(&accounts, session, begun, ("provider_token_ended", why)).await;
                ended.map(|()| Outcome::Held)
            }
            other => other,
        };
        let retry_secs = match outcome {
            Ok(Outcome::Failed(secs)) => secs,
            Ok(_) => return,
            // it was logged where it happened
            Err(StoreDown) => STORE_RETRY_SECS,
        };
        begun.tokens.fail(accounts.shared.monotonic_secs().saturating_add(retry_secs));
    }));
}

/// Reads the token, and exchanges the refresh token if it is old.
async fn renew(
    accounts: &Accounts,
    kind: ProviderTokenKind,
    session: &Arc<Session>,
    begun: &BegunWith,
) -> Result<Outcome, StoreDown> {
    let Some(providers) = accounts.providers() else { return Ok(Outcome::Failed(RETRY_SECS)) };
    let one = begun.refreshing.lock().await;
    let age = || held(begun, kind, accounts.shared.monotonic_secs()).map(|(_, age)| age);
    // by a recheck meanwhile
    if age() == Some(Age::Fresh) || accounts.session_state(session) != SessionState::Active {
        return Ok(Outcome::Held);
    }
    let at_rest = read(accounts, session).await?;
    begun.tokens.store(at_rest.for_upstreams(accounts, session, true));
    begun.tokens.wake();
    if age() == Some(Age::Fresh) {
        return Ok(Outcome::Held);
    }
    let exchange = refreshed::exchange_locked(accounts, providers, session, begun, &at_rest).await?;
    drop(one);
    Ok(match exchange {
        Exchange::Done(refreshed) => {
            confirm(accounts, session, begun, &refreshed).await?;
            let has_new = kind == ProviderTokenKind::Access || refreshed.tokens.id.is_some();
            match age() {
                // it had expired when it came, or no header can hold it: another sign-in would not help
                None | Some(Age::Expired) if has_new => Outcome::Failed(RETRY_SECS),
                age => without(age, at_rest.has(kind), "no_new_token"),
            }
        }
        Exchange::NoAnswer(NoAnswer::Ended(why)) => Outcome::Ended(why),
        Exchange::NoAnswer(NoAnswer::Unclear(failure)) => {
            let (provider, detail) = (&*begun.provider, failure.detail.as_str());
            tracing::warn!(provider, detail, "provider token could not be renewed");
            Outcome::Failed(RETRY_SECS)
        }
        Exchange::NoRefreshToken(_) => {
            begun.tokens.store(at_rest.for_upstreams(accounts, session, false));
            without(age(), at_rest.has(kind), "no_refresh_token")
        }
        // what the other one has stored
        Exchange::Overtaken => {
            let at_rest = read(accounts, session).await?;
            begun.tokens.store(at_rest.for_upstreams(accounts, session, true));
            match age() {
                Some(Age::Fresh) => Outcome::Held,
                _ => Outcome::Failed(STORE_RETRY_SECS),
            }
        }
    })
}

/// What it means that no further token comes after the one of this age. `has_one`: one was kept.
fn without(age: Option<Age>, has_one: bool, why: &'static str) -> Outcome {
    match age {
        // no header can hold it
        None if has_one => Outcome::Failed(RETRY_SECS),
        None => Outcome::Ended("no_token"),
        Some(Age::Expired) => Outcome::Ended(why),
        Some(_) => Outcome::Held,
    }
}

async fn read(accounts: &Accounts, session: &Arc<Session>) -> Result<AtRest, StoreDown> {
    let who = accounts.identity_of(session);
    let _permit = accounts.shared.store_permit_for(&who).await.map_err(|_| StoreDown)?;
    AtRest::read(accounts, session).await
}

/// New tokens serve the recheck, too, where there is one.
async fn confirm(
    accounts: &Accounts,
    session: &Session,
    begun: &BegunWith,
    refreshed: &Refreshed,
) -> Result<(), StoreDown> {
    let Some(providers) = accounts.providers() else { return Ok(()) };
    let Some(provider) = providers.list().find(|own| own.name == *begun.provider && own.recheck.is_some()) else {
        return Ok(());
    };
    recheck::by_new_tokens(accounts, (providers, provider), session, begun, refreshed).await
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;

    use super::*;
    use crate::account::session::upstream_tokens::UpstreamTokens;
    use crate::account::session::user::User;
    use crate::account::testing::World;
    use crate::secret::Secret;

    /// A session of the provider with a token that lives for 100 s. There is no provider to renew it.
    fn session(world: &World) -> Arc<Session> {
        let [name, picture] = [const { String::new() }; 2];
        let user = User::new("7".to_owned(), "ada@example.com".to_owned(), name, picture, Vec::new(), false);
        let now = world.accounts.now();
        let user = Arc::new(ArcSwap::from_pointee(user));
        let mut session = Session::new("s".to_owned(), user, now, now + 10_000, now);
        let begun = BegunWith::new(("corp", "ada"), now);
        let monotonic = world.accounts.shared.monotonic_secs();
        let token = UpstreamToken::new(&Secret::new("token".to_owned()), Some(100), true, monotonic).unwrap();
        begun.tokens.store(UpstreamTokens { access: Some(Arc::new(token)), id: None });
        session.begun_with = Some(Box::new(begun));
        Arc::new(session)
    }

    fn wanted(provider: &str, kind: ProviderTokenKind) -> ProviderToken {
        ProviderToken { provider: provider.to_owned(), kind, header: "X-Token".to_owned() }
    }

    fn seen(lookup: Option<Lookup>) -> Option<String> {
        lookup.map(|lookup| match lookup {
            Lookup::Token(token) => token.value(false).to_owned(),
            Lookup::Wait => "wait".to_owned(),
        })
    }

    #[tokio::test]
    async fn an_old_token_is_sent_while_a_new_one_is_asked_for_and_an_expired_one_never() {
        let world = World::new();
        let (session, access) = (session(&world), wanted("corp", ProviderTokenKind::Access));
        let look = || seen(look_up(&world.accounts, &access, &session));
        let tokens = &session.begun_with.as_ref().unwrap().tokens;
        let mut settled = pin!(tokens.settled());
        settled.as_mut().enable();
        assert_eq!(look().as_deref(), Some("token"));
        world.clock.advance(85);
        assert_eq!(look().as_deref(), Some("token"), "the request does not wait");
        settled.await;
        assert!(tokens.is_failed(world.accounts.shared.monotonic_secs()), "a task has tried");
        world.clock.advance(11);
        assert_eq!(look().as_deref(), Some("wait"));
        let waited = wait(&world.accounts, &access, &session).await.map(|token| token.value(false).to_owned());
        assert_eq!(waited.as_deref(), Ok("token"), "there is no other, and it has not expired");
        world.clock.advance(4);
        assert_eq!(look().as_deref(), Some("wait"));
        let waited = wait(&world.accounts, &access, &session).await.map(drop);
        assert_eq!(waited, Err(NoToken::Unavailable));
        session.ended.store(true, Ordering::Relaxed);
        assert_eq!(wait(&world.accounts, &access, &session).await.map(drop), Err(NoToken::SessionEnded));
    }

    #[tokio::test]
    async fn sessions_of_other_providers_and_of_passwords_have_none() {
        let world = World::new();
        let session = session(&world);
        let look =
            |provider, kind, session: &Arc<Session>| seen(look_up(&world.accounts, &wanted(provider, kind), session));
        assert_eq!(look("corp", ProviderTokenKind::Access, &session).as_deref(), Some("token"));
        assert_eq!(
            look("corp", ProviderTokenKind::Id, &session).as_deref(),
            Some("wait"),
            "it has one of another kind"
        );
        assert_eq!(look("corp2", ProviderTokenKind::Access, &session), None);
        world.user("ada@example.com");
        let by_password = world.sign_in("ada@example.com").await.session;
        assert_eq!(look("corp", ProviderTokenKind::Access, &by_password), None);
    }
}
