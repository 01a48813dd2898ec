//! One core's QUIC endpoint: who may shake hands, and what one connection may use up.
//!
//! Each core has an endpoint and a socket of its own on the same address (`SO_REUSEPORT`), so a connection
//! stays on its core without a lock between them. The first packets of a flood cost one decryption each, then
//! a retry that nothing has to be kept for, then not even that.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::version::TLS13;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::{self, Session};
use super::connection_id::{ConnectionIds, ProcessTag, Reader};
use super::socket::{CoreSocket, Letter, Post};
use crate::edge::Edge;
use crate::limits::{DRAIN_GRACE, HEAD_DEADLINE, Limits, MAX_STREAMS};
use crate::listener::Turns;
use crate::listener::caps::Caps;
use crate::metrics;
use crate::tls::Certificates;

/// HTTP/3, as a client asks for it (RFC 9114 3.1).
const ALPN_HTTP3: &[u8] = b"h3";

/// Handshakes of one core at once from which on a client has to show that it receives what is sent to its address
/// (RFC 9000 8.1.2). Honest ones take some 100 ms, so this is about a thousand new clients a second.
const RETRY_FROM: usize = 100;

/// Handshakes of one core at once beyond which there are no more. At some 20 KiB each, 20 MiB.
const MAX_HANDSHAKES: usize = 1000;

/// First packets that wait to be looked at, per core.
const MAX_INCOMING: usize = 1024;

/// Bytes kept of what a client sends behind its first packet before it is looked at, which is at once: of one, of all.
const INCOMING_BYTES: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 * 1024 * 1024;

/// Unidirectional streams at once. A client needs three.
const MAX_UNIDIRECTIONAL: u32 = 8;

/// Bytes of a request that may be on their way in one stream, and in all of a connection together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of responses held for one connection until they are acknowledged: 80 Mbit/s at 100 ms.
const SEND_WINDOW: u64 = 1024 * 1024;

/// Bytes of a handshake that arrive out of order. A client's part of it is some 3 KiB.
const CRYPTO_BYTES: usize = 16 * 1024;

/// How long the end of connections is waited for: they are told, and may not hear it.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// What the kernel may hold of packets for a core that is busy: 10 ms at 2 Gbit/s, and for it to send.
const SOCKET_BYTES: usize = 2 * 1024 * 1024;

/// Where HTTP/3 is spoken.
#[derive(Clone, Debug)]
pub struct Http3 {
    /// The address, the same as that of TLS over TCP.
    pub addr: SocketAddr,
    /// The same as over TCP.
    pub certificates: Arc<Certificates>,
}

/// HTTP/3 cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum Http3Error {
    /// The system gives no random numbers, or the ciphers of QUIC are missing.
    #[error("set up TLS for QUIC")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address cannot be listened on.
    #[error("listen on UDP {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Http3 {
    /// Takes the address, once for each core.
    pub(crate) fn bind(&self, cores: usize) -> Result<Vec<UdpSocket>, Http3Error> {
        let addr = self.addr;
        let sockets = claim(addr).and_then(|addr| (0..cores).map(|_| listening(addr)).collect());
        sockets.map_err(|source| Http3Error::Bind { addr, source })
    }

    /// What each core starts with, one per socket, and where packets for another core or process go.
    pub(crate) fn endpoints(
        &self,
        sockets: Vec<UdpSocket>,
    ) -> Result<(SocketAddr, Arc<Post>, Vec<CoreEndpoint>), Http3Error> {
        let server = self.server_config()?;
        let bound = sockets.first().and_then(|socket| socket.local_addr().ok());
        let process = ProcessTag::random();
        let (post, boxes) = Post::new(process, sockets.len());
        let endpoints = sockets.into_iter().zip(boxes).zip(0..);
        let endpoints = endpoints.map(|((socket, letters), core)| CoreEndpoint {
            socket,
            server: server.clone(),
            reader: Reader { process, core },
            post: Arc::clone(&post),
            letters,
            certificates: Arc::clone(&self.certificates),
        });
        let endpoints = endpoints.collect();
        Ok((bound.unwrap_or(self.addr), post, endpoints))
    }

    fn server_config(&self) -> Result<ServerConfig, Http3Error> {
        let mut tls =
            rustls::ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
                .with_protocol_versions(&[&TLS13])
                .map_err(|error| Http3Error::Tls(error.into()))?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&self.certificates) as Arc<dyn ResolvesServerCert>);
        tls.alpn_protocols = vec![ALPN_HTTP3.to_vec()];
        tls.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| Http3Error::Tls(error.into()))?;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        // Requests that can be replayed are not taken: no early data.
        tls.max_early_data_size = 0;
        let tls = QuicServerConfig::try_from(tls).map_err(|error| Http3Error::Tls(error.into()))?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server
            .transport_config(Arc::new(transport()))
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
        Ok(server)
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(MAX_UNIDIRECTIONAL.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BYTES)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MILLISECONDS).into()));
    transport
}

