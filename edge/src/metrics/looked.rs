//! Gauges that nobody keeps up to date: they are read from the things themselves when they are asked for.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::LOOKED_UP;
use super::sample::{Sample, description, each, family, one, sample};
use crate::forward::{State, Upstreams};
use crate::in_flight::Load;
use crate::table::Table;

/// As in labels.
const STATES: [(&str, State); 3] = [
    ("well", State::Well),
    ("ill", State::Ill),
    ("out", State::Out),
];

/// What one listener uses.
type Place = (Weak<Upstreams>, Weak<Table>);

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Looker {
    places: Arc<Mutex<Vec<Place>>>,
    descriptions: Arc<[Desc]>,
}

/// What was found there.
#[derive(Debug, Default)]
pub(super) struct Things {
    servers: Vec<State>,
    cache_entries: u64,
    cache_bytes: u64,
    live: Load,
    draining: Load,
}

impl Looker {
    pub(super) fn new() -> prometheus::Result<Self> {
        let describe = LOOKED_UP
            .iter()
            .map(|looked| description(looked.name, looked.help, looked.labels));
        let descriptions: prometheus::Result<Vec<Desc>> = describe.collect();
        Ok(Self {
            places: Arc::default(),
            descriptions: descriptions?.into(),
        })
    }

    pub(super) fn look_at(&self, upstreams: &Arc<Upstreams>, table: &Arc<Table>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|(upstreams, _)| upstreams.strong_count() > 0);
        places.push((Arc::downgrade(upstreams), Arc::downgrade(table)));
    }

    fn look(&self) -> Things {
        let mut things = Things::default();
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        for (upstreams, table) in places.iter() {
            let upstreams = upstreams.upgrade();
            things
                .servers
                .extend(upstreams.iter().flat_map(|upstreams| upstreams.states()));
            if let Some(table) = table.upgrade() {
                let (entries, bytes) = table.cache().store.size();
                things.cache_entries += entries;
                things.cache_bytes += bytes;
                for site in table.sites() {
                    things.live.add(site.serving().in_flight.load());
                }
                things.draining.add(table.left().load());
            }
        }
        things
    }
}

impl Collector for Looker {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let things = self.look();
        let families = LOOKED_UP.iter().map(|looked| {
            let samples = (looked.samples)(looked.labels, &things);
            family((looked.name, looked.help), MetricType::GAUGE, samples)
        });
        families.collect()
    }
}

pub(super) fn upstream_servers(labels: &[&str], things: &Things) -> Vec<Sample> {
    each(labels, STATES.len(), |at| {
        let (label, state) = STATES[at];
        let held = things.servers.iter().filter(|held| **held == state);
        (label, held.count() as u64)
    })
}

pub(super) fn in_flight(labels: &[&str], things: &Things) -> Vec<Sample> {
    let Things { live, draining, .. } = things;
    let all = [
        ("requests", "live", live.requests),
        ("websockets", "live", live.sockets),
        ("requests", "draining", draining.requests),
        ("websockets", "draining", draining.sockets),
    ];
    let samples = all.iter();
    samples
        .map(|(what, release, count)| sample(labels, &[what, release], *count))
        .collect()
}

pub(super) fn cache_entries(labels: &[&str], things: &Things) -> Vec<Sample> {
    one(labels, things.cache_entries)
}

pub(super) fn cache_bytes(labels: &[&str], things: &Things) -> Vec<Sample> {
    one(labels, things.cache_bytes)
}
