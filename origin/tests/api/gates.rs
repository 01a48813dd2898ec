//! Gates in a deployment, and runs of them by hand.

use std::time::Duration;

use helix_routing::api::DeploymentView;
use helix_routing::routes::Routes;
use serde_json::{Value, json};

use crate::world::{World, files, problem};

const GATES: &str = "[[gates]]\nname = \"home\"\nkind = \"http\"\ninitial_delay = \"5s\"\n";

async fn deployed(world: &World, rules: &str) -> DeploymentView {
    let site = files(&[("index.html", "page"), ("helix.toml", rules)]);
    let made = world.deploy("production", &site).await;
    made.json().await.unwrap()
}

#[tokio::test]
async fn gates_are_part_of_the_release_and_of_its_deadline() {
    let world = World::start().await;
    let plain = deployed(&world, "").await;
    let gated = deployed(&world, GATES).await;
    assert_ne!(plain.release, gated.release);
    let routes: Routes = world.app.artifacts.routes(&gated.artifact).await.unwrap();
    assert_eq!(routes.gates.len(), 1);
    let mut reader = world.app.store.reader().acquire().await.unwrap();
    for (made, patience) in [(plain, 0), (gated, 25)] {
        let found = helix_origin::gate::find(&mut reader, &made.release)
            .await
            .unwrap();
        assert_eq!(found.kept.gates, Duration::from_secs(patience));
        assert_eq!(found.site, made.site);
    }
}

#[tokio::test]
async fn a_command_is_refused_where_nothing_runs_it() {
    let mut world = World::start().await;
    let rules = "[[gates]]\nname = \"db\"\nkind = \"exec\"\ncommand = [\"true\"]\n";
    let site = files(&[("index.html", "page"), ("helix.toml", rules)]);
    let (status, kind, body) = problem(world.deploy("production", &site).await).await;
    assert_eq!((status, kind.as_str()), (422, "illegal-rules"));
    let detail = body["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("helix.toml:3: gates[0].kind: gate db"),
        "{detail}"
    );
    let artifacts = world.app.artifacts.clone().running_commands(true);
    world.serve_with(artifacts).await;
    assert_eq!(world.deploy("production", &site).await.status(), 200);
}

#[tokio::test]
async fn a_run_is_numbered_and_told_to_the_edges_of_its_regions() {
    let world = World::start().await;
    let made = deployed(&world, GATES).await;
    let path = format!("/v1/releases/{}/gates", made.release);
    let shown: Value = world.get(&path).await.json().await.unwrap();
    assert_eq!(shown["regions"], json!([]), "nobody has asked yet");
    for run in 1..=2 {
        let new = json!({ "regions": ["fra"], "gate": "home" });
        let told: Value = world.post(&path, &new).await.json().await.unwrap();
        let expected = json!({
            "site": "shop/production", "release": made.release, "patience_ms": 25_000,
            "regions": [{ "region": "fra", "run": run, "done": [], "waiting": ["fra-1"], "absent": [] }],
        });
        assert_eq!(told, expected);
        let shown: Value = world.get(&path).await.json().await.unwrap();
        assert_eq!(shown, expected);
    }
    // A run of another release of the site takes its place.
    let other = deployed(&world, "").await;
    let other = format!("/v1/releases/{}/gates", other.release);
    let told: Value = world.post(&other, &json!({})).await.json().await.unwrap();
    assert_eq!(told["regions"][0]["run"], 3);
    let shown: Value = world.get(&path).await.json().await.unwrap();
    assert_eq!(shown["regions"], json!([]));
}

#[tokio::test]
async fn a_run_of_what_is_not_there_is_refused() {
    let world = World::start().await;
    let made = deployed(&world, GATES).await;
    let path = format!("/v1/releases/{}/gates", made.release);
    let unknown = "/v1/releases/0123456789abcdef0123/gates";
    for (path, new, status, kind) in [
        (unknown, json!({}), 404, "unknown-release"),
        (
            path.as_str(),
            json!({ "regions": ["moon"] }),
            404,
            "unknown-region",
        ),
        (&path, json!({ "gate": "hom" }), 404, "unknown-gate"),
        (&path, json!({ "gates": "home" }), 422, "bad-request"),
    ] {
        let refused = problem(world.post(path, &new).await).await;
        assert_eq!((refused.0, refused.1.as_str()), (status, kind), "{new}");
    }
    assert_eq!(problem(world.get(unknown).await).await.1, "unknown-release");
    let read = world.token("read").await;
    let refused = reqwest::Client::new()
        .post(format!("http://{}{path}", world.address))
        .bearer_auth(read)
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(problem(refused).await.1, "forbidden");
}
