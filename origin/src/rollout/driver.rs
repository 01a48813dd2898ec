//! One task per running rollout: event, step, save, act.
//!
//! Invariant: what others can see of a step, records and probes, happens after the step is saved. Steps that
//! only count an edge's progress change nothing durable and are not saved: a restart asks every edge again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use helix_routing::api::{PhaseName, RolloutView};
use helix_routing::id::{EdgeId, Generation, RegionId, ReleaseId};
use helix_routing::key::{self, Scope};
use helix_routing::rollout::{Command, Event, Fleet, Outcome, Rollout};
use helix_routing::time::Timestamp;
use helix_routing::verdict::Verdict;
use helix_service::{clock, failpoint};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::control::{Asked, ControlError};
use super::probe::{self, Probe};
use super::saved::{self, Saved};
use super::{Conductor, RolloutError, alias, counting};
use crate::audit;
use crate::event;
use crate::store::StoreError;

/// Wait before a save that the database refused is tried again.
const SAVE_PAUSE: Duration = Duration::from_millis(200);
/// A rollout that runs always has a deadline; this bounds the wait should it have none.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Events taken in one step.
const EVENTS_PER_STEP: usize = 256;

/// What a driver can be told.
#[derive(Debug)]
pub(super) enum Message {
    /// Something happened.
    Event(Event),
    /// Someone else changed the rollout in SQL.
    Reload,
    /// Somebody asks something of it.
    Control(Box<Asked>),
}

/// What a driver has to do next.
enum Taken {
    /// Take a step for each, then do what somebody asks.
    Step(Vec<Event>, Option<Box<Asked>>),
    /// Read it again.
    Reload,
}

/// What becomes of the driver after a step.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// What was saved is not what was acted on: ask every edge again.
    Resume,
    End,
}

pub(super) struct Driver {
    conductor: Conductor,
    saved: Saved,
    inbox: mpsc::Receiver<Message>,
    /// For its own probes.
    sender: mpsc::Sender<Message>,
    view: watch::Sender<RolloutView>,
    fleet: watch::Receiver<Arc<Fleet>>,
    probes: JoinSet<()>,
    /// By edge, so that a newer probe replaces the older.
    probing: BTreeMap<EdgeId, (Generation, AbortHandle)>,
}

impl Driver {
    pub(super) fn new(
        conductor: Conductor,
        saved: Saved,
        inbox: mpsc::Receiver<Message>,
        sender: mpsc::Sender<Message>,
        view: watch::Sender<RolloutView>,
    ) -> Self {
        let fleet = conductor.0.roster.watch();
        Self {
            conductor,
            saved,
            inbox,
            sender,
            view,
            fleet,
            probes: JoinSet::new(),
            probing: BTreeMap::new(),
        }
    }

    /// Drives to the end. `commands` are those of the start; with none the rollout is resumed.
    pub(super) async fn run(mut self, commands: Option<Vec<Command>>) {
        let mut next = match commands {
            Some(commands) => {
                saved_at(&self.saved.machine);
                self.act(commands);
                Next::GoOn
            }
            None => self.resume().await,
        };
        while next != Next::End && self.saved.machine.outcome().is_none() {
            next = match next {
                Next::Resume => self.resume().await,
                Next::GoOn | Next::End => match self.wait().await {
                    Taken::Step(events, None) => self.step(&events).await,
                    Taken::Step(events, Some(asked)) => match self.step(&events).await {
                        Next::GoOn => self.control(*asked).await,
                        // Whoever asked is told that it is being taken up.
                        next @ (Next::Resume | Next::End) => next,
                    },
                    Taken::Reload => self.reload().await,
                },
            };
        }
        self.conductor
            .ended(self.saved.machine.site(), self.saved.machine.id());
    }

