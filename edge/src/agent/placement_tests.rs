//! The placement against tables of what happened, and against random histories.

use std::collections::BTreeSet;

use helix_routing::glass::Cause;
use helix_routing::id::{Digest, Epoch};
use helix_routing::time::Timestamp;
use proptest::prelude::*;

use super::*;

#[path = "stand_in_tests.rs"]
mod stand_in;

fn release(n: u8) -> ReleaseRef {
    ReleaseRef {
        release: format!("{n:020x}").parse().unwrap(),
        artifact: Digest::from_hex(&format!("{n:064x}")).unwrap(),
    }
}

fn record(generation: u64, live: Option<u8>, candidate: Option<u8>, previous: &[u8]) -> SiteRecord {
    SiteRecord {
        site: "shop/production".parse().unwrap(),
        region: "fra".parse().unwrap(),
        epoch: Epoch(1),
        generation: Generation(generation),
        live_since: Generation(generation),
        live: live.map(release),
        candidate: candidate.map(release),
        weight: None,
        previous: previous.iter().copied().map(release).collect(),
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

fn recorded(record: SiteRecord) -> Event {
    Event::Recorded(Box::new(record))
}

fn failed(n: u8) -> Event {
    Event::Failed {
        release: release(n),
        reason: "no".to_owned(),
    }
}

fn gated(n: u8, failure: Option<&str>) -> Event {
    Event::Gated {
        release: release(n),
        failure: failure.map(str::to_owned),
    }
}

fn overriding(release: ReleaseRef, record: &SiteRecord) -> LocalOverride {
    LocalOverride {
        site: record.site.clone(),
        release,
        left: record.live.clone(),
        base: record.live_since,
        cause: Cause::Operator,
        reason: "sick".to_owned(),
        by: "ada".to_owned(),
        since: Timestamp::from_millis(0),
        until: Timestamp::from_millis(1000),
    }
}

fn candidate_state(commands: &[Command]) -> CandidateState {
    let candidate = last_report(commands).unwrap().candidate.clone();
    candidate.unwrap().state
}

fn last_report(commands: &[Command]) -> Option<&State> {
    commands.iter().rev().find_map(|command| {
        if let Command::Report(state) = command {
            Some(state)
        } else {
            None
        }
    })
}

fn served(commands: &[Command]) -> Option<&Plan> {
    commands.iter().rev().find_map(|command| {
        if let Command::Serve(plan) = command {
            Some(plan)
        } else {
            None
        }
    })
}

#[test]
fn a_first_release_is_prepared_then_live() {
    let mut site = Placement::default();
    let commands = site.step(recorded(record(1, None, Some(1), &[])));
    assert_eq!(commands[0], Command::Fetch(release(1)));
    assert_eq!(
        last_report(&commands)
            .unwrap()
            .candidate
            .as_ref()
            .unwrap()
            .state,
        CandidateState::Preparing
    );
    let commands = site.step(Event::Ready(release(1)));
    assert_eq!(served(&commands).unwrap().live, None);
    assert!(commands.contains(&Command::Gate {
        release: release(1),
        returns: false
    }));
    assert_eq!(last_report(&commands), None, "it is not prepared yet");
    let commands = site.step(gated(1, None));
    assert_eq!(candidate_state(&commands), CandidateState::Prepared);
    let commands = site.step(recorded(record(2, Some(1), None, &[])));
    let state = last_report(&commands).unwrap();
    assert_eq!(
        (state.serving, state.live.clone()),
        (Generation(2), Some(release(1).release))
    );
    assert!(site.is_settled());
}

#[test]
fn the_pointer_moves_before_the_report() {
    let mut site = Placement::default();
    site.step(recorded(record(1, None, Some(1), &[])));
    site.step(Event::Ready(release(1)));
    let commands = site.step(recorded(record(2, Some(1), None, &[])));
    let serve = commands
        .iter()
        .position(|command| matches!(command, Command::Serve(_)))
        .unwrap();
    let report = commands
        .iter()
        .position(|command| matches!(command, Command::Report(_)))
        .unwrap();
    assert!(serve < report);
}

#[test]
fn a_release_that_is_not_here_does_not_replace_the_one_that_is() {
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(1), None, &[])));
    site.step(Event::Ready(release(1)));
    let commands = site.step(recorded(record(2, Some(2), None, &[1])));
    let state = last_report(&commands).unwrap();
    assert_eq!(
        (state.generation, state.serving),
        (Generation(2), Generation(1))
    );
    assert_eq!(state.live, Some(release(1).release));
    assert!(!site.is_settled());
    let commands = site.step(Event::Ready(release(2)));
    let plan = served(&commands).unwrap();
    assert_eq!(
        (plan.generation, plan.live.clone(), plan.kept.clone()),
        (Generation(2), Some(release(2)), vec![release(1)])
    );
}

