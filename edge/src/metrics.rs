//! Every metric of the edge, by name. Labels are bounded: never a host, a path or a release.
//!
//! Each series also carries `edge` and `region`. Values are set where things happen; this only names them.

use std::collections::HashMap;

use helix_routing::id::{EdgeId, RegionId};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// From memory to slow clients.
const SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0,
];

/// What an edge counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Finished requests by `protocol` (h1, h2) and `class` (1xx to 5xx; none when nothing was sent).
    pub requests: IntCounterVec,
    /// Time from head to last byte.
    pub request_seconds: Histogram,
    /// Bytes of response bodies sent.
    pub response_bytes: IntCounter,
    /// Bodies that could not be read from the store.
    pub bodies_failed: IntCounter,
    /// Open connections.
    pub connections: IntGauge,
    /// Accepted connections.
    pub connections_accepted: IntCounter,
    /// Connections closed at once by `limit` (total, address).
    pub connections_refused: IntCounterVec,
    /// Accepts that failed.
    pub accepts_failed: IntCounter,
    /// Request heads refused by `reason`.
    pub heads_refused: IntCounterVec,
    /// TLS handshakes by `outcome` (full, resumed, `unknown_name`, refused, gone, timeout).
    pub handshakes: IntCounterVec,
    /// HTTP/2 connections ended by the edge, by `reason` (flood, `slow_head`, held).
    pub http2_cut: IntCounterVec,
    /// Requests under rules that cache, by `outcome` (hit, stale, miss, collapsed, bypass).
    pub cache: IntCounterVec,
    /// What upstreams' responses take of the disk.
    pub disk_cache: DiskCache,
    /// How it follows its records.
    pub following: Following,
}

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
    fn new(registry: &Registry) -> Self {
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

/// How an edge follows its records.
#[derive(Debug)]
pub struct Following {
    /// 1 while the edge serves what its region's records name.
    pub ready: IntGauge,
    /// Last sequence followed, by `stream`: the global one and the region's.
    pub feed_sequence: IntGaugeVec,
    /// 1 while no beacon came for too long, by `stream`. The edge serves on.
    pub feed_stale: IntGaugeVec,
    /// Records refused since the start.
    pub records_refused: IntGauge,
}

impl Following {
    fn new(registry: &Registry) -> Self {
        Self {
            ready: register(
                registry,
                IntGauge::new("helix_edge_ready", "It serves what its records name."),
            ),
            feed_sequence: gauges(
                registry,
                "helix_edge_feed_sequence",
                "Last sequence followed.",
                &["stream"],
            ),
            feed_stale: gauges(
                registry,
                "helix_edge_feed_stale",
                "No beacon for too long.",
                &["stream"],
            ),
            records_refused: register(
                registry,
                IntGauge::new(
                    "helix_edge_records_refused",
                    "Records refused since the start.",
                ),
            ),
        }
    }
}

impl Metrics {
    /// All of them at zero.
    #[must_use]
    #[expect(
        clippy::too_many_lines,
        reason = "one entry per metric, and nothing else"
    )]
    pub fn new(edge: &EdgeId, region: &RegionId) -> Self {
        let labels = HashMap::from([
            ("edge".to_owned(), edge.to_string()),
            ("region".to_owned(), region.to_string()),
        ]);
        let registry =
            Registry::new_custom(None, Some(labels)).expect("no prefix is no empty prefix");
        Self {
            requests: counters(
                &registry,
                "helix_edge_requests_total",
                "Finished requests.",
                &["protocol", "class"],
            ),
            request_seconds: register(
                &registry,
                seconds("helix_edge_request_seconds", "From head to last byte."),
            ),
            response_bytes: counter(
                &registry,
                "helix_edge_response_bytes_total",
                "Bytes of response bodies sent.",
            ),
            bodies_failed: counter(
                &registry,
                "helix_edge_bodies_failed_total",
                "Bodies that could not be read.",
            ),
            connections: register(
                &registry,
                IntGauge::new("helix_edge_connections", "Open connections."),
            ),
            connections_accepted: counter(
                &registry,
                "helix_edge_connections_accepted_total",
                "Accepted connections.",
            ),
            connections_refused: counters(
                &registry,
                "helix_edge_connections_refused_total",
                "Connections over a limit.",
                &["limit"],
            ),
            accepts_failed: counter(
                &registry,
                "helix_edge_accepts_failed_total",
                "Accepts that failed.",
            ),
            heads_refused: counters(
                &registry,
                "helix_edge_heads_refused_total",
                "Request heads refused.",
                &["reason"],
            ),
            handshakes: counters(
                &registry,
                "helix_edge_handshakes_total",
                "TLS handshakes.",
                &["outcome"],
            ),
            http2_cut: counters(
                &registry,
                "helix_edge_http2_cut_total",
                "HTTP/2 connections ended for abuse.",
                &["reason"],
            ),
            cache: counters(
                &registry,
                "helix_edge_cache_requests_total",
                "Requests under rules that cache.",
                &["outcome"],
            ),
            disk_cache: DiskCache::new(&registry),
            following: Following::new(&registry),
            registry,
        }
    }

    /// Where further collectors of this process are registered.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything, in the text format of Prometheus.
    ///
    /// # Errors
    /// When two collectors contradict each other.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn seconds(name: &str, help: &str) -> prometheus::Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect("names and labels are legal");
    registry
        .register(Box::new(collector.clone()))
        .expect("each name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_names_its_edge_and_region() {
        let metrics = Metrics::new(&"fra-1".parse().unwrap(), &"fra".parse().unwrap());
        metrics.requests.with_label_values(&["h1", "2xx"]).inc();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(
                line.contains(r#"edge="fra-1""#) && line.contains(r#"region="fra""#),
                "{line}"
            );
        }
        assert!(
            text.lines()
                .any(|line| line.starts_with("helix_edge_requests_total{") && line.ends_with(" 1")),
            "{text}"
        );
    }
}