    async fn wait(&mut self) -> Taken {
        let wait = self
            .saved
            .machine
            .deadline()
            .map_or(IDLE_WAIT, |at| at.since(clock::now()));
        let first = tokio::select! {
            // The driver holds a sender itself, so the channel cannot be closed.
            message = self.inbox.recv() => message.unwrap_or(Message::Reload),
            () = tokio::time::sleep(wait) => Message::Event(Event::Tick),
            _ = self.fleet.changed() => Message::Event(Event::Tick),
            Some(_) = self.probes.join_next() => return Taken::Step(Vec::new(), None),
        };
        let mut events = Vec::new();
        let mut message = Some(first);
        while let Some(taken) = message {
            match taken {
                Message::Event(event) => events.push(event),
                Message::Reload => return Taken::Reload,
                Message::Control(asked) => return Taken::Step(events, Some(asked)),
            }
            message = if events.len() < EVENTS_PER_STEP {
                self.inbox.try_recv().ok()
            } else {
                None
            };
        }
        Taken::Step(events, None)
    }

    async fn step(&mut self, events: &[Event]) -> Next {
        let fleet = Arc::clone(&self.fleet.borrow());
        let now = clock::now();
        let mut machine = self.saved.machine.clone();
        let mut commands = Vec::new();
        for event in events {
            commands.extend(machine.step(now, &fleet, event));
        }
        self.take(machine, commands, now).await
    }

    async fn resume(&mut self) -> Next {
        let fleet = Arc::clone(&self.fleet.borrow());
        let now = clock::now();
        let mut machine = self.saved.machine.clone();
        let commands = machine.resume(self.conductor.0.store.epoch(), now, &fleet);
        self.take(machine, commands, now).await
    }

    /// Does what somebody asks, in one transaction with the note of it. Nobody waits for a second try: whoever asked is told.
    async fn control(&mut self, asked: Asked) -> Next {
        let fleet = Arc::clone(&self.fleet.borrow());
        let now = clock::now();
        let mut machine = self.saved.machine.clone();
        let by = &asked.caller.name;
        let (answer, next) = match machine.control(now, &fleet, by, &asked.control) {
            Err(refused) => {
                let rollout = self.saved.machine.id().clone();
                let control = asked.control.clone();
                let refused = ControlError::Refused {
                    rollout,
                    control,
                    refused,
                };
                (Err(refused), Next::GoOn)
            }
            Ok(_) if machine == self.saved.machine => (Ok(self.saved.view()), Next::GoOn),
            Ok(commands) => {
                let mut next = self.saved.clone();
                next.advance(machine, now);
                match self.save_asked(&mut next, commands, &asked).await {
                    Ok(Some(rest)) => {
                        self.show(next);
                        saved_at(&self.saved.machine);
                        self.act(rest);
                        (Ok(self.saved.view()), Next::GoOn)
                    }
                    Ok(None) => {
                        let away = ControlError::Away(self.saved.machine.id().clone());
                        (Err(away), self.reload().await)
                    }
                    Err(error) => (Err(error), Next::GoOn),
                }
            }
        };
        // Whoever asked may have gone away.
        let _ = asked.answer.send(answer);
        next
    }

    async fn save_asked(
        &self,
        next: &mut Saved,
        commands: Vec<Command>,
        asked: &Asked,
    ) -> Result<Option<Vec<Command>>, ControlError> {
        let store = |error: StoreError| ControlError::Rollout(error.into());
        let mut tx = self.conductor.0.store.write().await.map_err(store)?;
        if !next.update(&mut tx).await? {
            return Ok(None);
        }
        let base = &self.conductor.0.base;
        let rest = saved::apply(&mut tx, base, &next.machine, commands).await?;
        let subject = format!("{} {}", next.machine.site(), next.machine.id());
        let (action, detail) = (asked.action(), asked.detail());
        audit::note(&mut tx, &asked.caller, action, &subject, detail.as_deref())
            .await
            .map_err(store)?;
        if let Some(repeatable) = &asked.repeatable {
            let noted = repeatable.note(&mut tx, &next.view()).await;
            noted.map_err(store)?;
        }
        tx.commit().await.map_err(store)?;
        Ok(Some(rest))
    }

