//! Repositories, their webhooks and their builds, from a link to a rollout.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::forge::{commit, json_of, pull_request, push};
use crate::world::{World, files, problem};

#[tokio::test]
async fn a_push_to_the_default_branch_is_built_and_goes_to_production() {
    let world = World::start().await;
    let settings = json!({ "build": "make", "start": "node server.js" });
    let secret = world.link(json!({ "settings": settings })).await;
    let link = json_of(world.get("/v1/projects/shop/link").await).await;
    assert_eq!(link["settings"], settings, "kept");
    let worker = world.token("build").await;
    let build = world.push(&secret, &commit('0'), &commit('a')).await;
    let job = json_of(world.claim(&worker, &build, "w1").await).await;
    assert_eq!(
        job["settings"],
        json!({ "build": "make" }),
        "as it is built"
    );
    assert_eq!(job["trust"], "default");
    assert_eq!(job["environment"], "production");
    assert_eq!(
        job["source"],
        json!({
            "url": "https://github.com/acme/shop", "reference": "refs/heads/main", "commit": commit('a'),
        })
    );
    let beat = json_of(
        world
            .worker(&worker, &build, "heartbeat", &json!({ "worker": "w1" }))
            .await,
    )
    .await;
    assert_eq!(beat, json!({}));
    let page = files(&[("index.html", "built")]);
    json_of(world.succeed(&worker, &build, "w1", &page).await).await;
    let view = world.build(&build).await;
    assert_eq!(
        (&view["state"], &view["deployment"], &view["framework"]),
        (&json!("succeeded"), &json!(1), &json!("vite"))
    );
    // Said again, it changes nothing.
    let failed =
        json!({ "worker": "w1", "outcome": { "failed": { "step": "build", "reason": "x" } } });
    let again = json_of(world.worker(&worker, &build, "end", &failed).await).await;
    assert!(again["stop"].as_str().unwrap().contains("succeeded"));
    let rollouts: Value = world
        .get("/v1/rollouts?project=shop")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(rollouts.as_array().unwrap().len(), 1);
    assert_eq!(rollouts[0]["site"], "shop/production");
    let kinds = world.events().await;
    let told: Vec<&str> = kinds
        .iter()
        .map(String::as_str)
        .filter(|kind| kind.starts_with("deployment."))
        .collect();
    assert_eq!(
        told,
        [
            "deployment.production.requested",
            "deployment.build.started",
            "deployment.created",
            "deployment.build.succeeded",
        ]
    );
}

#[tokio::test]
async fn a_pull_request_is_a_preview_until_it_is_closed() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let worker = world.token("build").await;
    let first = &world.opened(&secret, &commit('a')).await;
    let job = json_of(world.claim(&worker, first, "w1").await).await;
    assert_eq!(
        (&job["trust"], &job["environment"]),
        (&json!("branch"), &json!("preview/42"))
    );
    assert_eq!(job["source"]["reference"], "refs/pull/42/head");
    // A newer commit: whoever builds the older one is to stop.
    let mut newer = pull_request("synchronize", &commit('b'), 1);
    newer["before"] = json!(commit('a'));
    let (_, updated) = world.hook(&secret, "pull_request", &newer).await;
    let second = updated["build"].as_str().unwrap();
    let wish = json_of(
        world
            .worker(&worker, first, "heartbeat", &json!({ "worker": "w1" }))
            .await,
    )
    .await;
    assert!(
        wish["stop"].as_str().unwrap().contains(&commit('b')),
        "{wish}"
    );
    assert_eq!(world.build(first).await["state"], "cancelled");
    json_of(world.claim(&worker, second, "w1").await).await;
    json_of(
        world
            .succeed(&worker, second, "w1", &files(&[("index.html", "preview")]))
            .await,
    )
    .await;
    let projects: Value = world.get("/v1/projects").await.json().await.unwrap();
    assert_eq!(projects[0]["sites"], json!(["shop/preview/42"]));
    let (status, closed) = world
        .hook(
            &secret,
            "pull_request",
            &pull_request("closed", &commit('b'), 1),
        )
        .await;
    assert_eq!((status, &closed["accepted"]), (200, &json!(true)));
    let projects: Value = world.get("/v1/projects").await.json().await.unwrap();
    assert_eq!(projects[0]["sites"], json!([]));
    // What comes late does not bring it back; what reopens it does.
    let late = pull_request("opened", &commit('a'), 1);
    assert_eq!(world.hook(&secret, "pull_request", &late).await.0, 202);
    let (status, _) = world
        .hook(
            &secret,
            "pull_request",
            &pull_request("reopened", &commit('b'), 1),
        )
        .await;
    assert_eq!(status, 200);
    crate::schema::events_fit(&world.app.store).await;
}

