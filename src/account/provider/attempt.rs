//! One attempt to sign in, without any memory of it here: everything is sealed in `state`, which travels through the
//! provider, and opens only together with a cookie of the browser that began it (RFC 9700, 4.7; ASVS 10.1.2, 10.2.1).
//! The PKCE verifier and the nonce are derived from both, so that neither the URL nor the cookie holds a secret.

use data_encoding::BASE64URL_NOPAD as B64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde_json::{Value, json};

use super::identity::Intent;
use crate::clock::UnixSecs;
use crate::secret::{NoRandomness, random_bytes};

/// How long an attempt may take, seconds.
pub(crate) const ATTEMPT_SECS: u64 = 15 * 60;
/// How far a clock may have been set back since, seconds.
const SKEW_SECS: u64 = 30;
/// Longest `state` that is opened, bytes; ours are below 1 KiB.
const STATE_BYTES_MAX: usize = 2048;
/// Part of what is authenticated: other versions do not open.
const VERSION: &[u8] = b"authgate provider state 1";

/// The value of the browser's cookie: 32 random bytes, which all its tabs share. It is no credential.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Browser([u8; 32]);

impl Browser {
    /// A browser that presents no cookie yet.
    pub(crate) fn new() -> Result<Self, NoRandomness> {
        random_bytes::<32>().map(Self)
    }

    /// Reads the cookie's value; `None`: it is not one of ours.
    pub(crate) fn parse(cookie: &[u8]) -> Option<Self> {
        B64.decode(cookie).ok()?.try_into().ok().map(Self)
    }

    /// The cookie's value.
    pub(crate) fn cookie(&self) -> String {
        B64.encode(&self.0)
    }
}

/// The random name of an attempt.
pub(crate) type AttemptId = [u8; 16];

/// Where the person goes afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReturnPlace {
    /// The place itself; `None`: the default.
    Here(Option<String>),
    /// It is long and kept in memory, under this number.
    Kept(u64),
}

/// What is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Its name.
    pub(crate) id: AttemptId,
    /// When it began.
    pub(crate) began: UnixSecs,
    /// Where the person goes afterwards.
    pub(crate) return_to: ReturnPlace,
    /// What it is for.
    pub(crate) intent: Intent,
    /// The provider must authenticate the person again.
    pub(crate) is_fresh: bool,
}

/// The keys that attempts are sealed with and derived from.
pub(crate) struct AttemptKeys {
    seal: LessSafeKey,
    derive: hmac::Key,
}

impl AttemptKeys {
    /// From the key for this purpose, which the sealing key of the gateway derives: it survives a restart and a
    /// hand-over. `None`: ring refuses it.
    pub(crate) fn new(purpose_key: &[u8; 32]) -> Option<Self> {
        let root = hmac::Key::new(hmac::HMAC_SHA256, purpose_key);
        let seal = UnboundKey::new(&AES_256_GCM, hmac::sign(&root, b"seal").as_ref()).ok()?;
        let derive = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, b"derive").as_ref());
        Some(Self { seal: LessSafeKey::new(seal), derive })
    }

    /// `state` for this browser, provider and callback path.
    pub(crate) fn seal(
        &self,
        attempt: &Attempt,
        browser: &Browser,
        provider: &str,
        callback: &str,
    ) -> Result<String, NoRandomness> {
        let nonce = random_bytes::<NONCE_LEN>()?;
        let mut sealed = plain(attempt).into_bytes();
        let aad = Aad::from(bound(browser, provider, callback));
        self.seal
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| NoRandomness)?;
        Ok(B64.encode(&[&nonce[..], &sealed].concat()))
    }

    /// What `state` holds, if it was sealed for this browser, provider and callback path not too long ago.
    pub(crate) fn open(
        &self,
        state: &str,
        browser: &Browser,
        provider: &str,
        callback: &str,
        now: UnixSecs,
    ) -> Option<Attempt> {
        if state.len() > STATE_BYTES_MAX {
            return None;
        }
        let mut sealed = B64.decode(state.as_bytes()).ok()?;
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.seal.open_in_place(nonce, Aad::from(bound(browser, provider, callback)), sealed).ok()?;
        let attempt = read(plain)?;
        let is_timely =
            now <= attempt.began.saturating_add(ATTEMPT_SECS) && attempt.began <= now.saturating_add(SKEW_SECS);
        is_timely.then_some(attempt)
    }

    /// The PKCE code verifier of an attempt (RFC 7636, 4.1): 43 characters.
    pub(crate) fn verifier(&self, id: &AttemptId, browser: &Browser) -> String {
        self.derived(b"pkce", id, browser)
    }

    /// The nonce of an attempt (OpenID Connect Core, 15.5.2): 43 characters.
    pub(crate) fn nonce(&self, id: &AttemptId, browser: &Browser) -> String {
        self.derived(b"nonce", id, browser)
    }

    fn derived(&self, purpose: &[u8], id: &AttemptId, browser: &Browser) -> String {
        let mut context = hmac::Context::with_key(&self.derive);
        context.update(purpose);
        context.update(id);
        context.update(&browser.0);
        B64.encode(context.sign().as_ref())
    }
}

