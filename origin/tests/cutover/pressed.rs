//! Somebody presses "back", at every moment that a rollout has.

use helix_origin::rollout::{NewRollback, Preempted, Step};
use helix_routing::api::PhaseName;
use helix_routing::bake::{BakeRules, OnInconclusive, Window};
use helix_routing::id::{ReleaseId, RolloutId};
use helix_routing::report::WindowReport;
use helix_routing::rollout::{BakePlan, Kind, Outcome};
use helix_routing::routes::Span;
use helix_routing::verdict::Verdict;
use helix_service::random;

use crate::edge::Mood;
use crate::{Fleet, Origin, release, site, start, until};

fn back(regions: Option<&[&str]>, named: Option<u8>) -> NewRollback {
    let regions = regions.map(|names| names.iter().map(|name| name.parse().expect("a region")));
    NewRollback {
        site: site(),
        release: named.map(|number| release(number).release),
        regions: regions.map(Iterator::collect),
        by: "ana".to_owned(),
        reason: Some("it is slow".to_owned()),
    }
}

fn a_minute() -> BakePlan {
    BakePlan {
        window: Span::from_secs(60),
        rules: BakeRules::default(),
    }
}

/// A fleet on which releases 1 and 2 settled.
async fn two_settled() -> Option<(tempfile::TempDir, crate::nats::Nats, Fleet, Origin)> {
    let world = start().await?;
    for number in 1..=2 {
        let rollout = world.3.deploy(&site(), &release(number)).await;
        assert_eq!(world.3.outcome(&rollout).await, Some(Outcome::Settled));
    }
    Some(world)
}

async fn all_in(origin: &Origin, rollout: &RolloutId, phase: PhaseName) {
    until(&format!("{phase:?}"), async || {
        let view = origin.conductor.view(rollout).await.expect("it is read");
        let view = view.expect("it is there");
        view.regions.iter().all(|region| region.phase == phase)
    })
    .await;
}

fn to(steps: &[Step]) -> Vec<(&str, &ReleaseId)> {
    let to = steps.iter();
    to.map(|step| (step.region.as_str(), &step.to.release))
        .collect()
}

fn phases(preempted: Option<&Preempted>) -> Vec<PhaseName> {
    let regions = preempted.map(|preempted| &preempted.view.regions);
    let regions = regions.into_iter().flatten();
    regions.map(|region| region.phase).collect()
}

/// Plans, presses, and returns how it ended; the plan has to be what is done.
async fn press(origin: &Origin, wanted: NewRollback) -> (Vec<Step>, Option<Preempted>, RolloutId) {
    let (planned, preempted) = origin
        .conductor
        .plan_rollback(&wanted)
        .await
        .expect("a plan");
    let begun = origin.conductor.rollback(wanted).await.expect("it starts");
    assert_eq!(begun.steps, planned, "what was planned is what is done");
    let rollout = begun.commit().await.expect("it commits");
    (planned, preempted, rollout)
}

