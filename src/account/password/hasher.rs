//! Password hashes (argon2id): create, verify, and rehash if the parameters are outdated. The only user of the argon2
//! crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use allocator_api2::alloc::System;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::account::password::imported_hash::ImportedHash;
use crate::config;
use crate::secret::{NoRandomness, Secret, random_bytes, same_bytes};

/// Limits on the cost parameters of a stored hash; the configured values are always allowed.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const ITERATIONS_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const HASH_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// Result of a verification.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) enum Verdict {
    /// The password is right. Contains a new hash if the stored one does not have the configured parameters.
    Right(Option<Secret>),
    /// The password is wrong, or there was no hash.
    Wrong,
}

/// Argon2's working memory, from the system allocator, which maps and unmaps blocks of this size individually; the
/// gateway's own allocator would keep freed memory.
pub(crate) type Memory = allocator_api2::vec::Vec<Block, System>;

/// Minimum allocation: below it glibc may keep freed memory (mallopt(3), `M_MMAP_THRESHOLD`); untouched pages cost
/// nothing.
const MAPPED_BLOCKS: usize = (33 << 20) / Block::SIZE;

/// A password as it is hashed: NFC, otherwise exactly as typed.
pub(crate) fn normalize(password: &Secret) -> Zeroizing<String> {
    Zeroizing::new(password.expose().nfc().collect())
}

/// Hashes a new password on this thread; for commands.
pub(crate) fn hash_now(settings: config::Argon2, password: &Secret) -> Result<Secret, NoRandomness> {
    Hasher::new(settings, Arc::default()).hash(password)
}

/// Whether a stored hash can be verified: ours, or one from another program.
pub(crate) fn is_usable(settings: config::Argon2, hash: &Secret) -> bool {
    ImportedHash::parse(hash.expose()).is_some() || Hasher::new(settings, Arc::default()).parse(hash).is_some()
}

pub(crate) fn no_memory() -> Memory {
    Memory::new_in(System)
}

/// Argon2 with reusable memory; one per worker.
pub(crate) struct Hasher {
    pub(crate) settings: config::Argon2,
    pub(crate) memory: Memory,
    runs: Arc<AtomicU64>,
}

struct StoredHash {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Hasher {
    pub(crate) fn new(settings: config::Argon2, runs: Arc<AtomicU64>) -> Self {
        Self { settings, memory: no_memory(), runs }
    }

    fn params(&self) -> Result<Params, argon2::Error> {
        let config::Argon2 { memory_kib, iterations, parallelism } = self.settings;
        Params::new(memory_kib, iterations, parallelism, Some(HASH_BYTES))
    }

    /// Fills `output`; its length is an input of the hash.
    fn run(&mut self, password: &str, stored: &StoredHash, output: &mut [u8]) -> Result<(), argon2::Error> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let blocks = stored.params.block_count();
        let usual = self.params()?.block_count();
        if self.memory.len() < blocks {
            self.memory = Memory::with_capacity_in(blocks.max(MAPPED_BLOCKS), System);
            self.memory.resize(blocks, Block::default());
        }
        let argon2 = Argon2::new(stored.algorithm, stored.version, stored.params.clone());
        let done = argon2.hash_password_into_with_memory(password.as_bytes(), &stored.salt, output, &mut self.memory);
        if blocks > usual {
            self.memory = no_memory();
        }
        done
    }

    fn parse(&self, hash: &Secret) -> Option<StoredHash> {
        let parsed = PasswordHash::new(hash.expose()).ok()?;
        let params = Params::try_from(&parsed).ok()?;
        let fits = params.m_cost() <= MEMORY_KIB_MAX.max(self.settings.memory_kib)
            && params.t_cost() <= ITERATIONS_MAX.max(self.settings.iterations)
            && params.p_cost() <= LANES_MAX.max(self.settings.parallelism);
        if !fits {
            return None;
        }
        Some(StoredHash {
            algorithm: Algorithm::try_from(parsed.algorithm.as_str()).ok()?,
            version: parsed.version.map_or(Ok(Version::V0x13), Version::try_from).ok()?,
            salt: parsed.salt?.to_vec(),
            output: parsed.hash?.as_bytes().to_vec(),
            params,
        })
    }

