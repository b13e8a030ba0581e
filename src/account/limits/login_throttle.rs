//! The counters for sign-in and sign-up attempts. Each account and each address has a counter; a browser that has
//! signed in to the account before has its own counter instead, so that guessing strangers cannot lock the owner out.
//! Many people share an address: an account's success also clears its failures from the address's counter, and an
//! address over its limit is slowed down before it is rejected.

use std::net::IpAddr;

use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::{StoreDown, store_down};
use crate::clock::UnixSecs;
use crate::config;
use crate::metrics;
use crate::secret::token_hash;
use crate::store::{self, AuditRow, CountedAttempt, Limit, Rule, Throttled};
use crate::web::network::network_prefix;

/// An address gets this many times the attempts of an account,
const ADDRESS_FACTOR: u32 = 20;
/// within this many ban times.
const ADDRESS_BANS: u32 = 3;
/// Window in which the same number of sign-ups per address is counted.
const SIGN_UP_SECS: u64 = 3600;
/// Longest device cookie accepted, bytes; ours have 43.
const DEVICE_BYTES_MAX: usize = 64;
/// Profile changes within `throttle.find_time`.
const PROFILE_CHANGES_MAX: u32 = 30;

/// Hash of the presented device cookie, if it may be one of ours.
pub(crate) fn presented_device(caller: &Caller) -> Option<[u8; 32]> {
    caller.device.as_ref().filter(|device| device.len() <= DEVICE_BYTES_MAX).map(|device| token_hash(device))
}

fn network(address: IpAddr) -> String {
    let prefix = network_prefix(address);
    if prefix.is_ipv6() { format!("{prefix}/64") } else { prefix.to_string() }
}

/// The name of an account's counter.
pub(crate) fn account(email: &str) -> String {
    format!("account:{email}")
}

/// The names of an address's counters: sign-ins and sign-ups.
pub(crate) fn address(address: IpAddr) -> [String; 2] {
    ["address", "sign_up"].map(|what| format!("{what}:{}", network(address)))
}

fn own(settings: config::Throttle, name: String) -> Limit {
    let (find_secs, ban_secs) = (settings.find_time.as_secs(), settings.ban_time.as_secs());
    Limit { name, rule: Rule::Ban { max: settings.max_retries, find_secs, ban_secs } }
}

/// A limit on an address, which many people may share.
fn of_address(settings: config::Throttle, name: String, window_secs: u64) -> Limit {
    Limit { name, rule: Rule::Pace { max: settings.max_retries.saturating_mul(ADDRESS_FACTOR), window_secs } }
}

/// Limits on a sign-in. `device`: hash of the device cookie, if the account knows it.
pub(crate) fn of_sign_in(
    settings: config::Throttle,
    caller: &Caller,
    email: &str,
    device: Option<&[u8; 32]>,
) -> Vec<Limit> {
    if let Some(hash) = device {
        let id = data_encoding::BASE64URL_NOPAD.encode(&hash[..12]);
        return vec![own(settings, format!("device:{id}:{email}"))];
    }
    let mut limits = vec![own(settings, account(email))];
    limits.extend(caller.counted_address().map(|from| {
        let [sign_ins, _] = address(from);
        of_address(settings, sign_ins, settings.ban_time.as_secs().saturating_mul(ADDRESS_BANS.into()).max(1))
    }));
    limits
}

/// Limit on a sign-up, counted whatever its result. Separate from sign-ins: creating accounts must not lock others
/// behind the same address out of theirs.
pub(crate) fn of_sign_up(settings: config::Throttle, caller: &Caller) -> Vec<Limit> {
    let limit = |from| {
        let [_, sign_ups] = address(from);
        of_address(settings, sign_ups, SIGN_UP_SECS)
    };
    caller.counted_address().map(limit).into_iter().collect()
}

/// The limit on wrong current passwords, per session: a stolen session cannot lock the forms of others.
pub(crate) fn of_session(settings: config::Throttle, user: &str, session: &str) -> Vec<Limit> {
    vec![own(settings, format!("{}:{session}", of_account(user)))]
}

/// Prefix of the [`of_session`] names of an account.
pub(crate) fn of_account(user: &str) -> String {
    format!("user:{user}")
}

/// The limit on profile changes.
pub(crate) fn of_profile(settings: config::Throttle, user: &str) -> Vec<Limit> {
    let (find_secs, ban_secs) = (settings.find_time.as_secs(), settings.ban_time.as_secs());
    let rule = Rule::Ban { max: PROFILE_CHANGES_MAX, find_secs, ban_secs };
    vec![Limit { name: format!("profile:{user}"), rule }]
}

