//! Three servers of which one is killed, and a region behind a leaf node that is cut off.

use std::fs;
use std::time::{Duration, Instant};

use helix_tests::command::finish;
use helix_tests::fleet::release_of;
use helix_tests::folder::Folder;
use helix_tests::wait;

use super::lets_in;
use super::servers::{Server, Way, address, filled, nats, port, quoted};
use super::world::{CATCH_UP, World, status};
use crate::own_fleet;

/// Within this after its leader was killed, a stream is written and followed again.
const FAIL_OVER: Duration = Duration::from_secs(10);

#[test]
fn a_cluster_of_three_loses_nothing_when_its_leader_is_killed_during_rollouts() {
    let _turn = own_fleet();
    let mut world = World::start(3, None);
    world.join("fra-1", "fra");
    world.join("iad-1", "iad");
    let _ = world.deploy("before").with(0);
    for stream in ["KV_g", "KV_r_fra", "OBJ_snap_g", "EVENTS"] {
        // Each is made when its turn comes.
        let replicas = wait::until(stream, CATCH_UP, || world.replicas(stream));
        assert_eq!(replicas, 3, "{stream}");
    }
    for round in 0..3 {
        let leader = wait::until("KV_r_fra has a leader", CATCH_UP, || {
            world.leader("KV_r_fra")
        });
        let folder = Folder::page(&format!("round {round}"));
        let path = folder.path().to_str().unwrap().to_owned();
        let deploying = world
            .helix
            .start(["deploy", &path, "--project", "shop", "--json"]);
        world.kill_server(leader);
        let killed = Instant::now();
        let release = release_of(&finish(deploying).with(0));
        for edge in &world.edges {
            wait::until_true(
                &format!("{} serves round {round}", edge.name),
                CATCH_UP,
                || {
                    edge.ask("shop.helix.localhost")
                        .is_some_and(|(status, served, _)| {
                            status == 200 && served == release.as_str()
                        })
                },
            );
        }
        said(&format!("round {round}: deployed"), killed);
        world.start_server(leader);
        wait::until_true("both edges follow to the end", CATCH_UP, || {
            ["fra-1", "iad-1"].iter().all(|name| world.follows(name))
        });
    }
    // Whoever joins now is known by all three.
    world.join("fra-2", "fra");
    let (.., page) = world.edge("fra-2").ask("shop.helix.localhost").unwrap();
    assert!(page.contains("round 2"), "{page}");
}

#[test]
fn writes_and_the_feed_go_on_within_ten_seconds_of_the_death_of_a_streams_leader() {
    let _turn = own_fleet();
    let mut world = World::start(3, None);
    world.join("fra-1", "fra");
    let _ = world.deploy("before").with(0);
    let mut in_time = 0;
    for round in 0..3 {
        let leader = wait::until("KV_g has a leader", CATCH_UP, || world.leader("KV_g"));
        world.kill_server(leader);
        let killed = Instant::now();
        let host = format!("www{round}.shop.example");
        let _ = world
            .helix
            .run(["domains", "add", &host, "--project", "shop"])
            .with(0);
        wait::until_true("fra-1 has the host", CATCH_UP, || {
            let asked = world.edge("fra-1").ask(&host);
            asked.is_some_and(|(status, ..)| status == 200)
        });
        said(
            &format!("round {round}: a host was added and followed"),
            killed,
        );
        in_time += usize::from(killed.elapsed() <= FAIL_OVER);
        world.start_server(leader);
        wait::until_true("fra-1 follows to the end", CATCH_UP, || {
            world.follows("fra-1")
        });
    }
    // An election begins 4 to 9 s after the last word of the leader, and may end in a draw.
    assert!(in_time >= 2, "{in_time} of 3 went on within {FAIL_OVER:?}");
}

#[test]
fn a_server_that_was_away_while_an_edge_was_removed_does_not_bring_it_back() {
    let _turn = own_fleet();
    let mut world = World::start(3, None);
    world.join("fra-1", "fra");
    world.join("fra-2", "fra");
    let credentials = fs::read_to_string(world.identity("fra-2", "nats.creds")).unwrap();
    for at in 0..3 {
        wait::until_true("fra-2 is known everywhere", CATCH_UP, || {
            lets_in(&world.nats_url(at), &credentials)
        });
    }
    world.kill_server(2);
    let _ = world
        .helix
        .run(["edge", "remove", "fra-2", "--yes", "--force"])
        .with(0);
    for at in 0..2 {
        wait::until_true("fra-2 is out", CATCH_UP, || {
            !lets_in(&world.nats_url(at), &credentials)
        });
    }
    world.start_server(2);
    let started = Instant::now();
    wait::until_true("fra-2 is out there, too", CATCH_UP, || {
        !lets_in(&world.nats_url(2), &credentials)
    });
    said("the server that was away keeps it out", started);
    // Long enough for servers to have told each other what they have.
    wait::pause(Duration::from_secs(12));
    let others = fs::read_to_string(world.identity("fra-1", "nats.creds")).unwrap();
    for at in 0..3 {
        assert!(!lets_in(&world.nats_url(at), &credentials), "server {at}");
        assert!(lets_in(&world.nats_url(at), &others), "server {at}");
    }
    assert!(world.listed("fra-2").is_none());
    assert!(world.follows("fra-1"));
}

