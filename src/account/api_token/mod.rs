//! API tokens: what programs present instead of a session.

pub(super) mod grant;
pub(super) mod registry;
pub mod user_tokens;
