//! Runs gates: those of a candidate that is ready, and those that somebody asks for by hand.
//!
//! What they showed is told origin before anything that follows from it. A run by hand changes nothing here: it is carried
//! out once in a boot, the newest of a site takes the place of one under way, and a release that was fetched for it goes again.

use std::sync::Arc;

use helix_routing::gate::record::GateRecord;
use helix_routing::gate::result::GateResult;
use helix_routing::id::{Generation, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::verdict::Verdict;
use helix_service::clock;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::placement::Event;
use super::{Agent, Done};
use crate::gate::{self, Asker, Scope, Subject};
use crate::store::PrepareError;

/// What gates are asked with, once there is anything that serves requests.
pub type Asking = watch::Receiver<Option<Arc<Asker>>>;

/// The newest run by hand of a site.
#[derive(Debug)]
pub(super) struct Run {
    generation: Generation,
    task: AbortHandle,
}

/// A release that is not ready: what to tell, and whether it is the artifact's fault.
#[derive(Debug)]
pub(super) struct Unready {
    pub(super) verdict: Verdict,
    pub(super) reason: String,
}

impl From<PrepareError> for Unready {
    fn from(error: PrepareError) -> Self {
        let verdict = match &error {
            PrepareError::Invalid { .. }
            | PrepareError::Provenance { .. }
            | PrepareError::Content { .. } => Verdict::Fail,
            PrepareError::Fetch(_) | PrepareError::Disk { .. } => Verdict::Error,
        };
        Self {
            verdict,
            reason: error.reason(),
        }
    }
}

impl Agent {
    /// Starts the gates of a candidate: first of all it has to come from where its record requires.
    pub(super) fn gate(&mut self, site: &SiteId, release: ReleaseRef, returns: bool) {
        let Some(place) = self.places.get_mut(site) else {
            return;
        };
        let Some(ready) = place.ready.get(&release) else {
            return;
        };
        let subject = Subject {
            site: site.clone(),
            release: Arc::clone(ready),
        };
        let record = place.placement.record();
        let requires = record.and_then(|record| record.requires.clone());
        let (store, fetcher) = (Arc::clone(&self.store), self.fetcher.clone());
        let (asking, done) = (self.asking.clone(), self.done.clone());
        let candidate = release.clone();
        let task = tokio::spawn(async move {
            let scope = Scope {
                only: None,
                returns,
            };
            let (site, artifact) = (&subject.site, &candidate.artifact);
            let vouched = store.vouch(site, artifact, requires.as_deref(), &fetcher);
            let results = match Box::pin(vouched).await.map_err(Unready::from) {
                Ok(()) => run(asking, &subject, &scope).await,
                Err(Unready { verdict, reason }) => vec![gate::unready(verdict, &reason)],
            };
            let site = subject.site;
            // The agent ends only with the process.
            let _ = done
                .send(Done::Gated {
                    site,
                    release: candidate,
                    results,
                })
                .await;
        });
        place.gating = Some(Box::new((release, task.abort_handle())));
    }

    /// No longer runs them.
    pub(super) fn ungate(&mut self, site: &SiteId, release: &ReleaseRef) {
        let place = self.places.get_mut(site);
        let held = place.and_then(|place| place.gating.take_if(|held| held.0 == *release));
        if let Some((_, task)) = held.map(|held| *held) {
            task.abort();
        }
    }

    /// The gates of a candidate have been run.
    pub(super) fn gated(&mut self, site: &SiteId, release: ReleaseRef, results: Vec<GateResult>) {
        let Some(place) = self.places.get_mut(site) else {
            return;
        };
        if place.gating.take_if(|held| held.0 == release).is_none() {
            // Dropped meanwhile.
            return;
        }
        let failure = gate::failure(&results);
        self.reports.gated(site, &release.release, None, results);
        self.step(site, Event::Gated { release, failure });
    }

    /// Carries out a run by hand, unless it has been or nobody waits for it any more.
    pub(super) fn run_gates(&mut self, record: GateRecord) {
        let held = self.runs.get(&record.site).map(|run| run.generation);
        if held >= Some(record.generation) || !record.is_fresh(clock::now()) {
            return;
        }
        let (site, generation) = (record.site.clone(), record.generation);
        let task = self.start_run(record).abort_handle();
        if let Some(before) = self.runs.insert(site, Run { generation, task }) {
            before.task.abort();
        }
    }

    fn start_run(&self, record: GateRecord) -> tokio::task::JoinHandle<()> {
        let place = self.places.get(&record.site);
        let ready = place.and_then(|place| place.ready.get(&record.release).cloned());
        let (store, fetcher) = (Arc::clone(&self.store), self.fetcher.clone());
        let (asking, done) = (self.asking.clone(), self.done.clone());
        let reports = Arc::clone(&self.reports);
        tokio::spawn(async move {
            let GateRecord {
                site,
                release,
                gate,
                generation,
                ..
            } = record;
            let is_fetched = ready.is_none();
            let prepared = match ready {
                Some(ready) => Ok(ready),
                None => {
                    let preparing = store.prepare(site.clone(), release.clone(), fetcher);
                    Box::pin(preparing).await.map(Arc::new)
                }
            };
            let results = match prepared.map_err(Unready::from) {
                Ok(release) => {
                    let subject = Subject {
                        site: site.clone(),
                        release,
                    };
                    let scope = Scope {
                        only: gate,
                        returns: false,
                    };
                    run(asking, &subject, &scope).await
                }
                Err(Unready { verdict, reason }) => vec![gate::unready(verdict, &reason)],
            };
            reports.gated(&site, &release.release, Some(generation), results);
            if is_fetched {
                // The agent ends only with the process.
                let _ = done.send(Done::RunEnded).await;
            }
        })
    }
}

/// Waits until requests are served here, and runs the gates.
async fn run(mut asking: Asking, subject: &Subject, scope: &Scope) -> Vec<GateResult> {
    let asker = match asking.wait_for(Option::is_some).await {
        Ok(asker) => asker.clone(),
        // The process ends.
        Err(_) => None,
    };
    match asker {
        Some(asker) => Box::pin(asker.run(subject, scope)).await,
        None => std::future::pending().await,
    }
}
