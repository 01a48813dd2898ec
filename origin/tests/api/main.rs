//! Origin's API and registry from outside: what is taken, what is refused, and how.
#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bills;
mod builds;
mod double;
mod feedback;
mod forge;
mod gates;
mod judged;
mod operators;
#[path = "../place/mod.rs"]
mod place;
mod projects;
mod protection;
mod provenance;
mod published;
mod purges;
mod referring;
mod remainder;
mod remote;
mod rules;
mod running;
#[path = "../schema/mod.rs"]
mod schema;
mod source;
mod variants;
mod webhooks;
mod world;

use helix_routing::api::DeploymentView;
use helix_routing::artifact::{FileIndex, INDEX_TYPE, Manifest, PACK_TYPE};
use helix_service::digest::sha256;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use world::{World, deployment, files, frame, problem};

#[tokio::test]
async fn every_refusal_is_a_problem_with_a_stable_type() {
    let world = World::start().await;
    let bare = reqwest::Client::new();
    let anonymous = bare
        .get(format!("http://{}/v1/projects", world.address))
        .send()
        .await
        .unwrap();
    assert_eq!(problem(anonymous).await.1, "unauthorized");
    assert_eq!(problem(world.get("/v1/nothing").await).await.1, "not-found");
    let wrong = world
        .request(Method::PUT, "/v1/projects")
        .send()
        .await
        .unwrap();
    assert_eq!(problem(wrong).await.1, "method-not-allowed");
    let (status, kind, body) = problem(
        world
            .post("/v1/projects/No!/uploads", &json!({ "contents": [] }))
            .await,
    )
    .await;
    assert_eq!((status, kind.as_str()), (400, "bad-request"));
    assert!(
        body["title"].as_str().unwrap().contains("project name"),
        "{body}"
    );
    let odd = world
        .post(
            "/v1/tokens",
            &json!({ "name": "x", "role": "read", "rolle": 1 }),
        )
        .await;
    let (_, kind, body) = problem(odd).await;
    assert_eq!(kind, "bad-request");
    assert!(body["title"].as_str().unwrap().contains("rolle"), "{body}");
    let large = world
        .post(
            "/v1/tokens",
            &json!({ "name": "x".repeat(100_000), "role": "read" }),
        )
        .await;
    assert_eq!(problem(large).await.1, "body-too-large");
    let env = world
        .post(
            "/v1/projects/shop/deployments",
            &json!({ "environment": "staging", "files": [] }),
        )
        .await;
    assert_eq!(problem(env).await.0, 422);
    assert_eq!(
        problem(world.get("/v1/rollouts/0123456789abcdef").await)
            .await
            .1,
        "unknown-rollout"
    );
    assert_eq!(
        problem(world.get("/v1/explain?url=nonsense").await).await.0,
        400
    );
}

#[tokio::test]
async fn a_token_may_do_what_its_role_says() {
    let mut world = World::start().await;
    let operate = world.token.clone();
    let (read, deploy) = (world.token("read").await, world.token("deploy").await);
    let (edge, build) = (world.token("edge").await, world.token("build").await);
    let contents = json!({ "contents": [] });
    for (token, list, upload, tokens, key, pull) in [
        (&build, 403, 403, 403, 403, 401),
        (&edge, 403, 403, 403, 200, 404),
        (&read, 200, 403, 403, 403, 404),
        (&deploy, 200, 200, 403, 403, 404),
        (&operate, 200, 200, 200, 200, 404),
    ] {
        world.token = token.clone();
        assert_eq!(world.get("/v1/projects").await.status(), list);
        assert_eq!(world.get("/v1/visitor-key").await.status(), key);
        let manifest = format!("/v2/shop/manifests/sha256:{}", "0".repeat(64));
        assert_eq!(world.get(&manifest).await.status(), pull);
        assert_eq!(
            world
                .post("/v1/projects/shop/uploads", &contents)
                .await
                .status(),
            upload
        );
        assert_eq!(world.get("/v1/tokens").await.status(), tokens);
    }
    let listed: Value = world.get("/v1/tokens").await.json().await.unwrap();
    let id = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["name"] == "read")
        .unwrap()["id"]
        .clone();
    let revoked = world
        .request(
            Method::DELETE,
            &format!("/v1/tokens/{}", id.as_str().unwrap()),
        )
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    world.token = read;
    assert_eq!(
        problem(world.get("/v1/projects").await).await.1,
        "unauthorized"
    );
}

