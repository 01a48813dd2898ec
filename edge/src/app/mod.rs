//! Puts an edge together, from its disk outwards: what it knew is served before anything is asked of anyone.
//!
//! Order matters: state and store are read, the releases on disk are made ready, then the listener opens, and
//! only then do the feeds go on. NATS and origin may be away all the while.

mod story;
mod succession;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use helix_routing::seal::KeyRole;
use helix_service::keys::KeyRing;
use helix_service::nats::{self, NatsError};
use helix_service::random;
use helix_service::shutdown::{Shutdown, ShutdownHandle};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::story::Story;
use self::succession::Ours;
use crate::admin::{self, Admin};
use crate::agent::glass::Desk;
use crate::agent::reports::{Reporter, Reports};
use crate::cache::Cache;
use crate::cache::disk::{Disk, DiskConfig};
use crate::cache::store::Store as ResponseStore;
use crate::config::EdgeConfig;
use crate::feed::FeedStatus;
use crate::gate::Asker;
use crate::gate::exec::NoRuntime;
use crate::handover::{self, Giver, Handed, HandoverError, Purpose, Taken};
use crate::http3::Http3;
use crate::join;
use crate::limits::Limits;
use crate::listener::{self, ListenError, ListenerConfig, ListenerHandle, Sockets, TlsListener};
use crate::local;
use crate::maintenance::Maintenance;
use crate::metrics::Metrics;
use crate::state::StateError;
use crate::table::Table;
use crate::tls::{Certificates, TlsError, follow_files};