/// The PKCE code challenge of a verifier, S256 (RFC 7636, 4.2).
pub(crate) fn challenge(verifier: &str) -> String {
    B64.encode(digest(&SHA256, verifier.as_bytes()).as_ref())
}

/// What is authenticated beside the content. Lengths keep the parts apart.
fn bound(browser: &Browser, provider: &str, callback: &str) -> Vec<u8> {
    let mut bound = VERSION.to_vec();
    for part in [digest(&SHA256, &browser.0).as_ref(), provider.as_bytes(), callback.as_bytes()] {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part);
    }
    bound
}

fn plain(attempt: &Attempt) -> String {
    let place = match &attempt.return_to {
        ReturnPlace::Here(place) => json!(place),
        ReturnPlace::Kept(number) => json!(number),
    };
    let intent = match &attempt.intent {
        Intent::SignIn => json!(["in"]),
        Intent::SignUp => json!(["up"]),
        Intent::Link { session, account } => json!(["link", session, account]),
        Intent::Invite { hash } => json!(["invite", B64.encode(hash)]),
        Intent::Pending { hash } => json!(["pending", B64.encode(hash)]),
    };
    json!([attempt.began, B64.encode(&attempt.id), place, intent, attempt.is_fresh]).to_string()
}

fn read(plain: &[u8]) -> Option<Attempt> {
    let Ok(Value::Array(parts)) = serde_json::from_slice(plain) else { return None };
    let [began, id, place, Value::Array(intent), is_fresh] = parts.as_slice() else { return None };
    let return_to = match place {
        Value::Null => ReturnPlace::Here(None),
        Value::String(place) => ReturnPlace::Here(Some(place.clone())),
        number => ReturnPlace::Kept(number.as_u64()?),
    };
    let words: Vec<&str> = intent.iter().filter_map(Value::as_str).collect();
    let intent = match words.as_slice() {
        ["in"] => Intent::SignIn,
        ["up"] => Intent::SignUp,
        ["link", session, account] => Intent::Link { session: (*session).to_owned(), account: (*account).to_owned() },
        ["invite", hash] => Intent::Invite { hash: B64.decode(hash.as_bytes()).ok()?.try_into().ok()? },
        ["pending", hash] => Intent::Pending { hash: B64.decode(hash.as_bytes()).ok()?.try_into().ok()? },
        _ => return None,
    };
    let id = B64.decode(id.as_str()?.as_bytes()).ok()?.try_into().ok()?;
    Some(Attempt { id, began: began.as_u64()?, return_to, intent, is_fresh: is_fresh.as_bool()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSecs = 1_800_000_000;

    fn attempt(intent: Intent) -> Attempt {
        let return_to = ReturnPlace::Here(Some("/app?tab=1#x".to_owned()));
        Attempt { id: [7; 16], began: NOW, return_to, intent, is_fresh: true }
    }

    fn keys() -> AttemptKeys {
        AttemptKeys::new(&[1; 32]).unwrap()
    }

    #[test]
    fn state_opens_for_its_own_browser_provider_and_path_whatever_it_was_for() {
        let browser = Browser::new().unwrap();
        let presented = Browser::parse(browser.cookie().as_bytes()).unwrap();
        for intent in [
            Intent::SignIn,
            Intent::SignUp,
            Intent::Link { session: "s".to_owned(), account: "7".to_owned() },
            Intent::Invite { hash: [9; 32] },
            Intent::Pending { hash: [9; 32] },
        ] {
            for return_to in
                [ReturnPlace::Here(None), ReturnPlace::Here(Some("/ä".to_owned())), ReturnPlace::Kept(u64::MAX)]
            {
                let attempt = Attempt { return_to, ..attempt(intent.clone()) };
                let state = keys().seal(&attempt, &browser, "google", "/cb").unwrap();
                assert_eq!(keys().open(&state, &presented, "google", "/cb", NOW + 900), Some(attempt));
            }
        }
    }

    // state of another browser, with a bit flipped, too old, of another provider, at another path
    #[test]
    fn state_opens_nowhere_else() {
        let browser = Browser::new().unwrap();
        let state = keys().seal(&attempt(Intent::SignIn), &browser, "a", "/cb").unwrap();
        let open = |state: &str, browser: &Browser, provider: &str, callback: &str, now: u64| {
            keys().open(state, browser, provider, callback, now).is_some()
        };
        assert!(open(&state, &browser, "a", "/cb", NOW), "the honest one");
        assert!(!open(&state, &Browser::new().unwrap(), "a", "/cb", NOW), "another browser");
        assert!(!open(&state, &browser, "b", "/cb", NOW), "another provider");
        assert!(!open(&state, &browser, "a", "/other", NOW), "another path");
        assert!(!open(&state, &browser, "a/", "cb", NOW), "provider and path are kept apart");
        assert!(open(&state, &browser, "a", "/cb", NOW + 900) && !open(&state, &browser, "a", "/cb", NOW + 901));
        assert!(open(&state, &browser, "a", "/cb", NOW - 30) && !open(&state, &browser, "a", "/cb", NOW - 31));
        let other = AttemptKeys::new(&[2; 32]).unwrap();
        assert_eq!(other.open(&state, &browser, "a", "/cb", NOW), None, "another key");
        let bytes = B64.decode(state.as_bytes()).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(!open(&B64.encode(&flipped), &browser, "a", "/cb", NOW), "byte {at}");
        }
        for cut in ["", "AAAA", &state[..state.len() - 4], &"A".repeat(5000)] {
            assert!(!open(cut, &browser, "a", "/cb", NOW), "{} characters", cut.len());
        }
    }

    #[test]
    fn state_stays_below_a_kilobyte_and_shows_nothing() {
        let browser = Browser::new().unwrap();
        let id = "0192f0c1-2345-7890-abcd-ef0123456789".to_owned();
        let attempt = Attempt {
            return_to: ReturnPlace::Here(Some(format!("/{}", "p".repeat(511)))),
            ..attempt(Intent::Link { session: id.clone(), account: id })
        };
        let state = keys().seal(&attempt, &browser, "google", "/.auth/oauth/google/callback").unwrap();
        assert!(state.len() < 1024, "{} bytes", state.len());
        assert_ne!(state, keys().seal(&attempt, &browser, "google", "/.auth/oauth/google/callback").unwrap());
    }

    #[test]
    fn verifier_and_nonce_are_of_one_attempt_in_one_browser() {
        let (one, two) = (Browser([1; 32]), Browser([2; 32]));
        let keys = keys();
        let all = [
            keys.verifier(&[1; 16], &one),
            keys.verifier(&[2; 16], &one),
            keys.verifier(&[1; 16], &two),
            keys.nonce(&[1; 16], &one),
            keys.nonce(&[2; 16], &one),
            keys.nonce(&[1; 16], &two),
        ];
        for (at, value) in all.iter().enumerate() {
            assert_eq!(value.len(), 43);
            assert!(!all[..at].contains(value), "{at}");
        }
        assert_eq!(keys.verifier(&[1; 16], &one), all[0]);
    }

    // RFC 7636, appendix B
    #[test]
    fn the_challenge_is_that_of_the_specification() {
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn a_cookie_that_is_not_ours_is_no_browser() {
        for cookie in [&b""[..], b"x", b"AAAA", &[b'A'; 42], &[b'A'; 44], b"\xff"] {
            assert!(Browser::parse(cookie).is_none(), "{cookie:?}");
        }
        assert!(Browser::parse(&[b'A'; 43]).is_some());
    }
}
