//! Starting again: a fleet on its folder, and an edge with nobody else there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use helix_tests::client::{Client, Request, Response};
use helix_tests::command::program;
use helix_tests::fleet::{EdgeInfo, Fleet, Options};
use helix_tests::folder::{Folder, page};
use helix_tests::wait;

use crate::own_fleet;

/// The goal is five seconds on an idle machine; other tests run beside this one.
const SECOND_START_LIMIT: Duration = Duration::from_secs(15);
/// From disk alone.
const EDGE_START_LIMIT: Duration = Duration::from_secs(10);

/// An edge without a supervisor. Its standard input stays open: the edge ends when its parent does.
struct Alone(Child);

impl Alone {
    fn start(config: &Path) -> Self {
        let child = Command::new(program("helix-edge"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // It has ended already, or it is to end now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(edge: &EdgeInfo, host: &str) -> Option<Response> {
    Client::of(&edge.http).send(Request::get(host, "/")).ok()
}

#[test]
fn an_edge_starts_and_serves_without_nats_and_origin() {
    let _turn = own_fleet();
    let mut fleet = Fleet::start(&Options::default());
    let _ = fleet.deploy("alone", &Folder::page("first"));
    let _ = fleet.deploy("alone", &Folder::page("kept"));
    let host = fleet.host("alone");
    let (_, edge) = fleet
        .edges()
        .next()
        .map(|(region, edge)| (region.clone(), edge.clone()))
        .unwrap();
    let before = ask(&edge, &host).unwrap();
    let config = fleet.config_file(edge.edge.as_str());
    fleet.stop();
    assert!(ask(&edge, &host).is_none(), "the fleet did not end");

    let alone = Alone::start(&config);
    let response = wait::until("the edge serves from its disk", EDGE_START_LIMIT, || {
        ask(&edge, &host).filter(|response| response.status == 200)
    });
    assert_eq!(response.text(), page("kept"));
    assert_eq!(
        response.header("x-helix-generation"),
        before.header("x-helix-generation")
    );
    wait::until_true("the edge says it is ready", EDGE_START_LIMIT, || {
        let ready = Client::of(&edge.admin).send(Request::get("admin", "/readyz"));
        ready.is_ok_and(|response| response.status == 200)
    });
    drop(alone);

    let started = Instant::now();
    fleet.start_again();
    let took = started.elapsed();
    assert!(took < SECOND_START_LIMIT, "a second start took {took:?}");
    fleet.all_answer(&host, "/", 200, Some(page("kept").as_bytes()));
    let _ = fleet.deploy("alone", &Folder::page("goes on"));
    fleet.all_answer(&host, "/", 200, Some(page("goes on").as_bytes()));
}

/// What an edge keeps of manifests, configs and indexes.
fn small_blobs(fleet: &Fleet, edge: &str) -> BTreeSet<PathBuf> {
    let config = fleet.config(edge);
    let data = Path::new(config["data_dir"].as_str().unwrap());
    let listed = std::fs::read_dir(data.join("store/meta")).unwrap();
    listed.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_was_live_before_is_served_where_what_is_live_is_not_on_disk() {
    let _turn = own_fleet();
    let mut fleet = Fleet::start(&Options::default());
    let _ = fleet.deploy("standin", &Folder::page("first"));
    let edge = fleet.edges().next().unwrap().1.clone();
    let before = small_blobs(&fleet, edge.edge.as_str());
    let _ = fleet.deploy("standin", &Folder::page("second"));
    let host = fleet.host("standin");
    let config = fleet.config_file(edge.edge.as_str());
    fleet.stop();
    // As if it had been away from origin when its record came.
    for blob in small_blobs(&fleet, edge.edge.as_str()).difference(&before) {
        std::fs::remove_file(blob).unwrap();
    }

    let alone = Alone::start(&config);
    let response = wait::until("the edge serves from its disk", EDGE_START_LIMIT, || {
        ask(&edge, &host).filter(|response| response.status == 200)
    });
    assert_eq!(response.text(), page("first"));
    let ready = Client::of(&edge.admin).send(Request::get("admin", "/readyz"));
    assert_eq!(ready.unwrap().status, 503);
    drop(alone);

    fleet.start_again();
    fleet.wait_until_whole();
    fleet.all_answer(&host, "/", 200, Some(page("second").as_bytes()));
}

#[test]
fn a_config_file_with_an_unknown_key_is_refused_by_its_name() {
    let fleet = Fleet::shared();
    for (program_name, config) in [("helix-edge", "fra-1"), ("helix-origin", "origin")] {
        let folder = Folder::empty();
        let text = std::fs::read_to_string(fleet.config_file(config)).unwrap();
        folder.write("odd.toml", format!("no_such_key = 1\n{text}").as_bytes());
        let output = Command::new(program(program_name))
            .arg("--config")
            .arg(folder.path().join("odd.toml"))
            .arg("--check")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{program_name} took it");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("no_such_key"), "{program_name}: {said}");
    }
}
