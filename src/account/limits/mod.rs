//! How much anybody may ask for at once, how often they may try, and how much is kept for them.

pub(super) mod bounded_map;
pub(super) mod fair_queue;
pub(super) mod login_throttle;
