//! Pure: what one edge does with one site.
//!
//! The machine holds the newest record, which is on disk before it comes here, and which releases are ready in
//! this boot. From those two it follows what to serve, what to fetch and what to report; every event ends in
//! the same reconcile, so a lost or repeated one changes nothing.
//!
//! ```text
//!  a release that the record names:  Looking ──▶ Ready
//!                                        │         ▲
//!                                        ▼         │
//!                                      Fetching ───┘
//!                                        │  ▲
//!                                        ▼  │ record received again, or (unless it is the candidate) time
//!                                      Failed
//!
//!  the candidate, once it is ready:  Gating ──▶ Passed, and only then it is prepared
//!                                        │  ▲
//!                                        ▼  │ record received again
//!                                      Failed
//! ```
//!
//! Invariants: what is served is ready (invariant 2 of the design); the generation served under never falls
//! (3); a site that served a release goes on serving one until its record says that it is removed (5). The last two hold over
//! restarts, too: see [`Placement::stand_in`].

use std::collections::BTreeMap;

use helix_routing::glass::LocalOverride;
use helix_routing::id::{Generation, ReleaseId};
use helix_routing::record::{Pin, ReleaseRef, SiteRecord};
use helix_routing::report::{CandidateReport, CandidateState};

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A record was taken over, or the one held was received again. It is on disk.
    Recorded(Box<SiteRecord>),
    /// Not all of a release is on disk.
    Absent(ReleaseRef),
    /// A release is ready to be served.
    Ready(ReleaseRef),
    /// A release could not be made ready.
    Failed {
        /// The release.
        release: ReleaseRef,
        /// Why.
        reason: String,
    },
    /// The gates of the candidate were run: what keeps it from going live, if anything does.
    Gated {
        /// The candidate.
        release: ReleaseRef,
        /// Why not.
        failure: Option<String>,
    },
    /// It is time to try again what failed.
    Retry,
    /// Another release than the record's is to be served here. It is on disk.
    Overridden(Box<LocalOverride>),
    /// No longer: the record counts again.
    OverrideEnded,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make this release ready.
    Fetch(ReleaseRef),
    /// No longer make this release ready, and no longer hold it.
    Drop(ReleaseRef),
    /// Run the gates of this release, which is ready.
    Gate {
        /// The candidate.
        release: ReleaseRef,
        /// Whether it was live here before.
        returns: bool,
    },
    /// No longer run them.
    Ungate(ReleaseRef),
    /// Let requests see this.
    Serve(Plan),
    /// Let requests see nothing of this site.
    Remove,
    /// Tell origin how things are.
    Report(State),
    /// Come back with [`Event::Retry`].
    RetryLater {
        /// How often it failed before.
        failures: u32,
    },
    /// Something may be unreferenced now.
    Collect,
    /// The override of this edge is over: a later cutover replaced it, or the site is gone.
    Overruled(Box<LocalOverride>),
}

/// What requests see of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The generation served under.
    pub generation: Generation,
    /// What requests get.
    pub live: Option<ReleaseRef>,
    /// Ready, and reached by its own name only.
    pub kept: Vec<ReleaseRef>,
    /// A candidate that is ready, and the percentage of visitors who get it.
    pub canary: Option<Box<(ReleaseRef, u8)>>,
    /// Pins whose release is ready.
    pub pins: Vec<Pin>,
}

/// What is reported of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Generation of the record on disk.
    pub generation: Generation,
    /// Generation served under.
    pub serving: Generation,
    /// The release served.
    pub live: Option<ReleaseId>,
    /// How far the candidate is.
    pub candidate: Option<Box<CandidateReport>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// On disk.
    Looking,
    Fetching,
    Ready {
        /// It was on disk already.
        was_here: bool,
    },
    Failed(String),
}

/// Where a candidate that is ready stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Candidacy {
    Gating,
    Passed,
    Failed(String),
}

/// One site on this edge.
#[derive(Debug, Default)]
pub struct Placement {
    record: Option<Box<SiteRecord>>,
    releases: BTreeMap<ReleaseRef, Progress>,
    /// Boxed, as what else few sites have: an edge may hold a hundred thousand of these.
    candidacy: Option<Box<(ReleaseRef, Candidacy)>>,
    /// What this edge serves instead of the record's release.
    local: Option<Box<LocalOverride>>,
    served: Option<Plan>,
    reported: Option<State>,
    /// Failures since something last succeeded or a record came.
    failures: u32,
    retry_is_due: bool,
}

