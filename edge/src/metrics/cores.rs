//! What the cores have counted, added up when it is asked for.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily};

use super::{CORE_METRICS, CoreMetric};
use crate::tally::{BOUNDS, CLASSES, Cell, PROTOCOLS, Tally};

/// The counts of every core so far.
#[derive(Clone, Debug)]
pub(super) struct Cores {
    tallies: Arc<Mutex<Vec<Arc<Tally>>>>,
    descriptions: Arc<[Desc]>,
}

impl Cores {
    pub(super) fn new() -> prometheus::Result<Self> {
        let describe = |metric: &CoreMetric| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned());
            let (name, help) = (metric.name.to_owned(), metric.help.to_owned());
            Desc::new(
                name,
                help,
                labels.collect(),
                std::collections::HashMap::new(),
            )
        };
        let descriptions: prometheus::Result<Vec<Desc>> =
            CORE_METRICS.iter().map(describe).collect();
        Ok(Self {
            tallies: Arc::default(),
            descriptions: descriptions?.into(),
        })
    }

    pub(super) fn sum(&self, of: impl Fn(&Tally) -> &Cell) -> u64 {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        All(&tallies).sum(of)
    }

    /// One more core. What it counted stays when it has ended.
    pub(super) fn join(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
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
        CORE_METRICS
            .iter()
            .map(|metric| metric.family(&all))
            .collect()
    }
}

/// Every core.
#[derive(Clone, Copy)]
pub(super) struct All<'a>(&'a [Arc<Tally>]);

impl All<'_> {
    fn sum(&self, cell: impl Fn(&Tally) -> &Cell) -> u64 {
        self.0.iter().map(|tally| cell(tally).count()).sum()
    }
}

impl CoreMetric {
    fn family(&self, all: &All<'_>) -> MetricFamily {
        let metrics = (self.samples)(self.labels, all);
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(metrics);
        family
    }
}

/// Requests by protocol and class; those that there were.
pub(super) fn requests(labels: &[&str], all: &All<'_>) -> Vec<Metric> {
    let each = (0..PROTOCOLS.len()).flat_map(|row| (0..CLASSES.len()).map(move |at| (row, at)));
    each.map(|(row, at)| (row, at, all.sum(|tally| &tally.requests[row][at])))
        .filter(|(_, _, count)| *count > 0)
        .map(|(row, at, count)| counted(labels, &[PROTOCOLS[row], CLASSES[at]], count))
        .collect()
}

pub(super) fn response_bytes(_: &[&str], all: &All<'_>) -> Vec<Metric> {
    vec![counted(&[], &[], all.sum(|tally| &tally.response_bytes))]
}

pub(super) fn request_seconds(_: &[&str], all: &All<'_>) -> Vec<Metric> {
    let mut histogram = Histogram::default();
    let mut count = 0;
    let mut buckets = Vec::with_capacity(BOUNDS.len());
    for (at, bound) in BOUNDS.iter().enumerate() {
        count += all.sum(|tally| &tally.took[at]);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(in_seconds(*bound));
        bucket.set_cumulative_count(count);
        buckets.push(bucket);
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count + all.sum(|tally| &tally.took[BOUNDS.len()]));
    histogram.set_sample_sum(in_seconds(all.sum(|tally| &tally.took_micros)));
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    vec![metric]
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for people and graphs, beyond 2^53 too"
)]
fn counted(labels: &[&str], values: &[&str], count: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(count as f64);
    let mut metric = Metric::from_label(pairs(labels, values));
    metric.set_counter(counter);
    metric
}

fn pairs(labels: &[&str], values: &[&str]) -> Vec<LabelPair> {
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().zip(values).map(pair).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of so many years is not exact in any case"
)]
fn in_seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
