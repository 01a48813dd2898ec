//! Samples as Prometheus wants them, for what is not counted in its own types.

use std::collections::HashMap;

use prometheus::core::Desc;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// One value, by the values of its labels. A metric's type says which of the two it is.
pub(super) type Sample = Metric;

/// The only value of a metric.
pub(super) fn one(labels: &[&str], value: u64) -> Vec<Sample> {
    vec![sample(labels, &[], value)]
}

/// A value for each of `count` values of its only label.
pub(super) fn each<'a>(
    labels: &[&str],
    count: usize,
    at: impl Fn(usize) -> (&'a str, u64),
) -> Vec<Sample> {
    let values = (0..count).map(at);
    values
        .map(|(label, value)| sample(labels, &[label], value))
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for people and graphs, beyond 2^53 too"
)]
pub(super) fn sample(labels: &[&str], values: &[&str], value: u64) -> Sample {
    let (mut counter, mut gauge) = (Counter::default(), Gauge::default());
    counter.set_value(value as f64);
    gauge.set_value(value as f64);
    let mut metric = Metric::from_label(pairs(labels, values));
    metric.set_counter(counter);
    metric.set_gauge(gauge);
    metric
}

/// A metric with its samples.
pub(super) fn family(
    (name, help): (&str, &str),
    kind: MetricType,
    samples: Vec<Sample>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

pub(super) fn description(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Desc> {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
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
