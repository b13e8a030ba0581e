//! One-time links: invites, the first link, and password resets. A link works once; its effect and its consumption
//! are one transaction.

use super::accounts::Accounts;
use super::audit;
use super::caller::Caller;
use super::errors::{ChangeError, FieldError, StoreDown, store_down, unavailable};
use super::fields;
use super::limits::login_throttle::presented_device;
use super::session::draft::{NewSessionDraft, SignedIn};
use super::sign_up;
use crate::clock::UnixSecs;
use crate::config;
use crate::secret::{NoRandomness, Secret, random_token, token_hash};
use crate::store::{self, ADMIN_GROUP, AuditRow, CountedAttempt, LastHere, LinkRow, LinkUse, NewLink, Written};

/// Lifetime of the link for the first account, seconds.
const FIRST_LINK_SECS: u64 = 86_400;
/// Longest link token accepted, bytes; ours have 43.
const TOKEN_BYTES_MAX: usize = 64;

/// What a one-time link is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// Create an account.
    Invite {
        /// Set by the invite, and then unchangeable.
        email: Option<String>,
    },
    /// Set the first or a new password of an existing account.
    Reset {
        /// The account's e-mail.
        email: String,
        /// The account has API tokens, which may be kept under the new password.
        has_tokens: bool,
    },
}

fn new_link(kind: &'static str, token: &Secret, now: UnixSecs, lasts_secs: u64) -> NewLink {
    NewLink {
        hash: token_hash(token.expose()),
        kind,
        user_id: None,
        email: None,
        groups: Vec::new(),
        created: now,
        expires: now.saturating_add(lasts_secs),
    }
}

/// An invite's link and token. `user_id`: an existing account that has no password yet.
pub(super) fn invite(
    now: UnixSecs,
    lasts_secs: u64,
    groups: Vec<String>,
    email: Option<String>,
    user_id: Option<String>,
) -> Result<(NewLink, Secret), NoRandomness> {
    let token = random_token()?;
    Ok((NewLink { user_id, email, groups, ..new_link("invite", &token, now, lasts_secs) }, token))
}

/// A password reset's link and token.
pub(super) fn reset(now: UnixSecs, lasts_secs: u64, user_id: String) -> Result<(NewLink, Secret), NoRandomness> {
    let token = random_token()?;
    Ok((NewLink { user_id: Some(user_id), ..new_link("reset", &token, now, lasts_secs) }, token))
}

/// Creates an invite for the first account (group `admin`) if there is no account. Valid for 24 hours, and void once
/// an account is in that group: a stranger's sign-up does not void it.
pub async fn create_first(accounts: &Accounts) -> Result<Option<Secret>, StoreDown> {
    let shared = &*accounts.shared;
    let now = shared.clock.now();
    let token = random_token().map_err(|_| StoreDown)?;
    let link = NewLink { groups: vec![ADMIN_GROUP.to_owned()], ..new_link("first", &token, now, FIRST_LINK_SECS) };
    let event = audit::event("first_link_made", &Caller::default(), now);
    let made = shared
        .store
        .run(move |db| {
            if store::users::any_user(db)? {
                Ok(false)
            } else {
                store::links::add_link(db, &link, &event).map(|()| true)
            }
        })
        .await
        .map_err(|error| store_down(&error))?;
    Ok(made.then_some(token))
}

/// What a link is for; `None`: it is unknown, used, expired or void.
pub async fn inspect(accounts: &Accounts, caller: &Caller, token: &str) -> Result<Option<LinkKind>, ChangeError> {
    Ok(open_link(accounts, caller, token).await?.map(|link| match (link.kind.as_str(), link.user) {
        ("reset", Some(user)) => LinkKind::Reset { email: user.email, has_tokens: link.tokens > 0 },
        (_, Some(user)) => LinkKind::Invite { email: Some(user.email) },
        (_, None) => LinkKind::Invite { email: link.email },
    }))
}

