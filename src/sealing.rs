//! Secrets at rest: values that are kept in the database but readable only with a key that is kept apart from it. One
//! sealing key of 32 bytes; from it one key for each purpose (HKDF-SHA256, RFC 5869), so that a value sealed for one
//! purpose opens for no other; AES-256-GCM (NIST SP 800-38D) with a random nonce. It never says why a value does not
//! open, and nothing here has `Debug`.
//!
//! It protects copies of the database, not a machine: an intruder with root reads both (docs/security.md).

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::secret::{NoRandomness, random_bytes};

/// Bytes of a sealing key.
pub const KEY_BYTES: usize = 32;
/// First byte of a sealed value.
const VERSION: u8 = 1;
/// Bytes of a key id, half as many as its hexadecimal digits.
const ID_BYTES: usize = 8;

/// What keys are derived for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Signing keys in the database.
    SigningKeys,
    /// Sign-ins at a provider that have begun: the `state` parameter.
    ProviderState,
    /// Values of such a sign-in that are computed again when it ends: PKCE verifier, nonce.
    ProviderDerived,
    /// Identities that wait until their account has been signed in to.
    PendingIdentity,
    /// Tokens of providers in the database.
    ProviderTokens,
    /// Authorization codes that `public_url` passes on to another host.
    RelayedCode,
}

impl Purpose {
    /// The HKDF `info`; never changed.
    fn label(self) -> &'static [u8] {
        match self {
            Self::SigningKeys => b"signing keys",
            Self::ProviderState => b"provider state",
            Self::ProviderDerived => b"provider derived values",
            Self::PendingIdentity => b"pending identity",
            Self::ProviderTokens => b"provider tokens",
            Self::RelayedCode => b"relayed code",
        }
    }
}

/// The sealing key.
#[derive(Clone)]
pub struct SealingKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: String,
}

/// A sealed value, and the id of the sealing key that opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Version, nonce (12 bytes), ciphertext, tag (16 bytes).
    pub bytes: Vec<u8>,
    /// [`SealingKey::id`]
    pub by: String,
}

/// Seals and opens values of one purpose.
pub struct Sealer {
    key: LessSafeKey,
    id: String,
}

struct Bytes<const N: usize>;

impl<const N: usize> hkdf::KeyType for Bytes<N> {
    fn len(&self) -> usize {
        N
    }
}

impl SealingKey {
    /// A new key from the system's random number generator.
    pub fn random() -> Result<Self, NoRandomness> {
        Self::new(Zeroizing::new(random_bytes()?)).ok_or(NoRandomness)
    }

