//! Sign-ins through a provider: which account an identity belongs to, decided and carried out in one transaction. The
//! rules of the provider have been applied before, and come as plain values.

use super::audit::{self, AuditRow};
use super::db::Db;
use super::error::StoreError;
use super::identities::{self, IdentityRow, Linked, NewIdentity};
use super::links;
use super::sealed_tokens::{self, SealedToken};
use super::sessions::{self, NewSession};
use super::sign_ins;
use super::sql::Tx;
use super::user_rows::{self, UserRow};
use super::users::{self, NewUser, Written};
use crate::clock::UnixSecs;

/// How long after its beginning a session is kept by another sign-in with the same identity, seconds: browsers finish
/// several tabs within seconds of each other.
const SAME_SIGN_IN_SECS: u64 = 60;

/// An identity that may sign in by the rules of its provider, and what the sign-in is for.
#[derive(Debug, Clone)]
pub struct ProviderSignIn {
    /// As the provider has just described it.
    pub identity: NewIdentity,
    /// What it is for.
    pub intent: ProviderIntent,
    /// The session to begin; it replaces the one that the browser presented.
    pub session: NewSession,
    /// Tokens to keep with it.
    pub tokens: Vec<SealedToken>,
    /// The address is an account's: an identity whose address is verified is linked to it without asking, if the
    /// account's has been proved too.
    pub links_by_email: bool,
}

/// What a sign-in through a provider is for.
#[derive(Debug, Clone)]
pub enum ProviderIntent {
    /// To sign in, or to create an account.
    SignIn {
        /// The account to create if the identity has none; `None`: sign-up is not open.
        new: Option<NewUser>,
        /// Whether the account that the browser is signed in to was asked about.
        is_decided: bool,
    },
    /// To add the identity to the account of this session.
    Link {
        /// Id of the session.
        session: String,
        /// Id of its account.
        account: String,
    },
    /// To use an invite.
    Invite {
        /// SHA-256 of its token.
        hash: [u8; 32],
        /// The account to create; an invite's own address and groups take precedence. `None`: only one with an address.
        new: NewUser,
        /// Invites create accounts: sign-up is not closed.
        creates: bool,
    },
    /// To sign in to the account with this address, and to no other.
    SignInTo {
        /// Canonical.
        email: String,
    },
}

/// What came of a sign-in through a provider.
#[derive(Debug, Clone)]
#[must_use]
pub enum ProviderOutcome {
    /// A session has begun.
    SignedIn {
        /// Its account.
        user: Box<UserRow>,
        /// Whether it was created, or the identity linked to it.
        how: Entry,
        /// What was written to the audit trail.
        events: Vec<AuditRow>,
    },
    /// The session that the browser presented goes on: it began a moment ago with the same identity.
    Kept {
        /// Its id.
        session: String,
    },
    /// The identity was added to the account of the session, with this event; `None`: it belonged to it before.
    Linked(Option<Box<AuditRow>>),
    /// The identity is unknown, and the browser is signed in to an account, with this address.
    SignedInAs(String),
    /// The address belongs to an account: its owner has to sign in there once.
    Collision,
    /// The provider has not verified the address, or gave none, so that no account can be found or created with it.
    NoVerifiedEmail,
    /// There is no account, and none may be created.
    NoAccount,
    /// Its account is disabled.
    Disabled,
    /// It was pinned to another issuer, this one.
    OtherIssuer(String),
    /// It belongs to another account than the one it was to be added to.
    OfAnother,
    /// The session that it was to be linked in has ended.
    SessionEnded,
    /// The account has as many identities as it may have.
    TooMany,
    /// The invite is not for the account that the browser is signed in to.
    InviteWhileSignedIn,
    /// The invite is unknown, used or expired, or may create no accounts.
    NoInvite,
    /// The provider has ended its own session meanwhile.
    LoggedOut,
}

/// How an identity came to its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It was known.
    Known,
    /// It was linked to an existing account.
    Linked,
    /// The account is new.
    Created,
}

