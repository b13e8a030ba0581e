//! Tracks which account the app cookies in a browser belong to. The record is stored in the browser, in one gateway
//! cookie per host; it contains short hashes of cookie names, authenticated for that host.
//! A cookie that only one account ever had is identified by its name. One that several accounts had is identified by
//! its value too: the browser may still hold the other account's cookie under another path, and a request does not
//! say which path a cookie is for.

use std::collections::HashSet;

use ring::{digest, hmac};

/// Accounts that one record distinguishes; of older ones it only keeps that their names belong to another account.
const ACCOUNTS_MAX: usize = 3;
/// The tag of these older accounts; no account has it.
const EARLIER: AccountTag = AccountTag([0; TAG_BYTES]);
/// Names kept per account; the oldest are dropped first, and the account is marked.
const NAMES_MAX: usize = 64;
/// Values kept per account for a name that several accounts had.
const VALUES_MAX: usize = 4;
/// Maximum size of a record: with name and attributes the cookie stays below 1 KiB.
const BYTES_MAX: usize = 640;
const VERSION: u8 = 1;
const TAG_BYTES: usize = 6;
const HASH_BYTES: usize = 3;
const SEAL_BYTES: usize = 12;
/// Flag in an account's name count: it had more.
const HAD_MORE: u8 = 0x80;

/// Represents an account in a record; only the holder of the key can tell which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountTag([u8; TAG_BYTES]);

type Hash = [u8; HASH_BYTES];

/// The key that authenticates records.
pub struct AppCookieKey(hmac::Key);

impl AppCookieKey {
    /// From at least 32 secret bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The tag of an account.
    pub fn tag(&self, account: &str) -> AccountTag {
        AccountTag(first_bytes(self.hmac(&[b"account", account.as_bytes()]).as_ref()))
    }

    fn seal(&self, host: &str, body: &[u8]) -> [u8; SEAL_BYTES] {
        first_bytes(self.hmac(&[b"record", host.as_bytes(), body]).as_ref())
    }

    fn hmac(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        context.sign()
    }
}

/// The owner of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Owner {
    /// The account's own.
    Own,
    /// Not known yet.
    New,
    /// Another account's, or possibly so.
    Other,
}

/// One account's cookies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    tag: AccountTag,
    /// Its cookie names, oldest first.
    names: Vec<Hash>,
    /// Names that another account had too, with the values that apps set for this one.
    values: Vec<(Hash, Hash)>,
    /// It had more than the record holds: a cookie without a known owner may be its.
    had_more: bool,
}

impl Entry {
    fn new(tag: AccountTag) -> Self {
        Self { tag, names: Vec::new(), values: Vec::new(), had_more: false }
    }

    fn has(&self, name: Hash) -> bool {
        self.names.contains(&name) || self.values.iter().any(|(own, _)| *own == name)
    }

    /// Drops the oldest beyond the limits.
    fn bound(&mut self) {
        let surplus = |length: usize| length.saturating_sub(NAMES_MAX);
        let (names, values) = (surplus(self.names.len()), surplus(self.values.len()));
        self.had_more |= names > 0 || values > 0;
        self.names.drain(..names);
        self.values.drain(..values);
    }
}

/// The record of one browser and host, most recently used account first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppCookies(Vec<Entry>);

impl AppCookies {
    /// Parses a record that this gateway created for this host; `None`: it is not one.
    pub fn parse(key: &AppCookieKey, host: &str, value: &[u8]) -> Option<Self> {
        if value.len() > BYTES_MAX * 2 {
            return None;
        }
        let bytes = data_encoding::BASE64URL_NOPAD.decode(value).ok()?;
        let (body, seal) = bytes.split_at_checked(bytes.len().checked_sub(SEAL_BYTES)?)?;
        if !bool::from(subtle::ConstantTimeEq::ct_eq(&key.seal(host, body)[..], seal)) {
            return None;
        }
        let (version, mut rest) = body.split_first()?;
        let mut entries = Vec::new();
        while *version == VERSION && !rest.is_empty() {
            let (tag, after) = rest.split_first_chunk()?;
            let ([names, values], after) = after.split_first_chunk()?;
            let had_more = names & HAD_MORE != 0;
            let (names, after) = after.split_at_checked(usize::from(names & !HAD_MORE) * HASH_BYTES)?;
            let (values, after) = after.split_at_checked(usize::from(*values) * HASH_BYTES * 2)?;
            let names = names.as_chunks().0.to_vec();
            let values = values.as_chunks::<HASH_BYTES>().0.as_chunks().0.iter().map(|[name, value]| (*name, *value));
            entries.push(Entry { tag: AccountTag(*tag), names, values: values.collect(), had_more });
            rest = after;
        }
        Some(Self(entries))
    }