    /// Reads a key: 32 raw bytes, or their base64 (44 characters; 43 without padding) or hexadecimal text (64), with or
    /// without a line end.
    ///
    /// # Errors
    /// One line for people that does not repeat what was read.
    pub fn parse(read: &[u8]) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected 32 random bytes, as base64, as hexadecimal or raw (openssl rand -base64 32)";
        if let Ok(raw) = <[u8; KEY_BYTES]>::try_from(read) {
            let raw = Zeroizing::new(raw);
            // 32 bytes of text have a fraction of the randomness of 32 bytes
            let is_text = raw.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
            return if is_text { Err(EXPECTED) } else { Self::judged(raw) };
        }
        let text = read.strip_suffix(b"\n").unwrap_or(read);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let alphabets = [
            &data_encoding::HEXLOWER_PERMISSIVE,
            &data_encoding::BASE64,
            &data_encoding::BASE64_NOPAD,
            &data_encoding::BASE64URL,
            &data_encoding::BASE64URL_NOPAD,
        ];
        let decoded = alphabets.iter().find_map(|alphabet| {
            let bytes = Zeroizing::new(alphabet.decode(text).ok()?);
            <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new)
        });
        decoded.map_or(Err(EXPECTED), Self::judged)
    }

    fn judged(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, &'static str> {
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err("the key is one byte repeated: it must be random (openssl rand -base64 32)");
        }
        Self::new(bytes).ok_or("the key cannot be used")
    }

    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Option<Self> {
        let id: Zeroizing<[u8; ID_BYTES]> = expand(&bytes, b"key id")?;
        Some(Self { id: data_encoding::HEXLOWER.encode(id.as_slice()), bytes })
    }

    /// Identifies the key and says nothing about it: 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its text as it is written to a file: base64 and a line end.
    pub fn to_file(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}\n", data_encoding::BASE64.encode(self.bytes.as_slice())))
    }

    /// Seals and opens values of this purpose.
    ///
    /// # Errors
    /// The derivation failed, which no input causes.
    pub fn sealer(&self, purpose: Purpose) -> Result<Sealer, NoRandomness> {
        let derived: Zeroizing<[u8; KEY_BYTES]> = expand(&self.bytes, purpose.label()).ok_or(NoRandomness)?;
        let key = UnboundKey::new(&AES_256_GCM, derived.as_slice()).map_err(|_| NoRandomness)?;
        Ok(Sealer { key: LessSafeKey::new(key), id: self.id.clone() })
    }

    /// A key for HMAC-SHA256 of this purpose. A purpose is used for sealing or for this, never both.
    ///
    /// # Errors
    /// As [`Self::sealer`].
    pub fn hmac_key(&self, purpose: Purpose) -> Result<hmac::Key, NoRandomness> {
        let derived: Zeroizing<[u8; KEY_BYTES]> = expand(&self.bytes, purpose.label()).ok_or(NoRandomness)?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, derived.as_slice()))
    }
}

fn expand<const N: usize>(key: &[u8; KEY_BYTES], label: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"authgate sealing key 1").extract(key);
    let mut bytes = Zeroizing::new([0; N]);
    derived.expand(&[label], Bytes::<N>).ok()?.fill(bytes.as_mut_slice()).ok()?;
    Some(bytes)
}

