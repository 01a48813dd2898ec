//! When origin or NATS is dead: what a person may still change, who sees it, and what becomes of it.

use std::path::PathBuf;
use std::time::Duration;

use helix_routing::api::{SiteRegionStatus, Status};
use helix_routing::id::ReleaseId;
use helix_routing::seal::KeyRole;
use helix_service::keys::SigningKey;
use helix_tests::client::{Client, Request};
use helix_tests::command::Ended;
use helix_tests::fleet::{EdgeInfo, Fleet, Options};
use helix_tests::folder::Folder;
use helix_tests::wait;

use crate::own_fleet;

/// An edge follows, reports, and origin takes over: within this on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// The local socket of an edge.
pub(crate) fn socket(fleet: &Fleet, edge: &str) -> PathBuf {
    fleet.folder().join("data").join(edge).join("admin.sock")
}

pub(crate) fn edge<'a>(fleet: &'a Fleet, name: &str) -> &'a EdgeInfo {
    let mut edges = fleet.edges();
    edges
        .find(|(_, edge)| edge.edge.as_str() == name)
        .unwrap()
        .1
}

pub(crate) fn serves(fleet: &Fleet, name: &str, project: &str) -> String {
    fleet
        .ask(edge(fleet, name), &fleet.host(project), "/")
        .text()
}

pub(crate) fn break_glass(fleet: &Fleet, arguments: &[&str]) -> Ended {
    fleet
        .helix()
        .run(["break-glass"].iter().chain(arguments).copied())
}

/// `helix break-glass rollback` at the socket of an edge.
pub(crate) fn locally(fleet: &Fleet, name: &str, project: &str, more: &[&str]) -> Ended {
    let socket = socket(fleet, name);
    let socket = socket.to_str().unwrap();
    let start = ["rollback", "--socket", socket, "--project", project];
    break_glass(fleet, &[&start, more].concat())
}

/// What origin says of a site in a region; none while it does not answer.
pub(crate) fn region(fleet: &Fleet, project: &str, name: &str) -> Option<SiteRegionStatus> {
    let ended = fleet
        .helix()
        .run(["status", "--project", project, "--json"]);
    let status: Status = serde_json::from_str(&ended.stdout).ok()?;
    let mut regions = status.sites.into_iter().flat_map(|site| site.regions);
    regions.find(|region| region.region.as_str() == name)
}

/// What the edge's admin address says at `path`.
pub(crate) fn admin(fleet: &Fleet, name: &str, path: &str) -> String {
    let request = Request::get("admin", path);
    let answer = Client::of(&edge(fleet, name).admin).send(request);
    answer.unwrap().text()
}

/// Ends NATS and origin, and lets nobody start them again.
fn darken(fleet: &Fleet) {
    fleet.freeze();
    fleet.kill("origin");
    fleet.kill("nats");
}

fn two_releases(fleet: &Fleet, project: &str) -> (ReleaseId, ReleaseId) {
    let first = fleet.deploy(project, &Folder::page("first"));
    let second = fleet.deploy(project, &Folder::page("second"));
    (first, second)
}