    /// Merges another record of the same browser and host. If that makes too many accounts, the next recorded cookie
    /// merges the oldest ones.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for found in other.0 {
            let Some(entry) = self.0.iter_mut().find(|entry| entry.tag == found.tag) else {
                self.0.push(found);
                continue;
            };
            entry.had_more |= found.had_more;
            for name in found.names {
                if !entry.names.contains(&name) {
                    entry.names.push(name);
                }
            }
            for value in found.values {
                if !entry.values.contains(&value) {
                    entry.values.push(value);
                }
            }
            entry.bound();
        }
        self
    }

    /// The record as a cookie's value.
    pub fn seal(&self, key: &AppCookieKey, host: &str) -> String {
        let mut body = vec![VERSION];
        for entry in &self.0 {
            let count = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
            let mark = if entry.had_more { HAD_MORE } else { 0 };
            body.extend_from_slice(&entry.tag.0);
            body.extend_from_slice(&[count(entry.names.len()) | mark, count(entry.values.len())]);
            body.extend(entry.names.iter().flatten());
            body.extend(entry.values.iter().flat_map(|(name, value)| name.iter().chain(value)));
        }
        let seal = key.seal(host, &body);
        body.extend_from_slice(&seal);
        data_encoding::BASE64URL_NOPAD.encode(&body)
    }

    /// The owner of a cookie in a request of this account.
    pub fn owner(&self, tag: AccountTag, name: &[u8], value: &[u8]) -> Owner {
        let name = hash(name);
        let own = self.0.iter().find(|entry| entry.tag == tag);
        let others = || self.0.iter().filter(|entry| entry.tag != tag);
        let is_shared = others().any(|entry| entry.has(name));
        if !is_shared && own.is_some_and(|own| own.names.contains(&name)) {
            return Owner::Own;
        }
        if is_shared || others().any(|entry| entry.had_more) {
            let value = hash(value);
            let set = own.is_some_and(|own| own.values.contains(&(name, value)));
            return if set { Owner::Own } else { Owner::Other };
        }
        // while it is marked, its own names belong to nobody else
        if own.is_some_and(|own| own.has(name) || own.had_more) { Owner::Own } else { Owner::New }
    }

    /// Records a cookie that an app set for this account, or that its request carried and no other account had. Gives
    /// whether it was new.
    pub fn record(&mut self, tag: AccountTag, name: &[u8], value: &[u8]) -> bool {
        if self.owner(tag, name, value) == Owner::Own {
            return false;
        }
        let name = hash(name);
        let shared = self.0.iter().any(|entry| entry.tag != tag && (entry.has(name) || entry.had_more));
        let at = self.0.iter().position(|entry| entry.tag == tag);
        let mut entry = at.map_or_else(|| Entry::new(tag), |at| self.0.remove(at));
        if shared {
            // two apps on one host may set it under different paths
            if entry.values.iter().filter(|(own, _)| *own == name).count() >= VALUES_MAX
                && let Some(oldest) = entry.values.iter().position(|(own, _)| *own == name)
            {
                entry.values.remove(oldest);
            }
            entry.values.push((name, hash(value)));
        } else {
            entry.names.push(name);
        }
        entry.bound();
        self.0.insert(0, entry);
        self.forget_accounts();
        self.fit();
        true
    }

    /// Merges all but the last few accounts into one entry at the end, so that their cookies stay withheld from
    /// others.
    fn forget_accounts(&mut self) {
        let at = self.0.iter().position(|entry| entry.tag == EARLIER);
        let mut earlier = at.map_or_else(|| Entry::new(EARLIER), |at| self.0.remove(at));
        for gone in self.0.split_off(self.0.len().min(ACCOUNTS_MAX)) {
            let names = gone.names.into_iter().chain(gone.values.into_iter().map(|(name, _)| name));
            earlier.names.extend(names);
            earlier.had_more |= gone.had_more;
        }
        let mut seen = HashSet::new();
        earlier.names.retain(|name| seen.insert(*name));
        earlier.bound();
        if earlier.had_more || !earlier.names.is_empty() {
            self.0.push(earlier);
        }
    }

    /// Drops the oldest data of the least recently used account until the record fits.
    fn fit(&mut self) {
        let bytes = |entries: &[Entry]| {
            let each = |entry: &Entry| TAG_BYTES + 2 + (entry.names.len() + entry.values.len() * 2) * HASH_BYTES;
            1 + entries.iter().map(each).sum::<usize>() + SEAL_BYTES
        };
        while bytes(&self.0) > BYTES_MAX {
            let Some(last) = self.0.iter_mut().rev().find(|entry| !(entry.names.is_empty() && entry.values.is_empty()))
            else {
                return;
            };
            last.had_more = true;
            if last.names.is_empty() {
                last.values.remove(0);
            } else {
                last.names.remove(0);
            }
        }
    }
}