impl Sealer {
    /// Seals a value for this context (table, row ids, what it is): it opens only with the same context.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn seal(&self, context: &[&[u8]], value: &[u8]) -> Result<Sealed, NoRandomness> {
        let nonce: [u8; NONCE_LEN] = random_bytes()?;
        let mut bytes = Vec::with_capacity(1 + NONCE_LEN + value.len() + AES_256_GCM.tag_len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&nonce);
        let mut sealed = value.to_vec();
        let aad = self.aad(context);
        let done = self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed);
        done.map_err(|_| NoRandomness)?;
        bytes.append(&mut sealed);
        Ok(Sealed { bytes, by: self.id.clone() })
    }

    /// Opens what [`Self::seal`] made. `None`: another key, purpose or context, or altered bytes.
    pub fn open(&self, context: &[&[u8]], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (head, rest) = sealed.split_at_checked(1 + NONCE_LEN)?;
        let (version, nonce) = head.split_first()?;
        if *version != VERSION {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut value = Zeroizing::new(rest.to_vec());
        let plain = self.key.open_in_place(nonce, Aad::from(self.aad(context)), &mut value).ok()?.len();
        value.truncate(plain);
        Some(value)
    }

    /// The key's id and each part with its length in front: no two contexts have the same bytes.
    fn aad(&self, context: &[&[u8]]) -> Vec<u8> {
        let mut aad = Vec::new();
        for part in std::iter::once(self.id.as_bytes()).chain(context.iter().copied()) {
            aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
            aad.extend_from_slice(part);
        }
        aad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        let mut bytes = [byte; KEY_BYTES];
        bytes[0] = 1;
        SealingKey::parse(&bytes).unwrap()
    }

    #[test]
    fn a_value_opens_with_its_key_purpose_and_context_alone() {
        let (own, other) = (key(7), key(8));
        let sealer = own.sealer(Purpose::SigningKeys).unwrap();
        let sealed = sealer.seal(&[b"table", b"row"], b"value").unwrap();
        assert_eq!(sealed.by, own.id());
        assert_eq!(sealer.open(&[b"table", b"row"], &sealed.bytes).unwrap().as_slice(), b"value");
        let contexts: [&[&[u8]]; 4] = [&[b"table", b"other"], &[b"tabler", b"ow"], &[b"table"], &[]];
        for context in contexts {
            assert!(sealer.open(context, &sealed.bytes).is_none());
        }
        let purpose = own.sealer(Purpose::ProviderState).unwrap();
        assert!(purpose.open(&[b"table", b"row"], &sealed.bytes).is_none());
        let stranger = other.sealer(Purpose::SigningKeys).unwrap();
        assert!(stranger.open(&[b"table", b"row"], &sealed.bytes).is_none());
    }

    #[test]
    fn no_altered_or_truncated_byte_opens() {
        let sealer = key(7).sealer(Purpose::SigningKeys).unwrap();
        let sealed = sealer.seal(&[b"row"], b"value").unwrap().bytes;
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(sealer.open(&[b"row"], &altered).is_none(), "byte {at}");
            assert!(sealer.open(&[b"row"], &sealed[..at]).is_none(), "length {at}");
        }
        assert_eq!(sealer.open(&[b"row"], &sealed).unwrap().as_slice(), b"value");
    }

    #[test]
    fn one_value_sealed_twice_is_not_recognized() {
        let sealer = key(7).sealer(Purpose::SigningKeys).unwrap();
        let [one, two] = [(); 2].map(|()| sealer.seal(&[], b"value").unwrap().bytes);
        assert_ne!(one[1..], two[1..]);
        assert_ne!(one[13..], two[13..]);
    }

    /// RFC 5869 gives HKDF; the labels and the salt must never change, or no database opens any more.
    #[test]
    fn keys_are_derived_as_ever() {
        let key = SealingKey::parse(&std::array::from_fn::<u8, KEY_BYTES, _>(|at| u8::try_from(at).unwrap())).unwrap();
        assert_eq!(key.id(), "9ad5a602095a1156");
        let tag = hmac::sign(&key.hmac_key(Purpose::ProviderDerived).unwrap(), b"pkce");
        assert_eq!(data_encoding::HEXLOWER.encode(&tag.as_ref()[..8]), "caeb093c0f893411");
    }

    #[test]
    fn a_key_is_read_in_every_spelling_and_nothing_else_is_one() {
        let bytes: [u8; KEY_BYTES] = std::array::from_fn(|at| u8::try_from(at * 7 % 256).unwrap());
        let base64 = data_encoding::BASE64.encode(&bytes);
        let hex = data_encoding::HEXLOWER.encode(&bytes);
        let spellings = [
            bytes.to_vec(),
            base64.clone().into_bytes(),
            format!("{base64}\n").into_bytes(),
            format!("{base64}\r\n").into_bytes(),
            base64.trim_end_matches('=').to_owned().into_bytes(),
            data_encoding::BASE64URL.encode(&bytes).into_bytes(),
            hex.clone().into_bytes(),
            format!("{}\n", hex.to_uppercase()).into_bytes(),
        ];
        let ids: Vec<String> = spellings.iter().map(|spelling| SealingKey::parse(spelling).unwrap().id).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(SealingKey::parse(SealingKey::parse(&bytes).unwrap().to_file().as_bytes()).unwrap().id, ids[0]);
        let not_keys: [&[u8]; 7] = [
            b"",
            b"short",
            &bytes[..31],
            &hex.as_bytes()[..62],
            &hex.as_bytes()[..32],
            &[0; 32],
            b"correct horse battery staple 123",
        ];
        for wrong in not_keys {
            assert!(SealingKey::parse(wrong).is_err(), "{wrong:?}");
        }
        let zero = data_encoding::HEXLOWER.encode(&[0; 32]);
        assert!(SealingKey::parse(zero.as_bytes()).is_err());
        let padded = format!("{base64}\n\n");
        assert!(SealingKey::parse(padded.as_bytes()).is_err());
    }
}
