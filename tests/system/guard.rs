//! A bake whose origin is gone: an edge takes itself back where its release asks for that, once, and origin takes it as a failed bake.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use helix_routing::api::{PhaseName, RegionView};
use helix_routing::glass;
use helix_routing::id::RolloutId;
use helix_routing::rollout::Outcome;
use helix_tests::client::{Client, Request};
use helix_tests::fleet::{Fleet, Options};
use helix_tests::folder::Folder;
use helix_tests::wait;

use crate::glass::{LIMIT, admin, break_glass, locally, region, serves, socket};
use crate::own_fleet;

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
