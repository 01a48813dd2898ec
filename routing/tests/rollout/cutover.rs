//! The rollout machine by example: one claim a test.

use std::time::Duration;

use helix_routing::api::PhaseName;
use helix_routing::gate::report::GatesReport;
use helix_routing::id::{Epoch, Generation, RegionId};
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::report::{CandidateReport, CandidateState, SiteReport};
use helix_routing::rollout::{
    BakePlan, COMMIT_DEADLINE, Command, Event, Fleet, Kind, Order, Outcome, PREPARE_DEADLINE,
    RegionPlan, Rollout, RolloutPlan,
};
use helix_routing::time::Timestamp;

use crate::{START, fleet, release, site};

fn record(region: &str, live: Option<ReleaseRef>) -> SiteRecord {
    SiteRecord {
        site: site(),
        region: region.parse().unwrap(),
        epoch: Epoch(1),
        generation: Generation(if live.is_some() { 5 } else { 0 }),
        live_since: Generation(0),
        live,
        candidate: None,
        weight: None,
        previous: Vec::new(),
        pins: Vec::new(),
        overridden: None,
        guard: None,
        requires: None,
        protection: None,
        hold: None,
        bake_until: None,
        removed: false,
    }
}

struct Stage {
    rollout: Rollout,
    fleet: Fleet,
    now: Timestamp,
    commands: Vec<Command>,
}

impl Stage {
    /// Release 2 goes out over `live`, which settled before.
    fn start(kind: Kind, live: Option<u8>) -> Self {
        Self::gated(kind, live, Duration::ZERO)
    }

    /// The same of a release whose gates may take a while.
    fn gated(kind: Kind, live: Option<u8>, gates: Duration) -> Self {
        let plans = ["fra", "iad"].map(|region| RegionPlan {
            record: record(region, live.map(release)),
            target: release(2),
            baseline: live.map(release),
            is_baseline_quarantined: false,
            bytes: 0,
            gates,
        });
        let order = Order {
            id: "00000000000000aa".parse().unwrap(),
            site: site(),
            kind,
            epoch: Epoch(1),
            plans: plans.into(),
            bake: BakePlan::default(),
            plan: RolloutPlan::default(),
        };
        let (rollout, commands) = Rollout::start(order, START, &fleet(2));
        Self {
            rollout,
            fleet: fleet(2),
            now: START,
            commands,
        }
    }

    fn step(&mut self, event: &Event) -> &mut Self {
        self.commands = self.rollout.step(self.now, &self.fleet, event);
        self
    }

    fn pass(&mut self, span: Duration) -> &mut Self {
        self.now = self.now + span;
        self.step(&Event::Tick)
    }

    fn report(
        &mut self,
        edge: &str,
        boot: u8,
        candidate: Option<CandidateState>,
        live: u8,
    ) -> &mut Self {
        let region: RegionId = edge[..3].parse().unwrap();
        let generation = self.rollout.record(&region).unwrap().generation;
        let candidate = candidate.map(|state| CandidateReport {
            release: release(2).release,
            state,
        });
        self.step(&Event::Reported(SiteReport {
            edge: edge.parse().unwrap(),
            region,
            boot: format!("{boot:016x}").parse().unwrap(),
            site: site(),
            generation,
            serving: generation,
            live: Some(release(live).release),
            candidate,
        }))
    }

    fn prepare(&mut self, edges: &[&str]) -> &mut Self {
        for edge in edges {
            self.report(edge, 0, Some(CandidateState::Prepared), 1);
        }
        self
    }

    fn prove(&mut self, edges: &[&str], number: u8) -> &mut Self {
        for edge in edges {
            self.report(edge, 0, None, number);
            let region: RegionId = edge[..3].parse().unwrap();
            let generation = self.rollout.record(&region).unwrap().generation;
            let release = release(number).release;
            self.step(&Event::Proved {
                region,
                edge: edge.parse().unwrap(),
                generation,
                release,
            });
        }
        self
    }

    fn phase(&self, region: &str) -> PhaseName {
        self.rollout
            .regions()
            .into_iter()
            .find(|view| view.region.as_str() == region)
            .unwrap()
            .phase
    }

