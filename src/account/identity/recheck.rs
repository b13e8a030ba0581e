//! `recheck`: while a session is in use its provider is asked again whether the person may still sign in, and which groups
//! they have. Off the threads that serve requests; one exchange a session; a provider that cannot be
//! reached ends nothing.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::refreshed::{self, Exchange, event};
use super::rules::ProviderRules;
use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::errors::{StoreDown, store_down};
use crate::account::provider::identity::ProviderIdentity;
use crate::account::provider::providers::Providers;
use crate::account::provider::refresh::{self, NoAnswer, PersonOf, Refreshed};
use crate::account::session::begun_with::BegunWith;
use crate::account::session::session::{Session, SessionState};
use crate::config::Provider;
use crate::store::rechecks::{self, Confirmed};
use crate::store::{self, AuditRow};

/// Rechecks in progress of one provider: one that hangs holds up no other's. Sign-ins share the provider's connections with them.
const IN_PROGRESS_MAX: usize = 8;
/// How long after an answer that says nothing the provider is asked again, seconds.
const RETRY_SECS: u64 = 60;

/// The rechecks of a process.
#[derive(Default)]
pub(crate) struct Rechecks {
    /// By provider.
    places: HashMap<Box<str>, Arc<Semaphore>>,
    /// Where the next round goes on.
    next: usize,
}

