//! Backends' own tokens: made here, accepted nowhere here.

pub(super) mod issue;
pub(super) mod issued;
mod jwe;
mod jws;
pub(super) mod signing_key;
pub(super) mod token;