impl Placement {
    /// The newest record.
    #[must_use]
    pub fn record(&self) -> Option<&SiteRecord> {
        self.record.as_deref()
    }

    /// The override that stands here.
    #[must_use]
    pub fn local(&self) -> Option<&LocalOverride> {
        self.local.as_deref()
    }

    /// Whether requests get what the newest record names, or what an override of this edge does.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.record.as_ref().is_none_or(|record| {
            let served = self.served.as_ref();
            record.removed
                || served.is_some_and(|plan| {
                    plan.generation == record.generation
                        && plan.live.as_ref() == self.wanted(record)
                })
        })
    }

    /// What requests see.
    #[must_use]
    pub const fn served(&self) -> Option<&Plan> {
        self.served.as_ref()
    }

    /// The releases that the record names and that are not ready.
    pub fn unready(&self) -> impl Iterator<Item = &ReleaseRef> {
        self.releases
            .iter()
            .filter(|(_, progress)| !matches!(progress, Progress::Ready { .. }))
            .map(|(release, _)| release)
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut again = false;
        match event {
            Event::Recorded(record) => {
                // The ledger lets nothing older through; a placement does not rely on it.
                if self
                    .record
                    .as_ref()
                    .is_some_and(|held| held.generation > record.generation)
                {
                    return commands;
                }
                self.record = Some(record);
                self.failures = 0;
                self.retry_failed(&mut commands, true);
                self.candidacy
                    .take_if(|held| matches!(held.1, Candidacy::Failed(_)));
                again = true;
            }
            Event::Absent(release) => {
                if let Some(progress) = self.releases.get_mut(&release)
                    && *progress == Progress::Looking
                {
                    *progress = Progress::Fetching;
                }
            }
            Event::Ready(release) => {
                if let Some(progress) = self.releases.get_mut(&release) {
                    let was_here = *progress == Progress::Looking;
                    *progress = Progress::Ready { was_here };
                    self.failures = 0;
                }
            }
            Event::Failed { release, reason } => {
                if let Some(progress) = self.releases.get_mut(&release)
                    && matches!(progress, Progress::Looking | Progress::Fetching)
                {
                    *progress = Progress::Failed(reason);
                }
            }
            Event::Gated { release, failure } => {
                if let Some((candidate, state)) = self.candidacy.as_deref_mut()
                    && *candidate == release
                    && *state == Candidacy::Gating
                {
                    *state = failure.map_or(Candidacy::Passed, Candidacy::Failed);
                }
            }
            Event::Retry => {
                self.retry_is_due = false;
                self.retry_failed(&mut commands, false);
            }
            Event::Overridden(local) => self.local = Some(local),
            Event::OverrideEnded => self.local = None,
        }
        self.reconcile(again, &mut commands);
        commands
    }

    fn reconcile(&mut self, again: bool, commands: &mut Vec<Command>) {
        let Some(record) = self.record.clone() else {
            return;
        };
        if let Some(over) = self.local.take_if(|local| !local.stands(&record)) {
            commands.push(Command::Overruled(over));
        }
        if record.removed {
            self.remove(&record, again, commands);
            return;
        }
        self.fetch_named(&record, commands);
        self.gate_candidate(&record, commands);
        self.serve(&record, commands);
        self.drop_unnamed(&record, commands);
        self.report(&record, again, commands);
        self.plan_retry(&record, commands);
    }

    /// Live first: it is what visitors wait for.
    fn fetch_named(&mut self, record: &SiteRecord, commands: &mut Vec<Command>) {
        let overriding = self.local.as_ref().map(|local| &local.release);
        for release in overriding.into_iter().chain(record.releases()) {
            if !self.releases.contains_key(release) {
                self.releases.insert(release.clone(), Progress::Looking);
                commands.push(Command::Fetch(release.clone()));
            }
        }
    }

    /// What requests are to get. An override whose release was lost meanwhile shows nobody nothing.
    fn wanted<'a>(&'a self, record: &'a SiteRecord) -> Option<&'a ReleaseRef> {
        let overriding = self.local.as_ref().map(|local| &local.release);
        let is_lost = |release: &&ReleaseRef| {
            matches!(self.releases.get(*release), Some(Progress::Failed(_)))
        };
        overriding
            .filter(|release| !is_lost(release))
            .or(record.live.as_ref())
    }

    /// A candidate is gated once, when it is ready; one that is live already, too: that is a restart.
    fn gate_candidate(&mut self, record: &SiteRecord, commands: &mut Vec<Command>) {
        let candidate = record.candidate.as_ref().filter(|_| !record.removed);
        let is_other = |held: &mut Box<(ReleaseRef, Candidacy)>| Some(&held.0) != candidate;
        if let Some(held) = self.candidacy.take_if(is_other) {
            commands.push(Command::Ungate(held.0));
        }
        if let Some(candidate) = candidate.filter(|candidate| self.is_ready(candidate))
            && self.candidacy.is_none()
        {
            self.candidacy = Some(Box::new((candidate.clone(), Candidacy::Gating)));
            commands.push(Command::Gate {
                release: candidate.clone(),
                returns: record.previous.contains(candidate),
            });
        }
    }

    fn serve(&mut self, record: &SiteRecord, commands: &mut Vec<Command>) {
        let before = self.served.clone().unwrap_or_default();
        let (generation, live) = match self.wanted(record) {
            Some(live) if self.is_ready(live) => (record.generation, Some(live.clone())),
            None if before.live.is_none() => (record.generation, None),
            Some(missing) if before.live.is_none() && self.is_known(missing) => {
                let nothing = (before.generation, None);
                self.stand_in(record).unwrap_or(nothing)
            }
            // The release the record names is not here yet, or the record names none: the old one stays.
            Some(_) | None => (before.generation, before.live),
        };
        let mut kept: Vec<ReleaseRef> = Vec::new();
        for release in record.releases() {
            if self.is_ready(release) && live.as_ref() != Some(release) && !kept.contains(release) {
                kept.push(release.clone());
            }
        }
        let plan = Plan {
            canary: self.canary(record, live.as_ref()),
            pins: self.pins(record),
            generation,
            live,
            kept,
        };
        if self.served.as_ref() != Some(&plan) {
            self.served = Some(plan.clone());
            commands.push(Command::Serve(plan));
        }
    }

    /// What is served while what is wanted is fetched after a restart: of the releases that are or were live, the latest that
    /// was here when this edge started. None as long as it is not known what is here.
    ///
    /// What was served before the restart is among them, or older: nothing that was never here stands in. Nor does the generation
    /// fall, which is the last one under which another release than the record's was live.
    fn stand_in(&self, record: &SiteRecord) -> Option<(Generation, Option<ReleaseRef>)> {
        let was_here = Progress::Ready { was_here: true };
        // What is live comes first: an override may want another one.
        let mut were_live = record.live.iter().chain(&record.previous);
        let latest = were_live.find(|release| {
            !self.is_known(release) || self.releases.get(*release) == Some(&was_here)
        });
        let generation = if latest.is_some() && latest == record.live.as_ref() {
            record.generation
        } else {
            Generation(record.live_since.0.saturating_sub(1))
        };
        latest
            .is_none_or(|latest| self.is_known(latest))
            .then(|| (generation, latest.cloned()))
    }

    /// Whether it was looked for on disk.
    fn is_known(&self, release: &ReleaseRef) -> bool {
        let progress = self.releases.get(release);
        !matches!(progress, Some(Progress::Looking) | None)
    }

    /// While an override of this edge stands nobody is parted from the others: what was left may be what is pinned.
    fn pins(&self, record: &SiteRecord) -> Vec<Pin> {
        let pins = record.pins.iter().filter(|_| self.local.is_none());
        pins.filter(|pin| self.is_ready(&pin.release))
            .cloned()
            .collect()
    }

    /// The candidate, for a share of the visitors of what the record names as live. After a restart its gates may still run:
    /// it has passed them in the boot before, or the record would name no weight.
    fn canary(
        &self,
        record: &SiteRecord,
        live: Option<&ReleaseRef>,
    ) -> Option<Box<(ReleaseRef, u8)>> {
        let weight = record.weight?;
        let candidate = record.candidate.as_ref()?;
        let has_failed = matches!(self.candidacy.as_deref(), Some((_, Candidacy::Failed(_))));
        let counts = self.local.is_none()
            && self.is_ready(candidate)
            && !has_failed
            && live.is_some()
            && live == record.live.as_ref()
            && live != Some(candidate);
        counts.then(|| Box::new((candidate.clone(), weight)))
    }

    /// What the record no longer names goes, but never what is served.
    fn drop_unnamed(&mut self, record: &SiteRecord, commands: &mut Vec<Command>) {
        let live = self.served.as_ref().and_then(|plan| plan.live.clone());
        let before = self.releases.len();
        self.releases.retain(|release, _| {
            let stays = live.as_ref() == Some(release)
                || self.local.as_ref().map(|local| &local.release) == Some(release)
                || record.releases().any(|named| named == release);
            if !stays {
                commands.push(Command::Drop(release.clone()));
            }
            stays
        });
        if self.releases.len() < before {
            commands.push(Command::Collect);
        }
    }

    fn remove(&mut self, record: &SiteRecord, again: bool, commands: &mut Vec<Command>) {
        self.gate_candidate(record, commands);
        let plan = Plan {
            generation: record.generation,
            ..Plan::default()
        };
        if self.served.as_ref() != Some(&plan) {
            self.served = Some(plan);
            commands.push(Command::Remove);
        }
        let dropped = std::mem::take(&mut self.releases);
        let collect = !dropped.is_empty();
        commands.extend(dropped.into_keys().map(Command::Drop));
        if collect {
            commands.push(Command::Collect);
        }
        self.report(record, again, commands);
    }

    fn report(&mut self, record: &SiteRecord, again: bool, commands: &mut Vec<Command>) {
        let served = self.served.clone().unwrap_or_default();
        let state = State {
            generation: record.generation,
            serving: served.generation,
            live: served.live.map(|live| live.release),
            candidate: record
                .candidate
                .as_ref()
                .filter(|_| !record.removed)
                .map(|candidate| Box::new(self.candidate(candidate))),
        };
        if again || self.reported.as_ref() != Some(&state) {
            self.reported = Some(state.clone());
            commands.push(Command::Report(state));
        }
    }

    fn candidate(&self, candidate: &ReleaseRef) -> CandidateReport {
        let state = match self.releases.get(candidate) {
            Some(Progress::Ready { .. }) => match self.candidacy.as_deref() {
                Some((_, Candidacy::Passed)) => CandidateState::Prepared,
                Some((_, Candidacy::Failed(reason))) => CandidateState::Failed(reason.clone()),
                Some((_, Candidacy::Gating)) | None => CandidateState::Preparing,
            },
            Some(Progress::Failed(reason)) => CandidateState::Failed(reason.clone()),
            Some(Progress::Looking | Progress::Fetching) | None => CandidateState::Preparing,
        };
        CandidateReport {
            release: candidate.release.clone(),
            state,
        }
    }

    /// A candidate that failed is tried again only when its record comes again: origin decides that.
    fn retry_failed(&mut self, commands: &mut Vec<Command>, with_candidate: bool) {
        let candidate = self
            .record
            .as_ref()
            .and_then(|record| record.candidate.clone());
        let live = self.record.as_ref().and_then(|record| record.live.clone());
        for (release, progress) in &mut self.releases {
            let is_candidate_only =
                candidate.as_ref() == Some(release) && live.as_ref() != Some(release);
            if matches!(progress, Progress::Failed(_)) && (with_candidate || !is_candidate_only) {
                *progress = Progress::Fetching;
                commands.push(Command::Fetch(release.clone()));
            }
        }
    }

    fn plan_retry(&mut self, record: &SiteRecord, commands: &mut Vec<Command>) {
        let waits = self.releases.iter().any(|(release, progress)| {
            let is_candidate_only =
                record.candidate.as_ref() == Some(release) && record.live.as_ref() != Some(release);
            matches!(progress, Progress::Failed(_)) && !is_candidate_only
        });
        if waits && !self.retry_is_due {
            self.retry_is_due = true;
            commands.push(Command::RetryLater {
                failures: self.failures,
            });
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn is_ready(&self, release: &ReleaseRef) -> bool {
        matches!(self.releases.get(release), Some(Progress::Ready { .. }))
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
