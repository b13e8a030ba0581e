//! Open sign-up, and the steps it shares with invites: check and hash a new password, count attempts.

use super::accounts::Accounts;
use super::audit;
use super::caller::Caller;
use super::errors::{ChangeError, unavailable};
use super::fields;
use super::ids::new_id;
use super::limits::login_throttle;
use super::password::hash_workers::delay_rejection;
use super::password::policy;
use crate::config;
use crate::secret::Secret;
use crate::store::{self, AuditRow, CountedAttempt, NewUser};

/// Checks a new password and hashes it in the pool.
pub(super) async fn hashed(
    accounts: &Accounts,
    caller: &Caller,
    email: &str,
    password: Secret,
) -> Result<Secret, ChangeError> {
    let shared = &*accounts.shared;
    shared.settings.require_passwords()?;
    policy::check(&shared.settings.password, &shared.settings.title, email, &password)?;
    let slot = shared.hash_pool.request_slot(caller).acquire(None).await.map_err(|_| ChangeError::Busy)?;
    slot.hash(password).await.map_err(|_| ChangeError::Busy)
}

pub(super) fn new_user(
    accounts: &Accounts,
    email: String,
    name: String,
    password: Secret,
) -> Result<NewUser, ChangeError> {
    let shared = &*accounts.shared;
    let id = new_id(shared.settings.user_ids, &shared.clock).map_err(|_| ChangeError::Unavailable)?;
    Ok(NewUser {
        id,
        email,
        name,
        picture: String::new(),
        groups: Vec::new(),
        password: Some(password),
        email_proved: false,
    })
}

/// Creates an account if `sign_up.mode` is open. New and taken addresses get the same response and cost the same
/// time; does not sign in.
pub async fn register(
    accounts: &Accounts,
    caller: &Caller,
    email: &str,
    name: &str,
    password: Secret,
) -> Result<(), ChangeError> {
    let shared = &*accounts.shared;
    if shared.settings.sign_up != config::SignUp::Open {
        return Err(ChangeError::Closed);
    }
    let (email, name) = (fields::email(email)?, fields::name(name)?);
    let now = shared.clock.now();
    let event = audit::about("sign_up", caller, now, "", &email);
    let (hash, counted) = hashed_and_counted(accounts, caller, &event, password).await?;
    let new = new_user(accounts, email, name, hash)?;
    let done = shared.store.run(move |db| store::users::sign_up(db, &new, &counted, now, &event));
    let (event, banned) = done.await.map_err(|error| unavailable(&error))?;
    audit::log_with_bans(&event, banned);
    Ok(())
}

