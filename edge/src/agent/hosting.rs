//! Where hosts route: what came together reaches the table together.
//!
//! A record of a host needs no placement, and the table takes in a thousand hosts in about the time of ten single ones. At start
//! they come by the million: each batch is a share of what the table holds by then, so that nothing is written anew often.

use helix_routing::host::HostPattern;
use helix_routing::id::SiteId;

use super::Agent;
use crate::feed::Change;
use crate::feed::record::Record;
use crate::table::Table;

/// Fewer hosts than this wait for more, at start.
const SMALLEST_BATCH: usize = 16 * 1024;
/// A batch is one of so many parts of what the table holds: with each, everything in it is written anew.
const BATCH_SHARE: usize = 3;

/// Hosts on their way to the table, in order.
#[derive(Debug, Default)]
pub(super) struct Routed(Vec<(HostPattern, Option<SiteId>)>);

impl Routed {
    fn apply(self, table: &Table) {
        if !self.0.is_empty() {
            table.set_hosts(self.0.iter().map(|(host, site)| (host, site.as_ref())));
        }
    }

    fn are_many(&self, table: &Table) -> bool {
        self.0.len() >= SMALLEST_BATCH.max(table.host_count() / BATCH_SHARE)
    }
}

impl Agent {
    /// Takes over what was on disk at start; [`Agent::restored`] says that it was all.
    pub fn restore(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            match record {
                Record::Host(host) => self.restoring.0.push((host.host, host.site)),
                Record::Site(_)
                | Record::Purge(_)
                | Record::Gate(_)
                | Record::Edge(_)
                | Record::Term(_) => {
                    self.record(record);
                }
            }
        }
        if self.restoring.are_many(&self.table) {
            self.restored();
        }
    }

    /// Nothing else was on disk.
    pub fn restored(&mut self) {
        std::mem::take(&mut self.restoring).apply(&self.table);
    }

    /// Acts on changes that came together.
    pub(super) fn change_all(&mut self, changes: Vec<Change>) {
        let mut hosts = Routed::default();
        for change in changes {
            match change {
                Change::Record {
                    record: Record::Host(host),
                    ..
                } => hosts.0.push((host.host, host.site)),
                Change::Dropped { key } => match host_of(&key) {
                    Some(host) => hosts.0.push((host, None)),
                    None => self.dropped(&key),
                },
                Change::Record { .. } | Change::Refused(_) | Change::Recalled(_) => {
                    self.change(change);
                }
            }
        }
        hosts.apply(&self.table);
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