#[tokio::test]
async fn a_fork_is_built_once_its_commit_is_approved_and_gets_no_secrets() {
    let world = World::start().await;
    let secret = world.link(json!({ "credential": "ghs_hidden" })).await;
    let worker = world.token("build").await;
    for (name, is_secret) in [("TOKEN", true), ("API", false)] {
        let set = json!({ "kind": "preview", "value": "v", "secret": is_secret });
        let path = format!("/v1/projects/shop/env/{name}");
        json_of(
            world
                .request(Method::PUT, &path)
                .json(&set)
                .send()
                .await
                .unwrap(),
        )
        .await;
    }
    let (_, opened) = world
        .hook(
            &secret,
            "pull_request",
            &pull_request("opened", &commit('a'), 2),
        )
        .await;
    let build = opened["build"].as_str().unwrap();
    assert_eq!(world.build(build).await["state"], "waiting");
    assert_eq!(
        problem(world.claim(&worker, build, "w1").await).await.1,
        "build-waiting"
    );
    // The approval is of a commit, not of the pull request.
    let (_, updated) = world
        .hook(
            &secret,
            "pull_request",
            &pull_request("synchronize", &commit('b'), 2),
        )
        .await;
    let newer = updated["build"].as_str().unwrap();
    let late = world
        .post(&format!("/v1/builds/{build}/approve"), &json!({}))
        .await;
    assert_eq!(problem(late).await.1, "not-waiting");
    json_of(
        world
            .post(&format!("/v1/builds/{newer}/approve"), &json!({}))
            .await,
    )
    .await;
    let job = json_of(world.claim(&worker, newer, "w1").await).await;
    assert_eq!(job["trust"], "fork");
    assert_eq!(
        job["env"],
        json!({ "API": { "value": "v", "secret": false } })
    );
    let blocked = World::start().await;
    let secret = blocked.link(json!({ "forks": "block" })).await;
    assert_eq!(
        blocked
            .hook(
                &secret,
                "pull_request",
                &pull_request("opened", &commit('a'), 2)
            )
            .await
            .0,
        202
    );
    crate::schema::events_fit(&world.app.store).await;
}

