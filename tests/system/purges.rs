//! Responses of an upstream, kept by every edge of a real fleet, and forgotten when the fleet is told so.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use helix_routing::id::RegionId;
use helix_tests::client::{Client, Request};
use helix_tests::fleet::{EdgeInfo, Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::Folder;
use helix_tests::wait;

use crate::own_fleet;

/// With no room in memory, what is kept is on disk at once.
const ON_DISK: &[(&str, &str)] = &[("HELIX_EDGE_RESPONSE_CACHE__MEMORY_BYTES", "1")];

/// A server that says how often it was asked, and lets that be kept.
fn counter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = Arc::clone(&asked);
            thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                let mut heads = BufReader::new(stream).lines();
                // One answer for each empty line: no request here has a body.
                while let Some(Ok(line)) = heads.next() {
                    if line.is_empty() {
                        let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
                        let body = format!("answer {number}");
                        let length = body.len();
                        let sent = format!(
                            "HTTP/1.1 200 OK\r\ncache-control: max-age=600\r\ncache-tag: news\r\n\
                             content-length: {length}\r\n\r\n{body}"
                        );
                        if out.write_all(sent.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    addr
}

/// A site whose `/api/*` is answered by `addr` and kept.
fn kept(addr: SocketAddr) -> Folder {
    let toml = format!(
        "[upstreams.api]\naddresses = [\"http://{addr}\"]\n\n\
         [[forward]]\npath = \"/api/*\"\nupstream = \"api\"\ncache = true\n"
    );
    Folder::page("kept").with("helix.toml", toml.as_bytes())
}

/// What each edge answers.
fn answers(fleet: &Fleet, target: &str) -> Vec<String> {
    let host = fleet.host("kept");
    let edges = fleet.edges();
    edges
        .map(|(_, edge)| answer(fleet, edge, &host, target))
        .collect()
}

fn answer(fleet: &Fleet, edge: &EdgeInfo, host: &str, target: &str) -> String {
    let answer = fleet.ask(edge, host, target);
    assert_eq!(answer.status, 200, "{}", edge.edge);
    answer.text()
}

fn purge(fleet: &Fleet, what: &[&str]) -> serde_json::Value {
    let arguments = ["purge", "--project", "kept", "--json"];
    fleet
        .helix()
        .run(arguments.iter().chain(what))
        .with(0)
        .json()
}

/// Waits until the response that `edge` keeps is on its disk.
fn until_on_disk(fleet: &Fleet, edge: &EdgeInfo, host: &str) {
    wait::until_true("the response is on disk", REVIVE_LIMIT, || {
        // Memory tidies itself up when it is asked.
        let _ = answer(fleet, edge, host, "/api/a");
        knows_of_its_disk(edge)
    });
}

/// Whether `edge` says that it keeps something on disk.
fn knows_of_its_disk(edge: &EdgeInfo) -> bool {
    let mut client = Client::of(&edge.admin);
    let Ok(shown) = client.send(Request::get("admin", "/metrics")) else {
        return false;
    };
    let text = shown.text();
    let line = text
        .lines()
        .find(|line| line.starts_with("helix_edge_cache_disk_entries"));
    line.is_some_and(|line| !line.ends_with(" 0"))
}

fn kill_and_revive(fleet: &Fleet, edge: &EdgeInfo) {
    let name = edge.edge.to_string();
    let before = fleet.kill(&name);
    fleet.wait_for_successor(&name, before);
    // Origin takes it for live until its lease ends, whether it answers already or not.
    wait::until_true("it answers again", REVIVE_LIMIT, || {
        let host = fleet.host("kept");
        let request = Request::get(&host, "/");
        Client::of(&edge.http).send(request).is_ok()
    });
    fleet.wait_until_whole();
}

#[test]
fn a_purge_reaches_every_edge_of_its_regions_and_says_so() {
    let fleet = Fleet::shared();
    let _ = fleet.deploy("kept", &kept(counter()));
    let first = answers(&fleet, "/api/a");
    assert_eq!(answers(&fleet, "/api/a"), first);

    let told = purge(&fleet, &["--tag", "news"]);
    for region in told["regions"].as_array().unwrap() {
        let edges = fleet
            .edges()
            .filter(|(name, _)| region["region"] == name.as_str());
        assert_eq!(
            region["confirmed"].as_array().unwrap().len(),
            edges.count(),
            "{told}"
        );
        assert_eq!(region["purge"], 1);
    }
    let second = answers(&fleet, "/api/a");
    assert!(first.iter().all(|old| !second.contains(old)), "{second:?}");

    // One region, one URL: the other region and the other URL stay.
    let other = answers(&fleet, "/api/b");
    let regions: Vec<RegionId> = fleet.info.regions.keys().cloned().collect();
    let url = format!("http://{}/api/a", fleet.host("kept"));
    let _ = purge(&fleet, &["--url", &url, "--region", regions[0].as_str()]);
    let third = answers(&fleet, "/api/a");
    for (at, (region, edge)) in fleet.edges().enumerate() {
        assert_eq!(
            third[at] == second[at],
            *region != regions[0],
            "{}",
            edge.edge
        );
    }
    assert_eq!(answers(&fleet, "/api/b"), other);

    // What nothing could fit is refused by name.
    let refused = ["purge", "--project", "kept", "--url", "/api/a"];
    fleet
        .helix()
        .run(refused)
        .with(1)
        .says(&["/api/a", "no scheme"]);
    let refused = [
        "purge",
        "--project",
        "kept",
        "--tag",
        "x",
        "--region",
        "moon",
    ];
    fleet.helix().run(refused).with(1).says(&["moon"]);
}

#[test]
fn a_killed_edge_keeps_what_is_fresh_and_never_what_was_purged() {
    let _turn = own_fleet();
    let fleet = Fleet::start(&Options {
        settings: ON_DISK,
        ..Options::default()
    });
    let _ = fleet.deploy("kept", &kept(counter()));
    let host = fleet.host("kept");
    let (_, edge) = fleet.edges().next().unwrap();
    let first = answer(&fleet, edge, &host, "/api/a");
    until_on_disk(&fleet, edge, &host);
    kill_and_revive(&fleet, edge);
    // Until then a request is a miss, whose response takes the place of what was kept.
    wait::until_true("what was kept is known again", REVIVE_LIMIT, || {
        knows_of_its_disk(edge)
    });
    let found = fleet.ask(edge, &host, "/api/a");
    assert_eq!(found.text(), first);
    let status = found.header("cache-status").unwrap_or_default();
    assert!(status.contains("hit"), "{status}");
    let _ = purge(&fleet, &["--everything"]);
    kill_and_revive(&fleet, edge);
    for _ in 0..3 {
        assert_ne!(answer(&fleet, edge, &host, "/api/a"), first);
    }
}
