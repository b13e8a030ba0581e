//! Password hashes of imported accounts, created by other programs: verified at the next sign-in, then replaced by
//! argon2id. Hashes that are too expensive to verify are rejected.

use std::num::NonZeroU32;

use data_encoding::{BASE64, BASE64_NOPAD};
use md5::{Digest, Md5};
use ring::{digest, pbkdf2};
use sha_crypt::ShaCrypt;
use sha_crypt::password_hash::PasswordVerifier;

use crate::secret::same_bytes;

const BCRYPT_COST_MAX: u32 = 14;
const PBKDF2_ROUNDS_MAX: u32 = 2_000_000;
const SCRYPT_LOG_N_MAX: u8 = 17;
const SHA_CRYPT_ROUNDS_MAX: u32 = 1_000_000;
/// Longest password that crypt(3) hashes, bytes (crypt.h, `CRYPT_MAX_PASSPHRASE_SIZE`).
const CRYPT_BYTES_MAX: usize = 512;
/// Stored keys of PBKDF2 and scrypt, bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// A parsed hash.
pub(crate) enum ImportedHash {
    /// `$2a$`, `$2b$`, `$2y$`: bcryptjs, Prisma apps, htpasswd -B. Uses only the first 72 bytes.
    Bcrypt(String),
    /// `$pbkdf2$` (SHA-1), `$pbkdf2-sha256$`, `$pbkdf2-sha512$`: Authelia, passlib.
    Pbkdf2 { algorithm: pbkdf2::Algorithm, rounds: NonZeroU32, salt: Vec<u8>, key: Vec<u8> },
    /// `$scrypt$ln=..,r=..,p=..$`: Authelia, passlib.
    Scrypt { params: scrypt::Params, salt: Vec<u8>, key: Vec<u8> },
    /// `$5$`, `$6$`: crypt(3).
    ShaCrypt(String),
    /// `$apr1$`: htpasswd -m.
    Apr1 { salt: String, hash: String },
    /// `{SHA}`: htpasswd -s.
    Sha1(Vec<u8>),
}

impl ImportedHash {
    /// `None`: unknown, damaged, or too expensive to verify.
    pub(crate) fn parse(hash: &str) -> Option<Self> {
        if let Some(encoded) = hash.strip_prefix("{SHA}") {
            return BASE64.decode(encoded.as_bytes()).ok().filter(|hash| hash.len() == 20).map(Self::Sha1);
        }
        let parts: Vec<&str> = hash.strip_prefix('$')?.split('$').collect();
        match *parts.as_slice() {
            ["2a" | "2b" | "2y", cost, rest] => {
                let fits = cost.len() == 2 && cost.parse().is_ok_and(|cost| (4..=BCRYPT_COST_MAX).contains(&cost));
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'/';
                (fits && rest.len() == 53 && rest.bytes().all(plain)).then(|| Self::Bcrypt(hash.to_owned()))
            }
            ["pbkdf2", rounds, salt, key] => Self::pbkdf2(pbkdf2::PBKDF2_HMAC_SHA1, rounds, salt, key),
            ["pbkdf2-sha256", rounds, salt, key] => Self::pbkdf2(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, key),
            ["pbkdf2-sha512", rounds, salt, key] => Self::pbkdf2(pbkdf2::PBKDF2_HMAC_SHA512, rounds, salt, key),
            ["scrypt", params, salt, key] => Self::scrypt(params, salt, key),
            ["5" | "6", salt, key] => Self::sha_crypt(hash, None, salt, key),
            ["5" | "6", rounds, salt, key] => Self::sha_crypt(hash, Some(rounds), salt, key),
            ["apr1", salt, own] if salt.len() <= 8 && own.len() == 22 => {
                Some(Self::Apr1 { salt: salt.to_owned(), hash: own.to_owned() })
            }
            _ => None,
        }
    }

