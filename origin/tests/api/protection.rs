//! Who may see a project's sites: what is said of it, what records carry, links, and previews that are taken down for their age.

use std::time::Duration;

use helix_origin::feed::records;
use helix_origin::source::{expiry, feedback};
use helix_origin::visitor_key;
use helix_routing::record::SiteRecord;
use helix_service::clock;
use helix_service::pass::{Key, Kind};
use helix_service::password;
use reqwest::Method;
use serde_json::{Value, json};

use crate::forge::{commit, json_of, pull_request};
use crate::world::{World, files, problem};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl World {
    async fn protect(&self, body: &Value) -> Value {
        let path = "/v1/projects/shop/protection";
        json_of(
            self.request(Method::PUT, path)
                .json(body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// The record of preview 42.
    async fn record(&self) -> SiteRecord {
        let mut reader = self.app.store.reader().acquire().await.unwrap();
        let (region, site) = ("fra".parse().unwrap(), "shop/preview/42".parse().unwrap());
        let record = records::site(&mut reader, &region, &site).await.unwrap();
        record.expect("a record")
    }

    /// The rollouts of all sites end, as if edges had said so.
    async fn settle(&self) {
        let mut tx = self.app.store.write().await.unwrap();
        sqlx::query("UPDATE rollouts SET outcome = 'settled' WHERE outcome IS NULL")
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn previews_of_a_private_repository_are_protected_from_their_first_record_on() {
    let world = World::start().await;
    world.link(json!({ "private": true })).await;
    json_of(
        world
            .deploy("preview/42", &files(&[("index.html", "x")]))
            .await,
    )
    .await;
    let record = world.record().await;
    assert_eq!(record.generation.0, 1);
    let protection = record.protection.expect("it is protected");
    assert!(protection.password.is_none() && protection.exempt.is_empty());
    let view: Value = world
        .get("/v1/projects/shop/protection")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&view["on"], &view["revision"], &view["kind"]),
        (&json!(true), &json!(1), &json!("preview"))
    );
    assert!(!view.to_string().contains(&protection.secret));
    let production: Value = world
        .get("/v1/projects/shop/protection?kind=production")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(production["on"], false);
    // Turned off by somebody, linking again changes nothing.
    world.settle().await;
    world
        .protect(&json!({ "kind": "preview", "on": false }))
        .await;
    assert_eq!(world.record().await.protection, None);
    world.link(json!({ "private": true })).await;
    assert_eq!(world.record().await.protection, None);
    let public = World::start().await;
    public.link(json!({})).await;
    json_of(
        public
            .deploy("preview/42", &files(&[("index.html", "x")]))
            .await,
    )
    .await;
    assert_eq!(public.record().await.protection, None);
}

#[tokio::test]
async fn a_change_that_keeps_somebody_out_makes_a_new_key() {
    let world = World::start().await;
    world.link(json!({ "private": true })).await;
    json_of(
        world
            .deploy("preview/42", &files(&[("index.html", "x")]))
            .await,
    )
    .await;
    // While a rollout runs its next write tells; when it has ended, every change is told at once.
    let during = world
        .protect(&json!({ "kind": "preview", "exempt": ["/hooks/*"] }))
        .await;
    assert_eq!(during["untold"], json!(["shop/preview/42"]));
    world.settle().await;
    let secret = |record: SiteRecord| record.protection.map(|held| held.secret).unwrap();
    let first = secret(world.record().await);
    for (change, renews) in [
        (json!({ "exempt": ["/api/webhooks/*", "/health"] }), false),
        (json!({ "password": "correct horse" }), true),
        (json!({ "on": true }), false),
        (json!({ "revoke": true }), true),
        (json!({ "no_password": true }), true),
        (json!({ "no_password": true }), false),
    ] {
        let before = secret(world.record().await);
        let mut body = change.clone();
        body["kind"] = json!("preview");
        let view = world.protect(&body).await;
        assert_eq!(view["untold"], json!([]));
        assert_eq!(secret(world.record().await) != before, renews, "{change}");
        assert_eq!(
            view["has_password"],
            json!(
                change.get("password").is_some()
                    || change.get("on").is_some()
                    || change.get("revoke").is_some()
            ),
            "{change}"
        );
    }
    world
        .protect(&json!({ "kind": "preview", "on": false }))
        .await;
    world
        .protect(&json!({ "kind": "preview", "on": true }))
        .await;
    assert_ne!(
        secret(world.record().await),
        first,
        "what was given out before it was off is over"
    );
    assert_eq!(world.record().await.protection.unwrap().exempt.len(), 2);
}

#[tokio::test]
async fn a_password_is_kept_nowhere() {
    const TYPED: &str = "a password nobody has";
    let world = World::start().await;
    world.link(json!({ "private": true })).await;
    json_of(
        world
            .deploy("preview/42", &files(&[("index.html", "x")]))
            .await,
    )
    .await;
    world.settle().await;
    let view = world
        .protect(&json!({ "kind": "preview", "password": TYPED }))
        .await;
    let kept = world.record().await.protection.unwrap().password.unwrap();
    assert!(password::is(&kept, TYPED.as_bytes()) && !password::is(&kept, b"another"));
    let audit = world
        .get("/v1/audit?project=shop")
        .await
        .text()
        .await
        .unwrap();
    assert!(
        audit.contains("protection.change") && audit.contains("a new password"),
        "{audit}"
    );
    let events = world.events().await.join("\n");
    for text in [view.to_string(), audit, events] {
        assert!(!text.contains(TYPED), "{text}");
    }
    for entry in walk(world.folder.path()) {
        let bytes = std::fs::read(&entry).unwrap_or_default();
        let found = bytes
            .windows(TYPED.len())
            .any(|part| part == TYPED.as_bytes());
        assert!(!found, "{}", entry.display());
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[tokio::test]
async fn what_protects_nothing_is_refused_by_name() {
    let world = World::start().await;
    world.link(json!({})).await;
    let put = async |body: Value| {
        let path = "/v1/projects/shop/protection";
        let answer = world
            .request(Method::PUT, path)
            .json(&body)
            .send()
            .await
            .unwrap();
        problem(answer).await
    };
    for (body, kind) in [
        (
            json!({ "kind": "preview", "password": "short" }),
            "illegal-protection",
        ),
        (
            json!({ "kind": "preview", "password": "x".repeat(300) }),
            "illegal-protection",
        ),
        (
            json!({ "kind": "preview", "password": "correct\nhorse" }),
            "illegal-protection",
        ),
        (
            json!({ "kind": "preview", "password": "correct horse", "no_password": true }),
            "illegal-protection",
        ),
        (
            json!({ "kind": "preview", "exempt": vec!["/a"; 33] }),
            "illegal-protection",
        ),
    ] {
        let (status, found, _) = put(body).await;
        assert_eq!((status, found.as_str()), (422, kind));
    }
    let (status, _, problem_of) = put(json!({ "kind": "preview", "exempt": ["/*"] })).await;
    assert!(
        (400..500).contains(&status) && problem_of.to_string().contains("exempts no paths"),
        "{problem_of}"
    );
    let share = async |ttl: u64| {
        let body = json!({ "environment": "preview/42", "ttl_seconds": ttl });
        problem(world.post("/v1/projects/shop/shares", &body).await).await
    };
    assert_eq!(share(3600).await.1, "not-protected");
    assert_eq!(share(1).await.1, "illegal-protection");
    assert_eq!(share(91 * 24 * 3600).await.1, "illegal-protection");
    // Who deploys may let somebody in, and not change who is kept out.
    let deployer = world.token("deploy").await;
    let as_deployer = |method, path: &str, body: Value| {
        world
            .client
            .request(method, format!("http://{}{path}", world.address))
            .bearer_auth(&deployer)
            .json(&body)
            .send()
    };
    world.protect(&json!({ "kind": "preview" })).await;
    let change = as_deployer(
        Method::PUT,
        "/v1/projects/shop/protection",
        json!({ "kind": "preview", "on": false }),
    );
    assert_eq!(problem(change.await.unwrap()).await.0, 403);
    let body = json!({ "environment": "preview/42", "ttl_seconds": 3600 });
    let shared = as_deployer(Method::POST, "/v1/projects/shop/shares", body)
        .await
        .unwrap();
    assert_eq!(shared.status(), 200);
}

#[tokio::test]
async fn a_link_is_signed_with_both_halves_of_the_key_for_its_site() {
    let world = World::start().await;
    world.link(json!({ "private": true })).await;
    json_of(
        world
            .deploy("preview/42", &files(&[("index.html", "x")]))
            .await,
    )
    .await;
    let body = json!({ "environment": "preview/42", "ttl_seconds": 3600 });
    let shared = json_of(world.post("/v1/projects/shop/shares", &body).await).await;
    let pass = shared["pass"].as_str().unwrap();
    let url = format!("http://pr-42.preview.shop.helix.localhost:8081/?_helix_access={pass}");
    assert_eq!(shared["url"], json!(url));
    let fleet = visitor_key::current(&world.app.store).await.unwrap();
    let own = world.record().await.protection.unwrap().secret;
    let key = Key::of_secret(&fleet.secret, &own);
    let now = clock::now().as_millis() / 1000;
    let end = key
        .read(Kind::Link, "shop/preview/42", now, pass.as_bytes())
        .unwrap();
    assert!((3590..=3600).contains(&(end - now)));
    assert_eq!(
        key.read(Kind::Link, "shop/preview/43", now, pass.as_bytes()),
        None
    );
    let audit = world
        .get("/v1/audit?project=shop")
        .await
        .text()
        .await
        .unwrap();
    assert!(
        audit.contains("protection.share") && !audit.contains(pass),
        "{audit}"
    );
}

#[tokio::test]
async fn an_operator_rotates_the_key_and_edges_are_told_of_both() {
    let world = World::start().await;
    let key = async || json_of(world.get("/v1/visitor-key").await).await;
    let before = key().await;
    assert_eq!(before["also"], Value::Null, "one alone");
    let rotation = world.post("/v1/visitor-key/rotation", &json!(null)).await;
    let rotation = json_of(rotation).await;
    assert!(rotation["signs_from"].as_u64() > Some(clock::now().as_millis()));
    let after = key().await;
    assert_eq!(
        after["secret"], before["secret"],
        "nothing signs with it yet"
    );
    assert_eq!(after["also"].as_array().unwrap().len(), 1);
    let again = world.post("/v1/visitor-key/rotation", &json!(null)).await;
    let (status, kind, _) = problem(again).await;
    assert_eq!((status, kind.as_str()), (409, "rotation-under-way"));
    let audit = world.get("/v1/audit").await.text().await.unwrap();
    let also = after["also"][0].as_str().unwrap();
    assert!(audit.contains("visitor_key.rotate") && !audit.contains(also));
    assert_eq!(key().await, after);
}

#[tokio::test]
async fn a_preview_is_taken_down_for_its_age_and_a_commit_brings_it_back() {
    let world = World::start().await;
    let secret = world.link(json!({ "preview_days": 10 })).await;
    let worker = world.token("build").await;
    let build = &world.opened(&secret, &commit('a')).await;
    json_of(world.claim(&worker, build, "w").await).await;
    json_of(
        world
            .succeed(&worker, build, "w", &files(&[("index.html", "x")]))
            .await,
    )
    .await;
    let open = async || {
        let projects: Value = world.get("/v1/projects").await.json().await.unwrap();
        projects[0]["sites"] == json!(["shop/preview/42"])
    };
    let later = |days: u32| clock::now() + DAY * days;
    expiry::sweep_at(&world.app, later(20)).await.unwrap();
    assert!(open().await, "its rollout runs");
    world.settle().await;
    expiry::sweep_at(&world.app, later(9)).await.unwrap();
    assert!(open().await, "it is not old enough");
    expiry::sweep_at(&world.app, later(11)).await.unwrap();
    assert!(!open().await && world.record().await.removed);
    let events = world.events().await;
    assert_eq!(
        events
            .iter()
            .filter(|kind| *kind == "deployment.preview.expired")
            .count(),
        1
    );
    let audit = world
        .get("/v1/audit?project=shop")
        .await
        .text()
        .await
        .unwrap();
    assert!(
        audit.contains("preview.expire") && audit.contains("10 days"),
        "{audit}"
    );
    feedback::tell_due(&world.app).await.unwrap();
    // The same again changes nothing.
    expiry::sweep_at(&world.app, later(12)).await.unwrap();
    let events = world.events().await;
    assert_eq!(
        events
            .iter()
            .filter(|kind| *kind == "deployment.preview.expired")
            .count(),
        1
    );
    // The pull request is open: its next commit is built.
    let mut newer = pull_request("synchronize", &commit('b'), 1);
    newer["before"] = json!(commit('a'));
    let (_, updated) = world.hook(&secret, "pull_request", &newer).await;
    let second = updated["build"].as_str().expect("a build").to_owned();
    json_of(world.claim(&worker, &second, "w").await).await;
    json_of(
        world
            .succeed(&worker, &second, "w", &files(&[("index.html", "y")]))
            .await,
    )
    .await;
    assert!(open().await && !world.record().await.removed);
    crate::schema::events_fit(&world.app.store).await;
}

#[tokio::test]
async fn a_preview_that_never_expires_or_that_the_alias_shows_stays() {
    let world = World::start().await;
    world.link(json!({ "preview_days": 0 })).await;
    json_of(
        world
            .deploy("preview/42", &files(&[("index.html", "x")]))
            .await,
    )
    .await;
    world.settle().await;
    let later = clock::now() + DAY * 4000;
    expiry::sweep_at(&world.app, later).await.unwrap();
    assert!(!world.record().await.removed, "0 is never");
    world.link(json!({})).await;
    let mut tx = world.app.store.write().await.unwrap();
    let alias = "preview.shop.helix.localhost".parse().unwrap();
    let site = "shop/preview/42".parse().unwrap();
    records::put_host(&mut tx, &alias, Some(&site))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    expiry::sweep_at(&world.app, later).await.unwrap();
    assert!(!world.record().await.removed, "the alias shows it");
    let mut tx = world.app.store.write().await.unwrap();
    records::put_host(&mut tx, &alias, None).await.unwrap();
    tx.commit().await.unwrap();
    expiry::sweep_at(&world.app, later).await.unwrap();
    assert!(world.record().await.removed);
    let refused = world
        .request(Method::PUT, "/v1/projects/shop/link")
        .json(&json!({ "url": "https://github.com/acme/shop", "preview_days": 5000 }));
    assert_eq!(
        problem(refused.send().await.unwrap()).await.1,
        "illegal-link"
    );
}
