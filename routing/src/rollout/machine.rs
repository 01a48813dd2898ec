//! Pure. A rollout over its regions: its events, and what a failure in one means for the others.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::baking::BakePlan;
use super::cutover::{Cutover, Turn, region_fleet};
use super::hours::Hours;
use super::plan::{Closed, RolloutPlan, Stage};
use super::returning::Because;
use super::saved::Saved;
use super::staging::{At, Pause};
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
    /// In which stages it goes out; a rollback has none.
    pub plan: RolloutPlan,
}

/// One release to all regions in scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub struct Rollout {
    pub(super) id: RolloutId,
    pub(super) site: SiteId,
    pub(super) kind: Kind,
    pub(super) epoch: Epoch,
    /// What a deployment does, one after the other. A rollback has one stage, and its regions do not wait for each other.
    pub(super) stages: Vec<Stage>,
    /// The stage that runs or comes next.
    pub(super) stage: usize,
    pub(super) at: At,
    pub(super) not_before: Option<Timestamp>,
    pub(super) hours: Vec<Hours>,
    pub(super) closed: Vec<Closed>,
    pub(super) paused: Option<Pause>,
    pub(super) cutovers: BTreeMap<RegionId, Cutover>,
    pub(super) outcome: Option<Outcome>,
    pub(super) bake: BakePlan,
}

impl Rollout {
    /// Starts a rollout in every region that is planned for.
    ///
    /// A target that is live and settled in all of them ends at once and writes nothing.
    #[must_use]
    pub fn start(order: Order, now: Timestamp, fleet: &Fleet) -> (Self, Vec<Command>) {
        Self::ordered(order).begin(now, fleet)
    }

    /// A deployment that came after a newer one: it ends at once and writes nothing.
    #[must_use]
    pub fn superseded(order: Order, because: &str) -> (Self, Vec<Command>) {
        let (mut rollout, mut commands) = (Self::ordered(order), Vec::new());
        for cutover in rollout.cutovers.values_mut() {
            cutover.never_begin(because);
        }
        rollout.finish(Outcome::Superseded, &mut commands);
        (rollout, commands)
    }

    fn ordered(order: Order) -> Self {
        let Order {
            id,
            site,
            kind,
            epoch,
            plans,
            bake,
            plan,
        } = order;
        let cutovers: BTreeMap<RegionId, Cutover> = plans
            .into_iter()
            .map(|plan| (plan.record.region.clone(), Cutover::new(plan)))
            .collect();
        let together = || Vec::from([Stage::everywhere(cutovers.keys().cloned().collect())]);
        let (stages, bake) = match kind {
            Kind::Deploy if plan.stages.is_empty() => (together(), bake),
            Kind::Deploy => (plan.stages, bake),
            // What one goes back to was watched in its time, and nothing holds up who goes back.
            Kind::Rollback => (together(), BakePlan::default()),
            // What goes wrong goes wrong in one region.
            Kind::Restart => {
                let alone = |region: &RegionId| Stage::everywhere(Vec::from([region.clone()]));
                (cutovers.keys().map(alone).collect(), BakePlan::default())
            }
        };
        Self {
            id,
            site,
            kind,
            epoch,
            stages,
            stage: 0,
            at: At::Preparing,
            not_before: plan.not_before,
            hours: plan.hours,
            closed: plan.closed,
            paused: None,
            cutovers,
            outcome: None,
            bake,
        }
    }