    /// Saves a step when it has to be, then acts on it.
    async fn take(&mut self, machine: Rollout, commands: Vec<Command>, now: Timestamp) -> Next {
        if machine == self.saved.machine && commands.is_empty() {
            return Next::GoOn;
        }
        let mut next = self.saved.clone();
        next.advance(machine, now);
        if commands.iter().any(Command::is_durable) {
            let mut is_unsure = false;
            let rest = loop {
                match self.save(&mut next, commands.clone()).await {
                    Ok(Some(rest)) => break rest,
                    // A commit whose answer was lost with the connection: what follows from it was not done yet.
                    Ok(None) if is_unsure => {
                        let next = self.reload().await;
                        return if next == Next::GoOn {
                            Next::Resume
                        } else {
                            next
                        };
                    }
                    Ok(None) => return self.reload().await,
                    Err(RolloutError::Store(StoreError::Fenced { .. })) => return Next::End,
                    Err(error) => {
                        tracing::error!(rollout = %next.machine.id(), error = &error as &dyn std::error::Error, "rollout was not saved");
                        is_unsure = true;
                        tokio::time::sleep(SAVE_PAUSE).await;
                        next.stored = self.saved.stored;
                    }
                }
            };
            self.show(next);
            saved_at(&self.saved.machine);
            self.act(rest);
        } else {
            self.show(next);
            self.act(commands);
        }
        Next::GoOn
    }

    /// One transaction; none when someone else changed the rollout since it was read.
    async fn save(
        &self,
        next: &mut Saved,
        commands: Vec<Command>,
    ) -> Result<Option<Vec<Command>>, RolloutError> {
        let mut tx = self.conductor.0.store.write().await?;
        if !next.update(&mut tx).await? {
            return Ok(None);
        }
        event::emit_steps(&mut tx, Some(&self.saved.view()), &next.view()).await?;
        let rest = saved::apply(&mut tx, &self.conductor.0.base, &next.machine, commands).await?;
        tx.commit().await?;
        Ok(Some(rest))
    }

    async fn reload(&mut self) -> Next {
        let loaded = async {
            let mut connection = self.conductor.0.store.read().await?;
            saved::load(&mut connection, self.saved.machine.id()).await
        };
        match loaded.await {
            Ok(Some(mut loaded)) if loaded.stored != self.saved.stored => {
                // What is seen must count up, also past steps that were not saved.
                loaded.revision = loaded.revision.max(self.saved.revision + 1);
                self.show(loaded);
                Next::GoOn
            }
            Ok(Some(_)) => Next::GoOn,
            Ok(None) => Next::End,
            Err(error) => {
                tracing::error!(rollout = %self.saved.machine.id(), error = &error as &dyn std::error::Error, "rollout was not read");
                tokio::time::sleep(SAVE_PAUSE).await;
                Next::GoOn
            }
        }
    }

    /// A step that is saved, or that needs no saving: from now on it can be seen.
    fn show(&mut self, next: Saved) {
        log_phases(&self.saved.machine, &next.machine);
        counting::count(&self.conductor.0.ends, &self.saved.machine, &next.machine);
        self.view.send_replace(next.view());
        self.saved = next;
    }

