//! What releases were made of, as their builds say: kept beside the artifact, shown, and gone with it.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::forge::{commit, json_of};
use crate::world::{World, files};

const BILL: &str = "application/vnd.cyclonedx+json";

impl World {
    async fn built_of(&self, materials: &Value, page: &str) -> (StatusCode, Value) {
        let (secret, worker) = (self.link(json!({})).await, self.token("build").await);
        let build = self.push(&secret, &commit('0'), &commit('a')).await;
        json_of(self.claim(&worker, &build, "w").await).await;
        let page = files(&[("index.html", page)]);
        let ended = self
            .succeed_with(&worker, &build, "w", &page, materials)
            .await;
        let status = ended.status();
        let view = self.get(&format!("/v1/builds/{build}")).await;
        (status, json_of(view).await)
    }

    async fn newest(&self) -> Value {
        let path = "/v1/projects/shop/releases?environment=production";
        json_of(self.get(path).await).await[0].clone()
    }
}

#[tokio::test]
async fn a_bill_is_a_referrer_of_the_artifact_and_is_shown_as_it_came() {
    let world = World::start().await;
    let bill =
        json!({ "bomFormat": "CycloneDX", "specVersion": "1.6", "components": [] }).to_string();
    let (status, build) = world.built_of(&json!(bill), "made").await;
    assert!(status.is_success(), "{build}");
    let release = world.newest().await;
    let (id, artifact) = (
        release["release"].as_str().unwrap(),
        release["artifact"].as_str().unwrap(),
    );
    let shown = world.get(&format!("/v1/releases/{id}/materials")).await;
    assert_eq!(shown.headers()["content-type"], BILL);
    assert_eq!(shown.text().await.unwrap(), bill);

    let listed = world
        .get(&format!(
            "/v2/shop/referrers/{artifact}?artifactType={BILL}"
        ))
        .await;
    let listed = json_of(listed).await["manifests"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let digest = listed[0]["digest"].as_str().unwrap();
    let manifest = world.get(&format!("/v2/shop/manifests/{digest}")).await;
    let manifest = json_of(manifest).await;
    assert_eq!(manifest["subject"]["digest"], artifact);
    assert_eq!(manifest["artifactType"], BILL);
    let blob = manifest["layers"][0]["digest"].as_str().unwrap();
    let blob = world.get(&format!("/v2/shop/blobs/{blob}")).await;
    assert_eq!(blob.text().await.unwrap(), bill);
}

/// The release of the preview of pull request 42, built with that bill.
async fn preview_of(world: &World, secret: &str, head: &str, bill: &Value) -> Value {
    let (build, worker) = (world.opened(secret, head).await, world.token("build").await);
    json_of(world.claim(&worker, &build, "w").await).await;
    let page = files(&[("index.html", head)]);
    let ended = world.succeed_with(&worker, &build, "w", &page, bill).await;
    json_of(ended).await;
    let path = "/v1/projects/shop/releases?environment=preview/42";
    json_of(world.get(path).await).await[0].clone()
}

#[tokio::test]
async fn a_promoted_release_has_the_bill_of_what_it_was_promoted_from() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let bill = json!({ "bomFormat": "CycloneDX", "components": [] }).to_string();
    let preview = preview_of(&world, &secret, &commit('a'), &json!(bill)).await;
    let wanted = json!({ "release": preview["release"], "override_reason": "it is late" });
    let path = "/v1/projects/shop/promotions";
    let promoted = json_of(world.post(path, &wanted).await).await;
    assert_ne!(promoted["artifact"], preview["artifact"]);
    let id = promoted["release"].as_str().unwrap();
    let shown = world.get(&format!("/v1/releases/{id}/materials")).await;
    assert_eq!(shown.headers()["content-type"], BILL);
    assert_eq!(shown.text().await.unwrap(), bill);

    let artifact = promoted["artifact"].as_str().unwrap();
    let path = format!("/v2/shop/referrers/{artifact}?artifactType={BILL}");
    let listed = json_of(world.get(&path).await).await["manifests"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let path = format!(
        "/v2/shop/manifests/{}",
        listed[0]["digest"].as_str().unwrap()
    );
    let manifest = json_of(world.get(&path).await).await;
    assert_eq!(manifest["subject"]["digest"], artifact);
    let environment = &manifest["annotations"]["dev.helixstack.environment"];
    assert_eq!(environment, "production", "{manifest}");

    // Nothing is made up where the preview has none.
    let none = preview_of(&world, &secret, &commit('b'), &Value::Null).await;
    let wanted = json!({ "release": none["release"], "override_reason": "it is late" });
    let promoted = json_of(world.post("/v1/projects/shop/promotions", &wanted).await).await;
    let path = format!(
        "/v1/releases/{}/materials",
        promoted["release"].as_str().unwrap()
    );
    assert_eq!(world.get(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_no_bill_fails_the_build_and_without_one_there_is_none() {
    let world = World::start().await;
    let (_, build) = world
        .built_of(&json!("{\"bomFormat\": \"SPDX\"}"), "made")
        .await;
    assert_eq!(build["state"], "failed", "{build}");
    assert!(build.to_string().contains("bill of materials"), "{build}");

    let world = World::start().await;
    let (status, build) = world.built_of(&Value::Null, "made").await;
    assert!(status.is_success(), "{build}");
    let release = world.newest().await;
    let path = format!(
        "/v1/releases/{}/materials",
        release["release"].as_str().unwrap()
    );
    assert_eq!(world.get(&path).await.status(), StatusCode::NOT_FOUND);
    crate::schema::events_fit(&world.app.store).await;
}
