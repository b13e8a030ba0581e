//! Sign-in through Google, GitHub, GitLab, Microsoft and other OpenID Connect or OAuth 2.0 providers: the protocol. It
//! ends with a [`identity::ProviderIdentity`]; which account that is, is decided elsewhere.
//!
//! ```text
//! start: metadata -> attempt sealed in `state` -> the provider's page
//! finish: parameters -> state -> iss -> error -> code for tokens -> ID token -> userinfo, groups -> identity
//! logout: logout token -> which of the provider's sessions have ended
//! ```

mod algorithm;
pub(crate) mod attempt;
pub(crate) mod check;
mod claims;
pub(crate) mod call_windows;
pub(crate) mod end_session;
pub(crate) mod errors;
pub(crate) mod finish;
mod groups;
mod id_token;
pub(crate) mod identity;
mod key_set;
pub(crate) mod logout;
pub(crate) mod logout_memory;
mod logout_token;
mod memory;
mod metadata;
mod provider_state;
pub(crate) mod providers;
pub(crate) mod refresh;
pub(crate) mod relayed_code;
mod shares;
pub(crate) mod sign_out_tickets;
mod signed_token;
pub(crate) mod start;
#[cfg(test)]
mod tests;
pub(crate) mod token_request;
pub(crate) mod token_seal;
pub(crate) mod tokens;
mod verification;