    fn pbkdf2(algorithm: pbkdf2::Algorithm, rounds: &str, salt: &str, key: &str) -> Option<Self> {
        let rounds = rounds.parse().ok().filter(|&rounds| rounds <= PBKDF2_ROUNDS_MAX).and_then(NonZeroU32::new)?;
        let key = adapted_base64(key).filter(|key| KEY_BYTES.contains(&key.len()))?;
        Some(Self::Pbkdf2 { algorithm, rounds, salt: adapted_base64(salt)?, key })
    }

    fn scrypt(params: &str, salt: &str, key: &str) -> Option<Self> {
        let (mut log_n, mut r, mut p) = (None, None, None);
        for item in params.split(',') {
            match item.split_once('=')? {
                ("ln", value) => log_n = value.parse().ok().filter(|&n| n <= SCRYPT_LOG_N_MAX),
                ("r", value) => r = value.parse().ok().filter(|&r: &u32| r <= 16),
                ("p", value) => p = value.parse().ok().filter(|&p: &u32| p <= 4),
                _ => return None,
            }
        }
        let key = adapted_base64(key).filter(|key| KEY_BYTES.contains(&key.len()))?;
        let params = scrypt::Params::new(log_n?, r?, p?).ok()?;
        Some(Self::Scrypt { params, salt: adapted_base64(salt)?, key })
    }

    fn sha_crypt(hash: &str, rounds: Option<&str>, salt: &str, key: &str) -> Option<Self> {
        let fits = rounds.is_none_or(|rounds| {
            let count = rounds.strip_prefix("rounds=").and_then(|count| count.parse::<u32>().ok());
            count.is_some_and(|count| (1000..=SHA_CRYPT_ROUNDS_MAX).contains(&count))
        });
        let length = if hash.starts_with("$5$") { 43 } else { 86 };
        (fits && salt.len() <= 16 && key.len() == length).then(|| Self::ShaCrypt(hash.to_owned()))
    }

    /// Whether this is the password's hash.
    pub(crate) fn matches(&self, password: &str) -> bool {
        let bytes = password.as_bytes();
        match self {
            // each round reads the whole password; crypt(3) has the same limit
            Self::ShaCrypt(_) | Self::Apr1 { .. } if bytes.len() > CRYPT_BYTES_MAX => false,
            Self::Bcrypt(hash) => bcrypt::verify(bytes, hash).unwrap_or(false),
            Self::Pbkdf2 { algorithm, rounds, salt, key } => {
                pbkdf2::verify(*algorithm, *rounds, salt, bytes, key).is_ok()
            }
            Self::Scrypt { params, salt, key } => {
                let mut derived = vec![0; key.len()];
                scrypt::scrypt(bytes, salt, params, &mut derived).is_ok() && same_bytes(&derived, key)
            }
            Self::ShaCrypt(hash) => ShaCrypt::default().verify_password(bytes, hash.as_str()).is_ok(),
            Self::Apr1 { salt, hash } => same_bytes(apr1(bytes, salt.as_bytes()).as_bytes(), hash.as_bytes()),
            Self::Sha1(hash) => same_bytes(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref(), hash),
        }
    }
}

/// Base64 without padding; passlib and Authelia write `.` for `+`.
fn adapted_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_NOPAD.decode(text.trim_end_matches('=').replace('.', "+").as_bytes()).ok()
}

