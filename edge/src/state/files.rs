//! The files of one stream's state: a base, and logs that follow it.
//!
//! `base.<n>` is everything up to where `log.<n>` begins; `log.<n>` goes on to where `log.<n+1>` begins.
//! So state is the newest whole base and every log from its number on. A base is a snapshot as origin signed it; what is in
//! the logs carries its own signatures. Two bases are kept: a damaged one is answered by the one before it and the logs since, up to
//! where they are complete without it. Long logs are folded into one. Records wait for neither.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use helix_routing::key::Scope;
use helix_routing::snapshot;
use helix_service::disk::sync_folder;
use helix_service::keys::KeyRing;

use super::base::Base;
use super::frame::{self, Frame, Next, Position, StoredRecord};
use super::takeover::Purpose;

/// Each start begins a log; more than this, and they are folded.
const MAX_LOGS: usize = 16;

/// What the logs say, and a base of frames if there is one.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The newest record of each key.
    pub(super) records: HashMap<String, StoredRecord>,
    /// Keys of the base that are gone.
    pub(super) dropped: BTreeSet<String>,
    /// How far without a hole.
    pub(super) position: Position,
    /// Something could not be read; the position stands before it.
    pub(super) damaged: bool,
    /// The base that stands before this.
    pub(super) base: Option<u64>,
}

impl Contents {
    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Record(record) => {
                if !self.damaged {
                    self.position.sequence = self.position.sequence.max(record.sequence);
                }
                self.dropped.remove(&record.key);
                self.records.insert(record.key.clone(), record);
            }
            // After damage, records may be missing: the position no longer moves.
            Frame::Position(position) if !self.damaged => self.position = position,
            Frame::Dropped { key } => {
                self.records.remove(&key);
                self.dropped.insert(key);
            }
            Frame::Behind { base } => self.damaged |= self.base.is_none_or(|held| held < base),
            Frame::Position(_) | Frame::End { .. } => {}
        }
    }
}

/// Everything that the files hold.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) base: Option<Base>,
    pub(super) contents: Contents,
    /// The number that a new log gets.
    pub(super) next: u64,
    /// There are many logs.
    pub(super) is_long: bool,
}

