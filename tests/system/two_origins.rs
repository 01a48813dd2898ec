//! Two origins that share a PostgreSQL: one leads, the other takes over, and visitors notice nothing.

use std::time::{Duration, Instant};

use helix_routing::api::{OriginState, Status};
use helix_routing::id::ReleaseId;
use helix_tests::api::Api;
use helix_tests::checker::{Checker, Tolerance};
use helix_tests::client::{Client, Request};
use helix_tests::command::{Helix, finish};
use helix_tests::fleet::{Fleet, Options, REVIVE_LIMIT, release_of};
use helix_tests::folder::{Folder, page, page_digest};
use helix_tests::postgres::{PASSWORD, Postgres};
use helix_tests::{skipped, wait};
use nix::sys::signal::Signal;

use crate::own_fleet;

/// From the leader's death to another that leads.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(15);
/// The same after it let go.
const HANDOVER_LIMIT: Duration = Duration::from_secs(5);

/// A fleet whose origins share a database, and the database; none where PostgreSQL is not installed.
fn start(options: Options) -> Option<(Postgres, Fleet)> {
    let Some(postgres) = Postgres::start() else {
        skipped("PostgreSQL is not installed: `apt install postgresql`");
        return None;
    };
    let fleet = Fleet::start(&Options {
        shared: Some((postgres.database(), 2)),
        ..options
    });
    Some((postgres, fleet))
}

/// The API of one origin, asked there and nowhere else.
fn at(fleet: &Fleet, name: &str) -> Api {
    let config = fleet.config(name);
    Api {
        url: config["public_url"].as_str().unwrap().to_owned(),
        token: fleet.info.token.clone(),
    }
}

/// The command with the addresses of both, this one's first.
fn helix(fleet: &Fleet, first: &str) -> Helix {
    let second = other(first);
    Helix {
        api: format!("{},{}", at(fleet, first).url, at(fleet, second).url),
        token: fleet.info.token.clone(),
    }
}

fn other(name: &str) -> &'static str {
    if name == "origin" {
        "origin-2"
    } else {
        "origin"
    }
}

fn status(api: &Api) -> Option<Status> {
    let response = api.send("GET", "/v1/status", &[], &[]).ok()?;
    serde_json::from_slice(&response.body).ok()
}

/// The name of the origin that leads, as one of them says.
fn leader(fleet: &Fleet, asked: &str) -> Option<&'static str> {
    let status = status(&at(fleet, asked))?;
    let leads = status
        .origins
        .iter()
        .find(|origin| origin.state == OriginState::Leading)?;
    ["origin", "origin-2"]
        .into_iter()
        .find(|name| at(fleet, name).url == leads.address)
}

/// What one origin says at its admin address.
fn ready(fleet: &Fleet, name: &str) -> Option<(u16, String)> {
    let admin = fleet.config(name)["admin"].as_str().unwrap().to_owned();
    let response = Client::of(&format!("http://{admin}"))
        .send(Request::get("origin", "/readyz"))
        .ok()?;
    Some((response.status, response.text()))
}

/// Both are known: one leads, the other stands by.
fn wait_for_both(fleet: &Fleet) -> &'static str {
    wait::until(
        "one origin leads and the other stands by",
        REVIVE_LIMIT,
        || {
            let state = status(&at(fleet, "origin"))?;
            let standing =
                |origin: &helix_routing::api::OriginStatus| origin.state == OriginState::StandingBy;
            let whole = state.origins.len() == 2 && state.origins.iter().any(standing);
            whole.then(|| leader(fleet, "origin")).flatten()
        },
    )
}

fn deploy<'a>(project: &'a str, folder: &'a Folder) -> [&'a str; 5] {
    [
        "deploy",
        folder.path().to_str().unwrap(),
        "--project",
        project,
        "--json",
    ]
}

/// Deploys a page through this origin's address, and waits for it.
fn released(fleet: &Fleet, first: &str, text: &str) -> ReleaseId {
    let folder = Folder::page(text);
    release_of(&helix(fleet, first).run(deploy("kept", &folder)).with(0))
}

/// Waits until this origin says that it stands by.
fn wait_for_standby(fleet: &Fleet, name: &str) {
    wait::until_true("it stands by", REVIVE_LIMIT, || {
        ready(fleet, name)
            .is_some_and(|(status, text)| status == 200 && text.starts_with("stands by"))
    });
}

/// Waits until `name` leads.
fn wait_for_lead(fleet: &Fleet, name: &'static str, limit: Duration) {
    wait::until_true("the other leads", limit, || {
        leader(fleet, name) == Some(name)
    });
}

fn serves(fleet: &Fleet, host: &str, text: &str) {
    fleet.all_answer(host, "/", 200, Some(page(text).as_bytes()));
}

/// A deployment whose leading origin is killed at `point` is finished by the other.
fn is_finished_by_the_other_after(
    point: &'static str,
    settings: &'static [(&'static str, &'static str)],
) {
    let _turn = own_fleet();
    let Some((_postgres, fleet)) = start(Options {
        failpoint: Some(point),
        settings,
        ..Options::default()
    }) else {
        return;
    };
    let first = wait_for_both(&fleet);
    let second = other(first);
    let host = fleet.host("kept");
    let before = released(&fleet, first, "first");
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);

    // Frozen, it starts nobody again: the other has to take over.
    fleet.freeze();
    fleet.arm();
    let folder = Folder::page("second");
    let running = helix(&fleet, first).start(deploy("kept", &folder));
    wait::until_true("the leading origin is killed", REVIVE_LIMIT, || {
        fleet.has_fired()
    });
    let killed = Instant::now();
    wait_for_lead(&fleet, second, TAKEOVER_LIMIT);
    let taken = killed.elapsed();
    let after = release_of(&finish(running).with(0));
    checker.settled_everywhere(&fleet, &after);
    serves(&fleet, &host, "second");
    assert!(taken < TAKEOVER_LIMIT, "{taken:?}");

    fleet.thaw();
    wait_for_standby(&fleet, first);
    assert_eq!(
        wait_for_both(&fleet),
        second,
        "who came back does not take the lead again"
    );
    let _ = checker.finish(&[
        (before, page_digest("first")),
        (after, page_digest("second")),
    ]);
}

