//! API tokens: credentials of programs.

pub(super) mod grant;
pub(super) mod registry;
pub mod user_tokens;
