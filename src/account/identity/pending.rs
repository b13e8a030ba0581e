//! An identity that waits in a form field of its owner's browser: until they have signed in to the account with its
//! address, or said what to do with it. Sealed, bound to that browser
//! and to the session that was asked, and good for ten minutes.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD as B64;
use serde::{Deserialize, Serialize};

use crate::account::provider::identity::{EXTRA_OBJECT_ID, EXTRA_TENANT, ProviderEmail, ProviderIdentity};
use crate::clock::UnixSecs;
use crate::sealing::{Purpose, SealingKey};

/// How long it waits, seconds.
const PENDING_SECS: u64 = 600;
/// Bytes before sealing; with more groups than this holds, it cannot wait. The form's limit is 8 KiB.
const PENDING_BYTES_MAX: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    expires: UnixSecs,
    asked: Option<String>,
    provider: String,
    subject: String,
    issuer: Option<String>,
    email: Option<(String, bool)>,
    name: Option<String>,
    picture: Option<String>,
    login: Option<String>,
    groups: Vec<String>,
    session_id: Option<String>,
    hosted_domain: Option<String>,
    auth_time: Option<UnixSecs>,
    extra: BTreeMap<String, String>,
}

fn context(browser: &[u8; 32]) -> [&[u8]; 2] {
    [b"pending identity", browser]
}

/// An identity that waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PendingIdentity {
    pub(crate) identity: ProviderIdentity,
    /// Id of the session whose owner was asked about it; `None`: no one was signed in.
    pub(crate) asked: Option<String>,
}

/// Seals an identity for a browser (SHA-256 of the value that it holds in a cookie) and the session that is asked, if there is
/// one. `None`: it is too large.
pub(crate) fn seal(
    key: &SealingKey,
    browser: &[u8; 32],
    who: &ProviderIdentity,
    asked: Option<&str>,
    now: UnixSecs,
) -> Option<String> {
    let who = who.clone();
    let stored = Stored {
        expires: now.saturating_add(PENDING_SECS),
        asked: asked.map(str::to_owned),
        provider: who.provider,
        subject: who.subject,
        issuer: who.issuer,
        email: who.email.map(|email| (email.address, email.is_verified)),
        name: who.name,
        picture: who.picture,
        login: who.login,
        groups: who.groups,
        session_id: who.session_id,
        hosted_domain: who.hosted_domain,
        auth_time: who.auth_time,
        extra: who.extra.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    let text = serde_json::to_vec(&stored).ok().filter(|text| text.len() <= PENDING_BYTES_MAX)?;
    let sealed = key.sealer(Purpose::PendingIdentity).ok()?.seal(&context(browser), &text).ok()?;
    Some(B64.encode(&sealed.bytes))
}

/// Opens what [`seal`] made. `None`: another browser, altered, or too old.
pub(crate) fn open(key: &SealingKey, browser: &[u8; 32], text: &str, now: UnixSecs) -> Option<PendingIdentity> {
    if text.len() > 2 * PENDING_BYTES_MAX {
        return None;
    }
    let sealed = B64.decode(text.as_bytes()).ok()?;
    let opened = key.sealer(Purpose::PendingIdentity).ok()?.open(&context(browser), &sealed)?;
    let stored: Stored = serde_json::from_slice(&opened).ok()?;
    // a clock that was set back must not make it last
    let is_current = now < stored.expires && stored.expires - now <= PENDING_SECS;
    let known = |name: &str| [EXTRA_OBJECT_ID, EXTRA_TENANT].into_iter().find(|known| *known == name);
    let extra = stored.extra.into_iter().filter_map(|(name, value)| Some((known(&name)?, value)));
    let identity = ProviderIdentity {
        provider: stored.provider,
        subject: stored.subject,
        issuer: stored.issuer,
        email: stored.email.map(|(address, is_verified)| ProviderEmail { address, is_verified }),
        name: stored.name,
        picture: stored.picture,
        login: stored.login,
        groups: stored.groups,
        session_id: stored.session_id,
        hosted_domain: stored.hosted_domain,
        auth_time: stored.auth_time,
        extra: extra.collect(),
    };
    is_current.then_some(PendingIdentity { identity, asked: stored.asked })
}

#[cfg(test)]
mod tests {
    use super::super::rules::tests::person;
    use super::*;

    #[test]
    fn an_identity_waits_ten_minutes_in_one_browser() {
        let key = SealingKey::random().unwrap();
        let mut who = person("1", "ada@example.com");
        who.extra.insert(EXTRA_TENANT, "t".to_owned());
        who.groups = vec!["Ops".to_owned()];
        let text = seal(&key, &[1; 32], &who, Some("session"), 1000).unwrap();
        assert!(!text.contains("ada"));
        let opened = PendingIdentity { identity: who.clone(), asked: Some("session".to_owned()) };
        assert_eq!(open(&key, &[1; 32], &text, 1599), Some(opened));
        assert_eq!(open(&key, &[1; 32], &text, 1600), None, "too old");
        assert_eq!(open(&key, &[1; 32], &text, 900), None, "the clock was set back");
        assert_eq!(open(&key, &[2; 32], &text, 1000), None, "another browser");
        assert_eq!(open(&SealingKey::random().unwrap(), &[1; 32], &text, 1000), None, "another key");
        let mut altered = text.clone().into_bytes();
        altered[40] = if altered[40] == b'A' { b'B' } else { b'A' };
        assert_eq!(open(&key, &[1; 32], std::str::from_utf8(&altered).unwrap(), 1000), None);
        assert_eq!(open(&key, &[1; 32], "", 1000), None);
        who.groups = vec!["g".repeat(100); 50];
        assert_eq!(seal(&key, &[1; 32], &who, None, 1000), None, "too large");
    }
}
