//! The link to NATS: one way to connect, with the settings that keep a quiet failure from staying quiet.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use async_nats::{Client, ConnectOptions, Event};
use serde::{Deserialize, Serialize};

/// A half-open connection is noticed within two of these; the library's default is a minute.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A refused permission shows as a request that times out, so the wait is short.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// A fleet that reconnects at once after an outage would be a herd: the wait grows to this, with jitter.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// Messages a subscription holds before it drops; a repair page is at most half of it.
pub const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// Where NATS is and who we are there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// `nats://host:port`.
    pub url: String,
    /// File with the nkey seed of our account's user.
    pub seed_file: PathBuf,
    /// `http://host:port` of the server's monitoring, where its settings can be read. Only origin needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
}

/// No link to NATS.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The seed cannot be read.
    #[error("read nats seed {}", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The settings are not usable. A server that is away is not an error: the link waits for it.
    #[error("connect to {url}")]
    Connect {
        /// The server.
        url: String,
        /// Why not.
        #[source]
        source: async_nats::ConnectError,
    },
}

/// Connects as `name`, whose replies come to `_INBOX.<name>.>`. Returns at once when the server is away:
/// the client keeps trying, and requests wait or time out.
///
/// # Errors
/// When the seed cannot be read or the address is no address.
pub async fn connect(config: &NatsConfig, name: &str) -> Result<Client, NatsError> {
    let seed = fs::read_to_string(&config.seed_file).map_err(|source| NatsError::Seed {
        path: config.seed_file.clone(),
        source,
    })?;
    let process = name.to_owned();
    ConnectOptions::with_nkey(seed.trim().to_owned())
        .name(name)
        .custom_inbox_prefix(format!("_INBOX.{name}"))
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .reconnect_delay_callback(reconnect_delay)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .event_callback(move |event| {
            let process = process.clone();
            async move { log(&process, &event) }
        })
        .connect(&config.url)
        .await
        .map_err(|source| NatsError::Connect {
            url: config.url.clone(),
            source,
        })
}

fn reconnect_delay(attempts: usize) -> Duration {
    let exponent = u32::try_from(attempts.min(8)).unwrap_or(8);
    let ceiling = Duration::from_millis(10 << exponent).min(MAX_RECONNECT_DELAY);
    ceiling.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

fn log(process: &str, event: &Event) {
    match event {
        Event::Connected => tracing::info!(process, "nats connected"),
        Event::SlowConsumer(subscription) => log_dropped(process, *subscription),
        other => log_trouble(process, other),
    }
}

/// One event for each message: more than a log can take, and the feed notices its gap by itself.
fn log_dropped(process: &str, subscription: u64) {
    tracing::debug!(
        process,
        subscription,
        "nats subscription is full, a message is dropped"
    );
}

/// A refused permission is told only here, so these lines matter.
fn log_trouble(process: &str, event: &Event) {
    tracing::warn!(process, event = %event, "nats");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnect_delays_grow_to_a_limit() {
        assert!(reconnect_delay(0) <= Duration::from_millis(10));
        for attempts in 7..100 {
            let delay = reconnect_delay(attempts);
            assert!(
                delay <= MAX_RECONNECT_DELAY && delay >= Duration::from_millis(500),
                "{delay:?}"
            );
        }
    }
}