    fn begin(mut self, now: Timestamp, fleet: &Fleet) -> (Self, Vec<Command>) {
        let (none, mut commands) = (RegionFleet::default(), Vec::new());
        if self.kind == Kind::Restart {
            // Each region prepares when its stage begins: its gates may reach servers that begin anew.
            self.at = self.before(now);
        } else {
            for (region, cutover) in &mut self.cutovers {
                let fleet = region_fleet(fleet, region, &none);
                cutover.begin(self.epoch, now, fleet, &self.bake, &mut commands);
            }
        }
        self.advance(now, fleet, &mut commands);
        (self, commands)
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
            Event::WentBack {
                region,
                reason,
                base,
            } => {
                if let Some(cutover) = self.cutovers.get_mut(region) {
                    let turn = cutover.went_back(now, reason, *base, &self.bake);
                    self.turn(region, turn, now, fleet, &mut commands);
                }
            }
            Event::Superseded { epoch } => return self.supersede(*epoch),
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
        let cutovers = self.cutovers.values().filter_map(Cutover::deadline);
        cutovers.chain(self.stage_deadline()).min()
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

    /// How far each region is; of [`Self::regions`] what is needed to see that something changed.
    pub fn phases(&self) -> impl Iterator<Item = (&RegionId, PhaseName)> {
        let cutovers = self.cutovers.iter();
        cutovers.map(|(region, cutover)| (region, cutover.phase_name()))
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
                self.stop(&format!("not prepared in {region}"), now, fleet, commands);
            }
            (Turn::CommitFailed, Kind::Deploy) => {
                self.stop(&format!("not proven in {region}"), now, fleet, commands);
            }
            (Turn::BakeFailed, _) => self.bake_failed(region, now, fleet, commands),
            (Turn::Undecided, _) => {
                let because = format!("undecided in {region}");
                self.end_unmoved((now, fleet), blameless(&because), commands);
            }
            (Turn::Unclear, _) => self.ask_before_next(),
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
                let because = format!("not prepared in {region}");
                self.end_unmoved((now, fleet), blameless(&because), commands);
            }
            (Turn::CommitFailed, Kind::Restart) => {
                self.with(region, Cutover::block);
                let because = format!("not proven in {region}");
                self.end_unmoved((now, fleet), blameless(&because), commands);
            }
        }
    }

    fn with(&mut self, region: &RegionId, act: impl FnOnce(&mut Cutover)) {
        if let Some(cutover) = self.cutovers.get_mut(region) {
            act(cutover);
        }
    }

    /// It ends, and nobody is to blame: nothing more goes live, and by its rules what is goes back.
    fn stop(&mut self, because: &str, now: Timestamp, fleet: &Fleet, commands: &mut Vec<Command>) {
        self.end_unmoved((now, fleet), blameless(because), commands);
        self.take_back(blameless(because), now, fleet, commands);
    }

    /// Ends every region in which it is not live: the candidate goes, and what part of the visitors it had.
    pub(super) fn end_unmoved(
        &mut self,
        (now, fleet): (Timestamp, &Fleet),
        because: Because<'_>,
        commands: &mut Vec<Command>,
    ) {
        let none = RegionFleet::default();
        for (region, cutover) in &mut self.cutovers {
            if cutover.is_weighted() {
                let here = region_fleet(fleet, region, &none);
                cutover.withdraw((self.epoch, now), here, because, &self.bake, commands);
            } else if cutover.is_before_commit() {
                cutover.abort(self.epoch, because.text, commands);
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
        let text = format!("the bake failed in {region}");
        let blames = |blames_release| Because {
            text: &text,
            blames_release,
        };
        let none = RegionFleet::default();
        let (epoch, on_fail) = (self.epoch, self.bake.rules.on_fail);
        let here = region_fleet(fleet, region, &none);
        let mut can_return = false;
        if let Some(cutover) = self.cutovers.get_mut(region) {
            can_return = cutover.is_weighted() || cutover.way_back().is_ok();
            if cutover.is_weighted() {
                cutover.withdraw((epoch, now), here, blames(true), &self.bake, commands);
            }
        }
        self.end_unmoved((now, fleet), blames(on_fail == OnFail::All), commands);
        if on_fail == OnFail::All && can_return {
            self.take_back(blames(true), now, fleet, commands);
        } else if let Some(cutover) = self.cutovers.get_mut(region)
            && cutover.is_moved()
        {
            cutover.revert((epoch, now), here, blames(true), &self.bake, commands);
        }
    }

    /// Takes back what this rollout moved, so that the regions agree again; where only failing regions go back, what has
    /// settled stays.
    fn take_back(
        &mut self,
        because: Because<'_>,
        now: Timestamp,
        fleet: &Fleet,
        commands: &mut Vec<Command>,
    ) {
        let takes_settled = self.bake.rules.on_fail == OnFail::All;
        self.take_back_those(because, (now, fleet), commands, |cutover| {
            takes_settled || cutover.phase_name() != PhaseName::Stable
        });
    }

    /// The same, whatever its rules say.
    pub(super) fn take_back_all(
        &mut self,
        because: Because<'_>,
        now: Timestamp,
        fleet: &Fleet,
        commands: &mut Vec<Command>,
    ) {
        self.take_back_those(because, (now, fleet), commands, |_| true);
    }

    fn take_back_those(
        &mut self,
        because: Because<'_>,
        (now, fleet): (Timestamp, &Fleet),
        commands: &mut Vec<Command>,
        wanted: impl Fn(&Cutover) -> bool,
    ) {
        let none = RegionFleet::default();
        for (region, cutover) in &mut self.cutovers {
            let is_back = matches!(
                cutover.phase_name(),
                PhaseName::RollingBack | PhaseName::RolledBack | PhaseName::RevertBlocked
            );
            if cutover.is_moved() && !is_back && wanted(cutover) {
                let here = region_fleet(fleet, region, &none);
                cutover.revert((self.epoch, now), here, because, &self.bake, commands);
            }
        }
    }

    fn supersede(&mut self, epoch: Epoch) -> Vec<Command> {
        let mut commands = Vec::new();
        self.epoch = epoch;
        for cutover in self.cutovers.values_mut() {
            cutover.supersede(epoch, &mut commands);
        }
        self.finish(Outcome::Superseded, &mut commands);
        commands
    }

    pub(super) fn advance(&mut self, now: Timestamp, fleet: &Fleet, commands: &mut Vec<Command>) {
        let none = RegionFleet::default();
        for (region, cutover) in &mut self.cutovers {
            cutover.forget_restarted(region_fleet(fleet, region, &none));
        }
        match self.kind {
            Kind::Deploy | Kind::Restart => self.advance_stages(now, fleet, commands),
            Kind::Rollback => {
                self.commit_prepared(now, fleet, commands);
                self.settle(now, commands);
            }
        }
        if self.cutovers.values().all(Cutover::is_over) {
            self.finish(self.verdict(), commands);
        }
    }

    pub(super) fn settle(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        for cutover in self.cutovers.values_mut() {
            cutover.settle(now, &self.bake, commands);
        }
    }

    /// Regions of a rollback commit each by itself.
    fn commit_prepared(&mut self, now: Timestamp, fleet: &Fleet, commands: &mut Vec<Command>) {
        let none = RegionFleet::default();
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
        let settled =
            |cutover: &Cutover| cutover.is_moved() && cutover.phase_name() == PhaseName::Stable;
        // It went out to some regions, and stays there by its rules.
        let is_half_way = any(PhaseName::Aborted) && self.cutovers.values().any(settled);
        if any(PhaseName::RevertBlocked)
            || any(PhaseName::Undecided)
            || (self.kind == Kind::Rollback && any(PhaseName::Aborted))
            // Some regions began anew, and others did not.
            || (self.kind == Kind::Restart && any(PhaseName::Aborted) && any(PhaseName::Stable))
        {
            Outcome::NeedsOperator
        } else if any(PhaseName::RolledBack) {
            Outcome::WentBack
        } else if is_half_way {
            Outcome::NeedsOperator
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

pub(super) const fn blameless(text: &str) -> Because<'_> {
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
        | PhaseName::Admitting
        | PhaseName::Canary
        | PhaseName::Admitted
        | PhaseName::Baking
        | PhaseName::Stable
        | PhaseName::RollingBack
        | PhaseName::Superseded => None,
    }
}
