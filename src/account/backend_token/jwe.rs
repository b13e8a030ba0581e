//! The encrypted session cookies of next-auth 4 and Auth.js 5: compact JWE (RFC 7516, 3.1) with
//! `"alg":"dir"`, their keys made from a shared secret by HKDF-SHA256 (RFC 5869).

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeEncrypt, KeyIvInit};
use data_encoding::BASE64URL_NOPAD as B64;
use ring::{aead, digest, hkdf, hmac};
use zeroize::Zeroizing;

use crate::secret::{NoRandomness, Secret, random_bytes};

/// Derives a key of `LENGTH` bytes from a shared secret.
fn derived<const LENGTH: usize>(secret: &Secret, salt: &[u8], info: &str) -> Zeroizing<[u8; LENGTH]> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut key = Zeroizing::new([0; LENGTH]);
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret.expose().as_bytes());
    // ring only fails beyond 255 hash lengths; these are one and two
    let filled = pseudorandom.expand(&[info.as_bytes()], Length(LENGTH)).and_then(|okm| okm.fill(key.as_mut()));
    debug_assert!(filled.is_ok());
    key
}

/// Key of next-auth 4 cookies; independent of the cookie's name.
pub(crate) struct KeyV4(Zeroizing<[u8; 32]>);

/// Key of Auth.js 5 cookies of one name.
pub(crate) struct KeyV5 {
    key: Zeroizing<[u8; 64]>,
    header: String,
}

impl KeyV4 {
    pub(crate) fn new(secret: &Secret) -> Self {
        Self(derived(secret, b"", "NextAuth.js Generated Encryption Key"))
    }

    /// A256GCM (RFC 7518, 5.3).
    pub(crate) fn encrypt(&self, claims: &[u8]) -> Result<String, NoRandomness> {
        let header = B64.encode(br#"{"alg":"dir","enc":"A256GCM"}"#);
        let nonce = random_bytes::<12>()?;
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, self.0.as_slice()).map_err(|_| NoRandomness)?;
        let mut text = claims.to_vec();
        let tag = aead::LessSafeKey::new(key)
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(header.as_bytes()),
                &mut text,
            )
            .map_err(|_| NoRandomness)?;
        Ok(compact(&header, &nonce, &text, tag.as_ref()))
    }
}

impl KeyV5 {
    pub(crate) fn new(secret: &Secret, cookie: &str) -> Self {
        let key: Zeroizing<[u8; 64]> =
            derived(secret, cookie.as_bytes(), &format!("Auth.js Generated Encryption Key ({cookie})"));
        // RFC 7638: the thumbprint of the key as a JWK
        let jwk = Zeroizing::new(format!(r#"{{"k":"{}","kty":"oct"}}"#, B64.encode(key.as_slice())));
        let kid = B64.encode(digest::digest(&digest::SHA512, jwk.as_bytes()).as_ref());
        let header = B64.encode(format!(r#"{{"alg":"dir","enc":"A256CBC-HS512","kid":"{kid}"}}"#).as_bytes());
        Self { key, header }
    }

    /// A256CBC-HS512 (RFC 7518, 5.2.5): the first half of the key signs, the second encrypts.
    pub(crate) fn encrypt(&self, claims: &[u8]) -> Result<String, NoRandomness> {
        let (sign, cipher) = self.key.split_at(32);
        let iv = random_bytes::<16>()?;
        let encryptor = cbc::Encryptor::<aes::Aes256>::new_from_slices(cipher, &iv).map_err(|_| NoRandomness)?;
        let text = encryptor.encrypt_padded_vec::<Pkcs7>(claims);
        let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA512, sign));
        signing.update(self.header.as_bytes());
        signing.update(&iv);
        signing.update(&text);
        signing.update(&(self.header.len() as u64 * 8).to_be_bytes());
        Ok(compact(&self.header, &iv, &text, &signing.sign().as_ref()[..32]))
    }
}

/// With `dir` there is no encrypted key: the second part is empty.
fn compact(header: &str, iv: &[u8], text: &[u8], tag: &[u8]) -> String {
    format!("{header}..{}.{}.{}", B64.encode(iv), B64.encode(text), B64.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "seedapp-shared-secret-of-at-least-32-bytes";

    fn secret() -> Secret {
        Secret::new(SECRET.to_owned())
    }

    fn hex(key: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(key)
    }

    // keys and headers as next-auth 4.24.15 and @auth/core 0.41.3 make them from this secret
    #[test]
    fn keys_and_headers_are_those_of_the_real_packages() {
        assert_eq!(
            hex(KeyV4::new(&secret()).0.as_slice()),
            "dd2bd1d76c610563c6730b489db618be894386f107e9a6d518f740d835154196"
        );
        for (cookie, key, header) in [
            (
                "authjs.session-token",
                "0cf69ad31fce305b840abb6f3d0ab0ec733f7d316a395b260e38485c886b7787c22d63ffd0b27b3f9b4e2b50a68ec67d76e51084c24f434922ba6856dc661575",
                "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2Q0JDLUhTNTEyIiwia2lkIjoiOHBfM0FvWV9WQjIxWTMyQ0dCZG5qYjhmS0M1NWFSNVBNQmE2aXZ4RDd2VkJ5MDY3YjFDMmdfS2k1NnJla0Y4RXhyOTlYdGhMWnRqV0hGZ0NrOGFNR3cifQ",
            ),
            (
                "__Secure-authjs.session-token",
                "4f3b392df8d8a1c9d620f05e944e005dae9a3edba00543ce20f1712cf906e8b9ad57a3ee94ca1c317036b868315c8afe1368e3661282ed5c8a7aea3073ba7c81",
                "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2Q0JDLUhTNTEyIiwia2lkIjoiTkRzajhwOC0xMkp0YjgtSERnWm5JTGNXV3dFQUZKM0wtbzUyamh0QWxyN1RuZFhUdkkzbTNfd1JENmtxWDdGV1pkTUxBUXM4OE5HZmxVaGR3MGNWdHcifQ",
            ),
        ] {
            let made = KeyV5::new(&secret(), cookie);
            assert_eq!((hex(made.key.as_slice()).as_str(), made.header.as_str()), (key, header), "{cookie}");
        }
    }

    #[test]
    fn an_encrypted_cookie_has_five_parts_and_a_fresh_nonce() {
        let (v4, v5) = (KeyV4::new(&secret()), KeyV5::new(&secret(), "authjs.session-token"));
        let pairs = [
            (v4.encrypt(b"{}").unwrap(), v4.encrypt(b"{}").unwrap()),
            (v5.encrypt(b"{}").unwrap(), v5.encrypt(b"{}").unwrap()),
        ];
        for (one, two) in pairs {
            let parts: Vec<_> = one.split('.').collect();
            assert!(parts.len() == 5 && parts[1].is_empty() && one != two, "{one}");
        }
    }
}
