//! The end of a sign-in through a provider: the rules of the provider are asked at every one, then the store decides
//! which account the identity belongs to and begins the session, in one transaction.

use super::fresh::Fresh;
use super::logout;
use super::rules::{NotAllowed, ProviderRules};
use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::{StoreDown, store_down};
use crate::account::fields;
use crate::account::ids::new_id;
use crate::account::limits::login_throttle::presented_device;
use crate::account::provider::identity::{Intent, ProviderIdentity};
use crate::account::provider::token_seal;
use crate::account::provider::tokens::ProviderTokens;
use crate::account::session::draft::{NewSessionDraft, SignedIn};
use crate::account::session::session::Identity;
use crate::clock::UnixSecs;
use crate::config::SignUp;
use crate::metrics;
use crate::store::provider_sign_ins::{self, reason};
use crate::store::{
    self, AuditRow, Db, Entry, LastHere, Linked, NewUser, ProviderIntent, ProviderOutcome, ProviderSignIn,
    SessionIdentity,
};

/// What came of a sign-in through a provider, for pages to show.
#[derive(Debug)]
#[allow(dead_code, reason = "pages need not tell a new link or account from a known one; tests do")]
pub(crate) enum Finished {
    /// A session has begun.
    SignedIn(Box<SignedIn>, Entry),
    /// The session that the browser presented goes on: another of its tabs has just signed in with this identity.
    Kept,
    /// The identity was added to the account; `false`: it belonged to it before.
    Linked(bool),
    /// The browser is signed in to the account with this address, which the identity does not belong to: ask.
    SignedInAs(String),
    /// The address is an account's: its owner signs in there, and the identity is added.
    Collision,
    /// No session begins.
    Refused(Refusal),
}

/// Why no session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// By the rules of the provider.
    NotAllowed(NotAllowed),
    /// Its account is disabled.
    Disabled,
    /// It was pinned to another issuer.
    OtherIssuer,
    /// It has no account, and no verified address to find or create one by.
    NoVerifiedEmail,
    /// It has no account, and none may be created.
    NoAccount,
    /// It belongs to another account.
    OfAnother,
    /// The session that it was to be linked in has ended, or is not this browser's.
    SessionEnded,
    /// The account has as many identities as it may have.
    TooMany,
    /// The invite is not valid any more.
    NoInvite,
    /// The provider has ended its own session meanwhile.
    LoggedOut,
    /// The invite is for a new account, and the browser is signed in to another one.
    InviteWhileSignedIn,
}

/// Ends a sign-in. `is_decided`: whoever is signed in here was asked, and wants to sign in with this identity. `tokens`
/// are kept as far as the rules say.
///
/// # Errors
/// [`StoreDown`]: nothing was changed.
pub(crate) async fn finish(
    accounts: &Accounts,
    caller: &Caller,
    rules: &ProviderRules,
    identity: &ProviderIdentity,
    intent: &Intent,
    is_decided: bool,
    tokens: Option<&ProviderTokens>,
) -> Result<Finished, StoreDown> {
    let intent = store_intent(accounts, rules, identity, intent, is_decided)?;
    carry_out(accounts, caller, rules, identity, intent, tokens).await
}

/// The same, to the account with the address of a pending identity and to no other.
///
/// # Errors
/// [`StoreDown`]: nothing was changed.
pub(crate) async fn finish_for(
    accounts: &Accounts,
    caller: &Caller,
    rules: &ProviderRules,
    identity: &ProviderIdentity,
    pending: &ProviderIdentity,
    tokens: Option<&ProviderTokens>,
) -> Result<Finished, StoreDown> {
    let email = pending.email.as_ref().and_then(|email| fields::canonical(&email.address));
    let intent = ProviderIntent::SignInTo { email: email.unwrap_or_default() };
    carry_out(accounts, caller, rules, identity, intent, tokens).await
}

