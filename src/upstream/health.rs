//! Servers out of rotation, and how they return. An unreachable server is probed with connections of the gateway's own
//! until it can be reached; with `upstream.health`, every server is asked for a path at an interval. No client request
//! waits for a probe. Each round uses the upstreams that it is given: after a reload, the new ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::error_cause;
use super::targets::{Target, Targets};
use super::tls::{self, Connector};
use crate::config::{Health, Upstream};

/// How often a server that is out of rotation is probed.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Time limit for one probe, connecting included.
const ANSWER: Duration = Duration::from_secs(3);
/// `HTTP/1.1 200 `: the part of a response that is checked.
const STATUS_BYTES: usize = 13;

/// Probes servers.
#[derive(Clone)]
pub(crate) struct HealthChecks(Connector);

impl HealthChecks {
    pub(crate) fn new() -> Self {
        Self(Connector::new())
    }

    /// Starts the probes that are due; called several times a second.
    pub(crate) fn begin<'u>(&self, upstreams: impl Iterator<Item = (&'u Upstream, &'u Arc<Targets>)>, now_millis: u64) {
        for (upstream, targets) in upstreams {
            for target in targets.all().iter() {
                let every = match &upstream.health {
                    Some(health) => health.interval,
                    None if target.is_down() => TRY_AGAIN,
                    None => continue,
                };
                if target.begin_check(now_millis, every) {
                    let (checks, target) = (self.clone(), target.clone());
                    let (name, health) = (upstream.name.clone(), upstream.health.clone());
                    tokio::spawn(async move { checks.ask(&target, &name, health.as_ref()).await });
                }
            }
        }
    }

    async fn ask(&self, target: &Target, upstream: &str, health: Option<&Health>) {
        let found = timeout(ANSWER, self.find_out(target, health)).await;
        let found = found.unwrap_or_else(|_| Err(Some("no response in time".to_owned())));
        let found = match found {
            Ok(()) => Ok(()),
            Err(Some(cause)) => Err(cause),
            // not the server's fault
            Err(None) => return target.break_off_check(),
        };
        let (server, news) = (target.server(), target.end_check(found.is_ok()));
        match found {
            Ok(()) if news => tracing::info!(upstream, server, "upstream server healthy, back in rotation"),
            Err(cause) if news => {
                let remedy = tls::remedy(&cause);
                tracing::warn!(upstream, server, cause, remedy, "upstream server unhealthy, removed from rotation");
            }
            _ => {}
        }
    }

    /// `Err` says why the server is unhealthy; `Err(None)`: this machine has no resources left to connect with.
    async fn find_out(&self, target: &Target, health: Option<&Health>) -> Result<(), Option<String>> {
        let reached = target.connect(&self.0).await;
        let mut stream = reached.map_err(|e| (!error_cause::is_our_own(&e)).then(|| error_cause::root_cause(&e)))?;
        let Some(health) = health else { return Ok(()) };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: authgate-health\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            health.path,
            target.authority()
        );
        let mut answer = [0; STATUS_BYTES];
        let asked = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            stream.read_exact(&mut answer).await
        };
        asked.await.map_err(|e| Some(format!("no response: {e}")))?;
        let status = answer.strip_prefix(b"HTTP/1.").map(|rest| &rest[2..5]);
        match status {
            Some([b'2' | b'3', ..]) => Ok(()),
            Some(status) => Err(Some(format!("GET {} returned {}", health.path, String::from_utf8_lossy(status)))),
            None => Err(Some("no HTTP/1 response".to_owned())),
        }
    }
}
