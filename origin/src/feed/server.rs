//! What origin demands of the NATS server before it trusts an acknowledgement.
//!
//! An acknowledged record has to be on disk: the server's default flushes every two minutes, so the
//! setting is read from its monitoring and anything but `always` is refused.

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::sleep;

/// Batched direct gets, message TTLs with markers and atomic batches work from this version on.
const OLDEST: (u64, u64) = (2, 14);
/// The monitoring page is on the same machine or its neighbour.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(5);
/// A server answers there before its JetStream has started, which takes some milliseconds, or longer with much to restore.
const JETSTREAM_WAIT: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile.
const JETSTREAM_POLL: Duration = Duration::from_millis(200);

/// The server may not be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It is too old.
    #[error("nats-server {version} is too old: 2.14 or newer is needed")]
    Version {
        /// Its version.
        version: String,
    },
    /// An acknowledgement would not mean that a record is on disk.
    #[error(
        "nats-server does not sync every write: set `sync_interval: always` in its `jetstream` block"
    )]
    Lazy,
    /// It has no JetStream, or not yet.
    #[error(
        "nats-server at {url} has no JetStream: see its log, or add a `jetstream` block to its configuration"
    )]
    NoJetStream {
        /// Where it says so.
        url: String,
    },
    /// There is no way to tell.
    #[error(
        "nats-server's settings cannot be checked: set `nats.monitor` to its monitoring address"
    )]
    Unmonitored,
    /// Its settings cannot be read.
    #[error("read the settings of nats-server at {url}")]
    Monitor {
        /// Where.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
}

/// Refuses a server whose version is too old.
pub(super) fn check_version(version: &str) -> Result<(), ServerError> {
    let mut parts = version
        .split('.')
        .map_while(|part| part.parse::<u64>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(()),
        _ => Err(ServerError::Version {
            version: version.to_owned(),
        }),
    }
}

/// Refuses servers of which one acknowledges before it has synced. Those that are away are not asked, as long as one answers.
pub(super) async fn check_sync(monitors: &str) -> Result<(), ServerError> {
    let mut away = None;
    let mut answered = false;
    for monitor in monitors.split(',').map(str::trim) {
        match check_one(monitor).await {
            Ok(()) => answered = true,
            Err(error @ ServerError::Monitor { .. }) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a nats-server is not checked"
                );
                away = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match away {
        Some(error) if !answered => Err(error),
        _ => Ok(()),
    }
}

async fn check_one(monitor: &str) -> Result<(), ServerError> {
    let deadline = Instant::now() + JETSTREAM_WAIT;
    loop {
        match (settings(monitor).await?.syncs(), Instant::now() < deadline) {
            (Some(true), _) => return Ok(()),
            (Some(false), _) => return Err(ServerError::Lazy),
            (None, true) => sleep(JETSTREAM_POLL).await,
            (None, false) => {
                return Err(ServerError::NoJetStream {
                    url: monitor.to_owned(),
                });
            }
        }
    }
}

async fn settings(monitor: &str) -> Result<Settings, ServerError> {
    let url = format!("{}/varz", monitor.trim_end_matches('/'));
    let failed = |source| ServerError::Monitor {
        url: url.clone(),
        source,
    };
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(MONITOR_TIMEOUT)
        .build()
        .map_err(failed)?;
    let page = client
        .get(&url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(failed)?;
    page.json().await.map_err(failed)
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    jetstream: JetStream,
}

impl Settings {
    /// Whether every write is synced; none while JetStream is not there.
    fn syncs(&self) -> Option<bool> {
        let config = self.jetstream.config.as_ref();
        config.map(|config| config.sync_always)
    }
}

#[derive(Default, Deserialize)]
struct JetStream {
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_starts_is_not_one_that_does_not_sync() {
        for (page, syncs) in [
            (r#"{"jetstream": {}}"#, None),
            ("{}", None),
            (
                r#"{"jetstream": {"config": {"sync_always": true}}}"#,
                Some(true),
            ),
            (
                r#"{"jetstream": {"config": {"sync_interval": 1}}}"#,
                Some(false),
            ),
        ] {
            let settings: Settings = serde_json::from_str(page).unwrap();
            assert_eq!(settings.syncs(), syncs, "{page}");
        }
    }

    #[test]
    fn versions_before_2_14_are_refused() {
        for (version, is_new_enough) in [
            ("2.15.1", true),
            ("2.14.0", true),
            ("2.14.0-RC.1", true),
            ("3.0.0", true),
            ("2.9.10", false),
            ("2.13.9", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(check_version(version).is_ok(), is_new_enough, "{version:?}");
        }
    }

    #[test]
    fn the_sync_setting_is_where_the_server_shows_it() {
        let read = |text| {
            serde_json::from_str::<Settings>(text)
                .unwrap()
                .jetstream
                .config
                .is_some_and(|config| config.sync_always)
        };
        assert!(read(
            r#"{"version":"2.15.1","jetstream":{"config":{"sync_interval":120000000000,"sync_always":true}}}"#
        ));
        assert!(!read(
            r#"{"jetstream":{"config":{"sync_interval":120000000000}}}"#
        ));
        assert!(!read(r#"{"jetstream":{}}"#));
        assert!(!read("{}"));
    }
}
