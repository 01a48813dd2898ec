//! The stages of a rollout by example: one claim a test.

use std::collections::BTreeMap;
use std::time::Duration;

use helix_routing::api::{PhaseName, Waits};
use helix_routing::bake::{BakeRules, OnFail, OnInconclusive, Window};
use helix_routing::id::{Epoch, Generation};
use helix_routing::record::SiteRecord;
use helix_routing::report::{Baseline, CandidateReport, CandidateState, SiteReport, WindowReport};
use helix_routing::rollout::{
    BakePlan, COMMIT_DEADLINE, Command, Control, Event, Hours, Kind, Order, Outcome,
    PREPARE_DEADLINE, Refused, RegionPlan, Rollout, RolloutPlan, RolloutPolicy,
};
use helix_routing::time::Timestamp;

use crate::{REGIONS, START, fleet, region, release, site};

/// Release 2 goes out over release 1, and every edge does at once what its record says, unless a test says otherwise.
struct Stages {
    rollout: Rollout,
    now: Timestamp,
    /// All that was asked for since the last look.
    commands: Vec<Command>,
}

impl Stages {
    fn start(policy: &str) -> Self {
        Self::held_to(policy, BakeRules::default())
    }

    fn held_to(policy: &str, rules: BakeRules) -> Self {
        let policy: RolloutPolicy = serde_json::from_str(policy).unwrap();
        let plan = RolloutPlan::of(&policy, &REGIONS.map(region)).unwrap();
        Self::planned(plan, rules, Some(1))
    }

    fn planned(plan: RolloutPlan, rules: BakeRules, live: Option<u8>) -> Self {
        let (rollout, commands) = Rollout::start(order(plan, rules, live), START, &fleet(1));
        Self {
            rollout,
            now: START,
            commands,
        }
    }

    fn step(&mut self, event: &Event) {
        let commands = self.rollout.step(self.now, &fleet(1), event);
        self.commands.extend(commands);
    }

    fn ask(&mut self, control: &Control) -> Result<(), Refused> {
        let commands = self.rollout.control(self.now, &fleet(1), "ana", control)?;
        self.commands.extend(commands);
        Ok(())
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.step(&Event::Tick);
        self.follow();
    }

    /// The edge of a region says that it is as its record says.
    fn report(&mut self, name: &str, state: CandidateState) {
        let record = self.rollout.record(&region(name)).unwrap().clone();
        let candidate = record.candidate.map(|candidate| CandidateReport {
            release: candidate.release,
            state,
        });
        let live = record.live.map(|live| live.release);
        self.step(&Event::Reported(SiteReport {
            edge: format!("{name}-1").parse().unwrap(),
            region: record.region.clone(),
            boot: "00000000000000bb".parse().unwrap(),
            site: site(),
            generation: record.generation,
            serving: record.generation,
            live: live.clone(),
            candidate,
        }));
        if let Some(release) = live {
            self.step(&Event::Proved {
                region: record.region,
                edge: format!("{name}-1").parse().unwrap(),
                generation: record.generation,
                release,
            });
        }
    }

    /// Every edge follows its record, until nothing changes any more.
    fn follow(&mut self) {
        loop {
            let before = self.rollout.clone();
            for name in REGIONS {
                self.report(name, CandidateState::Prepared);
            }
            if self.rollout == before {
                return;
            }
        }
    }

    fn counts(&mut self, name: &str, requests: u64, errors: u64) {
        let record = self.rollout.record(&region(name)).unwrap().clone();
        let window = |errors: u64| {
            let mut window = Window::default();
            for request in 0..requests {
                window.add(request < errors, 1_000);
            }
            window
        };
        self.step(&Event::Measured(Box::new(WindowReport {
            edge: format!("{name}-1").parse().unwrap(),
            region: record.region,
            boot: "00000000000000bb".parse().unwrap(),
            site: site(),
            release: release(2).release,
            live_since: record.generation,
            window: window(errors),
            baseline: Some(Baseline {
                release: release(1).release,
                window: window(0),
            }),
        })));
        self.follow();
    }

