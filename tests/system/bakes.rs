//! Bakes: what visitors get from a new release decides whether it stays.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use helix_routing::api::{BakeView, PhaseName, RegionView, RolloutView};
use helix_routing::id::ReleaseId;
use helix_routing::verdict::Verdict;
use helix_tests::client::{Client, Request};
use helix_tests::command::{Ended, finish};
use helix_tests::fleet::{Fleet, Options, release_of};
use helix_tests::folder::Folder;
use helix_tests::wait;

use crate::own_fleet;

/// A bake of a few seconds, and everything around it, on a loaded machine.
const BAKE_LIMIT: Duration = Duration::from_secs(60);

/// A server that answers everything with this status and body.
fn answering(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                // One answer for each empty line: no request here has a body.
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let length = body.len();
                    let sent =
                        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                    if line.is_empty() && out.write_all(sent.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// A site whose `/api/*` goes to `addr`, held to `bake`.
fn site(text: &str, addr: SocketAddr, bake: &str) -> Folder {
    let toml = format!(
        "{bake}\n[upstreams.api]\naddresses = [\"http://{addr}\"]\n\n\
         [[forward]]\npath = \"/api/*\"\nupstream = \"api\"\n"
    );
    Folder::page(text).with("helix.toml", toml.as_bytes())
}

/// Visitors of one host on every edge of some regions, until dropped.
struct Visitors {
    gone: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Visitors {
    fn of(fleet: &Fleet, project: &str, regions: &[&str]) -> Self {
        let gone = Arc::new(AtomicBool::new(false));
        let edges = fleet
            .edges()
            .filter(|(region, _)| regions.contains(&region.as_str()));
        let threads = edges.map(|(_, edge)| {
            let (gone, host, http) = (Arc::clone(&gone), fleet.host(project), edge.http.clone());
            std::thread::spawn(move || {
                let mut client = Client::of(&http);
                while !gone.load(Ordering::Relaxed) {
                    // What it gets is the edge's to count.
                    let _ = client.send(Request::get(&host, "/api/a"));
                    wait::pause(Duration::from_millis(4));
                }
            })
        });
        Self {
            threads: threads.collect(),
            gone,
        }
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A visitor that failed has shown it already.
            let _ = thread.join();
        }
    }
}

const EVERYWHERE: [&str; 2] = ["fra", "iad"];

/// The rollout that `helix deploy --json` followed to its end.
fn result(ended: &Ended) -> RolloutView {
    serde_json::from_value(ended.json()["result"].clone()).unwrap()
}

fn region<'a>(view: &'a RolloutView, name: &str) -> &'a RegionView {
    view.regions
        .iter()
        .find(|region| region.region.as_str() == name)
        .unwrap()
}

fn bake<'a>(view: &'a RolloutView, name: &str) -> &'a BakeView {
    region(view, name).bake.as_ref().unwrap()
}

#[track_caller]
fn serves(fleet: &Fleet, project: &str, name: &str, release: &ReleaseId) {
    let site = fleet.api().site(&format!("{project}/production")).unwrap();
    let region = site
        .regions
        .iter()
        .find(|region| region.region.as_str() == name)
        .unwrap();
    assert_eq!(region.live.as_ref(), Some(release), "{project} in {name}");
}

fn held(fleet: &Fleet, project: &str) -> Vec<bool> {
    let site = fleet.api().site(&format!("{project}/production")).unwrap();
    site.regions
        .iter()
        .map(|region| region.hold.is_some())
        .collect()
}

#[test]
fn a_release_that_answers_500_goes_back_by_itself_held_and_quarantined() {
    let fleet = Fleet::shared();
    let (well, sick) = (answering("200 OK", "well"), answering("500 Sick", "sick"));
    let good = fleet.deploy("bake-sick", &site("good", well, ""));
    let visitors = Visitors::of(&fleet, "bake-sick", &EVERYWHERE);
    let bad = site("bad", sick, "[bake]\nwindow = \"50s\"\n");
    let ended = fleet
        .deploy_to("bake-sick", "production", bad.path())
        .with(2);
    drop(visitors);
    let view = result(&ended);
    let failed = view
        .regions
        .iter()
        .filter_map(|region| region.bake.as_ref());
    let failed: Vec<_> = failed
        .filter(|bake| bake.verdict == Some(Verdict::Fail))
        .collect();
    assert_eq!(
        failed.len(),
        1,
        "one region failed and took the other along: {view:?}"
    );
    assert!(
        failed[0].decided.unwrap() < failed[0].until,
        "certain before its end"
    );
    assert!(failed[0].requests >= 100);
    for name in EVERYWHERE {
        assert_eq!(region(&view, name).phase, PhaseName::RolledBack);
        serves(&fleet, "bake-sick", name, &good);
    }
    assert_eq!(held(&fleet, "bake-sick"), [true, true]);
    // The evidence stays with the rollout; what is in flight goes on.
    let in_flight = view.in_flight.clone();
    let kept = RolloutView {
        in_flight,
        ..fleet.api().rollout(&view.rollout)
    };
    assert_eq!(kept, view);
    fleet
        .deploy_to("bake-sick", "production", bad.path())
        .with(1)
        .says(&["quarantine"]);
    let status = fleet
        .helix()
        .run(["status", "--project", "bake-sick"])
        .with(0);
    status.says(&["held: went back by itself", "over 1.00%"]);
}