async fn open_link(accounts: &Accounts, caller: &Caller, token: &str) -> Result<Option<LinkRow>, ChangeError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Ok(None);
    }
    let _permit = accounts.shared.store_permit(caller).await.map_err(|_| ChangeError::Busy)?;
    let (hash, now) = (token_hash(token), accounts.shared.clock.now());
    let link = accounts
        .shared
        .store
        .run(move |db| store::links::find_link(db, &hash, now))
        .await
        .map_err(|error| unavailable(&error))?;
    // invites from before sign-up was closed are void; those for existing accounts still work
    let closed = accounts.shared.settings.sign_up == config::SignUp::Closed;
    Ok(link.filter(|link| !(closed && link.kind == "invite" && link.user.is_none())))
}

/// Accepts an invite: creates its account, or sets the first password of the account it is for, then signs in. The
/// invite's own e-mail, if any, takes precedence over `email`. If it has none, the response reveals whether an
/// address has an account, so such attempts count as sign-ups until one succeeds.
pub async fn accept_invite(
    accounts: &Accounts,
    caller: &Caller,
    token: &str,
    email: &str,
    name: &str,
    password: Secret,
) -> Result<SignedIn, ChangeError> {
    let link = open_link(accounts, caller, token).await?.filter(|link| link.kind != "reset");
    let link = link.ok_or(ChangeError::Closed)?;
    let name = fields::name(name)?;
    let fixed = link.user.as_ref().map(|user| user.email.clone()).or(link.email);
    let (email, hash, counted) = if let Some(email) = fixed {
        let hash = sign_up::hashed(accounts, caller, &email, password).await?;
        (email, hash, CountedAttempt::default())
    } else {
        let email = fields::email(email)?;
        let event = audit::about("sign_up", caller, accounts.shared.clock.now(), "", &email);
        let (hash, counted) = sign_up::hashed_and_counted(accounts, caller, &event, password).await?;
        (email, hash, counted)
    };
    let what = if link.user.is_some() {
        LinkUse::SetPassword { hash, name, keep_tokens: false }
    } else {
        LinkUse::Add(sign_up::new_user(accounts, email, name, hash)?)
    };
    use_link(accounts, caller, token, what, counted, "invite_used").await
}

/// Sets a password by a reset link, or by the invite of an existing account. Ends the account's sessions and, unless
/// kept, its API tokens; forgets its known browsers; signs in.
pub async fn reset_password(
    accounts: &Accounts,
    caller: &Caller,
    token: &str,
    password: Secret,
    keep_tokens: bool,
) -> Result<SignedIn, ChangeError> {
    let user = open_link(accounts, caller, token).await?.and_then(|link| link.user).ok_or(ChangeError::Closed)?;
    let hash = sign_up::hashed(accounts, caller, &user.email, password).await?;
    let what = LinkUse::SetPassword { hash, name: String::new(), keep_tokens };
    use_link(accounts, caller, token, what, CountedAttempt::default(), "password_reset").await
}

