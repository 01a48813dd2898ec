//! What somebody could do who has taken an edge over.

use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::world::{CATCH_UP, World};
use crate::own_fleet;

/// Denials that are kept until they are looked at: each attempt has one.
const DENIALS: usize = 256;
/// What an edge's user may send to nobody, and hear from nobody.
const FORBIDDEN: &[&str] = &[
    "$KV.r_fra.cut.forged",
    "$KV.g.h.00.forged",
    "edge.r.fra.cut.forged",
    "edge.r.iad.cut.forged",
    "edge.g._head.forged",
    "rpt.fra.fra-2.forged",
    "rpt.iad.iad-1.forged",
    "$JS.API.STREAM.PURGE.KV_r_fra",
    "$JS.API.STREAM.DELETE.KV_g",
    "$JS.API.STREAM.MSG.DELETE.KV_g",
    "$JS.API.STREAM.UPDATE.KV_g",
    "$JS.API.CONSUMER.CREATE.KV_r_fra",
    "$JS.API.CONSUMER.MSG.NEXT.KV_r_fra.x",
    "$JS.API.DIRECT.GET.KV_r_iad",
    "$JS.API.DIRECT.GET.OBJ_snap_r_iad",
    "$JS.API.DIRECT.GET.EVENTS",
    "events.forged",
    "$JS.origin.API.DIRECT.GET.KV_r_iad",
    "$O.snap_g.M.forged",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.CLAIMS.DELETE",
    "$SYS.REQ.SERVER.PING",
    "_R_.forged",
    "forged",
];

#[test]
fn an_edge_that_is_taken_over_can_only_speak_for_itself() {
    let _turn = own_fleet();
    let mut world = World::start(1, None);
    world.join("fra-1", "fra");
    let _ = world.deploy("attacked").with(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(attack(&world));
    let _ = world.deploy("attacked and well").with(0);
}

/// What the server has to say no to, and how often: each of [`FORBIDDEN`] to send to, and to hear unless the edge may hear it.
fn denials_due() -> Vec<(&'static str, String)> {
    // The name of the domain is taken off before anything is looked at.
    let known = |subject: &str| {
        format!(
            "\"{}\"",
            subject.replacen("$JS.origin.", "$JS.", 1).to_lowercase()
        )
    };
    let unheard =
        |subject: &&str| !subject.starts_with("edge.g.") && !subject.starts_with("edge.r.fra.");
    let sent = FORBIDDEN.iter().map(|subject| ("publish", known(subject)));
    let heard = FORBIDDEN.iter().copied().filter(unheard);
    // A subscription is no message, and is not renamed.
    let heard = heard.map(|subject| ("subscription", format!("\"{}\"", subject.to_lowercase())));
    sent.chain(heard).collect()
}

async fn attack(world: &World) {
    let url = world.nats_url(0);
    let (denials, mut denied) = mpsc::channel(DENIALS);
    let edge = options(&world.identity("fra-1", "nats.creds"))
        .await
        .event_callback(move |event| {
            let denials = denials.clone();
            async move {
                let _ = denials.send(event.to_string()).await;
            }
        });
    let edge = edge.connect(&url).await.unwrap();
    let origin = options(&world.folder.path().join("nats/origin.creds")).await;
    let origin = origin.connect(&url).await.unwrap();
    let mut everything = origin.subscribe(">").await.unwrap();
    // A flush says only that it was sent. What comes back on the same connection says that the server has taken it.
    origin.publish("heard.itself", "x".into()).await.unwrap();
    until_heard(&mut everything, "heard.itself").await;
    edge.publish("rpt.fra.fra-1.begin", "begin".into())
        .await
        .unwrap();
    forge(&edge).await;
    until_heard(&mut everything, "rpt.fra.fra-1.begin").await;
    until_heard(&mut everything, "rpt.fra.fra-1.end").await;
    let mut due = denials_due();
    let all_denied = async {
        while !due.is_empty() {
            let event = denied.recv().await.unwrap().to_lowercase();
            let found = due
                .iter()
                .position(|(what, subject)| event.contains(what) && event.contains(subject));
            if let Some(at) = found {
                due.remove(at);
            }
        }
    };
    let _ = tokio::time::timeout(CATCH_UP, all_denied).await;
    assert!(due.is_empty(), "the server did not deny {due:?}");
    reads(&edge).await;
}

async fn options(credentials: &Path) -> ConnectOptions {
    let read = ConnectOptions::new().credentials_file(credentials).await;
    read.unwrap()
}

/// Everything that is forbidden, and then a word that origin may hear.
async fn forge(edge: &Client) {
    for subject in FORBIDDEN {
        edge.publish(*subject, "forged".into()).await.unwrap();
        let _ = edge.subscribe(*subject).await.unwrap();
    }
    // The server is no deputy either: where its answers go is not for the edge to say.
    for reply in [
        "$KV.r_iad.cut.forged",
        "edge.r.fra.cut.forged",
        "rpt.iad.iad-1.forged",
        "_INBOX.iad-1.forged",
    ] {
        let read = "{\"last_by_subj\":\"$KV.g.ctl.term\"}";
        edge.publish_with_reply("$JS.API.DIRECT.GET.KV_g", reply, read.into())
            .await
            .unwrap();
        let mut traced = HeaderMap::new();
        traced.insert("Nats-Trace-Dest", reply);
        edge.publish_with_headers("rpt.fra.fra-1.trace", traced, "x".into())
            .await
            .unwrap();
    }
    edge.publish("rpt.fra.fra-1.end", "end".into())
        .await
        .unwrap();
    edge.flush().await.unwrap();
}

/// Hears everything up to `last`, and nothing forged before it.
async fn until_heard(everything: &mut Subscriber, last: &str) {
    let heard = async {
        loop {
            let message = everything.next().await.expect("the subscription lasts");
            let subject = message.subject.as_str();
            if subject == last {
                return;
            }
            assert!(
                !subject.contains("forged") && &*message.payload != b"forged",
                "{subject} was heard"
            );
        }
    };
    let heard = tokio::time::timeout(CATCH_UP, heard).await;
    assert!(heard.is_ok(), "{last} was not heard within {CATCH_UP:?}");
}

/// What its region is told it may read, and nothing of another.
async fn reads(edge: &Client) {
    let read = |stream: &str| {
        let request = edge.request(
            format!("$JS.API.DIRECT.GET.{stream}"),
            "{\"seq\":1,\"next_by_subj\":\">\"}".into(),
        );
        tokio::time::timeout(Duration::from_secs(3), request)
    };
    for stream in ["KV_g", "KV_r_fra"] {
        let answer = read(stream).await.unwrap().unwrap();
        assert!(answer.headers.is_some(), "{stream}: {answer:?}");
    }
    for stream in ["KV_r_iad", "EVENTS"] {
        let answer = read(stream).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{stream}: {answer:?}");
    }
}
