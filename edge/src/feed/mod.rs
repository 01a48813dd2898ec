//! Follows origin's two streams: the shell around [`follower`].
//!
//! One task per stream owns its follower and its ledger. A record goes through it in this order: its place and
//! signature are checked, it is compared with the one held, it is on disk, and only then is it handed on.
//! Records that arrived together share one write. What a record makes the edge do is the agent's business.

pub mod follower;
mod held;
mod judge;
pub mod reader;
pub mod record;
pub mod snapshot;
mod takeover;

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::{FutureExt, StreamExt};
use helix_routing::id::{EdgeId, Incarnation};
use helix_routing::key::{BEACON, Scope};
use helix_routing::record::{Beacon, Order};
use helix_routing::seal::KeyRole;
use helix_routing::wire::Wire;
use helix_service::clock;
use helix_service::keys::KeyRing;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::follower::{Command, Event, Follower, Head, Page};
pub use self::held::Recalled;
use self::held::Recalls;
use self::reader::{PAGE_MESSAGES, ReadError, Stored};
use self::record::{Opened, Record, Rejected};
use self::snapshot::{SnapshotError, Taken};
use crate::state::{Ledger, Position, Purpose, StateError};
use crate::table::Table;

/// How often time is told to the follower: half of the shortest span it measures.
const TICK: Duration = Duration::from_millis(50);
/// Records that share one write. A burst is cut here so that the first of it is not kept waiting.
const BATCH_RECORDS: usize = 256;
/// How often the position is written when nothing else is: it tells a restart how long this edge was away.
const MARK_INTERVAL: Duration = Duration::from_secs(60);
/// After state could not be written (a full disk, mostly).
const STATE_RETRY: Duration = Duration::from_secs(1);

/// What a feed hands on together, in order.
#[derive(Debug)]
pub enum Batch {
    /// Changes of the stream, which count at once.
    Now(Vec<Change>),
    /// Some of a snapshot; the others follow.
    Slice(Vec<Change>),
    /// That was all of the snapshot, or it was given up.
    SnapshotEnd,
}

impl Batch {
    /// The changes in it.
    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        match self {
            Self::Now(changes) | Self::Slice(changes) => changes,
            Self::SnapshotEnd => Vec::new(),
        }
    }
}

/// What a stream says, after it is on disk.
#[derive(Debug)]
pub enum Change {
    /// A record that was taken over, or the one held, received again.
    Record {
        /// The record.
        record: Record,
        /// It changes nothing.
        again: bool,
    },
    /// The stream no longer has this key.
    Dropped {
        /// The key.
        key: String,
    },
    /// A record was refused; the last good one stays.
    Refused(Refused),
    /// Origin wants to know what is held.
    Recalled(Recalled),
}

/// A record that was refused.
#[derive(Debug)]
pub struct Refused {
    /// The stream.
    pub stream: String,
    /// Its key.
    pub key: String,
    /// Its sequence; 0 in a snapshot.
    pub sequence: u64,
    /// Why.
    pub reason: String,
}

/// How far a stream is followed, for heartbeats and readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedStatus {
    /// Its life.
    pub incarnation: Option<Incarnation>,
    /// The last sequence taken over.
    pub sequence: u64,
    /// No beacon for too long.
    pub stale: bool,
    /// Its end was reached since the start.
    pub caught_up: bool,
}

/// Follows one stream.
#[derive(Debug)]
pub struct Feed {
    /// Whose stream.
    scope: Scope,
    /// The keys that are trusted.
    ring: Arc<KeyRing>,
    /// The link.
    client: Client,
    /// What is held.
    ledger: Ledger,
    /// What is served, and so ready.
    table: Arc<Table>,
    /// Where changes go, in order.
    changes: mpsc::Sender<Batch>,
    /// Where the status is shown.
    status: watch::Sender<FeedStatus>,
    /// Keys that the snapshot taken over lacks; those that do not come until the stream's end are dropped.
    missing: HashSet<String>,
    /// The newest snapshot that a beacon named.
    newest_snapshot: u64,
    /// When a snapshot may be fetched to cover the logs.
    cover_at: Instant,
    /// One is being fetched for that: no other may be written in its place.
    is_covering: bool,
    recalls: Recalls,
}

