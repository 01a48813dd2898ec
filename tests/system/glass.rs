//! When origin or NATS is dead: what a person may still change, who sees it, and what becomes of it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use helix_routing::api::{PhaseName, RegionView, SiteRegionStatus, Status};
use helix_routing::glass;
use helix_routing::id::{ReleaseId, RolloutId};
use helix_routing::rollout::Outcome;
use helix_routing::seal::KeyRole;
use helix_service::keys::SigningKey;
use helix_tests::client::{Client, Request};
use helix_tests::command::Ended;
use helix_tests::fleet::{EdgeInfo, Fleet, Options};
use helix_tests::folder::Folder;
use helix_tests::wait;

use crate::own_fleet;

/// An edge follows, reports, and origin takes over: within this on a loaded machine.
const LIMIT: Duration = Duration::from_secs(40);

/// The local socket of an edge.
fn socket(fleet: &Fleet, edge: &str) -> PathBuf {
    fleet.folder().join("data").join(edge).join("admin.sock")
}

fn edge<'a>(fleet: &'a Fleet, name: &str) -> &'a EdgeInfo {
    let mut edges = fleet.edges();
    edges
        .find(|(_, edge)| edge.edge.as_str() == name)
        .unwrap()
        .1
}

fn serves(fleet: &Fleet, name: &str, project: &str) -> String {
    fleet
        .ask(edge(fleet, name), &fleet.host(project), "/")
        .text()
}

fn break_glass(fleet: &Fleet, arguments: &[&str]) -> Ended {
    fleet
        .helix()
        .run(["break-glass"].iter().chain(arguments).copied())
}

/// `helix break-glass rollback` at the socket of an edge.
fn locally(fleet: &Fleet, name: &str, project: &str, more: &[&str]) -> Ended {
    let socket = socket(fleet, name);
    let socket = socket.to_str().unwrap();
    let start = ["rollback", "--socket", socket, "--project", project];
    break_glass(fleet, &[&start, more].concat())
}

/// What origin says of a site in a region; none while it does not answer.
fn region(fleet: &Fleet, project: &str, name: &str) -> Option<SiteRegionStatus> {
    let ended = fleet
        .helix()
        .run(["status", "--project", project, "--json"]);
    let status: Status = serde_json::from_str(&ended.stdout).ok()?;
    let mut regions = status.sites.into_iter().flat_map(|site| site.regions);
    regions.find(|region| region.region.as_str() == name)
}

/// What the edge's admin address says at `path`.
fn admin(fleet: &Fleet, name: &str, path: &str) -> String {
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
    // A later cutover replaces an override by itself.
    let _ = locally(&fleet, "fra-1", "lone", &["--reason", "again"]).with(0);
    let _ = fleet.deploy("lone", &Folder::page("third"));
    fleet.all_answer(&fleet.host("lone"), "/", 200, None);
    assert!(serves(&fleet, "fra-1", "lone").contains("third"));
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

/// A server that answers 200, and 500 once it is told to.
fn upstream() -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, sick) = (
        listener.local_addr().unwrap(),
        Arc::new(AtomicBool::new(false)),
    );
    let is_sick = Arc::clone(&sick);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let is_sick = Arc::clone(&is_sick);
            std::thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                // One answer for each empty line: no request here has a body.
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let status = if is_sick.load(Ordering::Relaxed) {
                        "500 Sick"
                    } else {
                        "200 OK"
                    };
                    let sent = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
                    if line.is_empty() && out.write_all(sent.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, sick)
}

/// Asks `/api/a` of every edge some times.
fn visit(fleet: &Fleet, project: &str, times: usize) {
    let host = fleet.host(project);
    for (_, edge) in fleet.edges() {
        let mut client = Client::of(&edge.http);
        for _ in 0..times {
            // What it gets is the edge's to count.
            let _ = client.send(Request::get(&host, "/api/a"));
        }
    }
}

/// A page, and what is below `/api/` from `addr`; with these bake rules.
fn site_of(addr: SocketAddr, text: &str, bake: &str) -> Folder {
    let toml = format!(
        "{bake}\n[upstreams.api]\naddresses = [\"http://{addr}\"]\n\n\
         [[forward]]\npath = \"/api/*\"\nupstream = \"api\"\n"
    );
    Folder::page(text).with("helix.toml", toml.as_bytes())
}

/// Lets time pass, where nothing is to happen in it.
fn pass(time: Duration) {
    let since = Instant::now();
    wait::until_true("time passes", LIMIT, || since.elapsed() >= time);
}

const GUARD: &str = "[bake]\nwindow = \"10m\"\non_origin_loss = \"local_guard\"\n";