    fn act(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Republish { region } => {
                    self.conductor
                        .0
                        .feed
                        .republish(&Scope::Region(region), key::site(self.saved.machine.site()));
                }
                Command::Probe {
                    region,
                    edge,
                    generation,
                } => self.probe(&region, edge, generation),
                Command::Ask {
                    region,
                    check,
                    query,
                } => self.ask(region, check, query),
                // Done in the transaction.
                Command::Write(_)
                | Command::Settle { .. }
                | Command::Bake { .. }
                | Command::Return { .. }
                | Command::Withdraw { .. }
                | Command::Plan
                | Command::Finish(_) => {}
            }
        }
    }

    fn ask(&mut self, region: RegionId, check: usize, query: String) {
        let (prometheus, sender) = (self.conductor.0.prometheus.clone(), self.sender.clone());
        self.probes.spawn(async move {
            let answer = prometheus.ask(&query).await;
            let answered = Event::Answered {
                region,
                check,
                answer,
            };
            // Lost, it is asked again.
            let _ = sender.send(Message::Event(answered)).await;
        });
    }

    fn probe(&mut self, region: &RegionId, edge: EdgeId, generation: Generation) {
        let known = self.conductor.0.roster.edge(&edge);
        let record = self.saved.machine.record(region);
        let candidate = record.filter(|record| record.weight.is_some());
        let candidate = candidate.and_then(|record| record.candidate.as_ref());
        let live = record.and_then(|record| record.live.as_ref());
        let releases: Vec<ReleaseId> = live
            .into_iter()
            .chain(candidate)
            .map(|release| release.release.clone())
            .collect();
        let host = alias::primary_host(self.saved.machine.site(), &self.conductor.0.base);
        let (Some(known), Ok(host), false) = (known, host, releases.is_empty()) else {
            return;
        };
        let is_running = |(asked, handle): &(Generation, AbortHandle)| {
            *asked == generation && !handle.is_finished()
        };
        if self.probing.get(&edge).is_some_and(is_running) {
            return;
        }
        let wanted = Probe {
            url: known.url,
            host: host.to_string(),
            generation,
            releases,
        };
        let (client, sender, region, named) = (
            self.conductor.0.probes.clone(),
            self.sender.clone(),
            region.clone(),
            edge.clone(),
        );
        let handle = self.probes.spawn(async move {
            let (generation, release) = probe::until_seen(&client, &wanted).await;
            let proved = Event::Proved {
                region,
                edge: named,
                generation,
                release,
            };
            // Waits for room: this is said only once.
            let _ = sender.send(Message::Event(proved)).await;
        });
        if let Some((_, before)) = self.probing.insert(edge, (generation, handle)) {
            before.abort();
        }
    }
}

/// Where tests end the process: by what was just saved.
fn saved_at(machine: &Rollout) {
    let phases: Vec<PhaseName> = machine
        .regions()
        .iter()
        .map(|region| region.phase)
        .collect();
    if machine.outcome() == Some(Outcome::Settled) {
        failpoint::hit("origin.saved.settled");
    } else if phases.contains(&PhaseName::RollingBack) {
        failpoint::hit("origin.saved.returning");
    } else if phases.contains(&PhaseName::Committing) {
        failpoint::hit("origin.saved.committing");
    } else if phases.contains(&PhaseName::Canary) {
        failpoint::hit("origin.saved.canary");
    } else if machine.waits().is_some() {
        failpoint::hit("origin.saved.waiting");
    } else if phases.contains(&PhaseName::Baking) {
        failpoint::hit("origin.saved.baking");
    } else if phases.contains(&PhaseName::Preparing) {
        failpoint::hit("origin.saved.preparing");
    }
}

fn log_phases(from: &Rollout, to: &Rollout) {
    let (before, after) = (from.plan(), to.plan());
    if (before.stage, &before.waits) != (after.stage, &after.waits) {
        tracing::info!(
            rollout = %to.id(), site = %to.site(), stage = after.stage, stages = after.stages.len(),
            from = ?before.waits, to = ?after.waits, "rollout waits"
        );
    }
    for (before, after) in from.regions().iter().zip(to.regions()) {
        if before.phase != after.phase {
            let verdict = after.bake.as_ref().and_then(|bake| bake.verdict);
            tracing::info!(
                rollout = %to.id(), site = %to.site(), region = %after.region, generation = after.generation.0,
                from = ?before.phase, to = ?after.phase, verdict = verdict.map(Verdict::label), reason = after.reason, "cutover"
            );
        }
    }
}
