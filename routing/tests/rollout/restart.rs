//! A restart by example: what is live once more, one region after the other.

use helix_routing::api::PhaseName;
use helix_routing::id::{Epoch, Generation, RegionId};
use helix_routing::record::SiteRecord;
use helix_routing::report::{CandidateReport, CandidateState, SiteReport};
use helix_routing::rollout::{
    BakePlan, COMMIT_DEADLINE, Command, Event, Kind, Order, Outcome, RegionPlan, Rollout,
    RolloutPlan,
};
use helix_routing::time::Timestamp;

use crate::{START, fleet, release, site};

struct Stage {
    rollout: Rollout,
    now: Timestamp,
    commands: Vec<Command>,
}

impl Stage {
    /// `fra` serves release 2 and `iad` release 1, each settled there.
    fn start() -> Self {
        let plans = [("fra", 2), ("iad", 1)].map(|(region, live)| {
            let mut record = SiteRecord::blank(site(), region.parse().unwrap(), Epoch(1));
            record.generation = Generation(5);
            record.live_since = Generation(3);
            record.live = Some(release(live));
            record.previous = vec![release(7)];
            RegionPlan {
                record,
                target: release(live),
                baseline: Some(release(live)),
                is_baseline_quarantined: false,
                bytes: 0,
                gates: std::time::Duration::ZERO,
            }
        });
        let order = Order {
            id: "00000000000000aa".parse().unwrap(),
            site: site(),
            kind: Kind::Restart,
            epoch: Epoch(1),
            plans: plans.into(),
            bake: BakePlan::default(),
            plan: RolloutPlan::default(),
        };
        let (rollout, commands) = Rollout::start(order, START, &fleet(1));
        Self {
            rollout,
            now: START,
            commands,
        }
    }

    fn record(&self, region: &str) -> &SiteRecord {
        self.rollout.record(&region.parse().unwrap()).unwrap()
    }

    fn step(&mut self, event: &Event) {
        self.commands = self.rollout.step(self.now, &fleet(1), event);
    }

    fn report(&mut self, region: &str, state: CandidateState) {
        let record = self.record(region).clone();
        let candidate = record.candidate.as_ref().map(|candidate| CandidateReport {
            release: candidate.release.clone(),
            state,
        });
        self.step(&Event::Reported(SiteReport {
            edge: format!("{region}-1").parse().unwrap(),
            region: record.region.clone(),
            boot: "0000000000000001".parse().unwrap(),
            site: site(),
            generation: record.generation,
            serving: record.generation,
            live: record.live.map(|live| live.release),
            candidate,
        }));
    }

    fn prove(&mut self, region: &str) {
        self.report(region, CandidateState::Prepared);
        let record = self.record(region).clone();
        self.step(&Event::Proved {
            region: record.region,
            edge: format!("{region}-1").parse().unwrap(),
            generation: record.generation,
            release: record.live.unwrap().release,
        });
    }

    fn phase(&self, region: &str) -> PhaseName {
        let region: RegionId = region.parse().unwrap();
        let views = self.rollout.regions();
        let view = views.iter().find(|view| view.region == region);
        view.unwrap().phase
    }
}

#[test]
fn what_is_live_is_prepared_and_made_live_again_one_region_after_the_other() {
    let mut stage = Stage::start();
    assert_eq!(stage.record("fra").candidate, Some(release(2)));
    assert_eq!(stage.phase("iad"), PhaseName::Pending);
    assert_eq!(stage.record("iad").generation, Generation(5));

    stage.report("fra", CandidateState::Prepared);
    assert_eq!(stage.phase("fra"), PhaseName::Committing);
    let fra = stage.record("fra");
    assert_eq!(
        (fra.generation, fra.live_since),
        (Generation(7), Generation(7))
    );
    assert_eq!((&fra.live, &fra.candidate), (&Some(release(2)), &None));
    assert_eq!(fra.previous, [release(7)], "nothing was left");

    stage.prove("fra");
    assert_eq!(stage.phase("fra"), PhaseName::Stable);
    assert_eq!(stage.phase("iad"), PhaseName::Preparing);
    stage.report("iad", CandidateState::Prepared);
    stage.prove("iad");
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Settled));
    assert_eq!(stage.record("iad").live, Some(release(1)));
}

#[test]
fn a_gate_that_fails_in_the_first_region_leaves_everything_as_it_is() {
    let mut stage = Stage::start();
    let failed = CandidateState::Failed("gate api: fail".to_owned());
    stage.report("fra", failed);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Aborted));
    let fra = stage.record("fra");
    assert_eq!((&fra.live, &fra.candidate), (&Some(release(2)), &None));
    assert_eq!(fra.live_since, Generation(3));
    assert_eq!(stage.record("iad").generation, Generation(5));
}

#[test]
fn one_that_fails_later_is_for_a_person() {
    let mut stage = Stage::start();
    stage.report("fra", CandidateState::Prepared);
    stage.prove("fra");
    let failed = CandidateState::Failed("gate api: fail".to_owned());
    stage.report("iad", failed);
    assert_eq!(stage.phase("fra"), PhaseName::Stable);
    assert_eq!(stage.phase("iad"), PhaseName::Aborted);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::NeedsOperator));
}

#[test]
fn one_that_is_not_proven_stops_there() {
    let mut stage = Stage::start();
    stage.report("fra", CandidateState::Prepared);
    stage.now = stage.now + COMMIT_DEADLINE;
    stage.step(&Event::Tick);
    assert_eq!(stage.phase("fra"), PhaseName::RevertBlocked);
    assert_eq!(stage.phase("iad"), PhaseName::Aborted);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::NeedsOperator));
    assert_eq!(stage.record("fra").live, Some(release(2)));
}

#[test]
fn a_deployment_takes_over_from_it() {
    let mut stage = Stage::start();
    stage.step(&Event::Superseded { epoch: Epoch(1) });
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Superseded));
    assert_eq!(stage.record("fra").candidate, None);
}
