//! Gates over a real fleet: what passes goes live, what does not changes nothing, and either can be asked by hand.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use helix_routing::api::RolloutView;
use helix_routing::gate::result::GateResult;
use helix_routing::gate::view::GateRunView;
use helix_routing::rollout::Outcome;
use helix_routing::verdict::Verdict;
use helix_tests::command::Ended;
use helix_tests::fleet::{Fleet, Options};
use helix_tests::folder::{Folder, page};

use crate::own_fleet;

/// With something that would run the commands of gates, as far as origin is told.
const COMMANDS: &[(&str, &str)] = &[("HELIX_ORIGIN_GATES__COMMANDS", "true")];

/// A server that is well until it is told otherwise.
struct Server {
    addr: SocketAddr,
    well: Arc<AtomicBool>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let well = Arc::new(AtomicBool::new(true));
        let held = Arc::clone(&well);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let well = Arc::clone(&held);
                thread::spawn(move || {
                    let mut out = stream.try_clone().unwrap();
                    // One answer for each empty line: no request here has a body.
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        let sent = match (line.is_empty(), well.load(Ordering::SeqCst)) {
                            (false, _) => continue,
                            (true, true) => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready",
                            (true, false) => {
                                "HTTP/1.1 503 Busy\r\ncontent-length: 8\r\n\r\nstarting"
                            }
                        };
                        if out.write_all(sent.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { addr, well }
    }

    fn upstream(&self) -> String {
        format!("[upstreams.api]\naddresses = [\"http://{}\"]\n", self.addr)
    }
}

fn gated(text: &str, toml: &str) -> Folder {
    Folder::page(text).with("helix.toml", toml.as_bytes())
}

const HOME: &str = "[[gates]]\nname = \"home\"\nkind = \"http\"\nbody = \"well done\"\n";

fn view(ended: &Ended) -> RolloutView {
    serde_json::from_value(ended.json()["result"].clone()).unwrap()
}

fn release(ended: &Ended) -> String {
    ended.json()["release"].as_str().unwrap().to_owned()
}

/// Every result of a rollout, by edge.
fn shown(view: &RolloutView) -> Vec<(String, GateResult)> {
    let edges = view.regions.iter().flat_map(|region| &region.gates);
    let results = edges.flat_map(|edge| {
        edge.results
            .iter()
            .map(|one| (edge.edge.to_string(), one.clone()))
    });
    results.collect()
}

fn gate_run(fleet: &Fleet, release: &str, more: &[&str]) -> Ended {
    let arguments = ["gate", "run", release];
    fleet.helix().run(arguments.iter().chain(more))
}

#[test]
fn a_release_that_passes_its_gates_on_every_edge_goes_live() {
    let fleet = Fleet::shared();
    let server = Server::start();
    let toml = format!(
        "{HOME}{}\n[[gates]]\nname = \"api\"\nkind = \"http\"\nupstream = \"api\"\npath = \"/healthz\"\nbody = \"/^ready$/\"\ninterval = \"200ms\"\n\
         [[gates]]\nname = \"port\"\nkind = \"tcp\"\nupstream = \"api\"\nrise = 1\n",
        server.upstream()
    );
    let folder = gated("well done", &toml);
    let ended = fleet
        .deploy_to("g-passes", "production", folder.path())
        .with(0);
    let view = view(&ended);
    assert_eq!(view.outcome, Some(Outcome::Settled));
    let shown = shown(&view);
    for (_, edge) in fleet.edges() {
        let of_edge = shown
            .iter()
            .filter(|(name, _)| *name == edge.edge.to_string());
        let gates: Vec<&str> = of_edge.map(|(_, result)| result.gate.as_str()).collect();
        assert_eq!(
            gates,
            ["artifact", "certificate", "upstream", "home", "api", "port"]
        );
    }
    assert!(
        shown.iter().all(|(_, result)| result.is_passed()),
        "{shown:?}"
    );
    let api = shown.iter().find(|(_, result)| result.gate == "api");
    assert_eq!(api.map(|(_, result)| result.probes), Some(3));
}

#[test]
fn a_release_that_fails_a_gate_ends_before_traffic_with_its_evidence() {
    let fleet = Fleet::shared();
    let before = fleet.deploy("g-fails", &gated("well done", HOME));
    let host = fleet.host("g-fails");
    let bad = gated("badly done", HOME);
    let ended = fleet.deploy_to("g-fails", "production", bad.path()).with(3);
    let edge = fleet.edges().next().unwrap().1.edge.to_string();
    let region = edge.split('-').next().unwrap();
    ended.says(&[
        "gate home: fail",
        &format!("{region}-"),
        "answered 200, but its body does not hold \"well done\"",
        "badly done",
    ]);
    fleet.all_answer(&host, "/", 200, Some(page("well done").as_bytes()));
    let view = view(&ended);
    assert_eq!(view.outcome, Some(Outcome::Aborted));
    let shown = shown(&view);
    let (_, failed) = shown
        .iter()
        .find(|(_, result)| !result.is_passed())
        .unwrap();
    assert_eq!((failed.verdict, failed.status), (Verdict::Fail, Some(200)));
    assert!(failed.last_probe.is_some() && failed.probes >= 1);
    // Origin tells it afterwards, too.
    let kept = fleet.api().rollout(&view.rollout);
    assert!(kept.regions.iter().any(|region| !region.gates.is_empty()));
    let site = fleet.api().site("g-fails/production").unwrap();
    assert!(
        site.regions
            .iter()
            .all(|region| region.live.as_ref() == Some(&before))
    );

    // The release that went nowhere is fetched for a run by hand, and looked at on the edges of one region.
    let bad = release(&ended);
    let run = gate_run(&fleet, &bad, &["--region", region, "--gate", "home"]).with(3);
    let rows: Vec<&str> = run.stdout.lines().collect();
    let edges = fleet
        .edges()
        .filter(|(name, _)| name.as_str() == region)
        .count();
    assert_eq!(rows.len(), 1 + edges, "{rows:?}");
    assert!(
        rows[1..]
            .iter()
            .all(|row| row.contains("home") && row.contains("fail")),
        "{rows:?}"
    );
    fleet.all_answer(&host, "/", 200, Some(page("well done").as_bytes()));
}

#[test]
fn a_server_that_is_not_ready_yet_is_waited_for_and_one_that_never_is_ends_the_rollout() {
    let fleet = Fleet::shared();
    let server = Server::start();
    let gate = "\n[[gates]]\nname = \"api\"\nkind = \"http\"\nupstream = \"api\"\ninterval = \"100ms\"\ndeadline = \"30s\"\n";
    let folder = gated("waits", &format!("{}{gate}", server.upstream()));
    server.well.store(false, Ordering::SeqCst);
    let path = folder.path().to_str().unwrap().to_owned();
    let deploying = fleet
        .helix()
        .start(["deploy", &path, "--project", "g-waits"]);
    helix_tests::wait::until_true(
        "the candidate is prepared",
        helix_tests::fleet::REVIVE_LIMIT,
        || {
            let site = fleet.api().site("g-waits/production");
            site.is_some_and(|site| site.regions.iter().any(|region| region.candidate.is_some()))
        },
    );
    server.well.store(true, Ordering::SeqCst);
    let _ = helix_tests::command::finish(deploying).with(0);

    server.well.store(false, Ordering::SeqCst);
    let short = gate.replace("30s", "1s");
    let folder = gated("never", &format!("{}{short}", server.upstream()));
    let ended = fleet
        .deploy_to("g-waits", "production", folder.path())
        .with(3);
    ended.says(&["gate api: fail", "answered 503, wanted 2xx", "starting"]);
    fleet.all_answer(
        &fleet.host("g-waits"),
        "/",
        200,
        Some(page("waits").as_bytes()),
    );
}

#[test]
fn a_release_without_its_server_does_not_go_live_but_one_that_was_there_comes_back() {
    let fleet = Fleet::shared();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let toml = format!("[upstreams.api]\naddresses = [\"http://{nobody}\"]\n");
    let folder = gated("alone", &toml);
    let ended = fleet
        .deploy_to("g-alone", "production", folder.path())
        .with(3);
    ended.says(&[
        "gate upstream: fail",
        "upstream api takes no connection",
        &nobody.to_string(),
    ]);

    let listener = TcpListener::bind(nobody).unwrap();
    let first = fleet.deploy("g-alone", &folder);
    drop(listener);
    let _ = fleet.deploy("g-alone", &Folder::page("without"));
    let back = fleet
        .helix()
        .run(["rollback", "--project", "g-alone"])
        .with(0);
    drop(back);
    let site = fleet.api().site("g-alone/production").unwrap();
    assert!(
        site.regions
            .iter()
            .all(|region| region.live.as_ref() == Some(&first))
    );
    gate_run(&fleet, first.as_str(), &["--gate", "upstream"])
        .with(3)
        .says(&["takes no connection"]);
}

#[test]
fn gates_of_a_live_release_are_run_by_hand() {
    let fleet = Fleet::shared();
    let server = Server::start();
    let toml = format!(
        "{HOME}{}\n[[gates]]\nname = \"api\"\nkind = \"http\"\nupstream = \"api\"\ninterval = \"100ms\"\ndeadline = \"1s\"\n",
        server.upstream()
    );
    let live = fleet.deploy("g-hand", &gated("well done", &toml));
    let json: GateRunView = {
        let ended = gate_run(&fleet, live.as_str(), &["--json"]).with(0);
        serde_json::from_value(ended.json()).unwrap()
    };
    assert_eq!(
        (json.site.to_string(), &json.release),
        ("g-hand/production".to_owned(), &live)
    );
    assert_eq!(json.regions.len(), fleet.info.regions.len());
    let done = json.regions.iter().flat_map(|region| &region.done);
    assert_eq!(done.count(), fleet.edges().count());

    server.well.store(false, Ordering::SeqCst);
    let failed = gate_run(&fleet, live.as_str(), &["--gate", "api"]).with(3);
    failed.says(&["api", "answered 503, wanted 2xx", "starting"]);
    assert_eq!(failed.stdout.lines().count(), 1 + fleet.edges().count());
    let _ = gate_run(&fleet, live.as_str(), &["--gate", "home"]).with(0);

    for (arguments, words) in [
        (
            vec!["gate", "run", "0123456789abcdef0123"],
            "no site has a release 0123456789abcdef0123",
        ),
        (
            vec!["gate", "run", live.as_str(), "--region", "moon"],
            "no region moon",
        ),
        (
            vec!["gate", "run", live.as_str(), "--gate", "hom"],
            "no gate hom; it has artifact, certificate, upstream, home, api",
        ),
        (vec!["gate", "run", "main/1"], "a release id is 20"),
    ] {
        fleet.helix().run(arguments).with(1).says(&[words]);
    }
}

#[test]
fn gates_that_cannot_be_are_refused_at_their_line_and_nothing_is_uploaded() {
    let fleet = Fleet::shared();
    let head = "[upstreams.api]\naddresses = [\"http://127.0.0.1:9\"]\n\n[[gates]]\nname = \"a\"\n";
    for (toml, line, words) in [
        ("kind = \"udp\"\n", 6, "udp"),
        ("kind = \"http\"\npaht = \"/\"\n", 7, "paht"),
        ("kind = \"http\"\nstatus = [\"200\"]\n", 7, "no status"),
        ("kind = \"http\"\nbody = \"/[/\"\n", 7, "no pattern"),
        (
            "kind = \"http\"\nupstream = \"apo\"\n",
            7,
            "no [upstreams.apo]",
        ),
        ("kind = \"grpc\"\nupstream = \"api\"\n", 7, "http2"),
        ("kind = \"tcp\"\n", 4, "asks the servers of an upstream"),
        ("kind = \"http\"\ninterval = \"1 day\"\n", 7, "no time"),
        ("kind = \"http\"\nrise = 30\n", 4, "too short"),
        ("kind = \"exec\"\ncommand = []\n", 7, "a program"),
    ] {
        let folder = gated("broken", &format!("{head}{toml}"));
        let ended = fleet
            .deploy_to("g-broken", "production", folder.path())
            .with(1);
        ended.says(&[
            "nothing was uploaded",
            &format!("helix.toml:{line}: "),
            words,
        ]);
    }
    assert!(fleet.api().site("g-broken/production").is_none());
    // Whether anything runs commands only origin knows.
    let folder = gated(
        "commands",
        "[[gates]]\nname = \"db\"\nkind = \"exec\"\ncommand = [\"true\"]\n",
    );
    let ended = fleet
        .deploy_to("g-commands", "production", folder.path())
        .with(1);
    ended.says(&[
        "helix.toml:3: ",
        "gate db runs a command, which needs a runtime",
    ]);
}

#[test]
fn a_command_that_nothing_runs_is_an_error_and_not_a_pass() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options {
        settings: COMMANDS,
        ..Options::default()
    });
    let folder = gated(
        "commands",
        "[[gates]]\nname = \"db\"\nkind = \"exec\"\ncommand = [\"true\"]\n",
    );
    let ended = fleet
        .deploy_to("g-runs", "production", folder.path())
        .with(3);
    ended.says(&["gate db: error", "no runtime is configured on this edge"]);
}
