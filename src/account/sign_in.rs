//! Sign-in with a password. Unknown, disabled and passwordless accounts cost the same time and get the same response
//! as a wrong password. Attempts are counted before the password is compared.

use super::accounts::Accounts;
use super::audit;
use super::caller::Caller;
use super::errors::{SignInError, StoreDown, store_down};
use super::fields;
use super::limits::login_throttle::{self, attempt_failed, presented_device};
use super::password::hash_workers::{HashSlot, delay_rejection};
use super::password::hasher::Verdict;
use super::session::draft::{NewSessionDraft, SignedIn};
use super::settings::Settings;
use crate::clock::UnixSecs;
use crate::secret::Secret;
use crate::store::{self, AuditRow, Begun, CountedAttempt, Db, LastHere, SignIn, StoreError, Throttled, UserRow};

/// One sign-in request.
#[derive(Clone)]
struct SignInRequest {
    caller: Caller,
    /// The name that attempts are counted under.
    email: String,
    /// Hash of the device cookie, until it turns out that the account does not know it.
    device: Option<[u8; 32]>,
    password: Secret,
    remember: bool,
}

/// Result of one attempt.
enum Outcome {
    Decided(Result<SignedIn, SignInError>),
    /// The account does not know this browser: the attempt joins the account's own queue.
    UnknownDevice,
    /// The attempt must wait, under this name.
    Throttled(String, Throttled),
}

/// An attempt that was allowed, and its account.
struct Attempt {
    /// the name it is counted and logged under
    name: String,
    counted: CountedAttempt,
    user: Option<UserRow>,
    /// the account that last signed in with this device cookie
    last_here: LastHere,
}

/// The decision before the password is checked.
enum AttemptCheck {
    Allowed(Box<Attempt>),
    UnknownDevice,
    Throttled(String, Throttled),
}

fn begin_attempt(
    db: &mut Db,
    settings: &Settings,
    request: &SignInRequest,
    now: UnixSecs,
) -> Result<AttemptCheck, StoreError> {
    let email = &request.email;
    if let Some(device) = &request.device
        && !store::devices::knows_device(db, device, email)?
    {
        return Ok(AttemptCheck::UnknownDevice);
    }
    let user = store::users::user_by_email(db, email)?;
    let name = if user.is_some() { email.clone() } else { fields::throttle_name_without_account(email) };
    let limits = login_throttle::of_sign_in(settings.throttle, &request.caller, &name, request.device.as_ref());
    let last_here = match presented_device(&request.caller) {
        Some(device) => store::devices::last_at_device(db, &device)?,
        None => LastHere::Nobody,
    };
    Ok(match store::throttle::count_attempt(db, &limits, &name, now)? {
        Err(throttled) => AttemptCheck::Throttled(name, throttled),
        Ok(counted) => AttemptCheck::Allowed(Box::new(Attempt { name, counted, user, last_here })),
    })
}

/// Signs in with a password. Ends the session that the browser presented. Waits for a slot in the hash pool and, if
/// the address is paced, for its turn.
///
/// # Errors
/// [`SignInError::Credentials`] for everything that is wrong about the account or the password;
/// [`SignInError::PasswordsOff`] before any of them is looked at.
pub async fn with_password(
    accounts: &Accounts,
    caller: &Caller,
    email: &str,
    password: Secret,
    remember: bool,
) -> Result<SignedIn, SignInError> {
    let shared = &*accounts.shared;
    shared.settings.require_passwords()?;
    let (caller, email, device) = (caller.clone(), fields::throttle_name(email), presented_device(caller));
    let mut request = SignInRequest { caller, email, device, password, remember };
    let slot_request = shared.hash_pool.request_slot(&request.caller);
    loop {
        // the queue comes first: a request rejected for load does not consume an attempt
        let subject = shared.subject((&request.email, &request.device));
        let slot = slot_request.acquire(Some(subject)).await.map_err(|_| SignInError::Busy)?;
        // a started attempt is completed even if the client disconnects
        let outcome = tokio::spawn(try_once(accounts.clone(), slot, request.clone())).await;
        match outcome.unwrap_or(Outcome::Decided(Err(SignInError::Unavailable))) {
            Outcome::Decided(done) => return done,
            Outcome::UnknownDevice => request.device = None,
            Outcome::Throttled(name, throttled) => {
                if !slot_request.pause(&throttled).await {
                    return Err(reject_throttled(accounts, &request.caller, &name, &throttled).await);
                }
            }
        }
    }
}

