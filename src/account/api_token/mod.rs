//! API tokens: what programs present instead of a session.

pub(super) mod manage;
