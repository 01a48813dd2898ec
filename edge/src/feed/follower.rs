//! Pure: follows one stream so that no record is missed, whatever the pipe loses, repeats or reorders.
//!
//! ```text
//!  Waiting ──first beacon──▶ Repairing ──reached what is known to exist──▶ Following
//!     │                        ▲   ▲                                          │
//!     │                        │   └──────── gap, or a beacon is ahead ───────┤
//!     └─no state─▶ Resyncing ──┘◀──── other incarnation, or rolled back ──────┘
//! ```
//!
//! The live feed is contiguous: the next message has the sequence after the last. Reading the stream is
//! not, because overwritten records vanish; there each message names the one read before it instead. The
//! two rules are never mixed. Invariant: every record that the stream still holds at or below
//! [`Follower::last`] was handed out. What a record says is none of this module's business.

use std::collections::BTreeMap;
use std::time::Duration;

use helix_routing::id::{Epoch, Incarnation};
use helix_routing::time::Timestamp;

/// Silence longer than this is staleness: three beacons missed.
pub const BEACON_SILENCE: Duration = Duration::from_secs(3);
/// A beacon may overtake the record it counts; only a lead that lasts longer is a gap.
pub const BEACON_LEAD: Duration = Duration::from_millis(100);
/// How long a start waits for the stream's incarnation before it trusts the one on disk: a beacon and a half.
pub const FIRST_BEACON_WAIT: Duration = Duration::from_millis(1500);
/// A link that stays silent is made anew, but not more often than this in the long run.
const MAX_RECONNECT_WAIT: Duration = Duration::from_secs(60);
/// Between failed repairs at first; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Between failed repairs at most.
const MAX_RETRY: Duration = Duration::from_secs(2);
/// A replica may lag behind a record that is known to exist. After this many clean answers without it (about
/// eight seconds) it is taken as expired: a tombstone at the end of a stream leaves such a hole.
const LAG_ATTEMPTS: u32 = 9;
/// A start that is further behind the newest snapshot takes that over: repairing costs a signature for each record.
const FAR_BEHIND: u64 = 20_000;
/// Live messages kept during a repair. More than that, and the next repair fetches them.
const BUFFER_MESSAGES: usize = 4096;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event<M> {
    /// The link is new: what was sent meanwhile is lost.
    Connected,
    /// Origin says how far the stream has come.
    Beacon(Head),
    /// A record arrived on the live feed.
    Message {
        /// Its sequence.
        sequence: u64,
        /// What it is.
        message: M,
    },
    /// The answer to [`Command::Repair`].
    Page(Page<M>),
    /// The repair that was asked for did not happen.
    PageFailed,
    /// The stream's state at a sequence was taken over whole; 0 when there is no snapshot of it.
    Resynced {
        /// The life it belongs to.
        incarnation: Incarnation,
        /// Its sequence.
        at: u64,
    },
    /// The resync that was asked for did not happen.
    ResyncFailed,
    /// Time passed.
    Tick,
}

/// What a beacon says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The stream's life.
    pub incarnation: Incarnation,
    /// The term of the origin that says so.
    pub epoch: Epoch,
    /// The stream's last sequence.
    pub last_sequence: u64,
    /// The sequence of its newest snapshot; 0 when there is none.
    pub snapshot: u64,
    /// Origin's clock.
    pub at: Timestamp,
}

/// Part of a stream, read from it.
#[derive(Clone, Debug)]
pub struct Page<M> {
    /// In order.
    pub entries: Vec<Entry<M>>,
    /// The last sequence that was sent, as the end of the page tells; none when it did not arrive.
    pub ended_at: Option<u64>,
    /// The stream holds more after this.
    pub more: bool,
}

