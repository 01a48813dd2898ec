//! Every metric of the edge, by name. Labels are bounded: never a host, a path or a release.
//!
//! Each series also carries `edge` and `region`. Values are set where things happen; this only names them.

mod cores;
mod disk_cache;
mod gates;
mod looked;
mod sample;

use std::collections::HashMap;
use std::sync::Arc;

use helix_routing::id::{EdgeId, RegionId};
use prometheus::proto::MetricType;
use prometheus::{
    Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::cores::{All, Cores};
pub use self::disk_cache::DiskCache;
pub use self::gates::Gates;
use self::looked::{Looker, Things};
use self::sample::{Sample, each, one};
use crate::forward::Upstreams;
use crate::table::Table;
use crate::tally::{CacheOutcome, Cell, DRAINED, FORWARDS, SIDES, Tally, USES};

/// What is counted with every request, core by core ([`Tally`]).
const CORE_METRICS: [CoreMetric; 12] = [
    CoreMetric {
        name: "helix_edge_requests_total",
        help: "Finished requests.",
        kind: MetricType::COUNTER,
        labels: &["protocol", "class"],
        samples: cores::requests,
    },
    CoreMetric {
        name: "helix_edge_request_seconds",
        help: "From head to last byte.",
        kind: MetricType::HISTOGRAM,
        labels: &[],
        samples: cores::request_seconds,
    },
    CoreMetric {
        name: "helix_edge_response_bytes_total",
        help: "Bytes of response bodies sent.",
        kind: MetricType::COUNTER,
        labels: &[],
        samples: |labels, all| one(labels, all.sum(|core| &core.response_bytes)),
    },
    CoreMetric {
        name: "helix_edge_cache_requests_total",
        help: "Requests under rules that cache.",
        kind: MetricType::COUNTER,
        labels: &["outcome"],
        samples: |labels, all| {
            let label = |at: usize| CacheOutcome::ALL[at].label();
            each(labels, CacheOutcome::ALL.len(), |at| {
                (label(at), all.sum(|core| &core.cache[at]))
            })
        },
    },
    CoreMetric {
        name: "helix_edge_forwards_total",
        help: "Requests sent on to upstreams.",
        kind: MetricType::COUNTER,
        labels: &["outcome"],
        samples: |labels, all| {
            each(labels, FORWARDS.len(), |at| {
                (FORWARDS[at], all.sum(|core| &core.forwards[at]))
            })
        },
    },
    CoreMetric {
        name: "helix_edge_split_requests_total",
        help: "Requests of sites whose visitors do not all get the same release.",
        kind: MetricType::COUNTER,
        labels: &["side"],
        samples: |labels, all| {
            each(labels, SIDES.len(), |at| {
                (SIDES[at], all.sum(|core| &core.sides[at]))
            })
        },
    },
    CoreMetric {
        name: "helix_edge_upstream_tries_total",
        help: "Servers that requests were sent to, or were to be.",
        kind: MetricType::COUNTER,
        labels: &[],
        samples: |labels, all| one(labels, all.sum(|core| &core.upstream_tries)),
    },
    CoreMetric {
        name: "helix_edge_upstream_retries_total",
        help: "Tries beyond the first of a request.",
        kind: MetricType::COUNTER,
        labels: &[],
        samples: |labels, all| one(labels, all.sum(|core| &core.upstream_retries)),
    },
    CoreMetric {
        name: "helix_edge_upstream_ejections_total",
        help: "Times a server was taken out for failing requests.",
        kind: MetricType::COUNTER,
        labels: &[],
        samples: |labels, all| one(labels, all.sum(|core| &core.upstream_ejections)),
    },
    CoreMetric {
        name: "helix_edge_upstream_connections_total",
        help: "HTTP/1.1 connections to upstreams that were made or used again.",
        kind: MetricType::COUNTER,
        labels: &["use"],
        samples: |labels, all| {
            each(labels, USES.len(), |at| {
                (USES[at], all.sum(|core| &core.upstream_connections[at]))
            })
        },
    },
    CoreMetric {
        name: "helix_edge_upstream_idle_connections",
        help: "HTTP/1.1 connections to upstreams that wait for a request.",
        kind: MetricType::GAUGE,
        labels: &[],
        samples: |labels, all| one(labels, all.sum(|core| &core.upstream_idle)),
    },
    CoreMetric {
        name: "helix_edge_drained_total",
        help: "What the end of a drain ended, and how.",
        kind: MetricType::COUNTER,
        labels: &["how"],
        samples: |labels, all| {
            each(labels, DRAINED.len(), |at| {
                (DRAINED[at], all.sum(|core| &core.drained[at]))
            })
        },
    },
];

/// What is looked up when it is asked for.
const LOOKED_UP: [Looked; 4] = [
    Looked {
        name: "helix_edge_in_flight",
        help: "Requests that are being answered and WebSockets that are open, on releases that are live, and that are not.",
        labels: &["what", "release"],
        samples: looked::in_flight,
    },
    Looked {
        name: "helix_edge_upstream_servers",
        help: "Servers of upstreams, by what they are held for.",
        labels: &["state"],
        samples: looked::upstream_servers,
    },
    Looked {
        name: "helix_edge_cache_entries",
        help: "URLs that a response is kept for.",
        labels: &[],
        samples: looked::cache_entries,
    },
    Looked {
        name: "helix_edge_cache_bytes",
        help: "Bytes of responses that are kept.",
        labels: &[],
        samples: looked::cache_bytes,
    },
];

/// A gauge that is read where the thing itself is.
struct Looked {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: fn(&[&str], &Things) -> Vec<Sample>,
}

/// A metric that is the sum of what the cores have counted.
struct CoreMetric {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    samples: fn(&[&str], &All<'_>) -> Vec<Sample>,
}

/// What an edge counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What is counted with every request, core by core.
    cores: Cores,
    /// Lines of the access log that could not be written.
    pub access_log_lost: IntCounter,
    /// Releases by what came of asking where they come from, `outcome` (verified, refused, unchecked).
    pub provenance: IntCounterVec,
    /// What came of gates.
    pub gates: Gates,
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
    /// Answers to who was not let in to a protected site, or was just let in, by `outcome` (refused, link, password, wrong,
    /// limited, other).
    pub protected: IntCounterVec,
    /// TLS handshakes by `outcome` (full, resumed, `unknown_name`, refused, gone, timeout).
    pub handshakes: IntCounterVec,
    /// HTTP/2 connections ended by the edge, by `reason` (flood, `slow_head`, held).
    pub http2_cut: IntCounterVec,
    /// Open connections that speak HTTP/2.
    pub http2_connections: IntGauge,
    /// Open connections that speak HTTP/3.
    pub http3_connections: IntGauge,
    /// QUIC handshakes by `outcome` (done, failed, timeout).
    pub quic_handshakes: IntCounterVec,
    /// What upstreams' responses take of the disk.
    pub disk_cache: DiskCache,
    /// What gauges are read from.
    looker: Looker,
    /// How it follows its records.
    pub following: Following,
}

/// How an edge follows its records.
#[derive(Debug)]
pub struct Following {
    /// 1 while the edge serves what its region's records name.
    pub ready: IntGauge,
    /// 1 while the edge is taken out for maintenance.
    pub drains: IntGauge,
    /// Last sequence followed, by `stream`: the global one and the region's.
    pub feed_sequence: IntGaugeVec,
    /// 1 while no beacon came for too long, by `stream`. The edge serves on.
    pub feed_stale: IntGaugeVec,
    /// Records refused since the start.
    pub records_refused: IntGauge,
    /// Sites of which another release is served than the record names, by `state`: `standing`, or `expired`.
    pub overrides: IntGaugeVec,
}

impl Following {
    fn new(registry: &Registry) -> Self {
        Self {
            ready: register(
                registry,
                IntGauge::new("helix_edge_ready", "It serves what its records name."),
            ),
            drains: register(
                registry,
                IntGauge::new("helix_edge_drains", "It is taken out for maintenance."),
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
            overrides: gauges(
                registry,
                "helix_edge_overrides",
                "Sites that are overridden here.",
                &["state"],
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
            cores: register(&registry, Cores::new()),
            access_log_lost: counter(
                &registry,
                "helix_edge_access_log_lost_total",
                "Lines of the access log that could not be written.",
            ),
            provenance: counters(
                &registry,
                "helix_edge_provenance_total",
                "Releases by what came of asking where they come from.",
                &["outcome"],
            ),
            gates: Gates::new(&registry),
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
            protected: counters(
                &registry,
                "helix_edge_protected_total",
                "Answers of protected sites to who was not in.",
                &["outcome"],
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
            http2_connections: register(
                &registry,
                IntGauge::new("helix_edge_http2_connections", "Open HTTP/2 connections."),
            ),
            http3_connections: register(
                &registry,
                IntGauge::new("helix_edge_http3_connections", "Open HTTP/3 connections."),
            ),
            quic_handshakes: counters(
                &registry,
                "helix_edge_quic_handshakes_total",
                "QUIC handshakes.",
                &["outcome"],
            ),
            looker: register(&registry, Looker::new()),
            disk_cache: DiskCache::new(&registry),
            following: Following::new(&registry),
            registry,
        }
    }

    /// The counts of one more core.
    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        self.cores.join()
    }

    /// Reads gauges from these too, for as long as they are there.
    pub fn look_at(&self, upstreams: &Arc<Upstreams>, table: &Arc<Table>) {
        self.looker.look_at(upstreams, table);
    }

    /// What all cores have counted in the cell that `of` chooses.
    #[must_use]
    pub fn counted(&self, of: impl Fn(&Tally) -> &Cell) -> u64 {
        self.cores.sum(of)
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

/// Counts one in a gauge until dropped.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
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
    use crate::exchange::Protocol;
    use http::StatusCode;
    use std::time::Duration;

    #[test]
    fn every_series_names_its_edge_and_region() {
        let metrics = Metrics::new(&"fra-1".parse().unwrap(), &"fra".parse().unwrap());
        let took = Duration::from_millis(2);
        for core in [metrics.tally(), metrics.tally()] {
            core.finished(Protocol::Http1, Some(StatusCode::OK), 10, took);
        }
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(
                line.contains(r#"edge="fra-1""#) && line.contains(r#"region="fra""#),
                "{line}"
            );
        }
        assert!(
            text.lines()
                .any(|line| line.starts_with("helix_edge_requests_total{") && line.ends_with(" 2")),
            "{text}"
        );
        for (start, end) in [
            ("helix_edge_request_seconds_bucket", r#"le="0.001"} 0"#),
            ("helix_edge_request_seconds_bucket", r#"le="0.0025"} 2"#),
            ("helix_edge_request_seconds_bucket", r#"le="+Inf"} 2"#),
            ("helix_edge_request_seconds_sum", " 0.004"),
            ("helix_edge_request_seconds_count", " 2"),
            ("helix_edge_response_bytes_total", " 20"),
        ] {
            let said = |line: &str| line.starts_with(start) && line.ends_with(end);
            assert!(text.lines().any(said), "{start} {end} in {text}");
        }
    }
}
