//! Holds, quarantines, and the log of who did what.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, deployment, files, problem};

const DEPLOYMENTS: &str = "/v1/projects/shop/deployments";
const HOLDS: &str = "/v1/projects/shop/holds";

async fn deployed(world: &World, text: &str) -> Value {
    let page = files(&[("index.html", text)]);
    world
        .deploy("production", &page)
        .await
        .json()
        .await
        .unwrap()
}

async fn automatic(world: &World, text: &str) -> reqwest::Response {
    let page = files(&[("index.html", text)]);
    let mut new = deployment("production", &page);
    new["automatic"] = json!(true);
    world.post(DEPLOYMENTS, &new).await
}

async fn actions(world: &World, query: &str) -> Vec<String> {
    let page: Value = world
        .get(&format!("/v1/audit?{query}"))
        .await
        .json()
        .await
        .unwrap();
    let entries = page["entries"].as_array().unwrap().iter();
    entries
        .map(|entry| entry["action"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_held_region_is_left_alone_by_automatic_deployments_and_freed_by_manual_ones() {
    let world = World::start().await;
    deployed(&world, "one").await;
    let new =
        json!({ "environment": "production", "reason": "sale until Monday", "ttl_ms": 3_600_000 });
    let set: Value = world.post(HOLDS, &new).await.json().await.unwrap();
    assert_eq!(set["holds"][0]["region"], "fra");
    assert_eq!(set["running"].as_array().unwrap().len(), 1, "{set}");
    let listed: Value = world
        .get("/v1/holds?project=shop")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(listed[0]["hold"]["reason"], "sale until Monday");
    assert_eq!(listed[0]["hold"]["by"], "bootstrap");
    assert!(listed[0]["hold"]["until"].is_number());
    let other: Value = world
        .get("/v1/holds?project=other")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(other, json!([]));
    let status: Value = world.get("/v1/status").await.json().await.unwrap();
    let region = &status["sites"][0]["regions"][0];
    assert_eq!(region["hold"]["reason"], "sale until Monday");

    let (status, kind, body) = problem(automatic(&world, "one").await).await;
    assert_eq!((status, kind.as_str()), (409, "held"));
    let title = body["title"].as_str().unwrap();
    assert!(title.contains("fra: sale until Monday"), "{title}");

    let by_hand = deployed(&world, "one").await;
    assert_eq!(by_hand["held"], json!(["fra"]));
    let listed: Value = world.get("/v1/holds").await.json().await.unwrap();
    assert_eq!(listed, json!([]));
    let free: Value = automatic(&world, "one").await.json().await.unwrap();
    assert_eq!((&free["held"], &free["skipped"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn a_hold_is_lifted_by_hand_and_ends_by_itself() {
    let world = World::start().await;
    deployed(&world, "one").await;
    let new = json!({ "reason": "look first" });
    let _ = world.post(HOLDS, &new).await;
    let clear = format!("{HOLDS}/clear");
    let lifted: Value = world.post(&clear, &json!({})).await.json().await.unwrap();
    assert_eq!(lifted["holds"][0]["hold"]["reason"], "look first");
    let again: Value = world.post(&clear, &json!({})).await.json().await.unwrap();
    assert_eq!(again["holds"], json!([]));

    let short = json!({ "reason": "a moment", "ttl_ms": 1000 });
    let _ = world.post(HOLDS, &short).await;
    assert_eq!(problem(automatic(&world, "one").await).await.1, "held");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while helix_origin::hold::expire(&world.app.store).await.unwrap() == 0 {
        assert!(std::time::Instant::now() < deadline, "it does not end");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(automatic(&world, "one").await.status(), 200);
    assert_eq!(
        actions(&world, "action=hold").await,
        ["hold.expire", "hold.set", "hold.clear", "hold.set"]
    );
    crate::schema::events_fit(&world.app.store).await;
}

#[tokio::test]
async fn holds_that_mean_nothing_are_refused() {
    let world = World::start().await;
    let hold = json!({ "reason": "x" });
    assert_eq!(
        problem(world.post(HOLDS, &hold).await).await.1,
        "unknown-project"
    );
    deployed(&world, "one").await;
    for (new, status, kind) in [
        (json!({ "reason": " " }), 422, "illegal-reason"),
        (json!({ "reason": "a\nb" }), 422, "illegal-reason"),
        (json!({ "reason": "x".repeat(501) }), 422, "illegal-reason"),
        (json!({}), 422, "bad-request"),
        (json!({ "reason": "x", "ttl_ms": 0 }), 422, "illegal-ttl"),
        (
            json!({ "reason": "x", "regions": ["moon"] }),
            404,
            "unknown-region",
        ),
        (
            json!({ "reason": "x", "environment": "preview/3" }),
            404,
            "unknown-site",
        ),
    ] {
        let refused = problem(world.post(HOLDS, &new).await).await;
        assert_eq!((refused.0, refused.1.as_str()), (status, kind), "{new}");
    }
    let listed: Value = world.get("/v1/holds").await.json().await.unwrap();
    assert_eq!(listed, json!([]));
}

#[tokio::test]
async fn a_quarantined_release_is_deployed_only_with_the_word_until_that_is_lifted() {
    let world = World::start().await;
    let release = deployed(&world, "one").await["release"].clone();
    let release = release.as_str().unwrap();
    let quarantine = format!("/v1/releases/{release}/quarantine");
    let why = json!({ "reason": "it leaks" });
    let marked: Value = world.post(&quarantine, &why).await.json().await.unwrap();
    assert_eq!(
        (&marked[0]["region"], &marked[0]["live"]),
        (&json!("fra"), &json!(false))
    );
    let listed: Value = world.get("/v1/quarantines").await.json().await.unwrap();
    assert_eq!(listed, marked);
    let page = files(&[("index.html", "one")]);
    assert_eq!(
        problem(world.deploy("production", &page).await).await.1,
        "quarantined"
    );
    let mut both = deployment("production", &page);
    both["automatic"] = json!(true);
    both["lift_quarantine"] = json!(true);
    assert_eq!(
        problem(world.post(DEPLOYMENTS, &both).await).await.1,
        "automatic-lift"
    );

    let lift = format!("/v1/releases/{release}/unquarantine");
    let lifted: Value = world.post(&lift, &why).await.json().await.unwrap();
    assert_eq!(lifted[0]["reason"], "it leaks");
    deployed(&world, "one").await;
    let unknown = "/v1/releases/00000000000000000000/quarantine";
    assert_eq!(
        problem(world.post(unknown, &why).await).await.1,
        "unknown-release"
    );
    let nowhere = json!({ "reason": "x", "regions": ["moon"] });
    assert_eq!(
        problem(world.post(&quarantine, &nowhere).await).await.1,
        "unknown-region"
    );
    let silent = json!({ "reason": "" });
    assert_eq!(
        problem(world.post(&quarantine, &silent).await).await.1,
        "illegal-reason"
    );
    crate::schema::events_fit(&world.app.store).await;
}

#[tokio::test]
async fn every_act_is_in_the_log_with_who_why_and_its_request() {
    let world = World::start().await;
    deployed(&world, "one").await;
    let read = world.token("read").await;
    let refused = reqwest::Client::new()
        .post(format!("http://{}{HOLDS}", world.address))
        .bearer_auth(read)
        .json(&json!({ "reason": "no" }))
        .send()
        .await
        .unwrap();
    assert_eq!(problem(refused).await.1, "forbidden");
    let set = world
        .request(Method::POST, HOLDS)
        .header("x-request-id", "night-shift-7")
        .json(&json!({ "reason": "look first" }))
        .send()
        .await
        .unwrap();
    assert_eq!(set.headers()["x-request-id"], "night-shift-7");
    let page: Value = world.get("/v1/audit?limit=1").await.json().await.unwrap();
    let newest = &page["entries"][0];
    for (key, value) in [
        ("action", "hold.set"),
        ("by", "bootstrap"),
        ("subject", "shop/production fra"),
        ("project", "shop"),
        ("reason", "look first"),
        ("request", "night-shift-7"),
    ] {
        assert_eq!(newest[key], value, "{newest}");
    }
    let next = page["next"].as_u64().unwrap();
    assert_eq!(
        actions(&world, &format!("before={next}")).await,
        ["access.denied", "token.create", "deploy", "token.create"]
    );
    assert_eq!(
        actions(&world, "project=shop").await,
        ["hold.set", "deploy"]
    );
    assert_eq!(actions(&world, "by=origin").await, ["token.create"]);
    assert_eq!(actions(&world, "since=99999999999999").await, [""; 0]);
    let odd = world
        .request(Method::GET, "/v1/audit?action=access.denied")
        .header("x-request-id", "not one!")
        .send()
        .await
        .unwrap();
    assert_eq!(odd.headers()["x-request-id"].len(), 16);
    let denied: Value = odd.json().await.unwrap();
    assert_eq!(denied["entries"][0]["subject"], format!("POST {HOLDS}"));
}

#[tokio::test]
async fn the_log_is_verified_as_a_whole_and_against_a_head_of_before() {
    let world = World::start().await;
    deployed(&world, "one").await;
    let verify = "/v1/audit/verification";
    let check: Value = world.get(verify).await.json().await.unwrap();
    assert_eq!(
        (&check["entries"], &check["broken"]),
        (&json!(2), &json!(null))
    );
    let head = format!(
        "{verify}?number={}&hash={}",
        check["head"]["number"],
        check["head"]["hash"].as_str().unwrap()
    );
    let _ = world.post(HOLDS, &json!({ "reason": "x" })).await;
    let later: Value = world.get(&head).await.json().await.unwrap();
    assert_eq!(
        (&later["entries"], &later["broken"]),
        (&json!(3), &json!(null))
    );
    let mut tx = world.app.store.write().await.unwrap();
    sqlx::query("UPDATE audit SET by_whom = 'nobody' WHERE action = 'deploy'")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let forged: Value = world.get(verify).await.json().await.unwrap();
    assert_eq!(forged["broken"]["number"], 2, "{forged}");
    let half = format!("{verify}?number=3");
    assert_eq!(problem(world.get(&half).await).await.0, 400);
}

/// Every act that changes something and needs no edge, as somebody would do them in a day.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a whole day")]
async fn a_day_of_acts_is_in_the_log_each_of_them_once() {
    let world = World::start().await;
    let release = deployed(&world, "one").await["release"].clone();
    let release = release.as_str().unwrap();
    let why = json!({ "reason": "x" });
    let token: Value = world
        .post("/v1/tokens", &json!({ "name": "ci", "role": "deploy" }))
        .await
        .json()
        .await
        .unwrap();
    let token = token["view"]["id"].as_str().unwrap();
    let host = json!({ "host": "www.example.com", "environment": "production" });
    let hook = json!({ "url": "https://hooks.example/" });
    let hook: Value = world
        .post("/v1/webhooks", &hook)
        .await
        .json()
        .await
        .unwrap();
    let hook = hook["view"]["webhook"].as_str().unwrap();
    let production = json!({ "environment": "production" });
    for (path, body) in [
        ("/v1/projects/shop/domains".to_owned(), &host),
        ("/v1/projects/shop/purges".to_owned(), &production),
        (format!("/v1/releases/{release}/gates"), &json!({})),
        (HOLDS.to_owned(), &why),
        (format!("{HOLDS}/clear"), &json!({})),
        (format!("/v1/releases/{release}/quarantine"), &why),
        (format!("/v1/releases/{release}/unquarantine"), &why),
        (format!("/v1/webhooks/{hook}/test"), &json!(null)),
        (format!("/v1/webhooks/{hook}/enable"), &json!(null)),
    ] {
        let done = world.post(&path, body).await;
        assert!(done.status().is_success(), "{path}: {}", done.status());
    }
    let automatic = automatic(&world, "one").await;
    assert_eq!(automatic.status(), 200);
    for path in [
        "/v1/projects/shop/domains/www.example.com".to_owned(),
        format!("/v1/tokens/{token}"),
        format!("/v1/webhooks/{hook}"),
    ] {
        let done = world.request(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(done.status(), 204, "{path}");
    }
    // What was refused changed nothing, and is no act.
    let refused = world.post(HOLDS, &json!({ "reason": "" })).await;
    assert_eq!(refused.status(), 422);
    let mut logged = actions(&world, "by=bootstrap").await;
    logged.sort();
    assert_eq!(
        logged,
        [
            "cache.purge",
            "deploy",
            "deploy.automatic",
            "domain.add",
            "domain.remove",
            "gate.run",
            "hold.clear",
            "hold.set",
            "release.quarantine",
            "release.unquarantine",
            "token.create",
            "token.revoke",
            "webhook.add",
            "webhook.enable",
            "webhook.remove",
            "webhook.test",
        ]
    );
    let check: Value = world
        .get("/v1/audit/verification")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(check["broken"], json!(null));
}
