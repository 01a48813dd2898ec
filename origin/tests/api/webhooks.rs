//! Webhooks, to a receiver on this machine that checks every signature by its own means.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helix_origin::webhook::deliver;
use helix_origin::webhook::schedule::Patience;
use helix_origin::webhook::send::Permitted;
use helix_routing::routes::Span;
use helix_service::digest::sha256;
use helix_service::reachable::Reachable;
use helix_service::shutdown::{Shutdown, ShutdownHandle};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::world::{World, files, problem};

const DEADLINE: Duration = Duration::from_secs(60);

/// One request, as it came.
#[derive(Clone, Debug)]
struct Got {
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// As Standard Webhooks describes it, with an HMAC (RFC 2104) that is not the one origin uses.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let signed = format!(
            "{}.{}.{}",
            self.header("webhook-id"),
            self.header("webhook-timestamp"),
            self.body
        );
        let mac = hmac(&key, signed.as_bytes());
        self.header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |with: u8| block.map(|byte| byte ^ with).to_vec();
    let digest = |bytes: &[u8]| hex::decode(sha256(bytes).hex()).unwrap();
    let inner = digest(&[padded(0x36), message.to_vec()].concat());
    digest(&[padded(0x5c), inner].concat())
}

/// Answers as it is told, and with 204 when it is not.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
}

