//! The queue of builds, at a real nats-server.

use async_nats::jetstream::{self, consumer::PullConsumer};
use helix_origin::auth::Caller;
use helix_origin::build::{self, Wanted, queue};
use helix_origin::project;
use helix_routing::api::{BuildSettings, Trust};
use helix_routing::id::BuildId;
use helix_routing::queue::{CONSUMER, STREAM};
use serde_json::{Value, json};

use super::*;

async fn ask(store: &Store, site: &str, digit: char) -> BuildId {
    let wanted = Wanted {
        site: site.parse().expect("a site"),
        commit: digit.to_string().repeat(40).parse().expect("a commit"),
        url: "https://git.example/shop".to_owned(),
        reference: None,
        trust: Trust::Default,
        settings: BuildSettings::default(),
        push_seq: 1,
        waits: false,
    };
    let mut tx = store.write().await.expect("a change");
    let build = build::request(&mut tx, &Caller::origin(), wanted)
        .await
        .expect("a build");
    tx.commit().await.expect("a commit");
    build.id
}

/// The next message, acknowledged.
async fn next(client: &async_nats::Client) -> Value {
    let jetstream = jetstream::new(client.clone());
    let taken = async {
        loop {
            let consumer: Result<PullConsumer, _> =
                jetstream.get_consumer_from_stream(CONSUMER, STREAM).await;
            if let Ok(consumer) = consumer
                && let Ok(mut messages) = consumer
                    .fetch()
                    .max_messages(1)
                    .expires(Duration::from_secs(1))
                    .messages()
                    .await
                && let Some(Ok(message)) = messages.next().await
            {
                assert_eq!(message.subject.as_str(), "hx.builds.shop");
                message.ack().await.expect("an acknowledgement");
                return serde_json::from_slice(&message.payload).expect("JSON");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, taken).await.expect("a message in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_told_of_each_build_also_after_the_stream_is_lost() {
    let Some(mut nats) = Nats::start() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let place: Place = place::of(folder.path()).parse().expect("a place");
    let store = Store::lead(place).await.expect("a store");
    project::ensure(&store, &site().project)
        .await
        .expect("a project");
    let first = ask(&store, "shop/production", 'a').await;
    let client = nats.client().await;
    let (shutdown, handle) = Shutdown::manual();
    let running = {
        let (store, client) = (store.clone(), client.clone());
        tokio::spawn(async move { queue::run(&store, client, 1, &shutdown).await })
    };
    assert_eq!(next(&client).await, json!({ "build": first.as_str() }));
    // A newer one, of which the server loses the message with all else that it has.
    let second = ask(&store, "shop/production", 'b').await;
    let noted = async {
        loop {
            let told: Option<i64> =
                sqlx::query_scalar("SELECT queued FROM builds WHERE build = $1")
                    .bind(second.as_str())
                    .fetch_one(store.reader())
                    .await
                    .expect("a row");
            if told.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, noted).await.expect("told in time");
    nats.kill();
    nats.wipe();
    nats.restart();
    // Something to tell wakes the queue, which finds the stream gone and makes it anew.
    let third = ask(&store, "shop/preview/7", 'c').await;
    let mut told = vec![next(&client).await, next(&client).await];
    told.sort_by_key(ToString::to_string);
    let mut expected = vec![
        json!({ "build": second.as_str() }),
        json!({ "build": third.as_str() }),
    ];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(told, expected);
    handle.request();
    timeout(DEADLINE, running)
        .await
        .expect("an end")
        .expect("no panic");
}
