//! Thousands of records at once: in batches, whole, and in order.

use helix_origin::feed::records;
use helix_routing::host::HostPattern;

use crate::{messages, site, start, until};

/// Some batches, and a rest.
const HOSTS: u64 = 2_700;

#[tokio::test(flavor = "multi_thread")]
async fn an_import_reaches_every_edge_whole_also_what_it_takes_back() {
    let Some((_folder, nats, fleet, origin)) = start().await else {
        return;
    };
    let host = |number: u64| format!("h{number}.example.com");
    let mut tx = origin.store.write().await.expect("a transaction");
    for number in 0..HOSTS {
        let pattern: HostPattern = host(number).parse().expect("a host");
        records::put_host(&mut tx, &pattern, Some(&site()))
            .await
            .expect("a record");
    }
    // Two rows of the outbox for one key, and tombstones among the rest.
    for number in 0..200 {
        let pattern: HostPattern = host(number * 13).parse().expect("a host");
        records::put_host(&mut tx, &pattern, None)
            .await
            .expect("a record");
    }
    tx.commit().await.expect("a commit");
    until("every host at every edge", async || {
        fleet
            .edges
            .iter()
            .all(|edge| (0..HOSTS).all(|number| edge.host_seen(&host(number)).is_some()))
    })
    .await;
    // Each key once, and the term.
    assert_eq!(messages(&nats, "KV_g").await, HOSTS + 1);
    let left = async || {
        let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox")
            .fetch_one(origin.store.reader())
            .await
            .expect("a count");
        left == 0
    };
    until("the empty outbox", left).await;
}