async fn marked(origin: &Origin, number: u8) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM quarantines WHERE release_id = $1")
        .bind(release(number).release.as_str())
        .fetch_one(origin.store.reader())
        .await
        .expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_release_is_prepared_the_one_that_is_live_is_left() {
    let Some((_folder, _nats, fleet, origin)) = two_settled().await else {
        return;
    };
    fleet.set(Mood::Silent);
    let deploy = origin.deploy(&site(), &release(3)).await;
    let (steps, preempted, rollout) = press(&origin, back(None, None)).await;
    let first = release(1).release;
    assert_eq!(to(&steps), [("fra", &first), ("iad", &first)]);
    assert_eq!(phases(preempted.as_ref()), [PhaseName::Preparing; 2]);
    fleet.set(Mood::Good);
    assert_eq!(origin.outcome(&deploy).await, Some(Outcome::Superseded));
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    assert!(fleet.all_serve(&site(), &first));
    assert_eq!((marked(&origin, 2).await, marked(&origin, 3).await), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_release_is_committed_it_is_left_in_the_region_that_was_named() {
    let Some((_folder, _nats, fleet, origin)) = two_settled().await else {
        return;
    };
    fleet.set(Mood::Stuck);
    let deploy = origin.deploy(&site(), &release(3)).await;
    all_in(&origin, &deploy, PhaseName::Committing).await;
    let (steps, preempted, rollout) = press(&origin, back(Some(&["fra"]), None)).await;
    let second = release(2).release;
    assert_eq!(to(&steps), [("fra", &second)]);
    assert_eq!(steps[0].quarantines, Some(release(3).release));
    assert_eq!(phases(preempted.as_ref()), [PhaseName::Committing; 2]);
    let live = preempted.expect("it runs").live;
    assert!(live.values().all(|live| *live == release(3).release));
    fleet.set(Mood::Good);
    assert_eq!(origin.outcome(&deploy).await, Some(Outcome::Superseded));
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    for edge in &fleet.edges {
        let expected = if edge.region.as_str() == "fra" { 2 } else { 3 };
        assert_eq!(edge.live(&site()), Some(release(expected).release));
    }
    // The other region was left with what never settled there: it can be left, too.
    let (steps, none, rollout) = press(&origin, back(Some(&["iad"]), None)).await;
    assert_eq!(to(&steps), [("iad", &second)]);
    assert!(none.is_none(), "nothing runs");
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    assert!(fleet.all_serve(&site(), &second));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_release_bakes_it_is_left() {
    let Some((_folder, _nats, fleet, origin)) = two_settled().await else {
        return;
    };
    let deploy = origin
        .deploy_and_bake(&site(), &release(3), a_minute())
        .await;
    all_in(&origin, &deploy, PhaseName::Baking).await;
    let (steps, preempted, rollout) = press(&origin, back(None, None)).await;
    let second = release(2).release;
    assert_eq!(to(&steps), [("fra", &second), ("iad", &second)]);
    assert_eq!(phases(preempted.as_ref()), [PhaseName::Baking; 2]);
    assert_eq!(origin.outcome(&deploy).await, Some(Outcome::Superseded));
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    let superseded = origin
        .conductor
        .ends()
        .rollout(Kind::Deploy, Outcome::Superseded);
    until("its end is counted", async || superseded.get() == 1).await;
    assert!(fleet.all_serve(&site(), &second));
    assert_eq!(marked(&origin, 3).await, 2);
    crate::schema::events_fit(&origin.store).await;
}

/// What an edge would say of a release of which every request fails.
fn failing(origin: &Origin, fleet: &Fleet) {
    let mut window = Window::default();
    (0..1000).for_each(|_| window.add(true, 1000));
    for edge in &fleet.edges {
        origin.conductor.measure(WindowReport {
            edge: edge.edge.clone(),
            region: edge.region.clone(),
            boot: random::boot_id(),
            site: site(),
            release: release(3).release,
            live_since: edge.generation(&site()).expect("a record"),
            window: window.clone(),
            baseline: None,
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_region_goes_back_by_itself_it_goes_there_and_no_further() {
    let Some((_folder, _nats, fleet, origin)) = two_settled().await else {
        return;
    };
    let deploy = origin
        .deploy_and_bake(&site(), &release(3), a_minute())
        .await;
    all_in(&origin, &deploy, PhaseName::Baking).await;
    fleet.set(Mood::Silent);
    failing(&origin, &fleet);
    all_in(&origin, &deploy, PhaseName::RollingBack).await;
    let failed = origin.conductor.ends().bake(Verdict::Fail);
    assert!(
        failed.get() >= 1,
        "the other region may have been ended by the first"
    );
    let (steps, preempted, rollout) = press(&origin, back(None, None)).await;
    let second = release(2).release;
    assert_eq!(to(&steps), [("fra", &second), ("iad", &second)]);
    assert_eq!(phases(preempted.as_ref()), [PhaseName::RollingBack; 2]);
    let from = steps[0].from.as_ref().map(|from| &from.release);
    assert_eq!(from, Some(&release(3).release));
    assert_eq!(steps[0].quarantines, None, "it is quarantined already");
    let view = origin.conductor.view(&rollout).await.expect("it is read");
    assert_eq!(
        view.expect("it is there").outcome,
        None,
        "it is there when it is proven to be there"
    );
    fleet.set(Mood::Good);
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    assert!(fleet.all_serve(&site(), &second));
    let (steps, _, rollout) = press(&origin, back(None, None)).await;
    let first = release(1).release;
    assert_eq!(to(&steps), [("fra", &first), ("iad", &first)]);
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    crate::schema::events_fit(&origin.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bake_left_undecided_is_left() {
    let Some((_folder, _nats, fleet, origin)) = two_settled().await else {
        return;
    };
    let asks = BakePlan {
        window: Span::from_millis(100),
        rules: BakeRules {
            on_inconclusive: OnInconclusive::Ask,
            ..BakeRules::default()
        },
    };
    let deploy = origin.deploy_and_bake(&site(), &release(3), asks).await;
    assert_eq!(origin.outcome(&deploy).await, Some(Outcome::NeedsOperator));
    let ends = origin.conductor.ends();
    assert_eq!(ends.bake(Verdict::Inconclusive).get(), 2, "of two regions");
    assert_eq!(ends.bake(Verdict::Pass).get(), 0);
    assert_eq!(ends.rollout(Kind::Deploy, Outcome::NeedsOperator).get(), 1);
    assert_eq!(ends.rollout(Kind::Deploy, Outcome::Settled).get(), 2);
    let (steps, preempted, rollout) = press(&origin, back(None, None)).await;
    let second = release(2).release;
    assert_eq!(to(&steps), [("fra", &second), ("iad", &second)]);
    assert!(preempted.is_none(), "it is over");
    assert_eq!(origin.outcome(&rollout).await, Some(Outcome::Settled));
    assert_eq!(ends.rollout(Kind::Rollback, Outcome::Settled).get(), 1);
    assert!(fleet.all_serve(&site(), &second));
    crate::schema::events_fit(&origin.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_rollback_runs_another_goes_further_back_and_a_named_one_anywhere() {
    let Some((_folder, _nats, fleet, origin)) = two_settled().await else {
        return;
    };
    let deploy = origin.deploy(&site(), &release(3)).await;
    assert_eq!(origin.outcome(&deploy).await, Some(Outcome::Settled));
    fleet.set(Mood::Stuck);
    let (_, _, one) = press(&origin, back(None, None)).await;
    all_in(&origin, &one, PhaseName::Committing).await;
    let (steps, preempted, two) = press(&origin, back(None, None)).await;
    assert_eq!(steps[0].to.release, release(1).release);
    assert_eq!(preempted.expect("it runs").view.kind, "rollback");
    fleet.set(Mood::Good);
    assert_eq!(origin.outcome(&one).await, Some(Outcome::Superseded));
    assert_eq!(origin.outcome(&two).await, Some(Outcome::Settled));
    assert!(fleet.all_serve(&site(), &release(1).release));
}

#[tokio::test(flavor = "multi_thread")]
async fn before_anything_was_live_there_is_nothing_to_leave_and_what_runs_goes_on() {
    let Some((_folder, _nats, fleet, origin)) = start().await else {
        return;
    };
    fleet.set(Mood::Silent);
    let deploy = origin.deploy(&site(), &release(1)).await;
    let refused = origin.conductor.rollback(back(None, None)).await;
    assert_eq!(refused.expect_err("nothing is live").kind(), "never-live");
    let refused = origin.conductor.plan_rollback(&back(None, None)).await;
    assert_eq!(refused.expect_err("nothing is live").kind(), "never-live");
    fleet.set(Mood::Good);
    assert_eq!(origin.outcome(&deploy).await, Some(Outcome::Settled));
}
