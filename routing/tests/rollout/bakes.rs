//! The bake of a rollout by example: one claim a test.

use std::time::Duration;

use helix_routing::api::{BakeView, PhaseName};
use helix_routing::bake::{
    BakeRules, LatencyLimit, Number, OnFail, OnInconclusive, PromqlCheck, Window,
};
use helix_routing::id::{Epoch, Generation};
use helix_routing::record::SiteRecord;
use helix_routing::report::{Baseline, CandidateReport, CandidateState, SiteReport, WindowReport};
use helix_routing::rollout::{
    BakePlan, Command, Event, Kind, Order, Outcome, RegionPlan, Rollout, RolloutPlan,
};
use helix_routing::routes::Span;
use helix_routing::time::Timestamp;
use helix_routing::verdict::Verdict;

use crate::{REGIONS, fleet, region, release, site};

const MINUTE: Duration = Duration::from_secs(60);

fn window(requests: u64, errors: u64, millis: u64) -> Window {
    let mut window = Window::default();
    for number in 0..requests {
        window.add(number < errors, millis * 1000);
    }
    window
}

fn a_minute() -> BakePlan {
    BakePlan {
        window: Span::from_secs(60),
        rules: BakeRules::default(),
    }
}

fn ruled(rules: BakeRules) -> BakePlan {
    BakePlan {
        rules,
        ..a_minute()
    }
}

/// A rollout whose regions have just begun to bake.
struct Oven {
    rollout: Rollout,
    now: Timestamp,
    commands: Vec<Command>,
}

impl Oven {
    /// Release 2 over release 1, which settled before.
    fn new(bake: BakePlan) -> Self {
        Self::over(bake, Some(1), false)
    }

    fn over(bake: BakePlan, live: Option<u8>, is_baseline_quarantined: bool) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let plans = REGIONS.map(|name| RegionPlan {
            record: SiteRecord {
                generation: Generation(5),
                live: live.map(release),
                ..SiteRecord::blank(site(), region(name), Epoch(1))
            },
            target: release(2),
            baseline: live.map(release),
            is_baseline_quarantined,
            bytes: 0,
            gates: Duration::ZERO,
        });
        let order = Order {
            id: "00000000000000aa".parse().unwrap(),
            site: site(),
            kind: Kind::Deploy,
            epoch: Epoch(1),
            plans: plans.into(),
            bake,
            plan: RolloutPlan::default(),
        };
        let (rollout, commands) = Rollout::start(order, now, &fleet(1));
        let mut oven = Self {
            rollout,
            now,
            commands,
        };
        for name in REGIONS {
            oven.report(name, Some(CandidateState::Prepared), live.unwrap_or(0));
        }
        for name in REGIONS {
            oven.prove(name, 2);
        }
        oven
    }

    fn step(&mut self, event: &Event) -> &mut Self {
        self.commands = self.rollout.step(self.now, &fleet(1), event);
        self
    }

    fn pass(&mut self, span: Duration) -> &mut Self {
        self.now = self.now + span;
        self.step(&Event::Tick)
    }

    fn report(&mut self, name: &str, candidate: Option<CandidateState>, live: u8) {
        let generation = self.rollout.record(&region(name)).unwrap().generation;
        self.step(&Event::Reported(SiteReport {
            edge: format!("{name}-1").parse().unwrap(),
            region: region(name),
            boot: "0000000000000001".parse().unwrap(),
            site: site(),
            generation,
            serving: generation,
            live: Some(release(live).release),
            candidate: candidate.map(|state| CandidateReport {
                release: release(2).release,
                state,
            }),
        }));
    }

    fn prove(&mut self, name: &str, number: u8) -> &mut Self {
        self.report(name, None, number);
        let generation = self.rollout.record(&region(name)).unwrap().generation;
        self.step(&Event::Proved {
            region: region(name),
            edge: format!("{name}-1").parse().unwrap(),
            generation,
            release: release(number).release,
        })
    }

    fn counted(
        &self,
        name: &str,
        boot: u8,
        window: Window,
        before: Option<Window>,
    ) -> WindowReport {
        WindowReport {
            edge: format!("{name}-1").parse().unwrap(),
            region: region(name),
            boot: format!("{boot:016x}").parse().unwrap(),
            site: site(),
            release: release(2).release,
            live_since: self.rollout.record(&region(name)).unwrap().live_since,
            window,
            baseline: before.map(|window| Baseline {
                release: release(1).release,
                window,
            }),
        }
    }

    fn measure(&mut self, name: &str, window: Window, before: Option<Window>) -> &mut Self {
        let report = self.counted(name, 1, window, before);
        self.step(&Event::Measured(Box::new(report)))
    }

    fn phase(&self, name: &str) -> PhaseName {
        self.view(name).0
    }

    fn bake(&self, name: &str) -> BakeView {
        self.view(name).1.unwrap()
    }

    fn view(&self, name: &str) -> (PhaseName, Option<BakeView>, Option<String>) {
        let views = self.rollout.regions();
        let view = views
            .into_iter()
            .find(|view| view.region == region(name))
            .unwrap();
        (view.phase, view.bake, view.reason)
    }

    fn record(&self, name: &str) -> &SiteRecord {
        self.rollout.record(&region(name)).unwrap()
    }

    fn returns(&self) -> Vec<(String, Option<String>)> {
        let returned = |command: &Command| match command {
            Command::Return {
                region, quarantine, ..
            } => Some((region.to_string(), quarantine.clone())),
            _ => None,
        };
        self.commands.iter().filter_map(returned).collect()
    }
}

