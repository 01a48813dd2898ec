//! Pure. A rollout over its regions: waves, the barrier before each commit, and what a failure means.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::baking::BakePlan;
use super::cutover::{Cutover, Turn, region_fleet};
use super::returning::Because;
use super::{Command, Event, Fleet, Kind, Outcome, RegionFleet, RegionPlan};
use crate::api::{PhaseName, RegionView};
use crate::bake::OnFail;
use crate::id::{Epoch, RegionId, RolloutId, SiteId};
use crate::record::SiteRecord;
use crate::time::Timestamp;

/// What a rollout starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: RolloutId,
    /// The site.
    pub site: SiteId,
    /// Why it is started.
    pub kind: Kind,
    /// The leading origin's term.
    pub epoch: Epoch,
    /// One plan per region in scope.
    pub plans: Vec<RegionPlan>,
    /// How its target is watched after the swap; only a deployment's is.
    pub bake: BakePlan,
}

/// One release to all regions in scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    id: RolloutId,
    site: SiteId,
    kind: Kind,
    epoch: Epoch,
    /// Regions that commit together, in order. Policies that make more than one wave come with bakes.
    waves: Vec<Vec<RegionId>>,
    wave: usize,
    cutovers: BTreeMap<RegionId, Cutover>,
    outcome: Option<Outcome>,
    #[serde(default)]
    bake: BakePlan,
}

impl Rollout {
    /// Starts a rollout in every region that is planned for.
    ///
    /// A target that is live and settled in all of them ends at once and writes nothing.
    #[must_use]
    pub fn start(order: Order, now: Timestamp, fleet: &Fleet) -> (Self, Vec<Command>) {
        let Order {
            id,
            site,
            kind,
            epoch,
            plans,
            bake,
        } = order;
        let cutovers: BTreeMap<RegionId, Cutover> = plans
            .into_iter()
            .map(|plan| (plan.record.region.clone(), Cutover::new(plan)))
            .collect();
        let waves = match kind {
            Kind::Deploy | Kind::Rollback => vec![cutovers.keys().cloned().collect()],
            // What goes wrong goes wrong in one region.
            Kind::Restart => cutovers.keys().map(|region| vec![region.clone()]).collect(),
        };
        let mut rollout = Self {
            id,
            site,
            kind,
            epoch,
            waves,
            wave: 0,
            cutovers,
            outcome: None,
            bake: match kind {
                Kind::Deploy => bake,
                // What one goes back to, or has, was watched in its time.
                Kind::Rollback | Kind::Restart => BakePlan::default(),
            },
        };
        let mut commands = Vec::new();
        rollout.begin_wave(now, fleet, &mut commands);
        rollout.advance(now, fleet, &mut commands);
        (rollout, commands)
    }