#[tokio::test]
async fn a_delivery_has_its_effect_once_whatever_its_order() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let body = push("main", &commit('0'), &commit('a')).to_string();
    let first = json_of(world.hook_as(&secret, ("push", "one"), body.clone()).await).await;
    assert_eq!(first["accepted"], true);
    for id in ["one", "another"] {
        let again = world.hook_as(&secret, ("push", id), body.clone()).await;
        assert_eq!(again.status(), StatusCode::ACCEPTED, "{id}");
    }
    let newest = world.push(&secret, &commit('b'), &commit('c')).await;
    let (status, late) = world
        .hook(&secret, "push", &push("main", &commit('a'), &commit('b')))
        .await;
    assert_eq!(status, 202, "{late}");
    let builds: Value = world
        .get("/v1/builds?project=shop")
        .await
        .json()
        .await
        .unwrap();
    let states: Vec<(&str, &str)> = builds
        .as_array()
        .unwrap()
        .iter()
        .map(|build| {
            (
                build["id"].as_str().unwrap(),
                build["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(states[0], (newest.as_str(), "queued"));
    assert_eq!(states[1].1, "cancelled");
    assert_eq!(states.len(), 2);
}

#[tokio::test]
async fn what_is_not_signed_or_not_of_the_repository_is_refused() {
    let world = World::start().await;
    let secret = world.link(json!({})).await;
    let body = push("main", &commit('0'), &commit('a'));
    for wrong in ["", "whsec_other"] {
        let refused = world.hook_as(wrong, ("push", "x"), body.to_string()).await;
        assert_eq!(problem(refused).await.1, "bad-signature");
    }
    let mut other = body.clone();
    other["repository"]["full_name"] = json!("eve/shop");
    let refused = world
        .hook_as(&secret, ("push", "x"), other.to_string())
        .await;
    assert_eq!(problem(refused).await.1, "another-repository");
    for cut in ["", "{", "[]", "payload=%7B%7D"] {
        let refused = world.hook_as(&secret, ("push", "x"), cut.to_owned()).await;
        assert_eq!(problem(refused).await.1, "bad-delivery", "{cut}");
    }
    let large = "x".repeat(25 * 1024 * 1024 + 1);
    let refused = world.hook_as(&secret, ("push", "x"), large).await;
    assert_eq!(problem(refused).await.1, "body-too-large");
    for (event, body, why) in [
        (
            "push",
            push("feature/x", &commit('0'), &commit('a')),
            "only main",
        ),
        ("push", push("main", &commit('a'), &commit('0')), "removed"),
        (
            "issues",
            json!({ "action": "opened", "repository": { "full_name": "acme/shop" } }),
            "issues",
        ),
        ("ping", json!({ "zen": "x" }), "set up"),
    ] {
        let (status, view) = world.hook(&secret, event, &body).await;
        assert_eq!(status, 202);
        assert!(view["reason"].as_str().unwrap().contains(why), "{view}");
    }
    let nobody = world
        .client
        .post(format!(
            "http://{}/v1/webhooks/in/github/other",
            world.address
        ))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(nobody.status(), 404);
    let builds: Value = world.get("/v1/builds").await.json().await.unwrap();
    assert_eq!(builds, json!([]));
}

#[tokio::test]
async fn a_secret_is_shown_once_and_two_count_while_it_is_changed() {
    let world = World::start().await;
    let old = world.link(json!({ "credential": "ghs_hidden" })).await;
    assert!(old.starts_with("whsec_"));
    assert_eq!(
        world.link(json!({ "branch": "trunk" })).await,
        "",
        "shown once"
    );
    let shown = world
        .get("/v1/projects/shop/link")
        .await
        .text()
        .await
        .unwrap();
    assert!(
        !shown.contains("whsec_") && !shown.contains("ghs_hidden"),
        "{shown}"
    );
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["has_credential"], &shown["branch"]),
        (&json!(true), &json!("trunk"))
    );
    assert_eq!(
        shown["webhook_url"],
        "http://origin.example/v1/webhooks/in/github/shop"
    );
    let rotated = json_of(
        world
            .post("/v1/projects/shop/link/secret", &json!({}))
            .await,
    )
    .await;
    let new = rotated["webhook_secret"].as_str().unwrap();
    let (one, other) = (commit('a'), commit('b'));
    for (secret, body) in [
        (old.as_str(), push("trunk", &commit('0'), &one)),
        (new, push("trunk", &one, &other)),
    ] {
        assert_eq!(world.hook(secret, "push", &body).await.0, 200);
    }
    // A credential is not taken along to another server.
    world
        .link(json!({ "url": "https://github.example/acme/shop", "provider": "github" }))
        .await;
    let moved: Value = world
        .get("/v1/projects/shop/link")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(moved["has_credential"], false);
    assert_eq!(
        world
            .request(Method::DELETE, "/v1/projects/shop/link")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(
        problem(world.get("/v1/projects/shop/link").await).await.1,
        "not-linked"
    );
}

#[tokio::test]
async fn variables_are_revisions_and_secrets_are_never_shown() {
    let world = World::start().await;
    world.link(json!({})).await;
    let set = async |name: &str, value: &str, secret: bool| {
        let body = json!({ "kind": "production", "value": value, "secret": secret });
        world
            .request(Method::PUT, &format!("/v1/projects/shop/env/{name}"))
            .json(&body)
            .send()
            .await
            .unwrap()
    };
    json_of(set("API", "https://api.example", false).await).await;
    let view = json_of(set("TOKEN", "s3cret-value", true).await).await;
    assert_eq!(view["revision"], 2);
    assert_eq!(view["variables"][0]["value"], "https://api.example");
    assert_eq!(
        (
            &view["variables"][1]["secret"],
            &view["variables"][1]["value"]
        ),
        (&json!(true), &Value::Null)
    );
    let view = json_of(set("TOKEN", "newer", true).await).await;
    assert_eq!(
        (&view["revision"], &view["variables"][1]["version"]),
        (&json!(3), &json!(2))
    );
    for (name, value) in [
        ("PATH", "x"),
        ("1A", "x"),
        ("A-B", "x"),
        ("A", "a\0b"),
        ("A", &"x".repeat(64 * 1024)),
    ] {
        assert_eq!(
            problem(set(name, value, false).await).await.1,
            "illegal-variable",
            "{name}"
        );
    }
    let path = "/v1/projects/shop/env/API?kind=production";
    let view = json_of(world.request(Method::DELETE, path).send().await.unwrap()).await;
    assert_eq!(
        (
            &view["revision"],
            view["variables"].as_array().unwrap().len()
        ),
        (&json!(4), 1)
    );
    let gone = world.request(Method::DELETE, path).send().await.unwrap();
    assert_eq!(problem(gone).await.1, "unknown-variable");
    let preview: Value = world
        .get("/v1/projects/shop/env?kind=preview")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&preview["revision"], &preview["variables"]),
        (&json!(0), &json!([]))
    );
}

