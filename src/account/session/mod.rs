//! Sessions: the types, the registry of active ones, and the token in the browser's cookie.

mod account_entry;
pub(crate) mod begun_with;
pub(super) mod cookie_check;
pub(super) mod cookie_token;
pub(super) mod draft;
pub(super) mod registry;
pub(super) mod session;
pub(crate) mod upstream_tokens;
pub(super) mod user;
pub mod user_sessions;
