//! The feed: what is committed in SQL, on its way to the edges.
//!
//! ```text
//!  records + outbox ──publisher──▶ KV_g, KV_r_<region> ──republish──▶ edges
//!         └────────────snapshots──▶ OBJ_snap_*            beacon 1 s ──▶
//! ```
//!
//! Invariant: SQL decides. A stream holds only what SQL holds or held, every write to it is
//! conditional on this origin's term, and a stream that lost something gets a new incarnation and
//! everything again. Nothing here waits for NATS on behalf of a request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use helix_routing::id::{Incarnation, RegionId};
use helix_routing::key::Scope;
use helix_service::keys::{KeyRing, PublicKey, SigningKey};
use helix_service::shutdown::Shutdown;
use tokio::sync::mpsc;

use crate::fleet::Heads;
use crate::rollout::Adopter;
use crate::store::{Store, StoreError};

mod beacon;
mod bulk;
mod glass;
mod message;
mod publisher;
pub mod records;
mod server;
mod snapshot;
mod streams;

pub use records::RecordError;
pub use server::ServerError;
pub use streams::StreamError;

/// How often a start looks whether NATS is there yet.
const CONNECT_POLL: Duration = Duration::from_millis(50);
/// Wait before a stream that could not be made ready is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// An acknowledgement takes a few milliseconds; one that takes longer was probably lost.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Republications waiting for the publisher. They are asked for again, so those beyond may be dropped.
const REQUEST_QUEUE: usize = 4096;

/// The feed cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The server is not fit.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A stream is not ours to write, or SQL failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl From<StoreError> for FeedError {
    fn from(source: StoreError) -> Self {
        Self::Stream(source.into())
    }
}

/// What an operator says of the streams.
#[derive(Clone, Debug)]
pub struct Policy {
    /// To edges: what snapshots lack is really gone.
    pub may_drop: bool,
    /// So many servers keep each stream.
    pub replicas: usize,
    /// What they signed counts.
    pub operators: Operators,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            may_drop: false,
            replicas: 1,
            operators: Operators::default(),
        }
    }
}

/// The feed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    client: async_nats::Client,
    jetstream: jetstream::Context,
    key: Arc<SigningKey>,
    ring: KeyRing,
    /// By stream.
    scopes: BTreeMap<String, Scope>,
    /// By stream; one that is not ready for writing has no entry.
    lives: Mutex<BTreeMap<String, Life>>,
    /// How many records the newest snapshot of each stream has.
    snapshots: Mutex<BTreeMap<String, u64>>,
    policy: Policy,
    requests: mpsc::Sender<Request>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Request>>,
}

/// Who may write past origin, and who takes it over.
#[derive(Clone, Debug, Default)]
pub struct Operators {
    /// Their keys.
    pub keys: Vec<PublicKey>,
    /// Takes it over.
    pub adopter: Option<Adopter>,
}

/// What is known of a stream that is ready for writing.
#[derive(Clone, Debug)]
struct Life {
    incarnation: Incarnation,
    /// Sequence of our term's record: the condition of every write.
    term_sequence: u64,
    /// The highest sequence that was acknowledged to us.
    acknowledged: u64,
    /// Sequence of the newest snapshot of this life.
    snapshot: Option<u64>,
}

/// What the publisher can be asked for besides the outbox.
#[derive(Debug)]
enum Request {
    /// Publish a record once more, as it is.
    Republish { stream: String, key: String },
    /// The stream is not what it was.
    Establish { stream: String },
}

impl Feed {
    /// A feed to the streams of every edge and of each region. Nothing is sent before [`Feed::run`].
    #[must_use]
    pub fn new(
        store: Store,
        client: async_nats::Client,
        key: Arc<SigningKey>,
        regions: &[RegionId],
        policy: Policy,
    ) -> Self {
        let operators = &policy.operators;
        let ring = KeyRing::new(operators.keys.iter().cloned().chain([key.public()]));
        let scopes =
            std::iter::once(Scope::Global).chain(regions.iter().cloned().map(Scope::Region));
        let (requests, inbox) = mpsc::channel(REQUEST_QUEUE);
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(ACKNOWLEDGE_TIMEOUT)
            .build(client.clone());
        Self(Arc::new(Inner {
            store,
            client,
            jetstream,
            ring,
            key,
            scopes: scopes.map(|scope| (scope.stream(), scope)).collect(),
            lives: Mutex::default(),
            snapshots: Mutex::default(),
            policy,
            requests,
            inbox: tokio::sync::Mutex::new(inbox),
        }))
    }

