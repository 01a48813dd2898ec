//! Projects and their hosts.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, problem};

#[tokio::test]
async fn a_host_belongs_to_one_project() {
    let world = World::start().await;
    for project in ["shop", "other"] {
        world
            .post(
                &format!("/v1/projects/{project}/uploads"),
                &json!({ "contents": [] }),
            )
            .await;
    }
    let add = async |project: &str, host: &str| {
        world
            .post(
                &format!("/v1/projects/{project}/domains"),
                &json!({ "host": host, "environment": "production" }),
            )
            .await
    };
    let added: Value = add("shop", "WWW.Example.com").await.json().await.unwrap();
    assert_eq!(
        (&added["host"], &added["site"]),
        (&json!("www.example.com"), &json!("shop/production"))
    );
    let (status, kind, body) = problem(add("other", "www.example.com").await).await;
    assert_eq!((status, kind.as_str()), (409, "host-taken"));
    assert!(!body["title"].as_str().unwrap().contains("shop"), "{body}");
    assert_eq!(add("other", "*.example.com").await.status(), StatusCode::OK);
    assert_eq!(
        problem(add("shop", "x.helix.localhost").await).await.1,
        "under-base-domain"
    );
    assert_eq!(problem(add("shop", "no spaces.example").await).await.0, 422);
    assert_eq!(
        problem(add("nobody", "free.example").await).await.1,
        "unknown-project"
    );
    let remove = "/v1/projects/shop/domains/www.example.com";
    assert_eq!(
        world
            .request(Method::DELETE, remove)
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        problem(world.request(Method::DELETE, remove).send().await.unwrap())
            .await
            .0,
        404
    );
    assert_eq!(
        add("other", "www.example.com").await.status(),
        StatusCode::OK
    );
    crate::schema::events_fit(&world.app.store).await;
}

#[tokio::test]
async fn a_deleted_project_keeps_its_name_and_can_be_restored() {
    let world = World::start().await;
    world
        .post("/v1/projects/shop/uploads", &json!({ "contents": [] }))
        .await;
    let delete = world
        .request(Method::DELETE, "/v1/projects/shop")
        .send()
        .await
        .unwrap();
    let view: Value = delete.json().await.unwrap();
    assert!(view["purge_at"].is_u64());
    let upload = world
        .post("/v1/projects/shop/uploads", &json!({ "contents": [] }))
        .await;
    assert_eq!(problem(upload).await.1, "project-deleted");
    let view: Value = world
        .post("/v1/projects/shop/restore", &json!({}))
        .await
        .json()
        .await
        .unwrap();
    assert!(view["purge_at"].is_null());
    assert_eq!(
        world
            .post("/v1/projects/shop/uploads", &json!({ "contents": [] }))
            .await
            .status(),
        StatusCode::OK
    );
    assert_eq!(
        problem(world.post("/v1/projects/shop/restore", &json!({})).await)
            .await
            .1,
        "project-not-deleted"
    );
    assert!(world.folder.path().join("registry/oci-layout").exists());
    crate::schema::events_fit(&world.app.store).await;
}
