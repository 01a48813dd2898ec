//! Every metric of origin, by name. Labels are bounded: never a host, a project or a path.

use prometheus::{Encoder, IntGauge, Registry, TextEncoder};

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
    /// All of them at 0.
    ///
    /// # Errors
    /// When two have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
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
