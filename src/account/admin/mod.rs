//! What commands do to accounts, in a process of their own, with or without a running gateway.

pub(super) mod accounts;
mod api_tokens;
pub(super) mod bans;
pub(super) mod import;
mod invites;
pub(super) mod signing_keys;