/// One stream's folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where a snapshot is put together before it counts.
    pub(super) fn incoming(&self, purpose: Purpose) -> PathBuf {
        // Two files, since one kind may begin while the other is under way.
        self.0.join(match purpose {
            Purpose::Resync => "incoming",
            Purpose::Cover => "incoming.cover",
        })
    }

    /// Reads everything but the records of the base.
    pub(super) fn load(&self, ring: &KeyRing, scope: &Scope) -> io::Result<Loaded> {
        let bases = self.numbers("base.")?;
        let logs = self.numbers("log.")?;
        let next = bases
            .iter()
            .chain(&logs)
            .max()
            .map_or(0, |newest| newest + 1);
        let (base, mut contents) = self.load_base(&bases, ring, scope)?;
        let from = contents.base.unwrap_or(0);
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
        Ok(Loaded {
            base,
            contents,
            next,
            is_long,
        })
    }

    /// The newest base that is whole; else nothing, and what was lost counts as damage.
    fn load_base(
        &self,
        bases: &[u64],
        ring: &KeyRing,
        scope: &Scope,
    ) -> io::Result<(Option<Base>, Contents)> {
        for &number in bases.iter().rev() {
            let path = self.path("base.", number);
            let mut contents = Contents {
                base: Some(number),
                ..Contents::default()
            };
            if is_of_frames(&path)? {
                let read = read_into(&fs::read(&path)?, &mut contents);
                let is_whole = !contents.damaged
                    && read.tail == 0
                    && read.end == Some(contents.records.len() as u64);
                if is_whole {
                    return Ok((None, contents));
                }
                tracing::error!(file = %path.display(), "state base is damaged, going back to the one before");
                self.put_aside(&path)?;
                continue;
            }
            let opened = Base::open(&path, ring, scope).and_then(|base| {
                base.verify()?;
                Ok(base)
            });
            match opened {
                Ok(base) => {
                    contents.position = Position {
                        incarnation: Some(base.incarnation.clone()),
                        sequence: base.index.at_sequence,
                        contact: base.index.at,
                    };
                    return Ok((Some(base), contents));
                }
                Err(error) => {
                    tracing::error!(file = %path.display(), error = &error as &dyn std::error::Error, "state base is refused, going back to the one before");
                    self.put_aside(&path)?;
                }
            }
        }
        let contents = Contents {
            damaged: !bases.is_empty(),
            ..Contents::default()
        };
        Ok((None, contents))
    }

    /// Keeps a refused base for whoever looks into it, where it no longer counts.
    fn put_aside(&self, path: &Path) -> io::Result<()> {
        fs::rename(path, self.0.join("refused"))
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

    /// The records of the logs that follow the newest base, and of that base if it is one of frames.
    pub(super) fn loose(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        if let Some(&number) = self.numbers("base.")?.last() {
            contents.base = Some(number);
            let path = self.path("base.", number);
            if is_of_frames(&path)? {
                read_into(&fs::read(path)?, &mut contents);
            }
        }
        let from = contents.base.unwrap_or(0);
        for number in self.numbers("log.")?.into_iter().filter(|n| *n >= from) {
            read_into(&fs::read(self.path("log.", number))?, &mut contents);
        }
        Ok(contents)
    }

    /// The snapshot that the state begins with, as it was published; none where it begins with frames or nothing.
    pub(super) fn newest_snapshot(&self) -> io::Result<Option<PathBuf>> {
        let newest = self.numbers("base.")?.last().copied();
        let path = newest.map(|number| self.path("base.", number));
        match path {
            Some(path) if !is_of_frames(&path)? => Ok(Some(path)),
            Some(_) | None => Ok(None),
        }
    }

    /// Makes the incoming snapshot, which is synced, `base.<number>`, behind which `carried` and `position` hold; and
    /// removes what two bases make needless. Returns the log that goes on.
    pub(super) fn adopt(
        &self,
        number: u64,
        purpose: Purpose,
        carried: impl Iterator<Item = StoredRecord>,
        position: Position,
    ) -> io::Result<(File, u64)> {
        let mut bytes = Vec::new();
        frame::write(&Frame::Behind { base: number }, &mut bytes);
        for record in carried {
            frame::write(&Frame::Record(record), &mut bytes);
        }
        frame::write(&Frame::Position(position), &mut bytes);
        let mut log = self.create_log(number)?;
        log.write_all(&bytes)?;
        log.sync_data()?;
        let bases = self.numbers("base.")?;
        fs::rename(self.incoming(purpose), self.path("base.", number))?;
        sync_folder(&self.0)?;
        let kept = bases.last().copied().unwrap_or(number);
        self.remove_before(kept)?;
        Ok((log, bytes.len() as u64))
    }

    /// Folds the logs between the newest base and log `number` into the first of them.
    pub(super) fn fold(&self, number: u64) -> io::Result<()> {
        let mut contents = Contents {
            base: self.numbers("base.")?.last().copied(),
            ..Contents::default()
        };
        let from = contents.base.unwrap_or(0);
        let logs = self.numbers("log.")?;
        let logs: Vec<u64> = logs
            .into_iter()
            .filter(|log| (from..number).contains(log))
            .collect();
        let Some((first, others)) = logs.split_first() else {
            return Ok(());
        };
        for log in &logs {
            read_into(&fs::read(self.path("log.", *log))?, &mut contents);
        }
        let beside = self.0.join("log.tmp");
        let mut out = io::BufWriter::new(File::create(&beside)?);
        let mut write = |frame: Frame| {
            let mut bytes = Vec::new();
            frame::write(&frame, &mut bytes);
            out.write_all(&bytes)
        };
        if let Some(base) = contents.base {
            write(Frame::Behind { base })?;
        }
        for record in contents.records.into_values() {
            // The position below counts, which after damage stands before some of these.
            write(Frame::Record(record))?;
        }
        for key in contents.dropped {
            write(Frame::Dropped { key })?;
        }
        write(Frame::Position(contents.position))?;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&beside, self.path("log.", *first))?;
        for log in others {
            fs::remove_file(self.path("log.", *log))?;
        }
        sync_folder(&self.0)
    }

    fn remove_before(&self, kept: u64) -> io::Result<()> {
        for kind in ["base.", "log."] {
            for old in self.numbers(kind)?.into_iter().filter(|old| *old < kept) {
                fs::remove_file(self.path(kind, old))?;
            }
        }
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

/// Bases were files of frames before they were snapshots.
fn is_of_frames(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?
        .take(snapshot::MAGIC.len() as u64)
        .read_to_end(&mut start)?;
    Ok(start == frame::MAGIC)
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
