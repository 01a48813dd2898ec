//! Applies what the fleet purges of a site's stored responses, one record after the other, and reports each when it is
//! through.
//!
//! The record is on disk by then. If the process ends half-way, the next one holds every file against the record.

use std::sync::Arc;

use helix_routing::id::SiteId;
use helix_routing::record::PurgeRecord;
use tokio::task::JoinHandle;

use super::reports::Reports;
use crate::cache::store::Store;

/// The purges of all sites.
#[derive(Debug)]
pub(super) struct Purging {
    store: Arc<Store>,
    reports: Arc<Reports>,
    last: Option<JoinHandle<()>>,
}

impl Purging {
    pub(super) const fn new(store: Arc<Store>, reports: Arc<Reports>) -> Self {
        Self {
            store,
            reports,
            last: None,
        }
    }

    /// Lets what was purged be forgotten, and then reported.
    pub(super) fn apply(&mut self, record: PurgeRecord) {
        // At once: what is fetched from now on has lived through it.
        let purges = self.store.purges().adopt(&record);
        let (store, reports) = (Arc::clone(&self.store), Arc::clone(&self.reports));
        let before = self.last.take();
        self.last = Some(tokio::spawn(async move {
            // One after the other, so that a report means all before it as well.
            if let Some(before) = before {
                let _ = before.await;
            }
            let forgetting = tokio::task::spawn_blocking(move || store.forget(&purges));
            let Ok(forgotten) = forgetting.await else {
                return;
            };
            if forgotten > 0 {
                tracing::info!(site = %record.site, purge = record.generation.0, forgotten, "responses are forgotten");
            }
            reports.purged(&record.site, record.generation);
        }));
    }

    /// The stream says nothing of this site's purges any more: everything of it is forgotten.
    pub(super) fn dropped(&self, site: &SiteId) {
        let store = Arc::clone(&self.store);
        let purge = store.purges().abandon(site);
        tokio::task::spawn_blocking(move || store.forget(&[purge]));
    }
}
