//! What upstreams' responses take of the disk.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::{counters, register};

/// What upstreams' responses take of the disk. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DiskCache {
    bytes: IntGauge,
    entries: IntGauge,
    /// By `event`: hit, kept, evicted, busy (no free hands), `no_room`, purged (while it was written), `not_written`,
    /// failed (the disk refused), damaged and outdated (found and deleted).
    events: IntCounterVec,
}

impl DiskCache {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            bytes: register(
                registry,
                IntGauge::new("helix_edge_cache_disk_bytes", "Responses kept on disk."),
            ),
            entries: register(
                registry,
                IntGauge::new("helix_edge_cache_disk_entries", "Responses kept on disk."),
            ),
            events: counters(
                registry,
                "helix_edge_cache_disk_total",
                "What became of responses on disk.",
                &["event"],
            ),
        }
    }

    /// One more of these.
    pub fn count(&self, event: &str) {
        self.events.with_label_values(&[event]).inc();
    }

    /// How many there were of these.
    #[must_use]
    pub fn counted(&self, event: &str) -> u64 {
        self.events.with_label_values(&[event]).get()
    }

    /// What is there.
    pub fn show(&self, entries: usize, bytes: u64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
