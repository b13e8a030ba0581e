//! Passwords: policy for new ones, and hashing.

mod guessable;
pub(super) mod hash_workers;
pub(super) mod hasher;
mod imported_hash;
pub(super) mod policy;
pub(super) mod reauthenticate;
