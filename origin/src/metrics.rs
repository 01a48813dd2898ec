//! Every metric of origin, by name. Labels are bounded: never a host, a project or a path.

use helix_routing::rollout::{Kind, Outcome};
use helix_routing::verdict::Verdict;
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// What came of rollouts and of bakes, counted where they are driven: since this origin leads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ends {
    rollouts: IntCounterVec,
    bakes: IntCounterVec,
}

impl Ends {
    /// All of them at 0, which makes the first failure an increase.
    #[must_use]
    pub fn new() -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are legal")
        };
        let ends = Self {
            rollouts: counters(
                "helix_origin_rollouts_ended_total",
                "Rollouts that ended",
                &["kind", "outcome"],
            ),
            bakes: counters(
                "helix_origin_bakes_total",
                "Bakes that came to a verdict, region by region",
                &["verdict"],
            ),
        };
        for kind in Kind::ALL {
            for outcome in Outcome::ALL {
                let _ = ends.rollout(kind, outcome);
            }
        }
        for verdict in Verdict::ALL {
            let _ = ends.bake(verdict);
        }
        ends
    }

    /// How many rollouts of a kind ended so.
    #[must_use]
    pub fn rollout(&self, kind: Kind, outcome: Outcome) -> IntCounter {
        self.rollouts
            .with_label_values(&[kind.to_string().as_str(), outcome.label()])
    }

    /// How many bakes came to that.
    #[must_use]
    pub fn bake(&self, verdict: Verdict) -> IntCounter {
        self.bakes.with_label_values(&[verdict.label()])
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self::new()
    }
}

/// Origin's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// The leading term.
    pub epoch: IntGauge,
    /// Edges that hold their lease.
    pub edges_live: IntGauge,
    /// Edges that are registered.
    pub edges_registered: IntGauge,
    /// Streams ready for writing.
    pub streams_ready: IntGauge,
    /// Records that wait for JetStream.
    pub outbox: IntGauge,
    /// Rollouts that run.
    pub rollouts_running: IntGauge,
    /// Artifacts that the registry lacks, or of which it lacks a tag or a referrer.
    pub pushes_waiting: IntGauge,
    /// Of those, the ones that have failed.
    pub pushes_failing: IntGauge,
}

impl Metrics {
    /// All of them at 0, and what `ends` counts.
    ///
    /// # Errors
    /// When two have one name.
    pub fn new(ends: &Ends) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(ends.rollouts.clone()))?;
        registry.register(Box::new(ends.bakes.clone()))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            epoch: gauge("helix_origin_epoch", "Term in which this origin leads")?,
            edges_live: gauge("helix_origin_edges_live", "Edges that hold their lease")?,
            edges_registered: gauge("helix_origin_edges_registered", "Edges that were admitted")?,
            streams_ready: gauge(
                "helix_origin_streams_ready",
                "Streams of the feed that are ready for writing",
            )?,
            outbox: gauge(
                "helix_origin_outbox_records",
                "Records committed and not yet acknowledged by JetStream",
            )?,
            rollouts_running: gauge(
                "helix_origin_rollouts_running",
                "Rollouts that have not ended",
            )?,
            pushes_waiting: gauge(
                "helix_origin_registry_waiting",
                "Artifacts that wait to be pushed to the registry",
            )?,
            pushes_failing: gauge(
                "helix_origin_registry_failing",
                "Artifacts that wait to be pushed to the registry and have failed",
            )?,
            registry,
        })
    }

    /// All of them as Prometheus reads them.
    ///
    /// # Errors
    /// When one cannot be encoded.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}