/// How long responses on disk are left alone at start, until purges that were missed are known: an edge that has a link
/// knows them within a second, and one that has none serves what it has.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// How long the end of the process waits for responses in memory to be written to disk.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// The edge did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Nothing could ever be verified.
    #[error("the config has no key of role record, so no record could be trusted")]
    NoRecordKey,
    /// The data folder cannot be used.
    #[error("open the store in {}", folder.display())]
    Store {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was known cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The client for origin cannot be made.
    #[error("make an HTTP client for {url}")]
    Fetcher {
        /// Origin.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The settings for NATS cannot be used.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The listener does not start.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is a process before us, and it does not give its sockets.
    #[error("take over from the process before")]
    Handover(#[from] HandoverError),
    /// A part of the listener ended before its time.
    #[error(transparent)]
    Listener(#[from] listener::CoreDied),
    /// The local socket cannot be opened.
    #[error("open the local socket {}", path.display())]
    Local {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The admin address cannot be listened on.
    #[error("listen on the admin address {addr}")]
    Admin {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A running edge.
#[derive(Debug)]
pub struct Running {
    listener: ListenerHandle,
    admin: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    cache: Arc<ResponseStore>,
}

impl Running {
    /// Where visitors reach it.
    #[must_use]
    pub const fn listen_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Where visitors reach it over TLS.
    #[must_use]
    pub const fn tls_addr(&self) -> Option<SocketAddr> {
        self.listener.tls_addr()
    }

    /// Where its operator reaches it.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Waits for the shutdown and for what is in flight; then everything else ends.
    ///
    /// # Errors
    /// When a part of the listener died.
    pub async fn join(self) -> Result<(), AppError> {
        let ended = self.listener.join().await;
        self.cache.flush(FLUSH_WAIT).await;
        for task in self.tasks {
            task.abort();
        }
        Ok(ended?)
    }
}

/// What is shared by the parts of one edge.
struct Parts {
    table: Arc<Table>,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    reports: Arc<Reports>,
    maintenance: Maintenance,
    /// What gates are asked with, once the listener is open.
    asking: watch::Sender<Option<Arc<Asker>>>,
    /// Overrides of this edge.
    desk: Arc<Desk>,
}

impl Parts {
    fn new(config: &EdgeConfig) -> Self {
        let ready = Arc::new(AtomicBool::new(false));
        let who = Reporter {
            edge: config.edge.clone(),
            region: config.region.clone(),
            boot: random::boot_id(),
        };
        let metrics = Arc::new(Metrics::new(&config.edge, &config.region));
        Self {
            table: Arc::new(Table::with_cache(
                config.base_domain.clone(),
                Cache::new(config.response_cache.memory_bytes),
            )),
            reports: Reports::new(who, Arc::clone(&ready), metrics.gates.clone()),
            metrics,
            ready,
            maintenance: Maintenance::of(&config.edge),
            asking: watch::channel(None).0,
            desk: Arc::default(),
        }
    }
}

/// Starts an edge. If another process of the same edge serves, this one takes over from it.
///
/// # Errors
/// As [`AppError`] says. That NATS or origin is away is no error.
pub async fn start(config: EdgeConfig, shutdown: Shutdown) -> Result<Running, AppError> {
    let ring = ring_of(&config)?;
    let tls = tls_listener(&config)?;
    let mut taken = take_over(&config).await?;
    let drain = drained_by(shutdown);
    let parts = Arc::new(Parts::new(&config));
    let admin = AdminSocket::open(&config, taken.as_mut())?;
    let admin_addr = admin.addr;
    let admin_handed = admin.handed()?;
    let admin_task = admin.serve(&parts, drain.shutdown.clone())?;
    let client = nats::connect(&config.nats, config.edge.as_str()).await?;
    let story = Arc::new(Story {
        config: config.clone(),
        ring,
        client,
        parts: Arc::clone(&parts),
    });
    let mut restored = story.restore()?;
    open_response_disk(&config, &parts);
    restored.wait().await;
    let mut tasks = vec![
        admin_task,
        local_task(&config, &parts, &drain.shutdown)?,
        tokio::spawn(join::keep_certified(config.clone())),
    ];
    if let Some(tls) = &tls {
        tasks.push(tokio::spawn(follow_files(Arc::clone(&tls.certificates))));
    }
    let certificates = tls.as_ref().map(|tls| Arc::clone(&tls.certificates));
    let mut listening = listener_config(&config, tls);
    listening.maintenance = parts.maintenance.clone();
    listening.upstreams.own.push(admin_addr);
    let sockets = Sockets::open(&listening, listener::cores(&listening), taken.as_mut())?;
    let handed = sockets.handed().map_err(HandoverError::from)?;
    let listener = listener::serve_on(
        sockets,
        listening,
        Arc::clone(&parts.table),
        Arc::clone(&parts.metrics),
        drain.shutdown.clone(),
    )?;
    let asker = Asker::new(
        Arc::clone(listener.edge()),
        certificates,
        Arc::new(NoRuntime),
    );
    parts.asking.send_replace(Some(Arc::new(asker)));
    if let Some(taken) = taken {
        succession::succeed(taken, listener.post()).await;
    }
    let handed = handed.into_iter().chain([admin_handed]).collect();
    read_response_disk(&parts, restored.statuses());
    let following = restored.follow(&story);
    tasks.push(wait_for_successors(
        handed, &story, following, &listener, drain,
    )?);
    tracing::info!(edge = %config.edge, region = %config.region, listen = %listener.local_addr(), admin = %admin_addr, "edge started");
    Ok(Running {
        listener,
        admin: admin_addr,
        tasks,
        cache: Arc::clone(&parts.table.cache().store),
    })
}

/// The keys that are trusted: none of records is none at all, and one of provenance is worth a word.
fn ring_of(config: &EdgeConfig) -> Result<Arc<KeyRing>, AppError> {
    let ring = Arc::new(KeyRing::new(config.keys.iter().cloned()));
    if ring.lacks(KeyRole::Record) {
        return Err(AppError::NoRecordKey);
    }
    if ring.lacks(KeyRole::Provenance) {
        tracing::warn!(
            "no key of role `provenance` is pinned: where releases come from is not checked"
        );
    }
    Ok(ring)
}

/// Puts a disk behind the response cache. Without one the edge serves on.
fn open_response_disk(config: &EdgeConfig, parts: &Parts) {
    let cache = &config.response_cache;
    if cache.disk_bytes == 0 {
        return;
    }
    let store = &parts.table.cache().store;
    let wanted = DiskConfig {
        folder: config.data_dir.join("responses"),
        bytes: cache.disk_bytes,
        max_body_bytes: cache.max_body_bytes,
    };
    let (purges, metrics) = (Arc::clone(store.purges()), parts.metrics.disk_cache.clone());
    match Disk::open(wanted, purges, metrics) {
        Ok(disk) => store.attach(disk),
        Err(error) => tracing::error!(%error, "no response is kept on disk"),
    }
}

/// Lets what was kept on disk be used again, once the purges of the time between are known, or cannot be for now.
fn read_response_disk(parts: &Parts, feeds: Vec<watch::Receiver<FeedStatus>>) {
    let Some(disk) = parts.table.cache().store.disk().cloned() else {
        return;
    };
    tokio::spawn(async move {
        let caught_up = async {
            for mut feed in feeds {
                // A feed that is gone has nothing more to say.
                let _ = feed.wait_for(|status| status.caught_up).await;
            }
        };
        // Without NATS an edge serves what it knows.
        let _ = tokio::time::timeout(CATCH_UP_WAIT, caught_up).await;
        disk.begin();
    });
}

/// The end of this edge: asked for from outside, or by a successor that serves.
struct Drain {
    shutdown: Shutdown,
    asked_from_outside: Shutdown,
    handle: ShutdownHandle,
}

fn drained_by(asked_from_outside: Shutdown) -> Drain {
    let (shutdown, handle) = Shutdown::manual();
    Drain {
        shutdown,
        asked_from_outside,
        handle,
    }
}

/// Asks the process before, if there is one, for its sockets.
async fn take_over(config: &EdgeConfig) -> Result<Option<Taken>, HandoverError> {
    let path = handover::path(&config.data_dir);
    match tokio::task::spawn_blocking(move || handover::take(&path)).await {
        Ok(taken) => taken,
        Err(error) => Err(io::Error::other(error).into()),
    }
}

/// Gives the sockets to whoever comes, and drains when somebody has, or when the end is asked for from outside.
fn wait_for_successors(
    handed: Vec<Handed>,
    story: &Arc<Story>,
    following: Vec<JoinHandle<()>>,
    listener: &ListenerHandle,
    drain: Drain,
) -> Result<JoinHandle<()>, AppError> {
    let post = listener.post().cloned();
    let process = post.as_ref().map_or(0, |post| post.process().0);
    let giver = Giver::open(&handover::path(&story.config.data_dir), handed, process)?;
    let (stages, receiver) = mpsc::channel(handover::MAX_WAITING_STAGES);
    let giving = tokio::spawn(giver.run(stages));
    let Drain {
        shutdown,
        asked_from_outside,
        handle,
    } = drain;
    let handle = Arc::new(handle);
    let asked = Arc::clone(&handle);
    tokio::spawn(async move {
        tokio::select! {
            () = asked_from_outside.requested() => asked.request(),
            () = shutdown.requested() => {}
        }
        // Sockets that somebody holds would go on taking connections that nobody serves.
        giving.abort();
    });
    let ours = Ours {
        story: Arc::clone(story),
        following,
        post,
        drain: handle,
    };
    Ok(tokio::spawn(succession::attend(receiver, ours)))
}

/// The admin address, bound or handed over.
struct AdminSocket {
    socket: std::net::TcpListener,
    addr: SocketAddr,
}

impl AdminSocket {
    fn open(config: &EdgeConfig, taken: Option<&mut Taken>) -> Result<Self, AppError> {
        let addr = config.admin;
        let failed = |source| AppError::Admin { addr, source };
        let handed = taken
            .map(|taken| taken.remove(Purpose::Admin))
            .unwrap_or_default();
        let handed = handed
            .into_iter()
            .map(std::net::TcpListener::from)
            .find(|socket| {
                socket
                    .local_addr()
                    .is_ok_and(|local| addr.port() == 0 || local == addr)
            });
        let socket = match handed {
            Some(socket) => socket,
            None => std::net::TcpListener::bind(addr).map_err(failed)?,
        };
        socket.set_nonblocking(true).map_err(failed)?;
        let addr = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, addr })
    }

    fn handed(&self) -> Result<Handed, AppError> {
        let clone = self.socket.try_clone();
        let addr = self.addr;
        let socket = clone
            .map_err(|source| AppError::Admin { addr, source })?
            .into();
        Ok(Handed {
            purpose: Purpose::Admin,
            socket,
        })
    }

    fn serve(self, parts: &Parts, shutdown: Shutdown) -> Result<JoinHandle<()>, AppError> {
        let addr = self.addr;
        let socket = TcpListener::from_std(self.socket)
            .map_err(|source| AppError::Admin { addr, source })?;
        let admin = Admin {
            table: Arc::clone(&parts.table),
            metrics: Arc::clone(&parts.metrics),
            ready: Arc::clone(&parts.ready),
            maintenance: parts.maintenance.clone(),
            desk: Arc::clone(&parts.desk),
        };
        Ok(tokio::spawn(async move {
            if let Err(error) = admin::serve(socket, admin, shutdown).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the admin address is no longer served"
                );
            }
        }))
    }
}

/// The local socket, where overrides of this edge are asked for. A successor puts its own in the place of ours.
fn local_task(
    config: &EdgeConfig,
    parts: &Parts,
    shutdown: &Shutdown,
) -> Result<JoinHandle<()>, AppError> {
    let path = local::path(&config.data_dir);
    let socket = local::open(&path).map_err(|source| AppError::Local { path, source })?;
    let serving = local::serve(socket, Arc::clone(&parts.desk), shutdown.clone());
    Ok(tokio::spawn(async move {
        if let Err(error) = serving.await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the local socket is no longer served");
        }
    }))
}

fn tls_listener(config: &EdgeConfig) -> Result<Option<TlsListener>, TlsError> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    Ok(Some(TlsListener {
        addr: tls.listen,
        public_port: tls.public_port,
        certificates: Certificates::open(tls.certificates.clone())?,
    }))
}

fn listener_config(config: &EdgeConfig, tls: Option<TlsListener>) -> ListenerConfig {
    let wanted = config.tls.as_ref().is_some_and(|tls| tls.http3);
    let http3 = tls.as_ref().filter(|_| wanted).map(|tls| Http3 {
        addr: tls.addr,
        certificates: Arc::clone(&tls.certificates),
    });
    ListenerConfig {
        addr: config.listen,
        threads: config.threads,
        edge: config.edge.clone(),
        region: config.region.clone(),
        access_log: config.access_log.clone(),
        upstreams: config.upstreams.clone(),
        limits: Limits::default(),
        http3,
        tls,
        lanes: listener::Lanes::default(),
        maintenance: Maintenance::default(),
    }
}
