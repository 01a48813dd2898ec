//! What a feed does with snapshots: takes a stream over from one, and puts a newer one under its own state.
//!
//! A newer snapshot is taken in piece by piece, and records of the stream are admitted between the pieces. Where the stream itself
//! begins with a snapshot there is nothing to admit before: messages wait in the subscription, and requests are served from what is held.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use helix_routing::id::Incarnation;
use helix_routing::key::SNAPSHOT_NAME;
use helix_service::clock;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::follower::Follower;
use super::reader::Stored;
use super::snapshot::{self, Taken};
use super::{Batch, Change, Feed, Work};
use crate::state::{Piece, Position, Progress, Purpose, Slice, StateError};

/// Between two snapshots that are fetched to cover the logs.
const COVER_INTERVAL: Duration = Duration::from_secs(10);
impl Feed {
    pub(super) fn fetch_snapshot(
        &self,
        purpose: Purpose,
        life: Incarnation,
        work: &mut JoinSet<Work>,
    ) {
        let (client, ring, scope) = (
            self.client.clone(),
            Arc::clone(&self.ring),
            self.scope.clone(),
        );
        let incoming = self.ledger.incoming(purpose);
        work.spawn(async move {
            let taken = snapshot::take(&client, &ring, &scope, &life, incoming).await;
            Work::Snapshot(purpose, life, taken)
        });
    }

    /// Fetches a newer snapshot when the logs behind the one on disk have become long.
    pub(super) fn cover_when_due(&mut self, follower: &Follower<Stored>, work: &mut JoinSet<Work>) {
        if !self.is_covering
            && self.ledger.wants(self.newest_snapshot)
            && Instant::now() >= self.cover_at
            && let Some(life) = follower.incarnation()
        {
            self.cover_at = Instant::now() + COVER_INTERVAL;
            self.is_covering = true;
            self.fetch_snapshot(Purpose::Cover, life.clone(), work);
        }
    }

    /// Takes over a snapshot beside what is served: each record replaces only what is older than it. Returns the
    /// sequence to go on from.
    pub(super) async fn take_over(
        &mut self,
        incarnation: &Incarnation,
        taken: Option<Taken>,
    ) -> Result<u64, StateError> {
        // One that was under way belongs to what the stream was before.
        self.finish_adopting().await?;
        self.missing.clear();
        match taken {
            Some(Taken::Parts(base)) => {
                let at = base.index.at_sequence;
                self.ledger.adopt(*base, Purpose::Resync);
                if self.finish_adopting().await? {
                    return Ok(at);
                }
                // What is held goes on being served, and the stream is read.
                let at = self.held_of(incarnation);
                self.begin_at(incarnation, at).await?;
                Ok(at)
            }
            Some(Taken::Whole(whole)) => {
                let mut changes = Vec::new();
                for rejected in &whole.rejected {
                    changes.push(self.refuse(SNAPSHOT_NAME.to_owned(), 0, rejected));
                }
                self.admit(whole.records, false, &mut changes).await?;
                self.begin_at(incarnation, whole.at_sequence).await?;
                self.hand_on(changes).await;
                Ok(whole.at_sequence)
            }
            None => {
                let at = self.held_of(incarnation);
                self.begin_at(incarnation, at).await?;
                Ok(at)
            }
        }
    }

    /// How far this life of the stream is known.
    fn held_of(&self, incarnation: &Incarnation) -> u64 {
        let held = self.ledger.position();
        let is_ours = held.incarnation.as_ref() == Some(incarnation);
        if is_ours { held.sequence } else { 0 }
    }

    async fn begin_at(
        &mut self,
        incarnation: &Incarnation,
        sequence: u64,
    ) -> Result<(), StateError> {
        let position = Position {
            incarnation: Some(incarnation.clone()),
            sequence,
            contact: clock::now(),
        };
        self.ledger.mark(position).await
    }

    /// Begins to make a snapshot of the stream that is followed the base of the state.
    pub(super) fn cover(
        &mut self,
        follower: &Follower<Stored>,
        incarnation: &Incarnation,
        taken: Option<Taken>,
    ) {
        match taken {
            Some(Taken::Parts(base))
                if follower.is_following()
                    && follower.incarnation() == Some(incarnation)
                    && base.index.at_sequence <= follower.last() =>
            {
                self.ledger.adopt(*base, Purpose::Cover);
            }
            // The stream has moved on to something else meanwhile, or there is nothing better than what is held.
            Some(Taken::Parts(_) | Taken::Whole(_)) | None => {}
        }
    }

    /// Takes in the rest of the takeover that is under way, if one is. False when the snapshot lacks too much.
    async fn finish_adopting(&mut self) -> Result<bool, StateError> {
        while self.ledger.is_adopting() {
            let piece = self.ledger.next_piece().await;
            if !self.adopt(piece).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes in a piece of a snapshot, and hands on what is newer in it. False when the snapshot lacks too much.
    pub(super) async fn adopt(&mut self, piece: Piece) -> Result<bool, StateError> {
        let progress = self.ledger.take_piece(piece).await;
        if !self.ledger.is_adopting() {
            self.hand_on_batch(Batch::SnapshotEnd).await;
        }
        match progress {
            Ok(Progress::Compared) => self.ledger.read_on(),
            Ok(Progress::Based { missing }) => self.missing = missing.into_iter().collect(),
            Ok(Progress::Slice(slice)) => {
                self.hand_on_slice(slice).await;
                // Whom it was handed to comes first: a takeover needs one core, and no more.
                tokio::task::yield_now().await;
                self.ledger.read_on();
            }
            Ok(Progress::Done { purpose, at }) => self.done(purpose, at),
            Err(error @ StateError::Shrinks { .. }) => {
                // An operator has to look.
                tracing::error!(
                    stream = self.scope.stream(),
                    error = &error as &dyn Error,
                    "snapshot is refused"
                );
                let refused = self.refused(SNAPSHOT_NAME.to_owned(), 0, error.to_string());
                self.hand_on(vec![refused]).await;
                return Ok(false);
            }
            Err(
                error @ (StateError::Append { .. }
                | StateError::Read { .. }
                | StateError::Base { .. }),
            ) => return Err(error),
        }
        Ok(true)
    }

    fn done(&self, purpose: Purpose, at: u64) {
        if purpose == Purpose::Cover {
            tracing::info!(
                stream = self.scope.stream(),
                sequence = at,
                "state begins with a newer snapshot"
            );
        }
    }

    async fn hand_on_slice(&self, slice: Slice) {
        let mut changes = Vec::with_capacity(slice.newer.len());
        changes.extend(slice.newer.into_iter().map(|opened| Change::Record {
            record: opened.record,
            again: false,
        }));
        for (key, reason) in slice.refused {
            tracing::error!(
                stream = self.scope.stream(),
                key,
                reason,
                "record of a snapshot is refused"
            );
            changes.push(self.refused(key, 0, reason));
        }
        if !changes.is_empty() {
            self.hand_on_batch(Batch::Slice(changes)).await;
        }
    }

    /// Drops what neither the snapshot taken over nor the stream after it has.
    pub(super) async fn drop_missing(&mut self) -> Result<(), StateError> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let missing = self.missing.iter().cloned().collect();
        let dropped = self.ledger.drop_keys(missing).await?;
        self.missing.clear();
        tracing::warn!(
            stream = self.scope.stream(),
            records = dropped.len(),
            "what the stream no longer has is dropped"
        );
        let changes = dropped.into_iter().map(|key| Change::Dropped { key });
        self.hand_on(changes.collect()).await;
        Ok(())
    }
}
