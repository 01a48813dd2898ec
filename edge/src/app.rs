//! Puts an edge together, from its disk outwards: what it knew is served before anything is asked of anyone.
//!
//! Order matters: state and store are read, the releases on disk are made ready, then the listener opens, and
//! only then do the feeds go on. NATS and origin may be away all the while.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_nats::Client;
use helix_routing::key::Scope;
use helix_routing::seal::KeyRole;
use helix_service::keys::KeyRing;
use helix_service::nats::{self, NatsError};
use helix_service::random;
use helix_service::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::agent::reports::{Reporter, Reports};
use crate::agent::{self, Agent};
use crate::config::EdgeConfig;
use crate::feed::record::{self, Opened};
use crate::feed::{Feed, FeedStatus};
use crate::http3::Http3;
use crate::limits::Limits;
use crate::listener::{self, ListenError, ListenerConfig, ListenerHandle, TlsListener};
use crate::metrics::Metrics;
use crate::state::{Ledger, StateError};
use crate::store::{Fetcher, Store};
use crate::table::Table;
use crate::tls::{Certificates, TlsError, follow_files};

/// How long the listener waits for the releases on disk. They are there within milliseconds; one that has to be
/// fetched first must not keep the others waiting.
const RESTORE_WAIT: Duration = Duration::from_secs(3);

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
    /// A part of the listener ended before its time.
    #[error(transparent)]
    Listener(#[from] listener::CoreDied),
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
}

impl Parts {
    fn new(config: &EdgeConfig) -> Self {
        let ready = Arc::new(AtomicBool::new(false));
        let who = Reporter {
            edge: config.edge.clone(),
            region: config.region.clone(),
            boot: random::boot_id(),
        };
        Self {
            table: Arc::new(Table::new(config.base_domain.clone())),
            metrics: Arc::new(Metrics::new(&config.edge, &config.region)),
            reports: Reports::new(who, Arc::clone(&ready)),
            ready,
        }
    }
}

/// Starts an edge.
///
/// # Errors
/// As [`AppError`] says. That NATS or origin is away is no error.
pub async fn start(config: EdgeConfig, shutdown: Shutdown) -> Result<Running, AppError> {
    let ring = Arc::new(KeyRing::new(config.keys.iter().cloned()));
    if ring.lacks(KeyRole::Record) {
        return Err(AppError::NoRecordKey);
    }
    let tls = tls_listener(&config)?;
    let parts = Parts::new(&config);
    let (admin, admin_task) = serve_admin(&config, &parts, shutdown.clone()).await?;
    let client = nats::connect(&config.nats, config.edge.as_str()).await?;
    let mut agent = open_agent(&config, &parts)?;
    let (changes, inbox) = mpsc::channel(agent::MAX_WAITING_CHANGES);
    let mut feeds = Vec::new();
    let mut whole = true;
    for scope in [Scope::Global, Scope::Region(config.region.clone())] {
        let (ledger, opened) = open_ledger(&config, &ring, &scope)?;
        whole &= ledger.position().incarnation.is_some();
        agent.restore(opened.into_iter().map(|opened| opened.record));
        feeds.push(Feed::new(
            scope,
            Arc::clone(&ring),
            client.clone(),
            ledger,
            changes.clone(),
        ));
    }
    drop(changes);
    let shown: Vec<watch::Receiver<FeedStatus>> =
        feeds.iter().map(|(_, status)| status.clone()).collect();
    let (settled, restored) = watch::channel(false);
    let mut tasks = vec![
        admin_task,
        tokio::spawn(agent.run(inbox, shown, whole, settled)),
    ];
    if whole {
        wait_for(restored).await;
    }
    if let Some(tls) = &tls {
        tasks.push(tokio::spawn(follow_files(Arc::clone(&tls.certificates))));
    }
    let listener = listener::serve(
        listener_config(&config, tls),
        Arc::clone(&parts.table),
        Arc::clone(&parts.metrics),
        shutdown,
    )?;
    tasks.extend(follow(feeds, parts.reports, client, parts.metrics));
    tracing::info!(edge = %config.edge, region = %config.region, listen = %listener.local_addr(), admin = %admin, "edge started");
    Ok(Running {
        listener,
        admin,
        tasks,
    })
}

fn open_agent(config: &EdgeConfig, parts: &Parts) -> Result<Agent, AppError> {
    let folder = config.data_dir.join("store");
    let store = Store::open(&folder, config.cache_bytes)
        .map_err(|source| AppError::Store { folder, source })?;
    let fetcher =
        Fetcher::new(&config.origin.url, &config.origin.token_file).map_err(|source| {
            AppError::Fetcher {
                url: config.origin.url.clone(),
                source,
            }
        })?;
    Ok(Agent::new(
        Arc::clone(&parts.table),
        store,
        fetcher,
        Arc::clone(&parts.reports),
        Arc::clone(&parts.ready),
    ))
}

/// Reads one stream's state; what no longer verifies is left out, and comes again from the stream.
fn open_ledger(
    config: &EdgeConfig,
    ring: &KeyRing,
    scope: &Scope,
) -> Result<(Ledger, Vec<Opened>), AppError> {
    let stream = scope.stream();
    let folder = config.data_dir.join("state").join(&stream);
    let opened = Ledger::open(folder, stream.clone(), |stored| {
        match record::open(ring, scope, None, &stored.key, stored.sealed.clone().into()) {
            Ok(opened) => Some(opened),
            Err(error) => {
                tracing::error!(
                    stream,
                    key = stored.key,
                    error = &error as &dyn std::error::Error,
                    "stored record is refused"
                );
                None
            }
        }
    })?;
    Ok(opened)
}

async fn serve_admin(
    config: &EdgeConfig,
    parts: &Parts,
    shutdown: Shutdown,
) -> Result<(SocketAddr, JoinHandle<()>), AppError> {
    let failed = |source| AppError::Admin {
        addr: config.admin,
        source,
    };
    let socket = TcpListener::bind(config.admin).await.map_err(failed)?;
    let addr = socket.local_addr().map_err(failed)?;
    let admin = Admin {
        table: Arc::clone(&parts.table),
        metrics: Arc::clone(&parts.metrics),
        ready: Arc::clone(&parts.ready),
    };
    let task = tokio::spawn(async move {
        if let Err(error) = admin::serve(socket, admin, shutdown).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the admin address is no longer served"
            );
        }
    });
    Ok((addr, task))
}

fn follow(
    feeds: Vec<(Feed, watch::Receiver<FeedStatus>)>,
    reports: Arc<Reports>,
    client: Client,
    metrics: Arc<Metrics>,
) -> Vec<JoinHandle<()>> {
    let statuses = feeds
        .iter()
        .map(|(feed, status)| (feed.stream(), status.clone()))
        .collect();
    let mut tasks = vec![tokio::spawn(reports.run(client, statuses, metrics))];
    tasks.extend(feeds.into_iter().map(|(feed, _)| tokio::spawn(feed.run())));
    tasks
}

async fn wait_for(mut settled: watch::Receiver<bool>) {
    // Late or never: the listener opens all the same, and what is ready is served.
    let _ = tokio::time::timeout(RESTORE_WAIT, settled.wait_for(|settled| *settled)).await;
}

fn tls_listener(config: &EdgeConfig) -> Result<Option<TlsListener>, TlsError> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    Ok(Some(TlsListener {
        addr: tls.listen,
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
        access_log: config.access_log,
        upstreams: config.upstreams.clone(),
        limits: Limits::default(),
        http3,
        tls,
        lanes: listener::Lanes::default(),
    }
}