/// One message of a [`Page`].
#[derive(Clone, Debug)]
pub struct Entry<M> {
    /// Its sequence.
    pub sequence: u64,
    /// The sequence read before it in this page; 0 for the first.
    pub previous: u64,
    /// What it is.
    pub message: M,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<M> {
    /// Take these over, in this order.
    Apply(Vec<(u64, M)>),
    /// Read a page of the stream from this sequence on.
    Repair {
        /// The first sequence wanted.
        from: u64,
    },
    /// Take over the stream's state whole, beside what is served.
    Resync {
        /// The life to take over.
        incarnation: Incarnation,
    },
    /// Make the link anew.
    Reconnect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// For the first beacon, until this time.
    Waiting {
        until: Timestamp,
    },
    Following,
    /// A page is asked for, or will be at `retry`.
    Repairing {
        attempts: u32,
        retry: Option<Timestamp>,
    },
    /// A resync runs, or will at `retry`.
    Resyncing {
        incarnation: Incarnation,
        attempts: u32,
        retry: Option<Timestamp>,
    },
}

/// Follows one stream.
#[derive(Debug)]
pub struct Follower<M> {
    incarnation: Option<Incarnation>,
    last: u64,
    /// The highest sequence known to have existed.
    known: u64,
    phase: Phase,
    buffer: BTreeMap<u64, M>,
    newest: Option<Head>,
    /// Where we were when a beacon first said less.
    rolled_back_below: Option<u64>,
    behind_since: Option<Timestamp>,
    heard: Timestamp,
    stale: bool,
    reconnect_wait: Duration,
    reconnect_at: Timestamp,
    caught_up: bool,
}

impl<M> Follower<M> {
    /// Goes on from `position`; none starts with a resync.
    #[must_use]
    pub fn new(now: Timestamp, position: Option<(Incarnation, u64)>) -> Self {
        let (incarnation, last) =
            position.map_or((None, 0), |(incarnation, last)| (Some(incarnation), last));
        Self {
            incarnation,
            last,
            known: last,
            phase: Phase::Waiting {
                until: now + FIRST_BEACON_WAIT,
            },
            buffer: BTreeMap::new(),
            newest: None,
            rolled_back_below: None,
            behind_since: None,
            heard: now,
            stale: false,
            reconnect_wait: BEACON_SILENCE,
            reconnect_at: now + BEACON_SILENCE,
            caught_up: false,
        }
    }

    /// The life of the stream that is followed.
    #[must_use]
    pub const fn incarnation(&self) -> Option<&Incarnation> {
        self.incarnation.as_ref()
    }

    /// The last sequence handed out.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// No beacon for longer than [`BEACON_SILENCE`].
    #[must_use]
    pub const fn stale(&self) -> bool {
        self.stale
    }

    /// Everything known to exist was handed out at least once since the start.
    #[must_use]
    pub const fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// Everything known to exist has been handed out.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.phase == Phase::Following
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now: Timestamp, event: Event<M>) -> Vec<Command<M>> {
        match event {
            Event::Connected => self.on_connected(),
            Event::Beacon(head) => self.on_beacon(now, head),
            Event::Message { sequence, message } => self.on_message(sequence, message),
            Event::Page(page) => self.on_page(now, page),
            Event::PageFailed => self.on_page_failed(now),
            Event::Resynced { incarnation, at } => self.on_resynced(incarnation, at),
            Event::ResyncFailed => self.on_resync_failed(now),
            Event::Tick => self.on_tick(now),
        }
    }

    fn on_connected(&mut self) -> Vec<Command<M>> {
        match self.phase {
            Phase::Following => self.repair(),
            Phase::Waiting { .. } | Phase::Repairing { .. } | Phase::Resyncing { .. } => Vec::new(),
        }
    }

    fn on_beacon(&mut self, now: Timestamp, head: Head) -> Vec<Command<M>> {
        let is_ours = self.incarnation.as_ref() == Some(&head.incarnation);
        if !is_ours
            && self
                .newest
                .as_ref()
                .is_some_and(|newest| (head.epoch, head.at) < (newest.epoch, newest.at))
        {
            // A beacon of an earlier life, sent again by someone: it must not make us resync to the past.
            return Vec::new();
        }
        self.heard = now;
        self.stale = false;
        self.reconnect_wait = BEACON_SILENCE;
        self.reconnect_at = now + BEACON_SILENCE;
        let last_sequence = head.last_sequence;
        let is_far_behind = head.snapshot > self.last.saturating_add(FAR_BEHIND);
        let incarnation = head.incarnation.clone();
        self.newest = Some(head);
        if let Phase::Resyncing {
            incarnation: wanted,
            ..
        } = &self.phase
        {
            if *wanted == incarnation {
                self.known = self.known.max(last_sequence);
                return Vec::new();
            }
            return self.resync(incarnation, last_sequence);
        }
        if !is_ours || self.is_rolled_back(last_sequence) {
            return self.resync(incarnation, last_sequence);
        }
        self.known = self.known.max(last_sequence);
        match self.phase {
            Phase::Waiting { .. } if is_far_behind => self.resync(incarnation, last_sequence),
            Phase::Waiting { .. } if self.last < self.known => self.repair(),
            Phase::Waiting { .. } => self.follow(),
            Phase::Following if self.last < self.known => {
                self.behind_since.get_or_insert(now);
                Vec::new()
            }
            Phase::Following | Phase::Repairing { .. } | Phase::Resyncing { .. } => Vec::new(),
        }
    }

