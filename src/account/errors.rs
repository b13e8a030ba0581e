//! Why something was not done, in one place for the whole room: data for callers, one sentence for people. What
//! failed in the store is logged here.

use crate::secret::NoRandomness;
use crate::store::StoreError;

/// Why signing in did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInError {
    /// Wrong, unknown, disabled or without a password: nobody may tell these apart.
    Credentials,
    /// Too many tries; another one may be made after so many seconds.
    Throttled {
        /// Seconds.
        retry_after_secs: u64,
    },
    /// The hash queue is full.
    Busy,
    /// The store did not answer or could not write.
    Unavailable,
}

/// Which field of a form was wrong, and why, in words for the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `email`, `password`, `name`, `picture`, `current_password`, `token_name` or `scopes`
    pub field: &'static str,
    /// A stable word for programs: `invalid`, `too_short`, `too_long`, `common`, `guessable`,
    /// `wrong` (the current password), `taken` (only told to the holder of an invite)
    pub code: &'static str,
    /// One plain sentence.
    pub message: String,
}

/// Why a change to an account was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeError {
    /// A field was wrong.
    Field(FieldError),
    /// Sign-up is closed, or the link is unknown, used or expired.
    Closed,
    /// Too many wrong passwords; see [`SignInError::Throttled`].
    Throttled {
        /// Seconds.
        retry_after_secs: u64,
    },
    /// The hash queue is full.
    Busy,
    /// The store did not answer or could not write.
    Unavailable,
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

/// The store did not answer or could not write: 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreDown;

impl std::fmt::Display for StoreDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the account store cannot be reached or written")
    }
}

impl std::error::Error for StoreDown {}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// Why a command was refused: one plain sentence.
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

/// Logs what went wrong; outside it is one thing.
pub(super) fn store_down(error: &StoreError) -> StoreDown {
    tracing::error!(%error, "the account store failed");
    StoreDown
}

/// The same, for whoever changes an account.
pub(super) fn unavailable(error: &StoreError) -> ChangeError {
    store_down(error).into()
}

/// The current password that somebody gave is not theirs.
pub(super) fn wrong_password() -> ChangeError {
    ChangeError::Field(FieldError {
        field: "current_password",
        code: "wrong",
        message: "This is not your current password.".to_owned(),
    })
}

/// What somebody typed, fit to be shown.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(254).collect()
}
