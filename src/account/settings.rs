//! The part of the configuration that concerns accounts.

use std::time::Duration;

use super::backend_token::signing_key::PUBLISHED_SECS;
use super::errors::PasswordsOff;
use crate::config::{self, Config};

/// Account settings; durations in seconds.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(super) max_age_secs: u64,
    pub(super) idle_secs: u64,
    pub(super) renew_after_secs: u64,
    pub(super) password: config::Password,
    pub(super) user_ids: config::UserIds,
    pub(super) sign_up: config::SignUp,
    pub(super) throttle: config::Throttle,
    pub(super) title: String,
    /// How long sessions are relied on without a poll of a shared database that works. `None`: it is not shared.
    pub(super) blind_max: Option<Duration>,
}

/// Five polls: in normal operation no node is blind for that long.
pub(super) const BLIND_MIN: Duration = Duration::from_secs(1);

impl Settings {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            max_age_secs: config.session.max_age.as_secs(),
            idle_secs: config.session.idle.as_secs(),
            renew_after_secs: config.session.renew_after.as_secs(),
            password: config.password.clone(),
            user_ids: config.user_ids,
            sign_up: config.sign_up,
            throttle: config.throttle,
            title: config.pages.title.clone(),
            blind_max: config.store.as_ref().map(|store| store.blind_max.max(BLIND_MIN)),
        }
    }

    /// Asked before a person's password is checked or set.
    pub(super) fn require_passwords(&self) -> Result<(), PasswordsOff> {
        if self.password.enabled { Ok(()) } else { Err(PasswordsOff) }
    }

    /// How long a retired key is kept: no token that it signed is valid for longer.
    pub(super) fn keys_secs(&self) -> u64 {
        self.max_age_secs.max(PUBLISHED_SECS)
    }
}
