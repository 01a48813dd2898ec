//! The log of a build: numbered lines without secrets, at most so many bytes of them.
//!
//! Lines wait here until whoever sends them on says that they have arrived. What comes above the limit is counted and dropped; the
//! worker's own lines always have room.

pub mod mask;
pub mod scan;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use helix_routing::api::{BuildStep, LogLine, MAX_LOG_LINE_BYTES};
use helix_service::clock;
use tokio::sync::Notify;

use mask::{Mask, Stream};

/// Lines of the worker's own that have room above the limit: it says little, but a build may make it say more.
const MAX_OWN_LINES: u64 = 2_000;

/// What a line counts besides its text: a flood of empty lines is one as well.
const LINE_BYTES: u64 = 64;

/// A build's log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    mask: Arc<Mask>,
    limit: u64,
    kept: Arc<Mutex<Kept>>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    seq: u64,
    bytes: u64,
    own: u64,
    dropped_lines: u64,
    dropped_bytes: u64,
}

impl Journal {
    /// An empty log, for at most `limit` bytes of what a build prints.
    #[must_use]
    pub fn new(mask: Mask, limit: u64) -> Self {
        Self {
            mask: Arc::new(mask),
            limit,
            kept: Arc::default(),
            news: Arc::default(),
        }
    }

    /// What must not be seen.
    #[must_use]
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// A line of the worker's own.
    pub fn say(&self, step: BuildStep, text: &str) {
        let mut kept = self.kept();
        if kept.own >= MAX_OWN_LINES {
            return;
        }
        kept.own += 1;
        for line in self.mask.hide(text).lines() {
            kept.add(step, shown(line.as_bytes()));
        }
        drop(kept);
        self.news.notify_one();
    }

    /// Takes what a program prints in `step`.
    #[must_use]
    pub fn printer(&self, step: BuildStep) -> Printer {
        Printer {
            journal: self.clone(),
            step,
            stream: Stream::default(),
            line: Vec::new(),
            cut: false,
        }
    }

    /// Says how much was dropped, if anything was. To be called once, at the end.
    pub fn close(&self, step: BuildStep) {
        let (lines, bytes) = {
            let kept = self.kept();
            (kept.dropped_lines, kept.dropped_bytes)
        };
        if lines > 0 {
            let limit = self.limit;
            self.say(step, &format!("{lines} more lines ({bytes} bytes) were printed and dropped: a log has at most {limit} bytes"));
        }
    }

    /// The oldest lines that have not arrived, at most `most`.
    #[must_use]
    pub fn waiting(&self, most: usize) -> Vec<LogLine> {
        self.kept().lines.iter().take(most).cloned().collect()
    }

    /// Lines up to that number have arrived.
    pub fn arrived(&self, seq: u64) {
        let mut kept = self.kept();
        while kept.lines.front().is_some_and(|line| line.seq <= seq) {
            kept.lines.pop_front();
        }
    }

    /// Returns when there are lines that were not there when it was asked last.
    pub async fn more(&self) {
        self.news.notified().await;
    }

    fn printed(&self, step: BuildStep, line: &[u8]) {
        let mut kept = self.kept();
        let bytes = line.len() as u64 + LINE_BYTES;
        if kept.bytes + bytes > self.limit {
            kept.dropped_lines += 1;
            kept.dropped_bytes += bytes;
            return;
        }
        kept.bytes += bytes;
        kept.add(step, shown(line));
        drop(kept);
        self.news.notify_one();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, step: BuildStep, text: String) {
        self.seq += 1;
        self.lines.push_back(LogLine {
            seq: self.seq,
            at: clock::now(),
            step,
            text,
        });
    }
}

/// One stream of a program, on its way to lines.
#[derive(Debug)]
pub struct Printer {
    journal: Journal,
    step: BuildStep,
    stream: Stream,
    line: Vec<u8>,
    cut: bool,
}

impl Printer {
    /// Takes bytes as they come.
    pub fn print(&mut self, bytes: &[u8]) {
        let shown = self.stream.push(&self.journal.mask, bytes);
        self.take(&shown);
    }

