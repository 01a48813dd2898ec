//! A worker with the credentials that `helix-origin nats` makes: it takes builds off the queue, and can do nothing else.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull};
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt as _;
use helix_routing::queue;

use super::world::{CATCH_UP, World};
use crate::own_fleet;

/// What a worker has no business with, by every name that it could try.
const FORBIDDEN: &[&str] = &[
    "hx.builds.forged",
    "hx.queue.STREAM.PURGE.HX_BUILDS",
    "hx.queue.CONSUMER.DELETE.HX_BUILDS.workers",
    "hx.queue.CONSUMER.MSG.NEXT.EVENTS.x",
    "$JS.API.STREAM.PURGE.HX_BUILDS",
    "$JS.origin.API.STREAM.PURGE.HX_BUILDS",
    "$JS.origin.API.CONSUMER.DELETE.HX_BUILDS.workers",
    "$JS.ACK.EVENTS.x.1.1.1.1.1",
    "$KV.r_fra.cut.forged",
    "edge.r.fra.cut.forged",
    "rpt.fra.fra-1.forged",
    "$SYS.REQ.CLAIMS.UPDATE",
];

#[test]
fn a_worker_takes_builds_off_the_queue_and_can_do_nothing_else() {
    let _turn = own_fleet();
    let world = World::start(1, None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let origin = connect(&world, "origin").await;
        let worker = connect(&world, "build").await;
        ask(&origin).await;
        let context = jetstream::with_prefix(worker.clone(), queue::API);
        let stream = context.get_stream_no_info(queue::STREAM).await.unwrap();
        let consumer = stream
            .get_consumer::<pull::Config>(queue::CONSUMER)
            .await
            .unwrap();
        let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.payload, "build");
        message.double_ack().await.unwrap();
        assert_eq!(waiting(&origin).await, Some(0));
        forge(&origin, &worker).await;
    });
}

async fn connect(world: &World, name: &str) -> Client {
    let credentials = world.folder.path().join(format!("nats/{name}.creds"));
    let options = ConnectOptions::with_credentials_file(credentials)
        .await
        .unwrap();
    options.connect(world.nats_url(0)).await.unwrap()
}

/// Puts a build into the queue as soon as origin has made it.
async fn ask(origin: &Client) {
    let made = async {
        while waiting(origin).await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let made = tokio::time::timeout(CATCH_UP, made).await;
    assert!(made.is_ok(), "origin made no queue within {CATCH_UP:?}");
    let context = jetstream::new(origin.clone());
    let published = context.publish("hx.builds.shop", "build".into()).await;
    let _ = published.unwrap().await.unwrap();
}

/// Messages in the queue; none where there is no queue with a consumer yet.
async fn waiting(origin: &Client) -> Option<u64> {
    let context = jetstream::new(origin.clone());
    let stream = context.get_stream(queue::STREAM).await.ok()?;
    let consumer = stream.get_consumer::<pull::Config>(queue::CONSUMER).await;
    let _ = consumer.ok()?;
    Some(stream.cached_info().state.messages)
}

async fn forge(origin: &Client, worker: &Client) {
    let mut everything = origin.subscribe(">").await.unwrap();
    origin.flush().await.unwrap();
    for subject in FORBIDDEN {
        worker.publish(*subject, "forged".into()).await.unwrap();
        let _ = worker.subscribe(*subject).await.unwrap();
    }
    worker.flush().await.unwrap();
    // Whatever came of those would have come before this.
    origin.publish("heard.itself", "x".into()).await.unwrap();
    let heard = async {
        loop {
            let message = everything.next().await.expect("the subscription lasts");
            assert_ne!(&*message.payload, b"forged", "{}", message.subject);
            if message.subject.as_str() == "heard.itself" {
                return;
            }
        }
    };
    let heard = tokio::time::timeout(CATCH_UP, heard).await;
    assert!(heard.is_ok(), "origin did not hear itself");
    assert_eq!(waiting(origin).await, Some(0));
}
