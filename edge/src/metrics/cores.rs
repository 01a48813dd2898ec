//! What the cores have counted, added up when it is asked for.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily};

use super::CORE_METRICS;
use super::sample::{Sample, description, family, sample};
use crate::tally::{BOUNDS, CLASSES, Cell, PROTOCOLS, Tally};

/// The counts of every core so far.
#[derive(Clone, Debug)]
pub(super) struct Cores {
    tallies: Arc<Mutex<Vec<Arc<Tally>>>>,
    descriptions: Arc<[Desc]>,
}

impl Cores {
    pub(super) fn new() -> prometheus::Result<Self> {
        let describe = CORE_METRICS
            .iter()
            .map(|metric| description(metric.name, metric.help, metric.labels));
        let descriptions: prometheus::Result<Vec<Desc>> = describe.collect();
        Ok(Self {
            tallies: Arc::default(),
            descriptions: descriptions?.into(),
        })
    }

    /// What all have counted in the cell that `of` chooses.
    pub(super) fn sum(&self, of: impl Fn(&Tally) -> &Cell) -> u64 {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        All(&tallies).sum(of)
    }

    /// One more core. What it counted stays when it has ended.
    pub(super) fn join(&self) -> Arc<Tally> {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = Arc::new(Tally {
            core: tallies.len(),
            ..Tally::default()
        });
        tallies.push(Arc::clone(&tally));
        tally
    }
}

impl Collector for Cores {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let all = All(&tallies);
        let families = CORE_METRICS.iter().map(|metric| {
            let samples = (metric.samples)(metric.labels, &all);
            family((metric.name, metric.help), metric.kind, samples)
        });
        families.collect()
    }
}

/// Every core.
#[derive(Clone, Copy)]
pub(super) struct All<'a>(&'a [Arc<Tally>]);

impl All<'_> {
    pub(super) fn sum(&self, cell: impl Fn(&Tally) -> &Cell) -> u64 {
        self.0.iter().map(|tally| cell(tally).count()).sum()
    }
}

/// Requests by protocol and class; those that there were.
pub(super) fn requests(labels: &[&str], all: &All<'_>) -> Vec<Sample> {
    let each = (0..PROTOCOLS.len()).flat_map(|row| (0..CLASSES.len()).map(move |at| (row, at)));
    each.map(|(row, at)| (row, at, all.sum(|core| &core.requests[row][at])))
        .filter(|(_, _, count)| *count > 0)
        .map(|(row, at, count)| sample(labels, &[PROTOCOLS[row], CLASSES[at]], count))
        .collect()
}

pub(super) fn request_seconds(_: &[&str], all: &All<'_>) -> Vec<Sample> {
    let mut count = 0;
    let mut buckets = Vec::with_capacity(BOUNDS.len());
    for (at, bound) in BOUNDS.iter().enumerate() {
        count += all.sum(|core| &core.took[at]);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(in_seconds(*bound));
        bucket.set_cumulative_count(count);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count + all.sum(|core| &core.took[BOUNDS.len()]));
    histogram.set_sample_sum(in_seconds(all.sum(|core| &core.took_micros)));
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    vec![metric]
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of so many years is not exact in any case"
)]
fn in_seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
