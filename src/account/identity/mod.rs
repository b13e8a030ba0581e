//! Identities at providers and the accounts that they belong to: the rules of a provider (who may sign in, which groups
//! they have here), the decision which account an identity belongs to, linking and unlinking. The protocol that proves
//! an identity is [`super::provider`].

pub mod fresh;
pub mod links;
pub(crate) mod logout;
pub(crate) mod pending;
pub(crate) mod recheck;
mod refreshed;
pub(crate) mod rules;
pub(crate) mod sign_in;
pub(crate) mod sign_out;
pub(crate) mod upstream_token;
