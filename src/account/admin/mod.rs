//! What commands do to accounts, in a process of their own, with or without a running gateway.

pub(super) mod accounts;
pub mod api_tokens;
pub mod bans;
pub mod import;
pub mod invites;
pub mod signing_keys;
