//! An authorization code on its way from `public_url` to the host where the sign-in began. It is sealed for that host and
//! the `state` that came with it: an app there that reads addresses (a service worker does) must not get a code that
//! another host accepts, because all of them have one redirect URI (RFC 9700, 4.11).

use data_encoding::BASE64URL_NOPAD as B64;

use crate::sealing::{Purpose, SealingKey};

/// Longest sealed code that is opened, bytes.
const SEALED_BYTES_MAX: usize = 8 << 10;

fn context<'c>(host: &'c str, state: &'c str) -> [&'c [u8]; 3] {
    [b"relayed code", host.as_bytes(), state.as_bytes()]
}

/// Seals a code. `None`: there are no random numbers.
pub(crate) fn seal(key: &SealingKey, host: &str, state: &str, code: &str) -> Option<String> {
    let sealed = key.sealer(Purpose::RelayedCode).ok()?.seal(&context(host, state), code.as_bytes()).ok()?;
    Some(B64.encode(&sealed.bytes))
}

/// Opens it. `None`: it is for another host or `state`, or was not sealed here.
pub(crate) fn open(key: &SealingKey, host: &str, state: &str, sealed: &str) -> Option<String> {
    if sealed.len() > SEALED_BYTES_MAX {
        return None;
    }
    let sealed = B64.decode(sealed.as_bytes()).ok()?;
    let opened = key.sealer(Purpose::RelayedCode).ok()?.open(&context(host, state), &sealed)?;
    String::from_utf8(opened.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_opens_for_its_host_and_state_alone() {
        let (key, other) = (SealingKey::random().unwrap(), SealingKey::random().unwrap());
        let sealed = seal(&key, "app.example.com", "s~app.example.com", "the code").unwrap();
        assert!(!sealed.contains("code"));
        let opened = |key, host, state| open(key, host, state, &sealed);
        assert_eq!(opened(&key, "app.example.com", "s~app.example.com").as_deref(), Some("the code"));
        assert_eq!(opened(&key, "evil.example.com", "s~app.example.com"), None);
        assert_eq!(opened(&key, "app.example.com", "t~app.example.com"), None);
        assert_eq!(opened(&other, "app.example.com", "s~app.example.com"), None);
        assert_eq!(open(&key, "app.example.com", "s", "the code"), None, "a code that was not sealed");
    }
}
