//! The errors of this room: data for callers, one plain sentence for users. Store failures are logged here.

use crate::secret::NoRandomness;
use crate::store::StoreError;

/// Why a sign-in failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInError {
    /// Wrong password, or an unknown, disabled or passwordless account: indistinguishable on purpose.
    Credentials,
    /// Too many attempts.
    Throttled {
        /// Seconds until the next attempt is allowed.
        retry_after_secs: u64,
    },
    /// The hash queue is full.
    Busy,
    /// Passwords are off (`password.enabled`).
    PasswordsOff,
    /// The store did not respond or could not write.
    Unavailable,
}

/// Which form field is invalid and why, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `email`, `password`, `name`, `picture`, `current_password`, `token_name` or `scopes`
    pub field: &'static str,
    /// A stable code for programs: `invalid`, `too_short`, `too_long`, `common`, `guessable`, `wrong` (the current
    /// password), `taken` (only reported to the holder of an invite)
    pub code: &'static str,
    /// One plain sentence.
    pub message: String,
}

/// Why an account was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeError {
    /// A field is invalid.
    Field(FieldError),
    /// Sign-up is closed, or the link is unknown, used or expired.
    Closed,
    /// Too many wrong passwords; see [`SignInError::Throttled`].
    Throttled {
        /// Seconds until the next attempt is allowed.
        retry_after_secs: u64,
    },
    /// The hash queue is full.
    Busy,
    /// Passwords are off (`password.enabled`).
    PasswordsOff,
    /// The store did not respond or could not write.
    Unavailable,
}

/// Passwords are off: none is checked, and none is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PasswordsOff;

impl From<PasswordsOff> for SignInError {
    fn from(_: PasswordsOff) -> Self {
        Self::PasswordsOff
    }
}

impl From<PasswordsOff> for ChangeError {
    fn from(_: PasswordsOff) -> Self {
        Self::PasswordsOff
    }
}

impl From<FieldError> for ChangeError {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl From<StoreDown> for ChangeError {
    fn from(_: StoreDown) -> Self {
        Self::Unavailable
    }
}

/// Why the accounts could not be opened: one plain line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError(pub String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// The store did not respond or could not write: 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreDown;

impl std::fmt::Display for StoreDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the account store is unreachable or not writable")
    }
}

impl std::error::Error for StoreDown {}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// Why an administrative command failed: one plain sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminError(pub String);

impl std::fmt::Display for AdminError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AdminError {}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<NoRandomness> for AdminError {
    fn from(error: NoRandomness) -> Self {
        Self(error.to_string())
    }
}

impl From<FieldError> for AdminError {
    fn from(error: FieldError) -> Self {
        Self(error.message)
    }
}

/// Logs a store error; callers only learn that the store is down.
pub(super) fn store_down(error: &StoreError) -> StoreDown {
    tracing::error!(%error, "account store failed");
    StoreDown
}

/// The same, as a [`ChangeError`].
pub(super) fn unavailable(error: &StoreError) -> ChangeError {
    store_down(error).into()
}

/// The current password is wrong.
pub(super) fn wrong_password() -> ChangeError {
    ChangeError::Field(FieldError {
        field: "current_password",
        code: "wrong",
        message: "This is not your current password.".to_owned(),
    })
}

/// User input made safe to display: no control characters, 254 characters at most.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(254).collect()
}
