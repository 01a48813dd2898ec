//! Edges that join by a token, on NATS as `deploy/nats` sets it up: one server, a cluster of three, a region with a leaf node.

mod attack;
mod certificates;
mod refusals;
mod servers;
mod topology;
mod workers;
mod world;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use helix_tests::api::Api;
use helix_tests::command::Helix;
use helix_tests::fleet::release_of;
use helix_tests::wait;

use self::world::{CATCH_UP, OTHER_ORIGIN, World};
use crate::own_fleet;

/// It gets what edges need, and sees nothing else.
fn may_do_what_edges_may(edge: &Helix) {
    let asked = Api {
        url: edge.api.clone(),
        token: edge.token.clone(),
    };
    let _: serde_json::Value = asked.get("/v1/visitor-key");
    edge.run(["status", "--project", "shop"])
        .with(1)
        .says(&["may not do this: it needs the role read"]);
}

/// Whether a server of NATS lets in who shows these credentials.
fn lets_in(url: &str, credentials: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = async_nats::ConnectOptions::with_credentials(credentials).unwrap();
        let connected = options
            .connection_timeout(Duration::from_secs(5))
            .connect(url)
            .await;
        connected.is_ok()
    })
}

fn is_for_its_owner_alone(identity: &Path) {
    for entry in fs::read_dir(identity).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

/// An edge that joined knows the origins that it has not asked, too.
fn knows_the_other_origin(world: &World, config: &Path) {
    let config = fs::read_to_string(config).unwrap();
    let known: toml::Table = toml::from_str(&config).unwrap();
    assert_eq!(known["origin"]["url"].as_str(), Some(&*world.helix.api));
    let others = known["origin"]["others"].as_array().unwrap();
    assert_eq!(others, &[toml::Value::from(OTHER_ORIGIN)], "{config}");
}

#[test]
fn an_edge_joins_by_a_token_serves_and_is_out_once_it_is_removed() {
    let _turn = own_fleet();
    let mut world = World::start(1, None);
    world.join("fra-1", "fra");
    world.join("iad-1", "iad");
    let release = release_of(&world.deploy("joined").with(0));
    for edge in &world.edges {
        let (status, served, _) = edge.ask("shop.helix.localhost").unwrap();
        assert_eq!(
            (status, served.as_str()),
            (200, release.as_str()),
            "{}",
            edge.name
        );
    }
    let identity = world.folder.path().join("edges/fra-1/identity");
    is_for_its_owner_alone(&identity);
    knows_the_other_origin(&world, &identity.with_file_name("edge.toml"));
    assert!(world.listed("fra-1").unwrap()["certificate_until"].is_u64());

    // With the same folder nobody joins twice, and nobody takes a name that somebody has.
    let token = world.token(&["--region", "fra"]);
    let (again, ..) = world.try_join("fra-1", identity.parent().unwrap(), &token, &[]);
    again.with(1).says(&["an edge has joined with this folder"]);
    let elsewhere = world.folder.path().join("edges/other");
    let (taken, ..) = world.try_join("fra-1", &elsewhere, &token, &[]);
    taken.with(1).says(&["there is an edge fra-1 already"]);

    // Removed, it is cut off at once. It serves on, and what it says counts no more.
    let read = |name: &str| fs::read_to_string(world.identity("fra-1", name)).unwrap();
    let (credentials, artifacts) = (read("nats.creds"), read("artifacts.token"));
    let reader = Helix {
        api: world.helix.api.clone(),
        token: artifacts.trim().to_owned(),
    };
    assert!(lets_in(&world.nats_url(0), &credentials));
    may_do_what_edges_may(&reader);
    let _ = world
        .helix
        .run(["edge", "remove", "fra-1", "--yes", "--force"])
        .with(0);
    let log = world.folder.path().join("log/fra-1.log");
    wait::until_true("fra-1 is cut off", CATCH_UP, || {
        fs::read_to_string(&log)
            .unwrap()
            .to_lowercase()
            .contains("authorization violation")
    });
    assert!(!lets_in(&world.nats_url(0), &credentials));
    reader
        .run(["status", "--project", "shop"])
        .with(1)
        .says(&["the token is not known, or was revoked"]);
    assert_eq!(
        world.edge("fra-1").ask("shop.helix.localhost").unwrap().0,
        200
    );
    assert!(world.listed("fra-1").is_none());

    // Under the same name comes another edge, with a token of its own. The one before stays out, also once everything is told again.
    let (ended, ..) = world.try_join("fra-1", &elsewhere, &token, &[]);
    ended.with(0).says(&["fra-1 is in the fleet"]);
    assert!(world.listed("fra-1").is_some());
    let successor = fs::read_to_string(elsewhere.join("identity/nats.creds")).unwrap();
    world.kill_server(0);
    world.start_server(0);
    wait::until_true("the other fra-1 is let in", CATCH_UP, || {
        lets_in(&world.nats_url(0), &successor)
    });
    assert!(!lets_in(&world.nats_url(0), &credentials));
    let audit = world.helix.run(["audit", "--json"]).with(0).stdout;
    for act in ["edge.token.create", "edge.join", "edge.remove"] {
        assert!(audit.contains(act), "{act} is not in {audit}");
    }
    assert!(!audit.contains(&token), "the audit log has a secret");
}
