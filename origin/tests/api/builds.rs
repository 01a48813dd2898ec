//! Builds and their workers: who may say what, what becomes of silence, and what may go to production.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::forge::{commit, json_of};
use crate::world::{World, deployment, files, problem};

#[tokio::test]
async fn a_linked_production_takes_no_folder_unless_that_is_allowed() {
    let world = World::start().await;
    world.link(json!({})).await;
    let page = files(&[("index.html", "by hand")]);
    assert_eq!(
        problem(world.deploy("production", &page).await).await.1,
        "linked-project"
    );
    assert!(world.deploy("preview/7", &page).await.status().is_success());
    world.link(json!({ "allow_uploads": true })).await;
    let allowed = world
        .post(
            "/v1/projects/shop/deployments",
            &deployment("production", &page),
        )
        .await;
    assert!(allowed.status().is_success());
}

#[tokio::test]
async fn a_worker_sees_its_builds_and_nothing_else() {
    let mut world = World::start().await;
    let secret = world.link(json!({})).await;
    let worker = world.token("build").await;
    let (reader, deployer) = (world.token("read").await, world.token("deploy").await);
    let build = world.push(&secret, &commit('0'), &commit('a')).await;
    for token in [&reader, &deployer] {
        assert_eq!(
            problem(world.claim(token, &build, "w").await).await.1,
            "forbidden"
        );
    }
    let operator = std::mem::replace(&mut world.token, worker.clone());
    let contents = json!({ "contents": [] });
    for path in [
        "/v1/projects",
        "/v1/builds",
        "/v1/status",
        "/v1/projects/shop/env",
        "/v1/audit",
    ] {
        assert_eq!(
            problem(world.get(path).await).await.1,
            "forbidden",
            "{path}"
        );
    }
    let registry = world.get("/v2/shop/manifests/latest").await;
    assert_eq!(registry.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        problem(world.post("/v1/projects/shop/uploads", &contents).await)
            .await
            .1,
        "forbidden"
    );
    json_of(world.claim(&worker, &build, "w").await).await;
    json_of(world.post("/v1/projects/shop/uploads", &contents).await).await;
    assert_eq!(
        problem(world.post("/v1/projects/other/uploads", &contents).await)
            .await
            .1,
        "forbidden"
    );
    let body = deployment("production", &[]);
    assert_eq!(
        problem(world.post("/v1/projects/shop/deployments", &body).await)
            .await
            .1,
        "forbidden"
    );
    world.token = operator;
    // Another worker, or the same name with another token, cannot end it.
    let other = world.token("build").await;
    let failed =
        json!({ "worker": "w", "outcome": { "failed": { "step": "build", "reason": "x" } } });
    for (token, name) in [(&other, "w"), (&worker, "v")] {
        let mut failed = failed.clone();
        failed["worker"] = json!(name);
        let wish = json_of(world.worker(token, &build, "end", &failed).await).await;
        assert!(wish["stop"].is_string());
    }
    assert_eq!(
        problem(world.claim(&other, &build, "w").await).await.1,
        "build-taken"
    );
    json_of(world.worker(&worker, &build, "end", &failed).await).await;
    let view = world.build(&build).await;
    assert_eq!(
        (&view["state"], &view["step"], &view["reason"]),
        (&json!("failed"), &json!("build"), &json!("x"))
    );
}

#[tokio::test]
async fn a_silent_workers_build_is_taken_over_and_its_log_goes_on() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let worker = world.token("build").await;
    let build = world.push(&secret, &commit('0'), &commit('a')).await;
    let line = |seq: u64, text: &str| json!({ "seq": seq, "at": 1, "step": "build", "text": text });
    let log = async |name: &str, lines: Value| {
        json_of(
            world
                .worker(
                    &worker,
                    &build,
                    "log",
                    &json!({ "worker": name, "lines": lines }),
                )
                .await,
        )
        .await
    };
    json_of(world.claim(&worker, &build, "w1").await).await;
    log("w1", json!([line(1, "one"), line(2, "two")])).await;
    // Sent again after an answer that was lost.
    log("w1", json!([line(2, "two"), line(3, "three")])).await;
    helix_origin::build::sweep::lapse_by(&world.app, std::time::Duration::from_secs(31))
        .await
        .unwrap();
    assert_eq!(world.build(&build).await["state"], "queued");
    assert!(log("w1", json!([line(4, "four")])).await["stop"].is_string());
    json_of(world.claim(&worker, &build, "w2").await).await;
    log("w2", json!([line(1, "again")])).await;
    json_of(
        world
            .succeed(&worker, &build, "w2", &files(&[("index.html", "x")]))
            .await,
    )
    .await;
    let view = world.build(&build).await;
    assert_eq!(
        (&view["attempts"], &view["worker"]),
        (&json!(2), &json!("w2"))
    );
    let all = world
        .get(&format!("/v1/builds/{build}/log"))
        .await
        .text()
        .await
        .unwrap();
    let texts: Vec<&str> = all
        .split("\"text\":\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(texts, ["one", "two", "three", "again"], "{all}");
    assert!(all.contains("event: end"), "{all}");
    let rest = world
        .request(Method::GET, &format!("/v1/builds/{build}/log"))
        .header("last-event-id", "1-3")
        .send()
        .await
        .unwrap();
    let rest = rest.text().await.unwrap();
    assert!(rest.contains("again") && !rest.contains("three"), "{rest}");
    crate::schema::events_fit(&world.app.store).await;
}