    fn live(&self, region: &str) -> Option<ReleaseRef> {
        self.rollout
            .record(&region.parse().unwrap())
            .unwrap()
            .live
            .clone()
    }
}

const ALL: [&str; 4] = ["fra-1", "fra-2", "iad-1", "iad-2"];

#[test]
fn a_release_settles_when_every_edge_is_prepared_and_proven() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    assert!(stage.commands.iter().all(
        |command| matches!(command, Command::Write(record) if record.candidate == Some(release(2)))
    ));
    stage.prepare(&ALL);
    assert_eq!(stage.phase("fra"), PhaseName::Committing);
    assert_eq!(stage.live("fra"), Some(release(2)));
    assert_eq!(
        stage
            .rollout
            .record(&"fra".parse().unwrap())
            .unwrap()
            .previous,
        [release(1)]
    );
    stage.prove(&ALL, 2);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Settled));
    assert!(stage.commands.contains(&Command::Finish(Outcome::Settled)));
}

#[test]
fn regions_of_a_deployment_commit_only_when_all_are_prepared() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.prepare(&["fra-1", "fra-2", "iad-1"]);
    assert_eq!(stage.phase("fra"), PhaseName::Prepared);
    assert_eq!(stage.live("fra"), Some(release(1)));
    stage.prepare(&["iad-2"]);
    assert_eq!(
        (stage.phase("fra"), stage.phase("iad")),
        (PhaseName::Committing, PhaseName::Committing)
    );
}

#[test]
fn a_region_that_goes_back_does_not_wait_for_another() {
    let mut stage = Stage::start(Kind::Rollback, Some(1));
    stage.prepare(&["fra-1", "fra-2"]);
    assert_eq!(
        (stage.phase("fra"), stage.phase("iad")),
        (PhaseName::Committing, PhaseName::Preparing)
    );
}

#[test]
fn what_an_edge_prepared_before_it_restarted_is_void() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.prepare(&["fra-1", "fra-2", "iad-1"]);
    stage.report("fra-1", 1, Some(CandidateState::Preparing), 1);
    stage.prepare(&["iad-2"]);
    assert_eq!(stage.phase("fra"), PhaseName::Preparing);
    stage.report("fra-1", 1, Some(CandidateState::Prepared), 1);
    assert_eq!(stage.phase("fra"), PhaseName::Committing);
}

#[test]
fn a_late_word_of_an_earlier_boot_does_not_count() {
    let boot = |number: u8| format!("{number:016x}").parse().unwrap();
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.prepare(&["fra-1", "fra-2", "iad-1"]);
    // It restarts, and its first sign of life comes before what it said last.
    let fra = stage
        .fleet
        .regions
        .get_mut(&"fra".parse().unwrap())
        .unwrap();
    fra.boots.insert("fra-1".parse().unwrap(), boot(1));
    stage.prepare(&["iad-2"]);
    assert_eq!(
        stage.phase("fra"),
        PhaseName::Preparing,
        "it was prepared in another boot"
    );
    stage.report("fra-1", 0, Some(CandidateState::Prepared), 1);
    assert_eq!(
        stage.phase("fra"),
        PhaseName::Preparing,
        "that boot is over"
    );
    stage.report("fra-1", 1, Some(CandidateState::Prepared), 1);
    assert_eq!(stage.phase("fra"), PhaseName::Committing);
}

#[test]
fn an_edge_that_cannot_prepare_ends_it_before_any_visitor_sees_it() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.prepare(&["iad-1", "iad-2"]);
    stage.report(
        "fra-1",
        0,
        Some(CandidateState::Failed("no space left on device".to_owned())),
        1,
    );
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Aborted));
    let views = stage.rollout.regions();
    assert_eq!(
        views[0].reason.as_deref(),
        Some("fra-1: no space left on device")
    );
    for region in ["fra", "iad"] {
        assert_eq!(stage.live(region), Some(release(1)));
        assert_eq!(
            stage
                .rollout
                .record(&region.parse().unwrap())
                .unwrap()
                .candidate,
            None
        );
    }
}

