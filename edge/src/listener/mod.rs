//! The listener: accepts connections on every core, within limits, and ends in order.
//!
//! Each core has its own socket (`SO_REUSEPORT`), its own single-threaded runtime and its own pingora lane,
//! so a connection stays where it was accepted. On shutdown: requests in flight and on their way are
//! answered, their connections closed (`Connection: close`, GOAWAY), no more accepted, and what is left is
//! cut at a deadline.

mod bind;
pub(crate) mod caps;
mod clock;
mod connection;
mod core;
mod exchange;
mod io;
mod lane;
mod memo;
mod pace;
mod sockets;
mod turn;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use helix_routing::id::{EdgeId, RegionId};
use helix_service::shutdown::Shutdown;
use http::HeaderValue;
use tokio::sync::{mpsc, watch};

use self::caps::Caps;
use self::core::{CoreSetup, CoreSockets};
pub use self::sockets::Sockets;
pub(crate) use self::turn::Turns;
use crate::access_log::{AccessLog, AccessLogConfig, CoreLog, OpenError};
use crate::edge::Edge;
use crate::forward::{Reachable, Upstreams};
use crate::http3::{Http3, Http3Error, Post};
use crate::limits::Limits;
use crate::maintenance::Maintenance;
use crate::metrics::Metrics;
use crate::table::Table;
use crate::tls::Certificates;

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// The address; port 0 takes a free one.
    pub addr: SocketAddr,
    /// How many cores to use; 0 means all.
    pub threads: usize,
    /// This edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// Where each request has a line, if anywhere.
    pub access_log: AccessLogConfig,
    /// Which addresses requests may be sent on to.
    pub upstreams: Reachable,
    /// What clients may use up.
    pub limits: Limits,
    /// Where HTTP/3 is spoken, if anywhere.
    pub http3: Option<Http3>,
    /// Where TLS is spoken, if anywhere.
    pub tls: Option<TlsListener>,
    /// Which ways a request may take to its response. They cannot be told apart; a test does.
    pub lanes: Lanes,
    /// Whether the edge is taken out for maintenance.
    pub maintenance: Maintenance,
}

/// Where TLS is spoken, and with which certificates.
#[derive(Clone, Debug)]
pub struct TlsListener {
    /// The address; port 0 takes a free one.
    pub addr: SocketAddr,
    /// The port that visitors see, if it is another one.
    pub public_port: Option<u16>,
    /// They may be shared with other listeners.
    pub certificates: Arc<Certificates>,
}

/// Which ways a request over HTTP/1 to its response, and one of any protocol to an upstream, may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lanes {
    /// The shortest.
    #[default]
    All,
    /// pingora reads and writes every message.
    Pingora,
}

/// Why the listener did not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("listen on {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// HTTP/3 cannot be spoken.
    #[error(transparent)]
    Http3(#[from] Http3Error),
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] OpenError),
    /// A core's thread or runtime cannot be made.
    #[error("start a core")]
    Start(#[source] std::io::Error),
}

/// A core ended before it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("core {core} of the listener died")]
pub struct CoreDied {
    core: usize,
}

/// A running listener.
#[derive(Debug)]
pub struct ListenerHandle {
    local_addr: SocketAddr,
    http3_addr: Option<SocketAddr>,
    tls_addr: Option<SocketAddr>,
    post: Option<Arc<Post>>,
    cores: Vec<thread::JoinHandle<()>>,
    /// Closed when every core has ended.
    ended: mpsc::Receiver<()>,
    log: AccessLog,
    edge: Arc<Edge>,
}

impl ListenerHandle {
    /// What requests share, for whoever asks a release what a visitor would get: nothing of it is logged or counted.
    #[must_use]
    pub const fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// The address it listens on, with the port it took.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The UDP address where it speaks HTTP/3, with the port it took.
    #[must_use]
    pub const fn http3_addr(&self) -> Option<SocketAddr> {
        self.http3_addr
    }

    /// The address where it speaks TLS, with the port it took.
    #[must_use]
    pub const fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Where QUIC packets from and for other processes are handed in, if HTTP/3 is spoken.
    #[must_use]
    pub const fn post(&self) -> Option<&Arc<Post>> {
        self.post.as_ref()
    }

    /// Waits until a shutdown has been asked for and every connection has ended or was cut.
    ///
    /// # Errors
    /// When a core died. The others go on until the shutdown.
    pub async fn join(mut self) -> Result<(), CoreDied> {
        // Nothing is ever sent: the end of the channel is the message.
        let _ = self.ended.recv().await;
        let mut died = None;
        for (core, thread) in self.cores.into_iter().enumerate() {
            if thread.join().is_err() {
                died.get_or_insert(CoreDied { core });
            }
        }
        self.log.close();
        died.map_or(Ok(()), Err)
    }
}