impl Receiver {
    async fn start() -> (Self, SocketAddr) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/hook", post(take))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, address)
    }

    fn answer(&self, statuses: &[u16]) {
        let statuses = statuses
            .iter()
            .map(|status| StatusCode::from_u16(*status).unwrap());
        self.answers.lock().unwrap().extend(statuses);
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn kinds(&self) -> Vec<String> {
        self.got().iter().map(Got::kind).collect()
    }

    async fn wait_for(&self, count: usize) -> Vec<Got> {
        until(&format!("{count} requests"), async || {
            self.got().len() >= count
        })
        .await;
        self.got()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> Response {
    receiver.got.lock().unwrap().push(Got { headers, body });
    let answer = receiver.answers.lock().unwrap().pop_front();
    let status = answer.unwrap_or(StatusCode::NO_CONTENT);
    if status == StatusCode::FOUND {
        return (status, [("location", "/elsewhere")]).into_response();
    }
    (status, if status.is_success() { "" } else { "not\nnow" }).into_response()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Origin's sender, as its process runs it.
fn send(world: &World) -> (JoinHandle<()>, ShutdownHandle) {
    let (shutdown, handle) = Shutdown::manual();
    let (store, sender) = (world.app.store.clone(), world.app.webhooks.clone());
    let task = tokio::spawn(async move { deliver::run(&store, &sender, &shutdown).await });
    (task, handle)
}

async fn world(disable_after: Span) -> World {
    let mut world = World::start().await;
    let allow = ["127.0.0.0/8"].map(|range| range.parse().unwrap()).to_vec();
    world.app.webhooks.permitted = Arc::new(Permitted {
        reachable: Reachable {
            allow,
            ..Reachable::default()
        },
        plain_http: true,
    });
    world.app.webhooks.patience = Patience {
        first_retry: Span::from_millis(50),
        longest_retry: Span::from_millis(200),
        retry_for: Span::from_secs(600),
        disable_after,
    };
    world.serve_again().await;
    world
}

const NEVER: Span = Span::from_secs(24 * 60 * 60);

async fn add(world: &World, address: SocketAddr, events: &[&str]) -> (String, String) {
    let new = json!({ "url": format!("http://{address}/hook"), "events": events });
    let response = world.post("/v1/webhooks", &new).await;
    assert_eq!(response.status(), 201);
    let created: Value = response.json().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&created["view"]["webhook"]), text(&created["secret"]))
}

async fn deliveries(world: &World, webhook: &str) -> Vec<Value> {
    let path = format!("/v1/webhooks/{webhook}/deliveries");
    world.get(&path).await.json().await.unwrap()
}

async fn hold(world: &World, reason: &str) {
    let hold = json!({ "reason": reason, "environment": "production" });
    let set = world.post("/v1/projects/shop/holds", &hold).await;
    assert_eq!(set.status(), 200);
}

#[tokio::test]
async fn events_of_a_change_are_delivered_in_order_and_signed() {
    let world = world(NEVER).await;
    let (receiver, address) = Receiver::start().await;
    let (_, secret) = add(&world, address, &[]).await;
    let (_task, _running) = send(&world);
    let page = files(&[("index.html", "one")]);
    let deployed: Value = world
        .deploy("production", &page)
        .await
        .json()
        .await
        .unwrap();
    hold(&world, "look first").await;
    let _ = world
        .deploy("production", &files(&[("index.html", "two")]))
        .await;
    let got = receiver.wait_for(4).await;
    assert_eq!(
        receiver.kinds(),
        [
            "deployment.created",
            "hold.set",
            "deployment.superseded",
            "deployment.created"
        ]
    );
    let mut ids = std::collections::BTreeSet::new();
    for one in &got {
        assert!(one.is_signed_with(&secret), "{one:?}");
        assert!(
            !one.is_signed_with("whsec_AAAA"),
            "a signature means something"
        );
        assert_eq!(one.header("content-type"), "application/json");
        assert_eq!(one.json()["data"]["project"], "shop");
        assert!(ids.insert(one.header("webhook-id").to_owned()));
    }
    let first = got[0].json();
    assert_eq!(first["data"]["release"], deployed["release"]);
    assert_eq!(first["data"]["label"], "main/1");
    assert!(first["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(got[1].json()["data"]["reason"], "look first");
    assert_eq!(got[2].json()["data"]["outcome"], "superseded");
}

#[tokio::test]
async fn what_fails_is_tried_again_under_its_id_and_a_redirect_is_not_followed() {
    let world = world(NEVER).await;
    let (receiver, address) = Receiver::start().await;
    receiver.answer(&[500, 302, 503]);
    let (webhook, secret) = add(&world, address, &["hold.*"]).await;
    let (_task, _running) = send(&world);
    let _ = world
        .deploy("production", &files(&[("index.html", "one")]))
        .await;
    hold(&world, "one").await;
    let got = receiver.wait_for(4).await;
    let ids: Vec<&str> = got.iter().map(|one| one.header("webhook-id")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(got.iter().all(|one| one.is_signed_with(&secret)));
    until("its state", async || {
        deliveries(&world, &webhook).await[0]["state"] == "delivered"
    })
    .await;
    let delivery = deliveries(&world, &webhook).await[0].clone();
    assert_eq!(
        (&delivery["attempts"], &delivery["status"]),
        (&json!(4), &json!(204))
    );

    // Again by hand: the same id, a new time.
    let id = delivery["delivery"].as_str().unwrap();
    let replay = format!("/v1/deliveries/{id}/replay");
    assert_eq!(world.post(&replay, &json!(null)).await.status(), 200);
    let got = receiver.wait_for(5).await;
    assert_eq!(got[4].header("webhook-id"), ids[0]);
    assert!(got[4].is_signed_with(&secret));
    let unknown = world
        .post("/v1/deliveries/dlv_x/replay", &json!(null))
        .await;
    assert_eq!(problem(unknown).await.1, "unknown-delivery");
}

#[tokio::test]
async fn what_waits_is_delivered_by_the_next_origin() {
    let world = world(NEVER).await;
    let (receiver, address) = Receiver::start().await;
    let (webhook, _) = add(&world, address, &["hold.set"]).await;
    let _ = world
        .deploy("production", &files(&[("index.html", "one")]))
        .await;
    receiver.answer(&[500]);
    let (task, running) = send(&world);
    hold(&world, "one").await;
    receiver.wait_for(1).await;
    // As a kill would: wherever it is.
    task.abort();
    drop(running);
    hold(&world, "two").await;
    let before = receiver.got().len();
    let (_task, _running) = send(&world);
    receiver.wait_for(before + 2).await;
    until("both", async || {
        let all = deliveries(&world, &webhook).await;
        all.len() == 2 && all.iter().all(|one| one["state"] == "delivered")
    })
    .await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn a_webhook_that_fails_for_long_is_disabled_shown_and_enabled_by_hand() {
    let world = world(Span::from_millis(300)).await;
    let (receiver, address) = Receiver::start().await;
    receiver.answer(&[500; 50]);
    let (webhook, _) = add(&world, address, &["hold.set"]).await;
    let (_task, _running) = send(&world);
    let _ = world
        .deploy("production", &files(&[("index.html", "one")]))
        .await;
    hold(&world, "one").await;
    let shown = async || -> Value {
        let all: Value = world.get("/v1/webhooks").await.json().await.unwrap();
        all[0].clone()
    };
    until("its end", async || !shown().await["disabled"].is_null()).await;
    let view = shown().await;
    let why = view["disabled_because"].as_str().unwrap();
    assert!(
        why.contains("answered 500") && why.contains("not now"),
        "{why}"
    );
    assert!(!view["failing"].is_null());
    assert_eq!(deliveries(&world, &webhook).await[0]["state"], "failed");
    hold(&world, "two").await;
    assert_eq!(
        deliveries(&world, &webhook).await.len(),
        1,
        "nothing is queued"
    );
    let test = format!("/v1/webhooks/{webhook}/test");
    let refused = world.post(&test, &json!(null)).await;
    assert_eq!(problem(refused).await.1, "webhook-disabled");

    receiver.answers.lock().unwrap().clear();
    let enable = format!("/v1/webhooks/{webhook}/enable");
    let view: Value = world
        .post(&enable, &json!(null))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(view["disabled"], json!(null));
    let sent: Value = world.post(&test, &json!(null)).await.json().await.unwrap();
    let path = format!("/v1/deliveries/{}", sent["delivery"].as_str().unwrap());
    until("the test", async || {
        let now: Value = world.get(&path).await.json().await.unwrap();
        now["state"] == "delivered"
    })
    .await;
    assert_eq!(receiver.kinds().last().unwrap(), "webhook.test");
    let log: Value = world
        .get("/v1/audit?action=webhook")
        .await
        .json()
        .await
        .unwrap();
    let actions: Vec<&str> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "webhook.test",
            "webhook.enable",
            "webhook.disable",
            "webhook.add"
        ]
    );

    // One that says that it is gone is believed at once.
    receiver.answer(&[410]);
    hold(&world, "three").await;
    until("its end", async || !shown().await["disabled"].is_null()).await;
    let removed = world
        .request(Method::DELETE, &format!("/v1/webhooks/{webhook}"))
        .send()
        .await
        .unwrap();
    assert_eq!(removed.status(), 204);
    assert_eq!(
        problem(world.post(&test, &json!(null)).await).await.1,
        "unknown-webhook"
    );
}

#[tokio::test]
async fn webhooks_that_lead_inside_or_mean_nothing_are_refused() {
    let strict = World::start().await;
    for (url, word) in [
        ("https://127.0.0.1/", "does not connect to"),
        ("https://[::ffff:10.0.0.1]/", "does not connect to"),
        ("https://169.254.169.254/", "does not connect to"),
        ("http://hooks.example/", "has to be https"),
        ("https://hooks.example:22/", "port 22"),
        ("ftp://hooks.example/", "https://host/path"),
        ("https://me:secret@hooks.example/", "https://host/path"),
    ] {
        let refused = problem(strict.post("/v1/webhooks", &json!({ "url": url })).await).await;
        assert_eq!(
            (refused.0, refused.1.as_str()),
            (422, "illegal-webhook-url"),
            "{url}"
        );
        let title = refused.2["title"].as_str().unwrap();
        assert!(title.contains(word) && !title.contains("secret"), "{title}");
    }
    let odd = json!({ "url": "https://hooks.example/", "events": ["Hold Set"] });
    assert_eq!(
        problem(strict.post("/v1/webhooks", &odd).await).await.1,
        "illegal-events"
    );
    let nobody = json!({ "url": "https://hooks.example/", "project": "nobody" });
    assert_eq!(
        problem(strict.post("/v1/webhooks", &nobody).await).await.1,
        "unknown-project"
    );

    // A name is judged when it is looked up: this one leads to this machine.
    let fine = json!({ "url": "https://localhost:1/" });
    let created: Value = strict
        .post("/v1/webhooks", &fine)
        .await
        .json()
        .await
        .unwrap();
    assert!(created["secret"].as_str().unwrap().starts_with("whsec_"));
    let webhook = created["view"]["webhook"].as_str().unwrap();
    let (_task, _running) = send(&strict);
    let test = format!("/v1/webhooks/{webhook}/test");
    let sent: Value = strict.post(&test, &json!(null)).await.json().await.unwrap();
    let path = format!("/v1/deliveries/{}", sent["delivery"].as_str().unwrap());
    until("the refusal", async || {
        let now: Value = strict.get(&path).await.json().await.unwrap();
        let error = now["error"].as_str().unwrap_or_default();
        error.contains("does not connect to") && now["state"] == "pending"
    })
    .await;
    let listed: Value = strict.get("/v1/webhooks").await.json().await.unwrap();
    assert!(
        !listed.to_string().contains("whsec_"),
        "a secret is shown once"
    );
}