    fn phases(&self) -> [PhaseName; 2] {
        REGIONS.map(|name| {
            let views = self.rollout.regions();
            views
                .iter()
                .find(|view| view.region == region(name))
                .unwrap()
                .phase
        })
    }

    fn live(&self, name: &str) -> u8 {
        let live = self.rollout.record(&region(name)).unwrap().live.clone();
        if live == Some(release(2)) { 2 } else { 1 }
    }

    fn weight(&self, name: &str) -> Option<u8> {
        self.rollout.record(&region(name)).unwrap().weight
    }
}

fn order(plan: RolloutPlan, rules: BakeRules, live: Option<u8>) -> Order {
    let plans = REGIONS.map(|name| {
        let blank = SiteRecord::blank(site(), region(name), Epoch(1));
        RegionPlan {
            record: SiteRecord {
                generation: Generation(if live.is_some() { 5 } else { 0 }),
                live: live.map(release),
                ..blank
            },
            target: release(2),
            baseline: live.map(release),
            is_baseline_quarantined: false,
            bytes: 0,
            gates: Duration::ZERO,
        }
    });
    Order {
        id: "00000000000000aa".parse().unwrap(),
        site: site(),
        kind: Kind::Deploy,
        epoch: Epoch(1),
        plans: plans.into(),
        bake: BakePlan {
            rules,
            ..BakePlan::default()
        },
        plan,
    }
}

const CANARY: &str = r#"{"order":"canary"}"#;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_next_wave_begins_once_the_one_before_has_settled() {
    let mut stages = Stages::start(CANARY);
    stages.report("fra", CandidateState::Prepared);
    assert_eq!(stages.live("fra"), 1, "iad is not prepared yet");
    stages.report("iad", CandidateState::Prepared);
    assert_eq!((stages.live("fra"), stages.live("iad")), (2, 1));
    stages.report("iad", CandidateState::Prepared);
    assert_eq!(stages.live("iad"), 1, "fra is not proven yet");
    stages.follow();
    assert_eq!(stages.rollout.outcome(), Some(Outcome::Settled));
    assert_eq!(stages.live("iad"), 2);
}

#[test]
fn what_cannot_be_prepared_in_the_last_wave_is_never_live_in_the_first() {
    let mut stages = Stages::start(CANARY);
    stages.report("fra", CandidateState::Prepared);
    stages.report("iad", CandidateState::Failed("no space".to_owned()));
    assert_eq!(stages.rollout.outcome(), Some(Outcome::Aborted));
    assert_eq!(stages.live("fra"), 1);
}