/// Decides which account the identity belongs to, and signs in. `event` is that of a sign-in; those of other outcomes are
/// derived from it.
pub fn sign_in(
    db: &mut Db,
    what: &ProviderSignIn,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<ProviderOutcome, StoreError> {
    db.write(|tx| {
        let outcome = decide(tx, what, now, event)?;
        write_refusal(tx, what, &outcome, event)?;
        Ok(outcome)
    })
}

/// Refuses a sign-in whose session at the provider has ended meanwhile.
pub fn refuse_ended(db: &mut Db, what: &ProviderSignIn, event: &AuditRow) -> Result<ProviderOutcome, StoreError> {
    db.write(|tx| {
        write_refusal(tx, what, &ProviderOutcome::LoggedOut, event)?;
        Ok(ProviderOutcome::LoggedOut)
    })
}

fn write_refusal(
    tx: &Tx<'_>,
    what: &ProviderSignIn,
    outcome: &ProviderOutcome,
    event: &AuditRow,
) -> Result<(), StoreError> {
    let Some(reason) = reason(outcome) else { return Ok(()) };
    let detail = format!("{} {reason}", what.identity.provider);
    audit::write(tx, &AuditRow { event: "provider_refused", detail, ..event.clone() })
}

/// Why an outcome is a refusal, in one word for logs and metrics; `None`: it is none.
pub fn reason(outcome: &ProviderOutcome) -> Option<&'static str> {
    Some(match outcome {
        ProviderOutcome::NoVerifiedEmail => "email_unverified",
        ProviderOutcome::NoAccount => "no_account",
        ProviderOutcome::Disabled => "disabled",
        ProviderOutcome::OtherIssuer(_) => "other_issuer",
        ProviderOutcome::OfAnother => "of_another_account",
        ProviderOutcome::SessionEnded => "session_ended",
        ProviderOutcome::TooMany => "too_many_identities",
        ProviderOutcome::NoInvite => "no_invite",
        ProviderOutcome::LoggedOut => "logged_out_at_provider",
        ProviderOutcome::InviteWhileSignedIn => "signed_in",
        ProviderOutcome::SignedIn { .. }
        | ProviderOutcome::Kept { .. }
        | ProviderOutcome::Linked(_)
        | ProviderOutcome::SignedInAs(_)
        | ProviderOutcome::Collision => return None,
    })
}

fn decide(tx: &Tx<'_>, what: &ProviderSignIn, now: UnixSecs, event: &AuditRow) -> Result<ProviderOutcome, StoreError> {
    if let Some(known) = identities::find(tx, &what.identity.provider, &what.identity.subject)? {
        return known_identity(tx, what, &known, now, event);
    }
    match &what.intent {
        ProviderIntent::Link { session, account } => link(tx, what, (session, account), now, event),
        ProviderIntent::Invite { hash, new, creates } => invited(tx, what, hash, new, *creates, now, event),
        ProviderIntent::SignIn { new, is_decided } => unknown_identity(tx, what, new.as_ref(), *is_decided, now, event),
        // it may still be linked by its own address
        ProviderIntent::SignInTo { email } if what.identity.email.as_ref() == Some(email) => {
            unknown_identity(tx, what, None, true, now, event)
        }
        ProviderIntent::SignInTo { .. } => Ok(ProviderOutcome::NoAccount),
    }
}

