//! Many connections of one process, in the clear and over TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::elsewhere::Addresses;
use crate::trust::Anybody;

/// Connections that are being made at once: more would only wait for one another.
const CONNECTING: usize = 64;

/// Where from, and where to.
#[derive(Clone)]
pub(crate) struct Crowd {
    pub(crate) to: SocketAddr,
    /// The addresses it comes from, in turn.
    pub(crate) from: Vec<Ipv4Addr>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) count: usize,
    /// How many have been opened, or were not let in.
    pub(crate) settled: Arc<AtomicUsize>,
}

/// A connection, whatever lies below it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Crowd {
    /// Of `count` clients from one address, in the clear or over TLS.
    pub(crate) fn new(at: &Addresses, tls: bool, count: usize) -> Self {
        Self {
            to: if tls { at.tls } else { at.plain },
            from: addresses(1),
            tls: tls.then(|| careless(b"http/1.1")),
            count,
            settled: Arc::default(),
        }
    }

    /// Opens all connections and does `what` with each; when it was opened and what came of it. None where it was
    /// closed before it could be used.
    pub(crate) async fn each<F, T>(
        &self,
        what: impl Fn(Box<dyn Stream>, Instant) -> F + Clone + Send + 'static,
    ) -> Vec<Option<T>>
    where
        F: Future<Output = T> + Send,
        T: Send + 'static,
    {
        let turn = Arc::new(Semaphore::new(CONNECTING));
        let mut all = JoinSet::new();
        for number in 0..self.count {
            let (crowd, what) = (self.clone(), what.clone());
            let turn = Arc::clone(&turn);
            all.spawn(async move {
                let waited = turn.acquire().await;
                let from = crowd.from[number % crowd.from.len()];
                let opened = crowd.open(from).await;
                drop(waited);
                crowd.settled.fetch_add(1, Ordering::Relaxed);
                let (stream, since) = opened?;
                Some(what(stream, since).await)
            });
        }
        all.join_all().await
    }

    async fn open(&self, from: Ipv4Addr) -> Option<(Box<dyn Stream>, Instant)> {
        let socket = TcpSocket::new_v4().unwrap();
        // The kernel would hold megabytes for those who take nothing.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(self.to).await.ok()?;
        let since = Instant::now();
        let Some(tls) = &self.tls else {
            return Some((Box::new(stream), since));
        };
        let name = "shop.example".try_into().unwrap();
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector.connect(name, stream).await.ok()?;
        Some((Box::new(stream), since))
    }
}

/// A client of TLS that takes every certificate, and makes handshakes as cheap for itself as it can.
pub(crate) fn careless(alpn: &[u8]) -> Arc<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Runs `work` on a thread of its own.
pub(crate) fn alone<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Loopback addresses from this one on.
pub(crate) fn addresses(count: u8) -> Vec<Ipv4Addr> {
    (2..2 + count)
        .map(|last| Ipv4Addr::new(127, 0, 0, last))
        .collect()
}

/// Where honest clients come from: an address that no crowd uses.
pub(crate) const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