    /// A beacon may have been written just before a record that we have already. Only when the next one still
    /// says less than we had at the first has the stream lost its end.
    fn is_rolled_back(&mut self, last_sequence: u64) -> bool {
        let before = self.rolled_back_below.take();
        if last_sequence >= self.last {
            return false;
        }
        if before.is_some_and(|before| last_sequence < before) {
            return true;
        }
        self.rolled_back_below = Some(before.unwrap_or(self.last));
        false
    }

    fn on_message(&mut self, sequence: u64, message: M) -> Vec<Command<M>> {
        if self.incarnation.is_none()
            || sequence <= self.last
            || matches!(self.phase, Phase::Resyncing { .. })
        {
            return Vec::new();
        }
        self.known = self.known.max(sequence);
        if self.phase == Phase::Following && sequence == self.last + 1 {
            self.last = sequence;
            if self.last >= self.known {
                self.behind_since = None;
            }
            return vec![Command::Apply(vec![(sequence, message)])];
        }
        if self.buffer.len() < BUFFER_MESSAGES {
            self.buffer.insert(sequence, message);
        }
        match self.phase {
            Phase::Following => self.repair(),
            Phase::Waiting { .. } | Phase::Repairing { .. } | Phase::Resyncing { .. } => Vec::new(),
        }
    }

    fn on_page(&mut self, now: Timestamp, page: Page<M>) -> Vec<Command<M>> {
        let Phase::Repairing {
            attempts,
            retry: None,
        } = self.phase
        else {
            return Vec::new();
        };
        let (mut applied, whole) = self.take_chain(page.entries, page.ended_at);
        let attempts = if applied.is_empty() { attempts } else { 0 };
        if !whole {
            self.retry_repair(now, attempts);
        } else if page.more {
            self.phase = Phase::Repairing {
                attempts: 0,
                retry: None,
            };
        } else {
            self.drain(&mut applied);
            if self.last >= self.known {
                self.follow();
            } else if attempts >= LAG_ATTEMPTS {
                self.skip_hole(&mut applied);
            } else {
                self.retry_repair(now, attempts);
            }
        }
        let mut commands = Vec::new();
        if !applied.is_empty() {
            commands.push(Command::Apply(applied));
        }
        if matches!(self.phase, Phase::Repairing { retry: None, .. }) {
            commands.push(Command::Repair {
                from: self.last + 1,
            });
        }
        commands
    }

    /// Takes entries as long as each names the one before it; false when the page has a hole or no end.
    fn take_chain(
        &mut self,
        entries: Vec<Entry<M>>,
        ended_at: Option<u64>,
    ) -> (Vec<(u64, M)>, bool) {
        let mut taken = Vec::with_capacity(entries.len());
        let mut before = 0;
        for entry in entries {
            if entry.previous != before || entry.sequence <= self.last {
                return (taken, false);
            }
            before = entry.sequence;
            self.last = entry.sequence;
            taken.push((entry.sequence, entry.message));
        }
        self.known = self.known.max(self.last);
        let whole = ended_at.is_some_and(|end| before == 0 || end == before);
        (taken, whole)
    }

    /// Takes from the buffer what follows without a gap.
    fn drain(&mut self, applied: &mut Vec<(u64, M)>) {
        self.buffer = self.buffer.split_off(&(self.last + 1));
        while let Some(message) = self.buffer.remove(&(self.last + 1)) {
            self.last += 1;
            applied.push((self.last, message));
        }
    }