#[test]
fn with_nats_dead_an_edge_goes_back_by_its_local_socket_and_origin_takes_it_over() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let (first, second) = two_releases(&fleet, "dark");
    darken(&fleet);
    for name in ["fra-1", "fra-2"] {
        locally(&fleet, name, "dark", &["--reason", "second is sick"])
            .with(0)
            .says(&[first.as_str(), "on this edge alone"]);
        assert!(serves(&fleet, name, "dark").contains("first"), "{name}");
    }
    assert!(serves(&fleet, "iad-1", "dark").contains("second"));
    let sites = admin(&fleet, "fra-1", "/sites");
    assert!(sites.contains(r#""reason":"second is sick""#), "{sites}");
    assert!(sites.contains(r#""cause":"operator""#), "{sites}");
    assert_eq!(admin(&fleet, "fra-1", "/readyz"), "ready\n");
    let metrics = admin(&fleet, "fra-1", "/metrics");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("helix_edge_overrides{") && line.contains("standing"));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{line:?}");

    fleet.thaw();
    let back = wait::until("origin takes the override over", LIMIT, || {
        region(&fleet, "dark", "fra").filter(|region| region.live.as_ref() == Some(&first))
    });
    let hold = back.hold.unwrap();
    assert!(
        hold.reason.contains("break-glass") && hold.reason.contains("second is sick"),
        "{hold:?}"
    );
    wait::until_true("the edges follow origin's record again", LIMIT, || {
        region(&fleet, "dark", "fra").is_some_and(|region| region.overrides.is_empty())
            && !admin(&fleet, "fra-1", "/sites").contains("override")
    });
    assert!(serves(&fleet, "fra-2", "dark").contains("first"));
    assert!(serves(&fleet, "iad-2", "dark").contains("second"));
    for action in ["break_glass.override", "break_glass.adopt"] {
        audited(&fleet, action, "second is sick");
    }
    // As after any rollback: what was left needs the word.
    let again = Folder::page("second");
    fleet
        .deploy_to("dark", "production", again.path())
        .with(1)
        .says(&["quarantine"]);
    assert_eq!(region(&fleet, "dark", "iad").unwrap().live, Some(second));
}

#[test]
fn one_edge_alone_is_shown_until_somebody_decides_and_survives_a_restart() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let (first, second) = two_releases(&fleet, "lone");
    let _ = locally(&fleet, "fra-1", "lone", &["--reason", "a look at first"]).with(0);
    let shown = wait::until("origin shows the override", LIMIT, || {
        region(&fleet, "lone", "fra")?.overrides.into_iter().next()
    });
    assert_eq!(shown.edges, vec!["fra-1".parse().unwrap()]);
    assert_eq!((shown.release, shown.expired), (first, false));
    fleet
        .helix()
        .run(["status", "--project", "lone"])
        .with(0)
        .says(&["OVERRIDE on fra-1", "a look at first"]);
    let pid = fleet.kill("fra-1");
    fleet.wait_for_successor("fra-1", pid);
    wait::until_true("it is back", LIMIT, || {
        let host = fleet.host("lone");
        let request = Request::get(&host, "/");
        Client::of(&edge(&fleet, "fra-1").http)
            .send(request)
            .is_ok()
    });
    assert!(
        serves(&fleet, "fra-1", "lone").contains("first"),
        "it is on disk"
    );
    assert_eq!(
        region(&fleet, "lone", "fra").unwrap().live,
        Some(second),
        "one of two is no majority"
    );
    let at = socket(&fleet, "fra-1");
    let at = at.to_str().unwrap();
    break_glass(&fleet, &["status", "--socket", at])
        .with(0)
        .says(&["a look at first", "uid"]);
    let _ = break_glass(&fleet, &["end", "--socket", at, "--project", "lone"]).with(0);
    assert!(serves(&fleet, "fra-1", "lone").contains("second"));
    break_glass(&fleet, &["end", "--socket", at, "--project", "lone"])
        .with(1)
        .says(&["no override stands"]);
    wait::until_true("origin shows it no more", LIMIT, || {
        region(&fleet, "lone", "fra").is_some_and(|region| region.overrides.is_empty())
    });
    wait::until_true("the audit log has the end", LIMIT, || {
        let log = fleet.helix().run(["audit", "--json"]);
        log.stdout.contains("break_glass.end")
    });
    audited(&fleet, "break_glass.override", "a look at first");
    // What is over at once is in the log as well.
    let _ = locally(&fleet, "fra-2", "lone", &["--reason", "by mistake"]).with(0);
    let at = socket(&fleet, "fra-2");
    let at = at.to_str().unwrap();
    let _ = break_glass(&fleet, &["end", "--socket", at, "--project", "lone"]).with(0);
    wait::until_true("the audit log has both", LIMIT, || {
        both_noted(&fleet, "by mistake", "fra-2")
    });
    // A later cutover replaces an override by itself.
    let _ = locally(&fleet, "fra-1", "lone", &["--reason", "again"]).with(0);
    let _ = fleet.deploy("lone", &Folder::page("third"));
    fleet.all_answer(&fleet.host("lone"), "/", 200, None);
    assert!(serves(&fleet, "fra-1", "lone").contains("third"));
}

/// Whether the audit log has such an override, and one end on that edge.
fn both_noted(fleet: &Fleet, reason: &str, edge: &str) -> bool {
    let log = fleet.helix().run(["audit", "--json"]).stdout;
    let of_edge = format!("edge {edge}: the override of");
    log.contains(reason) && log.matches(&of_edge).count() == 1
}

#[test]
fn an_override_that_began_and_ended_in_the_dark_is_in_the_audit_log() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let (_, second) = two_releases(&fleet, "brief");
    darken(&fleet);
    let _ = locally(&fleet, "iad-1", "brief", &["--reason", "only a look"]).with(0);
    assert!(serves(&fleet, "iad-1", "brief").contains("first"));
    let at = socket(&fleet, "iad-1");
    let at = at.to_str().unwrap();
    let _ = break_glass(&fleet, &["end", "--socket", at, "--project", "brief"]).with(0);
    assert!(serves(&fleet, "iad-1", "brief").contains("second"));
    let _ = fleet.kill("iad-1");
    fleet.thaw();
    wait::until_true("origin hears of it", LIMIT, || {
        both_noted(&fleet, "only a look", "iad-1")
    });
    audited(&fleet, "break_glass.override", "only a look");
    assert_eq!(region(&fleet, "brief", "iad").unwrap().live, Some(second));
}

