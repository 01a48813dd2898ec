//! The servers of NATS, as who may tell them which accounts there are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use futures_util::StreamExt as _;
use helix_service::error::chain;
use helix_service::nats::{self, NatsConfig};
use serde_json::Value;

use super::AdmissionError;

/// Where servers learn of an account.
const UPDATE: &str = "$SYS.REQ.CLAIMS.UPDATE";
/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How soon a new link is noticed.
const LOOK: Duration = Duration::from_millis(200);
/// Wait before everything is told again, after not all of it was taken.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Servers {
    client: Client,
    again: AtomicBool,
}

impl Servers {
    pub(super) async fn connect(config: &NatsConfig) -> Result<Self, AdmissionError> {
        let client = nats::connect(config, "origin-admission").await;
        let client = client.map_err(|error| AdmissionError::Nats(chain(&error)))?;
        Ok(Self {
            client,
            again: AtomicBool::new(false),
        })
    }

    /// Calls `tell` with each new link, again and again until it went well.
    pub(super) async fn follow(&self, tell: impl AsyncFn() -> Result<(), AdmissionError>) {
        let statistics = self.client.statistics();
        let mut told = 0;
        loop {
            let connects = statistics.connects.load(Ordering::Relaxed);
            let again = self.again.swap(false, Ordering::Relaxed);
            if (connects == told && !again) || self.client.connection_state() != State::Connected {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            match tell().await {
                Ok(()) => told = connects,
                Err(error) => {
                    self.tell_again();
                    tracing::warn!(error = %chain(&error), "NATS does not know every account");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Lets everything be told once more.
    pub(super) fn tell_again(&self) {
        self.again.store(true, Ordering::Relaxed);
    }

    /// Tells of an account, or of how it is now.
    ///
    /// # Errors
    /// With what the servers say that answer, when none of them has taken it. One that has tells the others.
    pub(super) async fn update(&self, jwt: String) -> Result<(), AdmissionError> {
        let failed = |error: &dyn std::error::Error| AdmissionError::Nats(chain(error));
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut answers = subscribed.map_err(|error| failed(&error))?;
        let sent = self
            .client
            .publish_with_reply(UPDATE, inbox, jwt.into())
            .await;
        sent.map_err(|error| failed(&error))?;
        let mut refused = None;
        let done = tokio::time::timeout(ANSWER, async {
            while let Some(answer) = answers.next().await {
                let said: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
                if said["data"]["code"] == 200 {
                    return true;
                }
                let why = said["error"]["description"].as_str().unwrap_or("refused");
                refused = Some(why.to_owned());
            }
            false
        });
        match (matches!(done.await, Ok(true)), refused) {
            (true, _) => Ok(()),
            (false, Some(refused)) => Err(AdmissionError::Nats(refused)),
            (false, None) => Err(AdmissionError::Nats("no server answers".to_owned())),
        }
    }
}