/// Starts listening.
///
/// # Errors
/// When the address is taken, or threads cannot be started.
pub fn serve(
    config: ListenerConfig,
    table: Arc<Table>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> Result<ListenerHandle, ListenError> {
    let sockets = Sockets::open(&config, cores(&config), None)?;
    serve_on(sockets, config, table, metrics, shutdown)
}

/// How many cores `config` asks for.
#[must_use]
pub fn cores(config: &ListenerConfig) -> usize {
    if config.threads == 0 {
        thread::available_parallelism().map_or(1, usize::from)
    } else {
        config.threads
    }
}

/// Starts listening on sockets that are open already, one core for each.
///
/// # Errors
/// When threads cannot be started.
#[expect(
    clippy::too_many_lines,
    reason = "what all cores share and what each is given, in one place"
)]
pub fn serve_on(
    sockets: Sockets,
    config: ListenerConfig,
    table: Arc<Table>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> Result<ListenerHandle, ListenError> {
    let threads = sockets.plain.len();
    let local_addr = first(&sockets.plain, config.addr);
    let tls_addr = config
        .tls
        .as_ref()
        .map(|tls| first(&sockets.secure, tls.addr));
    let (http3_addr, post, endpoints) = match &config.http3 {
        Some(http3) => http3
            .endpoints(sockets.quic)
            .map(|(addr, post, all)| (Some(addr), Some(post), all))?,
        None => (None, None, Vec::new()),
    };
    let mut endpoints = endpoints.into_iter();
    let public_port = config.tls.as_ref().and_then(|tls| tls.public_port);
    if let Some(port) = public_port.or_else(|| tls_addr.map(|addr| addr.port())) {
        table.set_secure_port(port);
    }
    let (sockets, secure) = (sockets.plain, sockets.secure);
    let tls = config.tls.map(|tls| tls.certificates);
    let mut secure = secure.into_iter();
    let limits = bind::within_descriptors(config.limits);
    let caps = Caps::new(&limits);
    let mut upstreams = config.upstreams;
    upstreams.own.push(local_addr);
    upstreams.own.extend(tls_addr);
    let who = (&config.edge, &config.region);
    let log = AccessLog::open(&config.access_log, who, metrics.access_log_lost.clone())?;
    let shared = Edge {
        table,
        metrics,
        upstreams: Arc::new(Upstreams::new(upstreams)),
        tally: Arc::default(),
        log: Arc::new(log.core()),
        lanes: config.lanes,
        shutdown: shutdown.clone(),
        limits,
        alt_svc: http3_addr.map(|addr| alt_svc(public_port.unwrap_or_else(|| addr.port()))),
        edge: HeaderValue::from_str(config.edge.as_str()).expect("an edge id is ASCII"),
        region: HeaderValue::from_str(config.region.as_str()).expect("a region id is ASCII"),
    };
    shared.metrics.look_at(&shared.upstreams, &shared.table);
    let (alive, ended) = mpsc::channel(1);
    let mut cores = Vec::with_capacity(threads);
    for (number, plain) in sockets.into_iter().enumerate() {
        let sockets = CoreSockets {
            plain,
            secure: secure.next(),
        };
        let (lasting, ends) = watch::channel(false);
        let setup = CoreSetup {
            edge: Arc::new(Edge {
                shutdown: Shutdown::when(ends),
                tally: shared.metrics.tally(),
                log: Arc::new(log.core()),
                ..shared.clone()
            }),
            caps: Arc::clone(&caps),
            limits,
            lanes: config.lanes,
            shutdown: shutdown.clone(),
            told: config.maintenance.subscribe(),
            lasting,
            http3: endpoints.next(),
            tls: tls.clone(),
        };
        cores.push(
            setup
                .start(number, sockets, alive.clone())
                .map_err(ListenError::Start)?,
        );
    }
    let unseen = Edge {
        tally: Arc::default(),
        log: Arc::new(CoreLog::off()),
        ..shared
    };
    tracing::info!(addr = %local_addr, threads, "listening");
    Ok(ListenerHandle {
        local_addr,
        http3_addr,
        tls_addr,
        post,
        cores,
        ended,
        log,
        edge: Arc::new(unseen),
    })
}

/// Tells clients of TLS that they may come over HTTP/3, for a day.
fn alt_svc(port: u16) -> HeaderValue {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).expect("a port is digits")
}

/// The address with the port that it took.
fn first(sockets: &[TcpListener], addr: SocketAddr) -> SocketAddr {
    sockets
        .first()
        .and_then(|socket| socket.local_addr().ok())
        .unwrap_or(addr)
}