#[test]
fn a_late_edge_is_named_when_the_prepare_deadline_passes() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage
        .prepare(&["fra-1", "iad-1", "iad-2"])
        .pass(PREPARE_DEADLINE);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Aborted));
    assert!(
        stage.rollout.regions()[0]
            .reason
            .as_deref()
            .unwrap()
            .ends_with("fra-2")
    );
}

#[test]
fn the_prepare_deadline_allows_for_the_gates() {
    let gates = Duration::from_secs(65);
    let mut stage = Stage::gated(Kind::Deploy, Some(1), gates);
    stage.pass(PREPARE_DEADLINE + gates - Duration::from_millis(1));
    assert_eq!(stage.phase("fra"), PhaseName::Preparing);
    stage.pass(Duration::from_millis(1));
    assert_eq!(stage.phase("fra"), PhaseName::Aborted);
}

#[test]
fn what_gates_showed_stays_with_the_rollout() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    let shown = |of: u8, run: Option<Generation>| {
        Event::Gated(GatesReport {
            edge: "fra-2".parse().unwrap(),
            region: "fra".parse().unwrap(),
            boot: "0000000000000000".parse().unwrap(),
            site: site(),
            release: release(of).release,
            run,
            results: Vec::new(),
        })
    };
    let before = stage.rollout.clone();
    stage.step(&shown(3, None));
    stage.step(&shown(2, Some(Generation(1))));
    assert_eq!(stage.rollout, before, "of another release, or by hand");
    stage.step(&shown(2, None));
    assert_eq!(stage.commands, []);
    stage.report(
        "fra-2",
        0,
        Some(CandidateState::Failed("gate home: fail".to_owned())),
        1,
    );
    stage.step(&shown(2, None));
    let saved = serde_json::to_string(&stage.rollout).unwrap();
    let loaded: Rollout = serde_json::from_str(&saved).unwrap();
    let regions = loaded.regions();
    assert_eq!(regions[0].gates[0].edge.as_str(), "fra-2");
    assert_eq!(regions[0].reason.as_deref(), Some("fra-2: gate home: fail"));
    assert!(regions[1].gates.is_empty());
}

#[test]
fn a_rollout_saved_before_there_were_gates_goes_on() {
    let stage = Stage::start(Kind::Deploy, Some(1));
    let mut saved = serde_json::to_value(&stage.rollout).unwrap();
    for cutover in saved["cutovers"].as_object_mut().unwrap().values_mut() {
        let fields = cutover.as_object_mut().unwrap();
        assert!(fields.remove("gates").is_some() && fields.remove("evidence").is_some());
    }
    let loaded: Rollout = serde_json::from_value(saved).unwrap();
    assert_eq!(loaded, stage.rollout);
}

#[test]
fn late_edges_are_asked_again_every_second() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.pass(Duration::from_millis(999));
    assert!(stage.commands.is_empty());
    stage.pass(Duration::from_millis(1));
    assert_eq!(stage.commands.len(), 2);
    assert!(
        stage
            .commands
            .iter()
            .all(|command| matches!(command, Command::Republish { .. }))
    );
}

#[test]
fn an_edge_whose_lease_ends_is_not_waited_for_while_half_are_left() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage
        .fleet
        .regions
        .get_mut(&"fra".parse().unwrap())
        .unwrap()
        .live
        .remove(&"fra-2".parse().unwrap());
    stage
        .prepare(&["fra-1", "iad-1", "iad-2"])
        .pass(Duration::from_millis(1));
    assert_eq!(stage.phase("fra"), PhaseName::Committing);
    stage.prove(&["fra-1", "iad-1", "iad-2"], 2);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Settled));
}

#[test]
fn a_region_without_live_edges_is_never_counted_as_done() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage
        .fleet
        .regions
        .get_mut(&"fra".parse().unwrap())
        .unwrap()
        .live
        .clear();
    stage
        .prepare(&["iad-1", "iad-2"])
        .pass(Duration::from_secs(5));
    assert_eq!(stage.phase("fra"), PhaseName::Preparing);
    stage.pass(PREPARE_DEADLINE);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Aborted));
}