#[test]
fn going_back_needs_no_fetch() {
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(2), None, &[1])));
    site.step(Event::Ready(release(1)));
    site.step(Event::Ready(release(2)));
    let commands = site.step(recorded(record(2, Some(1), None, &[2])));
    assert!(
        !commands
            .iter()
            .any(|command| matches!(command, Command::Fetch(_)))
    );
    assert_eq!(served(&commands).unwrap().live, Some(release(1)));
}

#[test]
fn a_failed_candidate_is_tried_again_when_its_record_comes_again() {
    let mut site = Placement::default();
    site.step(recorded(record(1, None, Some(1), &[])));
    let commands = site.step(failed(1));
    assert_eq!(
        last_report(&commands)
            .unwrap()
            .candidate
            .as_ref()
            .unwrap()
            .state,
        CandidateState::Failed("no".to_owned())
    );
    assert!(
        !commands
            .iter()
            .any(|command| matches!(command, Command::RetryLater { .. }))
    );
    assert!(site.step(Event::Retry).is_empty());
    assert!(
        site.step(recorded(record(1, None, Some(1), &[])))
            .contains(&Command::Fetch(release(1)))
    );
}

#[test]
fn a_candidate_that_does_not_pass_its_gates_is_told_so_and_gated_again_when_its_record_comes_again()
{
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(1), None, &[])));
    site.step(Event::Ready(release(1)));
    site.step(recorded(record(2, Some(1), Some(2), &[])));
    site.step(Event::Ready(release(2)));
    let commands = site.step(gated(2, Some("gate home: fail")));
    assert_eq!(
        candidate_state(&commands),
        CandidateState::Failed("gate home: fail".to_owned())
    );
    assert!(site.is_settled(), "what is live is served all the while");
    let again = Command::Gate {
        release: release(2),
        returns: false,
    };
    let commands = site.step(recorded(record(2, Some(1), Some(2), &[])));
    assert!(commands.contains(&again), "{commands:?}");
    let commands = site.step(recorded(record(2, Some(1), Some(2), &[])));
    assert!(!commands.contains(&again), "they are run once at a time");
    assert_eq!(candidate_state(&commands), CandidateState::Preparing);
    assert_eq!(
        candidate_state(&site.step(gated(2, None))),
        CandidateState::Prepared
    );
}

#[test]
fn gates_of_a_candidate_that_is_dropped_are_let_go() {
    let mut site = Placement::default();
    site.step(recorded(record(1, None, Some(1), &[])));
    site.step(Event::Ready(release(1)));
    let commands = site.step(recorded(record(2, None, Some(2), &[])));
    assert!(commands.contains(&Command::Ungate(release(1))));
    assert!(site.step(gated(1, None)).is_empty());
    site.step(Event::Ready(release(2)));
    let commands = site.step(recorded(record(3, Some(2), None, &[])));
    assert!(commands.contains(&Command::Ungate(release(2))));
    assert_eq!(
        served(&commands).unwrap().live,
        Some(release(2)),
        "the record is the truth, whatever the gates would say"
    );
}

#[test]
fn a_release_that_comes_back_is_gated_without_a_fetch() {
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(2), None, &[1])));
    site.step(Event::Ready(release(1)));
    site.step(Event::Ready(release(2)));
    let commands = site.step(recorded(record(2, Some(2), Some(1), &[1])));
    assert!(commands.contains(&Command::Gate {
        release: release(1),
        returns: true
    }));
    assert!(
        !commands
            .iter()
            .any(|command| matches!(command, Command::Fetch(_)))
    );
}

#[test]
fn a_live_release_is_tried_again_by_itself() {
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(1), None, &[])));
    assert!(
        site.step(failed(1))
            .contains(&Command::RetryLater { failures: 0 })
    );
    assert!(
        site.step(Event::Retry)
            .contains(&Command::Fetch(release(1)))
    );
    assert!(
        site.step(failed(1))
            .contains(&Command::RetryLater { failures: 1 })
    );
}

#[test]
fn the_same_record_again_is_only_reported() {
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(1), None, &[])));
    site.step(Event::Ready(release(1)));
    let commands = site.step(recorded(record(1, Some(1), None, &[])));
    assert!(matches!(commands[..], [Command::Report(_)]), "{commands:?}");
}

#[test]
fn a_record_without_a_live_release_does_not_take_one_away() {
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(1), None, &[])));
    site.step(Event::Ready(release(1)));
    let commands = site.step(recorded(record(2, None, None, &[])));
    let state = last_report(&commands).unwrap();
    assert_eq!(
        (state.serving, state.live.clone()),
        (Generation(1), Some(release(1).release))
    );
}