/// What is known where a feed begins.
#[derive(Debug)]
pub struct Known {
    /// What is held.
    pub ledger: Ledger,
    /// What is served.
    pub table: Arc<Table>,
    /// Who this is.
    pub edge: EdgeId,
}

enum Work {
    Held(Recalled),
    Page(Result<Page<Stored>, ReadError>),
    Snapshot(Purpose, Incarnation, Result<Option<Taken>, SnapshotError>),
}

impl Feed {
    /// A feed of the stream of `scope` that goes on from `ledger`, and where its status is shown.
    #[must_use]
    pub fn new(
        scope: Scope,
        ring: Arc<KeyRing>,
        client: Client,
        Known {
            ledger,
            table,
            edge,
        }: Known,
        changes: mpsc::Sender<Batch>,
    ) -> (Self, watch::Receiver<FeedStatus>) {
        let position = ledger.position();
        let (status, shown) = watch::channel(FeedStatus {
            incarnation: position.incarnation.clone(),
            sequence: position.sequence,
            stale: false,
            caught_up: false,
        });
        (
            Self {
                scope,
                ring,
                client,
                ledger,
                table,
                changes,
                status,
                missing: HashSet::new(),
                newest_snapshot: 0,
                cover_at: Instant::now(),
                is_covering: false,
                recalls: Recalls::new(edge),
            },
            shown,
        )
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> String {
        self.scope.stream()
    }

    /// Follows until the receiver of changes is gone.
    pub async fn run(mut self) {
        while !self.changes.is_closed() {
            if let Err(error) = self.follow().await {
                tracing::error!(
                    stream = self.scope.stream(),
                    error = &error as &dyn Error,
                    "state is not written, records do not count"
                );
                tokio::time::sleep(STATE_RETRY).await;
            }
        }
    }

    /// Follows from what is on disk until the subscription ends or the disk fails.
    async fn follow(&mut self) -> Result<(), StateError> {
        let subject = format!("{}>", self.scope.feed_prefix());
        let Ok(mut feed) = self.client.subscribe(subject).await else {
            // Only a client that was shut down refuses, and then the process ends.
            tokio::time::sleep(STATE_RETRY).await;
            return Ok(());
        };
        let mut follower = Follower::new(clock::now(), self.ledger.resume(clock::now()));
        // What was under way ended with the work of before.
        self.is_covering = false;
        let mut work = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut marked = Instant::now();
        let mut connects = self.connects();
        while !self.changes.is_closed() {
            let mut commands = tokio::select! {
                message = feed.next() => match message {
                    Some(message) => self.received(&mut follower, message, &mut feed),
                    None => return Ok(()),
                },
                Some(done) = work.join_next() => match done {
                    Ok(done) => self.worked(&mut follower, done).await?,
                    Err(_) => follower.step(clock::now(), Event::PageFailed),
                },
                piece = self.ledger.next_piece(), if self.ledger.is_adopting() => {
                    self.adopt(piece).await?;
                    Vec::new()
                }
                _ = tick.tick() => follower.step(clock::now(), Event::Tick),
            };
            if self.connects() != connects {
                connects = self.connects();
                commands.extend(follower.step(clock::now(), Event::Connected));
            }
            self.act(commands, &follower, &mut work).await?;
            if let Some(recall) = self.recalls.take() {
                work.spawn(held::answer(recall, &self.ledger).map(Work::Held));
            }
            if follower.is_following() {
                self.drop_missing().await?;
                self.cover_when_due(&follower, &mut work);
            }
            if marked.elapsed() > MARK_INTERVAL && follower.caught_up() && !follower.stale() {
                marked = Instant::now();
                self.mark(&follower).await?;
            }
            self.show(&follower);
        }
        Ok(())
    }

    /// Takes what has arrived, up to a batch, without waiting.
    fn received(
        &mut self,
        follower: &mut Follower<Stored>,
        first: Message,
        feed: &mut Subscriber,
    ) -> Vec<Command<Stored>> {
        let mut commands = self.take_in(follower, first);
        for _ in 1..BATCH_RECORDS {
            let Some(Some(message)) = feed.next().now_or_never() else {
                break;
            };
            commands.extend(self.take_in(follower, message));
        }
        commands
    }

    fn take_in(
        &mut self,
        follower: &mut Follower<Stored>,
        message: Message,
    ) -> Vec<Command<Stored>> {
        let now = clock::now();
        if message.subject.as_str() == self.scope.recall() {
            self.recalls.hear(&self.ring, &self.scope, &message.payload);
            return Vec::new();
        }
        if let Some((sequence, stored)) = reader::stored(&message) {
            if reader::stream_of(&message) != Some(self.scope.stream().as_str()) {
                return Vec::new();
            }
            return follower.step(
                now,
                Event::Message {
                    sequence,
                    message: stored,
                },
            );
        }
        match self.beacon(&message.payload) {
            Ok(head) => follower.step(now, Event::Beacon(head)),
            Err(error) => {
                tracing::warn!(
                    stream = self.scope.stream(),
                    error = &error as &dyn Error,
                    "beacon is refused"
                );
                Vec::new()
            }
        }
    }

    fn beacon(&mut self, sealed: &[u8]) -> Result<Head, Rejected> {
        let seal = self.ring.verify(KeyRole::Record, sealed)?;
        record::check_place(&seal, &self.scope.beacon(), None, BEACON)?;
        let beacon = Beacon::decode(&seal.body)?;
        if beacon.stream != self.scope.stream()
            || beacon.incarnation != seal.incarnation
            || beacon.epoch != seal.epoch
        {
            return Err(Rejected::Disagrees { what: "the stream" });
        }
        if beacon.epoch < self.ledger.epoch()
            && Some(&beacon.incarnation) == self.ledger.position().incarnation.as_ref()
        {
            return Err(Rejected::OldTerm {
                found: beacon.epoch,
                known: self.ledger.epoch(),
            });
        }
        self.newest_snapshot = beacon.snapshot_sequence.unwrap_or(0);
        Ok(Head {
            incarnation: beacon.incarnation,
            epoch: beacon.epoch,
            last_sequence: beacon.last_sequence,
            snapshot: self.newest_snapshot,
            at: beacon.at,
        })
    }

    async fn worked(
        &mut self,
        follower: &mut Follower<Stored>,
        work: Work,
    ) -> Result<Vec<Command<Stored>>, StateError> {
        let stream = self.scope.stream();
        let event = match work {
            Work::Held(held) => {
                self.hand_on(vec![Change::Recalled(held)]).await;
                return Ok(Vec::new());
            }
            Work::Page(Ok(page)) => Event::Page(page),
            Work::Page(Err(error)) => {
                log_retry(&stream, "repair", &error);
                Event::PageFailed
            }
            Work::Snapshot(Purpose::Resync, incarnation, Ok(taken)) => {
                let at = self.take_over(&incarnation, taken).await?;
                tracing::info!(
                    stream,
                    incarnation = incarnation.as_str(),
                    sequence = at,
                    "stream taken over"
                );
                Event::Resynced { incarnation, at }
            }
            Work::Snapshot(Purpose::Cover, incarnation, Ok(taken)) => {
                self.is_covering = false;
                self.cover(follower, &incarnation, taken);
                return Ok(Vec::new());
            }
            Work::Snapshot(Purpose::Cover, _, Err(error)) => {
                self.is_covering = false;
                log_retry(&stream, "snapshot to cover the logs", &error);
                return Ok(Vec::new());
            }
            Work::Snapshot(Purpose::Resync, _, Err(error)) => {
                log_retry(&stream, "snapshot", &error);
                Event::ResyncFailed
            }
        };
        Ok(follower.step(clock::now(), event))
    }

    async fn act(
        &mut self,
        commands: Vec<Command<Stored>>,
        follower: &Follower<Stored>,
        work: &mut JoinSet<Work>,
    ) -> Result<(), StateError> {
        let mut arrived = Vec::new();
        for command in commands {
            match command {
                Command::Apply(messages) => arrived.extend(messages),
                Command::Repair { from } => {
                    let (client, stream) = (self.client.clone(), self.scope.stream());
                    work.spawn(async move {
                        Work::Page(reader::page(&client, &stream, ">", from, PAGE_MESSAGES).await)
                    });
                }
                Command::Resync { incarnation } => {
                    self.fetch_snapshot(Purpose::Resync, incarnation, work);
                }
                Command::Reconnect => {
                    tracing::warn!(
                        stream = self.scope.stream(),
                        "no beacon, the link is made anew"
                    );
                    // It fails only when the client was shut down.
                    let _ = self.client.force_reconnect().await;
                }
            }
        }
        if arrived.is_empty() {
            Ok(())
        } else {
            self.apply(arrived, follower).await
        }
    }

    /// Checks, writes and hands on what arrived, in order.
    async fn apply(
        &mut self,
        arrived: Vec<(u64, Stored)>,
        follower: &Follower<Stored>,
    ) -> Result<(), StateError> {
        let mut changes = Vec::with_capacity(arrived.len());
        let mut opened = Vec::with_capacity(arrived.len());
        let mut epoch = self.ledger.epoch();
        let prefix = self.scope.stored_prefix();
        let last = arrived.last().map_or(0, |(sequence, _)| *sequence);
        for (sequence, stored) in arrived {
            if stored.is_marker {
                continue;
            }
            let key = stored
                .subject
                .strip_prefix(&prefix)
                .unwrap_or(&stored.subject);
            match self.open(key, stored.payload.clone(), follower.incarnation(), epoch) {
                Ok(record) => {
                    epoch = record.sealed_epoch;
                    self.missing.remove(&record.key);
                    opened.push(Opened { sequence, ..record });
                }
                Err(error) => changes.push(self.refuse(key.to_owned(), sequence, &error)),
            }
        }
        self.admit(opened, true, &mut changes).await?;
        self.ledger.advance(last);
        self.hand_on(changes).await;
        Ok(())
    }

    async fn admit(
        &mut self,
        opened: Vec<Opened>,
        sequenced: bool,
        changes: &mut Vec<Change>,
    ) -> Result<(), StateError> {
        for decision in self.ledger.admit(clock::now(), opened, sequenced).await? {
            let Opened {
                key,
                sequence,
                record,
                generation,
                ..
            } = decision.opened;
            match decision.order {
                Order::Newer => changes.push(Change::Record {
                    record,
                    again: false,
                }),
                Order::Same => changes.push(Change::Record {
                    record,
                    again: true,
                }),
                // A snapshot may lag behind what is held; in a stream it means that someone went back.
                Order::Older if !sequenced => {}
                Order::Older => changes.push(self.refused(
                    key,
                    sequence,
                    format!("generation {generation} or its term is lower than the one held"),
                )),
                Order::Conflict => {
                    let reason = format!("generation {generation} is held with other content");
                    tracing::error!(
                        stream = self.scope.stream(),
                        key,
                        sequence,
                        generation = generation.0,
                        "two records of one generation"
                    );
                    changes.push(self.refused(key, sequence, reason));
                }
            }
        }
        Ok(())
    }

    async fn hand_on(&self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.hand_on_batch(Batch::Now(changes)).await;
        }
    }

    async fn hand_on_batch(&self, batch: Batch) {
        // A closed receiver ends `run`.
        let _ = self.changes.send(batch).await;
    }

    async fn mark(&mut self, follower: &Follower<Stored>) -> Result<(), StateError> {
        let position = Position {
            incarnation: follower.incarnation().cloned(),
            sequence: follower.last(),
            contact: clock::now(),
        };
        self.ledger.mark(position).await
    }

    fn show(&self, follower: &Follower<Stored>) {
        let status = FeedStatus {
            incarnation: follower.incarnation().cloned(),
            sequence: follower.last(),
            stale: follower.stale(),
            caught_up: follower.caught_up(),
        };
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
    }

    fn connects(&self) -> u64 {
        self.client
            .statistics()
            .connects
            .load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// What failed is asked for again by the follower; the stream's last good state stays.
fn log_retry(stream: &str, what: &str, error: &(dyn Error + 'static)) {
    tracing::warn!(stream, what, error, "failed, it is tried again");
}
