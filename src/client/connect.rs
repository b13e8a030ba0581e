//! Opens the connection of one exchange: looks the name up, judges each address and connects to one that was judged, so
//! that a name which changes its address in between (DNS rebinding) gains nothing.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::address::{Place, place};
use super::limits::ADDRESSES_MAX;
use super::response::FetchError;

/// Where a URL may lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Anywhere: the URL is the operator's word, or fixed.
    Operator,
    /// To the internet, or to the kind of place (this machine, this link, a private network) that the document came from
    /// which names the URL. A name that has other addresses since then opens no other place.
    Document(Place),
}

/// A TCP or TLS stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Such a stream as hyper reads and writes it.
pub(super) type HyperStream = TokioIo<Box<dyn Stream>>;

/// Connects, over TLS for https.
pub(super) async fn open(
    url: &Url,
    reach: &Reach,
    (tls, lookups): (&Arc<ClientConfig>, &Arc<Semaphore>),
    connect_time: Duration,
) -> Result<(HyperStream, Place), FetchError> {
    let (stream, place) =
        timeout(connect_time, tcp(url, reach, lookups)).await.map_err(|_| FetchError::TimedOut("connecting"))??;
    let _ = stream.set_nodelay(true);
    if url.scheme() == "http" {
        return Ok((TokioIo::new(Box::new(stream)), place));
    }
    let name = match url.host() {
        Some(Host::Domain(name)) => ServerName::try_from(name.to_owned()).ok(),
        Some(Host::Ipv4(address)) => Some(ServerName::from(std::net::IpAddr::V4(address))),
        Some(Host::Ipv6(address)) => Some(ServerName::from(std::net::IpAddr::V6(address))),
        None => None,
    };
    let name = name.ok_or_else(|| FetchError::Tls("no certificate can name this host".to_owned()))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    match stream {
        Ok(stream) => Ok((TokioIo::new(Box::new(stream)), place)),
        Err(error) => Err(FetchError::Tls(error.to_string())),
    }
}

async fn tcp(url: &Url, reach: &Reach, lookups: &Arc<Semaphore>) -> Result<(TcpStream, Place), FetchError> {
    let mut last = FetchError::Unreachable("the name has no address".to_owned());
    for address in allowed(look_up(url, lookups).await?, reach)? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok((stream, place(address.ip()))),
            Err(error) => last = FetchError::Unreachable(error.to_string()),
        }
    }
    Err(last)
}

/// The addresses that may be connected to; an error if there are some and none may.
fn allowed(addresses: Vec<SocketAddr>, reach: &Reach) -> Result<Vec<SocketAddr>, FetchError> {
    let Reach::Document(own) = reach else { return Ok(addresses) };
    match addresses.iter().find(|address| ![Place::Public, *own].contains(&place(address.ip()))) {
        // a name with one inner address among others is meant to lead inside
        Some(inner) => Err(FetchError::ForbiddenAddress(inner.ip())),
        None => Ok(addresses),
    }
}

async fn look_up(url: &Url, lookups: &Arc<Semaphore>) -> Result<Vec<SocketAddr>, FetchError> {
    let port = url.port_or_known_default().unwrap_or(443);
    let found = match url.host() {
        Some(Host::Ipv4(address)) => vec![SocketAddr::from((address, port))],
        Some(Host::Ipv6(address)) => vec![SocketAddr::from((address, port))],
        Some(Host::Domain(name)) => {
            let unreachable = |error: String| FetchError::Unreachable(error);
            let place = Arc::clone(lookups).acquire_owned().await.map_err(|error| unreachable(error.to_string()))?;
            let name = name.to_owned();
            let found = spawn_blocking(move || {
                let found = (name.as_str(), port).to_socket_addrs();
                // the thread is in use until here, however long ago the exchange ended
                drop(place);
                found.map(|all| all.take(ADDRESSES_MAX).collect())
            });
            let found = found.await.map_err(|error| unreachable(error.to_string()))?;
            found.map_err(|error| unreachable(error.to_string()))?
        }
        None => Vec::new(),
    };
    Ok(found)
}