#[test]
fn a_release_that_does_not_prove_itself_takes_every_region_back() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.prepare(&ALL).prove(&["fra-1", "fra-2", "iad-1"], 2);
    assert_eq!(stage.phase("fra"), PhaseName::Stable);
    let committed = stage
        .rollout
        .record(&"fra".parse().unwrap())
        .unwrap()
        .generation;
    stage.pass(COMMIT_DEADLINE);
    assert_eq!(
        (stage.phase("fra"), stage.phase("iad")),
        (PhaseName::RollingBack, PhaseName::RollingBack)
    );
    assert_eq!(stage.live("fra"), Some(release(1)));
    assert!(
        stage
            .rollout
            .record(&"fra".parse().unwrap())
            .unwrap()
            .generation
            > committed
    );
    stage.prove(&ALL, 1);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::WentBack));
}

#[test]
fn a_first_release_that_does_not_prove_itself_needs_an_operator() {
    let mut stage = Stage::start(Kind::Deploy, None);
    stage.prepare(&ALL).pass(COMMIT_DEADLINE);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::NeedsOperator));
    assert_eq!(stage.live("fra"), Some(release(2)));
}

#[test]
fn a_rollback_that_does_not_prove_itself_stays_where_it_is() {
    let mut stage = Stage::start(Kind::Rollback, Some(1));
    stage
        .prepare(&ALL)
        .prove(&["fra-1", "fra-2"], 2)
        .pass(COMMIT_DEADLINE);
    assert_eq!(
        (stage.phase("fra"), stage.phase("iad")),
        (PhaseName::Stable, PhaseName::RevertBlocked)
    );
    assert_eq!(stage.rollout.outcome(), Some(Outcome::NeedsOperator));
}

#[test]
fn a_newer_rollout_drops_a_candidate_and_leaves_what_is_committed() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    // By an origin that leads in a later term, and has not resumed it.
    let epoch = Epoch(2);
    stage.step(&Event::Superseded { epoch });
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Superseded));
    let written = stage.commands.iter().filter_map(|command| match command {
        Command::Write(record) => Some(record.epoch),
        _ => None,
    });
    assert_eq!(written.collect::<Vec<_>>(), [epoch, epoch]);

    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.prepare(&ALL).step(&Event::Superseded { epoch });
    assert_eq!(stage.commands, [Command::Finish(Outcome::Superseded)]);
    assert_eq!(stage.live("fra"), Some(release(2)));
}

#[test]
fn what_is_live_and_settled_everywhere_is_done_at_once_without_a_write() {
    let stage = Stage::start(Kind::Deploy, Some(2));
    assert_eq!(stage.commands, [Command::Finish(Outcome::Settled)]);
}

#[test]
fn late_and_repeated_reports_change_nothing() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.prepare(&ALL);
    let before = stage.rollout.clone();
    // Sent before the commit, delivered after it.
    let old = SiteReport {
        edge: "fra-1".parse().unwrap(),
        region: "fra".parse().unwrap(),
        boot: "0000000000000000".parse().unwrap(),
        site: site(),
        generation: Generation(6),
        serving: Generation(6),
        live: Some(release(2).release),
        candidate: None,
    };
    stage.step(&Event::Reported(old));
    assert_eq!(stage.rollout, before);
    stage.prove(&ALL, 2);
    let after = stage.rollout.clone();
    stage.prove(&ALL, 2);
    assert_eq!(stage.rollout, after);
    assert!(stage.commands.is_empty());
}

#[test]
fn a_restarted_origin_asks_again_under_its_new_term() {
    let mut stage = Stage::start(Kind::Deploy, Some(1));
    stage.prepare(&ALL).report("fra-1", 0, None, 2);
    let commands = stage.rollout.resume(Epoch(2), stage.now, &stage.fleet);
    assert!(
        commands.iter().any(
            |command| matches!(command, Command::Probe { edge, .. } if edge.as_str() == "fra-1")
        )
    );
    assert_eq!(
        commands
            .iter()
            .filter(|command| matches!(command, Command::Republish { .. }))
            .count(),
        2
    );
    stage.prove(&ALL, 2);
    assert_eq!(stage.rollout.outcome(), Some(Outcome::Settled));
}
