//! Back-channel logout (OpenID Connect Back-Channel Logout 1.0): what a provider has ended, ends here. A token is
//! verified by [`crate::account::provider::logout`]; this is what follows.

use std::sync::Arc;

use crate::account::accounts::Accounts;
use crate::account::audit;
use crate::account::caller::Caller;
use crate::account::errors::store_down;
use crate::account::provider::errors::Reason;
use crate::account::provider::logout::{self, Sources};
use crate::account::provider::providers::Providers;
use crate::secret::Secret;
use crate::store::provider_logouts::{self, ProviderLogout};

/// Why nothing was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogoutError {
    /// The token does not hold.
    Invalid,
    /// Too many tokens from this network did not hold.
    Throttled {
        /// Seconds until the next one is verified.
        retry_after_secs: u64,
    },
    /// The provider or the store does not respond: the token may be sent again.
    Unavailable,
}

/// Ends the sessions that a logout token of this provider names. No session at all is no error.
pub(crate) async fn end_sessions(
    accounts: &Accounts,
    caller: &Caller,
    providers: &Providers,
    provider: &str,
    token: &Secret,
) -> Result<(), LogoutError> {
    let shared = &*accounts.shared;
    let (memory, address) = (providers.logouts(), caller.counted_address());
    let waits = |address| providers.failed_logouts.retry_after_secs(provider, address, shared.monotonic_secs());
    let waits = address.and_then(waits);
    let refuse = |detail: &str| {
        if let Some(retry_after_secs) = waits {
            return LogoutError::Throttled { retry_after_secs };
        }
        if let Some(address) = address {
            providers.failed_logouts.count(provider, address, shared.monotonic_secs());
        }
        let request_id = caller.request_id.as_str();
        tracing::warn!(request_id, provider, detail, "back-channel logout refused");
        LogoutError::Invalid
    };
    // providers that serve many send from shared addresses: a stranger there must not keep the others' logouts out
    let sources = if waits.is_some() { Sources::AtHand } else { Sources::All };
    let logout = match logout::verify(providers, provider, token, sources).await {
        Ok(logout) => logout,
        Err(failure) if waits.is_some() => return Err(refuse(&failure.detail)),
        Err(failure) if matches!(failure.reason, Reason::Unavailable | Reason::Busy) => {
            let request_id = caller.request_id.as_str();
            tracing::warn!(request_id, provider, detail = failure.detail, "back-channel logout could not be verified");
            return Err(LogoutError::Unavailable);
        }
        Err(failure) => return Err(refuse(&failure.detail)),
    };
    let now = shared.monotonic_secs();
    if !memory.use_token(provider, &logout.token_id, now) {
        return Err(refuse("the logout token was used before"));
    }
    if let Some(session) = &logout.session_id {
        // before the store is asked: a sign-in that comes between finds it
        memory.session_ended(provider, session, now);
    }
    let event = audit::event("backchannel_logout", caller, shared.clock.now());
    let what = ProviderLogout { provider: logout.provider, session: logout.session_id, subject: logout.subject };
    let ended = shared.store.run(move |db| provider_logouts::end_sessions(db, &what, &event)).await;
    match ended {
        Ok(events) => {
            events.iter().for_each(audit::log);
            Ok(())
        }
        Err(error) => {
            memory.forget_token(provider, &logout.token_id);
            store_down(&error);
            Err(LogoutError::Unavailable)
        }
    }
}

/// Whether the provider has ended this session of its own, so that none begins with it here. Asked by the job that
/// begins one, on the store's thread: a logout that comes later ends it there.
pub(super) fn overtook(accounts: &Accounts, provider: &str, session: Option<&str>) -> impl FnOnce() -> bool + use<> {
    let memory = accounts.providers().map(|providers| Arc::clone(providers.logouts()));
    let (clock, provider, session) = (accounts.shared.clock.clone(), provider.to_owned(), session.map(str::to_owned));
    move || match (memory, session) {
        (Some(memory), Some(session)) => memory.has_ended(&provider, &session, clock.monotonic_millis() / 1000),
        _ => false,
    }
}