/// Checks and hashes the password for an address that may already have an account; the attempt is counted.
pub(super) async fn hashed_and_counted(
    accounts: &Accounts,
    caller: &Caller,
    event: &AuditRow,
    password: Secret,
) -> Result<(Secret, CountedAttempt), ChangeError> {
    let shared = &*accounts.shared;
    shared.settings.require_passwords()?;
    policy::check(&shared.settings.password, &shared.settings.title, &event.email, &password)?;
    let slot_request = shared.hash_pool.request_slot(caller);
    loop {
        let slot = slot_request.acquire(None).await.map_err(|_| ChangeError::Busy)?;
        let limits = login_throttle::of_sign_up(shared.settings.throttle, caller);
        let (email, now) = (event.email.clone(), shared.clock.now());
        let counted = shared.store.run(move |db| store::throttle::count_attempt(db, &limits, &email, now)).await;
        let throttled = match counted.map_err(|error| unavailable(&error))? {
            Ok(counted) => return Ok((slot.hash(password).await.map_err(|_| ChangeError::Busy)?, counted)),
            Err(throttled) => throttled,
        };
        drop(slot);
        if !slot_request.pause(&throttled).await {
            let retry_after_secs = login_throttle::record_rejection(&throttled);
            let detail = format!("retry after {retry_after_secs} s");
            audit::log(&AuditRow { event: "sign_up_throttled", detail, ..event.clone() });
            delay_rejection().await;
            return Err(ChangeError::Throttled { retry_after_secs });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{GOOD, OTHER, World, at, secret};
    use super::super::{Details, FieldError};
    use super::*;
    use crate::account::admin::bans;
    use crate::secret::token_hash;

    #[tokio::test]
    async fn sign_up_responds_alike_and_takes_the_same_time_for_new_and_taken_addresses() {
        let world = World::with(|config| config.sign_up = config::SignUp::Open);
        let caller = Caller::default();
        let sign_up = async |email: &str, password: &str| {
            let before = world.accounts.shared.hash_pool.runs();
            let done = register(&world.accounts, &caller, email, "Ada", secret(password)).await;
            (done, world.accounts.shared.hash_pool.runs() - before)
        };
        assert_eq!(sign_up("ada@example.com", GOOD).await, (Ok(()), 1));
        assert_eq!(sign_up("ADA@example.com", OTHER).await, (Ok(()), 1));
        assert_eq!(world.events(1), ["sign_up_taken"]);
        assert_eq!(store::users::list(&mut world.db()).unwrap().len(), 1);
        world.sign_in("ada@example.com").await;
        let (done, runs) = sign_up("eve@example.com", "short").await;
        assert!(matches!(done, Err(ChangeError::Field(FieldError { field: "password", code: "too_short", .. }))));
        assert_eq!(runs, 0);
    }

    #[tokio::test]
    async fn sign_ups_are_counted_by_address_whatever_their_result_and_separately_from_sign_ins() {
        let world = World::with(|config| {
            config.sign_up = config::SignUp::Open;
            config.throttle.max_retries = 1;
        });
        world.user("ada@example.com");
        let sign_up = async |from: &str, email: &str, password: &str| {
            register(&world.accounts, &at(from), email, "", secret(password)).await
        };
        for n in 0..20 {
            // rejected for the password: nothing is revealed, nothing is counted
            assert!(matches!(sign_up("2001:db8::1", "x@example.com", "short").await, Err(ChangeError::Field(_))));
            let email = if n % 2 == 0 { "ada@example.com".to_owned() } else { format!("u{n}@example.com") };
            assert_eq!((n, sign_up(&format!("2001:db8::{n}"), &email, GOOD).await), (n, Ok(())));
        }
        let before = world.accounts.shared.hash_pool.runs();
        let refused = Err(ChangeError::Throttled { retry_after_secs: 180 });
        assert_eq!(sign_up("2001:db8::ffff", "new@example.com", GOOD).await, refused);
        assert_eq!(world.accounts.shared.hash_pool.runs(), before);
        assert_eq!(world.events(1), ["banned"]);
        world.try_sign_in(&at("2001:db8::1"), "ada@example.com", GOOD).await.unwrap();
        assert_eq!(sign_up("2001:db8:0:1::1", "other@example.com", GOOD).await, Ok(()));
        let bans = bans::list(&mut world.admin()).unwrap();
        assert_eq!((bans.len(), bans[0].kind, bans[0].what.as_str()), (1, "sign-up", "2001:db8::/64"));
        bans::lift(&mut world.admin(), "2001:db8::/64").unwrap();
        assert_eq!(sign_up("2001:db8::1", "new@example.com", GOOD).await, Ok(()));
        for n in 0..19 {
            assert_eq!(sign_up("2001:db8::1", &format!("v{n}@example.com"), GOOD).await, Ok(()));
        }
        world.clock.advance(179);
        assert_eq!(
            sign_up("2001:db8::1", "late@example.com", GOOD).await,
            Err(ChangeError::Throttled { retry_after_secs: 1 })
        );
        world.clock.advance(1);
        assert_eq!(sign_up("2001:db8::1", "late@example.com", GOOD).await, Ok(()));
        // over a Unix socket there are no addresses, and all clients count as one
        for n in 0..20 {
            let email = format!("w{n}@example.com");
            assert_eq!(register(&world.accounts, &Caller::default(), &email, "", secret(GOOD)).await, Ok(()));
        }
        assert_eq!(sign_up("127.0.0.1", "new2@example.com", GOOD).await, refused);
        // behind a balancer that does not name its clients all would count as one, so none are counted
        let proxy = Caller { is_proxy: true, ..at("127.0.0.1") };
        assert_eq!(register(&world.accounts, &proxy, "new3@example.com", "", secret(GOOD)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_new_password_forgets_the_known_browsers_of_the_account() {
        let world = World::new();
        world.user("ada@example.com");
        world.user("bob@example.com");
        let device = world.sign_in("ada@example.com").await.device;
        let from = Caller { device: Some(device.expose().to_owned()), ..Caller::default() };
        world.try_sign_in(&from, "bob@example.com", GOOD).await.unwrap();
        let known = |of| store::devices::knows_device(&mut world.db(), &token_hash(device.expose()), of).unwrap();
        assert!(known("ada@example.com"));
        assert!(known("bob@example.com"));
        let details = Details { password: Some(secret(OTHER)), ..Details::default() };
        world.admin().set_user("ada@example.com", details).unwrap();
        assert!(!known("ada@example.com"));
        assert!(known("bob@example.com"));
    }

    #[tokio::test]
    async fn ids_are_decimal_or_uuids_as_configured() {
        let world = World::new();
        assert_eq!(world.user("ada@example.com"), "1");
        let world = World::with(|config| config.user_ids = config::UserIds::Uuid);
        let id = world.user("ada@example.com");
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        assert_eq!(world.sign_in("ada@example.com").await.session.user.load().id, id);
    }
}
