//! What origin is told of a build while it runs: that it goes on, and what it prints.

use std::time::Duration;

use helix_client::retry::{MID_UPLOAD, patiently};
use helix_client::{Origin, OriginError};
use helix_routing::api::{
    BuildClaim, BuildEnd, BuildJob, BuildLog, BuildOutcome, BuildWish, HEARTBEAT_SECONDS,
    LEASE_SECONDS, LogLine, MAX_LOG_LINES,
};
use helix_routing::id::BuildId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::log::Journal;

/// Lines wait at most this long to be sent together.
const GATHER: Duration = Duration::from_millis(250);
/// Bytes that are sent at once: origin reads bodies of a limited size.
const MAX_SENT_BYTES: usize = 512 * 1024;
/// How long the last lines may take.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(30);

/// One build at origin, as one worker sees it.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) origin: Origin,
    pub(super) worker: String,
    pub(super) build: BuildId,
}

/// What came of a claim.
#[derive(Debug)]
pub(super) enum Claimed {
    /// It is ours.
    Ours(Box<BuildJob>),
    /// It is somebody else's, over, or gone.
    NotOurs,
}

impl Report {
    pub(super) async fn claim(&self) -> Result<Claimed, OriginError> {
        let body = self.claimer();
        match self.origin.create(&self.path("claim"), &body).await {
            Ok(job) => Ok(Claimed::Ours(Box::new(job))),
            Err(error) if is_lost(&error) => Ok(Claimed::NotOurs),
            Err(error) => Err(error),
        }
    }

    /// Says each few seconds that the build goes on, and then lets `alive` know; gives it up when origin says so, or was silent for
    /// as long as it waits itself. Never returns before a reason is in `stop`.
    pub(super) async fn beat(&self, stop: &watch::Sender<Option<String>>, alive: impl AsyncFn()) {
        let mut heard = Instant::now();
        let body = self.claimer();
        loop {
            alive().await;
            sleep(Duration::from_secs(HEARTBEAT_SECONDS)).await;
            let path = self.path("heartbeat");
            let asked = self.origin.create::<BuildWish>(&path, &body);
            let reason = match timeout(Duration::from_secs(HEARTBEAT_SECONDS), asked).await {
                Ok(Ok(BuildWish { stop: None })) => {
                    heard = Instant::now();
                    continue;
                }
                Ok(Ok(BuildWish { stop: Some(reason) })) => reason,
                Ok(Err(error)) if is_lost(&error) => "another worker has this build".to_owned(),
                Ok(Err(_)) | Err(_) if heard.elapsed() < Duration::from_secs(LEASE_SECONDS) => {
                    continue;
                }
                Ok(Err(_)) | Err(_) => "origin was away for too long".to_owned(),
            };
            stop.send_replace(Some(reason));
            return;
        }
    }

    /// Sends lines as they come, for ever.
    pub(super) async fn send_lines(&self, journal: &Journal) {
        loop {
            journal.more().await;
            sleep(GATHER).await;
            self.send_waiting(journal).await;
        }
    }

    /// Sends what is left.
    pub(super) async fn send_rest(&self, journal: &Journal) {
        if timeout(LAST_LINES_WITHIN, self.send_waiting(journal))
            .await
            .is_err()
        {
            tracing::warn!(build.id = %self.build, "the last lines of a log did not arrive");
        }
    }

    async fn send_waiting(&self, journal: &Journal) {
        loop {
            let lines = some(journal.waiting(MAX_LOG_LINES));
            let Some(last) = lines.last().map(|line| line.seq) else {
                return;
            };
            let log = BuildLog {
                worker: self.worker.clone(),
                lines,
            };
            let path = self.path("log");
            match patiently(MID_UPLOAD, async || self.origin.tell(&path, &log).await).await {
                Ok(()) => journal.arrived(last),
                Err(error) => {
                    // The build goes on without a log, and the heartbeat finds out whose it is.
                    tracing::warn!(build.id = %self.build, error = &error as &dyn std::error::Error, "lines of a log are not taken");
                    return;
                }
            }
        }
    }

    /// Says how it ended; whether that was still for us to say.
    pub(super) async fn end(&self, outcome: BuildOutcome) -> Result<bool, OriginError> {
        let end = BuildEnd {
            worker: self.worker.clone(),
            outcome,
        };
        let path = self.path("end");
        match patiently(MID_UPLOAD, async || self.origin.tell(&path, &end).await).await {
            Ok(()) => Ok(true),
            // Somebody else's, or said already.
            Err(error) if is_lost(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn path<'a>(&'a self, what: &'a str) -> [&'a str; 3] {
        ["builds", self.build.as_str(), what]
    }

    fn claimer(&self) -> BuildClaim {
        BuildClaim {
            worker: self.worker.clone(),
        }
    }
}

/// As many lines as are sent at once.
fn some(mut lines: Vec<LogLine>) -> Vec<LogLine> {
    let mut bytes = 0;
    let fits = lines.iter().take_while(|line| {
        bytes += line.text.len();
        bytes <= MAX_SENT_BYTES
    });
    let count = fits.count().max(1);
    lines.truncate(count);
    lines
}

/// Whether origin says that the build is not ours.
fn is_lost(error: &OriginError) -> bool {
    let status = match error {
        OriginError::Problem(problem) => problem.status,
        OriginError::Unexpected { status, .. } => status.as_u16(),
        OriginError::Unreachable { .. } | OriginError::Client(_) => return false,
    };
    matches!(status, 404 | 409 | 410)
}
