//! Takes builds off the queue, one for each slot, and brings them to their end.
//!
//! The queue names a build and nothing else; origin says what it is. While it runs, origin hears of it, and after that the queue, so
//! that a build whose worker is gone comes back only when origin gives it to another.

mod intermediate;
mod report;
mod secrets;
mod space;
mod workbench;
mod workshop;

use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config as Pull;
use async_nats::jetstream::consumer::{AckPolicy, Consumer};
use async_nats::jetstream::{self, AckKind, Message};
use futures_util::StreamExt as _;
use helix_client::Origin;
use helix_routing::api::{BuildJob, BuildOutcome};
use helix_routing::id::BuildId;
use helix_routing::queue::{CONSUMER, STREAM};
use helix_service::random;
use helix_service::shutdown::Shutdown;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;

use report::{Claimed, Report};
pub use workshop::Workshop;

/// How long a build stays with a worker that says nothing. Origin's lease ends no later, since it is told first.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long one request for a build waits for one.
const ASK: Duration = Duration::from_secs(5);
/// How long after a failure the queue is asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a build waits that origin could not be asked about.
const LATER: Duration = Duration::from_secs(10);

/// What a message says.
#[derive(Deserialize)]
struct Queued {
    build: BuildId,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct Worker {
    name: String,
    origin: Origin,
    workshop: Workshop,
}

impl Worker {
    /// One of a new name.
    #[must_use]
    pub fn new(origin: Origin, workshop: Workshop) -> Self {
        Self {
            name: format!("worker-{}", random::hex16()),
            origin,
            workshop,
        }
    }

    /// Works in `slots` at once until told to end. What is in work then is left to others.
    pub async fn run(&self, queue: jetstream::Context, slots: usize, shutdown: &Shutdown) {
        let slots = (0..slots.max(1)).map(|_| self.slot(&queue, shutdown));
        futures_util::future::join_all(slots).await;
        // Of what was cut off.
        if let Err(error) = self.workshop.tidy().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what is left of builds is not removed"
            );
        }
    }

    async fn slot(&self, context: &jetstream::Context, shutdown: &Shutdown) {
        while !shutdown.is_requested() {
            tokio::select! {
                () = self.take(context) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    /// One build, if one comes.
    async fn take(&self, context: &jetstream::Context) {
        let asked = async {
            let consumer = consumer(context).await?;
            let mut messages = consumer
                .fetch()
                .max_messages(1)
                .expires(ASK)
                .messages()
                .await?;
            Ok::<_, async_nats::Error>(messages.next().await)
        };
        match asked.await {
            Ok(None) => {}
            Ok(Some(Ok(message))) => self.attend(&message).await,
            Ok(Some(Err(error))) | Err(error) => {
                tracing::warn!(error = %error, "the queue of builds cannot be asked");
                sleep(AGAIN).await;
            }
        }
    }

    async fn attend(&self, message: &Message) {
        let Ok(Queued { build }) = serde_json::from_slice(&message.payload) else {
            tracing::warn!(subject = %message.subject, "a message of the queue names no build");
            return acknowledge(message, AckKind::Term).await;
        };
        let report = Report {
            origin: self.origin.clone(),
            worker: self.name.clone(),
            build,
        };
        match report.claim().await {
            Ok(Claimed::Ours(job)) => self.bring_to_an_end(&report, *job, message).await,
            Ok(Claimed::NotOurs) => acknowledge(message, AckKind::Ack).await,
            Err(error) => {
                log_failed(&report.build, "origin cannot be asked for a build", &error);
                acknowledge(message, AckKind::Nak(Some(LATER))).await;
            }
        }
    }

    async fn bring_to_an_end(&self, report: &Report, job: BuildJob, message: &Message) {
        log_begin(&job);
        let outcome = self.outcome(report, &job, message).await;
        match report.end(outcome.clone()).await {
            Ok(true) => {
                acknowledge(message, AckKind::Ack).await;
                log_end(&job, &outcome);
            }
            // The message is for whoever has the build now.
            Ok(false) => log_lost(&job),
            // It comes back, and origin decides whether it is built again.
            Err(error) => log_failed(&job.id, "the end of a build is not taken", &error),
        }
    }

    /// Builds, and meanwhile says that the build goes on and what it prints.
    async fn outcome(&self, report: &Report, job: &BuildJob, message: &Message) -> BuildOutcome {
        let journal = Workshop::journal(job);
        let (stop, stopped) = watch::channel(None);
        let alive = async || acknowledge(message, AckKind::Progress).await;
        let beside = async {
            tokio::join!(report.beat(&stop, alive), report.send_lines(&journal));
            std::future::pending::<BuildOutcome>().await
        };
        let outcome = tokio::select! {
            outcome = Box::pin(self.workshop.build(job, &journal, &report.origin, stopped)) => outcome,
            never = beside => never,
        };
        report.send_rest(&journal).await;
        outcome
    }
}

fn log_begin(job: &BuildJob) {
    tracing::info!(build.id = %job.id, project = %job.project, from = "queued", to = "building", "build");
}

fn log_lost(job: &BuildJob) {
    tracing::info!(build.id = %job.id, from = "building", to = "lost", "build");
}

fn log_failed(build: &BuildId, what: &'static str, error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(build.id = %build, error, "{what}");
}

fn log_end(job: &BuildJob, outcome: &BuildOutcome) {
    match outcome {
        BuildOutcome::Succeeded { files, .. } => {
            tracing::info!(build.id = %job.id, files = files.len(), from = "building", to = "succeeded", "build");
        }
        BuildOutcome::Failed { step, reason } => {
            tracing::info!(build.id = %job.id, step = ?step, reason, from = "building", to = "failed", "build");
        }
    }
}

/// The consumer that all workers share. The stream is origin's.
async fn consumer(context: &jetstream::Context) -> Result<Consumer<Pull>, async_nats::Error> {
    let stream = context.get_stream_no_info(STREAM).await?;
    let wanted = Pull {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        ..Pull::default()
    };
    stream
        .get_or_create_consumer(CONSUMER, wanted)
        .await
        .map_err(Into::into)
}

async fn acknowledge(message: &Message, kind: AckKind) {
    // What is not acknowledged comes again, and origin says whose it is.
    if let Err(error) = message.ack_with(kind).await {
        tracing::warn!(error = %error, "a message of the queue is not acknowledged");
    }
}