    /// No more comes.
    pub fn finish(&mut self) {
        let shown = self.stream.finish(&self.journal.mask);
        self.take(&shown);
        if !self.line.is_empty() {
            self.end_line();
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..at]);
            self.end_line();
            bytes = &bytes[at + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = MAX_LOG_LINE_BYTES - self.line.len();
        self.cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self) {
        // What redraws a line is seen as it was last.
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let start = line
            .iter()
            .rposition(|byte| *byte == b'\r')
            .map_or(0, |at| at + 1);
        self.journal.printed(self.step, &line[start..]);
        self.line.clear();
        self.cut = false;
    }
}

/// A line as text that does nothing to a terminal: its sequences go as a whole, then all other control characters.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            skip_sequence(&mut characters);
        } else if !c.is_control() || c == '\t' {
            shown.push(c);
        }
    }
    if shown.len() > MAX_LOG_LINE_BYTES {
        let mut end = MAX_LOG_LINE_BYTES;
        while !shown.is_char_boundary(end) {
            end -= 1;
        }
        shown.truncate(end);
    }
    shown
}

/// What follows an escape: colours and cursors up to their letter, titles up to their bell.
fn skip_sequence(characters: &mut std::str::Chars<'_>) {
    match characters.next() {
        Some('[') => drop(characters.find(|c| ('@'..='~').contains(c))),
        Some(']') => drop(characters.find(|c| matches!(c, '\u{7}' | '\u{1b}'))),
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(journal: &Journal) -> Vec<String> {
        journal
            .waiting(1_000)
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    #[test]
    fn lines_are_numbered_without_gaps_and_wait_until_they_arrived() {
        let journal = Journal::new(Mask::new([("KEY", "hunter22")]), 1_000);
        let mut printer = journal.printer(BuildStep::Build);
        printer.print(b"one\ntw");
        journal.say(BuildStep::Build, "own hunter22");
        printer.print(b"o hunter");
        printer.print(b"22\r\n10%\r90%\rdone\nlast\x07");
        printer.finish();
        assert_eq!(
            texts(&journal),
            [
                "one",
                "own [hidden KEY]",
                "two [hidden KEY]",
                "done",
                "last"
            ]
        );
        let seqs: Vec<u64> = journal.waiting(9).iter().map(|line| line.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5]);
        journal.arrived(3);
        assert_eq!(journal.waiting(1)[0].seq, 4);
    }

    #[test]
    fn a_flood_is_dropped_and_counted_and_long_lines_are_cut() {
        let journal = Journal::new(Mask::new([]), 20_000);
        let mut printer = journal.printer(BuildStep::Build);
        printer.print(&[b'x'; 100_000]);
        printer.print(b"\n");
        for _ in 0..100_000 {
            printer.print(b"flood\n");
        }
        printer.finish();
        journal.close(BuildStep::Build);
        let texts = texts(&journal);
        assert_eq!(texts[0].len(), MAX_LOG_LINE_BYTES);
        assert!(texts.len() < 2_100, "{}", texts.len());
        let last = journal.waiting(usize::MAX).pop().unwrap().text;
        assert!(
            last.contains("more lines") && last.contains("dropped"),
            "{last}"
        );
    }

    #[test]
    fn what_drives_a_terminal_is_left_out() {
        for (line, expected) in [
            ("\u{1b}[1;32mok\u{1b}[0m done", "ok done"),
            ("\u{1b}]0;title\u{7}x\u{1b}(By", "xBy"),
            ("a\u{1b}[2Kb\u{7}\tc", "ab\tc"),
            ("\u{1b}", ""),
            ("\u{1b}[12", ""),
        ] {
            assert_eq!(shown(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_cut_goes_through_no_character() {
        let text = format!("x{}", "é".repeat(MAX_LOG_LINE_BYTES));
        assert!(shown(text.as_bytes()).len() <= MAX_LOG_LINE_BYTES);
    }
}
