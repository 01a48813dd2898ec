//! Edges as nodes: listed, taken out for maintenance, put back, removed.

use std::time::Duration;

use helix_tests::client::{Client, Request};
use helix_tests::fleet::{EdgeInfo, Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::Folder;
use helix_tests::wait;
use nix::sys::signal::Signal;

use crate::own_fleet;

/// Longer than an edge needs to hear of a record, and two turns of its connections.
const SOON: Duration = Duration::from_secs(15);

fn edge(fleet: &Fleet, name: &str) -> EdgeInfo {
    let mut edges = fleet.edges();
    let found = edges.find(|(_, edge)| edge.edge.as_str() == name);
    found.unwrap().1.clone()
}

/// What `/readyz` of an edge says; none while it does not answer.
fn readiness(edge: &EdgeInfo) -> Option<(u16, String)> {
    let response = Client::of(&edge.admin)
        .send(Request::get("edge", "/readyz"))
        .ok()?;
    Some((response.status, response.text()))
}

fn listed(fleet: &Fleet, name: &str) -> Option<serde_json::Value> {
    let ended = fleet.helix().run(["edge", "list", "--json"]).with(0);
    let all = ended.json();
    let mut found = all.as_array().unwrap().iter();
    found.find(|edge| edge["edge"] == name).cloned()
}

#[test]
fn an_edge_is_taken_out_for_maintenance_until_it_is_put_back() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let host = fleet.host("drained");
    let first = fleet.deploy("drained", &Folder::page("first"));
    let fra = edge(&fleet, "fra-1");
    assert_eq!(readiness(&fra).unwrap().0, 200);
    let before = listed(&fleet, "fra-1").unwrap();
    assert_eq!(before["ready"], true, "{before}");
    assert_eq!(before["version"], env!("CARGO_PKG_VERSION"), "{before}");

    // As of its newest heartbeat.
    wait::until_true("fra-1 has applied every record", SOON, || {
        listed(&fleet, "fra-1").unwrap()["behind"] == 0
    });

    // A visitor with a connection that is kept.
    let mut visitor = Client::of(&fra.http);
    assert_eq!(visitor.send(Request::get(&host, "/")).unwrap().status, 200);
    let drained = fleet.helix().run([
        "edge",
        "drain",
        "fra-1",
        "--reason",
        "new kernel",
        "--deadline",
        "1h",
    ]);
    drained.with(0).says(&["fra-1 is drained"]);
    assert_eq!(readiness(&fra).unwrap(), (503, "drains\n".to_owned()));
    // Whoever still comes is answered, once.
    let late = Client::of(&fra.http)
        .send(Request::get(&host, "/"))
        .unwrap();
    assert_eq!(
        (late.status, late.header("connection")),
        (200, Some("close"))
    );
    for command in ["edge list", "status"] {
        let shown = fleet.helix().run(command.split(' ')).with(0);
        shown.says(&["fra-1", "drains: new kernel"]);
    }

    // No rollout waits for it: it does not even run.
    fleet.signal("fra-1", Signal::SIGSTOP);
    let second = fleet.deploy("drained", &Folder::page("second"));
    fleet.signal("fra-1", Signal::SIGCONT);
    assert_ne!(first, second);

    // It is the same after a start of its own, and of origin.
    for name in ["fra-1", "origin"] {
        let before = fleet.kill(name);
        fleet.wait_for_successor(name, before);
    }
    wait::until_true("fra-1 drains after its start", REVIVE_LIMIT, || {
        readiness(&fra).is_some_and(|(status, text)| status == 503 && text == "drains\n")
    });
    wait::until_true("origin knows fra-1 as drained", REVIVE_LIMIT, || {
        fleet.api().status().is_some()
            && listed(&fleet, "fra-1").unwrap()["drain"]["confirmed"] == true
    });

    // The other one of the region has to stay.
    let last = fleet.helix().run(["edge", "drain", "fra-2", "--detach"]);
    last.with(1).says(&["last one that serves region fra"]);
    fleet
        .helix()
        .run(["edge", "undrain", "fra-1"])
        .with(0)
        .says(&["serves again"]);
    wait::until_true("fra-1 is ready", SOON, || {
        readiness(&fra).is_some_and(|(status, _)| status == 200)
    });
    let response = fleet.ask(&fra, &host, "/");
    assert_eq!(
        response.header("x-helix-release"),
        Some(second.as_str()),
        "it has caught up"
    );
    assert!(listed(&fleet, "fra-1").unwrap()["drain"].is_null());
}

#[test]
fn a_removed_edge_counts_no_more_and_the_last_one_of_a_region_stays() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let _ = fleet.deploy("removed", &Folder::page("first"));
    let helix = fleet.helix();
    let typed = helix.run(["edge", "remove", "fra-2"]);
    typed.with(1).says(&["fra-2 was not typed"]);
    helix
        .run(["edge", "remove", "fra-2", "--yes"])
        .with(0)
        .says(&["fra-2 is removed"]);
    assert!(listed(&fleet, "fra-2").is_none());
    // Its process goes on reporting, and serves what it had.
    assert_eq!(
        fleet
            .ask(&edge(&fleet, "fra-2"), &fleet.host("removed"), "/")
            .status,
        200
    );
    let _ = fleet.deploy("removed", &Folder::page("second"));

    // The configuration still names it, which is no word against the operator's.
    let before = fleet.kill("origin");
    fleet.wait_for_successor("origin", before);
    wait::until_true("origin answers", REVIVE_LIMIT, || {
        fleet.api().status().is_some()
    });
    assert!(listed(&fleet, "fra-2").is_none());
    helix
        .run(["edge", "remove", "fra-2", "--yes"])
        .with(1)
        .says(&["there is no edge fra-2"]);
    wait::until_true("fra-1 is live", REVIVE_LIMIT, || {
        listed(&fleet, "fra-1").unwrap()["ready"] == true
    });
    helix
        .run(["edge", "remove", "fra-1", "--yes"])
        .with(1)
        .says(&["last one that serves region fra"]);
    let _ = helix
        .run(["edge", "remove", "fra-1", "--yes", "--force"])
        .with(0);
    let left = helix.run(["edge", "list", "--region", "fra"]).with(0);
    assert!(!left.stdout.contains("fra-1"), "{}", left.stdout);
}