#[test]
fn a_good_release_settles_when_its_window_is_over_and_not_before() {
    let mut oven = Oven::new(a_minute());
    assert!(oven.record("fra").bake_until.is_some(), "edges are told");
    for name in REGIONS {
        oven.measure(name, window(500, 0, 80), Some(window(500, 0, 78)));
    }
    oven.pass(MINUTE - Duration::from_millis(1));
    assert_eq!(oven.phase("fra"), PhaseName::Baking);
    oven.pass(Duration::from_millis(1));
    assert_eq!(oven.rollout.outcome(), Some(Outcome::Settled));
    let bake = oven.bake("fra");
    assert_eq!(
        (bake.verdict, bake.requests, bake.baseline_requests),
        (Some(Verdict::Pass), 500, 500)
    );
    assert_eq!(bake.decided, Some(oven.now));
}

#[test]
fn certain_failure_takes_every_region_back_at_once_held_and_quarantined() {
    let mut oven = Oven::new(a_minute());
    let generation = oven.record("iad").generation;
    oven.measure("fra", window(100, 100, 10), None);
    let because: Vec<_> = oven.returns();
    assert_eq!(because.len(), 2, "{because:?}");
    for (name, why) in because {
        assert!(why.unwrap().contains(if name == "fra" {
            "5xx 100.00%"
        } else {
            "failed in fra"
        }));
    }
    for name in REGIONS {
        assert_eq!(oven.phase(name), PhaseName::RollingBack);
        let record = oven.record(name);
        assert_eq!(
            (record.live.as_ref(), record.bake_until),
            (Some(&release(1)), None)
        );
        assert!(record.hold.is_some());
        assert!(record.generation > generation);
        oven.prove(name, 1);
    }
    assert_eq!(oven.rollout.outcome(), Some(Outcome::WentBack));
    assert_eq!(oven.bake("fra").verdict, Some(Verdict::Fail));
    assert_eq!(oven.bake("iad").verdict, None, "its own was not over");
}

#[test]
fn one_region_may_go_back_alone() {
    let mut oven = Oven::new(ruled(BakeRules {
        on_fail: OnFail::Region,
        ..BakeRules::default()
    }));
    oven.measure("fra", window(100, 100, 10), None);
    assert_eq!(oven.returns().len(), 1);
    oven.prove("fra", 1);
    oven.measure("iad", window(100, 0, 10), None);
    oven.pass(MINUTE);
    assert_eq!(
        (oven.phase("fra"), oven.phase("iad")),
        (PhaseName::RolledBack, PhaseName::Stable)
    );
    assert_eq!(oven.rollout.outcome(), Some(Outcome::WentBack));
    assert_eq!(oven.record("iad").hold, None);
}

