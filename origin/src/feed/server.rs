//! What origin demands of the NATS server before it trusts an acknowledgement.
//!
//! An acknowledged record has to be on disk: the server's default flushes every two minutes, so the
//! setting is read from its monitoring and anything but `always` is refused.

use std::time::Duration;

use serde::Deserialize;

/// Batched direct gets, message TTLs with markers and atomic batches work from this version on.
const OLDEST: (u64, u64) = (2, 14);
/// The monitoring page is on the same machine or its neighbour.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// There is nothing to keep records in.
    #[error(
        "nats-server at {url} has no JetStream: set a `jetstream` block in its configuration, or wait until it has started"
    )]
    NoJetStream {
        /// Where.
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
    let settings: Settings = page.json().await.map_err(failed)?;
    match settings.jetstream.config {
        Some(config) if config.sync_always => Ok(()),
        Some(_) => Err(ServerError::Lazy),
        None => Err(ServerError::NoJetStream { url }),
    }
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    jetstream: JetStream,
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
