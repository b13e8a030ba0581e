//! All providers under one configuration.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use ring::hmac;
use url::Url;
use zeroize::Zeroizing;

use super::attempt::{AttemptId, AttemptKeys};
use super::call_windows::{CallWindows, FAILURES_MAX};
use super::errors::{Failure, Reason};
use super::logout_memory::LogoutMemory;
use super::memory::{Memory, PendingHash, Use};
use super::provider_state::ProviderState;
use super::sign_out_tickets::SignOutTickets;
use crate::account::errors::StartError;
use crate::client::Client;
use crate::clock::Clock;
use crate::config::Provider;
use crate::metrics;
use crate::sealing::{Purpose, SealingKey};
use crate::secret::Secret;

/// The providers, in the order of the configuration, and what attempts are sealed with and remembered by.
pub(crate) struct Providers {
    list: Vec<Arc<ProviderState>>,
    client: Client,
    clock: Clock,
    pub(super) keys: Arc<AttemptKeys>,
    pub(super) memory: Arc<Memory>,
    logouts: Arc<LogoutMemory>,
    sign_outs: Arc<SignOutTickets>,
    /// Callbacks, and logout tokens, that did not hold.
    pub(crate) failed_callbacks: Arc<CallWindows>,
    pub(crate) failed_logouts: Arc<CallWindows>,
}

impl Providers {
    /// Under a configuration: those from `before`, or new ones. `None`: there are none, and were none.
    ///
    /// # Errors
    /// The thread for outbound requests could not be started, or the key is unusable.
    pub(crate) fn prepare(
        configured: &[Provider],
        before: Option<&Arc<Self>>,
        key: &SealingKey,
        clock: &Clock,
    ) -> Result<Option<Arc<Self>>, StartError> {
        if before.is_none() && configured.is_empty() {
            return Ok(None);
        }
        let failed = |error: String| StartError(format!("could not prepare sign-in through providers: {error}"));
        let derived = key.hmac_key(Purpose::ProviderState).map_err(|error| failed(error.to_string()))?;
        let mut purpose_key = Zeroizing::new([0; 32]);
        purpose_key.copy_from_slice(hmac::sign(&derived, b"attempts").as_ref());
        let unusable = || failed("the key is not usable".to_owned());
        let Some(before) = before else {
            let client = Client::start().map_err(|error| failed(error.to_string()))?;
            let made = Self::new(configured, client, &purpose_key, clock.clone()).ok_or_else(unusable)?;
            return Ok(Some(Arc::new(made)));
        };
        metrics::PROVIDERS.keep(configured.iter().map(|provider| provider.name.as_str()));
        // the sealing key may be another one by now
        let keys = Arc::new(AttemptKeys::new(&purpose_key).ok_or_else(unusable)?);
        Ok(Some(Arc::new(Self { keys, ..before.reconfigured(configured) })))
    }

    /// `purpose_key` is derived from the gateway's sealing key for this purpose alone. `None`: it is not usable.
    pub(crate) fn new(configured: &[Provider], client: Client, purpose_key: &[u8; 32], clock: Clock) -> Option<Self> {
        let keys = Arc::new(AttemptKeys::new(purpose_key)?);
        let state = |provider: &Provider| Arc::new(ProviderState::new(provider.clone(), client.clone(), clock.clone()));
        let list = configured.iter().map(state).collect();
        Some(Self {
            list,
            client,
            clock,
            keys,
            memory: Arc::default(),
            logouts: Arc::default(),
            sign_outs: Arc::default(),
            failed_callbacks: Arc::new(CallWindows::new(FAILURES_MAX)),
            failed_logouts: Arc::new(CallWindows::new(FAILURES_MAX)),
        })
    }

    /// The same under a new configuration: what was learned of providers that did not change is kept.
    pub(crate) fn reconfigured(&self, configured: &[Provider]) -> Self {
        let state = |provider: &Provider| {
            let same = self.list.iter().find(|state| state.config == *provider).map(Arc::clone);
            same.unwrap_or_else(|| {
                Arc::new(ProviderState::new(provider.clone(), self.client.clone(), self.clock.clone()))
            })
        };
        Self {
            list: configured.iter().map(state).collect(),
            client: self.client.clone(),
            clock: self.clock.clone(),
            keys: Arc::clone(&self.keys),
            memory: Arc::clone(&self.memory),
            logouts: Arc::clone(&self.logouts),
            sign_outs: Arc::clone(&self.sign_outs),
            failed_callbacks: Arc::clone(&self.failed_callbacks),
            failed_logouts: Arc::clone(&self.failed_logouts),
        }
    }

    /// In the order of the configuration.
    pub(crate) fn list(&self) -> impl Iterator<Item = &Provider> {
        self.list.iter().map(|state| &state.config)
    }

    /// Remembers which session an attempt began, for a second arrival of the same callback.
    pub(crate) fn began(&self, attempt: &AttemptId, session: &str) {
        self.memory.began(attempt, session);
    }

    /// What is remembered of back-channel logouts.
    pub(crate) fn logouts(&self) -> &Arc<LogoutMemory> {
        &self.logouts
    }

    /// A ticket for an address that waits until a page of ours is opened.
    pub(crate) fn keep_sign_out(&self, url: Url) -> Option<Secret> {
        self.sign_outs.issue(url, self.clock.monotonic_millis() / 1000)
    }

    /// The address of a ticket.
    pub(crate) fn waiting_sign_out(&self, ticket: &str) -> Option<Url> {
        self.sign_outs.redeem(ticket, self.clock.monotonic_millis() / 1000)
    }

    /// Marks a sealed identity that waited as used; `false`: it was used before.
    pub(crate) fn use_pending(&self, sealed: &str) -> bool {
        let mut id = AttemptId::default();
        id.copy_from_slice(&digest(&SHA256, sealed.as_bytes()).as_ref()[..size_of::<AttemptId>()]);
        self.memory.use_up(id, self.clock.monotonic_millis() / 1000) == Use::First
    }

    /// Keeps a sealed identity for as long as it opens, and gives the name that an attempt refers to it by.
    pub(crate) fn keep_pending(&self, sealed: &str) -> PendingHash {
        let mut hash = PendingHash::default();
        hash.copy_from_slice(digest(&SHA256, sealed.as_bytes()).as_ref());
        self.memory.keep_pending(hash, sealed, self.clock.monotonic_millis() / 1000);
        hash
    }

    /// The sealed identity; `None`: it is forgotten.
    pub(crate) fn pending(&self, hash: &PendingHash) -> Option<String> {
        self.memory.pending(hash)
    }

    pub(super) fn find(&self, name: &str) -> Result<Arc<ProviderState>, Failure> {
        let found = self.list.iter().find(|state| state.config.name == name);
        found.cloned().ok_or_else(|| Failure::new(Reason::UnknownProvider, "no provider of this name"))
    }
}