/// Counts a rejected attempt in the metrics. Gives the seconds until the next one is allowed.
pub(crate) fn record_rejection(throttled: &Throttled) -> u64 {
    throttled.names.iter().for_each(|name| metrics::ACCOUNTS.limited(name));
    throttled.wait_secs()
}

/// Records that a counted attempt failed; bans what has used up its attempts.
pub(crate) async fn attempt_failed(
    accounts: &Accounts,
    counted: CountedAttempt,
    event: AuditRow,
    now: UnixSecs,
) -> Result<(), StoreDown> {
    let shared = &*accounts.shared;
    let written = event.clone();
    let banned = shared
        .store
        .run(move |db| store::throttle::attempt_failed(db, &counted, now, &written))
        .await
        .map_err(|error| store_down(&error))?;
    audit::log_with_bans(&event, banned);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_are_counted_by_their_64_prefix() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(of("2001:db8:1:2::1"), "2001:db8:1:2::/64");
        assert_ne!(of("2001:db8:1:3::1"), "2001:db8:1:2::/64");
    }
}

/// Simulates an hour of classes that sign in and of guessers, on the real counters, with a manual clock.
#[cfg(test)]
mod simulation {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::time::Duration;

    use super::*;
    use crate::account::testing::at;
    use crate::store::{AuditRow, Check, Db};

    const SETTINGS: config::Throttle =
        config::Throttle { max_retries: 5, find_time: Duration::from_secs(120), ban_time: Duration::from_secs(300) };
    const HOUR: u64 = 3600;
    /// Longest wait in the queue; see `hash_workers.rs`.
    const PATIENCE_SECS: u64 = 10;

    /// A user who knows the password.
    struct Person {
        email: String,
        from: Caller,
        typos: u32,
        waits_since: Option<u64>,
    }

    /// A guesser.
    struct Guesser {
        from: Caller,
        /// How many accounts it tries, in rotation.
        accounts: usize,
        kind: &'static str,
        /// Stays below the rate that bans an account.
        careful: bool,
        decided: usize,
        tries: usize,
    }

    enum Actor {
        Person(Person),
        Guesser(Guesser),
        /// The owner of the attacked account, in a known browser.
        Owner,
    }

    struct Sim {
        db: Db,
        actors: Vec<Actor>,
        /// When an actor acts next.
        due: BinaryHeap<Reverse<(u64, usize)>>,
        seed: u64,
        refused: Vec<String>,
        signed_in: usize,
        longest_wait: u64,
    }

    impl Sim {
        /// Below `bound`.
        fn random(&mut self, bound: u64) -> u64 {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 33) % bound
        }

        fn add(&mut self, first: u64, actor: Actor) {
            self.due.push(Reverse((first, self.actors.len())));
            self.actors.push(actor);
        }

        /// A class that signs in within a minute; `typos_percent` of the attempts are typos.
        fn class(&mut self, people: usize, typos_percent: u64, first: u64) {
            let from = at(&format!("192.0.2.{}", self.actors.len() % 250));
            for number in 0..people {
                // five in a row exceed any limit
                let typos = (0..4).take_while(|_| self.random(100) < typos_percent).count();
                let email = format!("p{number}.{people}.{typos_percent}@example.com");
                let typos = u32::try_from(typos).unwrap();
                let arrives = first + self.random(60);
                self.add(arrives, Actor::Person(Person { email, from: from.clone(), typos, waits_since: None }));
            }
        }

        /// `addresses` of 198.51.100.0/24 from `first` on.
        fn guessers(&mut self, kind: &'static str, first: usize, addresses: usize, accounts: usize, careful: bool) {
            for number in first..first + addresses {
                let from = at(&format!("198.51.100.{number}"));
                self.add(0, Actor::Guesser(Guesser { from, accounts, kind, careful, decided: 0, tries: 0 }));
            }
        }

        fn try_once(
            &mut self,
            caller: &Caller,
            email: &str,
            device: Option<&[u8; 32]>,
            right: bool,
            now: u64,
        ) -> Result<(), Throttled> {
            let limits = of_sign_in(SETTINGS, caller, email, device);
            let counted = store::throttle::count_attempt(&mut self.db, &limits, email, now).unwrap()?;
            if right {
                store::throttle::attempt_right(&mut self.db, &counted, now).unwrap();
            } else {
                store::throttle::attempt_failed(&mut self.db, &counted, now, &AuditRow::default()).unwrap();
            }
            Ok(())
        }

        /// Gives when the actor acts again.
        fn act(&mut self, actor: &mut Actor, now: u64) -> Option<u64> {
            match actor {
                Actor::Person(person) => self.person(person, now),
                Actor::Guesser(guesser) => Some(self.guess(guesser, now)),
                Actor::Owner => {
                    if self
                        .try_once(&at("203.0.113.9"), "one account.0@example.com", Some(&[7; 32]), true, now)
                        .is_err()
                    {
                        self.refused.push("the owner".to_owned());
                    }
                    Some(now + 60)
                }
            }
        }

