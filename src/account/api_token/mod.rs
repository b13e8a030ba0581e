//! API tokens: what programs present instead of a session.

pub(super) mod grant;
pub(super) mod manage;
pub(super) mod registry;