async fn carry_out(
    accounts: &Accounts,
    caller: &Caller,
    rules: &ProviderRules,
    identity: &ProviderIdentity,
    intent: ProviderIntent,
    tokens: Option<&ProviderTokens>,
) -> Result<Finished, StoreDown> {
    let shared = &*accounts.shared;
    let now = shared.clock.now();
    if let Err(why) = rules.check(identity) {
        return refuse(accounts, caller, identity, why, now).await;
    }
    let _permit = shared.store_permit(caller).await.map_err(|_| StoreDown)?;
    let last_here = match presented_device(caller) {
        Some(device) => {
            let last = shared.store.run(move |db| store::devices::last_at_device(db, &device)).await;
            last.map_err(|error| store_down(&error))?
        }
        None => LastHere::Nobody,
    };
    let mut draft = NewSessionDraft::new(accounts, caller, true, last_here, now)?;
    draft.row.identity = Some(SessionIdentity {
        provider: rules.name.clone(),
        subject: identity.subject.clone(),
        idp_sid: identity.session_id.clone(),
    });
    draft.row.authenticated = rules.authenticated(identity, now);
    let tokens = tokens.map(|tokens| token_seal::seal(&accounts.sealing_key(), &draft.row.id, tokens, rules.kept));
    let what = ProviderSignIn {
        identity: rules.row(identity),
        intent,
        session: draft.row.clone(),
        tokens: tokens.transpose().map_err(|_| StoreDown)?.unwrap_or_default(),
        links_by_email: rules.links_by_email,
    };
    let event = audit::event("provider_sign_in", caller, now);
    let written = event.clone();
    let has_ended = logout::overtook(accounts, &rules.name, identity.session_id.as_deref());
    let sign_in = move |db: &mut Db| {
        if has_ended() {
            return provider_sign_ins::refuse_ended(db, &what, &written);
        }
        provider_sign_ins::sign_in(db, &what, now, &written)
    };
    let outcome = shared.store.run(sign_in).await;
    let outcome = outcome.map_err(|error| store_down(&error))?;
    log_outcome(rules, identity, &outcome, event);
    finished(accounts, draft, outcome)
}

/// What came of it, for pages.
fn finished(accounts: &Accounts, draft: NewSessionDraft, outcome: ProviderOutcome) -> Result<Finished, StoreDown> {
    Ok(match outcome {
        ProviderOutcome::SignedIn { user, how, .. } => {
            Finished::SignedIn(Box::new(draft.signed_in(accounts, &user.id)?), how)
        }
        ProviderOutcome::Kept { .. } => Finished::Kept,
        ProviderOutcome::Linked(event) => Finished::Linked(event.is_some()),
        ProviderOutcome::SignedInAs(email) => Finished::SignedInAs(email),
        ProviderOutcome::Collision => Finished::Collision,
        ProviderOutcome::NoVerifiedEmail => Finished::Refused(Refusal::NoVerifiedEmail),
        ProviderOutcome::NoAccount => Finished::Refused(Refusal::NoAccount),
        ProviderOutcome::Disabled => Finished::Refused(Refusal::Disabled),
        ProviderOutcome::OtherIssuer(_) => Finished::Refused(Refusal::OtherIssuer),
        ProviderOutcome::OfAnother => Finished::Refused(Refusal::OfAnother),
        ProviderOutcome::SessionEnded => Finished::Refused(Refusal::SessionEnded),
        ProviderOutcome::TooMany => Finished::Refused(Refusal::TooMany),
        ProviderOutcome::NoInvite => Finished::Refused(Refusal::NoInvite),
        ProviderOutcome::LoggedOut => Finished::Refused(Refusal::LoggedOut),
        ProviderOutcome::InviteWhileSignedIn => Finished::Refused(Refusal::InviteWhileSignedIn),
    })
}

/// Adds an identity that waited to the account that its owner has just signed in to.
///
/// # Errors
/// [`StoreDown`]: nothing was changed.
pub(crate) async fn link_pending(
    accounts: &Accounts,
    caller: &Caller,
    who: &Identity,
    _fresh: &Fresh,
    rules: &ProviderRules,
    identity: &ProviderIdentity,
) -> Result<Finished, StoreDown> {
    let shared = &*accounts.shared;
    let now = shared.clock.now();
    if let Err(why) = rules.check(identity) {
        return refuse(accounts, caller, identity, why, now).await;
    }
    let _permit = shared.store_permit_for(who).await.map_err(|_| StoreDown)?;
    let detail = format!("{} {}", rules.name, identity.subject);
    let event = AuditRow { detail, ..audit::by("identity_linked", caller, now, who) };
    let (row, id, written) = (rules.row(identity), who.user.id.clone(), event.clone());
    let linked = shared.store.run(move |db| store::identities::link(db, &row, &id, now, &written)).await;
    Ok(match linked.map_err(|error| store_down(&error))? {
        Linked::Yes => {
            audit::log(&event);
            Finished::Linked(true)
        }
        Linked::Already => Finished::Linked(false),
        Linked::OfAnother => Finished::Refused(Refusal::OfAnother),
        Linked::TooMany => Finished::Refused(Refusal::TooMany),
        Linked::NoAccount => Finished::Refused(Refusal::SessionEnded),
    })
}

