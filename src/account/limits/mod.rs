//! Limits: concurrent work, attempts, and memory per client and account.

pub(super) mod bounded_map;
pub(super) mod fair_queue;
pub(super) mod login_throttle;
