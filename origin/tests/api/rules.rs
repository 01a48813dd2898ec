//! Rules in a deployment: compiled, carried, never served.

use helix_routing::api::DeploymentView;
use helix_routing::artifact::{Manifest, ReleaseConfig};
use helix_routing::routes::{HtmlHandling, Routes};
use serde_json::Value;

use super::world::{World, files, problem};

const RULES: &str = "[static]\nhtml_handling = \"none\"\n";

async fn deployed(world: &World, site: &[(&str, &str)]) -> DeploymentView {
    let made = world.deploy("production", &files(site)).await;
    made.json().await.unwrap()
}

async fn config(world: &World, view: &DeploymentView) -> ReleaseConfig {
    let manifest: Manifest = world
        .get(&format!("/v2/shop/manifests/{}", view.artifact))
        .await
        .json()
        .await
        .unwrap();
    world
        .get(&format!("/v2/shop/blobs/{}", manifest.config.digest))
        .await
        .json()
        .await
        .unwrap()
}

#[tokio::test]
async fn rules_are_part_of_the_release_and_not_of_its_files() {
    let world = World::start().await;
    let plain = deployed(&world, &[("index.html", "hi")]).await;
    let ruled = deployed(&world, &[("index.html", "hi"), ("helix.toml", RULES)]).await;
    assert_ne!(plain.release, ruled.release);
    assert_eq!(config(&world, &plain).await.routes, Routes::default());
    let routes = config(&world, &ruled).await.routes;
    assert_eq!(routes.html_handling, HtmlHandling::None);
    let index = world.app.artifacts.index(&ruled.artifact).await.unwrap();
    assert_eq!(index.files.keys().collect::<Vec<_>>(), ["index.html"]);

    // The same rules in other words are the same release; rules that say nothing are none.
    let again = format!("# a word\n{RULES}");
    let again = deployed(&world, &[("index.html", "hi"), ("helix.toml", &again)]).await;
    assert_eq!(again.release, ruled.release);
    let nothing = deployed(&world, &[("index.html", "hi"), ("helix.toml", "# nothing")]).await;
    assert_eq!(nothing.release, plain.release);

    let releases: Value = world
        .get("/v1/projects/shop/releases")
        .await
        .json()
        .await
        .unwrap();
    let with_rules = releases
        .as_array()
        .unwrap()
        .iter()
        .filter(|release| release["routes"].is_string());
    assert_eq!(with_rules.count(), 1);
}

#[tokio::test]
async fn rules_that_cannot_be_compiled_are_refused_with_file_and_line() {
    let world = World::start().await;
    let site = files(&[
        ("index.html", "hi"),
        ("helix.toml", "[static]\nhtml_handlin = 1\n"),
    ]);
    let (status, kind, body) = problem(world.deploy("production", &site).await).await;
    assert_eq!((status, kind.as_str()), (422, "illegal-rules"));
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.starts_with("helix.toml:2: "), "{detail}");
    assert!(detail.contains("html_handlin"), "{detail}");
}
