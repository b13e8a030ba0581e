//! The thread that makes all outbound requests, and the handle through which others ask it to.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use http_body_util::Full;
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use url::Url;

use super::connect::{self, Reach};
use super::exchange;
use super::limits::{DNS_THREADS_MAX, LOOKUPS_MAX, PER_DESTINATION_MAX, TIMES, TOTAL_MAX, Times};
use super::response::{FetchError, Response};
use super::tls;
use crate::config::Authority;
use crate::critical;

const USER_AGENT: &str = concat!("authgate/", env!("CARGO_PKG_VERSION"));

/// The handle. The thread ends when the last clone is dropped; exchanges in progress end with it.
#[derive(Clone)]
pub(crate) struct Client {
    jobs: mpsc::Sender<Job>,
    permits: Arc<Semaphore>,
}

/// One provider: how its servers are verified, and how many exchanges with it are in progress. Clones share both.
#[derive(Clone)]
pub(crate) struct Destination {
    tls: Option<Arc<ClientConfig>>,
    permits: Arc<Semaphore>,
    pub(super) lookups: Arc<Semaphore>,
}

/// What is sent. It holds secrets, so it has no `Debug`.
pub(crate) struct Request {
    /// https, or http.
    pub(crate) url: Url,
    /// Where the URL may lead.
    pub(crate) reach: Reach,
    /// Value of `Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
    /// A form makes it a POST (application/x-www-form-urlencoded); none, a GET.
    pub(crate) form: Option<String>,
    /// Longest body of the response.
    pub(crate) body_bytes_max: usize,
}

struct Job {
    request: Request,
    tls: Option<Arc<ClientConfig>>,
    lookups: Arc<Semaphore>,
    reply: oneshot::Sender<Result<Response, FetchError>>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Client {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        Self::with_times(TIMES)
    }

    pub(super) fn with_times(times: Times) -> io::Result<Self> {
        let (jobs, mut inbox) = mpsc::channel::<Job>(TOTAL_MAX);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(DNS_THREADS_MAX).build()?;
        critical::spawn_thread("outbound", move || {
            runtime.block_on(async move {
                while let Some(job) = inbox.recv().await {
                    // a panic in one exchange fails that exchange alone: its `reply` is dropped
                    drop(tokio::spawn(job.run(times)));
                }
            });
            // a lookup that hangs in the system's resolver is not waited for
            runtime.shutdown_background();
        })?;
        Ok(Self { jobs, permits: Arc::new(Semaphore::new(TOTAL_MAX)) })
    }

    /// Makes one request. Status codes of 4xx and 5xx are responses too.
    pub(crate) async fn fetch(&self, to: &Destination, request: Request) -> Result<Response, FetchError> {
        let permit = |semaphore: &Arc<Semaphore>| Arc::clone(semaphore).try_acquire_owned();
        let (Ok(own), Ok(all)) = (permit(&to.permits), permit(&self.permits)) else { return Err(FetchError::Busy) };
        let (reply, response) = oneshot::channel();
        let (tls, lookups) = (to.tls.clone(), Arc::clone(&to.lookups));
        let job = Job { request, tls, lookups, reply, _permits: [own, all] };
        self.jobs.try_send(job).map_err(|_| FetchError::Busy)?;
        response.await.unwrap_or(Err(FetchError::Stopped))
    }
}

impl Destination {
    /// A destination whose certificates are signed by these authorities; empty: by this machine's.
    pub(crate) fn new(authorities: &[Authority]) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count));
        Self { tls: tls::config(authorities), permits: places(PER_DESTINATION_MAX), lookups: places(LOOKUPS_MAX) }
    }
}

impl Job {
    async fn run(self, times: Times) {
        let Self { request, tls, lookups, reply, _permits: permits } = self;
        let result = timeout(times.whole, exchange(request, tls, &lookups, times)).await;
        // before the reply, so that whoever gets it finds the place free
        drop(permits);
        // no one waits for it if the browser is gone
        let _ = reply.send(result.unwrap_or(Err(FetchError::TimedOut("waiting for the response"))));
    }
}

async fn exchange(
    request: Request,
    tls: Option<Arc<ClientConfig>>,
    lookups: &Arc<Semaphore>,
    times: Times,
) -> Result<Response, FetchError> {
    let Request { url, reach, authorization, form, body_bytes_max } = request;
    let tls = tls.ok_or_else(|| FetchError::Tls("no TLS configuration".to_owned()))?;
    let head = head(&url, authorization, form)?;
    let connected = connect::open(&url, &reach, (&tls, lookups), times.connect).await?;
    exchange::run(connected, head, body_bytes_max).await
}

fn head(
    url: &Url,
    authorization: Option<HeaderValue>,
    form: Option<String>,
) -> Result<http::Request<Full<Bytes>>, FetchError> {
    let bad_url = || FetchError::Protocol("the URL cannot be requested".to_owned());
    let host = url.host_str().ok_or_else(bad_url)?;
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = http::Request::builder()
        .method(if form.is_some() { Method::POST } else { Method::GET })
        .uri(target)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close");
    if let Some(mut value) = authorization {
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    if form.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    request.body(Full::new(Bytes::from(form.unwrap_or_default()))).map_err(|_| bad_url())
}
