//! Sends what SQL holds to a stream of JetStream, page by page.
//!
//! Invariant: nothing waits for it. Whatever fails is logged, and tried again from the set-up of the stream on; what was sent and
//! not noted is sent again under its id, which the server knows.

use std::error::Error;
use std::time::Duration;

use async_nats::jetstream;
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;

use crate::store::{Store, StoreError};

/// Commits wake a relay; this only bounds what a missed wake-up could cost.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Wait before a stream is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Why nothing is sent now.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The database failed, or another origin leads.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NATS did not do it.
    #[error("{attempted} stream {stream}")]
    Link {
        /// What was attempted.
        attempted: &'static str,
        /// With which stream.
        stream: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<sqlx::Error> for RelayError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// What is sent, and where.
pub trait Relay: Sync {
    /// The stream.
    const STREAM: &'static str;
    /// What is logged when it fails.
    const FAILED: &'static str;

    /// Makes the stream what it has to be.
    fn set_up(
        &self,
        jetstream: &jetstream::Context,
    ) -> impl Future<Output = Result<(), RelayError>> + Send;

    /// Sends what comes next and notes that it was sent; how much that was.
    fn send_page(
        &self,
        jetstream: &jetstream::Context,
    ) -> impl Future<Output = Result<usize, RelayError>> + Send;
}

/// An error of NATS, in an attempt of this relay.
pub fn link<R: Relay, E: Error + Send + Sync + 'static>(
    attempted: &'static str,
) -> impl FnOnce(E) -> RelayError {
    move |source| RelayError::Link {
        attempted,
        stream: R::STREAM,
        source: Box::new(source),
    }
}

/// Sends until shutdown.
pub async fn run<R: Relay>(
    relay: &R,
    store: &Store,
    client: async_nats::Client,
    shutdown: &Shutdown,
) {
    let jetstream = jetstream::new(client);
    loop {
        let failed = tokio::select! {
            () = shutdown.requested() => return,
            failed = work(relay, store, &jetstream) => failed,
        };
        tracing::warn!(error = %chain(&failed), "{}", R::FAILED);
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

/// Ends only by failing.
async fn work<R: Relay>(relay: &R, store: &Store, jetstream: &jetstream::Context) -> RelayError {
    if let Err(error) = relay.set_up(jetstream).await {
        return error;
    }
    let committed = store.committed();
    loop {
        match relay.send_page(jetstream).await {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => return error,
        }
        tokio::select! {
            () = committed.notified() => {}
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
    }
}
