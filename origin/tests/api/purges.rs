//! Purges of what edges keep.

use serde_json::{Value, json};

use crate::world::{World, files, problem};

const PURGES: &str = "/v1/projects/shop/purges";

#[tokio::test]
async fn a_purge_is_numbered_told_to_the_edges_and_noted() {
    let world = World::start().await;
    let _ = world
        .deploy("production", &files(&[("index.html", "page")]))
        .await;
    let purge = json!({
        "environment": "production", "urls": ["https://shop.example/a"], "tags": ["news"], "stale": true,
    });
    for number in 1..=2 {
        let told: Value = world.post(PURGES, &purge).await.json().await.unwrap();
        let expected = json!({
            "site": "shop/production",
            "regions": [{
                "region": "fra", "purge": number, "confirmed": [], "waiting": ["fra-1"], "absent": [],
            }],
        });
        assert_eq!(told, expected);
        let shown: Value = world.get(PURGES).await.json().await.unwrap();
        assert_eq!(shown, expected);
    }
}

#[tokio::test]
async fn a_purge_that_can_mean_nothing_is_refused() {
    let world = World::start().await;
    let purge = json!({ "environment": "production" });
    assert_eq!(
        problem(world.post(PURGES, &purge).await).await.1,
        "unknown-project"
    );
    let _ = world
        .deploy("production", &files(&[("index.html", "page")]))
        .await;
    let many = vec!["x"; 31];
    for (purge, status, kind) in [
        (
            json!({ "environment": "production", "urls": ["/a"] }),
            422,
            "illegal-purge",
        ),
        (
            json!({ "environment": "production", "tags": [""] }),
            422,
            "illegal-purge",
        ),
        (
            json!({ "environment": "production", "tags": many }),
            422,
            "illegal-purge",
        ),
        (
            json!({ "environment": "production", "regions": ["moon"] }),
            404,
            "unknown-region",
        ),
        (
            json!({ "environment": "production", "tag": "x" }),
            422,
            "bad-request",
        ),
        (json!({ "environment": "preview/9" }), 404, "unknown-site"),
    ] {
        let refused = problem(world.post(PURGES, &purge).await).await;
        assert_eq!((refused.0, refused.1.as_str()), (status, kind), "{purge}");
    }
    let shown: Value = world.get(PURGES).await.json().await.unwrap();
    assert_eq!(shown["regions"], json!([]));
    let read = world.token("read").await;
    let refused = reqwest::Client::new()
        .post(format!("http://{}{PURGES}", world.address))
        .bearer_auth(read)
        .json(&json!({ "environment": "production" }))
        .send()
        .await
        .unwrap();
    assert_eq!(problem(refused).await.1, "forbidden");
}