async fn try_once(accounts: Accounts, slot: HashSlot, request: SignInRequest) -> Outcome {
    let now = accounts.shared.clock.now();
    let (settings, asked) = (accounts.shared.settings.clone(), request.clone());
    let checked_attempt = accounts.shared.store.run(move |db| begin_attempt(db, &settings, &asked, now)).await;
    match checked_attempt {
        Ok(AttemptCheck::Allowed(attempt)) => Outcome::Decided(decide(&accounts, &slot, &request, *attempt, now).await),
        Ok(AttemptCheck::UnknownDevice) => Outcome::UnknownDevice,
        Ok(AttemptCheck::Throttled(name, throttled)) => Outcome::Throttled(name, throttled),
        Err(error) => Outcome::Decided(Err(unavailable(&error))),
    }
}

async fn decide(
    accounts: &Accounts,
    slot: &HashSlot,
    request: &SignInRequest,
    attempt: Attempt,
    now: UnixSecs,
) -> Result<SignedIn, SignInError> {
    let Attempt { name, counted, user, last_here } = attempt;
    let caller = &request.caller;
    let user = user.filter(|user| !user.disabled);
    let id = user.as_ref().map(|user| user.id.clone()).unwrap_or_default();
    let mut hash = user.and_then(|user| user.password);
    // retry once if the hash was replaced meanwhile: rehashed by a concurrent sign-in, or a new password
    for _ in 0..2 {
        let verdict = check(slot, request.password.clone(), hash.clone()).await?;
        let (Verdict::Right(rehashed), Some(checked)) = (verdict, hash.take()) else { break };
        let draft = NewSessionDraft::new(accounts, caller, request.remember, last_here.clone(), now)
            .map_err(|_| SignInError::Unavailable)?;
        let (session, counted) = (draft.row.clone(), counted.clone());
        let begins = SignIn { user_id: id.clone(), checked, rehashed, session, counted };
        match begin(accounts, begins, audit::about("sign_in", caller, now, &id, &name)).await? {
            Begun::Yes(_) => {
                let begun = draft.signed_in(accounts, &id);
                return begun.map_err(|_| SignInError::Unavailable);
            }
            Begun::Changed(other) => hash = Some(other),
            // disabled or removed concurrently
            Begun::No => break,
        }
    }
    Err(failed(accounts, caller, counted, &id, &name, now).await)
}

async fn reject_throttled(accounts: &Accounts, caller: &Caller, name: &str, throttled: &Throttled) -> SignInError {
    let retry_after_secs = login_throttle::record_rejection(throttled);
    let detail = format!("retry after {retry_after_secs} s");
    audit::log(&AuditRow { detail, ..audit::about("throttled", caller, accounts.shared.clock.now(), "", name) });
    delay_rejection().await;
    SignInError::Throttled { retry_after_secs }
}

async fn begin(accounts: &Accounts, begins: SignIn, event: AuditRow) -> Result<Begun, SignInError> {
    let written = event.clone();
    let begun =
        accounts.shared.store.run(move |db| store::sign_ins::begin_session(db, &begins, written.at, &written)).await;
    let begun = begun.map_err(|error| unavailable(&error))?;
    if let Begun::Yes(ended) = &begun {
        audit::log(&event);
        ended.iter().for_each(audit::log);
        if ended.is_some() && accounts.shared.is_hint_due(event.at) {
            tracing::warn!(
                user = event.email,
                "session limit of an account reached, oldest sessions ended: programs should use an API token \
                 (authgate token create)"
            );
        }
    }
    Ok(begun)
}

async fn failed(
    accounts: &Accounts,
    caller: &Caller,
    counted: CountedAttempt,
    id: &str,
    email: &str,
    now: UnixSecs,
) -> SignInError {
    let event = audit::about("sign_in_failed", caller, now, id, email);
    match attempt_failed(accounts, counted, event, now).await {
        Ok(()) => SignInError::Credentials,
        Err(StoreDown) => SignInError::Unavailable,
    }
}

async fn check(slot: &HashSlot, password: Secret, hash: Option<Secret>) -> Result<Verdict, SignInError> {
    slot.verify(password, hash).await.map_err(|_| SignInError::Busy)
}

