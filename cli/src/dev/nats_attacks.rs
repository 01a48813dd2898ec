//! The generated configuration against the real server: what an edge may do, and what an edge
//! that was taken over cannot.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber};
use futures_util::StreamExt as _;
use helix_routing::queue;
use helix_service::port;
use nkeys::KeyPair;

use super::nats_config::{EdgeUser, NatsConfig};

/// How long something that must arrive may take.
const ARRIVES: Duration = Duration::from_secs(5);

struct Fleet {
    _server: tokio::process::Child,
    _folder: tempfile::TempDir,
    origin: Client,
    operator: Client,
    worker: Client,
    edges: Vec<Client>,
}

const EDGES: [(&str, &str); 3] = [("fra-1", "fra"), ("fra-2", "fra"), ("iad-1", "iad")];

/// A server with an origin and three edges connected; none where there is no `nats-server`.
async fn fleet() -> Option<Fleet> {
    let Ok(program) = super::programs::nats_server(None) else {
        crate::output::say("skipped: no nats-server in $NATS_SERVER, .tools/bin or $PATH");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<KeyPair> = (0..6).map(|_| KeyPair::new_user()).collect();
    let port = port::free().unwrap();
    let config = NatsConfig {
        port,
        monitor_port: port::free().unwrap(),
        store: folder.path().join("store"),
        origin: keys[0].public_key(),
        operator: keys[4].public_key(),
        worker: keys[5].public_key(),
        edges: EDGES
            .iter()
            .zip(&keys[1..4])
            .map(|((edge, region), key)| EdgeUser {
                edge: edge.parse().unwrap(),
                region: region.parse().unwrap(),
                nkey: key.public_key(),
            })
            .collect(),
    };
    let path = folder.path().join("nats.conf");
    std::fs::write(&path, config.render()).unwrap();
    let server = start(&program, &path).await;
    let mut clients = Vec::new();
    for key in &keys {
        clients.push(connect(port, &key.seed().unwrap()).await);
    }
    let worker = clients.remove(5);
    let (origin, operator) = (clients.remove(0), clients.remove(3));
    fill(&origin).await;
    Some(Fleet {
        _server: server,
        _folder: folder,
        origin,
        operator,
        worker,
        edges: clients,
    })
}

async fn start(program: &Path, config: &Path) -> tokio::process::Child {
    let checked = tokio::process::Command::new(program)
        .arg("-t")
        .arg("-c")
        .arg(config)
        .output()
        .await
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    tokio::process::Command::new(program)
        .arg("-c")
        .arg(config)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn connect(port: u16, seed: &str) -> Client {
    ConnectOptions::with_nkey(seed.to_owned())
        .retry_on_initial_connect()
        .connect(format!("nats://127.0.0.1:{port}"))
        .await
        .unwrap()
}

/// Streams as origin makes them, each with one record `x` under the key `cut.a`.
async fn fill(origin: &Client) {
    let context = jetstream::new(origin.clone());
    for tag in ["g", "r_fra", "r_iad"] {
        let feed = format!("edge.{}.>", tag.replace('_', "."));
        let config = stream::Config {
            name: format!("KV_{tag}"),
            subjects: vec![format!("$KV.{tag}.>")],
            allow_direct: true,
            max_messages_per_subject: 1,
            republish: Some(stream::Republish {
                source: format!("$KV.{tag}.>"),
                destination: feed,
                headers_only: false,
            }),
            ..stream::Config::default()
        };
        let deadline = tokio::time::Instant::now() + ARRIVES;
        while let Err(error) = context.create_stream(config.clone()).await {
            assert!(
                tokio::time::Instant::now() < deadline,
                "create stream KV_{tag}: {error}"
            );
        }
        put(origin, tag, &format!("secret of {tag}")).await;
    }
}

async fn put(origin: &Client, tag: &str, value: &str) {
    let context = jetstream::new(origin.clone());
    context
        .publish(format!("$KV.{tag}.cut.a"), value.to_owned().into())
        .await
        .unwrap()
        .await
        .unwrap();
}

async fn stored(origin: &Client, tag: &str) -> String {
    let stream = jetstream::new(origin.clone())
        .get_stream(format!("KV_{tag}"))
        .await
        .unwrap();
    let message = stream
        .get_last_raw_message_by_subject(&format!("$KV.{tag}.cut.a"))
        .await
        .unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

/// Reads the record of a stream directly, as an edge does to repair its feed.
async fn direct(edge: &Client, tag: &str) -> Result<String, String> {
    let query = format!("{{\"last_by_subj\":\"$KV.{tag}.cut.a\"}}");
    let request = edge.request(format!("$JS.API.DIRECT.GET.KV_{tag}"), query.into());
    match tokio::time::timeout(Duration::from_millis(500), request).await {
        Ok(Ok(message)) => Ok(String::from_utf8(message.payload.to_vec()).unwrap()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(String::from("no answer")),
    }
}

async fn next(subscriber: &mut Subscriber) -> async_nats::Message {
    tokio::time::timeout(ARRIVES, subscriber.next())
        .await
        .expect("nothing arrived")
        .unwrap()
}

/// Returns when the server has acted on all that an edge sent so far: it answers in order.
async fn acted_on(edge: &Client) {
    direct(edge, "g").await.unwrap();
}

/// Subscribes origin, and returns when the server has.
async fn hear(origin: &Client, subject: &'static str) -> Subscriber {
    let subscriber = origin.subscribe(subject).await.unwrap();
    stored(origin, "g").await;
    subscriber
}

/// Asserts that nothing comes until something that was sent later has.
async fn hears_nothing(subscriber: &mut Subscriber) {
    let heard = tokio::time::timeout(Duration::from_millis(50), subscriber.next()).await;
    assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
}

#[tokio::test]
async fn an_edge_follows_its_region_reads_it_directly_and_reports_under_its_own_name() {
    let Some(fleet) = fleet().await else { return };
    let edge = &fleet.edges[0];

    let mut feed = edge.subscribe("edge.r.fra.>").await.unwrap();
    acted_on(edge).await;
    put(&fleet.origin, "r_fra", "second").await;
    let message = next(&mut feed).await;
    assert_eq!(message.subject.as_str(), "edge.r.fra.cut.a");
    assert!(message.headers.unwrap().get("Nats-Sequence").is_some());

    assert_eq!(direct(edge, "r_fra").await.unwrap(), "second");
    assert_eq!(direct(edge, "g").await.unwrap(), "secret of g");

    let mut reports = hear(&fleet.origin, "rpt.>").await;
    let mut forged = HeaderMap::new();
    forged.insert("Nats-Request-Info", "{\"acc\":\"EDGE_iad-1\"}");
    edge.publish_with_headers("rpt.fra.fra-1.heartbeat", forged, "alive".into())
        .await
        .unwrap();
    let report = next(&mut reports).await;
    assert_eq!(report.subject.as_str(), "rpt.fra.fra-1.heartbeat");
    let info = report
        .headers
        .unwrap()
        .get("Nats-Request-Info")
        .unwrap()
        .to_string();
    assert!(info.contains("\"acc\":\"EDGE_fra-1\""), "{info}");
}

#[tokio::test]
async fn an_edge_cannot_read_another_region() {
    let Some(fleet) = fleet().await else { return };
    let edge = &fleet.edges[0];
    let answer = direct(edge, "r_iad").await;
    assert!(answer.is_err(), "{answer:?}");
    let mut feed = edge.subscribe("edge.r.iad.>").await.unwrap();
    acted_on(edge).await;
    put(&fleet.origin, "r_iad", "second").await;
    hears_nothing(&mut feed).await;
}

#[tokio::test]
async fn an_edge_cannot_write_records_or_report_as_another() {
    let Some(fleet) = fleet().await else { return };
    let edge = &fleet.edges[0];
    let mut reports = hear(&fleet.origin, "rpt.>").await;
    for subject in [
        "$KV.r_fra.cut.a",
        "$KV.r_iad.cut.a",
        "edge.r.fra.cut.a",
        "rpt.fra.fra-2.heartbeat",
        "rpt.iad.iad-1.heartbeat",
        "$JS.API.STREAM.PURGE.KV_r_fra",
        "$JS.API.CONSUMER.CREATE.KV_r_fra",
        "$JS.API.DIRECT.GET.KV_r_iad",
    ] {
        edge.publish(subject, "forged".into()).await.unwrap();
    }
    acted_on(edge).await;
    assert_eq!(stored(&fleet.origin, "r_fra").await, "secret of r_fra");
    assert_eq!(stored(&fleet.origin, "r_iad").await, "secret of r_iad");
    hears_nothing(&mut reports).await;
}

#[tokio::test]
async fn an_operator_writes_sites_of_regions_and_nothing_else() {
    let Some(fleet) = fleet().await else { return };
    let operator = &fleet.operator;
    let mut reports = hear(&fleet.origin, "rpt.>").await;
    let mut feed = fleet.edges[0].subscribe("edge.r.fra.>").await.unwrap();
    acted_on(&fleet.edges[0]).await;
    for subject in [
        "$KV.g.cut.a",
        "$KV.r_fra.edge.fra-1",
        "edge.r.fra.cut.a",
        "edge.r.fra._recall",
        "rpt.fra.fra-1.heartbeat",
        "$JS.API.STREAM.PURGE.KV_r_fra",
        "$JS.API.STREAM.DELETE.KV_r_fra",
    ] {
        operator.publish(subject, "forged".into()).await.unwrap();
    }
    operator
        .publish("$KV.r_iad.cut.a", "override".into())
        .await
        .unwrap();
    operator.flush().await.unwrap();
    let deadline = tokio::time::Instant::now() + ARRIVES;
    while stored(&fleet.origin, "r_iad").await != "override" {
        assert!(tokio::time::Instant::now() < deadline, "it may write that");
    }
    assert_eq!(stored(&fleet.origin, "g").await, "secret of g");
    assert_eq!(stored(&fleet.origin, "r_fra").await, "secret of r_fra");
    hears_nothing(&mut reports).await;
    hears_nothing(&mut feed).await;
}

#[tokio::test]
async fn the_server_is_no_deputy_that_aims_an_answer_at_a_record_a_report_or_an_edge() {
    let Some(fleet) = fleet().await else { return };
    let (attacker, victim) = (&fleet.edges[0], &fleet.edges[1]);
    let mut heard = victim.subscribe("edge.r.fra.>").await.unwrap();
    let mut inbox = victim.subscribe("_INBOX.victim.>").await.unwrap();
    acted_on(victim).await;
    let mut reports = hear(&fleet.origin, "rpt.fra.fra-2.>").await;
    for reply in [
        "$KV.r_iad.cut.a",
        "$KV.r_fra.cut.a",
        "edge.r.fra.cut.b",
        "edge.r.fra._head",
        "_INBOX.victim.1",
        "rpt.fra.fra-2.heartbeat",
    ] {
        let query = "{\"last_by_subj\":\"$KV.g.cut.a\"}";
        attacker
            .publish_with_reply("$JS.API.DIRECT.GET.KV_g", reply, query.into())
            .await
            .unwrap();
        attacker
            .publish_with_reply("rpt.fra.fra-1.heartbeat", reply, "x".into())
            .await
            .unwrap();
    }
    acted_on(attacker).await;
    assert_eq!(stored(&fleet.origin, "r_iad").await, "secret of r_iad");
    assert_eq!(stored(&fleet.origin, "r_fra").await, "secret of r_fra");
    for subscriber in [&mut heard, &mut inbox, &mut reports] {
        hears_nothing(subscriber).await;
    }
}

/// Origin's queue of builds, with its consumer and one build in it.
async fn queue(origin: &Client) {
    let context = jetstream::new(origin.clone());
    let config = stream::Config {
        name: queue::STREAM.to_owned(),
        subjects: vec!["hx.builds.>".to_owned()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    let workers = jetstream::consumer::pull::Config {
        durable_name: Some(queue::CONSUMER.to_owned()),
        ..jetstream::consumer::pull::Config::default()
    };
    stream.create_consumer(workers).await.unwrap();
    context
        .publish("hx.builds.shop", "build".into())
        .await
        .unwrap()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_worker_takes_builds_off_the_queue_and_can_do_nothing_else() {
    let Some(fleet) = fleet().await else { return };
    queue(&fleet.origin).await;
    let context = jetstream::with_prefix(fleet.worker.clone(), queue::API);
    let stream = context.get_stream_no_info(queue::STREAM).await.unwrap();
    let consumer = stream
        .get_consumer::<jetstream::consumer::pull::Config>(queue::CONSUMER)
        .await
        .unwrap();
    let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    assert_eq!(message.payload, "build");
    message.double_ack().await.unwrap();
    let left = jetstream::new(fleet.origin.clone())
        .get_stream(queue::STREAM)
        .await
        .unwrap();
    assert_eq!(left.cached_info().state.messages, 0);

    let mut heard = hear(&fleet.origin, "hx.builds.>").await;
    for subject in [
        "hx.builds.shop",
        "$JS.API.STREAM.PURGE.HX_BUILDS",
        "hx.queue.STREAM.PURGE.HX_BUILDS",
        "hx.queue.CONSUMER.DELETE.HX_BUILDS.workers",
        "$JS.API.STREAM.INFO.HX_BUILDS",
        "$KV.r_fra.cut.a",
        "rpt.fra.fra-1.site",
    ] {
        fleet.worker.publish(subject, "x".into()).await.unwrap();
    }
    fleet.worker.flush().await.unwrap();
    hears_nothing(&mut heard).await;
    assert_eq!(stored(&fleet.origin, "r_fra").await, "secret of r_fra");
}