/// What a provider says.
enum Answer {
    /// The session may go on; with how it describes the person, if it does.
    Confirmed(Option<Box<ProviderIdentity>>),
    /// It may not, for this reason.
    Ended(&'static str),
    /// Nothing now.
    Unclear,
}

impl Rechecks {
    /// Starts the rechecks that are due, as far as there is room; looks at a part of all sessions. Call it every second
    /// or so.
    pub(crate) fn start_due(&mut self, accounts: &Accounts) {
        let Some(providers) = accounts.providers() else { return };
        let every: Vec<(&str, u64)> =
            providers.list().filter_map(|own| Some((own.name.as_str(), own.recheck?.as_secs()))).collect();
        if every.is_empty() {
            return;
        }
        let shared = &*accounts.shared;
        let (now, monotonic) = (shared.clock.now(), shared.monotonic_secs());
        let is_due = |begun: &BegunWith, seen| {
            let own = every.iter().find(|(name, _)| *name == &*begun.provider);
            own.is_some_and(|(_, secs)| begun.is_due(*secs, seen, now, monotonic))
        };
        let (due, next) = shared.sessions.begun_with(self.next, is_due);
        self.next = next.unwrap_or(0);
        self.places.retain(|name, _| every.iter().any(|(own, _)| *own == &**name));
        for session in due {
            let Some(begun) = &session.begun_with else { continue };
            let places = self.places.entry(begun.provider.clone());
            let places = places.or_insert_with(|| Arc::new(Semaphore::new(IN_PROGRESS_MAX)));
            // a session without a place is found again
            let Ok(place) = Arc::clone(places).try_acquire_owned() else { continue };
            // until this one is done, or has failed
            begun.wait_until(monotonic.saturating_add(RETRY_SECS));
            let accounts = accounts.clone();
            drop(tokio::spawn(async move {
                let _place = place;
                // a failure was logged where it happened; it is tried again
                let _ = recheck(&accounts, &session).await;
            }));
        }
    }
}

async fn recheck(accounts: &Accounts, session: &Session) -> Result<(), StoreDown> {
    let (Some(providers), Some(begun)) = (accounts.providers(), &session.begun_with) else { return Ok(()) };
    let Some(provider) = providers.list().find(|own| own.name == *begun.provider) else { return Ok(()) };
    if accounts.session_state(session) != SessionState::Active {
        return Ok(());
    }
    let answer = ask(accounts, providers, provider, session, begun).await?;
    apply(accounts, provider, session, begun, answer).await
}

/// What new tokens say of the person: they were asked for anyway, and the recheck need not ask again.
pub(super) async fn by_new_tokens(
    accounts: &Accounts,
    (providers, provider): (&Providers, &Provider),
    session: &Session,
    begun: &BegunWith,
    refreshed: &Refreshed,
) -> Result<(), StoreDown> {
    let person = refresh::person(providers, &provider.name, refreshed).await;
    apply(accounts, provider, session, begun, answer(provider, person)).await
}

async fn apply(
    accounts: &Accounts,
    provider: &Provider,
    session: &Session,
    begun: &BegunWith,
    answer: Answer,
) -> Result<(), StoreDown> {
    match answer {
        Answer::Unclear => Ok(()),
        Answer::Ended(why) => end(accounts, session, begun, why).await,
        Answer::Confirmed(identity) => confirmed(accounts, provider, session, begun, identity.as_deref()).await,
    }
}

async fn ask(
    accounts: &Accounts,
    providers: &Providers,
    provider: &Provider,
    session: &Session,
    begun: &BegunWith,
) -> Result<Answer, StoreDown> {
    let person = match refreshed::exchange(accounts, providers, session, begun).await? {
        Exchange::Done(refreshed) => refresh::person(providers, &provider.name, &refreshed).await,
        Exchange::NoAnswer(none) => Err(none),
        // an access token that does not expire, as GitHub's
        Exchange::NoRefreshToken(Some(access)) if !provider.kind.is_openid() => {
            let id = session.id.clone();
            let pinned = accounts.shared.store.run(move |db| store::sealed_tokens::issuer_of_session(db, &id)).await;
            let pinned = pinned.map_err(|error| store_down(&error))?;
            let of = PersonOf { provider: &provider.name, subject: &begun.subject, issuer: pinned.as_deref() };
            refresh::person_by_access(providers, &of, &access.value).await.map(Some)
        }
        Exchange::NoRefreshToken(_) => return Ok(Answer::Ended("no_refresh_token")),
        Exchange::Overtaken => return Ok(Answer::Unclear),
    };
    Ok(answer(provider, person))
}

fn answer(provider: &Provider, person: Result<Option<ProviderIdentity>, NoAnswer>) -> Answer {
    match person {
        Ok(person) => Answer::Confirmed(person.map(Box::new)),
        Err(NoAnswer::Ended(why)) => Answer::Ended(why),
        Err(NoAnswer::Unclear(failure)) => {
            let (provider, detail) = (provider.name.as_str(), failure.detail.as_str());
            tracing::warn!(provider, detail, "recheck without an answer, session kept");
            Answer::Unclear
        }
    }
}

async fn end(accounts: &Accounts, session: &Session, begun: &BegunWith, why: &str) -> Result<(), StoreDown> {
    refreshed::end(accounts, session, begun, ("recheck_ended", why)).await
}

async fn confirmed(
    accounts: &Accounts,
    provider: &Provider,
    session: &Session,
    begun: &BegunWith,
    identity: Option<&ProviderIdentity>,
) -> Result<(), StoreDown> {
    let shared = &*accounts.shared;
    let now = shared.clock.now();
    let rules = ProviderRules::new(provider);
    if identity.is_some_and(|identity| identity.subject != *begun.subject) {
        return end(accounts, session, begun, "another_person").await;
    }
    if let Some(why) = identity.and_then(|identity| rules.check(identity).err()) {
        let event =
            AuditRow { detail: format!("{} {}", rules.name, why.name()), ..event("provider_refused", session, now) };
        let (key, written) = ((rules.name.clone(), begun.subject.to_string()), event.clone());
        let issuer = identity.and_then(|identity| identity.issuer.clone());
        let refuse =
            move |db: &mut store::Db| store::identities::refuse(db, (&key.0, &key.1), issuer.as_deref(), &written);
        let ended = shared.store.run(refuse).await;
        ended.map_err(|error| store_down(&error))?;
        audit::log(&event);
        return Ok(());
    }
    let (id, row) = (session.id.clone(), identity.map(|identity| rules.row(identity)));
    let written = shared.store.run(move |db| rechecks::confirm(db, &id, row.as_ref(), now)).await;
    match written.map_err(|error| store_down(&error))? {
        Confirmed::Yes => begun.confirmed(now),
        Confirmed::Ended => {}
        Confirmed::OtherIssuer => return end(accounts, session, begun, "other_issuer").await,
    }
    Ok(())
}