/// Short, because records are small; a collision costs at most a new sign-in to an app.
fn hash(bytes: &[u8]) -> Hash {
    first_bytes(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn first_bytes<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "app.example.com";

    fn key() -> AppCookieKey {
        AppCookieKey::new(&[7; 32])
    }

    #[test]
    fn a_record_round_trips_only_with_its_key_and_for_its_host() {
        let (ada, bob) = (key().tag("1"), key().tag("2"));
        let mut record = AppCookies::default();
        assert!(record.record(ada, b"sid", b"a"));
        assert!(record.record(bob, b"sid", b"b"));
        assert!(record.record(bob, b"theme", b"dark"));
        let sealed = record.seal(&key(), HOST);
        assert_eq!(AppCookies::parse(&key(), HOST, sealed.as_bytes()), Some(record));
        assert_eq!(AppCookies::parse(&key(), "other.example.com", sealed.as_bytes()), None);
        assert_eq!(AppCookies::parse(&AppCookieKey::new(&[8; 32]), HOST, sealed.as_bytes()), None);
        for at in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(AppCookies::parse(&key(), HOST, &forged), None, "{at}");
        }
        for junk in ["", "A", "AQ", &"A".repeat(5000)] {
            assert_eq!(AppCookies::parse(&key(), HOST, junk.as_bytes()), None, "{junk}");
        }
    }

    #[test]
    fn a_cookie_of_one_account_belongs_to_no_other_until_an_app_sets_it_again() {
        let (ada, bob) = (key().tag("1"), key().tag("2"));
        let mut record = AppCookies::default();
        assert_eq!(record.owner(ada, b"sid", b"a"), Owner::New);
        record.record(ada, b"sid", b"a");
        assert_eq!(record.owner(ada, b"sid", b"changed"), Owner::Own);
        assert_eq!(record.owner(bob, b"sid", b"a"), Owner::Other);
        assert_eq!(record.owner(bob, b"theme", b"x"), Owner::New);
        // set again for Bob: this value is his, and Ada's under another path stays hers
        record.record(bob, b"sid", b"b");
        assert_eq!(record.owner(bob, b"sid", b"b"), Owner::Own);
        assert_eq!(record.owner(bob, b"sid", b"a"), Owner::Other);
        assert_eq!(record.owner(ada, b"sid", b"b"), Owner::Other);
        for value in ["b2", "b3", "b4", "b5"] {
            record.record(bob, b"sid", value.as_bytes());
            assert_eq!(record.owner(bob, b"sid", value.as_bytes()), Owner::Own);
        }
        assert_eq!(record.owner(bob, b"sid", b"b2"), Owner::Own);
        assert_eq!(record.owner(bob, b"sid", b"b"), Owner::Other, "the oldest of five");
        // and back
        record.record(ada, b"sid", b"a2");
        assert_eq!(record.owner(ada, b"sid", b"a2"), Owner::Own);
        assert_eq!(record.owner(bob, b"sid", b"a2"), Owner::Other);
    }

    #[test]
    fn known_cookies_do_not_change_the_record() {
        let ada = key().tag("1");
        let mut record = AppCookies::default();
        assert!(record.record(ada, b"sid", b"a"));
        assert!(!record.record(ada, b"sid", b"b"));
    }

    #[test]
    fn cookies_of_a_fourth_account_still_belong_to_no_other() {
        let mut record = AppCookies::default();
        let tags: Vec<_> = ["1", "2", "3", "4", "5"].iter().map(|account| key().tag(account)).collect();
        for (at, tag) in tags.iter().enumerate() {
            record.record(*tag, format!("only-{at}").as_bytes(), b"x");
            record.record(*tag, b"sid", &[u8::try_from(at).unwrap()]);
            assert_eq!(record.owner(*tag, b"sid", &[u8::try_from(at).unwrap()]), Owner::Own, "{at}");
        }
        let record = AppCookies::parse(&key(), HOST, record.seal(&key(), HOST).as_bytes()).unwrap();
        for tag in &tags[1..] {
            assert_eq!(record.owner(*tag, b"only-0", b"x"), Owner::Other);
        }
        // the account itself is unknown too by now: an app has to set the cookie again
        assert_eq!(record.owner(tags[0], b"only-0", b"x"), Owner::Other);
        assert_eq!(record.owner(tags[4], b"only-4", b"x"), Owner::Own);
        assert_eq!(record.owner(tags[4], b"sid", &[0]), Owner::Other);
    }

    /// The oldest cookie is usually the session.
    #[test]
    fn a_name_beyond_the_bound_still_belongs_to_no_other() {
        let (ada, bob) = (key().tag("1"), key().tag("2"));
        let mut record = AppCookies::default();
        for at in 0..=NAMES_MAX {
            assert_eq!(record.owner(bob, b"new", b"x"), Owner::New, "{at}");
            assert!(record.record(ada, format!("ada-{at}").as_bytes(), b"x"));
        }
        let mut record = AppCookies::parse(&key(), HOST, record.seal(&key(), HOST).as_bytes()).unwrap();
        for name in ["ada-0", "ada-1", "ada-64", "never-seen"] {
            assert_eq!(record.owner(bob, name.as_bytes(), b"x"), Owner::Other, "{name}");
            assert_eq!(record.owner(ada, name.as_bytes(), b"x"), Owner::Own, "{name}");
            assert!(!record.record(ada, name.as_bytes(), b"x"), "each answer would write it");
        }
        // what an app sets for Bob is his, by its value: Ada may have one of that name under a longer path
        assert!(record.record(bob, b"ada-0", b"b"));
        assert_eq!(record.owner(bob, b"ada-0", b"b"), Owner::Own);
        assert_eq!(record.owner(bob, b"ada-0", b"x"), Owner::Other);
        // as one of the accounts before the last three she is just as unknown
        for account in ["3", "4", "5"] {
            record.record(key().tag(account), account.as_bytes(), b"x");
        }
        assert_eq!(record.owner(bob, b"ada-2", b"x"), Owner::Other);
    }

    /// A browser may also send an old record, of a longer path.
    #[test]
    fn two_records_of_one_browser_are_merged() {
        let (ada, bob, cleo) = (key().tag("1"), key().tag("2"), key().tag("3"));
        let [mut old, mut new] = [AppCookies::default(), AppCookies::default()];
        old.record(ada, b"old", b"a");
        old.record(cleo, b"cleo", b"c");
        new.record(ada, b"sid", b"a");
        new.record(bob, b"sid", b"b");
        for both in [old.clone().with(new.clone()), new.with(old)] {
            for name in [&b"old"[..], b"sid", b"cleo"] {
                assert_eq!(both.owner(bob, name, b"a"), Owner::Other);
            }
            assert_eq!((both.owner(bob, b"sid", b"b"), both.owner(ada, b"old", b"a")), (Owner::Own, Owner::Own));
            assert_eq!(both.owner(ada, b"new", b"x"), Owner::New);
        }
    }

    #[test]
    fn a_record_is_bounded_and_drops_the_oldest_first() {
        let mut record = AppCookies::default();
        for account in 0..5 {
            let tag = key().tag(&account.to_string());
            for name in 0..100 {
                record.record(tag, format!("{account}-{name}").as_bytes(), b"x");
                record.record(tag, format!("shared-{name}").as_bytes(), &[account]);
                assert!(record.seal(&key(), HOST).len() <= 900);
            }
        }
        assert!(record.0.len() <= ACCOUNTS_MAX + 1);
        let (last, first) = (key().tag("4"), key().tag("0"));
        assert_eq!(record.owner(last, b"4-99", b"x"), Owner::Own);
        assert_eq!(record.owner(first, b"4-99", b"x"), Owner::Other);
        assert_eq!(record.owner(first, b"0-0", b"x"), Owner::Other, "as many as there were");
        let sealed = record.seal(&key(), HOST);
        assert_eq!(AppCookies::parse(&key(), HOST, sealed.as_bytes()), Some(record));
    }
}