        fn person(&mut self, person: &mut Person, now: u64) -> Option<u64> {
            let since = *person.waits_since.get_or_insert(now);
            match self.try_once(&person.from.clone(), &person.email, None, person.typos == 0, now) {
                Ok(()) => {
                    self.longest_wait = self.longest_wait.max(now - since);
                    person.waits_since = None;
                    self.signed_in += usize::from(person.typos == 0);
                    person.typos = person.typos.checked_sub(1)?;
                    Some(now + 3 + self.random(10))
                }
                Err(held) if !held.banned && held.wait_secs() <= (since + PATIENCE_SECS).saturating_sub(now) => {
                    Some(now + 1)
                }
                Err(_) => {
                    self.refused.push(person.email.clone());
                    None
                }
            }
        }

        fn guess(&mut self, guesser: &mut Guesser, now: u64) -> u64 {
            let email = format!("{}.{}@example.com", guesser.kind, guesser.tries % guesser.accounts);
            match self.try_once(&guesser.from.clone(), &email, None, false, now) {
                Ok(()) => {
                    guesser.decided += 1;
                    guesser.tries += 1;
                    if guesser.careful && guesser.decided.is_multiple_of(4) { now + 121 } else { now }
                }
                // another account, if there is one
                Err(held) if held.banned && guesser.accounts > 1 => {
                    guesser.tries += 1;
                    now + 1
                }
                Err(held) => now + held.wait_secs(),
            }
        }

        fn run(&mut self) {
            while let Some(Reverse((now, which))) = self.due.pop() {
                if now >= HOUR {
                    return;
                }
                let mut actor = std::mem::replace(&mut self.actors[which], Actor::Owner);
                if let Some(next) = self.act(&mut actor, now) {
                    self.due.push(Reverse((next, which)));
                }
                self.actors[which] = actor;
            }
        }

        fn decided(&self, kind: &str) -> usize {
            let of_kind = |actor: &Actor| match actor {
                Actor::Guesser(guesser) if guesser.kind == kind => guesser.decided,
                _ => 0,
            };
            self.actors.iter().map(of_kind).sum()
        }
    }

    fn sim() -> (tempfile::TempDir, Sim) {
        // every attempt is written to disk before the response; here to memory, if there is such a file system
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let db = Db::open(dir.path(), Check::Version).unwrap();
        let sim = Sim {
            db,
            actors: Vec::new(),
            due: BinaryHeap::new(),
            seed: 1,
            refused: Vec::new(),
            signed_in: 0,
            longest_wait: 0,
        };
        (dir, sim)
    }

    /// docs/operations.md, "Limits", states these figures.
    #[test]
    fn users_who_know_the_password_get_in_and_guessers_get_no_more_than_documented() {
        let (_dir, mut sim) = sim();
        for people in [30, 100, 300] {
            for typos_percent in [10, 25] {
                sim.class(people, typos_percent, 600);
            }
        }
        sim.guessers("one address", 0, 1, 100_000, false);
        sim.guessers("many addresses", 10, 3, 100_000, false);
        sim.guessers("one account", 20, 1, 1, true);
        sim.guessers("password spraying", 30, 3, 200, false);
        sim.add(0, Actor::Owner);
        sim.run();
        assert_eq!((sim.refused.as_slice(), sim.signed_in), (&[][..], 860));
        assert_eq!(sim.longest_wait, 0, "nobody was slowed either");
        for (kind, most) in
            [("one address", 500), ("many addresses", 1500), ("one account", 120), ("password spraying", 1500)]
        {
            let decided = sim.decided(kind);
            assert!(decided <= most && decided * 10 >= most * 9, "{kind}: {decided}");
        }
    }

    /// If more of a crowd mistype at the same time than an address may fail, it is paced and not rejected.
    #[test]
    fn a_crowd_beyond_the_limit_of_its_address_waits_and_signs_in() {
        let (_dir, mut sim) = sim();
        let from = at("192.0.2.1");
        for number in 0..103 {
            let email = format!("p{number}@example.com");
            let person = Person { email, from: from.clone(), typos: 1, waits_since: None };
            sim.add(u64::from(number > 99) * 3, Actor::Person(person));
        }
        sim.run();
        assert_eq!((sim.refused.as_slice(), sim.signed_in), (&[][..], 103));
        assert!((1..=PATIENCE_SECS).contains(&sim.longest_wait), "{}", sim.longest_wait);
    }
}
