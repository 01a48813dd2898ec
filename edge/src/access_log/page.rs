//! What one core has to say until it is handed to the writer.
//!
//! Lines gather in a page; the page goes when it is full, once a second, and when the core ends. Handing over never
//! waits: where the writer does not keep up, lines are lost and counted. Pages that were written come back and are
//! filled again.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::line::{Form, Line};
use super::wall::Wall;
use super::writer::{Order, Shared};
use crate::limits::{LOG_DRAIN, LOG_LINE_ROOM, LOG_PAGE_BYTES};

/// How long to wait before something is offered to the writer again, at an end.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Lines on their way to the writer.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// The access log as one core sees it. Only that core writes; the lock is never waited for.
#[derive(Debug)]
pub struct CoreLog(Option<Mutex<Pages>>);

/// The page being written.
#[derive(Debug)]
pub struct Pages {
    form: Arc<Form>,
    wall: Wall,
    page: Page,
    writer: SyncSender<Order>,
    shared: Arc<Shared>,
}

impl CoreLog {
    pub(crate) const fn off() -> Self {
        Self(None)
    }

    pub(super) fn new(form: Arc<Form>, writer: SyncSender<Order>, shared: Arc<Shared>) -> Self {
        Self(Some(Mutex::new(Pages {
            form,
            wall: Wall::new(),
            page: Page::default(),
            writer,
            shared,
        })))
    }

    /// Where lines are written, unless nobody wants them.
    #[must_use]
    pub fn pages(&self) -> Option<MutexGuard<'_, Pages>> {
        // A line that was left half-way is only a bad line.
        let pages = self.0.as_ref()?.lock();
        Some(pages.unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands over what there is.
    pub fn flush(&self) {
        if let Some(mut pages) = self.pages() {
            pages.hand_over();
        }
    }

    /// The same at the core's end, when there is time to wait for the writer.
    pub async fn end(&self) {
        let until = Instant::now() + LOG_DRAIN;
        while Instant::now() < until {
            if self.pages().is_none_or(|mut pages| pages.offer()) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.flush();
    }
}

impl Pages {
    /// How lines look.
    #[must_use]
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Writes one line.
    pub fn write(&mut self, line: &Line<'_>) {
        if self.page.bytes.capacity() == 0 {
            self.page.bytes = self.shared.spare();
        }
        self.wall.turn(line.at);
        self.form.line(&mut self.page.bytes, &self.wall, line);
        self.page.lines += 1;
        if self.page.bytes.len() + LOG_LINE_ROOM > LOG_PAGE_BYTES {
            self.hand_over();
        }
    }

    /// Hands the page over, or loses it.
    fn hand_over(&mut self) {
        if !self.offer() {
            self.shared.lose(self.page.lines);
            self.page.lines = 0;
            self.page.bytes.clear();
        }
    }

    /// Whether there is nothing left to hand over.
    fn offer(&mut self) -> bool {
        if self.page.lines == 0 {
            return true;
        }
        match self
            .writer
            .try_send(Order::Write(std::mem::take(&mut self.page)))
        {
            Ok(()) => true,
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                if let Order::Write(page) = order {
                    self.page = page;
                }
                false
            }
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.hand_over();
    }
}