/// Runs git as nobody in particular, in `folder`.
fn git(folder: &std::path::Path, arguments: &[&str]) -> String {
    let ran = std::process::Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_plain_git_server_is_asked_and_each_new_commit_is_built_once() {
    let world = World::start().await;
    let folder = world.folder.path().join("repository");
    std::fs::create_dir(&folder).unwrap();
    git(&folder, &["init", "--quiet", "--initial-branch=main"]);
    let url = format!("file://{}", folder.display());
    assert_eq!(
        world.link(json!({ "url": url })).await,
        "",
        "it sends no webhooks"
    );
    let builds = async || -> Vec<Value> {
        helix_origin::source::poll::ask_all(&world.app)
            .await
            .unwrap();
        world
            .get("/v1/builds?project=shop")
            .await
            .json()
            .await
            .unwrap()
    };
    assert!(builds().await.is_empty(), "there is no branch yet");
    for count in 1..=2 {
        git(&folder, &["commit", "--quiet", "--allow-empty", "-m", "x"]);
        let newest = git(&folder, &["rev-parse", "HEAD"]);
        for _ in 0..2 {
            let builds = builds().await;
            assert_eq!(builds.len(), count);
            assert_eq!(builds[0]["commit"], newest);
        }
    }
    // Back to the commit before is a new deployment, too.
    git(&folder, &["reset", "--quiet", "--hard", "HEAD~1"]);
    for _ in 0..2 {
        assert_eq!(builds().await.len(), 3);
    }
    let refused = json!({ "url": "ext::sh -c id" });
    let refused = world
        .request(Method::PUT, "/v1/projects/shop/link")
        .json(&refused)
        .send()
        .await
        .unwrap();
    assert_eq!(problem(refused).await.1, "illegal-link");
}
