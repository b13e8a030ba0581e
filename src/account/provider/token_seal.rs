//! Tokens of providers at rest: sealed for their session and kind, so that none opens as another.

use super::tokens::{ProviderTokens, TimedToken};
use crate::config::KeptTokens;
use crate::sealing::{Purpose, SealingKey};
use crate::secret::{NoRandomness, Secret};
use crate::store::SealedToken;

pub(crate) const ID: &str = "id";
pub(crate) const ACCESS: &str = "access";
pub(crate) const REFRESH: &str = "refresh";

fn context<'c>(session: &'c str, kind: &'c str) -> [&'c [u8]; 3] {
    [b"sealed_token", session.as_bytes(), kind.as_bytes()]
}

/// Seals the tokens that are kept.
pub(crate) fn seal(
    key: &SealingKey,
    session: &str,
    tokens: &ProviderTokens,
    kept: KeptTokens,
) -> Result<Vec<SealedToken>, NoRandomness> {
    let sealer = key.sealer(Purpose::ProviderTokens)?;
    let access = &tokens.access;
    let all = [
        (ID, kept.id, tokens.id.as_ref().map(|token| (&token.value, token.expires))),
        (ACCESS, kept.access, Some((&access.value, access.expires))),
        (REFRESH, kept.refresh, tokens.refresh.as_ref().map(|token| (token, None))),
    ];
    let mut sealed = Vec::new();
    for (kind, is_kept, token) in all {
        if let Some((value, expires)) = token.filter(|_| is_kept) {
            let value = sealer.seal(&context(session, kind), value.expose().as_bytes())?.bytes;
            sealed.push(SealedToken { kind, value, expires });
        }
    }
    Ok(sealed)
}

/// Opens one. `None`: it was sealed with another key, for another session or as another kind, or was altered.
pub(crate) fn open(key: &SealingKey, session: &str, kind: &str, sealed: &[u8]) -> Option<Secret> {
    let opened = key.sealer(Purpose::ProviderTokens).ok()?.open(&context(session, kind), sealed)?;
    String::from_utf8(opened.to_vec()).ok().map(Secret::new)
}

/// The same, with when it expires.
pub(crate) fn open_timed(key: &SealingKey, session: &str, sealed: &SealedToken) -> Option<TimedToken> {
    let value = open(key, session, sealed.kind, &sealed.value)?;
    Some(TimedToken { value, expires: sealed.expires })
}

/// Seals one again with another key.
pub(crate) fn seal_again(
    old: &SealingKey,
    new: &SealingKey,
    (session, kind): (&str, &str),
    sealed: &[u8],
) -> Option<Vec<u8>> {
    let opened = old.sealer(Purpose::ProviderTokens).ok()?.open(&context(session, kind), sealed)?;
    Some(new.sealer(Purpose::ProviderTokens).ok()?.seal(&context(session, kind), &opened).ok()?.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_token_opens_for_its_session_kind_and_key_alone() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let tokens = ProviderTokens {
            access: TimedToken { value: secret("access"), expires: Some(7) },
            id: Some(TimedToken { value: secret("id"), expires: None }),
            refresh: Some(secret("refresh")),
        };
        let (key, other) = (SealingKey::random().unwrap(), SealingKey::random().unwrap());
        let all = KeptTokens { id: true, access: true, refresh: true };
        let sealed = seal(&key, "s", &tokens, all).unwrap();
        let opened = |kind: &str, session: &str, key: &SealingKey, at: usize| {
            open(key, session, kind, &sealed[at].value).map(|token| token.expose().to_owned())
        };
        for (at, kind) in [ID, ACCESS, REFRESH].into_iter().enumerate() {
            assert_eq!((sealed[at].kind, opened(kind, "s", &key, at).as_deref()), (kind, Some(kind)));
            assert_eq!(opened(kind, "t", &key, at), None, "another session");
            assert_eq!(opened(kind, "s", &other, at), None, "another key");
            assert_eq!(opened(if kind == ID { ACCESS } else { ID }, "s", &key, at), None, "another kind");
            let again = seal_again(&key, &other, ("s", kind), &sealed[at].value).unwrap();
            assert!(open(&other, "s", kind, &again).is_some() && open(&key, "s", kind, &again).is_none());
        }
        assert_eq!(sealed[1].expires, Some(7));
        assert!(seal_again(&other, &key, ("s", ID), &sealed[0].value).is_none());
        assert!(seal(&key, "s", &tokens, KeptTokens::default()).unwrap().is_empty(), "what no one asked for");
    }
}