/// As [`crate::limits::IDLE_DEADLINE`], unless the client says less.
const IDLE_MILLISECONDS: u32 = 60_000;

/// Makes sure that nobody else listens on `addr`, and picks a port for port 0.
fn claim(addr: SocketAddr) -> io::Result<SocketAddr> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&addr.into())?;
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn listening(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // The kernel gives what it may.
    let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// What one core starts its endpoint with.
pub(crate) struct CoreEndpoint {
    socket: UdpSocket,
    server: ServerConfig,
    reader: Reader,
    post: Arc<Post>,
    letters: mpsc::Receiver<Letter>,
    certificates: Arc<Certificates>,
}

impl CoreEndpoint {
    /// Serves until `draining`, and then to the end of what is in flight; each connection for as long as its turn. To be called on the core's runtime.
    pub(crate) async fn run(
        self,
        edge: Arc<Edge>,
        caps: Arc<Caps>,
        limits: Limits,
        (draining, turns): (watch::Receiver<bool>, Turns),
    ) {
        let certificates = Arc::clone(&self.certificates);
        let endpoint = match self.open() {
            Ok(endpoint) => endpoint,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                return tracing::error!(error, "HTTP/3 is not served by this core");
            }
        };
        let admission = Admission {
            edge,
            caps,
            limits,
            handshakes: Arc::default(),
            certificates,
            turns,
        };
        let mut connections = JoinSet::new();
        let drained = async {
            // An error means that the core has ended.
            let _ = draining.clone().wait_for(|draining| *draining).await;
            tokio::time::sleep(DRAIN_GRACE).await;
        };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                biased;
                () = &mut drained => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => log_panic(ended),
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => admission.admit(incoming, &mut connections),
                    None => break,
                },
            }
        }
        endpoint.set_server_config(None);
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
        // Their ends are on their way; nobody waits longer for a client that is gone.
        let _ = timeout(CLOSE_WAIT, endpoint.wait_idle()).await;
    }

    fn open(self) -> io::Result<quinn::Endpoint> {
        let runtime: Arc<dyn quinn::Runtime> = Arc::new(TokioRuntime);
        let inner = runtime.wrap_udp_socket(self.socket)?;
        let reader = self.reader;
        let socket = CoreSocket::new(inner, reader, self.post, self.letters);
        let mut config = EndpointConfig::default();
        config.cid_generator(move || Box::new(ConnectionIds(reader)));
        quinn::Endpoint::new_with_abstract_socket(
            config,
            Some(self.server),
            Arc::new(socket),
            runtime,
        )
    }
}

/// A panic ends one connection, and is told.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, "connection task failed");
    }
}

/// Decides who may connect.
struct Admission {
    edge: Arc<Edge>,
    caps: Arc<Caps>,
    limits: Limits,
    handshakes: Arc<AtomicUsize>,
    certificates: Arc<Certificates>,
    turns: Turns,
}

impl Admission {
    fn admit(&self, incoming: Incoming, connections: &mut JoinSet<()>) {
        let metrics = &self.edge.metrics;
        let handshakes = self.handshakes.load(Ordering::Relaxed);
        if handshakes >= MAX_HANDSHAKES {
            metrics
                .connections_refused
                .with_label_values(&["handshakes"])
                .inc();
            // No answer: it would only reach those whose address was taken.
            return incoming.ignore();
        }
        if handshakes >= RETRY_FROM && !incoming.remote_address_validated() {
            metrics
                .connections_refused
                .with_label_values(&["retry"])
                .inc();
            // It can be retried, or its address would be validated.
            let _ = incoming.retry();
            return;
        }
        let permit = match self.caps.admit(incoming.remote_address().ip()) {
            Ok(permit) => permit,
            Err(over) => {
                metrics
                    .connections_refused
                    .with_label_values(&[over.label()])
                    .inc();
                return incoming.refuse();
            }
        };
        let Ok(connecting) = incoming.accept() else {
            // Its first packet was no handshake.
            return;
        };
        metrics.connections_accepted.inc();
        let (edge, limits) = (Arc::clone(&self.edge), self.limits);
        let certificates = Arc::clone(&self.certificates);
        let handshaking = Counted::new(&self.handshakes);
        let draining = self.turns.current().over;
        connections.spawn(async move {
            let _permit = permit;
            let deadline = limits.head_deadline.min(HEAD_DEADLINE);
            let shaken = timeout(deadline, connecting).await;
            drop(handshaking);
            let outcome = match &shaken {
                Ok(Ok(_)) => "done",
                Ok(Err(_)) => "failed",
                Err(_) => "timeout",
            };
            let handshakes = &edge.metrics.quic_handshakes;
            handshakes.with_label_values(&[outcome]).inc();
            let Ok(Ok(connection)) = shaken else { return };
            let _open = [&edge.metrics.connections, &edge.metrics.http3_connections]
                .map(metrics::Counted::new);
            let session = Session::new(Arc::clone(&edge), limits, connection, &certificates);
            connection::serve(Arc::new(session), draining).await;
        });
    }
}

/// Counts one until dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