#[test]
fn one_region_goes_back_alone_where_the_rules_say_so() {
    let fleet = Fleet::shared();
    let (well, sick) = (answering("200 OK", "well"), answering("500 Sick", "sick"));
    let good = fleet.deploy("bake-alone", &site("good", well, ""));
    let visitors = Visitors::of(&fleet, "bake-alone", &["fra"]);
    let bad = site(
        "bad",
        sick,
        "[bake]\nwindow = \"6s\"\non_fail = \"region\"\n",
    );
    let ended = fleet
        .deploy_to("bake-alone", "production", bad.path())
        .with(2);
    drop(visitors);
    let view = result(&ended);
    serves(&fleet, "bake-alone", "fra", &good);
    serves(&fleet, "bake-alone", "iad", &release_of(&ended));
    assert_eq!(held(&fleet, "bake-alone"), [true, false]);
    assert_eq!(
        bake(&view, "iad").verdict,
        Some(Verdict::Inconclusive),
        "nobody was there"
    );
    // What is deployed next goes everywhere, and names what was held.
    let next = fleet
        .deploy_to("bake-alone", "production", site("next", well, "").path())
        .with(0);
    assert_eq!(next.json()["held"], serde_json::json!(["fra"]));
    assert_eq!(held(&fleet, "bake-alone"), [false, false]);
}

#[test]
fn a_good_release_settles_when_its_window_is_over() {
    let fleet = Fleet::shared();
    let well = answering("200 OK", "well");
    let _ = fleet.deploy("bake-good", &site("first", well, ""));
    let visitors = Visitors::of(&fleet, "bake-good", &EVERYWHERE);
    wait::pause(Duration::from_secs(2));
    let rules = "[bake]\nwindow = \"4s\"\n[bake.p99]\nmax = \"20s\"\ncompare = false\n";
    let second = site("second", well, rules);
    let ended = fleet
        .deploy_to("bake-good", "production", second.path())
        .with(0);
    drop(visitors);
    let view = result(&ended);
    for name in EVERYWHERE {
        let bake = bake(&view, name);
        assert_eq!(bake.verdict, Some(Verdict::Pass), "{bake:?}");
        assert!(bake.decided.unwrap() >= bake.until);
        assert!(
            bake.baseline_requests > 0,
            "the release before is a measure: {bake:?}"
        );
        assert_eq!(region(&view, name).phase, PhaseName::Stable);
    }
    assert_eq!(held(&fleet, "bake-good"), [false, false]);
}

#[test]
fn a_site_that_nobody_visits_can_be_deployed_to() {
    let fleet = Fleet::shared();
    let first = fleet.deploy("bake-quiet", &Folder::page("first"));
    let rules = b"[bake]\nwindow = \"2s\"\n";
    let second = Folder::page("second").with("helix.toml", rules);
    let view = result(
        &fleet
            .deploy_to("bake-quiet", "production", second.path())
            .with(0),
    );
    assert_eq!(bake(&view, "fra").verdict, Some(Verdict::Inconclusive));

    let rules = b"[bake]\nwindow = \"2s\"\non_inconclusive = \"ask\"\n";
    let third = Folder::page("third").with("helix.toml", rules);
    let ended = fleet
        .deploy_to("bake-quiet", "production", third.path())
        .with(6);
    ended.says(&["undecided", "of 100 requests"]);
    serves(&fleet, "bake-quiet", "fra", &release_of(&ended));
    let _ = fleet
        .helix()
        .run(["rollback", first.as_str(), "--project", "bake-quiet"])
        .with(0);
    serves(&fleet, "bake-quiet", "fra", &first);
}

#[test]
fn a_first_release_that_fails_stays_and_a_person_is_asked() {
    let fleet = Fleet::shared();
    let sick = answering("500 Sick", "sick");
    let visitors = Visitors::of(&fleet, "bake-first", &EVERYWHERE);
    let bad = site("bad", sick, "[bake]\nwindow = \"5s\"\n");
    let ended = fleet
        .deploy_to("bake-first", "production", bad.path())
        .with(6);
    drop(visitors);
    let view = result(&ended);
    assert_eq!(region(&view, "fra").phase, PhaseName::RevertBlocked);
    serves(&fleet, "bake-first", "fra", &release_of(&ended));
}