    /// Publishes a record once more, as it is: edges answer with their report.
    pub fn republish(&self, scope: &Scope, key: String) {
        self.0.ask(Request::Republish {
            stream: scope.stream(),
            key,
        });
    }

    /// The life of each stream that is ready for writing, and how far it has come.
    #[must_use]
    pub fn heads(&self) -> Heads {
        let lives = self.0.lives();
        let head = |(stream, life): (&String, &Life)| {
            (
                stream.clone(),
                (life.incarnation.clone(), life.acknowledged),
            )
        };
        lives.iter().map(head).collect()
    }

    /// How many streams are ready for writing, of how many.
    #[must_use]
    pub fn ready_streams(&self) -> (usize, usize) {
        (self.0.lives().len(), self.0.scopes.len())
    }

    /// Makes the streams ready and feeds them until shutdown. Waits for a server that is away.
    ///
    /// # Errors
    /// When the server is not fit, another origin leads, or SQL fails: the process has to end.
    pub async fn run(&self, monitor: Option<&str>, shutdown: &Shutdown) -> Result<(), FeedError> {
        tokio::select! {
            () = shutdown.requested() => Ok(()),
            result = self.work(monitor) => result,
        }
    }

    async fn work(&self, monitor: Option<&str>) -> Result<(), FeedError> {
        let inner = &*self.0;
        inner.await_server(monitor).await?;
        for scope in inner.scopes.values() {
            inner.establish(scope).await?;
        }
        tokio::try_join!(
            publisher::run(inner),
            beacon::run(inner),
            snapshot::run(inner)
        )?;
        Ok(())
    }
}

impl Inner {
    async fn await_server(&self, monitor: Option<&str>) -> Result<(), ServerError> {
        while self.client.connection_state() != State::Connected {
            tokio::time::sleep(CONNECT_POLL).await;
        }
        server::check_version(&self.client.server_info().version)?;
        server::check_sync(monitor.ok_or(ServerError::Unmonitored)?).await
    }

    /// Makes a stream ready for writing, however long NATS takes.
    async fn establish(&self, scope: &Scope) -> Result<(), StreamError> {
        let stream = scope.stream();
        self.lives().remove(&stream);
        loop {
            match streams::establish(self, scope).await {
                Ok(life) => {
                    self.lives().insert(stream, life);
                    return Ok(());
                }
                Err(StreamError::Link {
                    attempted, source, ..
                }) => {
                    tracing::warn!(stream, attempted, error = &*source, "stream is not ready");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    match &error {
                        StreamError::Fenced { .. } => self.store.fence(),
                        // The next start leads above it, and takes over what was decided.
                        StreamError::Overruled { theirs, .. } => {
                            self.store.rise_to(*theirs).await?
                        }
                        StreamError::Store(_)
                        | StreamError::Adopt { .. }
                        | StreamError::Link { .. } => {}
                    }
                    return Err(error);
                }
            }
        }
    }

    fn ask(&self, request: Request) {
        if let Err(error) = self.requests.try_send(request) {
            tracing::debug!(%error, "request to the publisher is dropped");
        }
    }

    fn acknowledge(&self, stream: &str, sequence: u64) {
        if let Some(life) = self.lives().get_mut(stream) {
            life.acknowledged = life.acknowledged.max(sequence);
        }
    }

    fn snapshot_records(&self, stream: &str) -> u64 {
        let snapshots = self
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        snapshots.get(stream).copied().unwrap_or(0)
    }

    fn note_snapshot_records(&self, stream: &str, records: u64) {
        let mut snapshots = self
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        snapshots.insert(stream.to_owned(), records);
    }

    fn life(&self, stream: &str) -> Option<Life> {
        self.lives().get(stream).cloned()
    }

    fn lives(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Life>> {
        // Each change is one insert or assignment, so a panic elsewhere leaves nothing half done.
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
