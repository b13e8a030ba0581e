//! What attempts to sign in and up are counted against. An account and an address have each their count; a
//! browser that has signed in to the account before has one of its own instead of both, so that
//! strangers who guess cannot lock its owner out.

use std::net::{IpAddr, Ipv4Addr};

use super::Caller;
use crate::config;
use crate::store::Limit;

/// An address gets this many times the tries of an account.
const ADDRESS_FACTOR: u32 = 4;
/// Changes of a profile within `throttle.find_time`.
const PROFILE_CHANGES_MAX: u32 = 30;

/// The address as it is counted: IPv6 by /64, because one customer has all of it.
pub(super) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// `throttle.find_time` and `throttle.ban_time`, seconds.
pub(super) fn times(settings: config::Throttle) -> (u64, u64) {
    (settings.find_time.as_secs(), settings.ban_time.as_secs())
}

/// The name of an account's count.
pub(super) fn account(email: &str) -> String {
    format!("account:{email}")
}

/// The names of an address's counts: of sign-ins and of sign-ups.
pub(super) fn address(address: IpAddr) -> [String; 2] {
    ["address", "sign_up"].map(|what| format!("{what}:{}", network(address)))
}

/// An address has many people behind it.
fn of_address(settings: config::Throttle, name: String) -> Limit {
    Limit { name, retries_max: settings.max_retries.saturating_mul(ADDRESS_FACTOR), success_forgives_all: false }
}

/// Limits of a sign-in. `device`: hash of the device cookie, if the account knows it.
pub(super) fn of_sign_in(
    settings: config::Throttle,
    caller: &Caller,
    email: &str,
    device: Option<&[u8; 32]>,
) -> Vec<Limit> {
    let own = |name: String| Limit { name, retries_max: settings.max_retries, success_forgives_all: true };
    if let Some(hash) = device {
        let id = data_encoding::BASE64URL_NOPAD.encode(&hash[..12]);
        return vec![own(format!("device:{id}:{email}"))];
    }
    let mut limits = vec![own(account(email))];
    limits.extend(caller.address.map(|from| {
        let [sign_ins, _] = address(from);
        of_address(settings, sign_ins)
    }));
    limits
}

/// Limit of a sign-up, which counts whatever comes of it. Not that of sign-ins: whoever makes accounts must
/// not keep those behind the same address from theirs. A Unix socket counts as 127.0.0.1.
pub(super) fn of_sign_up(settings: config::Throttle, caller: &Caller) -> Vec<Limit> {
    let [_, sign_ups] = address(caller.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    vec![of_address(settings, sign_ups)]
}

/// The limit on wrong current passwords in a session: whoever stole one does not shut the forms of others.
pub(super) fn of_session(settings: config::Throttle, user: &str, session: &str) -> Vec<Limit> {
    let name = format!("{}:{session}", of_account(user));
    vec![Limit { name, retries_max: settings.max_retries, success_forgives_all: true }]
}

/// What the names of [`of_session`] of an account begin with.
pub(super) fn of_account(user: &str) -> String {
    format!("user:{user}")
}

/// The limit on changes of a profile, whoever makes them.
pub(super) fn of_profile(user: &str) -> Vec<Limit> {
    vec![Limit { name: format!("profile:{user}"), retries_max: PROFILE_CHANGES_MAX, success_forgives_all: false }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_by_what_one_customer_has() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(of("2001:db8:1:2::1"), "2001:db8:1:2::/64");
        assert_ne!(of("2001:db8:1:3::1"), "2001:db8:1:2::/64");
    }
}