#[test]
fn a_removed_site_serves_and_keeps_nothing() {
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(1), Some(2), &[])));
    site.step(Event::Ready(release(1)));
    let commands = site.step(recorded(SiteRecord {
        removed: true,
        ..record(2, Some(1), Some(2), &[])
    }));
    for expected in [
        Command::Remove,
        Command::Drop(release(1)),
        Command::Drop(release(2)),
        Command::Collect,
    ] {
        assert!(commands.contains(&expected), "{expected:?} is missing");
    }
    assert_eq!(last_report(&commands).unwrap().live, None);
    assert!(site.step(Event::Ready(release(2))).is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Record {
        rise: u64,
        live: Option<u8>,
        candidate: Option<u8>,
        previous: Vec<u8>,
        removed: bool,
    },
    Finish {
        which: usize,
        well: bool,
    },
    Gated {
        well: bool,
    },
    Retry,
    Override {
        which: usize,
    },
    EndOverride,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let release = || proptest::option::weighted(0.8, 1_u8..6);
    let record = (
        0_u64..3,
        release(),
        release(),
        proptest::collection::vec(1_u8..6, 0..3),
        proptest::bool::weighted(0.05),
    );
    let step = prop_oneof![
        3 => record.prop_map(|(rise, live, candidate, previous, removed)| Step::Record { rise, live, candidate, previous, removed }),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(which, well)| Step::Finish { which, well }),
        3 => any::<bool>().prop_map(|well| Step::Gated { well }),
        1 => Just(Step::Retry),
        1 => any::<usize>().prop_map(|which| Step::Override { which }),
        1 => Just(Step::EndOverride),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn any_history_keeps_the_invariants(steps in steps()) {
        let mut site = Placement::default();
        let mut held: Option<SiteRecord> = None;
        let mut fetching: BTreeSet<ReleaseRef> = BTreeSet::new();
        let mut ready: BTreeSet<ReleaseRef> = BTreeSet::new();
        let mut plan = Plan::default();
        let mut gating: Option<ReleaseRef> = None;
        let mut passed: Option<ReleaseRef> = None;
        let mut local_release: Option<(ReleaseRef, Generation)> = None;
        for step in steps {
            let event = match step {
                Step::Record { rise, live, candidate, previous, removed } => {
                    let generation = held.as_ref().map_or(0, |record| record.generation.0) + rise;
                    let new = SiteRecord { removed, ..record(generation, live, candidate, &previous) };
                    // The same generation is always the same record.
                    let new = held.clone().filter(|held| held.generation == new.generation).unwrap_or(new);
                    held = Some(new.clone());
                    recorded(new)
                }
                Step::Finish { which, well } => {
                    let Some(release) = fetching.iter().nth(which % fetching.len().max(1)).cloned() else { continue };
                    fetching.remove(&release);
                    if well {
                        ready.insert(release.clone());
                        Event::Ready(release)
                    } else {
                        Event::Failed { release, reason: "no".to_owned() }
                    }
                }
                Step::Gated { well } => {
                    let Some(release) = gating.take() else { continue };
                    passed = well.then(|| release.clone());
                    Event::Gated { release, failure: (!well).then(|| "no".to_owned()) }
                }
                Step::Retry => Event::Retry,
                Step::Override { which } => {
                    let Some(record) = held.as_ref().filter(|record| !record.removed) else { continue };
                    let Some(release) = ready.iter().nth(which % ready.len().max(1)) else { continue };
                    let local = overriding(release.clone(), record);
                    local_release = Some((local.release.clone(), local.base));
                    Event::Overridden(Box::new(local))
                }
                Step::EndOverride => {
                    local_release = None;
                    Event::OverrideEnded
                }
            };
            for command in site.step(event) {
                match command {
                    Command::Fetch(release) => prop_assert!(fetching.insert(release), "fetched twice at once"),
                    Command::Drop(release) => {
                        prop_assert!(plan.live.as_ref() != Some(&release), "dropped what is served");
                        fetching.remove(&release);
                        ready.remove(&release);
                    }
                    Command::Gate { release, .. } => {
                        prop_assert!(ready.contains(&release), "gated before it is ready");
                        prop_assert!(gating.replace(release).is_none(), "two are gated at once");
                        passed = None;
                    }
                    Command::Ungate(release) => {
                        gating.take_if(|held| *held == release);
                        passed.take_if(|held| *held == release);
                    }
                    Command::Serve(new) => {
                        prop_assert!(new.generation >= plan.generation, "generation fell");
                        prop_assert!(new.live.is_some() || plan.live.is_none(), "the live release vanished");
                        prop_assert!(new.live.iter().chain(&new.kept).all(|release| ready.contains(release)), "served unprepared");
                        plan = new;
                    }
                    Command::Remove => {
                        prop_assert!(held.as_ref().is_some_and(|record| record.removed));
                        plan.live = None;
                        plan.kept.clear();
                    }
                    Command::Report(state) => {
                        prop_assert_eq!(Some(state.generation), held.as_ref().map(|record| record.generation));
                        let prepared = state.candidate.as_ref().filter(|candidate| candidate.state == CandidateState::Prepared);
                        if let Some(prepared) = prepared {
                            let has_passed = passed.as_ref().is_some_and(|passed| passed.release == prepared.release);
                            let is_live = held.as_ref().is_some_and(|record| record.live == record.candidate);
                            prop_assert!(has_passed || is_live, "prepared without its gates");
                        }
                        prop_assert_eq!(state.live, plan.live.as_ref().map(|live| live.release.clone()), "report before the pointer moved");
                    }
                    Command::Overruled(local) => {
                        let (release, base) = local_release.take().unwrap();
                        prop_assert_eq!(&release, &local.release);
                        prop_assert!(held.as_ref().is_some_and(|record| record.removed || record.live_since > base));
                    }
                    Command::RetryLater { .. } | Command::Collect => {}
                }
            }
            if let Some(record) = held.as_ref().filter(|record| !record.removed) {
                // Every release that is named and ready is resident.
                for release in record.releases().filter(|release| ready.contains(release)) {
                    prop_assert!(plan.live.as_ref() == Some(release) || plan.kept.contains(release));
                }
                if let Some((release, base)) = &local_release {
                    prop_assert!(record.live_since <= *base, "a later cutover replaces an override");
                    prop_assert_eq!(plan.live.as_ref(), Some(release), "what overrides is served");
                    prop_assert!(plan.canary.is_none() && plan.pins.is_empty());
                    prop_assert!(site.is_settled());
                } else if record.live.as_ref().is_some_and(|live| ready.contains(live)) {
                    prop_assert!(site.is_settled());
                }
            }
        }
    }
}