/// Deploys and waits until every region bakes. Returns the rollout.
fn bake(fleet: &Fleet, folder: &Folder, project: &str) -> RolloutId {
    let path = folder.path().to_str().unwrap();
    let helix = fleet.helix();
    let _ = helix
        .run(["deploy", path, "--project", project, "--detach"])
        .with(0);
    wait::until("the release bakes", LIMIT, || {
        let site = fleet.api().site(&format!("{project}/production"))?;
        let rollout = site.rollout?;
        let view = fleet.api().rollout(&rollout);
        let bakes = |region: &RegionView| region.phase == PhaseName::Baking;
        view.regions.iter().all(bakes).then_some(rollout)
    })
}

#[test]
fn an_edge_takes_itself_back_in_a_bake_whose_origin_was_killed() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let (addr, sick) = upstream();
    let good = fleet.deploy("guarded", &site_of(addr, "good", ""));
    let _ = fleet.deploy("held", &site_of(addr, "good", ""));
    visit(&fleet, "guarded", 60);
    visit(&fleet, "held", 60);
    let guarded = site_of(addr, "bad", GUARD);
    let rollout = bake(&fleet, &guarded, "guarded");
    let _ = bake(
        &fleet,
        &site_of(addr, "bad", "[bake]\nwindow = \"10m\"\n"),
        "held",
    );
    fleet.freeze();
    fleet.kill("origin");
    sick.store(true, Ordering::Relaxed);
    wait::until_true("every edge has taken itself back", LIMIT, || {
        visit(&fleet, "guarded", 10);
        visit(&fleet, "held", 10);
        let back = |name: &&str| serves(&fleet, name, "guarded").contains("good");
        ["fra-1", "fra-2", "iad-1", "iad-2"].iter().all(back)
    });
    assert!(admin(&fleet, "iad-1", "/sites").contains(r#""cause":"guard""#));
    assert!(
        serves(&fleet, "fra-1", "held").contains("bad"),
        "hold is the default"
    );

    fleet.thaw();
    let view = wait::until("origin ends the rollout", LIMIT, || {
        let view = fleet
            .api()
            .status()
            .map(|_| fleet.api().rollout(&rollout))?;
        view.outcome.is_some().then_some(view)
    });
    assert_eq!(view.outcome, Some(Outcome::WentBack), "{view:?}");
    let reasons: Vec<_> = view
        .regions
        .iter()
        .filter_map(|region| region.reason.clone())
        .collect();
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("while origin is silent")),
        "{reasons:?}"
    );
    for name in ["fra", "iad"] {
        let region = region(&fleet, "guarded", name).unwrap();
        assert_eq!(region.live.as_ref(), Some(&good), "{name}");
        assert!(region.hold.is_some(), "{name}");
    }
    wait::until_true("no edge overrides anything", LIMIT, || {
        !admin(&fleet, "fra-1", "/sites").contains("override")
    });
    let again = guarded.path();
    fleet
        .deploy_to("guarded", "production", again)
        .with(1)
        .says(&["quarantine"]);
}

#[test]
fn an_edge_takes_itself_back_once_and_a_person_has_the_last_word() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let (addr, sick) = upstream();
    let _ = fleet.deploy("once", &site_of(addr, "good", ""));
    visit(&fleet, "once", 60);
    let _ = bake(&fleet, &site_of(addr, "bad", GUARD), "once");
    fleet.freeze();
    fleet.kill("origin");
    // Silence alone moves nobody, nor do errors below the limits.
    pass(glass::SILENCE + Duration::from_secs(2));
    visit(&fleet, "once", 60);
    assert!(serves(&fleet, "fra-1", "once").contains("bad"));
    sick.store(true, Ordering::Relaxed);
    wait::until_true("the edge has taken itself back", LIMIT, || {
        visit(&fleet, "once", 20);
        serves(&fleet, "fra-1", "once").contains("good")
    });
    let at = socket(&fleet, "fra-1");
    let at = at.to_str().unwrap();
    break_glass(&fleet, &["status", "--socket", at])
        .with(0)
        .says(&["local guard", "while origin is silent"]);
    let _ = break_glass(&fleet, &["end", "--socket", at, "--project", "once"]).with(0);
    assert!(serves(&fleet, "fra-1", "once").contains("bad"));
    for _ in 0..5 {
        visit(&fleet, "once", 100);
        pass(Duration::from_secs(1));
    }
    assert!(
        serves(&fleet, "fra-1", "once").contains("bad"),
        "it does so once after each cutover"
    );
    // By hand it goes on.
    let _ = locally(&fleet, "fra-1", "once", &["--reason", "still sick"]).with(0);
    assert!(serves(&fleet, "fra-1", "once").contains("good"));
}
