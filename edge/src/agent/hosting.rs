//! Where hosts route: what came together reaches the table together.
//!
//! A record of a host needs no placement, and the table takes in a thousand hosts of one of its parts in about the time of ten single ones.
//! At start, and with a snapshot, they come by the million: they wait until they are a share of what their part of the table holds by
//! then, so that nothing is written anew often.

use helix_routing::host::HostPattern;
use helix_routing::id::SiteId;

use super::Agent;
use crate::breaks::Breaks;
use crate::feed::record::Record;
use crate::feed::{Batch, Change};
use crate::table::{HOST_PARTS, Table};

/// Fewer hosts of a part than this wait for more.
const SMALLEST_BATCH: usize = 256;
/// A batch is one of so many parts of what is held there: with each, everything there is written anew.
const BATCH_SHARE: usize = 3;

/// A host on its way to the table: the site it is to mean.
type Route = (HostPattern, Option<SiteId>);

/// Hosts on their way to the table, by its parts, those of each in order.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    parts: Vec<Vec<Route>>,
    waiting: usize,
}

impl Arriving {
    /// More are expected.
    fn push(&mut self, table: &Table, route: Route) {
        let part = self.add(table, route);
        let held = table.host_count() / HOST_PARTS;
        if self.parts[part].len() >= SMALLEST_BATCH.max(held / BATCH_SHARE) {
            self.route(table, part);
        }
    }

    /// These count at once, after those of the same host that wait.
    fn push_now(&mut self, table: &Table, routes: Vec<Route>) {
        if self.waiting == 0 {
            apply(table, &routes);
            return;
        }
        let parts: Vec<usize> = routes
            .into_iter()
            .map(|route| self.add(table, route))
            .collect();
        for part in parts {
            self.route(table, part);
        }
    }

    /// No more are expected.
    fn flush(&mut self, table: &Table) {
        for part in 0..self.parts.len() {
            self.route(table, part);
        }
        // Rarely needed, and as large as what came.
        self.parts = Vec::new();
    }

    fn add(&mut self, table: &Table, route: Route) -> usize {
        let part = table.part_of(&route.0);
        self.parts.resize_with(HOST_PARTS, Vec::new);
        self.parts[part].push(route);
        self.waiting += 1;
        part
    }

    fn route(&mut self, table: &Table, part: usize) {
        let routes = &mut self.parts[part];
        apply(table, routes);
        self.waiting -= routes.len();
        routes.clear();
    }
}

fn apply(table: &Table, routes: &[Route]) {
    if !routes.is_empty() {
        table.set_hosts(routes.iter().map(|(host, site)| (host, site.as_ref())));
    }
}

impl Agent {
    /// Takes over what was on disk at start; [`Agent::restored`] says that it was all.
    pub fn restore(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            match record {
                Record::Host(host) => self.arriving.push(&self.table, (host.host, host.site)),
                Record::Site(_)
                | Record::Purge(_)
                | Record::Gate(_)
                | Record::Edge(_)
                | Record::Term(_) => {
                    self.record(record);
                }
            }
        }
    }

    /// Nothing else was on disk.
    pub fn restored(&mut self) {
        self.arriving.flush(&self.table);
    }

    /// Acts on what a feed hands on.
    pub(super) fn take(&mut self, batch: Batch) {
        match batch {
            Batch::Now(changes) => {
                let routes = self.change_all(changes);
                self.arriving.push_now(&self.table, routes);
            }
            Batch::Slice(changes) => {
                for route in self.change_all(changes) {
                    self.arriving.push(&self.table, route);
                }
            }
            Batch::SnapshotEnd => self.arriving.flush(&self.table),
        }
    }

    /// Acts on changes that came together, but for those of hosts, which it returns.
    fn change_all(&mut self, changes: Vec<Change>) -> Vec<Route> {
        let mut routes = Vec::new();
        let mut breaks = Breaks::begin();
        for change in changes {
            match change {
                Change::Record {
                    record: Record::Host(host),
                    ..
                } => routes.push((host.host, host.site)),
                Change::Dropped { key } => match host_of(&key) {
                    Some(host) => routes.push((host, None)),
                    None => self.dropped(&key),
                },
                Change::Record { .. } | Change::Refused(_) | Change::Recalled(_) => {
                    self.change(change);
                }
            }
            breaks.may_be_due();
        }
        routes
    }
}

/// The host that a key of the global stream names.
fn host_of(key: &str) -> Option<HostPattern> {
    let mut parts = key.splitn(3, '.');
    let (kind, _shard, name) = (parts.next()?, parts.next()?, parts.next()?);
    let name = name.replace('=', ".");
    match kind {
        "h" => name.parse().ok(),
        "w" => format!("*.{name}").parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::table::Resolved;

    #[derive(Clone, Debug)]
    enum Step {
        Slice(Vec<(u16, Option<u8>)>),
        Now(Vec<(u16, Option<u8>)>),
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        let routes = |most| {
            let route = (0_u16..900, proptest::option::of(0_u8..5));
            proptest::collection::vec(route, 0..most)
        };
        prop_oneof![
            4 => routes(1500).prop_map(Step::Slice),
            3 => routes(4).prop_map(Step::Now),
            1 => Just(Step::End),
        ]
    }

    fn route((host, site): (u16, Option<u8>)) -> Route {
        let text = if host.is_multiple_of(9) {
            format!("*.h{host}.example")
        } else {
            format!("h{host}.example")
        };
        let site = site.map(|site| format!("p{site}/production").parse().unwrap());
        (text.parse().unwrap(), site)
    }

    fn routed(table: &Table, host: &HostPattern) -> Option<SiteId> {
        let asked = match host {
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Wildcard(suffix) => format!("a.{suffix}").parse().unwrap(),
        };
        match table.resolve(asked) {
            Resolved::Site { site, .. } => Some((*site.id).clone()),
            Resolved::Release { .. } | Resolved::Nobody => None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_counts_at_once_does_and_at_the_end_everything(
            steps in proptest::collection::vec(step(), 0..12)
        ) {
            let table = Table::new("helix.localhost".parse().unwrap());
            let mut arriving = Arriving::default();
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Slice(routes) => for (host, site) in routes.into_iter().map(route) {
                        model.insert(host.to_string(), (host.clone(), site.clone()));
                        arriving.push(&table, (host, site));
                    },
                    Step::Now(routes) => {
                        let routes: Vec<Route> = routes.into_iter().map(route).collect();
                        let told: BTreeMap<_, _> =
                            routes.iter().map(|(host, site)| (host.to_string(), (host.clone(), site.clone()))).collect();
                        arriving.push_now(&table, routes);
                        for (host, site) in told.values() {
                            prop_assert_eq!(&routed(&table, host), site);
                        }
                        model.extend(told);
                    }
                    Step::End => arriving.flush(&table),
                }
            }
            arriving.flush(&table);
            prop_assert_eq!(arriving.waiting, 0);
            for (host, site) in model.values() {
                prop_assert_eq!(&routed(&table, host), site);
            }
        }
    }
}