#[test]
fn what_is_live_is_gated_again_when_it_is_the_candidate_and_served_meanwhile() {
    let mut site = Placement::default();
    site.step(recorded(record(1, Some(1), None, &[])));
    site.step(Event::Ready(release(1)));
    let again = |generation| SiteRecord {
        live_since: Generation(1),
        ..record(generation, Some(1), Some(1), &[])
    };
    let commands = site.step(recorded(again(2)));
    assert!(commands.contains(&Command::Gate {
        release: release(1),
        returns: false
    }));
    assert_eq!(candidate_state(&commands), CandidateState::Preparing);
    assert_eq!(served(&commands).unwrap().live, Some(release(1)));
    let commands = site.step(gated(1, Some("it is away")));
    assert_eq!(
        candidate_state(&commands),
        CandidateState::Failed("it is away".to_owned())
    );
    let commands = site.step(recorded(again(3)));
    let is_gate = |command: &Command| matches!(command, Command::Gate { .. });
    assert!(commands.iter().any(is_gate), "{commands:?}");
    let commands = site.step(gated(1, None));
    assert_eq!(candidate_state(&commands), CandidateState::Prepared);
    assert!(site.is_settled());
}

#[test]
fn an_override_is_served_over_writes_and_restarts_until_a_cutover_or_its_end() {
    let written = |generation, live_since| SiteRecord {
        live_since: Generation(live_since),
        weight: Some(10),
        ..record(generation, Some(2), Some(3), &[1])
    };
    let local = overriding(release(1), &written(5, 5));
    let live = |site: &Placement| site.served().and_then(|plan| plan.live.clone());
    let start = || {
        let mut site = Placement::default();
        site.step(Event::Overridden(Box::new(local.clone())));
        let commands = site.step(recorded(written(5, 5)));
        assert_eq!(commands[0], Command::Fetch(release(1)), "it comes first");
        site
    };
    let mut site = start();
    site.step(Event::Ready(release(2)));
    assert_eq!(live(&site), None, "what was left is not shown meanwhile");
    for n in [1, 3] {
        site.step(Event::Ready(release(n)));
    }
    site.step(recorded(written(6, 5)));
    assert_eq!(live(&site), Some(release(1)));
    let plan = site.served().unwrap();
    assert_eq!(plan.canary, None, "nobody gets the candidate");
    assert!(site.is_settled());

    let mut ended = start();
    for n in [1, 2] {
        ended.step(Event::Ready(release(n)));
    }
    ended.step(Event::OverrideEnded);
    assert_eq!(live(&ended), Some(release(2)));

    let commands = site.step(recorded(record(7, Some(2), None, &[1])));
    assert!(commands.contains(&Command::Overruled(Box::new(local.clone()))));
    assert_eq!((live(&site), site.local()), (Some(release(2)), None));

    // A release that was lost is no reason to show nothing.
    let mut lost = start();
    lost.step(Event::Ready(release(2)));
    lost.step(failed(1));
    assert_eq!(live(&lost), Some(release(2)));
}