#[test]
fn a_region_that_settled_goes_back_with_one_that_fails_later() {
    let mut oven = Oven::new(a_minute());
    // Prometheus' patience and the like aside, both are over in one moment; origin hears of one of them first.
    oven.measure("iad", window(100, 2, 10), None);
    oven.measure("fra", window(100, 0, 10), None);
    oven.pass(MINUTE);
    let (fra, iad) = (oven.phase("fra"), oven.phase("iad"));
    assert_eq!((fra, iad), (PhaseName::RollingBack, PhaseName::RollingBack));
    assert_eq!(oven.returns().len(), 2);
}

fn took_itself_back(oven: &Oven, name: &str) -> Event {
    Event::WentBack {
        region: region(name),
        reason: "5xx 100.00%".to_owned(),
        base: oven.record(name).live_since,
    }
}

#[test]
fn what_edges_did_by_themselves_after_an_earlier_cutover_says_nothing_of_this_one() {
    let mut oven = Oven::new(a_minute());
    let mut late = took_itself_back(&oven, "fra");
    if let Event::WentBack { base, .. } = &mut late {
        *base = Generation(base.0 - 1);
    }
    oven.step(&late);
    assert_eq!(oven.phase("fra"), PhaseName::Baking);
    let now = took_itself_back(&oven, "fra");
    oven.step(&now);
    assert_eq!(oven.phase("fra"), PhaseName::RollingBack);
}

#[test]
fn edges_that_took_themselves_back_after_their_region_settled_are_heeded_while_the_rollout_runs() {
    let mut oven = Oven::new(a_minute());
    oven.now = oven.now + MINUTE;
    oven.measure("fra", window(100, 0, 10), None);
    assert_eq!(oven.phase("fra"), PhaseName::Stable);
    assert_eq!(oven.phase("iad"), PhaseName::Baking, "it was not heard yet");
    let event = took_itself_back(&oven, "fra");
    oven.step(&event);
    let (fra, iad) = (oven.phase("fra"), oven.phase("iad"));
    assert_eq!((fra, iad), (PhaseName::RollingBack, PhaseName::RollingBack));
    assert!(oven.record("fra").hold.is_some());
    // Said again, it changes nothing.
    let event = took_itself_back(&oven, "fra");
    oven.step(&event);
    assert!(oven.commands.is_empty(), "{:?}", oven.commands);
}

#[test]
fn too_few_requests_settle_or_ask_a_person() {
    let mut oven = Oven::new(a_minute());
    oven.measure("fra", window(99, 99, 10), None);
    oven.pass(MINUTE);
    assert_eq!(oven.rollout.outcome(), Some(Outcome::Settled));
    assert_eq!(oven.bake("fra").verdict, Some(Verdict::Inconclusive));

    let asks = BakeRules {
        on_inconclusive: OnInconclusive::Ask,
        ..BakeRules::default()
    };
    let mut oven = Oven::new(ruled(asks));
    oven.pass(MINUTE);
    assert_eq!(oven.phase("fra"), PhaseName::Undecided);
    assert_eq!(oven.record("fra").live, Some(release(2)));
    assert_eq!(oven.rollout.outcome(), Some(Outcome::NeedsOperator));
    assert!(oven.view("fra").2.unwrap().contains("0 of 100 requests"));
}

#[test]
fn lost_repeated_and_late_reports_change_nothing() {
    let mut oven = Oven::new(a_minute());
    let newest = oven.counted("fra", 1, window(150, 0, 10), Some(window(200, 0, 10)));
    let older = oven.counted("fra", 1, window(50, 0, 10), None);
    for report in [&newest, &older, &newest] {
        oven.step(&Event::Measured(Box::new(report.clone())));
    }
    assert_eq!(
        (
            oven.bake("fra").requests,
            oven.bake("fra").baseline_requests
        ),
        (150, 200)
    );
    let next_boot = oven.counted("fra", 2, window(30, 0, 10), None);
    oven.step(&Event::Measured(Box::new(next_boot)));
    oven.step(&Event::Measured(Box::new(newest)));
    assert_eq!(
        oven.bake("fra").requests,
        180,
        "what was answered in another boot was answered"
    );
}