/// The leaf node of `fra`, behind ways to the core that can be cut.
fn start_leaf(world: &mut World) -> Vec<Way> {
    let ways: Vec<Way> = world
        .servers
        .iter()
        .map(|server| Way::to(server.leafs))
        .collect();
    let core: Vec<String> = ways
        .iter()
        .map(|way| format!("\"nats://127.0.0.1:{}\"", way.port))
        .collect();
    let keys = world.folder.path().join("nats");
    let config = keys.join("leaf-fra.conf");
    let key = |name: &str| quoted(&keys.join(name).to_string_lossy());
    let values = [
        ("NODE", quoted("nats-fra-1")),
        ("CLIENTS", address(world.leaf_port)),
        ("MONITOR", address(port())),
        ("CORE", format!("[{}]", core.join(", "))),
        ("CREDENTIALS", key("leaf-fra.creds")),
        ("SYSTEM_CREDENTIALS", key("leaf-system.creds")),
        (
            "ACCOUNTS",
            quoted(&world.folder.path().join("data/leaf").to_string_lossy()),
        ),
    ];
    fs::write(&config, filled("leaf.conf", &values)).unwrap();
    let leaf = nats(&config, world.log("leaf"));
    world.servers.push(Server {
        name: "leaf".to_owned(),
        config,
        clients: world.leaf_port,
        monitor: 0,
        leafs: 0,
        child: Some(leaf),
    });
    ways
}

#[test]
fn a_region_whose_leaf_node_is_cut_off_serves_on_and_catches_up() {
    let _turn = own_fleet();
    let mut world = World::start(3, Some("fra"));
    let ways = start_leaf(&mut world);
    world.join("fra-1", "fra");
    world.join("fra-2", "fra");
    world.join("iad-1", "iad");
    let first = release_of(&world.deploy("first").with(0));
    ways.iter().for_each(|way| way.cut(true));
    wait::until_true("fra-1 is known to be cut off", CATCH_UP, || {
        world.listed("fra-1").unwrap()["live"] == false
    });
    let _ = world
        .helix
        .run(["domains", "add", "www.shop.example", "--project", "shop"])
        .with(0);
    wait::until_true("iad-1 has the host", CATCH_UP, || {
        world
            .edge("iad-1")
            .ask("www.shop.example")
            .is_some_and(|(status, ..)| status == 200)
    });
    let (status_code, served, _) = world.edge("fra-1").ask("shop.helix.localhost").unwrap();
    assert_eq!(
        (status_code, served.as_str()),
        (200, first.as_str()),
        "it serves on"
    );
    assert_eq!(
        world.edge("fra-1").ask("www.shop.example").unwrap().0,
        404,
        "it has not heard of it"
    );
    // Whoever is removed meanwhile is out once the leaf node is back.
    let credentials = fs::read_to_string(world.identity("fra-2", "nats.creds")).unwrap();
    let _ = world
        .helix
        .run(["edge", "remove", "fra-2", "--yes", "--force"])
        .with(0);
    ways.iter().for_each(|way| way.cut(false));
    let restored = Instant::now();
    wait::until_true("fra-1 has caught up", CATCH_UP, || {
        world
            .edge("fra-1")
            .ask("www.shop.example")
            .is_some_and(|(status, ..)| status == 200)
    });
    said("the leaf node is back and fra-1 has caught up", restored);
    wait::until_true("fra-1 is live again", CATCH_UP, || {
        world.listed("fra-1").unwrap()["live"] == true
    });
    wait::until_true("the leaf node keeps fra-2 out", CATCH_UP, || {
        !lets_in(&world.nats_url(3), &credentials)
    });
    said("the leaf node keeps fra-2 out", restored);
    let second = release_of(&world.deploy("second").with(0));
    let edge = world.edge("fra-1");
    assert_eq!(edge.ask("shop.helix.localhost").unwrap().1, second.as_str());
    assert_eq!(status(edge.admin, "/readyz"), Some(200));
}

/// For who runs this to see.
#[expect(clippy::print_stderr, reason = "a figure of the run")]
fn said(what: &str, since: Instant) {
    eprintln!("{what} after {:?}", since.elapsed());
}
