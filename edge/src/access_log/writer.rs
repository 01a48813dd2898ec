//! The one thread that writes the access log, to a file or to standard output.
//!
//! Only it waits for a disk. It takes pages in the order they come, opens the file again when it was renamed or removed,
//! and counts the lines of what cannot be written: a full disk, or a pipe that nobody reads, costs lines and nothing
//! else. When writing begins to fail and when it works again is told once.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use prometheus::IntCounter;

use super::page::Page;
use crate::limits::{LOG_FILE_CHECK, LOG_PAGE_BYTES, LOG_PAGES_WAITING};

/// Whoever reads logs is in the file's group.
const MODE: u32 = 0o640;
/// How long to wait before a pipe that was full is tried again.
const PIPE_PAUSE: Duration = Duration::from_millis(10);

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Order {
    Write(Page),
    /// Say so when everything before has been written.
    End(SyncSender<()>),
}

/// What cores and writer share besides pages.
#[derive(Debug)]
pub(super) struct Shared {
    lost: IntCounter,
    /// Pages that were written, empty again.
    spare: Mutex<Vec<Vec<u8>>>,
    /// Set once nobody waits longer than until then.
    deadline: OnceLock<Instant>,
}

impl Shared {
    pub(super) fn new(lost: IntCounter) -> Self {
        Self {
            lost,
            spare: Mutex::default(),
            deadline: OnceLock::new(),
        }
    }

    /// Counts lines that nobody will read.
    pub(super) fn lose(&self, lines: u64) {
        self.lost.inc_by(lines);
    }

    /// Room for a page. Asks nobody to wait: if another core looks just now, new room is made.
    pub(super) fn spare(&self) -> Vec<u8> {
        let spare = self.spare.try_lock();
        let spare = spare.ok().and_then(|mut spare| spare.pop());
        spare.unwrap_or_else(|| Vec::with_capacity(LOG_PAGE_BYTES))
    }

    pub(super) fn end_by(&self, deadline: Instant) {
        let _ = self.deadline.set(deadline);
    }

    fn is_over(&self) -> bool {
        self.deadline
            .get()
            .is_some_and(|over| *over < Instant::now())
    }

    fn take_back(&self, mut bytes: Vec<u8>) {
        // One that grew for a line of many kilobytes goes.
        if bytes.capacity() > 2 * LOG_PAGE_BYTES {
            return;
        }
        bytes.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < LOG_PAGES_WAITING {
            spare.push(bytes);
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub(super) struct Writer {
    /// None for standard output.
    path: Option<PathBuf>,
    file: Option<File>,
    checked: Instant,
    /// Whether the last line was left half-way.
    torn: bool,
    failing: bool,
    /// Whether the file was renamed and cannot be made again.
    misplaced: bool,
    shared: Arc<Shared>,
}

impl Writer {
    /// # Errors
    /// When the file cannot be made or written to.
    pub(super) fn open(path: Option<PathBuf>, shared: Arc<Shared>) -> io::Result<Self> {
        let file = match &path {
            None => Some(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Some(path) => match open(path) {
                Ok(file) => Some(file),
                // A pipe that nobody reads yet.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENXIO as i32) => None,
                Err(error) => return Err(error),
            },
        };
        Ok(Self {
            path,
            file,
            checked: Instant::now(),
            torn: false,
            failing: false,
            misplaced: false,
            shared,
        })
    }

    /// Writes until nobody can send any more, or it is told to end.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = orders.recv_timeout(LOG_FILE_CHECK);
            if self.checked.elapsed() >= LOG_FILE_CHECK {
                self.look_after_file();
            }
            match order {
                Ok(Order::Write(page)) => self.take(page),
                Ok(Order::End(told)) => {
                    // Who does not wait any more does not need to know.
                    let _ = told.try_send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, page: Page) {
        let written = self.write(&page.bytes);
        if written.is_err() {
            self.shared.lose(page.lines);
        }
        self.tell(written.err().as_ref());
        self.shared.take_back(page.bytes);
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let whole = bytes.len();
        let Self {
            file, shared, torn, ..
        } = self;
        let file = file.as_mut().ok_or(ErrorKind::NotConnected)?;
        if std::mem::take(torn) {
            // What follows is whole lines again.
            if let Err(error) = file.write_all(b"\n") {
                *torn = true;
                return Err(error);
            }
        }
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !shared.is_over() => {
                    // Not to be woken for; sooner is as good.
                    std::thread::park_timeout(PIPE_PAUSE);
                }
                Err(error) => {
                    *torn = bytes.len() < whole;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Opens the file again if its name means another one now, or none.
    fn look_after_file(&mut self) {
        self.checked = Instant::now();
        let Some(path) = &self.path else { return };
        if self.file.as_ref().is_some_and(|file| is_at(file, path)) {
            return;
        }
        match open(path) {
            Ok(file) => {
                self.file = Some(file);
                self.torn = false;
                self.misplaced = false;
            }
            // Under its other name it still takes lines.
            Err(error) if self.file.as_ref().is_some_and(has_name) => self.misplace(&error),
            Err(error) => {
                self.file = None;
                self.tell(Some(&error));
            }
        }
    }

    fn misplace(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.misplaced, true) {
            let (path, error) = (self.path.as_deref(), error as &dyn std::error::Error);
            tracing::warn!(
                path = path.map(|path| tracing::field::display(path.display())),
                error,
                "the access log goes on in the file that was renamed"
            );
        }
    }

    fn tell(&mut self, error: Option<&io::Error>) {
        let path = self.path.as_deref().unwrap_or_else(|| Path::new("-"));
        match error {
            Some(error) if !self.failing => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(path = %path.display(), error, from = "written", to = "lost", "access log");
            }
            None if self.failing => {
                tracing::warn!(path = %path.display(), from = "lost", to = "written", "access log");
            }
            Some(_) | None => {}
        }
        self.failing = error.is_some();
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe that nobody reads must not hold the thread.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
}

/// Whether `file` is still to be found somewhere.
fn has_name(file: &File) -> bool {
    file.metadata().is_ok_and(|file| file.nlink() > 0)
}

/// Whether `file` is what `path` means.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}
