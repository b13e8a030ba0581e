//! Connections that begin with a TLS handshake: counted before it, with a deadline for it, and then served
//! in the protocol that was agreed on.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::super::conn::Counted;
use super::wire::Wire;
use super::{Conn, Front};
use crate::config::Certificate;
use crate::gateway::guard::{Guard, Secured};

/// For the whole handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A handshake that came to its end.
pub(crate) struct Accepted {
    pub(crate) stream: Box<TlsStream<TcpStream>>,
    /// HTTP/2 was agreed on.
    pub(crate) is_h2: bool,
    /// The name that the client asked for, in lower case.
    pub(crate) name: Option<String>,
    /// What it was shown.
    pub(crate) certificate: Arc<Certificate>,
}

impl Front {
    /// Serves a connection to its end, from its handshake on.
    pub(crate) async fn serve_tls(
        self,
        handshake: impl Future<Output = io::Result<Accepted>>,
        address: Option<IpAddr>,
        counted: Counted,
    ) {
        let accepted = match timeout(HANDSHAKE, handshake).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS handshake"),
            Err(_) => return tracing::debug!("no TLS handshake in time"),
        };
        let secured = Secured { name: accepted.name, certificate: accepted.certificate };
        let guard = Arc::new(Guard::new(address, Some(Arc::new(secured))));
        let wire = Wire::Secure(accepted.stream);
        if accepted.is_h2 {
            self.serve_h2(wire, guard, counted).await;
        } else {
            self.converse(Conn::new(wire, guard), counted).await;
        }
    }
}
