//! The link to NATS: one way to connect, with the settings that keep a quiet failure from staying quiet.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use serde::{Deserialize, Serialize};

use crate::tls;

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
    /// `nats://host:port`, or several with commas between them, nearest first; `tls://` for TLS.
    pub url: String,
    /// File with the nkey seed of our account's user, or with its credentials: a JWT and its seed.
    pub seed_file: PathBuf,
    /// File with what the servers' certificates are signed by, in PEM; else what this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// File with our certificate, in PEM, for servers that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// File with its private key, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// `http://host:port` of the servers' monitoring, where their settings can be read, with commas between. Only origin needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
}

impl NatsConfig {
    /// Servers by `url`, and who we are; nothing else is said.
    #[must_use]
    pub const fn new(url: String, seed_file: PathBuf) -> Self {
        Self {
            url,
            seed_file,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            monitor: None,
        }
    }
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
    /// The credentials are not what they should be.
    #[error("read nats credentials {}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An address is none.
    #[error("nats.url: {url:?} is no address of a server")]
    Address {
        /// What it says.
        url: String,
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
    tls::choose_provider();
    let process = name.to_owned();
    let mut options = identity(config, &seed)?;
    if let Some(ca) = &config.ca_file {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(certificate), Some(key)) = (&config.certificate_file, &config.key_file) {
        // Read with each new link, so a renewed one needs no restart.
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    options
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
        .connect(addresses(&config.url)?)
        .await
        .map_err(|source| NatsError::Connect {
            url: config.url.clone(),
            source,
        })
}

/// By a key alone, or by a JWT that says whose key it is.
fn identity(config: &NatsConfig, text: &str) -> Result<ConnectOptions, NatsError> {
    if !text.contains("BEGIN NATS USER JWT") {
        return Ok(ConnectOptions::with_nkey(text.trim().to_owned()));
    }
    ConnectOptions::with_credentials(text).map_err(|source| NatsError::Credentials {
        path: config.seed_file.clone(),
        source,
    })
}

fn addresses(urls: &str) -> Result<Vec<ServerAddr>, NatsError> {
    let address = |url: &str| url.parse::<ServerAddr>().ok().filter(|_| !url.is_empty());
    urls.split(',')
        .map(str::trim)
        .map(|url| {
            address(url).ok_or_else(|| NatsError::Address {
                url: url.to_owned(),
            })
        })
        .collect()
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
    fn several_servers_may_be_named() {
        let urls = addresses("nats://a:4222, tls://b:4222").unwrap();
        assert_eq!((urls.len(), urls[1].host()), (2, "b"));
        for wrong in ["", "nats://a:4222,", "nats://a:x"] {
            assert!(addresses(wrong).is_err(), "{wrong}");
        }
    }

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
