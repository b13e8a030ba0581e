//! Bans, for commands: list, and lift early.

use std::net::IpAddr;

use super::accounts::Admin;
use crate::account::errors::{AdminError, printable};
use crate::account::fields;
use crate::account::limits::login_throttle;
use crate::clock::UnixSecs;
use crate::store::{self, AuditRow};

/// One ban, as listed and lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// `account`, `address`, `sign-up` (of an address), `browser` (known to the account) or `user` (wrong current
    /// passwords while signed in)
    pub kind: &'static str,
    /// E-mail or address.
    pub what: String,
    /// When it ends.
    pub until: UnixSecs,
}

/// The current bans.
pub fn list(admin: &mut Admin) -> Result<Vec<Ban>, AdminError> {
    let mut bans = Vec::new();
    for (name, until) in store::throttle::bans(&mut admin.db, admin.clock.now())? {
        let (kind, what) = name.split_once(':').unwrap_or(("", &name));
        let (kind, what) = match kind {
            "account" => ("account", what.to_owned()),
            "address" => ("address", what.to_owned()),
            "sign_up" => ("sign-up", what.to_owned()),
            "device" => ("browser", what.split_once(':').map_or(what, |(_, email)| email).to_owned()),
            _ => {
                // account ids may contain colons, session ids do not
                let id = what.rsplit_once(':').map_or(what, |(id, _)| id);
                ("user", store::users::user_by_id(&mut admin.db, id)?.map_or_else(|| id.to_owned(), |user| user.email))
            }
        };
        bans.push(Ban { kind, what, until });
    }
    Ok(bans)
}

/// Lifts the bans on this e-mail or address.
pub fn lift(admin: &mut Admin, what: &str) -> Result<(), AdminError> {
    let email = fields::throttle_name(what);
    // a network is shown as `2001:db8::/64`
    let what_address = what.trim().trim_end_matches("/64");
    let mut names = vec![login_throttle::account(&email)];
    if let Ok(address) = what_address.parse::<IpAddr>() {
        names.extend(login_throttle::address(address));
    }
    let user = store::users::user_by_email(&mut admin.db, &email)?.map(|user| login_throttle::of_account(&user.id));
    let event = AuditRow { detail: printable(what), ..admin.event("ban_lifted", None) };
    if store::throttle::lift(&mut admin.db, &names, Some(&email), user.as_deref(), &event)? == 0 {
        return Err(AdminError(format!("no ban on `{}`", printable(what))));
    }
    Ok(())
}