fn unavailable(error: &StoreError) -> SignInError {
    let StoreDown = store_down(error);
    SignInError::Unavailable
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::super::Details;
    use super::super::testing::{GOOD, OTHER, START, WAIT_MAX, World, at, secret};
    use super::*;
    use crate::account::admin::bans;
    use crate::account::credentials;
    use crate::account::identity::sign_out::sign_out;

    fn wrong(result: Result<SignedIn, SignInError>) -> SignInError {
        result.map(|_| "signed in").unwrap_err()
    }

    #[tokio::test]
    async fn the_right_password_signs_in_under_every_spelling_of_the_address() {
        let world = World::new();
        world.user("ada@example.com");
        for email in ["ada@example.com", " Ada@EXAMPLE.com "] {
            let done = world.try_sign_in(&at("192.0.2.1"), email, GOOD).await.unwrap();
            let who = credentials::session_token(&world.accounts, done.token.expose().as_bytes()).unwrap();
            assert_eq!((who.user.email.as_str(), who.issued), ("ada@example.com", START));
            assert_eq!(done.session.expires(), START + 20 * 86_400);
            assert!(done.token.expose().len() < 1024);
            assert!(done.device.expose().len() == 43);
        }
        assert_eq!(world.events(1), ["sign_in"]);
    }

    #[tokio::test]
    async fn unknown_disabled_and_passwordless_accounts_take_the_time_and_response_of_a_wrong_password() {
        let world = World::new();
        world.user("ada@example.com");
        world.user("off@example.com");
        world.admin().set_disabled("off@example.com", true).unwrap();
        world.admin().add_user("new@example.com", Details::default()).unwrap();
        let tries = [
            ("ada@example.com", OTHER),
            ("off@example.com", GOOD),
            ("new@example.com", GOOD),
            ("nobody@example.com", GOOD),
            ("no address", GOOD),
            ("", ""),
        ];
        for (email, password) in tries {
            let before = world.accounts.shared.hash_pool.runs();
            let error = wrong(world.try_sign_in(&at("192.0.2.1"), email, password).await);
            assert_eq!((email, error), (email, SignInError::Credentials));
            assert_eq!((email, world.accounts.shared.hash_pool.runs() - before), (email, 1));
            assert_eq!(world.events(1), ["sign_in_failed"]);
        }
        world.sign_in("ada@example.com").await;
    }

    #[tokio::test]
    async fn after_five_failures_even_the_right_password_is_throttled_and_sessions_stay_valid() {
        let world = World::new();
        world.user("ada@example.com");
        let live = world.sign_in("ada@example.com").await;
        for email in ["ada@example.com", "nobody@example.com"] {
            for _ in 0..5 {
                assert_eq!(wrong(world.try_sign_in(&Caller::default(), email, OTHER).await), SignInError::Credentials);
            }
            let error = wrong(world.try_sign_in(&Caller::default(), email, GOOD).await);
            assert_eq!(error, SignInError::Throttled { retry_after_secs: 300 });
        }
        assert!(credentials::session_token(&world.accounts, live.token.expose().as_bytes()).is_ok());
        world.clock.advance(299);
        let error = wrong(world.try_sign_in(&Caller::default(), "ada@example.com", GOOD).await);
        assert_eq!(error, SignInError::Throttled { retry_after_secs: 1 });
        world.clock.advance(1);
        world.sign_in("ada@example.com").await;
    }

    #[tokio::test]
    async fn failures_are_counted_in_a_sliding_window_and_cleared_by_a_success() {
        let world = World::new();
        world.user("ada@example.com");
        let fail = async || {
            let error = wrong(world.try_sign_in(&Caller::default(), "ada@example.com", OTHER).await);
            assert_eq!(error, SignInError::Credentials);
        };
        for _ in 0..4 {
            fail().await;
        }
        world.sign_in("ada@example.com").await;
        for _ in 0..4 {
            fail().await;
        }
        world.clock.advance(121);
        for _ in 0..4 {
            fail().await;
        }
        world.sign_in("ada@example.com").await;
    }

    #[tokio::test]
    async fn counts_and_bans_survive_a_restart_and_can_be_lifted() {
        let mut world = World::new();
        world.user("ada@example.com");
        for round in 0..5 {
            assert_eq!(
                wrong(world.try_sign_in(&Caller::default(), "ada@example.com", OTHER).await),
                SignInError::Credentials
            );
            if round % 2 == 1 {
                world = world.restart().await;
            }
        }
        world = world.restart().await;
        let error = wrong(world.try_sign_in(&Caller::default(), "ada@example.com", GOOD).await);
        assert_eq!(error, SignInError::Throttled { retry_after_secs: 300 });
        let bans = bans::list(&mut world.admin()).unwrap();
        assert_eq!(bans.len(), 1);
        assert_eq!((bans[0].kind, bans[0].what.as_str(), bans[0].until), ("account", "ada@example.com", START + 300));
        assert!(bans::lift(&mut world.admin(), "eve@example.com").is_err());
        bans::lift(&mut world.admin(), "Ada@example.com").unwrap();
        world.sign_in("ada@example.com").await;
    }

    #[tokio::test]
    async fn an_address_gets_twenty_times_as_many_attempts_and_a_success_clears_only_failures_of_its_account() {
        let world = World::with(|config| config.throttle.max_retries = 2);
        world.user("ada@example.com");
        let fail = async |from: &str, email: &str| {
            assert_eq!(wrong(world.try_sign_in(&at(from), email, OTHER).await), SignInError::Credentials);
        };
        for n in 0..37 {
            fail(&format!("2001:db8::{n}"), &format!("nobody{n}@example.com")).await;
        }
        for _ in 0..3 {
            fail("2001:db8::1", "ada@example.com").await;
            world.try_sign_in(&at("2001:db8::2"), "ada@example.com", GOOD).await.unwrap();
        }
        for n in 0..3 {
            fail("2001:db8::3", &format!("x{n}@example.com")).await;
        }
        // three ban times, forty attempts
        let step = Err(SignInError::Throttled { retry_after_secs: 23 });
        let try_ada = async |from: &str, password: &str| {
            world.try_sign_in(&at(from), "ada@example.com", password).await.map(|_| ())
        };
        assert_eq!(try_ada("2001:db8::4", GOOD).await, step);
        assert_eq!(world.events(1), ["banned"]);
        assert_eq!(try_ada("2001:db8:0:1::1", GOOD).await, Ok(()));
        // paced: a success is free, a failure costs the next turn
        world.clock.advance(23);
        assert_eq!([try_ada("2001:db8::4", GOOD).await, try_ada("2001:db8::5", GOOD).await], [Ok(()), Ok(())]);
        fail("2001:db8::6", "y@example.com").await;
        assert_eq!(try_ada("2001:db8::4", GOOD).await, step);
        assert_eq!(world.events(2), ["sign_in_failed", "sign_in"], "it is told once");
        bans::lift(&mut world.admin(), "2001:db8::9").unwrap();
        assert_eq!(try_ada("2001:db8::4", GOOD).await, Ok(()));
    }

    #[tokio::test]
    async fn behind_a_paced_address_a_user_waits_and_signs_in() {
        let world = World::with(|config| {
            config.throttle.max_retries = 1;
            config.throttle.ban_time = WAIT_MAX;
        });
        world.user("ada@example.com");
        for n in 0..20 {
            let email = format!("nobody{n}@example.com");
            assert_eq!(wrong(world.try_sign_in(&at("192.0.2.1"), &email, OTHER).await), SignInError::Credentials);
        }
        let caller = at("192.0.2.1");
        let (done, ()) = tokio::join!(world.try_sign_in(&caller, "ada@example.com", GOOD), async {
            // once checked; three ban times have room for twenty
            world.maintenance().await;
            world.clock.advance(3);
        });
        assert_eq!(done.unwrap().session.created, START + 3);
    }

    /// A load balancer that does not name its clients, and a Unix socket.
    #[tokio::test]
    async fn with_an_unknown_client_address_only_accounts_are_counted() {
        let world = World::with(|config| config.throttle.max_retries = 1);
        world.user("ada@example.com");
        let proxy = Caller { is_proxy: true, ..at("192.0.2.1") };
        for caller in [proxy.clone(), Caller { address: None, ..proxy }] {
            for n in 0..30 {
                let email = format!("nobody{n}{}@example.com", caller.address.is_some());
                assert_eq!(wrong(world.try_sign_in(&caller, &email, OTHER).await), SignInError::Credentials);
            }
            world.try_sign_in(&caller, "ada@example.com", GOOD).await.unwrap();
        }
        let caller = Caller { is_proxy: true, ..at("192.0.2.1") };
        assert_eq!(wrong(world.try_sign_in(&caller, "ada@example.com", OTHER).await), SignInError::Credentials);
        let refused = wrong(world.try_sign_in(&caller, "ada@example.com", GOOD).await);
        assert_eq!(refused, SignInError::Throttled { retry_after_secs: 300 });
    }

    /// Guessing at sixty accounts went on without limit; a known browser can sign in nevertheless.
    #[tokio::test]
    async fn over_a_unix_socket_attempts_at_many_accounts_are_counted_together() {
        let world = World::with(|config| config.throttle.max_retries = 1);
        world.user("ada@example.com");
        let device = world.sign_in("ada@example.com").await.device;
        world.clock.advance(1);
        let known = Caller { device: Some(device.expose().to_owned()), ..Caller::default() };
        let known_at_second_use = world.try_sign_in(&known, "ada@example.com", GOOD).await.unwrap();
        drop(known_at_second_use);
        for n in 0..20 {
            let email = format!("nobody{n}@example.com");
            let error = wrong(world.try_sign_in(&Caller::default(), &email, OTHER).await);
            assert_eq!((n, error), (n, SignInError::Credentials));
        }
        let refused = wrong(world.try_sign_in(&Caller::default(), "nobody@example.com", OTHER).await);
        assert!(matches!(refused, SignInError::Throttled { .. }), "{refused:?}");
        world.try_sign_in(&known, "ada@example.com", GOOD).await.unwrap();
    }

    #[tokio::test]
    async fn a_started_attempt_is_completed_although_the_client_is_gone() {
        let world = World::new();
        world.user("ada@example.com");
        let caller = Caller::default();
        let decided = || world.events(99).iter().filter(|event| *event == "sign_in_failed").count();
        for n in 1..=5 {
            let all = async {
                let mut left = Box::pin(world.try_sign_in(&caller, "ada@example.com", OTHER));
                assert!(futures_util::poll!(&mut left).is_pending());
                // queued behind the previous one, which is about to end
                while world.accounts.hash_queue().0 > 0 {
                    tokio::task::yield_now().await;
                }
                let _ = futures_util::poll!(&mut left);
                drop(left);
                while decided() < n {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(WAIT_MAX, all).await.unwrap();
        }
        let refused = wrong(world.try_sign_in(&caller, "ada@example.com", GOOD).await);
        assert_eq!(refused, SignInError::Throttled { retry_after_secs: 300 });
        assert_eq!(bans::list(&mut world.admin()).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn sixteen_concurrent_sign_ins_to_one_account_all_succeed() {
        let world = World::with(|config| config.throttle.max_retries = 1);
        world.user("ada@example.com");
        let caller = at("192.0.2.1");
        let tries = (0..16).map(|_| world.try_sign_in(&caller, "ada@example.com", GOOD));
        let done = futures_util::future::join_all(tries).await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 16);
    }

    /// A cookie that the account does not know provides no counter and no queue of its own.
    #[tokio::test]
    async fn forged_device_cookies_queue_with_the_account() {
        let world = World::new();
        world.user("ada@example.com");
        let callers: Vec<_> =
            (0..16).map(|n| Caller { device: Some(format!("{n:043}")), ..Caller::default() }).collect();
        let tries = callers.iter().map(|caller| world.try_sign_in(caller, "ada@example.com", GOOD));
        let done = futures_util::future::join_all(tries).await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 16);
        let tries = callers.iter().map(|caller| world.try_sign_in(caller, "ada@example.com", OTHER));
        let refused: Vec<_> = futures_util::future::join_all(tries).await.into_iter().map(wrong).collect();
        assert_eq!(refused.iter().filter(|error| **error == SignInError::Credentials).count(), 5);
    }

    #[tokio::test]
    async fn parallel_attempts_do_not_slip_through() {
        let world = Arc::new(World::new());
        world.user("ada@example.com");
        let before = world.accounts.shared.hash_pool.runs();
        let tries: Vec<_> = (0..20)
            .map(|_| {
                let world = Arc::clone(&world);
                tokio::spawn(
                    async move { wrong(world.try_sign_in(&Caller::default(), "ada@example.com", OTHER).await) },
                )
            })
            .collect();
        let mut refused = 0;
        for attempt in tries {
            let error = tokio::time::timeout(WAIT_MAX, attempt).await.unwrap().unwrap();
            refused += usize::from(error == SignInError::Credentials);
        }
        assert_eq!((refused, world.accounts.shared.hash_pool.runs() - before), (5, 5));
    }

    #[tokio::test]
    async fn a_known_browser_cannot_be_locked_out_and_has_its_own_counter() {
        let world = World::new();
        world.user("ada@example.com");
        world.user("bob@example.com");
        let first = world.try_sign_in(&at("192.0.2.1"), "ada@example.com", GOOD).await.unwrap();
        let known = Caller { device: Some(first.device.expose().to_owned()), ..at("192.0.2.1") };
        for _ in 0..6 {
            let _ = wrong(world.try_sign_in(&at("192.0.2.1"), "ada@example.com", OTHER).await);
        }
        let again = world.try_sign_in(&known, "ada@example.com", GOOD).await.unwrap();
        assert_eq!(again.device.expose(), first.device.expose());
        // it is known to that account only
        for _ in 0..5 {
            let _ = wrong(world.try_sign_in(&at("192.0.2.7"), "bob@example.com", OTHER).await);
        }
        let error = wrong(world.try_sign_in(&known, "bob@example.com", GOOD).await);
        assert_eq!(error, SignInError::Throttled { retry_after_secs: 300 });
        // and its success did not clear the strangers' failures
        let error = wrong(world.try_sign_in(&at("192.0.2.9"), "ada@example.com", GOOD).await);
        assert_eq!(error, SignInError::Throttled { retry_after_secs: 300 });
        for _ in 0..5 {
            assert_eq!(wrong(world.try_sign_in(&known, "ada@example.com", OTHER).await), SignInError::Credentials);
        }
        let error = wrong(world.try_sign_in(&known, "ada@example.com", GOOD).await);
        assert_eq!(error, SignInError::Throttled { retry_after_secs: 300 });
    }

    #[tokio::test]
    async fn a_forged_device_cookie_is_replaced() {
        let world = World::new();
        world.user("ada@example.com");
        let caller = Caller { device: Some("A".repeat(43)), ..Caller::default() };
        let done = world.try_sign_in(&caller, "ada@example.com", GOOD).await.unwrap();
        assert_ne!(done.device.expose(), "A".repeat(43));
    }

    #[tokio::test]
    async fn beyond_the_queue_bound_of_an_address_it_is_busy_and_no_attempt_is_consumed() {
        let world = World::new();
        world.user("ada@example.com");
        let caller = at("192.0.2.1");
        let slot_request = world.accounts.shared.hash_pool.request_slot(&caller);
        let mut slots = Vec::new();
        while let Some(Ok(slot)) = slot_request.acquire(None).now_or_never() {
            slots.push(slot);
        }
        let mut waiting: Vec<_> = (0..256).map(|_| Box::pin(slot_request.acquire(None))).collect();
        for slot in &mut waiting {
            assert!(futures_util::poll!(slot).is_pending());
        }
        assert_eq!(world.accounts.hash_queue().0, 256);
        for _ in 0..10 {
            assert_eq!(wrong(world.try_sign_in(&caller, "ada@example.com", OTHER).await), SignInError::Busy);
        }
        let elsewhere = world.accounts.shared.hash_pool.request_slot(&at("192.0.2.2"));
        let mut elsewhere = Box::pin(elsewhere.acquire(None));
        assert!(futures_util::poll!(&mut elsewhere).is_pending(), "people elsewhere still wait, and come next");
        drop(slots.pop());
        for slot in &mut waiting[1..] {
            assert!(futures_util::poll!(slot).is_pending());
        }
        drop(slots.pop());
        assert!(elsewhere.await.is_ok());
        drop((slots, waiting));
        world.try_sign_in(&caller, "ada@example.com", GOOD).await.unwrap();
    }

    #[tokio::test]
    async fn signing_in_ends_the_session_that_the_browser_presented() {
        let world = World::new();
        world.user("ada@example.com");
        let (old, other) = (world.sign_in("ada@example.com").await, world.sign_in("ada@example.com").await);
        let caller = Caller { session: Some(old.session.id.clone()), ..Caller::default() };
        let new = world.try_sign_in(&caller, "ada@example.com", GOOD).await.unwrap();
        let tokens: HashSet<_> = [&old, &other, &new].map(|done| done.token.expose().to_owned()).into();
        assert_eq!(tokens.len(), 3);
        let stands =
            |done: &SignedIn| credentials::session_token(&world.accounts, done.token.expose().as_bytes()).is_ok();
        assert_eq!((stands(&old), stands(&other), stands(&new)), (false, true, true));
        // a failed sign-in ends nothing
        let caller = Caller { session: Some(new.session.id.clone()), ..Caller::default() };
        let _ = wrong(world.try_sign_in(&caller, "ada@example.com", OTHER).await);
        assert!(stands(&new));
    }

    #[tokio::test]
    async fn signing_out_ends_only_that_session() {
        let world = World::new();
        world.user("ada@example.com");
        let (one, two) = (world.sign_in("ada@example.com").await, world.sign_in("ada@example.com").await);
        sign_out(&world.accounts, &Caller::default(), &one.session, "").await.unwrap();
        let stands =
            |done: &SignedIn| credentials::session_token(&world.accounts, done.token.expose().as_bytes()).is_ok();
        assert_eq!((stands(&one), stands(&two)), (false, true));
    }

    #[tokio::test]
    async fn a_hash_with_other_parameters_is_replaced_at_the_next_sign_in() {
        let world = World::new();
        world.user("ada@example.com");
        let hash = |world: &World| {
            store::users::user_by_email(&mut world.db(), "ada@example.com").unwrap().unwrap().password.unwrap()
        };
        let old = hash(&world);
        world.sign_in("ada@example.com").await;
        assert_eq!(hash(&world).expose(), old.expose());
        world.accounts.close().await;
        let World { accounts, clock, mut config, dir } = world;
        drop(accounts);
        config.password.argon2.iterations = 2;
        let accounts = Accounts::open(&config, clock.clone()).unwrap();
        let world = World { accounts, clock, config, dir };
        world.sign_in("ada@example.com").await;
        assert!(hash(&world).expose().starts_with("$argon2id$v=19$m=64,t=2,p=1$"));
        world.sign_in("ada@example.com").await;
    }

    #[tokio::test]
    async fn a_password_changed_while_the_old_one_is_checked_wins() {
        let world = World::new();
        let id = world.user("ada@example.com");
        let old = store::users::user_by_id(&mut world.db(), &id).unwrap().unwrap().password.unwrap();
        let details = Details { password: Some(secret(OTHER)), ..Details::default() };
        world.admin().set_user("ada@example.com", details).unwrap();
        let draft = NewSessionDraft::new(&world.accounts, &Caller::default(), true, LastHere::Nobody, START).unwrap();
        let begins = SignIn {
            user_id: id,
            checked: old,
            rehashed: None,
            session: draft.row,
            counted: CountedAttempt::default(),
        };
        let begun = store::sign_ins::begin_session(&mut world.db(), &begins, START, &AuditRow::default()).unwrap();
        assert!(matches!(begun, Begun::Changed(_)));
        assert_eq!(world.accounts.sessions_active(), 0);
        assert_eq!(
            wrong(world.try_sign_in(&Caller::default(), "ada@example.com", GOOD).await),
            SignInError::Credentials
        );
    }

    #[tokio::test]
    async fn concurrent_sign_ins_with_an_outdated_hash_all_succeed() {
        let mut world = World::new();
        world.user("ada@example.com");
        world.config.password.argon2.iterations = 2;
        world = world.restart().await;
        let caller = Caller::default();
        let sign_in = || world.try_sign_in(&caller, "ada@example.com", GOOD);
        let (one, two, three) = tokio::join!(sign_in(), sign_in(), sign_in());
        assert_eq!([one, two, three].map(|done| done.is_ok()), [true; 3]);
    }

    #[tokio::test]
    async fn possible_passwords_are_never_stored_or_logged_and_a_single_label_address_signs_in() {
        let world = World::new();
        world.user("ada@localhost");
        for typed in ["ada@localhost", "P@ssw0rd", "nobody@example.com"] {
            assert_eq!(wrong(world.try_sign_in(&at("192.0.2.1"), typed, OTHER).await), SignInError::Credentials);
        }
        world.sign_in("ada@localhost").await;
        let told = store::audit::trail(&mut world.db(), 4).unwrap();
        let told: Vec<&str> = told.iter().map(|(_, email)| email.as_str()).collect();
        assert_eq!((told[0], told[1], told[3]), ("ada@localhost", "nobody@example.com", "ada@localhost"));
        assert!(told[2].starts_with("no-address-"), "{}", told[2]);
    }
}