fn store_intent(
    accounts: &Accounts,
    rules: &ProviderRules,
    identity: &ProviderIdentity,
    intent: &Intent,
    is_decided: bool,
) -> Result<ProviderIntent, StoreDown> {
    let shared = &*accounts.shared;
    let row = rules.row(identity);
    let id = new_id(shared.settings.user_ids, &shared.clock).map_err(|_| StoreDown)?;
    // an address that apps could misread creates no account
    let email = row.email.filter(|email| fields::email(email).is_ok());
    let new = NewUser {
        id,
        email: email.clone().unwrap_or_default(),
        name: row.name,
        picture: row.picture,
        groups: Vec::new(),
        password: None,
        email_proved: row.email_verified,
    };
    Ok(match intent {
        Intent::SignIn | Intent::SignUp => {
            let creates = rules.sign_up == SignUp::Open && email.is_some();
            ProviderIntent::SignIn { new: creates.then_some(new), is_decided }
        }
        Intent::Link { session, account } => {
            ProviderIntent::Link { session: session.clone(), account: account.clone() }
        }
        Intent::Invite { hash } => {
            ProviderIntent::Invite { hash: *hash, new, creates: rules.sign_up != SignUp::Closed }
        }
        // only [`finish_for`] knows the account
        Intent::Pending { .. } => ProviderIntent::SignInTo { email: String::new() },
    })
}

/// The rules of the provider are not met: sessions that the identity still has end.
async fn refuse(
    accounts: &Accounts,
    caller: &Caller,
    identity: &ProviderIdentity,
    why: NotAllowed,
    now: UnixSecs,
) -> Result<Finished, StoreDown> {
    let detail = format!("{} {}", identity.provider, why.name());
    let event = AuditRow { detail, ..audit::event("provider_refused", caller, now) };
    let (key, issuer) = ((identity.provider.clone(), identity.subject.clone()), identity.issuer.clone());
    let written = event.clone();
    let refuse = move |db: &mut Db| store::identities::refuse(db, (&key.0, &key.1), issuer.as_deref(), &written);
    let ended = accounts.shared.store.run(refuse).await;
    ended.map_err(|error| store_down(&error))?;
    metrics::PROVIDERS.login(&identity.provider, why.name());
    audit::log(&event);
    Ok(Finished::Refused(Refusal::NotAllowed(why)))
}