#[tokio::test]
async fn the_description_has_every_route() {
    let world = World::start().await;
    let description: Value = world.get("/openapi.json").await.json().await.unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let contract = include_str!("../../../routing/src/api/mod.rs");
    let mut routes = 0;
    for line in contract
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
    {
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            continue;
        };
        if !path.starts_with("/v1/") || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            continue;
        }
        let path = path.split('?').next().unwrap();
        assert!(
            description["paths"][path][method.to_lowercase()].is_object(),
            "{method} {path} is not described"
        );
        routes += 1;
    }
    assert!(
        routes >= 18,
        "only {routes} routes were found in the contract"
    );
}

#[tokio::test]
async fn nothing_of_a_pack_with_one_wrong_content_is_kept() {
    let world = World::start().await;
    let (good, bad) = (b"good".as_slice(), b"bad".as_slice());
    let mut upload = frame(good, &sha256(good));
    upload.extend(frame(b"evil", &sha256(bad)));
    let (status, kind, body) = problem(world.pack("shop", upload).await).await;
    assert_eq!((status, kind.as_str()), (422, "digest-mismatch"));
    assert!(
        body["title"]
            .as_str()
            .unwrap()
            .contains(sha256(bad).as_str())
    );
    let asked = json!({ "contents": [{ "digest": sha256(good), "size": 4 }] });
    let plan: Value = world
        .post("/v1/projects/shop/uploads", &asked)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(plan["packed"].as_array().unwrap().len(), 1);
    assert_eq!(
        world
            .pack("shop", frame(good, &sha256(good)))
            .await
            .status(),
        StatusCode::NO_CONTENT
    );
    let plan: Value = world
        .post("/v1/projects/shop/uploads", &asked)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(plan["packed"], json!([]));
    // What another project holds is not known to this one.
    let plan: Value = world
        .post("/v1/projects/other/uploads", &asked)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(plan["packed"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_large_content_goes_on_from_where_it_was_cut() {
    let world = World::start().await;
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    let (digest, length) = (sha256(&content), content.len() as u64);
    let first = world
        .part(&digest, 0, length, content[..1_000_000].to_vec())
        .await;
    assert_eq!(
        (first.status().as_u16(), &first.headers()["upload-offset"]),
        (204, &"1000000".parse().unwrap())
    );
    let path = format!("/v1/projects/shop/blobs/{digest}");
    let head = world.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["upload-offset"]),
        (204, &"1000000".parse().unwrap())
    );
    let wrong = world.part(&digest, 5, length, content[5..].to_vec()).await;
    assert_eq!(wrong.headers()["upload-offset"], "1000000");
    assert_eq!(problem(wrong).await.1, "wrong-offset");
    let rest = world
        .part(&digest, 1_000_000, length, content[1_000_000..].to_vec())
        .await;
    assert_eq!(rest.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        world
            .request(Method::HEAD, &path)
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_large_content_of_other_bytes_is_dropped() {
    let world = World::start().await;
    let (said, sent) = (sha256(b"said"), vec![1; 2_000_000]);
    let refused = world.part(&said, 0, 2_000_000, sent).await;
    assert_eq!(problem(refused).await.1, "digest-mismatch");
    let head = world
        .request(Method::HEAD, &format!("/v1/projects/shop/blobs/{said}"))
        .send()
        .await
        .unwrap();
    assert_eq!(head.headers()["upload-offset"], "0");
    let longer = world.part(&said, 0, 10, vec![1; 20]).await;
    assert_eq!(problem(longer).await.1, "file-too-large");
}

#[tokio::test]
async fn a_project_cannot_hold_more_than_its_quota() {
    let world = World::start().await;
    let digest = sha256(b"x");
    let asked = json!({ "contents": [{ "digest": digest, "size": world::PROJECT_BYTES + 1 }] });
    let refused = world.post("/v1/projects/shop/uploads", &asked).await;
    assert_eq!(problem(refused).await.1, "quota-exceeded");
    let part = world
        .part(&digest, 0, world::PROJECT_BYTES + 1, vec![1; 10])
        .await;
    assert_eq!(problem(part).await.1, "quota-exceeded");
}

#[tokio::test]
async fn a_deployment_is_a_release_that_any_registry_client_can_pull() {
    let world = World::start().await;
    let site = files(&[
        ("index.html", "<h1>hi</h1>"),
        ("a/b.css", "x"),
        ("empty", ""),
    ]);
    let view: DeploymentView = world
        .deploy("production", &site)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (view.label.as_str(), view.url.as_str()),
        ("main/1", "http://shop.helix.localhost:8081/")
    );
    let by_tag = world.get("/v2/shop/manifests/main-1").await;
    assert_eq!(
        by_tag.headers()["docker-content-digest"],
        view.artifact.as_str()
    );
    let bytes = by_tag.bytes().await.unwrap();
    assert_eq!(sha256(&bytes), view.artifact);
    let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    let layer = |kind: &str| {
        manifest
            .layers
            .iter()
            .find(|layer| layer.media_type == kind)
            .unwrap()
            .digest
            .clone()
    };
    let index = world
        .get(&format!("/v2/shop/blobs/{}", layer(INDEX_TYPE)))
        .await
        .bytes()
        .await
        .unwrap();
    let index: FileIndex = serde_json::from_slice(&zstd::decode_all(&*index).unwrap()).unwrap();
    let file = &index.files["index.html"];
    assert_eq!(
        (file.media_type.as_str(), &file.pack),
        ("text/html; charset=utf-8", &layer(PACK_TYPE))
    );
    let part = world
        .request(Method::GET, &format!("/v2/shop/blobs/{}", file.pack))
        .header(
            "range",
            format!("bytes={}-{}", file.offset, file.offset + file.length - 1),
        )
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap(), "<h1>hi</h1>");
}

#[tokio::test]
async fn the_registry_answers_only_who_may_and_only_what_is_theirs() {
    let world = World::start().await;
    let view: DeploymentView = world
        .deploy("production", &files(&[("a", "1")]))
        .await
        .json()
        .await
        .unwrap();
    let tags: Value = world.get("/v2/shop/tags/list").await.json().await.unwrap();
    assert_eq!(tags, json!({ "name": "shop", "tags": ["main-1"] }));
    assert_eq!(
        world
            .get(&format!("/v2/other/blobs/{}", view.artifact))
            .await
            .status(),
        StatusCode::NOT_FOUND
    );
    for (project, listed) in [("shop", 1), ("other", 0)] {
        let path = format!("/v2/{project}/referrers/{}", view.artifact);
        let referrers: Value = world.get(&path).await.json().await.unwrap();
        let manifests = referrers["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), listed, "{project}: {referrers}");
    }
    let anonymous = reqwest::get(format!("http://{}/v2/", world.address))
        .await
        .unwrap();
    assert_eq!(
        anonymous.headers()["www-authenticate"],
        "Basic realm=\"helix\""
    );
    let basic = world
        .client
        .get(format!("http://{}/v2/", world.address))
        .basic_auth("any", Some(&world.token));
    assert_eq!(basic.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_same_files_are_the_same_release_and_the_same_key_the_same_deployment() {
    let world = World::start().await;
    let site = files(&[("index.html", "one")]);
    let first: DeploymentView = world
        .deploy("production", &site)
        .await
        .json()
        .await
        .unwrap();
    let body = deployment("production", &site);
    let keyed = |body: &Value| {
        world
            .request(Method::POST, "/v1/projects/shop/deployments")
            .header("idempotency-key", "k1")
            .json(body)
            .send()
    };
    let second: DeploymentView = keyed(&body).await.unwrap().json().await.unwrap();
    assert_eq!((&second.release, second.number), (&first.release, 2));
    let again: DeploymentView = keyed(&body).await.unwrap().json().await.unwrap();
    assert_eq!(again, second);
    let other = keyed(&deployment("preview/1", &site)).await.unwrap();
    assert_eq!(problem(other).await.1, "idempotency-key-reused");
    let preview: DeploymentView = world.deploy("preview/1", &site).await.json().await.unwrap();
    assert_ne!(preview.release, first.release);
    assert_eq!((preview.label.as_str(), preview.number), ("preview/1", 3));
}

#[tokio::test]
async fn deployments_that_cannot_be_served_are_refused() {
    let world = World::start().await;
    let path = "/v1/projects/shop/deployments";
    let missing = world
        .post(
            path,
            &deployment("production", &files(&[("a", "nobody sent this")])),
        )
        .await;
    let (status, kind, body) = problem(missing).await;
    assert_eq!((status, kind.as_str()), (409, "missing-contents"));
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains(sha256(b"nobody sent this").as_str())
    );
    assert_eq!(
        problem(world.post(path, &deployment("production", &[])).await)
            .await
            .1,
        "no-files"
    );
    for bad in ["../x", "/x", "a//b", "a\\b", "x\n"] {
        assert_eq!(
            problem(world.deploy("production", &files(&[(bad, "1")])).await)
                .await
                .1,
            "illegal-path",
            "{bad:?}"
        );
    }
    let both = world
        .deploy("production", &files(&[("a", "1"), ("a/b", "2")]))
        .await;
    assert_eq!(problem(both).await.1, "illegal-path");
    let twins = world
        .deploy("production", &files(&[("Readme", "1"), ("readme", "2")]))
        .await;
    assert_eq!(twins.status(), StatusCode::OK);
}

#[tokio::test]
async fn twenty_thousand_files_are_one_release() {
    let world = World::start().await;
    let site: Vec<(String, Vec<u8>)> = (0..20_000)
        .map(|n| {
            (
                format!("d{}/f{n}.txt", n % 100),
                format!("file {n}").into_bytes(),
            )
        })
        .collect();
    let view: DeploymentView = world
        .deploy("production", &site)
        .await
        .json()
        .await
        .unwrap();
    let releases: Value = world
        .get("/v1/projects/shop/releases")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(releases[0]["release"], view.release.as_str());
    assert_eq!(releases[0]["files"], 20_000);
}

#[tokio::test]
async fn a_release_stays_in_few_packs_however_often_it_changes() {
    let world = World::start().await;
    let mut site = files(&[("stays", "the whole time")]);
    let mut newest = None;
    for n in 0..40 {
        site.push((format!("f{n}"), format!("content {n}").into_bytes()));
        let newly = site.last().unwrap().1.clone();
        world.pack("shop", frame(&newly, &sha256(&newly))).await;
        world
            .pack("shop", frame(&site[0].1, &sha256(&site[0].1)))
            .await;
        let made = world
            .post(
                "/v1/projects/shop/deployments",
                &deployment("production", &site),
            )
            .await;
        newest = Some(made.json::<DeploymentView>().await.unwrap());
    }
    let artifact = newest.unwrap().artifact;
    let manifest: Manifest = world
        .get(&format!("/v2/shop/manifests/{artifact}"))
        .await
        .json()
        .await
        .unwrap();
    assert!(
        manifest.layers.len() <= 34,
        "{} layers",
        manifest.layers.len()
    );
    let index = world.app.artifacts.index(&artifact).await.unwrap();
    for (path, content) in &site {
        let file = &index.files[path];
        let blob = world
            .get(&format!("/v2/shop/blobs/{}", file.pack))
            .await
            .bytes()
            .await
            .unwrap();
        let (start, end) = (
            usize::try_from(file.offset).unwrap(),
            usize::try_from(file.offset + file.length).unwrap(),
        );
        assert_eq!(&blob[start..end], content.as_slice(), "{path}");
    }
}
