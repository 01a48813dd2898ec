//! Tells edges every second how far each stream has come, and notices when one is not what it was.
//!
//! Invariant: a beacon is sent only for a stream that was just looked at and is still in the life the
//! beacon names. Silence therefore means that an edge cannot know whether it is up to date.

use std::time::Duration;

use helix_routing::key::{self, Scope};
use helix_routing::record::Beacon;
use helix_service::clock;
use tokio::time::{MissedTickBehavior, interval};

use super::{FeedError, Inner, Request, message};

/// Edges take three missed ones as staleness.
const BEACON_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(inner: &Inner) -> Result<(), FeedError> {
    let mut ticks = interval(BEACON_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (stream, scope) in &inner.scopes {
            send(inner, stream, scope).await;
        }
    }
}

async fn send(inner: &Inner, stream: &str, scope: &Scope) {
    // Read before the stream is: what is acknowledged meanwhile must not look like a loss.
    let Some(life) = inner.life(stream) else {
        return;
    };
    let Some(last_sequence) = look(inner, stream)
        .await
        .filter(|last| *last >= life.acknowledged)
    else {
        tracing::warn!(
            stream,
            acknowledged = life.acknowledged,
            "stream is away or was rolled back"
        );
        inner.ask(Request::Establish {
            stream: stream.to_owned(),
        });
        return;
    };
    let beacon = Beacon {
        stream: stream.to_owned(),
        incarnation: life.incarnation.clone(),
        epoch: inner.store.epoch(),
        last_sequence,
        snapshot_sequence: life.snapshot,
        at: clock::now(),
    };
    let sealed = message::sealed(inner, &life, scope.beacon(), key::BEACON, &beacon);
    if let Err(error) = inner.client.publish(scope.beacon(), sealed.into()).await {
        tracing::warn!(stream, %error, "beacon was not sent");
    }
}

/// The stream's last sequence; none when it cannot be looked at.
async fn look(inner: &Inner, stream: &str) -> Option<u64> {
    let found = inner.jetstream.get_stream(stream).await;
    found
        .inspect_err(|error| tracing::debug!(stream, %error, "look at the stream"))
        .ok()
        .map(|found| found.cached_info().state.last_sequence)
}