    /// Goes past sequences that the stream no longer holds.
    fn skip_hole(&mut self, applied: &mut Vec<(u64, M)>) {
        while self.last < self.known {
            self.last = self
                .buffer
                .keys()
                .next()
                .map_or(self.known, |next| (next - 1).min(self.known));
            self.drain(applied);
        }
        self.follow();
    }

    fn on_page_failed(&mut self, now: Timestamp) -> Vec<Command<M>> {
        if let Phase::Repairing {
            attempts,
            retry: None,
        } = self.phase
        {
            self.retry_repair(now, attempts);
        }
        Vec::new()
    }

    fn on_resynced(&mut self, incarnation: Incarnation, at: u64) -> Vec<Command<M>> {
        match &self.phase {
            Phase::Resyncing {
                incarnation: wanted,
                retry: None,
                ..
            } if *wanted == incarnation => {
                self.incarnation = Some(incarnation);
                self.last = at;
                self.known = self.known.max(at);
                self.repair()
            }
            Phase::Waiting { .. }
            | Phase::Following
            | Phase::Repairing { .. }
            | Phase::Resyncing { .. } => Vec::new(),
        }
    }

    fn on_resync_failed(&mut self, now: Timestamp) -> Vec<Command<M>> {
        if let Phase::Resyncing {
            attempts,
            retry: retry @ None,
            ..
        } = &mut self.phase
        {
            *retry = Some(now + back_off(*attempts));
            *attempts += 1;
        }
        Vec::new()
    }

    fn on_tick(&mut self, now: Timestamp) -> Vec<Command<M>> {
        let mut commands = self.on_silence(now);
        match &mut self.phase {
            // Without state there is nothing to repair from, and nothing that says which life to take over.
            Phase::Waiting { until } if now >= *until && self.incarnation.is_some() => {
                commands.extend(self.repair())
            }
            Phase::Following
                if self
                    .behind_since
                    .is_some_and(|since| now.since(since) > BEACON_LEAD) =>
            {
                self.behind_since = None;
                if self.last < self.known {
                    commands.extend(self.repair());
                }
            }
            Phase::Repairing { retry, .. } if retry.is_some_and(|retry| now >= retry) => {
                *retry = None;
                commands.push(Command::Repair {
                    from: self.last + 1,
                });
            }
            Phase::Resyncing {
                incarnation, retry, ..
            } if retry.is_some_and(|retry| now >= retry) => {
                *retry = None;
                commands.push(Command::Resync {
                    incarnation: incarnation.clone(),
                });
            }
            Phase::Waiting { .. }
            | Phase::Following
            | Phase::Repairing { .. }
            | Phase::Resyncing { .. } => {}
        }
        commands
    }

    fn on_silence(&mut self, now: Timestamp) -> Vec<Command<M>> {
        if now.since(self.heard) > BEACON_SILENCE {
            self.stale = true;
        }
        if now < self.reconnect_at {
            return Vec::new();
        }
        self.reconnect_wait = (self.reconnect_wait * 2).min(MAX_RECONNECT_WAIT);
        self.reconnect_at = now + self.reconnect_wait;
        vec![Command::Reconnect]
    }

    fn repair(&mut self) -> Vec<Command<M>> {
        self.phase = Phase::Repairing {
            attempts: 0,
            retry: None,
        };
        self.behind_since = None;
        vec![Command::Repair {
            from: self.last + 1,
        }]
    }

    fn retry_repair(&mut self, now: Timestamp, attempts: u32) {
        self.phase = Phase::Repairing {
            attempts: attempts + 1,
            retry: Some(now + back_off(attempts)),
        };
    }

    fn follow(&mut self) -> Vec<Command<M>> {
        self.phase = Phase::Following;
        self.behind_since = None;
        self.caught_up = true;
        Vec::new()
    }

    fn resync(&mut self, incarnation: Incarnation, last_sequence: u64) -> Vec<Command<M>> {
        self.buffer.clear();
        self.known = last_sequence;
        self.rolled_back_below = None;
        self.behind_since = None;
        self.phase = Phase::Resyncing {
            incarnation: incarnation.clone(),
            attempts: 0,
            retry: None,
        };
        vec![Command::Resync { incarnation }]
    }
}

fn back_off(attempts: u32) -> Duration {
    (FIRST_RETRY * 2_u32.saturating_pow(attempts.min(16))).min(MAX_RETRY)
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