fn known_identity(
    tx: &Tx<'_>,
    what: &ProviderSignIn,
    known: &IdentityRow,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<ProviderOutcome, StoreError> {
    if let Some(pinned) = known.issuer.as_ref().filter(|pinned| Some(*pinned) != what.identity.issuer.as_ref()) {
        return Ok(ProviderOutcome::OtherIssuer(pinned.clone()));
    }
    if let ProviderIntent::Link { account, .. } = &what.intent {
        let is_own = known.user_id == *account;
        return Ok(if is_own { ProviderOutcome::Linked(None) } else { ProviderOutcome::OfAnother });
    }
    if let ProviderIntent::SignInTo { email } = &what.intent
        && user_rows::by_email(tx, email)?.is_none_or(|user| user.id != known.user_id)
    {
        return Ok(ProviderOutcome::OfAnother);
    }
    let Some(user) = user_rows::by_id(tx, &known.user_id)?.filter(|user| !user.disabled) else {
        return Ok(ProviderOutcome::Disabled);
    };
    identities::refresh(tx, &what.identity, &user, now)?;
    if let Some(presented) = &what.session.replaces
        && let Some(identity) = &what.session.identity
        && sessions::began_with(tx, presented, identity, what.session.authenticated, now, SAME_SIGN_IN_SECS)?
    {
        return Ok(ProviderOutcome::Kept { session: presented.clone() });
    }
    enter(tx, what, &user.id, Entry::Known, Vec::new(), now, event)
}

/// Begins the session, with an account as it is now.
fn enter(
    tx: &Tx<'_>,
    what: &ProviderSignIn,
    user_id: &str,
    how: Entry,
    mut events: Vec<AuditRow>,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<ProviderOutcome, StoreError> {
    let user = user_rows::by_id(tx, user_id)?;
    let Some(user) = user else { return Err(StoreError::Down("the account is missing".to_owned())) };
    let event = AuditRow {
        user_id: user.id.clone(),
        email: user.email.clone(),
        detail: what.identity.provider.clone(),
        ..event.clone()
    };
    for own in &mut events {
        (own.user_id, own.email) = (user.id.clone(), user.email.clone());
        audit::write(tx, own)?;
    }
    let ended = sign_ins::begin(tx, &user, &what.session, now, &event)?;
    sealed_tokens::insert(tx, &what.session.id, &what.tokens)?;
    events.push(event);
    events.extend(ended);
    Ok(ProviderOutcome::SignedIn { user: Box::new(user), how, events })
}

fn linked_event(what: &ProviderSignIn, event: &AuditRow) -> AuditRow {
    let detail = format!("{} {}", what.identity.provider, what.identity.subject);
    AuditRow { event: "identity_linked", detail, ..event.clone() }
}

fn link(
    tx: &Tx<'_>,
    what: &ProviderSignIn,
    (session, account): (&str, &str),
    now: UnixSecs,
    event: &AuditRow,
) -> Result<ProviderOutcome, StoreError> {
    let user = user_rows::by_id(tx, account)?.filter(|user| !user.disabled);
    let Some(user) = user.filter(|_| what.session.replaces.as_deref() == Some(session)) else {
        return Ok(ProviderOutcome::SessionEnded);
    };
    if !sessions::is_active(tx, session, account, now)? {
        return Ok(ProviderOutcome::SessionEnded);
    }
    Ok(match identities::insert(tx, &what.identity, &user, now, None)? {
        Linked::Yes => {
            let event = AuditRow { user_id: user.id, email: user.email, ..linked_event(what, event) };
            audit::write(tx, &event)?;
            ProviderOutcome::Linked(Some(Box::new(event)))
        }
        _ => ProviderOutcome::TooMany,
    })
}

fn invited(
    tx: &Tx<'_>,
    what: &ProviderSignIn,
    hash: &[u8; 32],
    new: &NewUser,
    creates: bool,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<ProviderOutcome, StoreError> {
    let link = links::find(tx, hash, now)?.filter(|link| link.kind != "reset");
    let Some(link) = link.filter(|link| creates || link.user.is_some() || link.kind == "first") else {
        return Ok(ProviderOutcome::NoInvite);
    };
    // whoever opens a link that somebody else chose keeps their session, and their identity
    if let Some(presented) = &what.session.replaces
        && let Some(email) = sessions::active_email(tx, presented, now)?
        && link.user.as_ref().is_none_or(|user| user.email != email)
    {
        return Ok(ProviderOutcome::InviteWhileSignedIn);
    }
    let used = AuditRow { event: "invite_used", detail: what.identity.provider.clone(), ..event.clone() };
    let (user, how) = if let Some(user) = link.user {
        (user, Entry::Linked)
    } else {
        let verified = what.identity.email.as_ref().filter(|_| what.identity.email_verified);
        let Some(email) = link.email.as_ref().or(verified) else { return Ok(ProviderOutcome::NoVerifiedEmail) };
        let email_proved = link.email.is_some() || what.identity.proves_email;
        let new = NewUser { email: email.clone(), groups: link.groups, email_proved, ..new.clone() };
        match users::add(tx, &new, now)? {
            Written::Done(user) => (*user, Entry::Created),
            _ => return Ok(ProviderOutcome::Collision),
        }
    };
    if identities::insert(tx, &what.identity, &user, now, Some(now))? != Linked::Yes {
        return Ok(ProviderOutcome::TooMany);
    }
    links::remove_used(tx, hash, &user.id)?;
    enter(tx, what, &user.id, how, vec![used, linked_event(what, event)], now, event)
}

fn unknown_identity(
    tx: &Tx<'_>,
    what: &ProviderSignIn,
    new: Option<&NewUser>,
    is_decided: bool,
    now: UnixSecs,
    event: &AuditRow,
) -> Result<ProviderOutcome, StoreError> {
    if let Some(presented) = what.session.replaces.as_ref().filter(|_| !is_decided)
        && let Some(email) = sessions::active_email(tx, presented, now)?
    {
        return Ok(ProviderOutcome::SignedInAs(email));
    }
    // before an account is looked for, so that the answer says nothing about accounts
    let Some(email) = what.identity.email.as_ref().filter(|_| what.identity.email_verified) else {
        return Ok(ProviderOutcome::NoVerifiedEmail);
    };
    if let Some(user) = user_rows::by_email(tx, email)? {
        let links = what.links_by_email && !user.disabled && identities::is_email_proved(tx, &user.id)?;
        if !links {
            return Ok(ProviderOutcome::Collision);
        }
        return match identities::insert(tx, &what.identity, &user, now, Some(now))? {
            Linked::Yes => enter(tx, what, &user.id, Entry::Linked, vec![linked_event(what, event)], now, event),
            _ => Ok(ProviderOutcome::TooMany),
        };
    }
    let Some(new) = new else { return Ok(ProviderOutcome::NoAccount) };
    let email_proved = what.identity.proves_email;
    let new = NewUser { email: email.clone(), email_proved, groups: Vec::new(), password: None, ..new.clone() };
    let Written::Done(user) = users::add(tx, &new, now)? else { return Ok(ProviderOutcome::Collision) };
    let _ = identities::insert(tx, &what.identity, &user, now, Some(now))?;
    let created = AuditRow { event: "provider_sign_up", detail: what.identity.provider.clone(), ..event.clone() };
    enter(tx, what, &user.id, Entry::Created, vec![created], now, event)
}
