//! Administrative operations, for commands: they run in their own process, with or without a running gateway.

pub(super) mod accounts;
pub mod api_tokens;
pub(super) mod backups;
pub mod bans;
pub mod identities;
pub mod import;
pub mod invites;
pub mod signing_keys;
