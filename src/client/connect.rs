//! Opens the connection of one exchange: looks the name up, judges each address and connects to one that was judged, so
//! that a name which changes its address in between (DNS rebinding) gains nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
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
    /// To the internet, or to the kind of place (this machine, this link, a private network) where one of these URLs of
    /// the operator leads: the URL is out of a document.
    Document {
        /// The issuer, for example.
        operator_urls: Arc<[Url]>,
    },
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
    tls: &Arc<ClientConfig>,
    connect_time: Duration,
) -> Result<HyperStream, FetchError> {
    let stream = timeout(connect_time, tcp(url, reach)).await.map_err(|_| FetchError::TimedOut("connecting"))??;
    let _ = stream.set_nodelay(true);
    if url.scheme() == "http" {
        return Ok(TokioIo::new(Box::new(stream)));
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
        Ok(stream) => Ok(TokioIo::new(Box::new(stream))),
        Err(error) => Err(FetchError::Tls(error.to_string())),
    }
}

async fn tcp(url: &Url, reach: &Reach) -> Result<TcpStream, FetchError> {
    let mut last = FetchError::Unreachable("the name has no address".to_owned());
    for address in allowed(look_up(url).await?, reach).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = FetchError::Unreachable(error.to_string()),
        }
    }
    Err(last)
}

/// The addresses that may be connected to; an error if there are some and none may.
async fn allowed(addresses: Vec<SocketAddr>, reach: &Reach) -> Result<Vec<SocketAddr>, FetchError> {
    let Reach::Document { operator_urls } = reach else { return Ok(addresses) };
    let is_public = |address: &SocketAddr| place(address.ip()) == Place::Public;
    if addresses.iter().all(is_public) {
        return Ok(addresses);
    }
    let mut places = vec![Place::Public];
    for url in operator_urls.iter() {
        places.extend(look_up(url).await.unwrap_or_default().iter().map(|address| place(address.ip())));
    }
    match addresses.iter().find(|address| !places.contains(&place(address.ip()))) {
        // a name with one inner address among others is meant to lead inside
        Some(inner) => Err(FetchError::ForbiddenAddress(inner.ip())),
        None => Ok(addresses),
    }
}

async fn look_up(url: &Url) -> Result<Vec<SocketAddr>, FetchError> {
    let port = url.port_or_known_default().unwrap_or(443);
    let found = match url.host() {
        Some(Host::Ipv4(address)) => vec![SocketAddr::from((address, port))],
        Some(Host::Ipv6(address)) => vec![SocketAddr::from((address, port))],
        Some(Host::Domain(name)) => {
            let found = tokio::net::lookup_host((name, port)).await;
            found.map_err(|error| FetchError::Unreachable(error.to_string()))?.take(ADDRESSES_MAX).collect()
        }
        None => Vec::new(),
    };
    Ok(found)
}
