//! One provider while the gateway runs: its configuration, and what was learned of it. Nothing is asked before somebody
//! signs in through it, so a provider that is down delays neither the start nor a reload.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::call_windows::{CallWindows, PUSHES_MAX};
use super::errors::{Failure, Reason};
use super::key_set::KeySet;
use super::metadata::{self, Endpoint, Issuer, Metadata};
use super::shares::{Place, Shares};
use super::token_request::{self, ClientProof};
use crate::client::{Client, DOCUMENT_BYTES_MAX, Destination, FetchError, LIST_BYTES_MAX, Request, Response};
use crate::clock::Clock;
use crate::config::Provider;
use crate::metrics;
use crate::secret::Secret;

/// How long metadata and keys are used before they are read again, seconds.
const FRESH_SECS: u64 = 3600;
/// How long metadata is used if the provider cannot be reached, seconds.
const STALE_SECS: u64 = 24 * 3600;
/// How long a failed discovery answers for the next one, seconds.
const FAILED_SECS: u64 = 5;
/// How often keys are read again because a token names an unknown one, or because reading failed, seconds.
const REFETCH_SECS: u64 = 60;
/// Sign-ins that wait at the same time until one of them has read a document.
const WAITING_MAX: usize = 32;
/// Refresh tokens that are exchanged at the same time. Sign-ins share the provider's connections with them.
const REFRESHES_MAX: usize = 8;
/// Longest wait for a place among them.
const REFRESH_WAIT_MAX: Duration = Duration::from_secs(10);

/// The provider.
pub(crate) struct ProviderState {
    pub(crate) config: Provider,
    client: Client,
    destination: Destination,
    clock: Clock,
    metadata: Mutex<HeldMetadata>,
    metadata_flight: tokio::sync::Mutex<()>,
    keys: Mutex<HeldKeys>,
    keys_flight: tokio::sync::Mutex<()>,
    waiting: Semaphore,
    shares: Shares,
    pushes: CallWindows,
    refreshes: Arc<Semaphore>,
}

/// Times are monotonic seconds.
#[derive(Default)]
struct HeldMetadata {
    read: Option<(u64, Arc<Metadata>)>,
    failed: Option<(u64, Failure)>,
}

#[derive(Default)]
struct HeldKeys {
    read: Option<(u64, Arc<KeySet>)>,
    /// When the first reading failed, monotonic milliseconds.
    failed: Option<(u64, Failure)>,
    /// The last time they were read again, or that failed, by [`Refetch`].
    refetched: [Option<u64>; 2],
}

/// What keys are read again for. Each has a rate of its own: anyone can call the logout endpoint, and must not keep
/// sign-ins from new keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refetch {
    SignIn,
    Logout,
}

impl ProviderState {
    pub(crate) fn new(config: Provider, client: Client, clock: Clock) -> Self {
        let destination = Destination::new(&config.authorities);
        Self {
            config,
            client,
            destination,
            clock,
            metadata: Mutex::default(),
            metadata_flight: tokio::sync::Mutex::default(),
            keys: Mutex::default(),
            keys_flight: tokio::sync::Mutex::default(),
            waiting: Semaphore::new(WAITING_MAX),
            shares: Shares::default(),
            pushes: CallWindows::new(PUSHES_MAX),
            refreshes: Arc::new(Semaphore::new(REFRESHES_MAX)),
        }
    }