async fn use_link(
    accounts: &Accounts,
    caller: &Caller,
    token: &str,
    what: LinkUse,
    counted: CountedAttempt,
    event: &'static str,
) -> Result<SignedIn, ChangeError> {
    let shared = &*accounts.shared;
    let now = shared.clock.now();
    // a browser known to other accounts stays known to them
    let last_here = match presented_device(caller) {
        Some(device) => {
            let last = shared.store.run(move |db| store::devices::last_at_device(db, &device)).await;
            last.map_err(|error| unavailable(&error))?
        }
        None => LastHere::Nobody,
    };
    let draft = NewSessionDraft::new(accounts, caller, true, last_here, now)?;
    let event = audit::event(event, caller, now);
    let (hash, row, written) = (token_hash(token), draft.row.clone(), event.clone());
    let done = shared
        .store
        .run(move |db| store::links::use_link(db, &hash, &what, &row, &counted, now, &written))
        .await
        .map_err(|error| unavailable(&error))?;
    match done {
        Written::Done(user) => {
            audit::log(&AuditRow { user_id: user.id.clone(), email: user.email.clone(), ..event });
            Ok(draft.signed_in(accounts, &user.id)?)
        }
        Written::Taken => Err(ChangeError::Field(FieldError {
            field: "email",
            code: "taken",
            message: "An account with this e-mail address already exists.".to_owned(),
        })),
        Written::Missing => Err(ChangeError::Closed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{GOOD, OTHER, World, at, secret};
    use super::super::{Details, Rejected};
    use super::*;
    use crate::account::admin::invites;
    use crate::account::credentials;

    fn code(result: Result<SignedIn, ChangeError>) -> String {
        match result {
            Ok(done) => format!("signed in as {}", done.session.user.load().email),
            Err(ChangeError::Field(wrong)) => format!("{}: {}", wrong.field, wrong.code),
            Err(error) => format!("{error:?}"),
        }
    }

    fn token(url: &Secret) -> String {
        url.expose().rsplit('/').next().unwrap().to_owned()
    }

    async fn accept(world: &World, token: &str, email: &str, password: &str) -> String {
        code(accept_invite(&world.accounts, &Caller::default(), token, email, "Ada", secret(password)).await)
    }

    #[tokio::test]
    async fn the_first_link_makes_an_admin_once_and_is_void_once_there_is_one() {
        let world = World::new();
        let (one, two) = (
            create_first(&world.accounts).await.unwrap().unwrap(),
            create_first(&world.accounts).await.unwrap().unwrap(),
        );
        assert_eq!(
            inspect(&world.accounts, &Caller::default(), one.expose()).await,
            Ok(Some(LinkKind::Invite { email: None }))
        );
        assert_eq!(accept(&world, one.expose(), "Ada@example.com", GOOD).await, "signed in as ada@example.com");
        let user = store::users::user_by_email(&mut world.db(), "ada@example.com").unwrap().unwrap();
        assert_eq!((user.groups, user.name.as_str()), (vec!["admin".to_owned()], "Ada"));
        for used in [&one, &two] {
            assert_eq!(inspect(&world.accounts, &Caller::default(), used.expose()).await, Ok(None));
            assert_eq!(accept(&world, used.expose(), "eve@example.com", GOOD).await, "Closed");
        }
        assert!(create_first(&world.accounts).await.unwrap().is_none());
        assert_eq!(store::users::list(&mut world.db()).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_first_link_works_for_a_day() {
        let world = World::new();
        let link = create_first(&world.accounts).await.unwrap().unwrap();
        world.clock.advance(86_399);
        assert!(inspect(&world.accounts, &Caller::default(), link.expose()).await.unwrap().is_some());
        world.clock.advance(1);
        assert!(inspect(&world.accounts, &Caller::default(), link.expose()).await.unwrap().is_none());
        assert_eq!(accept(&world, link.expose(), "ada@example.com", GOOD).await, "Closed");
    }

    #[tokio::test]
    async fn a_link_used_by_two_at_once_works_for_one() {
        let world = std::sync::Arc::new(World::new());
        let link = create_first(&world.accounts).await.unwrap().unwrap();
        let tries: Vec<_> = (0..8)
            .map(|n| {
                let (world, link) = (std::sync::Arc::clone(&world), link.clone());
                tokio::spawn(async move { accept(&world, link.expose(), &format!("u{n}@example.com"), GOOD).await })
            })
            .collect();
        let mut won = 0;
        for attempt in tries {
            won += usize::from(attempt.await.unwrap().starts_with("signed in"));
        }
        assert_eq!((won, store::users::list(&mut world.db()).unwrap().len()), (1, 1));
    }

    #[tokio::test]
    async fn an_invite_fixes_email_and_groups_and_survives_a_rejected_password() {
        let world = World::new();
        world.user("bob@example.com");
        let mut admin = world.admin();
        let fixed = token(&invites::create(&mut admin, Some("Ada@example.com"), &["staff".to_owned()], 60).unwrap());
        assert_eq!(
            inspect(&world.accounts, &Caller::default(), &fixed).await,
            Ok(Some(LinkKind::Invite { email: Some("ada@example.com".to_owned()) }))
        );
        assert_eq!(accept(&world, &fixed, "eve@example.com", "short").await, "password: too_short");
        assert_eq!(accept(&world, &fixed, "eve@example.com", GOOD).await, "signed in as ada@example.com");
        assert_eq!(store::users::user_by_email(&mut world.db(), "ada@example.com").unwrap().unwrap().groups, ["staff"]);
        let open = token(&invites::create(&mut admin, None, &[], 60).unwrap());
        assert_eq!(accept(&world, &open, "nonsense", GOOD).await, "email: invalid");
        assert_eq!(accept(&world, &open, "bob@example.com", OTHER).await, "email: taken");
        assert!(world.try_sign_in(&Caller::default(), "bob@example.com", GOOD).await.is_ok());
        assert_eq!(accept(&world, &open, "eve@example.com", GOOD).await, "signed in as eve@example.com");
        let late = token(&invites::create(&mut admin, None, &[], 60).unwrap());
        world.clock.advance(60);
        assert_eq!(accept(&world, &late, "zoe@example.com", GOOD).await, "Closed");
        assert!(invites::create(&mut admin, Some("bob@example.com"), &[], 60).is_err());
        for unknown in ["", "x", &"x".repeat(5000)] {
            assert_eq!(inspect(&world.accounts, &Caller::default(), unknown).await, Ok(None));
            assert_eq!(accept(&world, unknown, "zoe@example.com", GOOD).await, "Closed");
        }
    }

    #[tokio::test]
    async fn an_account_added_without_a_password_gets_it_by_its_invite() {
        let world = World::new();
        let groups = Some(vec!["staff".to_owned()]);
        let (user, link) = world.admin().add_user("ada@example.com", Details { groups, ..Details::default() }).unwrap();
        let link = token(&link.unwrap());
        assert_eq!(
            inspect(&world.accounts, &Caller::default(), &link).await,
            Ok(Some(LinkKind::Invite { email: Some("ada@example.com".to_owned()) }))
        );
        assert_eq!(accept(&world, &link, "", GOOD).await, "signed in as ada@example.com");
        let row = store::users::user_by_id(&mut world.db(), &user.id).unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.groups.join(",")), ("Ada", "staff".to_owned()));
        assert_eq!(accept(&world, &link, "", OTHER).await, "Closed");
        world.sign_in("ada@example.com").await;
    }

    #[tokio::test]
    async fn a_reset_link_sets_the_password_once_and_ends_all_sessions_and_other_links() {
        let world = World::new();
        world.user("ada@example.com");
        let old = world.sign_in("ada@example.com").await;
        let mut admin = world.admin();
        let (one, two) = (
            token(&admin.reset_link("ada@example.com").unwrap()),
            token(&admin.reset_link("ada@example.com").unwrap()),
        );
        assert_eq!(
            inspect(&world.accounts, &Caller::default(), &one).await,
            Ok(Some(LinkKind::Reset { email: "ada@example.com".to_owned(), has_tokens: false }))
        );
        assert_eq!(accept(&world, &one, "ada@example.com", OTHER).await, "Closed");
        let caller = Caller::default();
        let reset = async |token: &str, password: &str| {
            code(reset_password(&world.accounts, &caller, token, secret(password), false).await)
        };
        assert_eq!(reset(&one, "short").await, "password: too_short");
        assert!(credentials::session_token(&world.accounts, old.token.expose().as_bytes()).is_ok());
        assert_eq!(reset(&one, OTHER).await, "signed in as ada@example.com");
        assert_eq!(
            credentials::session_token(&world.accounts, old.token.expose().as_bytes()).err(),
            Some(Rejected::Ended)
        );
        assert_eq!((reset(&one, GOOD).await, reset(&two, GOOD).await), ("Closed".to_owned(), "Closed".to_owned()));
        assert!(world.try_sign_in(&caller, "ada@example.com", GOOD).await.is_err());
        assert!(world.try_sign_in(&caller, "ada@example.com", OTHER).await.is_ok());
    }

    #[tokio::test]
    async fn changing_the_email_voids_links_sent_to_the_previous_one() {
        let world = World::new();
        let mut admin = world.admin();
        let (_, invite) = admin.add_user("typo@example.com", Details::default()).unwrap();
        let links = [token(&invite.unwrap()), token(&admin.reset_link("typo@example.com").unwrap())];
        let rename = |email: &str| Details { email: Some(email.to_owned()), ..Details::default() };
        admin.set_user("typo@example.com", rename("right@example.com")).unwrap();
        for link in links {
            assert_eq!(inspect(&world.accounts, &Caller::default(), &link).await, Ok(None));
            assert_eq!(accept(&world, &link, "typo@example.com", OTHER).await, "Closed");
        }
        let link = token(&admin.reset_link("right@example.com").unwrap());
        let done = reset_password(&world.accounts, &Caller::default(), &link, secret(OTHER), false).await;
        assert_eq!(code(done), "signed in as right@example.com");
        let events = admin.events(Some("right@example.com"), 60).unwrap();
        let told: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
        assert_eq!(told, ["password_reset", "reset_made", "user_changed", "reset_made", "invite_made", "user_added"]);
    }

    #[tokio::test]
    async fn an_invite_reveals_taken_addresses_no_more_often_than_sign_up_allows() {
        let world = World::with(|config| config.throttle.max_retries = 1);
        world.user("bob@example.com");
        let mut admin = world.admin();
        let (open, other) = (
            token(&invites::create(&mut admin, None, &[], 60).unwrap()),
            token(&invites::create(&mut admin, None, &[], 60).unwrap()),
        );
        let accept = async |from: &str, link: &str, email: &str| {
            code(accept_invite(&world.accounts, &at(from), link, email, "", secret(OTHER)).await)
        };
        for _ in 0..20 {
            assert_eq!(accept("192.0.2.1", &open, "bob@example.com").await, "email: taken");
        }
        let refused = accept("192.0.2.1", &open, "eve@example.com").await;
        assert!(refused.starts_with("Throttled"), "{refused}");
        assert_eq!(accept("192.0.2.2", &open, "eve@example.com").await, "signed in as eve@example.com");
        // successes do not count
        let links: Vec<_> = (0..21).map(|_| token(&invites::create(&mut admin, None, &[], 60).unwrap())).collect();
        for (number, link) in links.iter().enumerate() {
            let email = format!("u{number}@example.com");
            assert_eq!(accept("192.0.2.3", link, &email).await, format!("signed in as {email}"));
        }
        assert_eq!(accept("192.0.2.2", &other, "ada@example.com").await, "signed in as ada@example.com");
    }

    #[tokio::test]
    async fn a_browser_that_uses_a_link_stays_known_to_its_other_accounts() {
        let world = World::new();
        world.user("ada@example.com");
        world.user("bob@example.com");
        let device = world.sign_in("ada@example.com").await.device.expose().to_owned();
        let link = token(&world.admin().reset_link("bob@example.com").unwrap());
        for (shown, kept) in [(device.as_str(), true), ("of-nobody", false)] {
            let link = if kept { link.clone() } else { token(&world.admin().reset_link("bob@example.com").unwrap()) };
            let caller = Caller { device: Some(shown.to_owned()), ..Caller::default() };
            let done = reset_password(&world.accounts, &caller, &link, secret(OTHER), false).await.unwrap();
            assert_eq!(done.device.expose() == shown, kept);
            let known = |of| store::devices::knows_device(&mut world.db(), &token_hash(&device), of).unwrap();
            // the account that the link was used for knows no other browser
            assert_eq!((known("ada@example.com"), known("bob@example.com")), (true, kept));
        }
    }

    #[tokio::test]
    async fn the_first_link_stays_void_after_all_accounts_are_removed() {
        let world = World::new();
        let old = create_first(&world.accounts).await.unwrap().unwrap();
        let groups = Some(vec![ADMIN_GROUP.to_owned()]);
        world.admin().add_user("ada@example.com", Details { groups, ..Details::default() }).unwrap();
        world.admin().remove_user("ada@example.com").unwrap();
        assert_eq!(accept(&world, old.expose(), "eve@example.com", GOOD).await, "Closed");
        let new = create_first(&world.accounts).await.unwrap().unwrap();
        assert_eq!(accept(&world, new.expose(), "bob@example.com", GOOD).await, "signed in as bob@example.com");
    }

    #[tokio::test]
    async fn links_of_disabled_accounts_are_void_and_stay_so_when_enabled_again() {
        let world = World::new();
        world.user("ada@example.com");
        let mut admin = world.admin();
        let link = token(&admin.reset_link("ada@example.com").unwrap());
        admin.set_disabled("ada@example.com", true).unwrap();
        assert_eq!(inspect(&world.accounts, &Caller::default(), &link).await, Ok(None));
        let done = reset_password(&world.accounts, &Caller::default(), &link, secret(OTHER), false).await;
        assert_eq!(code(done), "Closed");
        assert!(admin.reset_link("ada@example.com").is_err());
        admin.set_disabled("ada@example.com", false).unwrap();
        assert_eq!(inspect(&world.accounts, &Caller::default(), &link).await, Ok(None));
        let new = token(&admin.reset_link("ada@example.com").unwrap());
        assert!(inspect(&world.accounts, &Caller::default(), &new).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn only_open_sign_up_accepts_everyone_and_closed_accepts_no_invite() {
        let world = World::with(|config| config.sign_up = config::SignUp::Invite);
        let done = sign_up::register(&world.accounts, &Caller::default(), "ada@example.com", "", secret(GOOD)).await;
        assert_eq!(done, Err(ChangeError::Closed));
        let link = token(&invites::create(&mut world.admin(), None, &[], 60).unwrap());
        world.accounts.close().await;
        let World { accounts, clock, mut config, dir } = world;
        drop(accounts);
        config.sign_up = config::SignUp::Closed;
        let accounts = Accounts::open(&config, clock.clone()).unwrap();
        let world = World { accounts, clock, config, dir };
        assert_eq!(inspect(&world.accounts, &Caller::default(), &link).await, Ok(None));
        assert_eq!(accept(&world, &link, "ada@example.com", GOOD).await, "Closed");
        assert!(invites::create(&mut world.admin(), None, &[], 60).is_err());
        // links that the operator creates still work
        let first = create_first(&world.accounts).await.unwrap().unwrap();
        assert_eq!(accept(&world, first.expose(), "ada@example.com", GOOD).await, "signed in as ada@example.com");
    }

    /// With two transactions, a failure of the second lost the effect of the first: the link was consumed, and its
    /// holder was told that it had failed.
    #[tokio::test]
    async fn a_link_is_consumed_together_with_its_effect_or_not_at_all() {
        let world = World::new();
        let link = token(&invites::create(&mut world.admin(), None, &[], 60).unwrap());
        world.break_forgiving();
        assert_eq!(accept(&world, &link, "ada@example.com", GOOD).await, "Unavailable");
        assert!(store::users::list(&mut world.db()).unwrap().is_empty());
        world.mend_forgiving();
        assert_eq!(accept(&world, &link, "ada@example.com", GOOD).await, "signed in as ada@example.com");
    }
}