#[tokio::test]
async fn the_newest_commit_is_built_again_when_somebody_says_so() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let wanted = json!({ "environment": "production" });
    assert_eq!(
        problem(world.post("/v1/projects/shop/redeploys", &wanted).await)
            .await
            .1,
        "no-commit"
    );
    let first = world.push(&secret, &commit('0'), &commit('a')).await;
    let second = json_of(world.post("/v1/projects/shop/redeploys", &wanted).await).await;
    assert_eq!(
        (&second["commit"], &second["state"]),
        (&json!(commit('a')), &json!("queued"))
    );
    assert_eq!(world.build(&first).await["state"], "cancelled");
    crate::schema::events_fit(&world.app.store).await;
}

#[tokio::test]
async fn a_build_with_rules_that_cannot_be_carried_out_fails_with_file_and_line_and_nothing_goes_live()
 {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let worker = world.token("build").await;
    let output = r#"{"version": 3, "routes": [
{"src": "/("}]}"#;
    let cases = [
        ("_redirects", "/ok /fine\n/a\n", "_redirects:2"),
        ("_headers", "/*\n  x-a: b\n  no field\n", "_headers:3"),
        (
            ".vercel/output/config.json",
            output,
            "config.json:2: routes[0].src",
        ),
    ];
    for ((name, text, words), digit) in cases.into_iter().zip('a'..) {
        let build = world.push(&secret, &commit('0'), &commit(digit)).await;
        json_of(world.claim(&worker, &build, "w").await).await;
        let page = match name.strip_suffix("config.json") {
            Some(folder) => format!("{folder}static/index.html"),
            None => "index.html".to_owned(),
        };
        let broken = files(&[(&page, "page"), (name, text)]);
        json_of(world.succeed(&worker, &build, "w", &broken).await).await;
        let view = world.build(&build).await;
        assert_eq!(view["state"], "failed", "{view}");
        let reason = view["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{words}: {reason}");
    }
    let path = "/v1/projects/shop/releases";
    assert_eq!(json_of(world.get(path).await).await, json!([]));
}

#[tokio::test]
async fn a_preview_is_promoted_with_a_reason_that_is_kept() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let worker = world.token("build").await;
    let build = &world.opened(&secret, &commit('a')).await;
    json_of(world.claim(&worker, build, "w").await).await;
    let page = files(&[("index.html", "preview"), ("_headers", "/*\n  x-a: b\n")]);
    json_of(world.succeed(&worker, build, "w", &page).await).await;
    let path = "/v1/projects/shop/releases?environment=preview/42";
    let releases: Value = world.get(path).await.json().await.unwrap();
    let release = releases[0]["release"].clone();
    let bare = world
        .post(
            "/v1/projects/shop/promotions",
            &json!({ "release": release }),
        )
        .await;
    assert_eq!(problem(bare).await.1, "override-needed");
    let wanted = json!({ "release": release, "override_reason": "the release train is broken" });
    let mut deployer = World {
        token: world.token("deploy").await,
        ..world
    };
    assert_eq!(
        problem(deployer.post("/v1/projects/shop/promotions", &wanted).await)
            .await
            .1,
        "forbidden"
    );
    deployer.token = std::fs::read_to_string(deployer.folder.path().join("token")).unwrap();
    let world = deployer;
    let promoted = json_of(world.post("/v1/projects/shop/promotions", &wanted).await).await;
    assert_eq!(promoted["site"], "shop/production");
    assert_ne!(
        promoted["release"], release,
        "another site, another release"
    );
    let made: Value = world
        .get("/v1/projects/shop/releases")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&made[0]["files"], &made[0]["routes"]),
        (&releases[0]["files"], &releases[0]["routes"])
    );
    let audit: Value = world
        .get("/v1/audit?action=promote")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(audit["entries"][0]["reason"], "the release train is broken");
    let unknown = json!({ "release": "0".repeat(20), "override_reason": "x" });
    assert_eq!(
        problem(world.post("/v1/projects/shop/promotions", &unknown).await)
            .await
            .1,
        "unknown-release"
    );
    crate::schema::events_fit(&world.app.store).await;
}