fn log_outcome(rules: &ProviderRules, identity: &ProviderIdentity, outcome: &ProviderOutcome, event: AuditRow) {
    match outcome {
        ProviderOutcome::SignedIn { events, .. } => events.iter().for_each(audit::log),
        ProviderOutcome::Linked(Some(event)) => audit::log(event),
        ProviderOutcome::OtherIssuer(pinned) => tracing::warn!(
            provider = rules.name,
            pinned,
            issuer = identity.issuer.as_deref().unwrap_or_default(),
            "identity belongs to another issuer: if the provider has only moved, run authgate provider adopt {}",
            rules.name
        ),
        _ => {}
    }
    let result = reason(outcome);
    if let Some(why) = result {
        audit::log(&AuditRow { event: "provider_refused", detail: format!("{} {why}", rules.name), ..event });
    }
    let result = result.unwrap_or(match outcome {
        ProviderOutcome::Collision | ProviderOutcome::SignedInAs(_) => "asked",
        _ => "ok",
    });
    metrics::PROVIDERS.login(&rules.name, result);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::rules::tests::{person, rules};
    use super::super::rules::{Allow, NotAllowed};
    use super::super::{fresh, links};
    use super::*;
    use crate::account::admin::accounts::Details;
    use crate::account::admin::invites;
    use crate::account::testing::{GOOD, World, at, secret};
    use crate::account::{credentials, one_time_link, sign_up};
    use crate::secret::token_hash;
    use crate::store::{Check, Db, Unlinked};

    fn ada() -> ProviderIdentity {
        person("1", "ada@example.com")
    }

    async fn end(world: &World, rules: &ProviderRules, who: &ProviderIdentity, intent: &Intent) -> Finished {
        finish(&world.accounts, &at("192.0.2.1"), rules, who, intent, false, None).await.unwrap()
    }

    async fn sign_in(world: &World, rules: &ProviderRules, who: &ProviderIdentity) -> Finished {
        end(world, rules, who, &Intent::SignIn).await
    }

    fn refusal(finished: &Finished) -> Refusal {
        match finished {
            Finished::Refused(why) => *why,
            other => panic!("{other:?}"),
        }
    }

    fn signed_in(finished: Finished) -> (SignedIn, Entry) {
        match finished {
            Finished::SignedIn(done, how) => (*done, how),
            other => panic!("{other:?}"),
        }
    }

    fn email(done: &SignedIn) -> String {
        done.session.user.load().email.clone()
    }

    fn who(world: &World, done: &SignedIn) -> Identity {
        credentials::session_token(&world.accounts, done.token.expose().as_bytes()).unwrap()
    }

    /// The browser with this session.
    fn browser(done: &SignedIn) -> Caller {
        Caller { session: Some(done.session.id.clone()), ..at("192.0.2.1") }
    }

    fn count(world: &World, table: &str) -> u32 {
        let file = world.config.server.state_dir.join("authgate.db");
        let sql = format!("SELECT count(*) FROM {table}");
        rusqlite::Connection::open(file).unwrap().query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    fn open_for(name: &str, mode: SignUp) -> ProviderRules {
        ProviderRules { sign_up: mode, ..rules(name) }
    }

    #[tokio::test]
    async fn an_unknown_identity_gets_an_account_only_where_sign_up_is_open_and_then_signs_in_to_it() {
        let world = World::new();
        for mode in [SignUp::Closed, SignUp::Invite] {
            let refused = sign_in(&world, &open_for("corp", mode), &ada()).await;
            assert_eq!(refusal(&refused), Refusal::NoAccount);
        }
        assert_eq!((count(&world, "user"), count(&world, "identity"), count(&world, "session")), (0, 0, 0));
        let mut who = ada();
        who.name = Some("Ada".to_owned());
        let (done, how) = signed_in(sign_in(&world, &rules("corp"), &who).await);
        let user = done.session.user.load_full();
        assert_eq!((how, user.email.as_str(), user.name.as_str()), (Entry::Created, "ada@example.com", "Ada"));
        assert!(user.groups.is_empty());
        assert_eq!(world.events(2), ["provider_sign_in", "provider_sign_up"]);
        // known from now on, whatever its address says and whether sign-up is open
        let moved = ProviderIdentity { email: None, name: Some("Eve".to_owned()), ..who };
        let (again, how) = signed_in(sign_in(&world, &open_for("corp", SignUp::Closed), &moved).await);
        assert_eq!((how, email(&again)), (Entry::Known, "ada@example.com".to_owned()));
        assert_eq!(again.session.user.load().name, "Ada", "it only fills an empty name");
    }

    /// The key is the subject, byte for byte, at this provider.
    #[tokio::test]
    async fn another_subject_or_provider_is_another_person() {
        let world = World::new();
        let (first, _) = signed_in(sign_in(&world, &rules("corp"), &person("abc", "a@example.com")).await);
        let (second, _) = signed_in(sign_in(&world, &rules("corp"), &person("ABC", "b@example.com")).await);
        let elsewhere = ProviderIdentity { provider: "hub".to_owned(), ..person("abc", "c@example.com") };
        let (third, _) = signed_in(sign_in(&world, &rules("hub"), &elsewhere).await);
        assert_eq!([&first, &second, &third].map(email), ["a@example.com", "b@example.com", "c@example.com"]);
        let (again, _) = signed_in(sign_in(&world, &rules("corp"), &person("abc", "b@example.com")).await);
        assert_eq!(email(&again), "a@example.com", "the address is no key");
    }

    /// The answer to an unverified address does not depend on whether it is an account's.
    #[tokio::test]
    async fn an_unverified_address_finds_and_creates_no_account() {
        let world = World::new();
        world.user("ada@example.com");
        let linking = ProviderRules { links_by_email: true, ..rules("corp") };
        for address in ["ada@example.com", "free@example.com"] {
            let mut who = person("1", address);
            who.email.as_mut().unwrap().is_verified = false;
            assert_eq!(refusal(&sign_in(&world, &linking, &who).await), Refusal::NoVerifiedEmail, "{address}");
            let none = ProviderIdentity { email: None, ..who };
            assert_eq!(refusal(&sign_in(&world, &linking, &none).await), Refusal::NoVerifiedEmail);
        }
        assert_eq!((count(&world, "identity"), count(&world, "session")), (0, 0));
        assert!(matches!(sign_in(&world, &linking, &ada()).await, Finished::SignedIn(_, Entry::Linked)));
    }

    /// An account that anybody could have opened with the address must not be handed what its owner brings
    /// (pre-hijacking, USENIX Security 2022).
    #[tokio::test]
    async fn a_verified_address_links_only_to_an_account_that_proved_it_and_only_where_it_may() {
        let world = World::with(|config| config.sign_up = SignUp::Open);
        let linking = ProviderRules { links_by_email: true, ..rules("corp") };
        sign_up::register(&world.accounts, &at("192.0.2.9"), "ada@example.com", "", secret(GOOD)).await.unwrap();
        assert!(matches!(sign_in(&world, &linking, &ada()).await, Finished::Collision), "opened by whoever typed it");
        assert_eq!(count(&world, "identity"), 0);
        world.user("bob@example.com");
        let bob = person("2", "Bob@example.com");
        assert!(matches!(sign_in(&world, &rules("corp"), &bob).await, Finished::Collision), "link = ask");
        let (done, how) = signed_in(sign_in(&world, &linking, &bob).await);
        assert_eq!((how, email(&done)), (Entry::Linked, "bob@example.com".to_owned()));
        world.user("off@example.com");
        world.admin().set_disabled("off@example.com", true).unwrap();
        assert!(matches!(sign_in(&world, &linking, &person("3", "off@example.com")).await, Finished::Collision));
    }

    #[tokio::test]
    async fn a_provider_that_may_not_link_proves_no_address_for_one_that_may() {
        let world = World::new();
        let linking = ProviderRules { links_by_email: true, ..rules("corp") };
        let elsewhere = |name: &str| ProviderIdentity { provider: name.to_owned(), ..person("9", "ada@example.com") };
        signed_in(sign_in(&world, &rules("open"), &elsewhere("open")).await);
        // again, now as a known identity
        signed_in(sign_in(&world, &rules("open"), &elsewhere("open")).await);
        assert!(matches!(sign_in(&world, &linking, &ada()).await, Finished::Collision));
        let hub = ProviderRules { name: "hub".to_owned(), ..linking.clone() };
        let bob = ProviderIdentity { provider: "hub".to_owned(), ..person("2", "bob@example.com") };
        signed_in(sign_in(&world, &hub, &bob).await);
        let (_, how) = signed_in(sign_in(&world, &linking, &person("2", "bob@example.com")).await);
        assert_eq!(how, Entry::Linked, "both may link");
    }

    /// The collision: its owner signs in there, and the identity is added.
    #[tokio::test]
    async fn after_a_collision_the_identity_is_linked_by_a_fresh_sign_in_alone() {
        let world = World::new();
        world.user("ada@example.com");
        assert!(matches!(sign_in(&world, &rules("corp"), &ada()).await, Finished::Collision));
        let done = world.sign_in("ada@example.com").await;
        let own = who(&world, &done);
        world.clock.advance(fresh::FRESH_SECS + 1);
        assert!(fresh::by_age(&world.accounts, &own).is_none());
        let caller = browser(&done);
        assert!(fresh::by_password(&world.accounts, &caller, &own, secret("a wrong password")).await.is_err());
        let proof = fresh::by_password(&world.accounts, &caller, &own, secret(GOOD)).await.unwrap();
        let link = async |who: &Identity, person: &ProviderIdentity| {
            link_pending(&world.accounts, &caller, who, &proof, &rules("corp"), person).await.unwrap()
        };
        assert!(matches!(link(&own, &ada()).await, Finished::Linked(true)));
        assert!(matches!(link(&own, &ada()).await, Finished::Linked(false)));
        assert_eq!(world.events(1), ["identity_linked"]);
        let (by_provider, how) = signed_in(sign_in(&world, &rules("corp"), &ada()).await);
        assert_eq!((how, email(&by_provider)), (Entry::Known, "ada@example.com".to_owned()));
        world.user("bob@example.com");
        let bob = who(&world, &world.sign_in("bob@example.com").await);
        assert_eq!(refusal(&link(&bob, &ada()).await), Refusal::OfAnother);
        assert_eq!(links::list(&world.accounts, &own).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn of_two_identities_that_race_for_one_address_one_gets_the_account() {
        let world = World::new();
        let own = rules("corp");
        let people: Vec<_> = (0..8).map(|n| person(&format!("s{n}"), "ada@example.com")).collect();
        let all = futures_util::future::join_all(people.iter().map(|who| sign_in(&world, &own, who))).await;
        let created = all.iter().filter(|one| matches!(one, Finished::SignedIn(_, Entry::Created))).count();
        let collided = all.iter().filter(|one| matches!(one, Finished::Collision)).count();
        assert_eq!((created, collided, count(&world, "user"), count(&world, "identity")), (1, 7, 1, 1));
    }

    /// Also from two processes.
    #[tokio::test]
    async fn an_identity_that_is_linked_to_many_accounts_at_the_same_time_belongs_to_one() {
        let world = World::new();
        let ids: Vec<String> = (0..8).map(|n| world.user(&format!("u{n}@example.com"))).collect();
        let row = rules("corp").row(&ada());
        let link = |id: &String| {
            let mut db = Db::open(&world.config.server.state_dir, Check::Version).unwrap();
            store::identities::link(&mut db, &row, id, 1, &AuditRow::default()).unwrap()
        };
        let linked: Vec<Linked> = std::thread::scope(|scope| {
            let threads: Vec<_> = ids.iter().map(|id| scope.spawn(|| link(id))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(linked.iter().filter(|one| **one == Linked::Yes).count(), 1);
        assert_eq!(linked.iter().filter(|one| **one == Linked::OfAnother).count(), 7);
        let (done, _) = signed_in(sign_in(&world, &rules("corp"), &ada()).await);
        let winner = linked.iter().position(|one| *one == Linked::Yes).unwrap();
        assert_eq!(done.session.user.load().id, ids[winner]);
    }

    /// GO-2025-3822.
    #[tokio::test]
    async fn a_disabled_account_is_refused_and_its_sessions_have_ended() {
        let world = World::new();
        let (done, _) = signed_in(sign_in(&world, &rules("corp"), &ada()).await);
        world.admin().set_disabled("ada@example.com", true).unwrap();
        assert_eq!(refusal(&sign_in(&world, &rules("corp"), &ada()).await), Refusal::Disabled);
        assert!(credentials::session_token(&world.accounts, done.token.expose().as_bytes()).is_err());
        world.admin().set_disabled("ada@example.com", false).unwrap();
        signed_in(sign_in(&world, &rules("corp"), &ada()).await);
    }

    /// OWASP ASVS 5.0, 6.8.1.
    #[tokio::test]
    async fn a_provider_under_another_issuer_signs_no_one_in_until_its_operator_adopts_it() {
        let world = World::new();
        signed_in(sign_in(&world, &rules("corp"), &ada()).await);
        let moved = ProviderIdentity { issuer: Some("https://corp.example.com/".to_owned()), ..ada() };
        for other in [moved.clone(), ProviderIdentity { issuer: None, ..ada() }] {
            assert_eq!(refusal(&sign_in(&world, &rules("corp"), &other).await), Refusal::OtherIssuer);
        }
        let event = AuditRow { event: "provider_adopted", ..AuditRow::default() };
        let adopt =
            |name: &str| store::identities::adopt(&mut world.db(), name, moved.issuer.as_deref(), &event).unwrap();
        assert_eq!([adopt("hub"), adopt("corp"), adopt("corp")], [0, 1, 0]);
        signed_in(sign_in(&world, &rules("corp"), &moved).await);
        assert_eq!(refusal(&sign_in(&world, &rules("corp"), &ada()).await), Refusal::OtherIssuer);
    }

    /// `allow` is asked at every sign-in, and what it does not allow any more ends.
    #[tokio::test]
    async fn an_identity_that_the_rules_do_not_allow_any_more_loses_its_sessions_and_no_others() {
        let world = World::new();
        let allow = |domain: &str| {
            let allow = Allow { domains: vec![domain.to_owned()], ..Allow::default() };
            ProviderRules { allow, ..rules("corp") }
        };
        let (done, _) = signed_in(sign_in(&world, &allow("example.com"), &ada()).await);
        let (other, _) = signed_in(sign_in(&world, &allow("example.com"), &person("2", "bob@example.com")).await);
        let refused = refusal(&sign_in(&world, &allow("example.org"), &ada()).await);
        assert_eq!(refused, Refusal::NotAllowed(NotAllowed::Address));
        let valid =
            |done: &SignedIn| credentials::session_token(&world.accounts, done.token.expose().as_bytes()).is_ok();
        assert_eq!([&done, &other].map(valid), [false, true]);
        assert_eq!(world.events(1), ["provider_refused"]);
    }

    /// Groups of the provider are replaced at each sign-in, and apply only to sessions that began with the identity.
    #[tokio::test]
    async fn mapped_groups_come_and_go_with_the_sign_in_and_reach_no_other_session() {
        let world = World::new();
        world.user("ada@example.com");
        world
            .admin()
            .set_user("ada@example.com", Details { groups: Some(vec!["staff".to_owned()]), ..Details::default() })
            .unwrap();
        let map: BTreeMap<_, _> = [("platform".to_owned(), "ops".to_owned())].into();
        let own = ProviderRules { groups: map, links_by_email: true, ..rules("corp") };
        let mut person = ada();
        person.groups = vec!["platform".to_owned(), "admin".to_owned()];
        let password = world.sign_in("ada@example.com").await;
        let (first, _) = signed_in(sign_in(&world, &own, &person).await);
        let groups = |done: &SignedIn| done.session.user.load().groups.join(",");
        assert_eq!([&password, &first].map(groups), ["staff", "ops,staff"]);
        person.groups.clear();
        let (second, _) = signed_in(sign_in(&world, &own, &person).await);
        assert_eq!([&first, &second].map(groups), ["staff", "staff"], "the earlier session has lost it too");
        person.groups.push("platform".to_owned());
        signed_in(sign_in(&world, &own, &person).await);
        let token = first.token;
        let world = world.restart().await;
        let again = credentials::session_token(&world.accounts, token.expose().as_bytes()).unwrap();
        assert_eq!(again.user.groups.join(","), "staff", "this provider is not configured there");
    }

    /// Tabs that finish within a minute keep the session that the first one began, and its sockets.
    #[tokio::test]
    async fn twelve_tabs_that_finish_together_share_one_session() {
        let world = World::new();
        let (first, _) = signed_in(sign_in(&world, &rules("corp"), &ada()).await);
        let tab = async || {
            finish(&world.accounts, &browser(&first), &rules("corp"), &ada(), &Intent::SignIn, false, None).await
        };
        for _ in 0..11 {
            assert!(matches!(tab().await.unwrap(), Finished::Kept));
        }
        assert_eq!(count(&world, "session WHERE ended_at IS NULL"), 1);
        world.clock.advance(61);
        let (later, _) = signed_in(tab().await.unwrap());
        assert_ne!(later.session.id, first.session.id);
        assert_eq!(count(&world, "session WHERE ended_at IS NULL"), 1, "signing in ends what the browser presented");
    }

    /// On a shared machine somebody else's identity must not end up at the account that is signed in (next-auth links).
    #[tokio::test]
    async fn whoever_is_signed_in_is_asked_before_anything_happens() {
        let world = World::new();
        world.user("bob@example.com");
        let bob = world.sign_in("bob@example.com").await;
        let attempt = async |is_decided| {
            finish(&world.accounts, &browser(&bob), &rules("corp"), &ada(), &Intent::SignIn, is_decided, None)
                .await
                .unwrap()
        };
        assert!(matches!(attempt(false).await, Finished::SignedInAs(email) if email == "bob@example.com"));
        assert_eq!((count(&world, "identity"), count(&world, "user")), (0, 1));
        let (done, how) = signed_in(attempt(true).await);
        assert_eq!((how, email(&done)), (Entry::Created, "ada@example.com".to_owned()));
        assert!(credentials::session_token(&world.accounts, bob.token.expose().as_bytes()).is_err());
    }

    #[tokio::test]
    async fn a_link_attempt_ends_only_in_the_session_that_began_it() {
        let world = World::new();
        world.user("ada@example.com");
        world.user("bob@example.com");
        let (own, other) = (world.sign_in("ada@example.com").await, world.sign_in("bob@example.com").await);
        let account = own.session.user.load().id.clone();
        let intent = Intent::Link { session: own.session.id.clone(), account: account.clone() };
        let forged = Intent::Link { session: other.session.id.clone(), account };
        let person = person("1", "elsewhere@example.com");
        let link = async |browser: Caller, intent: &Intent| {
            finish(&world.accounts, &browser, &rules("corp"), &person, intent, false, None).await.unwrap()
        };
        for (browser, intent) in [(browser(&other), &intent), (at("192.0.2.1"), &intent), (browser(&other), &forged)] {
            assert_eq!(refusal(&link(browser, intent).await), Refusal::SessionEnded);
        }
        assert_eq!(count(&world, "identity"), 0);
        assert!(matches!(link(browser(&own), &intent).await, Finished::Linked(true)));
        assert!(matches!(link(browser(&own), &intent).await, Finished::Linked(false)));
        // an identity of another account is refused, never signed in
        let theirs = Intent::Link { session: other.session.id.clone(), account: other.session.user.load().id.clone() };
        assert_eq!(refusal(&link(browser(&other), &theirs).await), Refusal::OfAnother);
        let ended = Intent::Link { session: own.session.id.clone(), account: own.session.user.load().id.clone() };
        world.admin().revoke_sessions(Some("ada@example.com")).unwrap();
        let late = ProviderIdentity { subject: "2".to_owned(), ..person.clone() };
        let late = finish(&world.accounts, &browser(&own), &rules("corp"), &late, &ended, false, None).await.unwrap();
        assert_eq!(refusal(&late), Refusal::SessionEnded);
    }

    #[tokio::test]
    async fn an_invite_is_used_once_whichever_provider_comes_first() {
        let world = World::new();
        let link = invites::create(&mut world.admin(), Some("ada@example.com"), &["ops".to_owned()], 3600).unwrap();
        let token = link.expose().rsplit('/').next().unwrap().to_owned();
        let intent = Intent::Invite { hash: token_hash(&token) };
        let closed = open_for("corp", SignUp::Closed);
        assert_eq!(refusal(&end(&world, &closed, &ada(), &intent).await), Refusal::NoInvite);
        let invited = open_for("corp", SignUp::Invite);
        let other = ProviderIdentity { provider: "hub".to_owned(), ..person("9", "private@example.com") };
        let hub = open_for("hub", SignUp::Invite);
        let own = ada();
        let (one, two) =
            futures_util::future::join(end(&world, &invited, &own, &intent), end(&world, &hub, &other, &intent)).await;
        let won = [&one, &two].into_iter().filter(|done| matches!(done, Finished::SignedIn(_, Entry::Created))).count();
        assert_eq!((won, count(&world, "user"), count(&world, "identity")), (1, 1, 1));
        let winner = [one, two].into_iter().find_map(|done| match done {
            Finished::SignedIn(done, _) => Some(done),
            _ => None,
        });
        let user = winner.unwrap().session.user.load_full();
        assert_eq!(
            (user.email.as_str(), user.groups.join(",")),
            ("ada@example.com", "ops".to_owned()),
            "the invite's own"
        );
        assert!(one_time_link::inspect(&world.accounts, &Caller::default(), &token).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_invite_of_an_existing_account_and_the_first_link_take_an_identity_and_a_reset_link_does_not() {
        let world = World::new();
        let first = one_time_link::create_first(&world.accounts).await.unwrap().unwrap();
        let intent = Intent::Invite { hash: token_hash(first.expose()) };
        let (admin, how) = signed_in(end(&world, &open_for("corp", SignUp::Closed), &ada(), &intent).await);
        assert_eq!((how, admin.session.user.load().groups.join(",")), (Entry::Created, "admin".to_owned()));
        let (_, link) = world.admin().add_user("bob@example.com", Details::default()).unwrap();
        let token = link.unwrap().expose().rsplit('/').next().unwrap().to_owned();
        let invite = Intent::Invite { hash: token_hash(&token) };
        let bob = person("2", "other@example.com");
        let (done, how) = signed_in(end(&world, &open_for("corp", SignUp::Closed), &bob, &invite).await);
        assert_eq!((how, email(&done)), (Entry::Linked, "bob@example.com".to_owned()));
        let reset = world.admin().reset_link("bob@example.com").unwrap();
        let token = reset.expose().rsplit('/').next().unwrap().to_owned();
        let reset = Intent::Invite { hash: token_hash(&token) };
        assert_eq!(
            refusal(&end(&world, &rules("corp"), &person("3", "eve@example.com"), &reset).await),
            Refusal::NoInvite
        );
    }

    /// Two requests that would each leave the other's identity are decided one after the other.
    #[tokio::test]
    async fn the_last_way_to_sign_in_stays_also_in_a_race() {
        let world = World::new();
        let (done, _) = signed_in(sign_in(&world, &rules("corp"), &ada()).await);
        let own = who(&world, &done);
        let proof = fresh::by_age(&world.accounts, &own).unwrap();
        let hub = ProviderIdentity { provider: "hub".to_owned(), ..ada() };
        let caller = browser(&done);
        let linked = link_pending(&world.accounts, &caller, &own, &proof, &rules("hub"), &hub).await.unwrap();
        assert!(matches!(linked, Finished::Linked(true)));
        let all = || vec!["corp".to_owned(), "hub".to_owned()];
        let unlink = async |provider: &str, configured: Vec<String>| {
            links::unlink(&world.accounts, &caller, &own, &proof, (provider, "1"), configured).await.unwrap()
        };
        assert_eq!(unlink("hub", vec!["hub".to_owned()]).await, Unlinked::LastCredential, "corp is not configured");
        assert_eq!(unlink("gone", all()).await, Unlinked::Missing);
        let (one, two) = futures_util::future::join(unlink("corp", all()), unlink("hub", all())).await;
        let removed = [one, two].into_iter().filter(|one| matches!(one, Unlinked::Yes(_))).count();
        assert_eq!((removed, count(&world, "identity")), (1, 1));
        // with a password the last one may go, and the sessions that began with it end
        let last = links::list(&world.accounts, &own).await.unwrap().remove(0).provider;
        let password = Details { password: Some(secret(GOOD)), ..Details::default() };
        world.admin().set_user("ada@example.com", password).unwrap();
        let (fresh_one, _) =
            signed_in(sign_in(&world, &rules(&last), &ProviderIdentity { provider: last.clone(), ..ada() }).await);
        let by_password = world.sign_in("ada@example.com").await;
        assert_eq!(unlink(&last, all()).await, Unlinked::Yes(1));
        let valid =
            |done: &SignedIn| credentials::session_token(&world.accounts, done.token.expose().as_bytes()).is_ok();
        assert_eq!([&fresh_one, &by_password].map(valid), [false, true]);
    }

    #[tokio::test]
    async fn an_account_without_a_password_answers_a_password_like_any_other() {
        let world = World::new();
        signed_in(sign_in(&world, &rules("corp"), &ada()).await);
        let refused = world.try_sign_in(&at("192.0.2.1"), "ada@example.com", GOOD).await;
        assert_eq!(refused.map(|_| ()).unwrap_err(), crate::account::SignInError::Credentials);
    }
}