#[test]
fn what_an_edge_does_not_hold_or_nobody_explains_is_refused() {
    let fleet = Fleet::shared();
    let (first, second) = two_releases(&fleet, "refused");
    let unknown = "0".repeat(20);
    for (project, more, says) in [
        ("refused", &["--reason", ""][..], "a reason is needed"),
        (
            "refused",
            &["--reason", "x", "--ttl", "0s"],
            "time to live is 0",
        ),
        (
            "refused",
            &["--reason", "x", "--ttl", "169h"],
            "longer than 7 days",
        ),
        (
            "refused",
            &[second.as_str(), "--reason", "x"],
            "is what is served here",
        ),
        (
            "refused",
            &[&unknown, "--reason", "x"],
            "is not held and verified here",
        ),
        ("nobodys", &["--reason", "x"], "no such site"),
    ] {
        locally(&fleet, "fra-1", project, more)
            .with(1)
            .says(&[says]);
    }
    let mode = std::fs::metadata(socket(&fleet, "fra-1"))
        .unwrap()
        .permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    assert!(serves(&fleet, "fra-1", "refused").contains("second"));
    // Going back once more than there is to go back to.
    let _ = first;
    let _ = locally(&fleet, "iad-2", "refused", &["--reason", "x"]).with(0);
    locally(&fleet, "iad-2", "refused", &["--reason", "x"])
        .with(1)
        .says(&["no earlier release"]);
    let at = socket(&fleet, "iad-2");
    let _ = break_glass(
        &fleet,
        &[
            "end",
            "--socket",
            at.to_str().unwrap(),
            "--project",
            "refused",
        ],
    )
    .with(0);
}

/// `helix break-glass rollback` by a record that the operator's key signs.
fn by_key(fleet: &Fleet, key: &str, project: &str, more: &[&str]) -> Ended {
    let keys = fleet.folder().join("keys");
    let (key, seed) = (keys.join(key), keys.join("operator.nk"));
    let start = [
        "rollback",
        "--region",
        "fra",
        "--project",
        project,
        "--nats",
        &fleet.info.nats,
        "--operator-key",
        key.to_str().unwrap(),
        "--nats-seed",
        seed.to_str().unwrap(),
    ];
    break_glass(fleet, &[&start[..], more].concat())
}

/// Each is told, and nothing is written.
fn mistakes_cost_nothing(fleet: &Fleet, second: &ReleaseId) {
    for (key, project, more, says) in [
        (
            "record.pem",
            "keyed",
            &["--reason", "sick"][..],
            "no operator's key that edges pin",
        ),
        (
            "operator.pem",
            "keyed",
            &["--reason", " "],
            "a reason is needed",
        ),
        (
            "operator.pem",
            "keyed",
            &["--reason", "sick", "--ttl", "0s"],
            "time to live is 0",
        ),
        (
            "operator.pem",
            "keyed",
            &["--reason", "sick", "--ttl", "169h"],
            "longer than 7 days",
        ),
        (
            "operator.pem",
            "nobodys",
            &["--reason", "sick"],
            "no such site",
        ),
        (
            "operator.pem",
            "keyed",
            &[second.as_str(), "--reason", "sick"],
            "is what is served",
        ),
        (
            "operator.pem",
            "keyed",
            &["01234567890123456789", "--reason", "sick"],
            "is not held",
        ),
    ] {
        by_key(fleet, key, project, more).with(1).says(&[says]);
    }
}

