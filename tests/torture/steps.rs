//! Each persisted step of a rollout, and the process that takes it killed or paused there.

use std::time::Duration;

use helix_tests::checker::{Checker, Tolerance};
use helix_tests::command::finish;
use helix_tests::fleet::{Fleet, Options};
use helix_tests::folder::Folder;
use helix_tests::wait;
use nix::sys::signal::Signal;

use crate::{PROJECT, deploy, one_fleet, recovered, report};

/// Every place where a process has just made something durable, or told somebody.
const STEPS: [&str; 7] = [
    "origin.saved.preparing",
    "origin.saved.committing",
    "origin.saved.settled",
    "origin.published",
    "edge.persisted",
    "edge.published",
    "edge.reported",
];
/// Longer than a lease: who is paused for so long is given up by the others.
const PAUSE: Duration = Duration::from_secs(20);
/// How soon a deployment reaches its step.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// The process that reaches `step` is paused there for longer than its lease, and goes on.
fn survives_a_pause_at(step: &'static str) {
    let _turn = one_fleet();
    let fleet = Fleet::start(&Options {
        failpoint: Some(step),
        failpoint_pauses: true,
        ..Options::default()
    });
    let mut known = vec![deploy(&fleet, "first")];
    // A process that stands still answers nobody, and nothing wrong.
    let checker = Checker::start(&fleet, &fleet.host(PROJECT), Tolerance::LostConnections);
    fleet.arm();
    let folder = Folder::page("second");
    let running = fleet.helix().start([
        "deploy",
        folder.path().to_str().unwrap(),
        "--project",
        PROJECT,
        "--json",
    ]);
    let paused = wait::until("a process stands still", STEP_LIMIT, || fleet.paused());
    wait::pause(PAUSE);
    fleet.signal(&paused, Signal::SIGCONT);
    let ended = finish(running);
    assert!(
        matches!(ended.code, Some(0 | 2 | 3 | 6)),
        "{step}: {ended:?}"
    );
    known.push((
        helix_tests::fleet::release_of(&ended),
        helix_tests::folder::page_digest("second"),
    ));
    let (whole_after, third) = recovered(&fleet, "third");
    known.push(third);
    let summary = checker.finish(&known);
    report::line(&format!("{paused} paused at {step}"), summary, whole_after);
}

#[test]
fn origin_is_paused_after_it_saved_a_commit() {
    survives_a_pause_at("origin.saved.committing");
}

#[test]
#[ignore = "minutes: make torture"]
fn each_process_is_paused_at_each_step() {
    for step in STEPS {
        survives_a_pause_at(step);
    }
}

/// Twenty times each: whatever else happens at that moment differs.
#[test]
#[ignore = "minutes: make torture"]
fn each_process_is_killed_at_each_step() {
    for step in STEPS {
        survives_kills_at(step, 20);
    }
}

fn survives_kills_at(step: &'static str, times: usize) {
    let _turn = one_fleet();
    let fleet = Fleet::start(&Options {
        failpoint: Some(step),
        ..Options::default()
    });
    let mut known = vec![deploy(&fleet, "first")];
    let checker = Checker::start(&fleet, &fleet.host(PROJECT), Tolerance::LostConnections);
    for round in 0..times {
        fleet.arm();
        known.push(deploy(&fleet, &format!("round {round}")));
        assert!(fleet.has_fired(), "the deployment never reached {step}");
        fleet.wait_until_whole();
    }
    let (whole_after, last) = recovered(&fleet, "last");
    known.push(last);
    let summary = checker.finish(&known);
    report::line(
        &format!("killed {times} times at {step}"),
        summary,
        whole_after,
    );
}
