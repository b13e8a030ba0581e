//! What a token endpoint gave, for those who keep it.

use crate::clock::UnixSecs;
use crate::secret::Secret;

/// A token, and when it expires.
#[derive(Debug, Clone)]
pub(crate) struct TimedToken {
    pub(crate) value: Secret,
    /// `None`: the provider does not say.
    pub(crate) expires: Option<UnixSecs>,
}

/// The tokens of one sign-in. They are dropped unless the configuration asks for them.
#[derive(Debug, Clone)]
pub(crate) struct ProviderTokens {
    pub(crate) access: TimedToken,
    pub(crate) id: Option<TimedToken>,
    pub(crate) refresh: Option<Secret>,
}
