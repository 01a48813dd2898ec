//! Waiting until a fleet can be used.

use std::time::Duration;

use anyhow::{Context as _, bail};
use helix_routing::api::Status;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::child::Children;
use super::fleet::{Fleet, url};
use helix_client::Origin;

/// Longer than any start takes on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often to look.
const LOOK: Duration = Duration::from_millis(20);
/// Deaths during the start that cannot be chance any more.
const MAX_DEATHS: usize = 5;

/// What matters of `nats-server`'s `/jsz`.
#[derive(Deserialize)]
struct JetStream {
    #[serde(default)]
    disabled: bool,
    config: JetStreamConfig,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    store_dir: String,
    #[serde(default)]
    sync_always: bool,
}

/// Whether a server syncs every write, as its `/jsz` says. The page is there before JetStream is, and says nothing of it then.
fn syncs_always(page: &[u8]) -> Result<bool, String> {
    let JetStream { disabled, config } =
        serde_json::from_slice(page).map_err(|error| error.to_string())?;
    if disabled || config.store_dir.is_empty() {
        return Err("JetStream has not started".to_owned());
    }
    Ok(config.sync_always)
}

/// Waits for NATS, and refuses one that would lose acknowledged records in a power cut.
pub(super) async fn nats(fleet: &Fleet, children: &Children) -> anyhow::Result<()> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .context("set up the HTTP client")?;
    let page = format!("{}/jsz", url(fleet.monitor));
    let syncs = until(children, "nats-server", async || {
        let answer = http
            .get(&page)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let text = answer.bytes().await.map_err(|error| error.to_string())?;
        syncs_always(&text).map_err(|error| format!("{page}: {error}"))
    })
    .await?;
    if !syncs {
        bail!(
            "nats-server does not sync every write: it does not run with {}",
            "sync_interval: always"
        );
    }
    Ok(())
}

/// Waits until origin answers.
pub(super) async fn origin(origin: &Origin, children: &Children) -> anyhow::Result<()> {
    until(children, "origin", async || {
        let status: Result<Status, _> = origin.read(&["status"]).await;
        status.map(drop).map_err(|error| error.to_string())
    })
    .await
}

/// Waits until every edge is ready.
pub(super) async fn everything(
    origin: &Origin,
    fleet: &Fleet,
    children: &Children,
) -> anyhow::Result<Status> {
    until(children, "every edge", async || {
        let status: Status = origin
            .read(&["status"])
            .await
            .map_err(|error| error.to_string())?;
        let ready = |edge: &&super::fleet::Edge| {
            status
                .edges
                .iter()
                .any(|seen| seen.edge == edge.edge && seen.live && seen.ready)
        };
        let missing: Vec<&str> = fleet
            .edges
            .iter()
            .filter(|edge| !ready(edge))
            .map(|edge| edge.edge.as_str())
            .collect();
        if missing.is_empty() {
            Ok(status)
        } else {
            Err(format!("not ready: {}", missing.join(", ")))
        }
    })
    .await
}

async fn until<T>(
    children: &Children,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let reason = match look().await {
            Ok(seen) => return Ok(seen),
            Err(reason) => reason,
        };
        if children.deaths() > MAX_DEATHS {
            bail!("{what} cannot start ({reason}): processes keep dying, their logs say why");
        }
        if Instant::now() > deadline {
            bail!(
                "{what} did not start within {} s: {reason}",
                START_LIMIT.as_secs()
            );
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_jetstream_has_not_started_is_asked_again() {
        for starting in [
            r#"{"disabled":true,"config":{}}"#,
            r#"{"config":{"max_memory":0,"max_storage":0}}"#,
        ] {
            let seen = syncs_always(starting.as_bytes());
            assert_eq!(seen, Err("JetStream has not started".to_owned()));
        }
        for (running, syncs) in [
            (
                r#"{"config":{"store_dir":"/data","sync_always":true}}"#,
                true,
            ),
            (
                r#"{"config":{"store_dir":"/data","sync_interval":120}}"#,
                false,
            ),
        ] {
            assert_eq!(syncs_always(running.as_bytes()), Ok(syncs));
        }
    }
}
