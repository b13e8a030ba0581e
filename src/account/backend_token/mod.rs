//! Tokens for backends: issued here, never accepted here.

pub(super) mod issue;
pub(super) mod issued;
mod jwe;
pub(super) mod signing_key;
pub(super) mod token;