#[test]
fn counts_of_another_release_or_of_an_earlier_time_say_nothing() {
    let mut oven = Oven::new(a_minute());
    let report = oven.counted("fra", 1, window(500, 500, 10), None);
    let other = WindowReport {
        release: release(1).release,
        ..report.clone()
    };
    let earlier = WindowReport {
        live_since: Generation(3),
        ..report
    };
    for report in [other, earlier] {
        oven.step(&Event::Measured(Box::new(report)));
    }
    assert_eq!(oven.bake("fra").requests, 0);
    let mut compared = oven.counted("fra", 1, window(1, 0, 10), Some(window(500, 0, 1)));
    compared.baseline.as_mut().unwrap().release = release(7).release;
    oven.step(&Event::Measured(Box::new(compared)));
    assert_eq!(
        oven.bake("fra").baseline_requests,
        0,
        "it is not what one goes back to"
    );
}

#[test]
fn nothing_goes_back_to_nothing_or_to_what_is_worse() {
    let mut first = Oven::over(a_minute(), None, false);
    first.measure("fra", window(100, 100, 10), None);
    assert_eq!(first.phase("fra"), PhaseName::RevertBlocked);
    assert_eq!(first.record("fra").live, Some(release(2)));
    assert_eq!(
        first.phase("iad"),
        PhaseName::Baking,
        "the others are left as they are"
    );
    first.measure("iad", window(100, 0, 10), None).pass(MINUTE);
    assert_eq!(first.rollout.outcome(), Some(Outcome::NeedsOperator));

    let mut barred = Oven::over(a_minute(), Some(1), true);
    barred.measure("fra", window(100, 100, 10), None);
    assert_eq!(barred.phase("fra"), PhaseName::RevertBlocked);
    assert!(barred.view("fra").2.unwrap().contains("quarantined"));

    let limit = LatencyLimit {
        max: Some(Span::from_millis(100)),
        ..LatencyLimit::default()
    };
    let mut sicker = Oven::new(ruled(BakeRules {
        p99: limit,
        ..BakeRules::default()
    }));
    sicker.measure("fra", window(200, 0, 150), Some(window(200, 0, 900)));
    sicker.pass(MINUTE);
    assert_eq!(sicker.phase("fra"), PhaseName::RevertBlocked);
    assert!(sicker.view("fra").2.unwrap().contains("worse"));
}

#[test]
fn a_return_that_is_not_proven_goes_nowhere_else() {
    let mut oven = Oven::new(a_minute());
    oven.measure("fra", window(100, 100, 10), None);
    oven.pass(MINUTE);
    assert_eq!(oven.phase("fra"), PhaseName::RevertBlocked);
    assert_eq!(oven.returns().len(), 0, "one step by itself");
    assert_eq!(oven.record("fra").live, Some(release(1)));
    assert_eq!(oven.rollout.outcome(), Some(Outcome::NeedsOperator));
}

#[test]
fn a_restarted_origin_goes_on_with_the_clock_and_hears_again() {
    let mut oven = Oven::new(a_minute());
    let saved = serde_json::to_string(&oven.rollout).unwrap();
    oven.now = oven.now + 2 * MINUTE;
    oven.rollout = serde_json::from_str(&saved).unwrap();
    let commands = oven.rollout.resume(Epoch(2), oven.now, &fleet(1));
    assert!(
        commands
            .iter()
            .any(|command| matches!(command, Command::Republish { .. }))
    );
    oven.step(&Event::Tick);
    assert_eq!(
        oven.phase("fra"),
        PhaseName::Baking,
        "edges are heard first"
    );
    oven.measure("fra", window(100, 0, 10), None);
    oven.pass(Duration::from_secs(3));
    assert_eq!(oven.bake("fra").verdict, Some(Verdict::Pass));
    assert_eq!(oven.bake("iad").verdict, Some(Verdict::Inconclusive));
    assert_eq!(oven.bake("fra").until, oven.bake("fra").since + MINUTE);
}

#[test]
fn a_rollback_does_not_bake_and_a_plan_without_a_window_neither() {
    let mut oven = Oven::new(BakePlan::default());
    assert_eq!(oven.rollout.outcome(), Some(Outcome::Settled));
    assert_eq!(oven.record("fra").bake_until, None);
    oven.measure("fra", window(100, 100, 10), None);
    assert_eq!(oven.record("fra").live, Some(release(2)));
}

