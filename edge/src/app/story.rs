//! The release story of one edge: what its disk knows, made ready, and the records that follow.
//!
//! It can be told again from the disk on, when a handover did not come about.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use helix_routing::key::Scope;
use helix_service::keys::KeyRing;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{AppError, Parts};
use crate::agent::{self, Agent};
use crate::config::EdgeConfig;
use crate::feed::{Feed, FeedStatus, Known};
use crate::state::Ledger;
use crate::store::{Fetcher, Store, Trust};
use crate::visitor;

/// How long the listener waits for the releases on disk. They are there within milliseconds; one that has to be
/// fetched first must not keep the others waiting.
const RESTORE_WAIT: Duration = Duration::from_secs(3);

/// Everything it is told with.
pub(super) struct Story {
    pub(super) config: EdgeConfig,
    pub(super) ring: Arc<KeyRing>,
    pub(super) client: Client,
    pub(super) parts: Arc<Parts>,
}

/// Told up to where the disk ends.
pub(super) struct Restored {
    agent: JoinHandle<()>,
    feeds: Vec<(Feed, watch::Receiver<FeedStatus>)>,
    settled: watch::Receiver<bool>,
}

impl Story {
    /// Reads the disk and starts to make ready what it names.
    pub(super) fn restore(&self) -> Result<Restored, AppError> {
        let mut agent = self.open_agent()?;
        agent.restore_overrides();
        let (changes, inbox) = mpsc::channel(agent::MAX_WAITING_CHANGES);
        let mut feeds = Vec::new();
        let mut whole = true;
        for scope in [Scope::Global, Scope::Region(self.config.region.clone())] {
            let folder = self.config.data_dir.join("state").join(scope.stream());
            let ring = Arc::clone(&self.ring);
            let ledger = Ledger::open(folder, scope.clone(), ring, |opened| {
                agent.restore(opened.into_iter().map(|opened| opened.record));
            })?;
            whole &= ledger.position().incarnation.is_some();
            let (ring, client) = (Arc::clone(&self.ring), self.client.clone());
            let known = Known {
                ledger,
                table: Arc::clone(&self.parts.table),
                edge: self.config.edge.clone(),
            };
            feeds.push(Feed::new(scope, ring, client, known, changes.clone()));
        }
        agent.restored();
        drop(changes);
        let shown = feeds.iter().map(|(_, status)| status.clone()).collect();
        let (settling, settled) = watch::channel(false);
        let agent = tokio::spawn(agent.run(inbox, shown, whole, settling));
        Ok(Restored {
            agent,
            feeds,
            settled,
        })
    }

    /// Tells it again, from the disk on.
    pub(super) fn go_on(&self) -> Result<Vec<JoinHandle<()>>, AppError> {
        Ok(self.restore()?.follow(self))
    }

    fn open_agent(&self) -> Result<Agent, AppError> {
        let config = &self.config;
        let folder = config.data_dir.join("store");
        let store = Store::open(&folder, config.cache_bytes)
            .map_err(|source| AppError::Store { folder, source })?;
        let origins = std::iter::once(&config.origin.url).chain(&config.origin.others);
        let fetcher = Fetcher::of_several(origins.map(String::as_str), &config.origin.token_file)
            .map_err(|source| AppError::Fetcher {
            url: config.origin.url.clone(),
            source,
        })?;
        let counted = self.parts.metrics.provenance.clone();
        let fetcher = fetcher.trusting(Trust::of(&self.ring, counted));
        tokio::spawn(visitor::key::keep(
            fetcher.clone(),
            config.data_dir.clone(),
            Arc::clone(&self.parts.table),
        ));
        Ok(Agent::new(
            Arc::clone(&self.parts.table),
            (store, fetcher),
            Arc::clone(&self.parts.reports),
            Arc::clone(&self.parts.ready),
            &config.data_dir,
            (self.parts.asking.subscribe(), Arc::clone(&self.parts.desk)),
        )
        .telling(self.parts.maintenance.clone()))
    }
}

impl Restored {
    /// Waits until what the disk names is ready, but not for long.
    pub(super) async fn wait(&mut self) {
        let settled = self.settled.wait_for(|settled| *settled);
        // Late or never: the listener opens all the same, and what is ready is served.
        let _ = tokio::time::timeout(RESTORE_WAIT, settled).await;
    }

    /// How far each stream is followed.
    pub(super) fn statuses(&self) -> Vec<watch::Receiver<FeedStatus>> {
        self.feeds
            .iter()
            .map(|(_, status)| status.clone())
            .collect()
    }

    /// Follows the records.
    pub(super) fn follow(self, story: &Story) -> Vec<JoinHandle<()>> {
        let feeds = &self.feeds;
        let statuses = feeds
            .iter()
            .map(|(feed, status)| (feed.stream(), status.clone()))
            .collect();
        let reports = Arc::clone(&story.parts.reports);
        let reporting = reports.run(
            story.client.clone(),
            statuses,
            Arc::clone(&story.parts.metrics),
            story.parts.maintenance.clone(),
        );
        let mut tasks = vec![self.agent, tokio::spawn(reporting)];
        tasks.extend(
            self.feeds
                .into_iter()
                .map(|(feed, _)| tokio::spawn(feed.run())),
        );
        tasks
    }
}