/// Apache's variant of MD5-crypt: a thousand rounds that mix password and salt in its own order (Apache httpd,
/// "Password Formats").
fn apr1(password: &[u8], salt: &[u8]) -> String {
    let mut inner: [u8; 16] =
        Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize().into();
    let mut outer = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    for chunk in (0..password.len()).step_by(16) {
        outer.update(&inner[..16.min(password.len() - chunk)]);
    }
    let mut bits = password.len();
    while bits > 0 {
        outer.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    inner = outer.finalize().into();
    for round in 0..1000 {
        let mut next = Md5::new();
        next.update(if round & 1 == 1 { password } else { &inner[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round & 1 == 1 { &inner[..] } else { password });
        inner = next.finalize().into();
    }
    encode_apr1(&inner)
}

/// Three bytes become four characters, the lowest bits first.
fn encode_apr1(hash: &[u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let groups = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)];
    let mut text = String::with_capacity(22);
    let mut put = |mut value: u32, count: usize| {
        for _ in 0..count {
            text.push(char::from(DIGITS[(value & 63) as usize]));
            value >>= 6;
        }
    };
    for (a, b, c) in groups {
        put(u32::from(hash[a]) << 16 | u32::from(hash[b]) << 8 | u32::from(hash[c]), 4);
    }
    put(u32::from(hash[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // made by bcryptjs 2 and 3, openssl passwd, Node.js' crypto, htpasswd
    const KNOWN: &[&str] = &[
        "$apr1$abcdefgh$sIQmFnT1CuEXAsyjuXjUX/",
        "$6$saltsalt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0",
        "$5$saltsalt$myjXcpMpE2Ofk7fj9hqyNYSn6lmWG4Mqnjx.KIRRr4/",
        "$pbkdf2-sha512$1000$MDEyMzQ1Njc4OWFiY2RlZg$OM0FAoIqCVK1sWtxDiffVlBejtLa.ks4TP71JiecwuSZCG8iLbnlIEPOMoVX.i2B2wkSxjQ8CRGR9OkNGuIPMQ",
        "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$6g3umF+uVrJsObaTZhIbbTlgrvOEFcCItdwSjtPF67M",
        "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=",
    ];

    #[test]
    fn hashes_of_other_programs_match_only_their_password() {
        for hash in KNOWN {
            let foreign = ImportedHash::parse(hash).unwrap_or_else(|| panic!("{hash}"));
            assert!(foreign.matches("correct horse"), "{hash}");
            for wrong in ["correct horse ", "Correct horse", "", "correct"] {
                assert!(!foreign.matches(wrong), "{hash} {wrong}");
            }
        }
    }

    #[test]
    fn a_password_longer_than_crypt_allows_does_not_match() {
        let salted = |length: usize| {
            let password = "x".repeat(length);
            let hash = apr1(password.as_bytes(), b"salt");
            ImportedHash::parse(&format!("$apr1$salt${hash}")).unwrap().matches(&password)
        };
        assert_eq!([512, 513].map(salted), [true, false]);
    }

    #[test]
    fn bcrypt_of_all_prefixes_is_cut_at_72_bytes() {
        let long = "0123456789".repeat(8);
        let made = bcrypt::hash_with_salt(&long[..72], 4, [7; 16]).unwrap();
        for prefix in ["2a", "2b", "2y"] {
            let hash = made.format_for_version(match prefix {
                "2a" => bcrypt::Version::TwoA,
                "2b" => bcrypt::Version::TwoB,
                _ => bcrypt::Version::TwoY,
            });
            let foreign = ImportedHash::parse(&hash).unwrap();
            assert!(foreign.matches(&long) && foreign.matches(&long[..72]) && !foreign.matches(&long[..71]), "{hash}");
        }
    }

    #[test]
    fn damaged_and_too_expensive_hashes_are_rejected() {
        for hash in [
            "",
            "$",
            "hunter2",
            "$2b$",
            "$2b$10$short",
            "$2b$31$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
            "$2b$1$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWyx",
            "$2x$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
            "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lh\u{e9}y",
            "$pbkdf2-sha512$999999999$MDEy$OM0FAoIqCVK1sWtxDiffVg",
            "$pbkdf2-sha512$0$MDEy$OM0FAoIqCVK1sWtxDiffVg",
            "$scrypt$ln=30,r=8,p=1$MDEy$6g3umF+uVrJsObaTZhIbbTlgrvOEFcCItdwSjtPF67M",
            "$scrypt$r=8$MDEy$6g3u",
            "$6$rounds=999999999$saltsalt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0",
            "$6$saltsalt$short",
            "$1$abcdefgh$sIQmFnT1CuEXAsyjuXjUX/",
            "{SHA}AAAA",
            "{SSHA}JGGDi26T8oz3NCHQ62aPVmRcxLw=",
        ] {
            assert!(ImportedHash::parse(hash).is_none(), "{hash}");
        }
    }
}