fn asking() -> BakePlan {
    let check = PromqlCheck {
        name: "carts".to_owned(),
        query: "sum(carts{site=\"$site\",region=\"$region\"})".to_owned(),
        max: Some(Number(5.0)),
        min: None,
        interval: Span::from_secs(10),
    };
    ruled(BakeRules {
        promql: vec![check],
        ..BakeRules::default()
    })
}

fn answer(oven: &mut Oven, name: &str, answer: Result<Number, String>) {
    let event = Event::Answered {
        region: region(name),
        check: 0,
        answer,
    };
    oven.step(&event);
}

#[test]
fn prometheus_is_asked_at_its_interval_for_each_region() {
    let mut oven = Oven::new(asking());
    oven.pass(Duration::from_secs(9));
    let asked = |oven: &Oven| {
        let queries = oven.commands.iter().filter_map(|command| match command {
            Command::Ask { query, .. } => Some(query.clone()),
            _ => None,
        });
        queries.collect::<Vec<_>>()
    };
    assert!(asked(&oven).is_empty());
    oven.pass(Duration::from_secs(1));
    let query = |name: &str| format!("sum(carts{{site=\"shop/production\",region=\"{name}\"}})");
    assert_eq!(asked(&oven), REGIONS.map(query));
    oven.pass(Duration::from_secs(1));
    assert!(asked(&oven).is_empty(), "it is under way");
    answer(&mut oven, "fra", Ok(Number(1.0)));
    oven.pass(Duration::from_secs(10));
    assert_eq!(asked(&oven), [query("fra")]);
}

#[test]
fn an_answer_beyond_its_bounds_fails_and_an_error_does_not() {
    let mut oven = Oven::new(asking());
    answer(&mut oven, "fra", Ok(Number(6.0)));
    assert_eq!(oven.phase("fra"), PhaseName::RollingBack);
    assert!(
        oven.view("fra")
            .2
            .unwrap()
            .contains("carts is 6, not at most 5")
    );

    let mut oven = Oven::new(asking());
    for name in REGIONS {
        oven.measure(name, window(100, 0, 10), None);
    }
    answer(&mut oven, "iad", Ok(Number(5.0)));
    oven.pass(MINUTE);
    for _ in 0..5 {
        assert_eq!(oven.phase("fra"), PhaseName::Baking, "it is asked again");
        answer(&mut oven, "fra", Err("no route to host".to_owned()));
    }
    oven.pass(Duration::from_secs(1));
    assert_eq!(oven.rollout.outcome(), Some(Outcome::Settled));
    let verdicts = REGIONS.map(|name| oven.bake(name).verdict.unwrap());
    assert_eq!(verdicts, [Verdict::Error, Verdict::Pass]);
}

#[test]
fn a_bake_ends_although_prometheus_never_answers() {
    let mut oven = Oven::new(asking());
    for _ in 0..400 {
        oven.pass(Duration::from_secs(1));
    }
    assert_eq!(oven.rollout.outcome(), Some(Outcome::Settled));
    assert_eq!(oven.bake("fra").verdict, Some(Verdict::Error));
}

#[test]
fn what_was_undecided_bakes_again_when_it_is_deployed_again() {
    let mut oven = Oven::new(ruled(BakeRules {
        on_inconclusive: OnInconclusive::Ask,
        ..BakeRules::default()
    }));
    oven.pass(MINUTE);
    let plans = REGIONS.map(|name| RegionPlan {
        record: oven.record(name).clone(),
        target: release(2),
        baseline: Some(release(1)),
        is_baseline_quarantined: false,
        bytes: 0,
        gates: Duration::ZERO,
    });
    let order = Order {
        id: "00000000000000ab".parse().unwrap(),
        site: site(),
        kind: Kind::Deploy,
        epoch: Epoch(1),
        plans: plans.into(),
        bake: a_minute(),
        plan: RolloutPlan::default(),
    };
    let (rollout, _) = Rollout::start(order, oven.now, &fleet(1));
    oven.rollout = rollout;
    for name in REGIONS {
        oven.prove(name, 2).measure(name, window(100, 0, 1), None);
    }
    assert_eq!(oven.phase("fra"), PhaseName::Baking);
    oven.pass(MINUTE);
    assert_eq!(oven.rollout.outcome(), Some(Outcome::Settled));
}
