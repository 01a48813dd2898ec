//! `kill -9` at each step of a rollout: nothing committed is lost, and every rollout ends.

use std::time::Duration;

use helix_routing::id::ReleaseId;
use helix_tests::checker::{Checker, Tolerance};
use helix_tests::command::finish;
use helix_tests::fleet::{Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::{Folder, noise, page, page_digest};
use helix_tests::wait;
use nix::sys::signal::Signal;

use crate::own_fleet;

/// Whether going back passes the same point, too.
#[derive(PartialEq, Eq)]
enum Reached {
    ByDeployments,
    ByBoth,
}

/// A deployment and a rollback, each with a process killed at `point`, end settled.
fn survives_a_kill_at(point: &'static str, reached: Reached) {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options {
        failpoint: Some(point),
        ..Options::default()
    });
    let host = fleet.host("kept");
    let first = fleet.deploy("kept", &Folder::page("first"));
    let tolerance = if point.starts_with("edge.") {
        Tolerance::LostConnections
    } else {
        Tolerance::Nothing
    };
    let checker = Checker::start(&fleet, &host, tolerance);

    fleet.arm();
    let second = fleet.deploy("kept", &Folder::page("second"));
    assert!(fleet.has_fired(), "the deployment never reached {point}");
    checker.settled_everywhere(&fleet, &second);
    fleet.wait_until_whole();
    serves(&fleet, &host, "second");

    if reached == Reached::ByBoth {
        fleet.arm();
        checker.changing();
        let _ = fleet
            .helix()
            .run(["rollback", "--project", "kept", "--all"])
            .with(0);
        assert!(fleet.has_fired(), "the rollback never reached {point}");
        checker.settled_everywhere(&fleet, &first);
        fleet.wait_until_whole();
        serves(&fleet, &host, "first");
    }
    let _ = checker.finish(&[
        (first, page_digest("first")),
        (second, page_digest("second")),
    ]);
}

/// A killed edge listens again a moment later than origin saw the region settle.
fn serves(fleet: &Fleet, host: &str, text: &str) {
    fleet.all_answer(host, "/", 200, Some(page(text).as_bytes()));
}

#[test]
fn origin_killed_after_it_saved_preparing() {
    survives_a_kill_at("origin.saved.preparing", Reached::ByDeployments);
}

#[test]
fn origin_killed_after_it_saved_committing() {
    survives_a_kill_at("origin.saved.committing", Reached::ByBoth);
}

#[test]
fn origin_killed_after_it_saved_settled() {
    survives_a_kill_at("origin.saved.settled", Reached::ByBoth);
}

#[test]
fn origin_killed_after_it_published() {
    survives_a_kill_at("origin.published", Reached::ByBoth);
}

#[test]
fn edge_killed_after_it_persisted() {
    survives_a_kill_at("edge.persisted", Reached::ByBoth);
}

#[test]
fn edge_killed_after_it_published() {
    survives_a_kill_at("edge.published", Reached::ByBoth);
}

#[test]
fn edge_killed_after_it_reported() {
    survives_a_kill_at("edge.reported", Reached::ByBoth);
}

#[test]
fn nats_killed_throughout_rollouts() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let host = fleet.host("kept");
    let mut known = vec![(fleet.deploy("kept", &Folder::page("0")), page_digest("0"))];
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);
    // From before the upload until after the commit on an idle machine; each lands somewhere else on a loaded one.
    for (round, delay) in [0, 20, 40, 70, 110, 160, 230].into_iter().enumerate() {
        let text = format!("{}", round + 1);
        let folder = Folder::page(&text);
        checker.changing();
        let running = fleet.helix().start([
            "deploy",
            folder.path().to_str().unwrap(),
            "--project",
            "kept",
            "--json",
        ]);
        wait::pause(Duration::from_millis(delay));
        let before = fleet.kill("nats");
        let ended = finish(running).with(0);
        fleet.wait_for_successor("nats", before);
        let release: ReleaseId = helix_tests::fleet::release_of(&ended);
        checker.settled_everywhere(&fleet, &release);
        serves(&fleet, &host, &text);
        known.push((release, page_digest(&text)));
    }
    fleet.wait_until_whole();
    let _ = checker.finish(&known);
}

#[test]
fn the_command_goes_on_after_origin_was_away() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let _ = fleet.deploy("kept", &Folder::page("first"));
    let folder = Folder::page("second").with("big.bin", &noise(1, 40_000_000));
    let running = fleet.helix().start([
        "deploy",
        folder.path().to_str().unwrap(),
        "--project",
        "kept",
        "--json",
    ]);
    wait::until_true("the rollout runs", REVIVE_LIMIT, || {
        fleet
            .api()
            .site("kept/production")
            .is_some_and(|site| site.rollout.is_some())
    });
    fleet.signal("origin", Signal::SIGSTOP);
    wait::pause(Duration::from_secs(3));
    fleet.signal("origin", Signal::SIGCONT);
    let before = fleet.kill("origin");
    fleet.wait_for_successor("origin", before);
    let _ = finish(running).with(0);
    serves(&fleet, &fleet.host("kept"), "second");
}
