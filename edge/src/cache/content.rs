//! The body of a response, while it comes and after: written once, read by many.
//!
//! Readers never slow the writer as long as the whole may be kept: in memory, or, once it is too large for that, on
//! disk, from where slow readers catch up. Where there is no disk or no room on it, what every reader has read is
//! dropped, and the writer waits for the slowest. Nothing here knows what the bytes are.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};

use super::disk::{Disk, Reading, Writing};
use super::store::Stored;

/// Largest body that is kept in memory, in bytes: larger ones are rare and would push out hundreds of others.
pub const MEMORY_BODY_BYTES: u64 = 8 * 1024 * 1024;
/// A body that goes to disk goes there in parts of at least so many bytes.
const SPILL_BYTES: u64 = 256 * 1024;
/// Read from disk at once for one reader of a body that still comes.
const CATCH_UP_BYTES: u64 = 64 * 1024;
/// Bytes that a body which is not kept may be ahead of its slowest reader.
const WINDOW_BYTES: u64 = 256 * 1024;

/// The body broke off, or nobody reads it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body broke off")]
pub struct Cut;

/// A body that comes or has come.
#[derive(Debug)]
pub struct Content {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    read: Notify,
    /// Where it goes when it is too large for memory. Only the writer takes it.
    spill: tokio::sync::Mutex<Spill>,
    /// It goes there from this length on.
    memory: u64,
}

/// What is written to disk while it comes.
#[derive(Debug)]
enum Spill {
    /// There is no disk, or it gave up.
    None,
    Offered(Arc<Disk>),
    Writing(Writing),
}

/// Where bytes before those in memory are.
#[derive(Clone, Debug)]
enum Behind {
    /// Written while it comes.
    Spilled(Arc<File>),
    Kept(Arc<Reading>),
}

#[derive(Debug, Default)]
struct State {
    parts: VecDeque<Bytes>,
    /// Where the parts in memory begin.
    start: u64,
    /// What lies before that can be read from here, up to `spilled`.
    behind: Option<Behind>,
    spilled: u64,
    end: u64,
    ended: Option<Result<(), Cut>>,
    whole: bool,
    dropped: bool,
    unread: bool,
    readers: Vec<(u64, u64)>,
    next_reader: u64,
}

impl Content {
    /// One that is to come, of this length if that is known. What is `unread` goes to disk also if nobody reads it.
    #[must_use]
    pub fn coming(length: Option<u64>, disk: Option<&Arc<Disk>>, unread: bool) -> Arc<Self> {
        let large = length.is_some_and(|length| length > MEMORY_BODY_BYTES);
        let spill = disk.map_or(Spill::None, |disk| Spill::Offered(Arc::clone(disk)));
        let memory = if large && disk.is_some() {
            0
        } else {
            MEMORY_BODY_BYTES
        };
        let state = State {
            unread,
            ..State::default()
        };
        Arc::new(Self::made(state, spill, memory))
    }