#[test]
fn the_other_origin_goes_on_after_a_kill_in_prepare() {
    is_finished_by_the_other_after("origin.saved.preparing", &[]);
}

#[test]
fn the_other_origin_goes_on_after_a_kill_in_commit() {
    is_finished_by_the_other_after("origin.saved.committing", &[]);
}

#[test]
fn the_other_origin_goes_on_after_a_kill_in_bake() {
    is_finished_by_the_other_after(
        "origin.saved.baking",
        &[("HELIX_ORIGIN_BAKE__WINDOW", "2s")],
    );
}

#[test]
fn a_leader_that_was_stopped_is_refused_and_stands_by() {
    let _turn = own_fleet();
    let Some((postgres, fleet)) = start(Options::default()) else {
        return;
    };
    let first = wait_for_both(&fleet);
    let second = other(first);
    let host = fleet.host("kept");
    let mut known: Vec<(ReleaseId, _)> = Vec::new();
    let before = released(&fleet, first, "first");
    known.push((before, page_digest("first")));
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);
    let term = status(&at(&fleet, second)).unwrap().epoch;

    let folder = Folder::page("second");
    let running = helix(&fleet, second).start(deploy("kept", &folder));
    wait::until_true("the rollout runs", REVIVE_LIMIT, || {
        at(&fleet, first)
            .site("kept/production")
            .is_some_and(|site| {
                site.rollout.is_some() || site.regions.iter().all(|region| region.generation.0 > 2)
            })
    });
    fleet.signal(first, Signal::SIGSTOP);
    let stopped = Instant::now();
    wait_for_lead(&fleet, second, TAKEOVER_LIMIT);
    assert!(stopped.elapsed() < TAKEOVER_LIMIT);
    let after = release_of(&finish(running).with(0));
    checker.settled_everywhere(&fleet, &after);
    known.push((after, page_digest("second")));
    assert!(status(&at(&fleet, second)).unwrap().epoch > term);

    let pid = fleet.pid(first);
    fleet.signal(first, Signal::SIGCONT);
    wait_for_standby(&fleet, first);
    assert_eq!(fleet.pid(first), pid, "it did not have to die for it");
    // What it is asked, the leader answers.
    checker.changing();
    let third = released(&fleet, first, "third");
    checker.settled_everywhere(&fleet, &third);
    serves(&fleet, &host, "third");
    known.push((third, page_digest("third")));
    let _ = checker.finish(&known);

    // Who stands by says so every two seconds.
    assert_eq!(wait_for_both(&fleet), second);
    let shown = helix(&fleet, first).run(["status"]).with(0);
    shown.says(&["leading", "standing by"]);
    drop(postgres);
}

#[test]
fn a_leader_that_is_told_to_end_is_followed_at_once() {
    let _turn = own_fleet();
    let Some((_postgres, fleet)) = start(Options::default()) else {
        return;
    };
    let first = wait_for_both(&fleet);
    let second = other(first);
    fleet.freeze();
    fleet.signal(first, Signal::SIGTERM);
    wait_for_lead(&fleet, second, HANDOVER_LIMIT);
    fleet.thaw();
    let _ = wait_for_both(&fleet);
}

#[test]
fn a_rollout_goes_on_after_its_database_was_restarted() {
    let _turn = own_fleet();
    let Some((postgres, fleet)) = start(Options::default()) else {
        return;
    };
    let first = wait_for_both(&fleet);
    let host = fleet.host("kept");
    let before = released(&fleet, first, "first");
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);
    let folder = Folder::page("second");
    let running = helix(&fleet, first).start(deploy("kept", &folder));
    wait::until_true("the rollout runs", REVIVE_LIMIT, || {
        at(&fleet, first)
            .site("kept/production")
            .is_some_and(|site| site.rollout.is_some())
    });
    postgres.stop();
    wait::until_true(
        "origin says that its database is away",
        REVIVE_LIMIT,
        || {
            at(&fleet, first)
                .send("GET", "/v1/status", &[], &[])
                .is_ok_and(|response| {
                    response.status == 503
                        && response.header("retry-after").is_some()
                        && response.header("content-type") == Some("application/problem+json")
                })
        },
    );
    serves_something(&fleet, &host);
    postgres.start_again();
    let after = release_of(&finish(running).with(0));
    checker.settled_everywhere(&fleet, &after);
    serves(&fleet, &host, "second");
    let _ = wait_for_both(&fleet);
    let _ = checker.finish(&[
        (before, page_digest("first")),
        (after, page_digest("second")),
    ]);
    for name in ["origin", "origin-2"] {
        let log = std::fs::read_to_string(fleet.folder().join("log").join(format!("{name}.log")));
        let log = log.unwrap();
        assert!(log.contains("database") && !log.contains(PASSWORD), "{log}");
    }
}

/// Edges need no database to serve.
fn serves_something(fleet: &Fleet, host: &str) {
    fleet.all_answer(host, "/", 200, None);
}