    /// A place among those who wait for a document.
    fn wait_place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.waiting.try_acquire().map_err(|_| Failure::new(Reason::Busy, "too many sign-ins wait for the provider"))
    }

    /// A place for a sign-in that makes requests; the caller's network has its share of them.
    pub(super) async fn place(&self, caller: Option<IpAddr>) -> Result<Place, Failure> {
        let placed = self.shares.place(caller).await;
        placed.map_err(|_| Failure::new(Reason::Busy, "too many sign-ins of this network are in progress"))
    }

    /// A place among those who exchange refresh tokens.
    pub(super) async fn refresh_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = timeout(REFRESH_WAIT_MAX, Arc::clone(&self.refreshes).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or_else(|| Failure::new(Reason::Busy, "too many refreshes are in progress"))
    }

    /// The same as [`Self::place`] for one that begins by a pushed request, which nothing but its number restrains.
    pub(super) async fn push_place(&self, caller: Option<IpAddr>) -> Result<Place, Failure> {
        if let Some(address) = caller {
            let (name, now) = (self.config.name.as_str(), self.monotonic());
            if let Some(secs) = self.pushes.retry_after_secs(name, address, now) {
                return Err(Failure::throttled("too many sign-ins of this network have begun", secs));
            }
            self.pushes.count(name, address, now);
        }
        self.place(caller).await
    }

    /// The provider's metadata: kept, or read now. Old metadata is used while it is read again in the background.
    pub(crate) async fn metadata(self: &Arc<Self>) -> Result<Arc<Metadata>, Failure> {
        let now = self.monotonic();
        let (held, has_failed) = {
            let held = self.metadata.lock();
            (held.read.clone(), held.failed.as_ref().is_some_and(|(at, _)| now < at + FAILED_SECS))
        };
        match held {
            Some((at, metadata)) if now < at + FRESH_SECS => return Ok(metadata),
            Some((at, metadata)) if has_failed && now < at + STALE_SECS => return Ok(metadata),
            Some((at, metadata)) if now < at + STALE_SECS => {
                let own = Arc::clone(self);
                drop(tokio::spawn(async move {
                    // one who reads it is enough
                    let Ok(_flight) = own.metadata_flight.try_lock() else { return };
                    if let Err(failure) = own.read_metadata().await {
                        let provider = own.config.name.as_str();
                        tracing::warn!(provider, error = failure.detail, "provider metadata could not be refreshed");
                    }
                }));
                return Ok(metadata);
            }
            _ => {}
        }
        let _place = self.wait_place()?;
        let _flight = self.metadata_flight.lock().await;
        self.read_metadata().await
    }

    /// The metadata as it is known, if it is not too old.
    pub(super) fn metadata_at_hand(&self) -> Result<Arc<Metadata>, Failure> {
        self.at_hand(self.metadata.lock().read.as_ref())
    }

    /// The keys as they are known, if they are not too old.
    pub(super) fn keys_at_hand(&self) -> Result<Arc<KeySet>, Failure> {
        self.at_hand(self.keys.lock().read.as_ref())
    }

    fn at_hand<T>(&self, read: Option<&(u64, Arc<T>)>) -> Result<Arc<T>, Failure> {
        let current = read.filter(|(at, _)| self.monotonic() < at + STALE_SECS);
        let unknown = || Failure::new(Reason::Unavailable, "it was not read yet, or not for a day");
        current.map(|(_, value)| Arc::clone(value)).ok_or_else(unknown)
    }

    /// Reads the metadata, unless it was read, or that failed, while the caller waited for the flight, which it holds.
    async fn read_metadata(&self) -> Result<Arc<Metadata>, Failure> {
        let now = self.monotonic();
        {
            let held = self.metadata.lock();
            if let Some((at, failure)) = &held.failed
                && now < at + FAILED_SECS
            {
                return Err(failure.clone());
            }
            if let Some((at, metadata)) = &held.read
                && now < at + FRESH_SECS
            {
                return Ok(Arc::clone(metadata));
            }
        }
        let result = self.fetch_metadata().await;
        // a failure may have taken long
        let now = self.monotonic();
        let mut held = self.metadata.lock();
        match result {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                *held = HeldMetadata { read: Some((now, Arc::clone(&metadata))), failed: None };
                Ok(metadata)
            }
            Err(failure) => {
                // places that were all taken say nothing about the provider
                if failure.reason != Reason::Busy {
                    held.failed = Some((now, failure.clone()));
                }
                Err(failure)
            }
        }
    }

    async fn fetch_metadata(&self) -> Result<Metadata, Failure> {
        let unavailable = |why: String| Failure::new(Reason::Unavailable, format!("discovery: {why}"));
        let Some(endpoint) = metadata::location(&self.config) else {
            return metadata::without_document(&self.config).map_err(unavailable);
        };
        let document = self.get("discovery", &endpoint, None, DOCUMENT_BYTES_MAX).await?;
        metadata::read(&self.config, &document.json, document.place).map_err(unavailable)
    }

    /// The keys for a token: kept, or read now.
    pub(crate) async fn keys(&self, from: &Endpoint) -> Result<Arc<KeySet>, Failure> {
        let held = self.keys.lock().read.clone();
        match held {
            Some((at, keys)) if self.monotonic() < at + FRESH_SECS => Ok(keys),
            Some((at, old)) => match self.newer_keys(from, &old, Refetch::SignIn).await {
                Some(keys) => Ok(keys),
                None if self.monotonic() < at + STALE_SECS => Ok(old),
                None => Err(Failure::new(Reason::Unavailable, "keys: they could not be read for a day")),
            },
            None => self.first_keys(from).await,
        }
    }

    async fn first_keys(&self, from: &Endpoint) -> Result<Arc<KeySet>, Failure> {
        let _place = self.wait_place()?;
        let since = self.clock.monotonic_millis();
        let _flight = self.keys_flight.lock().await;
        {
            let held = self.keys.lock();
            if let Some((_, keys)) = &held.read {
                return Ok(Arc::clone(keys));
            }
            // it failed while this one waited
            if let Some((at, failure)) = &held.failed
                && since < *at
            {
                return Err(failure.clone());
            }
        }
        let fetched = self.fetch_keys(from).await;
        if let Err(failure) = &fetched
            && failure.reason != Reason::Busy
        {
            self.keys.lock().failed = Some((self.clock.monotonic_millis(), failure.clone()));
        }
        fetched
    }

    /// Keys that are newer than these, for a token whose key is not among them; `None`: there are none, or they were
    /// read a moment ago.
    pub(crate) async fn newer_keys(&self, from: &Endpoint, old: &Arc<KeySet>, why: Refetch) -> Option<Arc<KeySet>> {
        let _flight = self.keys_flight.lock().await;
        {
            let mut held = self.keys.lock();
            if let Some((_, keys)) = &held.read
                && !Arc::ptr_eq(keys, old)
            {
                return Some(Arc::clone(keys));
            }
            let now = self.monotonic();
            let refetched = &mut held.refetched[why as usize];
            if refetched.is_some_and(|at| now < at + REFETCH_SECS) {
                return None;
            }
            *refetched = Some(now);
        }
        match self.fetch_keys(from).await {
            Ok(keys) => Some(keys),
            Err(failure) => {
                let provider = self.config.name.as_str();
                tracing::warn!(provider, error = failure.detail, "provider keys could not be refreshed");
                None
            }
        }
    }

    async fn fetch_keys(&self, from: &Endpoint) -> Result<Arc<KeySet>, Failure> {
        let document = self.json("keys", from, None, LIST_BYTES_MAX).await?;
        let keys = KeySet::read(&document).ok_or_else(|| {
            Failure::new(Reason::Unavailable, "keys: the document is no key set, or has over 100 keys")
        })?;
        let keys = Arc::new(keys);
        self.keys.lock().read = Some((self.monotonic(), Arc::clone(&keys)));
        Ok(keys)
    }

    /// A GET whose answer must be 2xx. `what` is one word, for the log and metrics.
    pub(crate) async fn json(
        &self,
        what: &'static str,
        endpoint: &Endpoint,
        bearer: Option<&Secret>,
        body_bytes_max: usize,
    ) -> Result<Value, Failure> {
        self.get(what, endpoint, bearer, body_bytes_max).await.map(|response| response.json)
    }

    async fn get(
        &self,
        what: &'static str,
        endpoint: &Endpoint,
        bearer: Option<&Secret>,
        body_bytes_max: usize,
    ) -> Result<Response, Failure> {
        let authorization = match bearer {
            None => None,
            Some(token) => {
                let value = http::HeaderValue::try_from(format!("Bearer {}", token.expose()));
                Some(value.map_err(|_| Failure::new(Reason::BadIdentity, "the access token cannot be sent"))?)
            }
        };
        let request = Request {
            url: endpoint.url.clone(),
            reach: endpoint.reach.clone(),
            authorization,
            form: None,
            body_bytes_max,
        };
        let response = self.fetch(what, request).await.map_err(|error| Failure::fetching(what, &error))?;
        if !response.is_success() {
            let is_refused = response.status == 401 && bearer.is_some();
            let reason = if is_refused { Reason::TokenRefused } else { Reason::Unavailable };
            return Err(Failure::new(reason, format!("{what}: status {}", response.status)));
        }
        Ok(response)
    }

    /// A form that is posted; every status is an answer. `what` as for [`Self::json`].
    pub(crate) async fn post(
        &self,
        what: &'static str,
        endpoint: &Endpoint,
        authorization: Option<http::HeaderValue>,
        form: String,
    ) -> Result<Response, Failure> {
        let request = Request {
            url: endpoint.url.clone(),
            reach: endpoint.reach.clone(),
            authorization,
            form: Some(form),
            body_bytes_max: DOCUMENT_BYTES_MAX,
        };
        self.fetch(what, request).await.map_err(|error| Failure::fetching(what, &error))
    }

    /// A GET without a token whose every answer is of interest.
    pub(crate) async fn look(
        &self,
        what: &'static str,
        endpoint: &Endpoint,
        body_bytes_max: usize,
    ) -> Result<Response, FetchError> {
        let Endpoint { url, reach } = endpoint.clone();
        self.fetch(what, Request { url, reach, authorization: None, form: None, body_bytes_max }).await
    }

    async fn fetch(&self, what: &'static str, request: Request) -> Result<Response, FetchError> {
        let began = self.clock.monotonic_millis();
        let response = self.client.fetch(&self.destination, request).await;
        let result = match &response {
            Ok(response) if response.is_success() => "ok",
            Ok(response) if response.status < 500 => "refused",
            Ok(_) => "failed",
            Err(error) => error.word(),
        };
        let took = Duration::from_millis(self.clock.monotonic_millis().saturating_sub(began));
        metrics::PROVIDERS.request(&self.config.name, what, result, took);
        response
    }

    /// What proves this client to the provider, once.
    pub(crate) fn proof(&self, metadata: &Metadata) -> Result<ClientProof, Failure> {
        let audience = match &metadata.issuer {
            Issuer::Exact(issuer) => issuer.clone(),
            Issuer::PerTenant { .. } | Issuer::Unknown => metadata.token.url.to_string(),
        };
        let method = token_request::method(&self.config, metadata.auth_methods.as_deref());
        let proof = token_request::proof(&self.config, method, &audience, self.wall());
        proof.map_err(|why| Failure::new(Reason::ClientRefused, why))
    }

    /// Monotonic seconds.
    pub(crate) fn monotonic(&self) -> u64 {
        self.clock.monotonic_millis() / 1000
    }

    /// Wall-clock seconds.
    pub(crate) fn wall(&self) -> u64 {
        self.clock.now()
    }
}
