//! How a rollout starts: one transaction ends what runs and begins this.

use std::time::Duration;

use helix_routing::id::Epoch;
use helix_routing::record::{Hold, ReleaseRef};
use helix_routing::rollout::{Command, Event, Kind, Order, RegionPlan, Rollout};

use crate::names::number;
use crate::sql::{Answer, Change, Saved};
use crate::world::World;

#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) kind: Kind,
    pub(crate) release: u8,
    pub(crate) is_automatic: bool,
}

impl World {
    pub(crate) fn apply_start(&mut self, origin: usize, epoch: Epoch, start: Start) -> Answer {
        let targets: Vec<Option<ReleaseRef>> = (0..self.names.regions.len())
            .map(|region| self.target(start, region))
            .collect();
        let refused = Answer::Done {
            save: 0,
            change: Change::Start(start),
        };
        if targets.iter().all(Option::is_none) || !self.may_start(start.kind) {
            return refused;
        }
        self.supersede(origin, Some(start.kind), None);
        if start.kind == Kind::Deploy {
            // Deployed with the word, and uploaded if it was not there.
            self.sql
                .quarantined
                .retain(|(_, release)| *release != start.release);
            self.sql.stored.insert(start.release);
        }
        let plans = targets.into_iter().enumerate();
        let plans: Vec<RegionPlan> = plans
            .filter_map(|(region, target)| Some(self.region_plan(origin, start, region, target?)))
            .collect();
        self.sql.started += 1;
        let steady = self.present(origin);
        self.notes.begin(steady);
        self.begin_deadlines_anew();
        self.draw_bake();
        let order = Order {
            id: format!("{:016x}", self.sql.started).parse().unwrap(),
            site: self.names.site.clone(),
            kind: start.kind,
            epoch,
            bake: self.notes.plan.clone(),
            plan: self.rollout_plan(&plans),
            plans,
        };
        let now = self.origins[origin].clock.read(self.now);
        let fleet = self.fleet(origin);
        let (machine, commands) = Rollout::start(order, now, &fleet);
        self.apply_commands(&machine, &commands);
        let saved = Saved {
            number: self.sql.started,
            revision: 0,
            machine,
        };
        let is_over = saved.machine.outcome().is_some();
        self.sql.running = (!is_over).then(|| saved.clone());
        if is_over {
            self.tell_pins(epoch);
        }
        Answer::Started {
            saved: Box::new(saved),
            commands,
        }
    }

    /// A restart ends nothing that runs, unless that is one too.
    fn may_start(&self, kind: Kind) -> bool {
        let running = self.sql.running.as_ref().map(|saved| saved.machine.kind());
        kind != Kind::Restart || running.is_none_or(|running| running == Kind::Restart)
    }

    /// By a newer one, or by what was decided past origin.
    /// `signed` is a region whose record is an operator's.
    pub(crate) fn supersede(&mut self, origin: usize, by: Option<Kind>, signed: Option<usize>) {
        let Some(mut running) = self.sql.running.take() else {
            return;
        };
        self.count_superseded(&running.machine, by);
        let now = self.origins[origin].clock.read(self.now);
        let before = running
            .machine
            .phases()
            .map(|(_, phase)| phase)
            .collect::<Vec<_>>();
        let fleet = self.fleet(origin);
        let epoch = self.origins[origin].epoch;
        let superseded = Event::Superseded { epoch };
        let mut commands = running.machine.step(now, &fleet, &superseded);
        commands.retain(|command| match command {
            Command::Write(record) => Some(self.names.region(&record.region)) != signed,
            _ => true,
        });
        self.check_terms(&commands);
        self.check_transitions(&before, &running.machine);
        self.apply_commands(&running.machine, &commands);
        self.tell_pins(epoch);
    }

    /// What it makes live in the region; none where it has nothing to do.
    fn target(&self, start: Start, region: usize) -> Option<ReleaseRef> {
        let record = &self.sql.records[region].record;
        let is_free = |kept: &&ReleaseRef| {
            !self
                .sql
                .quarantined
                .contains(&(region, number(&kept.release)))
        };
        match start.kind {
            Kind::Restart => record.live.clone(),
            Kind::Deploy => {
                let is_skipped = start.is_automatic && self.sql.held.contains(&region);
                let release = &self.names.releases[usize::from(start.release)];
                (!is_skipped).then(|| release.clone())
            }
            Kind::Rollback => record.previous.iter().find(is_free).cloned(),
        }
    }

    fn region_plan(
        &mut self,
        origin: usize,
        start: Start,
        region: usize,
        target: ReleaseRef,
    ) -> RegionPlan {
        let mut record = self.sql.records[region].record.clone();
        match start.kind {
            Kind::Deploy => {
                record.hold = None;
                self.sql.held.remove(&region);
            }
            Kind::Rollback => {
                let since = self.origins[origin].clock.read(self.now);
                record.hold = Some(Hold {
                    reason: "rolled back".to_owned(),
                    since,
                });
                self.sql.held.insert(region);
            }
            Kind::Restart => {}
        }
        let baseline = self.sql.settled[region].clone();
        let is_baseline_quarantined = baseline.as_ref().is_some_and(|baseline| {
            self.sql
                .quarantined
                .contains(&(region, number(&baseline.release)))
        });
        RegionPlan {
            record,
            target,
            baseline,
            is_baseline_quarantined,
            bytes: 0,
            gates: Duration::from_secs(2),
        }
    }
}