    /// One that is there.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Arc<Self> {
        let state = State {
            end: bytes.len() as u64,
            parts: VecDeque::from([bytes]),
            whole: true,
            ended: Some(Ok(())),
            ..State::default()
        };
        Arc::new(Self::made(state, Spill::None, MEMORY_BODY_BYTES))
    }

    /// One that lies on disk.
    pub(super) fn on_disk(reading: Reading) -> Arc<Self> {
        let length = reading.length();
        let state = State {
            start: length,
            spilled: length,
            end: length,
            behind: Some(Behind::Kept(Arc::new(reading))),
            whole: true,
            ended: Some(Ok(())),
            ..State::default()
        };
        Arc::new(Self::made(state, Spill::None, 0))
    }

    fn made(state: State, spill: Spill, memory: u64) -> Self {
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            read: Notify::new(),
            spill: tokio::sync::Mutex::new(spill),
            memory,
        }
    }

    /// Its length in bytes, if it has come whole and is kept.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        let state = self.state();
        (state.whole && !state.dropped).then_some(state.end)
    }

    /// Whether no part of it lies on disk alone.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.state().behind.is_none()
    }

    /// All of it, if it is in memory.
    #[must_use]
    pub fn bytes(&self) -> Option<Bytes> {
        let state = self.state();
        let kept = state.whole && !state.dropped && state.behind.is_none();
        match state.parts.len() {
            0 => kept.then(Bytes::new),
            1 => state.parts.front().filter(|_| kept).cloned(),
            _ => None,
        }
    }

    /// Where it lies on disk, if it does.
    pub(super) fn reading(&self) -> Option<Arc<Reading>> {
        match &self.state().behind {
            Some(Behind::Kept(reading)) => Some(Arc::clone(reading)),
            Some(Behind::Spilled(_)) | None => None,
        }
    }

    /// Adds a part.
    ///
    /// # Errors
    /// When it is not kept, or goes to disk, and nobody reads it.
    pub async fn push(&self, part: Bytes) -> Result<(), Cut> {
        let spills = {
            let mut state = self.state();
            state.end += part.len() as u64;
            state.parts.push_back(part);
            state.end > self.memory && !state.dropped
        };
        self.changed.send_replace(());
        if spills {
            self.spill(SPILL_BYTES).await?;
        }
        loop {
            let read = self.read.notified();
            if self.state().has_room()? {
                return Ok(());
            }
            read.await;
        }
    }

    /// Writes to disk what is in memory, if that is so much. From then on it is for those who read it: a large body
    /// that nobody waits for is not worth its way.
    async fn spill(&self, least: u64) -> Result<(), Cut> {
        let mut spill = self.spill.lock().await;
        if let Spill::Offered(disk) = &*spill {
            *spill = disk.begin_body().map_or(Spill::None, Spill::Writing);
        }
        let parts: Vec<Bytes> = {
            let mut state = self.state();
            if state.readers.is_empty() && !state.unread {
                return Err(Cut);
            }
            if matches!(*spill, Spill::None) {
                state.dropped = true;
            }
            if state.dropped || state.end - state.start < least {
                return Ok(());
            }
            state.parts.iter().cloned().collect()
        };
        let Spill::Writing(writing) = &mut *spill else {
            return Ok(());
        };
        let count = parts.len();
        let written = writing.append(parts).await;
        let mut state = self.state();
        if let Ok(file) = written {
            let moved: u64 = state
                .parts
                .drain(..count)
                .map(|part| part.len() as u64)
                .sum();
            state.start += moved;
            state.spilled = state.start;
            state.behind = Some(Behind::Spilled(file));
        } else {
            // What is written can still be read by those who are behind.
            state.dropped = true;
            *spill = Spill::None;
        }
        Ok(())
    }

    /// Keeps what went to disk as the body of `stored`. False if this body did not.
    pub async fn keep(&self, stored: &Arc<Stored>) -> bool {
        if self.is_in_memory() {
            return false;
        }
        if self.spill(1).await.is_err() {
            // It has come whole: that nobody waits for it any more is no reason.
            let state = self.state();
            if state.end > state.start {
                return true;
            }
        }
        let spill = std::mem::replace(&mut *self.spill.lock().await, Spill::None);
        let dropped = self.state().dropped;
        if let (Spill::Writing(writing), false) = (spill, dropped) {
            writing.keep(Arc::clone(stored)).await;
        }
        true
    }

    /// Says that all parts have come, which makes one of them. Readers see no end yet: see [`Self::finish`].
    pub fn join(&self) {
        let mut state = self.state();
        if !state.dropped && state.behind.is_none() && state.parts.len() > 1 {
            let length = usize::try_from(state.end).unwrap_or(0);
            let mut whole = BytesMut::with_capacity(length);
            for part in state.parts.drain(..) {
                whole.extend_from_slice(&part);
            }
            state.parts.push_back(whole.freeze());
        }
        state.whole = true;
    }

    /// Tells readers that this was the end, or that it broke off.
    pub fn finish(&self, outcome: Result<(), Cut>) {
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        state.ended = Some(outcome);
        drop(state);
        self.changed.send_replace(());
    }

    /// Reads `from` this offset to before `until`, or to the end; none if the offset is gone already.
    #[must_use]
    pub fn reader(self: &Arc<Self>, from: u64, until: Option<u64>) -> Option<Reader> {
        let mut state = self.state();
        let gone = if state.behind.is_some() {
            state.spilled
        } else {
            0
        };
        if state.dropped && (gone..state.start).contains(&from) {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        if state.ended.is_none() {
            state.readers.push((id, from));
        }
        drop(state);
        Some(Reader {
            changed: self.changed.subscribe(),
            content: Arc::clone(self),
            id,
            at: from,
            until,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the next part may come; drops what all have read if it is not kept.
    fn has_room(&mut self) -> Result<bool, Cut> {
        if !self.dropped {
            return Ok(true);
        }
        let slowest = self.readers.iter().map(|(_, at)| *at).min().ok_or(Cut)?;
        while let Some(part) = self.parts.front() {
            let length = part.len() as u64;
            if self.start + length > slowest {
                break;
            }
            self.start += length;
            self.parts.pop_front();
        }
        Ok(self.end - slowest <= WINDOW_BYTES)
    }

    /// Where on disk `at` stands, and up to where that goes.
    fn behind(&self, at: u64) -> Option<(Behind, u64)> {
        let behind = self.behind.as_ref().filter(|_| at < self.spilled)?;
        Some((behind.clone(), self.spilled))
    }

    /// What stands at `at`, to the end of its part.
    fn at(&self, at: u64) -> Option<Bytes> {
        let mut start = self.start;
        for part in &self.parts {
            let end = start + part.len() as u64;
            if at < end {
                let skip = usize::try_from(at.checked_sub(start)?).ok()?;
                return Some(part.slice(skip..));
            }
            start = end;
        }
        None
    }
}

impl Behind {
    async fn read(self, at: u64, until: u64) -> Result<Bytes, Cut> {
        let reading = tokio::task::spawn_blocking(move || match self {
            Self::Kept(reading) => reading.part(at).ok(),
            Self::Spilled(file) => {
                let length = usize::try_from((until - at).min(CATCH_UP_BYTES)).ok()?;
                let mut part = vec![0; length];
                file.read_exact_at(&mut part, at).ok()?;
                Some(part.into())
            }
        });
        reading.await.ok().flatten().ok_or(Cut)
    }
}

/// Reads a body at its own pace.
#[derive(Debug)]
pub struct Reader {
    content: Arc<Content>,
    changed: watch::Receiver<()>,
    id: u64,
    at: u64,
    until: Option<u64>,
}

impl Reader {
    /// The next part; none at the end.
    ///
    /// # Errors
    /// When the body broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        loop {
            self.changed.borrow_and_update();
            if self.until.is_some_and(|until| self.at >= until) {
                return Ok(None);
            }
            let (part, behind, ended) = {
                let state = self.content.state();
                (state.at(self.at), state.behind(self.at), state.ended)
            };
            if let Some((behind, until)) = behind {
                let part = behind.read(self.at, until).await?;
                return Ok(Some(self.take(part)));
            }
            if let Some(part) = part {
                return Ok(Some(self.take(part)));
            }
            match ended {
                Some(Ok(())) => return Ok(None),
                Some(Err(cut)) => return Err(cut),
                None => self.changed.changed().await.map_err(|_| Cut)?,
            }
        }
    }

    fn take(&mut self, mut part: Bytes) -> Bytes {
        if let Some(until) = self.until {
            let left = usize::try_from(until - self.at).unwrap_or(usize::MAX);
            part.truncate(left);
        }
        self.at += part.len() as u64;
        let mut state = self.content.state();
        if let Some(reader) = state.readers.iter_mut().find(|(id, _)| *id == self.id) {
            reader.1 = self.at;
        }
        drop(state);
        self.content.read.notify_one();
        part
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.content
            .state()
            .readers
            .retain(|(id, _)| *id != self.id);
        self.content.read.notify_one();
    }
}
