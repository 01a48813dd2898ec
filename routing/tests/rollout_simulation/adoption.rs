//! How origin takes over what was decided while it could not be asked: it hears what edges override, and where most of a region
//! agree the record follows them.

use std::collections::BTreeMap;

use helix_routing::glass::{Cause, LocalOverride, LocalReport};
use helix_routing::id::Epoch;
use helix_routing::record::{Hold, ReleaseRef, SiteRecord};
use helix_routing::rollout::{Event, KEEP_PREVIOUS};

use crate::agenda::InOrigin;
use crate::names::number;
use crate::scenario::Safeguard;
use crate::sql::Change;
use crate::world::World;

/// How often an origin looks whether edges agree.
const AGREEMENT_LOOK: u64 = 500;

/// For how long a word counts that is not said again.
const SAID_FOR: u64 = 15_000;

/// What an edge said last of its override, and in which boot.
pub(crate) struct Said {
    pub(crate) boot: u32,
    sent: u64,
    at: u64,
    pub(crate) local: Option<LocalOverride>,
}

impl World {
    /// One connection at a time keeps its order; what an earlier boot said may come late.
    pub(crate) fn heard_local(
        &mut self,
        origin: usize,
        edge: usize,
        (boot, sent): (u32, u64),
        report: LocalReport,
    ) {
        let said = self.origins[origin].roster.said.get(&edge);
        if said.is_some_and(|said| said.boot == boot && said.sent > sent) {
            return;
        }
        let said = Said {
            boot,
            sent,
            at: self.now,
            local: report.standing,
        };
        self.origins[origin].roster.said.insert(edge, said);
    }

    pub(crate) fn look_at_overrides(&mut self, origin: usize) {
        self.due_in_origin(AGREEMENT_LOOK, origin, InOrigin::Agreement);
        if !self.origins[origin].leads {
            return;
        }
        for (region, local, edges) in self.agreeing(origin) {
            let fleet = self.fleet(origin);
            let here = fleet.regions.get(&self.names.regions[region]);
            let is_counted = |edge: &&usize| {
                let drained = self.without == Some(Safeguard::DrainedHaveNoSay);
                let id = &self.names.edges[**edge];
                drained || here.is_some_and(|here| here.registered.contains(id))
            };
            let registered = here.map_or(0, |here| here.registered.len());
            let is_majority = edges.iter().filter(is_counted).count() * 2 > registered;
            if is_majority || self.without == Some(Safeguard::MostEdges) {
                self.take_over_local(origin, region, local);
            } else {
                self.counts.count("an override of few edges stood");
            }
        }
    }

    /// Edges that serve the same instead, region by region; the newest of them speaks for all.
    fn agreeing(&self, origin: usize) -> Vec<(usize, LocalOverride, Vec<usize>)> {
        let mut groups: BTreeMap<(usize, u8), (LocalOverride, Vec<usize>)> = BTreeMap::new();
        for (edge, said) in &self.origins[origin].roster.said {
            let is_repeated = said.at + SAID_FOR > self.now;
            let Some(local) = said.local.as_ref().filter(|_| is_repeated) else {
                continue;
            };
            let key = (self.edges[*edge].region, number(&local.release.release));
            let group = groups
                .entry(key)
                .or_insert_with(|| (local.clone(), Vec::new()));
            group.1.push(*edge);
            if local.since > group.0.since {
                group.0 = local.clone();
            }
        }
        let groups = groups.into_iter();
        groups
            .map(|((region, _), (local, edges))| (region, local, edges))
            .collect()
    }

    /// An edge's guard is its rollout's to judge, while that runs.
    fn take_over_local(&mut self, origin: usize, region: usize, local: LocalOverride) {
        if local.cause == Cause::Guard && self.origins[origin].driver.is_some() {
            let event = Event::WentBack {
                region: self.names.regions[region].clone(),
                reason: local.reason,
                base: local.base,
            };
            self.tell(origin, event);
        } else {
            let local = Box::new(local);
            self.transact(origin, Change::Adopt { region, local });
        }
    }

    /// In one transaction: what runs ends, the record names what is served, the region is held, and what was left quarantined.
    pub(crate) fn adopt(
        &mut self,
        origin: usize,
        epoch: Epoch,
        (region, local): (usize, &LocalOverride),
    ) {
        let held = &self.sql.records[region].record;
        let stands = local.stands(held) || self.without == Some(Safeguard::AdoptStanding);
        if held.generation.0 == 0 || !stands {
            return;
        }
        self.check_adopted(region, local);
        self.supersede(origin, None, None);
        let mut record = self.sql.records[region].record.clone();
        let left = helix_routing::glass::signed::left(&record, &local.release).cloned();
        let left = left.or_else(|| local.left.clone());
        record.serve(local.release.clone(), KEEP_PREVIOUS);
        self.take_over(origin, epoch, record, left);
        self.counts.count(match local.cause {
            Cause::Operator => "an override of most edges was taken over",
            Cause::Guard => "what most edges did by themselves was taken over",
        });
    }

    pub(crate) fn take_over(
        &mut self,
        origin: usize,
        epoch: Epoch,
        mut record: SiteRecord,
        left: Option<ReleaseRef>,
    ) {
        let region = self.names.region(&record.region);
        record.generation = record.generation.next();
        record.epoch = epoch;
        record.candidate = None;
        record.weight = None;
        record.bake_until = None;
        record.guard = None;
        record.hold = Some(Hold {
            reason: "break-glass".to_owned(),
            since: self.origins[origin].clock.read(self.now),
        });
        self.check_write(&record);
        self.sql.held.insert(region);
        self.sql.settled[region].clone_from(&record.live);
        let left = left.filter(|left| record.live.as_ref() != Some(left));
        let left = left.map(|left| (region, number(&left.release)));
        self.sql.quarantined.extend(left);
        self.put_record(record);
    }

    /// What its driver has in its memory is over.
    pub(crate) fn was_adopted(&mut self, origin: usize) {
        self.publish_unsent(origin);
        let running = self.sql.running.as_ref().map(|saved| saved.number);
        let driver = &mut self.origins[origin].driver;
        if driver
            .as_ref()
            .is_some_and(|driver| !driver.is_saving && running != Some(driver.saved.number))
        {
            *driver = None;
        }
    }
}