#[test]
fn a_wave_soaks_and_its_clock_survives_a_restart() {
    let mut stages = Stages::start(r#"{"order":"canary","soak":"10s"}"#);
    stages.follow();
    let until = START + 10 * SECOND;
    assert_eq!(stages.rollout.waits(), Some(Waits::Time { until }));
    assert_eq!(stages.rollout.deadline(), Some(until));
    stages.now = START + 4 * SECOND;
    let saved = serde_json::to_string(&stages.rollout).unwrap();
    stages.rollout = serde_json::from_str(&saved).unwrap();
    let _ = stages.rollout.resume(Epoch(2), stages.now, &fleet(1));
    assert_eq!(stages.rollout.waits(), Some(Waits::Time { until }));
    stages.pass(5 * SECOND);
    assert_eq!(stages.live("iad"), 1);
    stages.pass(SECOND);
    assert_eq!(stages.live("iad"), 2);
}

#[test]
fn an_edge_that_lost_what_it_had_prepared_is_waited_for_when_its_stage_begins() {
    let mut stages = Stages::start(r#"{"order":"canary","soak":"1h"}"#);
    stages.follow();
    stages.now = stages.now + 3600 * SECOND;
    stages.report("iad", CandidateState::Preparing);
    assert_eq!(
        stages.phases()[1],
        PhaseName::Preparing,
        "it is asked again"
    );
    assert_eq!(stages.live("iad"), 1);
    stages.now = stages.now + PREPARE_DEADLINE;
    stages.step(&Event::Tick);
    // All regions agree again, by default.
    assert_eq!(
        stages.phases(),
        [PhaseName::RollingBack, PhaseName::Aborted]
    );
    stages.follow();
    assert_eq!(stages.rollout.outcome(), Some(Outcome::WentBack));
}

#[test]
fn a_first_wave_stays_where_only_failing_regions_go_back_and_a_person_is_asked() {
    let rules = BakeRules {
        on_fail: OnFail::Region,
        ..BakeRules::default()
    };
    let mut stages = Stages::held_to(r#"{"order":"canary","soak":"1h"}"#, rules);
    stages.follow();
    stages.now = stages.now + 3600 * SECOND;
    stages.step(&Event::Tick);
    stages.report("iad", CandidateState::Failed("no space".to_owned()));
    assert_eq!(stages.phases(), [PhaseName::Stable, PhaseName::Aborted]);
    assert_eq!(stages.rollout.outcome(), Some(Outcome::NeedsOperator));
}

#[test]
fn a_stage_waits_for_its_approval_by_number_and_once() {
    let mut stages = Stages::start(r#"{"order":"canary","approve":"all"}"#);
    let approve = |stage| Control::Approve { stage };
    assert!(matches!(
        stages.ask(&approve(1)),
        Err(Refused::NotAwaiting { .. })
    ));
    stages.follow();
    assert_eq!(stages.rollout.waits(), Some(Waits::Approval { stage: 1 }));
    assert_eq!(
        stages.rollout.deadline(),
        None,
        "nothing but a person ends it"
    );
    stages.pass(30 * 24 * 3600 * SECOND);
    assert_eq!(stages.live("fra"), 1);
    assert!(matches!(
        stages.ask(&approve(2)),
        Err(Refused::NotAwaiting { .. })
    ));
    assert!(matches!(
        stages.ask(&approve(0)),
        Err(Refused::NoStage { .. })
    ));
    assert!(matches!(
        stages.ask(&approve(3)),
        Err(Refused::NoStage { .. })
    ));
    stages.ask(&approve(1)).unwrap();
    stages.follow();
    assert_eq!((stages.live("fra"), stages.live("iad")), (2, 1));
    // The second click of a double click is for a stage that has begun.
    let before = stages.rollout.clone();
    stages.ask(&approve(1)).unwrap();
    assert_eq!(stages.rollout, before);
    stages.ask(&approve(2)).unwrap();
    stages.follow();
    assert_eq!(stages.rollout.outcome(), Some(Outcome::Settled));
    assert_eq!(stages.ask(&approve(2)), Err(Refused::Over));
}

#[test]
fn a_pause_begins_no_stage_and_what_runs_still_goes_back() {
    let mut stages = Stages::start(CANARY);
    stages.report("fra", CandidateState::Prepared);
    stages.ask(&Control::Pause { reason: None }).unwrap();
    stages.follow();
    assert_eq!((stages.live("fra"), stages.live("iad")), (1, 1));
    assert!(matches!(stages.rollout.waits(), Some(Waits::Resume { .. })));
    stages.pass(24 * 3600 * SECOND);
    stages.ask(&Control::Resume).unwrap();
    stages.follow();
    assert_eq!(stages.rollout.outcome(), Some(Outcome::Settled));

    let mut late = Stages::start(CANARY);
    for name in REGIONS {
        late.report(name, CandidateState::Prepared);
    }
    late.ask(&Control::Pause { reason: None }).unwrap();
    late.now = late.now + COMMIT_DEADLINE;
    late.step(&Event::Tick);
    assert_eq!(late.phases(), [PhaseName::RollingBack, PhaseName::Aborted]);
}

#[test]
fn an_abort_takes_back_what_is_live_and_blames_nobody() {
    let abort = Control::Abort {
        reason: Some("not today".to_owned()),
    };
    let mut early = Stages::start(r#"{"approve":"all"}"#);
    early.follow();
    early.ask(&abort).unwrap();
    assert_eq!(early.rollout.outcome(), Some(Outcome::Aborted));
    let reason = early.rollout.regions()[0].reason.clone().unwrap();
    assert_eq!(reason, "aborted by ana: not today");

    let mut late = Stages::start(r#"{"order":"canary","approve":"waves"}"#);
    late.follow();
    late.commands.clear();
    late.ask(&abort).unwrap();
    assert_eq!(late.phases(), [PhaseName::RollingBack, PhaseName::Aborted]);
    let blames = |command: &Command| {
        matches!(
            command,
            Command::Return {
                quarantine: Some(_),
                ..
            }
        )
    };
    assert!(!late.commands.iter().any(blames));
    late.follow();
    assert_eq!(late.rollout.outcome(), Some(Outcome::WentBack));
    assert_eq!(late.live("fra"), 1);
}

#[test]
fn hours_open_a_stage_and_nothing_else_does() {
    // The epoch was a Thursday.
    let policy = RolloutPolicy {
        hours: Some(vec!["thu 01:00-02:00".parse::<Hours>().unwrap()]),
        ..RolloutPolicy::default()
    };
    let plan = RolloutPlan::of(&policy, &REGIONS.map(region)).unwrap();
    let mut stages = Stages::planned(plan, BakeRules::default(), Some(1));
    stages.follow();
    let until = Timestamp::from_millis(3_600_000);
    assert_eq!(stages.rollout.waits(), Some(Waits::Time { until }));
    stages.pass(3599 * SECOND);
    assert_eq!(stages.rollout.outcome(), Some(Outcome::Settled));
}

const STEPS: &str = r#"{"order":"canary","steps":["5%:10s","50%:10s"]}"#;

#[test]
fn visitors_come_in_steps_and_then_all_of_them() {
    let mut stages = Stages::start(STEPS);
    stages.follow();
    let mut seen = BTreeMap::new();
    for second in 0..60 {
        let weights = REGIONS.map(|name| (stages.weight(name), stages.live(name)));
        seen.entry(weights).or_insert(second);
        stages.pass(SECOND);
    }
    let expected = [
        ([(Some(5), 1), (None, 1)], 0),
        ([(Some(50), 1), (None, 1)], 10),
        ([(None, 2), (Some(5), 1)], 20),
        ([(None, 2), (Some(50), 1)], 30),
        ([(None, 2), (None, 2)], 40),
    ];
    assert_eq!(seen, expected.into());
    assert_eq!(stages.rollout.outcome(), Some(Outcome::Settled));
}

#[test]
fn a_canary_that_fails_is_withdrawn_and_blamed() {
    let mut stages = Stages::start(STEPS);
    stages.follow();
    assert_eq!(stages.phases()[0], PhaseName::Canary);
    stages.commands.clear();
    stages.counts("fra", 500, 400);
    let blamed = stages.commands.iter().find_map(|command| match command {
        Command::Withdraw {
            region, quarantine, ..
        } => Some((region.clone(), quarantine.clone()?)),
        _ => None,
    });
    let (withdrawn, why) = blamed.unwrap();
    assert_eq!(withdrawn, region("fra"));
    assert!(why.contains("5xx"), "{why}");
    assert_eq!((stages.weight("fra"), stages.live("fra")), (None, 1));
    assert_eq!(
        stages.rollout.outcome(),
        Some(Outcome::WentBack),
        "visitors have seen it"
    );
    assert!(
        stages
            .rollout
            .record(&region("fra"))
            .unwrap()
            .hold
            .is_some()
    );
    assert!(
        stages
            .rollout
            .record(&region("iad"))
            .unwrap()
            .hold
            .is_none()
    );
}

#[test]
fn a_canary_of_a_later_wave_takes_the_first_back() {
    let mut stages = Stages::start(STEPS);
    stages.follow();
    for _ in 0..25 {
        stages.pass(SECOND);
    }
    assert_eq!(stages.phases(), [PhaseName::Stable, PhaseName::Canary]);
    stages.counts("iad", 500, 400);
    assert_eq!(
        stages.phases(),
        [PhaseName::RolledBack, PhaseName::RolledBack]
    );
    assert_eq!((stages.live("fra"), stages.weight("iad")), (1, None));
}

#[test]
fn a_canary_of_which_nothing_can_be_said_asks_a_person_where_its_rules_want_that() {
    let rules = BakeRules {
        on_inconclusive: OnInconclusive::Ask,
        ..BakeRules::default()
    };
    let mut stages = Stages::held_to(r#"{"order":"canary","steps":["5%:10s"]}"#, rules);
    stages.follow();
    stages.pass(11 * SECOND);
    assert_eq!(stages.rollout.waits(), Some(Waits::Approval { stage: 2 }));
    assert_eq!(stages.weight("fra"), Some(5), "they go on getting it");
    stages.ask(&Control::Abort { reason: None }).unwrap();
    stages.follow();
    assert_eq!(stages.weight("fra"), None);
    assert_eq!(stages.rollout.outcome(), Some(Outcome::WentBack));
}

#[test]
fn an_edge_that_does_not_let_visitors_in_ends_the_rollout() {
    let mut stages = Stages::start(STEPS);
    for name in REGIONS {
        stages.report(name, CandidateState::Prepared);
    }
    assert_eq!(stages.phases()[0], PhaseName::Admitting);
    stages.now = stages.now + COMMIT_DEADLINE;
    stages.step(&Event::Tick);
    assert_eq!(
        stages.phases(),
        [PhaseName::RollingBack, PhaseName::Aborted]
    );
    assert_eq!(stages.weight("fra"), None);
}

#[test]
fn a_newer_rollout_leaves_no_weight_behind() {
    let mut stages = Stages::start(STEPS);
    stages.follow();
    assert_eq!(stages.weight("fra"), Some(5));
    stages.step(&Event::Superseded { epoch: Epoch(1) });
    assert_eq!(stages.weight("fra"), None);
    assert_eq!(stages.rollout.outcome(), Some(Outcome::Superseded));
}

#[test]
fn where_nothing_is_live_all_visitors_come_at_once() {
    let policy: RolloutPolicy = serde_json::from_str(STEPS).unwrap();
    let plan = RolloutPlan::of(&policy, &REGIONS.map(region)).unwrap();
    let mut stages = Stages::planned(plan, BakeRules::default(), None);
    stages.follow();
    assert_eq!(stages.rollout.outcome(), Some(Outcome::Settled));
}

#[test]
fn a_deployment_that_comes_after_a_newer_one_writes_nothing() {
    let (rollout, commands) = Rollout::superseded(
        order(RolloutPlan::default(), BakeRules::default(), Some(1)),
        "push 7 came after push 9",
    );
    let reason = rollout.regions()[0].reason.clone();
    assert_eq!(reason.as_deref(), Some("push 7 came after push 9"));
    assert_eq!(commands, [Command::Finish(Outcome::Superseded)]);
    assert_eq!(rollout.outcome(), Some(Outcome::Superseded));
}

/// What the first version saved: waves, of which there was one, and no place in a plan.
#[test]
fn a_rollout_that_was_saved_before_there_were_stages_goes_on() {
    let mut stages = Stages::start("{}");
    stages.report("fra", CandidateState::Prepared);
    let mut saved = serde_json::to_value(&stages.rollout).unwrap();
    let fields = saved.as_object_mut().unwrap();
    for name in [
        "stages",
        "stage",
        "at",
        "not_before",
        "hours",
        "closed",
        "paused",
    ] {
        assert!(fields.remove(name).is_some(), "{name}");
    }
    fields.insert("waves".to_owned(), serde_json::json!([["fra", "iad"]]));
    fields.insert("wave".to_owned(), serde_json::json!(0));
    let mut committed = stages;
    committed.rollout = serde_json::from_value(saved).unwrap();
    committed.follow();
    assert_eq!(committed.rollout.outcome(), Some(Outcome::Settled));
}
