//! The body of a response, while it comes and after: written once, read by many.
//!
//! Readers never slow the writer as long as the whole may be kept. Once it is too large for that, what every
//! reader has read is dropped, and the writer waits for the slowest. Nothing here knows what the bytes are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};

/// Largest body that is kept, in bytes: larger ones are rare and would push out hundreds of others.
pub const MAX_BODY_BYTES: u64 = 8 * 1024 * 1024;
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
}

#[derive(Debug, Default)]
struct State {
    parts: VecDeque<Bytes>,
    start: u64,
    end: u64,
    ended: Option<Result<(), Cut>>,
    whole: bool,
    dropped: bool,
    readers: Vec<(u64, u64)>,
    next_reader: u64,
}

impl Content {
    /// One that is to come.
    #[must_use]
    pub fn coming() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            read: Notify::new(),
        })
    }

    /// Its length in bytes, if it has come whole and is kept.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        let state = self.state();
        (state.whole && !state.dropped).then_some(state.end)
    }

    /// Adds a part.
    ///
    /// # Errors
    /// When it is not kept and nobody reads it.
    pub async fn push(&self, part: Bytes) -> Result<(), Cut> {
        {
            let mut state = self.state();
            state.end += part.len() as u64;
            state.dropped |= state.end > MAX_BODY_BYTES;
            state.parts.push_back(part);
        }
        self.changed.send_replace(());
        loop {
            let read = self.read.notified();
            if self.state().has_room()? {
                return Ok(());
            }
            read.await;
        }
    }

    /// Says that all parts have come, which makes one of them. Readers see no end yet: see [`Self::finish`].
    pub fn join(&self) {
        let mut state = self.state();
        if !state.dropped && state.parts.len() > 1 {
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
        if state.dropped && state.start > from {
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
            let (part, ended) = {
                let state = self.content.state();
                (state.at(self.at), state.ended)
            };
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