    /// Advances by one event and says what must now be done.
    ///
    /// Late and repeated events change nothing, so delivery may be at-least-once.
    pub fn step(&mut self, now: Timestamp, fleet: &Fleet, event: &Event) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.outcome.is_some() {
            return commands;
        }
        match event {
            Event::Reported(report) if report.site == self.site => {
                let none = RegionFleet::default();
                let fleet_here = region_fleet(fleet, &report.region, &none);
                if fleet_here.is_present(&report.edge, &report.boot)
                    && let Some(cutover) = self.cutovers.get_mut(&report.region)
                {
                    let turn = cutover.report(report, &mut commands);
                    self.turn(&report.region, turn, now, fleet, &mut commands);
                }
            }
            Event::Gated(report) if report.site == self.site => {
                self.with(&report.region, |cutover| cutover.gated(report));
            }
            Event::Measured(report) if report.site == self.site => {
                if let Some(cutover) = self.cutovers.get_mut(&report.region) {
                    let turn = cutover.measured(now, report, &self.bake, &mut commands);
                    self.turn(&report.region, turn, now, fleet, &mut commands);
                }
            }
            Event::Reported(_) | Event::Gated(_) | Event::Measured(_) => {}
            Event::Answered {
                region,
                check,
                answer,
            } => {
                if let Some(cutover) = self.cutovers.get_mut(region) {
                    let turn = cutover.answered(now, *check, answer, &self.bake, &mut commands);
                    self.turn(region, turn, now, fleet, &mut commands);
                }
            }
            Event::Proved {
                region,
                edge,
                generation,
                release,
            } => {
                if let Some(cutover) = self.cutovers.get_mut(region) {
                    cutover.proved(edge, *generation, release);
                }
            }
            Event::Superseded => return self.supersede(),
            Event::Tick => self.tick(now, fleet, &mut commands),
        }
        self.advance(now, fleet, &mut commands);
        commands
    }

    /// After a restart of origin: the same state under a new term, and its commands again.
    pub fn resume(&mut self, epoch: Epoch, now: Timestamp, fleet: &Fleet) -> Vec<Command> {
        let mut commands = Vec::new();
        self.epoch = epoch;
        for cutover in self.cutovers.values_mut() {
            cutover.resume(now, &mut commands);
        }
        self.advance(now, fleet, &mut commands);
        commands
    }

    /// When a [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        if self.outcome.is_some() {
            return None;
        }
        self.cutovers.values().filter_map(Cutover::deadline).min()
    }

    /// How it ended; none while it runs.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &RolloutId {
        &self.id
    }

    /// The site it is for.
    #[must_use]
    pub const fn site(&self) -> &SiteId {
        &self.site
    }

    /// Why it was started.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The record of `region` as this rollout wrote it last.
    #[must_use]
    pub fn record(&self, region: &RegionId) -> Option<&SiteRecord> {
        self.cutovers.get(region).map(Cutover::record)
    }

    /// Region by region, for people.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionView> {
        self.cutovers
            .iter()
            .map(|(region, cutover)| cutover.view(region, &self.bake))
            .collect()
    }

    fn tick(&mut self, now: Timestamp, fleet: &Fleet, commands: &mut Vec<Command>) {
        let none = RegionFleet::default();
        let regions: Vec<RegionId> = self.cutovers.keys().cloned().collect();
        for region in regions {
            if let Some(cutover) = self.cutovers.get_mut(&region) {
                let fleet_here = region_fleet(fleet, &region, &none);
                let turn = cutover.tick(now, fleet_here, &self.bake, commands);
                self.turn(&region, turn, now, fleet, commands);
            }
        }
    }

    /// What a failure in one region means for the others.
    fn turn(
        &mut self,
        region: &RegionId,
        turn: Turn,
        now: Timestamp,
        fleet: &Fleet,
        commands: &mut Vec<Command>,
    ) {
        match (turn, self.kind) {
            (Turn::None, _) => {}
            (Turn::PrepareFailed, Kind::Deploy) => {
                let because = format!("not prepared in {region}");
                self.abort(&because, commands);
                self.take_back(blameless(&because), now, fleet, commands);
            }
            (Turn::CommitFailed, Kind::Deploy) => {
                let because = format!("not proven in {region}");
                self.abort(&because, commands);
                self.take_back(blameless(&because), now, fleet, commands);
            }
            (Turn::BakeFailed, _) => self.bake_failed(region, now, fleet, commands),
            (Turn::Undecided, _) => self.abort(&format!("undecided in {region}"), commands),
            // One region's trouble must not keep another from going back.
            (Turn::PrepareFailed, Kind::Rollback) => {
                let epoch = self.epoch;
                self.with(region, |cutover| {
                    cutover.abort(epoch, "not prepared", commands)
                });
            }
            // One automatic step at most: it stays where it is, and a person is asked.
            (Turn::CommitFailed, Kind::Rollback) => self.with(region, Cutover::block),
            // The same is live before and after: there is nothing to take back, and no more is risked.
            (Turn::PrepareFailed, Kind::Restart) => {
                self.abort(&format!("not prepared in {region}"), commands);
            }
            (Turn::CommitFailed, Kind::Restart) => {
                self.with(region, Cutover::block);
                self.abort(&format!("not proven in {region}"), commands);
            }
        }
    }

    fn with(&mut self, region: &RegionId, act: impl FnOnce(&mut Cutover)) {
        if let Some(cutover) = self.cutovers.get_mut(region) {
            act(cutover);
        }
    }

    /// Ends every region in which nothing was live yet.
    fn abort(&mut self, because: &str, commands: &mut Vec<Command>) {
        for cutover in self.cutovers.values_mut() {
            if cutover.is_preparing() || cutover.is_pending() {
                cutover.abort(self.epoch, because, commands);
            }
        }
    }

    /// One region's bake failed. Where it cannot go back, a person is asked, and the others are left as they are.
    fn bake_failed(
        &mut self,
        region: &RegionId,
        now: Timestamp,
        fleet: &Fleet,
        commands: &mut Vec<Command>,
    ) {
        let because = format!("the bake failed in {region}");
        self.abort(&because, commands);
        let because = Because {
            text: &because,
            blames_release: true,
        };
        let can_return = |cutover: &Cutover| cutover.way_back().is_ok();
        let takes_all = self.bake.rules.on_fail == OnFail::All
            && self.cutovers.get(region).is_some_and(can_return);
        if takes_all {
            self.take_back(because, now, fleet, commands);
        } else if let Some(cutover) = self.cutovers.get_mut(region) {
            let none = RegionFleet::default();
            let here = region_fleet(fleet, region, &none);
            cutover.revert((self.epoch, now), here, because, &self.bake, commands);
        }
    }

    /// Takes back every region that this rollout moved, so that the regions agree again.
    fn take_back(
        &mut self,
        because: Because<'_>,
        now: Timestamp,
        fleet: &Fleet,
        commands: &mut Vec<Command>,
    ) {
        let none = RegionFleet::default();
        for (region, cutover) in &mut self.cutovers {
            let is_back = matches!(
                cutover.phase_name(),
                PhaseName::RollingBack | PhaseName::RolledBack | PhaseName::RevertBlocked
            );
            if cutover.is_moved() && !is_back {
                let here = region_fleet(fleet, region, &none);
                cutover.revert((self.epoch, now), here, because, &self.bake, commands);
            }
        }
    }

    fn supersede(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for cutover in self.cutovers.values_mut() {
            cutover.supersede(self.epoch, &mut commands);
        }
        self.finish(Outcome::Superseded, &mut commands);
        commands
    }

    fn begin_wave(&mut self, now: Timestamp, fleet: &Fleet, commands: &mut Vec<Command>) {
        let none = RegionFleet::default();
        for region in self.waves.get(self.wave).into_iter().flatten() {
            if let Some(cutover) = self.cutovers.get_mut(region) {
                let here = region_fleet(fleet, region, &none);
                match self.kind {
                    Kind::Deploy | Kind::Rollback => {
                        cutover.begin(self.epoch, now, here, &self.bake, commands);
                    }
                    Kind::Restart => cutover.prepare(self.epoch, now, here, commands),
                }
            }
        }
    }

    fn advance(&mut self, now: Timestamp, fleet: &Fleet, commands: &mut Vec<Command>) {
        let none = RegionFleet::default();
        for (region, cutover) in &mut self.cutovers {
            cutover.forget_restarted(region_fleet(fleet, region, &none));
        }
        self.commit_prepared(now, fleet, commands);
        for cutover in self.cutovers.values_mut() {
            cutover.settle(now, &self.bake, commands);
        }
        let wave = self.waves.get(self.wave).map_or(&[][..], Vec::as_slice);
        let is_stable = |region: &RegionId| {
            self.cutovers
                .get(region)
                .is_none_or(|cutover| cutover.phase_name() == PhaseName::Stable)
        };
        if wave.iter().all(is_stable) && self.wave + 1 < self.waves.len() {
            self.wave += 1;
            self.begin_wave(now, fleet, commands);
        }
        if self.cutovers.values().all(Cutover::is_over) {
            self.finish(self.verdict(), commands);
        }
    }

    /// Regions of a deployment's wave commit only when all of them are prepared; those of a rollback each by itself.
    fn commit_prepared(&mut self, now: Timestamp, fleet: &Fleet, commands: &mut Vec<Command>) {
        let none = RegionFleet::default();
        let waits = self.kind == Kind::Deploy
            && self
                .cutovers
                .values()
                .any(|cutover| cutover.is_preparing() && !cutover.is_prepared());
        if waits {
            return;
        }
        for (region, cutover) in &mut self.cutovers {
            if cutover.is_prepared() {
                cutover.commit(
                    self.epoch,
                    now,
                    region_fleet(fleet, region, &none),
                    &self.bake,
                    commands,
                );
            }
        }
    }

    fn verdict(&self) -> Outcome {
        let any = |phase| {
            self.cutovers
                .values()
                .any(|cutover| cutover.phase_name() == phase)
        };
        if any(PhaseName::RevertBlocked)
            || any(PhaseName::Undecided)
            || (self.kind == Kind::Rollback && any(PhaseName::Aborted))
            // Some regions began anew, and others did not.
            || (self.kind == Kind::Restart && any(PhaseName::Aborted) && any(PhaseName::Stable))
        {
            Outcome::NeedsOperator
        } else if any(PhaseName::RolledBack) {
            Outcome::WentBack
        } else if any(PhaseName::Aborted) {
            Outcome::Aborted
        } else {
            Outcome::Settled
        }
    }

    fn finish(&mut self, outcome: Outcome, commands: &mut Vec<Command>) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            commands.push(Command::Finish(outcome));
        }
    }
}

const fn blameless(text: &str) -> Because<'_> {
    Because {
        text,
        blames_release: false,
    }
}

impl core::fmt::Display for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Restart => "restart",
        })
    }
}

/// Why `region` of a finished rollout did not get its target, if it did not.
#[must_use]
pub fn failure(region: &RegionView) -> Option<String> {
    match region.phase {
        PhaseName::Undecided
        | PhaseName::RolledBack
        | PhaseName::RevertBlocked
        | PhaseName::Aborted => Some(
            region
                .reason
                .clone()
                .unwrap_or_else(|| String::from("no reason was given")),
        ),
        PhaseName::Pending
        | PhaseName::Preparing
        | PhaseName::Prepared
        | PhaseName::Committing
        | PhaseName::Baking
        | PhaseName::Stable
        | PhaseName::RollingBack
        | PhaseName::Superseded => None,
    }
}