#[test]
fn a_preview_does_not_bake_and_mistakes_in_the_rules_cost_no_upload() {
    let fleet = Fleet::shared();
    let rules = b"[bake]\nwindow = \"1h\"\n";
    let long = Folder::page("long").with("helix.toml", rules);
    let view = result(
        &fleet
            .deploy_to("bake-preview", "preview/1", long.path())
            .with(0),
    );
    assert_eq!(region(&view, "fra").bake, None);
    let wrong = Folder::page("x").with("helix.toml", b"[bake]\nmax_5xx = \"1\"\n");
    fleet
        .deploy_to("bake-preview", "production", wrong.path())
        .with(1)
        .says(&["helix.toml:2: "]);
    let asks = b"[[bake.promql]]\nname = \"carts\"\nquery = \"sum(carts)\"\nmin = 1\n";
    let asks = Folder::page("x").with("helix.toml", asks);
    fleet
        .deploy_to("bake-preview", "production", asks.path())
        .with(1)
        .says(&["Prometheus"]);
}

#[test]
fn origin_killed_in_a_bake_goes_on_with_it() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options::default());
    let well = answering("200 OK", "well");
    let _ = fleet.deploy("bake-kill", &site("first", well, ""));
    let _visitors = Visitors::of(&fleet, "bake-kill", &EVERYWHERE);
    let rules = "[bake]\nwindow = \"8s\"\n[bake.p99]\ncompare = false\n";
    let second = site("second", well, rules);
    let path = second.path().to_str().unwrap();
    let running = fleet
        .helix()
        .start(["deploy", path, "--project", "bake-kill", "--json"]);
    let api = fleet.api();
    let before = wait::until("both regions bake", BAKE_LIMIT, || {
        let rollout = api.site("bake-kill/production")?.rollout?;
        let view = api.rollout(&rollout);
        let bakes = view
            .regions
            .iter()
            .all(|region| region.phase == PhaseName::Baking);
        bakes.then_some(view)
    });
    let pid = fleet.kill("origin");
    fleet.wait_for_successor("origin", pid);
    let view = result(&finish(running).with(0));
    for name in EVERYWHERE {
        let (began, ended) = (bake(&before, name), bake(&view, name));
        assert_eq!(
            (began.since, began.until),
            (ended.since, ended.until),
            "the clock goes on"
        );
        assert_eq!(
            ended.verdict,
            Some(Verdict::Pass),
            "counts survive: {ended:?}"
        );
    }
}

#[test]
fn origin_killed_in_a_return_finishes_it() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options {
        failpoint: Some("origin.saved.returning"),
        ..Options::default()
    });
    let (well, sick) = (answering("200 OK", "well"), answering("500 Sick", "sick"));
    let good = fleet.deploy("bake-return", &site("good", well, ""));
    let _visitors = Visitors::of(&fleet, "bake-return", &EVERYWHERE);
    fleet.arm();
    let bad = site("bad", sick, "[bake]\nwindow = \"50s\"\n");
    let _ = fleet
        .deploy_to("bake-return", "production", bad.path())
        .with(2);
    assert!(fleet.has_fired(), "origin was not killed");
    for name in EVERYWHERE {
        serves(&fleet, "bake-return", name, &good);
    }
    assert_eq!(held(&fleet, "bake-return"), [true, true]);
}

#[test]
fn prometheus_decides_where_it_is_asked() {
    let _turn = own_fleet();
    let answer = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"7"]}]}}"#;
    let prometheus: &'static str = format!("http://{}", answering("200 OK", answer)).leak();
    let settings: &'static [(&str, &str)] =
        vec![("HELIX_ORIGIN_BAKE__PROMETHEUS", prometheus)].leak();
    let fleet = Fleet::start(&Options {
        settings,
        ..Options::default()
    });
    let first = fleet.deploy("bake-asks", &Folder::page("first"));
    let asking = |text: &str, bound: &str| {
        let rules = format!(
            "[bake]\nwindow = \"3s\"\n[[bake.promql]]\nname = \"carts\"\nquery = \"sum(carts)\"\n{bound}\ninterval = \"1s\"\n"
        );
        Folder::page(text).with("helix.toml", rules.as_bytes())
    };
    let within = asking("within", "max = 7");
    let ended = fleet
        .deploy_to("bake-asks", "production", within.path())
        .with(0);
    let view = result(&ended);
    let checks = &bake(&view, "fra").checks;
    assert_eq!(
        (checks[0].answer.as_deref(), checks[0].broken),
        (Some("7"), false)
    );
    let beyond = asking("beyond", "max = 6.5");
    let failed = fleet
        .deploy_to("bake-asks", "production", beyond.path())
        .with(2);
    failed.says(&["carts is 7, not at most 6.5"]);
    serves(&fleet, "bake-asks", "fra", &release_of(&ended));
    assert_ne!(release_of(&ended), first);
}