#[test]
fn with_origin_dead_an_operators_key_takes_a_region_back_and_origin_takes_it_over() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let (first, second) = two_releases(&fleet, "keyed");
    by_key(&fleet, "operator.pem", "keyed", &["--reason", "sick"])
        .with(1)
        .says(&["origin leads", "helix rollback"]);
    let epoch = fleet.api().status().unwrap().epoch;
    fleet.freeze();
    fleet.kill("origin");
    mistakes_cost_nothing(&fleet, &second);
    assert!(serves(&fleet, "fra-1", "keyed").contains("second"));
    by_key(
        &fleet,
        "operator.pem",
        "keyed",
        &["--reason", "second is sick"],
    )
    .with(0)
    .says(&[first.as_str(), "in fra"]);
    wait::until_true("both edges of the region are back", LIMIT, || {
        ["fra-1", "fra-2"]
            .iter()
            .all(|name| serves(&fleet, name, "keyed").contains("first"))
    });
    assert!(serves(&fleet, "iad-1", "keyed").contains("second"));
    let sites = admin(&fleet, "fra-2", "/sites");
    assert!(
        sites.contains(r#""reason":"second is sick""#) && sites.contains(r#""cause":"signed""#),
        "{sites}"
    );

    fleet.thaw();
    let back = wait::until("origin has taken it over", LIMIT, || {
        region(&fleet, "keyed", "fra").filter(|region| region.live.as_ref() == Some(&first))
    });
    assert!(back.hold.unwrap().reason.contains("second is sick"));
    assert!(fleet.api().status().unwrap().epoch > epoch);
    wait::until_true("the edges follow origin's record again", LIMIT, || {
        !admin(&fleet, "fra-1", "/sites").contains("override")
    });
    fleet.wait_until_whole();
    for edge in fleet.api().status().unwrap().edges {
        assert_eq!(edge.note, None, "{} refused something", edge.edge);
    }
    assert!(serves(&fleet, "fra-1", "keyed").contains("first"));
    // It is origin's again: what is deployed next goes everywhere.
    let _ = fleet.deploy("keyed", &Folder::page("third"));
    assert!(serves(&fleet, "fra-2", "keyed").contains("third"));
    audited(&fleet, "break_glass.adopt", "second is sick");
    a_key_that_nobody_pins_changes_nothing(&fleet);
}

/// The audit log is whole, and has such an entry.
fn audited(fleet: &Fleet, action: &str, says: &str) {
    let _ = fleet.helix().run(["audit", "verify"]).with(0);
    let entries = fleet.helix().run(["audit", "--json"]).with(0).stdout;
    let found = entries.contains(action) && entries.contains(says);
    assert!(found, "no {action} that says {says:?} in {entries}");
}

/// Even if it gets past NATS and past the command, which looks into a ring that was tampered with.
fn a_key_that_nobody_pins_changes_nothing(fleet: &Fleet) {
    let keys = fleet.folder().join("keys");
    let foreign = SigningKey::generate(KeyRole::Operator);
    foreign.save(&keys.join("foreign.pem")).unwrap();
    let ring = std::fs::read_to_string(keys.join("ring.toml")).unwrap();
    let mut ring: toml::Table = toml::from_str(&ring).unwrap();
    let added = toml::Value::try_from(foreign.public()).unwrap();
    ring["keys"].as_array_mut().unwrap().push(added);
    let forged = keys.join("forged.toml");
    std::fs::write(&forged, toml::to_string(&ring).unwrap()).unwrap();
    let more = ["--reason", "forged", "--ring", forged.to_str().unwrap()];
    by_key(fleet, "foreign.pem", "keyed", &more[..2])
        .with(1)
        .says(&["no operator's key that edges pin"]);
    fleet.freeze();
    fleet.kill("origin");
    let _ = by_key(fleet, "foreign.pem", "keyed", &more).with(0);
    wait::until_true("the edge refuses term and record", LIMIT, || {
        admin(fleet, "fra-1", "/metrics")
            .lines()
            .any(|line| line.starts_with("helix_edge_records_refused") && !line.ends_with(" 0"))
    });
    assert!(serves(fleet, "fra-1", "keyed").contains("third"));
    fleet.thaw();
    fleet.wait_until_whole();
    let live = region(fleet, "keyed", "fra").unwrap();
    assert!(live.hold.is_none(), "origin takes nothing over: {live:?}");
    assert!(serves(fleet, "fra-1", "keyed").contains("third"));
    let _ = fleet.deploy("keyed", &Folder::page("fourth"));
    assert!(serves(fleet, "fra-2", "keyed").contains("fourth"));
}
