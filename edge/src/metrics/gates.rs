//! What came of gates.

use helix_routing::gate::result::{GateKind, GateResult};
use helix_routing::verdict::Verdict;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Registry};

use super::{counters, register};

/// Seconds: an answer at once, a few probes, a server that starts, the longest deadlines.
const SECONDS: [f64; 7] = [0.1, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0];

/// What came of gates, and how long they took. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gates {
    ended: IntCounterVec,
    seconds: HistogramVec,
}

impl Gates {
    pub(super) fn new(registry: &Registry) -> Self {
        let seconds = HistogramOpts::new(
            "helix_edge_gate_seconds",
            "From the start of a gate to its end.",
        );
        let seconds = seconds.buckets(SECONDS.to_vec());
        let gates = Self {
            ended: counters(
                registry,
                "helix_edge_gates_total",
                "Gates that ended.",
                &["kind", "verdict"],
            ),
            seconds: register(registry, HistogramVec::new(seconds, &["kind"])),
        };
        // At zero from the start on, or the first failure of an edge would be no increase.
        for kind in GateKind::ALL {
            for verdict in Verdict::ALL {
                gates.counter(kind, verdict);
            }
        }
        gates
    }

    /// One more has ended.
    pub fn count(&self, result: &GateResult) {
        self.counter(result.kind, result.verdict).inc();
        // That the artifact is verified is known without asking anybody.
        if result.kind != GateKind::Artifact {
            let kind = result.kind.to_string();
            let took = std::time::Duration::from_millis(result.elapsed_ms);
            self.seconds
                .with_label_values(&[&kind])
                .observe(took.as_secs_f64());
        }
    }

    fn counter(&self, kind: GateKind, verdict: Verdict) -> prometheus::IntCounter {
        self.ended
            .with_label_values(&[kind.to_string().as_str(), verdict.label()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn result(kind: GateKind, verdict: Verdict, elapsed_ms: u64) -> GateResult {
        GateResult {
            gate: "a".to_owned(),
            kind,
            verdict,
            asked: String::new(),
            status: None,
            body: None,
            reason: None,
            probes: 1,
            elapsed_ms,
            last_probe: None,
        }
    }

    #[test]
    fn gates_are_counted_by_kind_and_verdict_and_timed_by_kind() {
        let metrics = Metrics::new(&"fra-1".parse().unwrap(), &"fra".parse().unwrap());
        metrics
            .gates
            .count(&result(GateKind::Http, Verdict::Pass, 2010));
        metrics
            .gates
            .count(&result(GateKind::Http, Verdict::Fail, 20_000));
        metrics
            .gates
            .count(&result(GateKind::Artifact, Verdict::Pass, 0));
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        // Labels that are the same in every series stand where the library puts them.
        let text = text
            .replace(r#"edge="fra-1",region="fra""#, "…")
            .replace(r#"region="fra",edge="fra-1""#, "…");
        for line in [
            r#"helix_edge_gates_total{kind="http",verdict="pass",…} 1"#,
            r#"helix_edge_gates_total{kind="http",verdict="fail",…} 1"#,
            r#"helix_edge_gates_total{kind="grpc",verdict="error",…} 0"#,
            r#"helix_edge_gates_total{kind="artifact",verdict="pass",…} 1"#,
            r#"helix_edge_gate_seconds_bucket{kind="http",…,le="1"} 0"#,
            r#"helix_edge_gate_seconds_bucket{kind="http",…,le="3"} 1"#,
            r#"helix_edge_gate_seconds_count{kind="http",…} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains(r#"helix_edge_gate_seconds_count{kind="artifact""#));
    }
}
