//! The files of one stream's state: a base, and logs that follow it.
//!
//! `base.<n>` is everything up to where `log.<n>` begins; `log.<n>` goes on to where `log.<n+1>` begins.
//! So state is the newest whole base and every log from its number on. Compaction starts a new log first
//! and then folds the finished ones into a new base, so records never wait for it. Two bases are kept:
//! a damaged one is answered by the one before it and the logs since.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use helix_service::disk::sync_folder;

use super::frame::{self, Frame, Next, Position, StoredRecord};

/// Each start begins a log; more than this, and they are folded.
const MAX_LOGS: usize = 16;

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The newest record of each key.
    pub(super) records: HashMap<String, StoredRecord>,
    /// How far without a hole.
    pub(super) position: Position,
    /// Something could not be read; the position stands before it.
    pub(super) damaged: bool,
}

impl Contents {
    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Record(record) => {
                if !self.damaged {
                    self.position.sequence = self.position.sequence.max(record.sequence);
                }
                self.records.insert(record.key.clone(), record);
            }
            // After damage, records may be missing: the position no longer moves.
            Frame::Position(position) if !self.damaged => self.position = position,
            Frame::Dropped { key } => {
                self.records.remove(&key);
            }
            Frame::Position(_) | Frame::End { .. } => {}
        }
    }
}

/// One stream's folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Reads everything; also the number that a new log gets, and whether there are many logs.
    pub(super) fn load(&self) -> io::Result<(Contents, u64, bool)> {
        let bases = self.numbers("base.")?;
        let logs = self.numbers("log.")?;
        let next = bases
            .iter()
            .chain(&logs)
            .max()
            .map_or(0, |newest| newest + 1);
        let (mut contents, from) = self.load_base(&bases)?;
        let newest = logs.last().copied();
        let is_long = logs.len() > MAX_LOGS;
        for number in logs.into_iter().filter(|number| *number >= from) {
            let path = self.path("log.", number);
            let bytes = fs::read(&path)?;
            let read = read_into(&bytes, &mut contents);
            if read.tail == 0 {
                continue;
            }
            if Some(number) == newest {
                // A crash in the middle of a write, which therefore was never reported as done.
                OpenOptions::new()
                    .write(true)
                    .open(&path)?
                    .set_len((bytes.len() - read.tail) as u64)?;
            } else {
                contents.damaged = true;
            }
        }
        Ok((contents, next, is_long))
    }

    /// The newest base that is whole; else nothing, and what was lost counts as damage.
    fn load_base(&self, bases: &[u64]) -> io::Result<(Contents, u64)> {
        for &number in bases.iter().rev() {
            let mut contents = Contents::default();
            let read = read_into(&fs::read(self.path("base.", number))?, &mut contents);
            if !contents.damaged
                && read.tail == 0
                && read.end == Some(contents.records.len() as u64)
            {
                return Ok((contents, number));
            }
            tracing::error!(folder = %self.0.display(), base = number, "state base is damaged, going back to the one before");
        }
        let contents = Contents {
            damaged: !bases.is_empty(),
            ..Contents::default()
        };
        Ok((contents, 0))
    }

    /// Starts the log `number`.
    pub(super) fn create_log(&self, number: u64) -> io::Result<File> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(self.path("log.", number))?;
        sync_folder(&self.0)?;
        Ok(file)
    }

    /// Folds everything before log `number` into `base.<number>`, and removes what two bases make needless.
    /// `keep` says which records are still worth keeping.
    pub(super) fn compact(
        &self,
        number: u64,
        keep: impl Fn(&StoredRecord) -> bool,
    ) -> io::Result<()> {
        let bases = self.numbers("base.")?;
        let (mut contents, from) = self.load_base(&bases)?;
        for log in self
            .numbers("log.")?
            .into_iter()
            .filter(|log| (from..number).contains(log))
        {
            read_into(&fs::read(self.path("log.", log))?, &mut contents);
        }
        contents.records.retain(|_, record| keep(record));
        self.write_base(number, contents)?;
        let kept = if bases.contains(&from) { from } else { number };
        for (kind, numbers) in [("base.", bases), ("log.", self.numbers("log.")?)] {
            for old in numbers.into_iter().filter(|old| *old < kept) {
                fs::remove_file(self.path(kind, old))?;
            }
        }
        sync_folder(&self.0)
    }

    /// Writes `base.<number>` beside, and moves it into place when it is whole on disk.
    pub(super) fn write_base(&self, number: u64, contents: Contents) -> io::Result<()> {
        let beside = self.0.join("base.tmp");
        let mut out = BufWriter::new(File::create(&beside)?);
        let records = contents.records.len() as u64;
        let mut bytes = Vec::new();
        let mut write = |frame: &Frame| -> io::Result<()> {
            bytes.clear();
            frame::write(frame, &mut bytes);
            out.write_all(&bytes)
        };
        write(&Frame::Position(contents.position))?;
        for record in contents.records.into_values() {
            // The position above counts; a record of a base must not move it.
            write(&Frame::Record(StoredRecord {
                sequence: 0,
                ..record
            }))?;
        }
        write(&Frame::End { records })?;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&beside, self.path("base.", number))?;
        sync_folder(&self.0)
    }

    fn path(&self, kind: &str, number: u64) -> PathBuf {
        // Fixed width, so that a listing is in order.
        self.0.join(format!("{kind}{number:020}"))
    }

    /// The numbers of the files of one kind, ascending.
    fn numbers(&self, kind: &str) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            numbers.extend(number_of(&entry?.path(), kind));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn number_of(path: &Path, kind: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(kind)?.parse().ok()
}

/// How a file ended.
struct Read {
    /// What its last `End` frame counted.
    end: Option<u64>,
    /// Bytes at its end that are no frame.
    tail: usize,
}

fn read_into(mut bytes: &[u8], contents: &mut Contents) -> Read {
    let mut end = None;
    loop {
        match frame::read(bytes) {
            Next::Frame(frame, rest) => {
                if let Frame::End { records } = *frame {
                    end = Some(records);
                }
                contents.take(*frame);
                bytes = rest;
            }
            Next::Damaged(rest) => {
                contents.damaged = true;
                bytes = rest;
            }
            Next::End => {
                return Read {
                    end,
                    tail: bytes.len(),
                };
            }
        }
    }
}