    fn is_current(&self, stored: &StoredHash) -> bool {
        let config::Argon2 { memory_kib, iterations, parallelism } = self.settings;
        stored.algorithm == Algorithm::Argon2id
            && stored.version == Version::V0x13
            && stored.output.len() == HASH_BYTES
            && (stored.params.m_cost(), stored.params.t_cost(), stored.params.p_cost())
                == (memory_kib, iterations, parallelism)
    }

    pub(crate) fn verify(&mut self, password: &Secret, hash: Option<&Secret>) -> Verdict {
        if let Some(foreign) = hash.and_then(|hash| ImportedHash::parse(hash.expose())) {
            // the other program hashed the password as typed, without normalization
            let (typed, normalized) = (password.expose(), normalize(password));
            let right = foreign.matches(typed) || (*normalized != *typed && foreign.matches(&normalized));
            return if right { Verdict::Right(self.hash(password).ok()) } else { Verdict::Wrong };
        }
        let Some(stored) = hash.and_then(|hash| self.parse(hash)) else {
            self.verify_dummy(password);
            return Verdict::Wrong;
        };
        let mut output = Zeroizing::new(vec![0u8; stored.output.len()]);
        if self.run(&normalize(password), &stored, &mut output).is_err() || !same_bytes(&output, &stored.output) {
            return Verdict::Wrong;
        }
        if self.is_current(&stored) {
            return Verdict::Right(None);
        }
        Verdict::Right(self.hash(password).ok())
    }

    /// Takes as long as a verification, for accounts that do not exist.
    fn verify_dummy(&mut self, password: &Secret) {
        if let Ok(params) = self.params() {
            let stored = StoredHash {
                algorithm: Algorithm::Argon2id,
                version: Version::V0x13,
                params,
                salt: vec![0; SALT_BYTES],
                output: Vec::new(),
            };
            let mut output = Zeroizing::new([0u8; HASH_BYTES]);
            let _ = self.run(&normalize(password), &stored, output.as_mut_slice());
        }
    }

    pub(crate) fn hash(&mut self, password: &Secret) -> Result<Secret, NoRandomness> {
        let salt = random_bytes::<SALT_BYTES>()?;
        // the configuration has validated the parameters; this cannot fail
        let params = self.params().map_err(|_| NoRandomness)?;
        let text = ParamsString::try_from(&params).map_err(|_| NoRandomness)?;
        let stored = StoredHash {
            algorithm: Algorithm::Argon2id,
            version: Version::V0x13,
            params,
            salt: salt.to_vec(),
            output: Vec::new(),
        };
        let mut output = Zeroizing::new([0u8; HASH_BYTES]);
        self.run(&normalize(password), &stored, output.as_mut_slice()).map_err(|_| NoRandomness)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: text,
            salt: Some(Salt::new(&salt).map_err(|_| NoRandomness)?),
            hash: Some(Output::new(output.as_slice()).map_err(|_| NoRandomness)?),
        };
        Ok(Secret::new(hash.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: config::Argon2 = config::Argon2 { memory_kib: 64, iterations: 1, parallelism: 1 };

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_hash_of_the_reference_implementation_is_verified() {
        // phc-winner-argon2, test.c: argon2id, m=65536 t=2 p=1, "password" / "somesalt"
        let hash = secret("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc");
        let mut hasher = Hasher::new(CHEAP, Arc::default());
        assert!(matches!(hasher.verify(&secret("password"), Some(&hash)), Verdict::Right(Some(_))));
        assert!(matches!(hasher.verify(&secret("differentpassword"), Some(&hash)), Verdict::Wrong));
        assert!(hasher.memory.len() <= 64);
    }

    #[test]
    fn hashes_with_excessive_parameters_are_rejected() {
        let mut hasher = Hasher::new(CHEAP, Arc::default());
        for greedy in ["m=4194304,t=1,p=1", "m=64,t=4000000,p=1", "m=8388608,t=1,p=1000000"] {
            let hash =
                secret(&format!("$argon2id$v=19${greedy}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"));
            assert!(matches!(hasher.verify(&secret("password"), Some(&hash)), Verdict::Wrong));
        }
        assert!(hasher.memory.len() <= 64);
    }
}
