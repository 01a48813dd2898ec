//! Stored responses on disk: what fell out of memory, what is worth having after a crash, and what is too large for memory.
//!
//! An [`index`] in memory says what lies there; a file is read and checked only when it is used, and one that is not
//! what it should be is deleted and was never there. One thread writes and deletes; reads run beside the
//! runtime, so many at a time. Whatever finds no room, no free hands or no disk is not kept, and the edge
//! serves on. Files are not synced: after a power cut what is not whole is not believed, and the fleet's purges are
//! compared with what each file says it has lived through.
//!
//! Invariant: what a purge fits is neither listed nor under its name on disk when the purge returns; what one marks as
//! stale is so in either place.

mod body;
mod files;
mod format;
mod index;
mod scan;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use tokio::sync::{Semaphore, oneshot, watch};

pub(super) use self::body::{Reading, Writing};
use self::files::Folder;
pub use self::format::{Harm, MOST_BODY_BYTES, Name};
use self::format::{Head, hash};
use self::index::Index;
use super::content::Content;
use super::purge::{Fate, Purges};
use super::store::{Facts, Key, Stored};
use crate::metrics::DiskCache;

/// Bytes of responses that wait to be written: more than a burst of evictions, and little beside the memory they left.
const WAITING_BYTES: u64 = 32 * 1024 * 1024;
/// Responses that are looked for on disk at once. One more is a miss: the disk is then slower than the upstream.
const LOOKUPS: usize = 32;
/// Large bodies that are written while they come. One more passes through.
const BODIES: usize = 32;
/// After the disk refused a write, before the next one: a full disk is not full for a moment.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an operator's purge waits for the files of before the start to be known.
const SCAN_PATIENCE: Duration = Duration::from_secs(10);

/// How much is kept, and where.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// The folder, which is this process's alone.
    pub folder: PathBuf,
    /// Bytes of files.
    pub bytes: u64,
    /// The largest body.
    pub max_body_bytes: u64,
}

/// How far the files of before the start are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not at all; nothing is read or written.
    Closed,
    /// In part.
    Reading,
    /// All of them.
    Known,
    /// The folder cannot be used; nothing is read or written.
    Failed,
}

impl Stage {
    const fn is_settled(&self) -> bool {
        matches!(self, Self::Known | Self::Failed)
    }
}

/// Work for the writing thread.
enum Job {
    /// Write what fell out of memory; it waits with so many bytes.
    Keep(Arc<Stored>, u64),
    /// Write the head of what lies there anew.
    Restate(Arc<Stored>),
    Remove(Name),
    RemoveFile(PathBuf),
    /// All before this is done.
    Tell(oneshot::Sender<()>),
}

/// The disk behind memory.
#[derive(Debug)]
pub struct Disk {
    folder: Folder,
    largest: u64,
    index: Mutex<Index>,
    /// Held while a file gets its name and is listed, and while what is purged is taken out: between the two
    /// nothing can slip through.
    placing: Mutex<()>,
    jobs: Sender<Job>,
    waiting: AtomicU64,
    serial: AtomicU64,
    paused_until: AtomicU64,
    stage: watch::Sender<Stage>,
    lookups: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    lock: Mutex<Option<std::fs::File>>,
    scanning: AtomicBool,
    purges: Arc<Purges>,
    metrics: DiskCache,
}

impl Disk {
    /// Opens the folder. Nothing is read until [`Disk::begin`].
    ///
    /// # Errors
    /// When there is no such folder and none can be made.
    pub fn open(
        config: DiskConfig,
        purges: Arc<Purges>,
        metrics: DiskCache,
    ) -> io::Result<Arc<Self>> {
        let folder = Folder::open(config.folder)?;
        let (jobs, work) = channel();
        let disk = Arc::new(Self {
            folder,
            largest: config.max_body_bytes.min(MOST_BODY_BYTES),
            index: Mutex::new(Index::new(config.bytes)),
            placing: Mutex::new(()),
            jobs,
            waiting: AtomicU64::new(0),
            // Higher than that of any file of before, whose clock was not in the future.
            serial: AtomicU64::new(nanos()),
            paused_until: AtomicU64::new(0),
            stage: watch::Sender::new(Stage::Closed),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            bodies: Arc::new(Semaphore::new(BODIES)),
            lock: Mutex::new(None),
            scanning: AtomicBool::new(false),
            purges,
            metrics,
        });
        start_writer(&disk, work)?;
        Ok(disk)
    }

    /// Reads in the background what lies there, as soon as no other process has the folder. Records about the fleet's
    /// purges that were on disk have to be known by now.
    pub fn begin(self: &Arc<Self>) {
        if self.scanning.swap(true, Ordering::AcqRel) {
            return;
        }
        let (disk, began) = (Arc::downgrade(self), self.purges.moment());
        let started = std::thread::Builder::new()
            .name("cache-scan".to_owned())
            .spawn(move || scan::run(&disk, began));
        if let Err(error) = started {
            tracing::error!(%error, "no response is kept on disk");
            self.stage.send_replace(Stage::Failed);
        }
    }

    /// The largest body that is kept, in bytes.
    #[must_use]
    pub const fn largest(&self) -> u64 {
        self.largest
    }

    /// What of the disk answers `request`; it counts as used.
    pub async fn load(self: &Arc<Self>, key: &Arc<Key>, request: &HeaderMap) -> Option<Stored> {
        if !self.is_open() {
            return None;
        }
        let began = self.purges.moment();
        let hash = hash(key);
        let name = self.index().find(hash, key, request, nanos())?;
        let Ok(permit) = Arc::clone(&self.lookups).try_acquire_owned() else {
            self.metrics.count("busy");
            return None;
        };
        let disk = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let read = disk.read(name, began);
            drop(permit);
            read
        });
        match read.await.ok()? {
            Ok(stored) if *stored.facts.key == **key => {
                // A purge may have come meanwhile.
                let stale = self.index().is_stale(name)?;
                stored.invalid.fetch_or(stale, Ordering::AcqRel);
                self.metrics.count("hit");
                Some(stored)
            }
            Ok(_) => None,
            Err(harm) => {
                self.discard(name, &harm);
                None
            }
        }
    }

    fn read(self: &Arc<Self>, name: Name, began: u64) -> Result<Stored, Harm> {
        let (head, file) = self.folder.read_head(name)?;
        let facts = head.facts().ok_or(Harm::Damaged)?;
        let (status, headers) = head.response().ok_or(Harm::Damaged)?;
        let Head {
            freshness,
            purged,
            invalid,
            body,
            ..
        } = head;
        let content = if body.beside {
            let reading = self.folder.open_body(name, body, Arc::downgrade(self))?;
            Content::on_disk(reading)
        } else {
            Content::whole(file.read_body(&body)?)
        };
        self.folder.touch(name);
        Ok(Stored {
            facts,
            status,
            headers,
            freshness,
            content,
            began,
            purged,
            file: name.into(),
            invalid: invalid.into(),
            offered: true.into(),
        })
    }

    /// What the newest response to `key` was chosen by.
    #[must_use]
    pub fn newest(&self, key: &Key) -> Option<Facts> {
        self.index().newest(hash(key), key)
    }

    /// Writes what is in memory or fell out of it, if there is room in the queue; false if there is none. It may be read as
    /// long as it waits.
    pub fn keep_later(&self, stored: &Arc<Stored>) -> bool {
        let bytes = stored.content.length().unwrap_or(0);
        if self.waiting.load(Ordering::Acquire) + bytes > WAITING_BYTES {
            self.metrics.count("busy");
            return false;
        }
        self.keep_last(stored);
        true
    }

    /// The same, however much waits.
    pub fn keep_last(&self, stored: &Arc<Stored>) {
        if !self.is_open() || self.has(stored) {
            return;
        }
        let bytes = stored.content.length().unwrap_or(0);
        self.waiting.fetch_add(bytes, Ordering::AcqRel);
        self.send(Job::Keep(Arc::clone(stored), bytes));
    }

    /// Whether it lies there.
    fn has(&self, stored: &Stored) -> bool {
        let file = stored.file.get();
        file.is_some_and(|name| self.index().contains(*name))
    }

    /// What lies there gets a new head: a 304 has refreshed it.
    pub fn restate(&self, stored: &Arc<Stored>) {
        self.send(Job::Restate(Arc::clone(stored)));
    }

    /// A newer response answers the same.
    pub fn supersede(&self, facts: &Facts) {
        let hash = hash(&facts.key);
        let mut index = self.index();
        if index.has(hash) {
            let gone = index.supersede(hash, facts);
            drop(index);
            self.remove_later(gone);
        }
    }

    /// Begins a large body whose length is not known. None when there are too many, or the disk rests.
    pub(super) fn begin_body(self: &Arc<Self>) -> Option<Writing> {
        if !self.is_open() || self.is_paused() {
            return None;
        }
        let permit = Arc::clone(&self.bodies).try_acquire_owned().ok();
        if permit.is_none() {
            self.metrics.count("busy");
        }
        Some(Writing::new(Arc::clone(self), permit?))
    }

    /// Does with every response what `fate` says of its facts, and names those it says something of. Blocks.
    pub fn forget(&self, fate: impl Fn(&Facts) -> Fate) -> Vec<Name> {
        let placing = self.placing();
        let mut index = self.index();
        let mut fitting = index.take(None, |facts| fate(facts) == Fate::Gone);
        let stale = index.mark(|facts| fate(facts) == Fate::Stale);
        drop((index, placing));
        fitting.iter().for_each(|name| self.folder.remove(*name));
        stale.iter().for_each(|name| self.mark(*name));
        fitting.extend(stale);
        self.show();
        fitting
    }

    /// Lets a response that is listed as stale be so after a restart, too; where that cannot be, it goes.
    fn mark(&self, name: Name) {
        if let Err(error) = self.folder.mark(name) {
            self.pause(&error);
            self.index().remove(name);
        }
        // It may have been replaced before it was marked.
        if !self.index().contains(name) {
            self.folder.remove(name);
        }
    }

    /// Takes out and deletes every response to `key`, also one of before the start that is not known yet.
    pub async fn forget_key(self: &Arc<Self>, key: &Arc<Key>) {
        let hash = hash(key);
        let nothing_waits = self.waiting.load(Ordering::Acquire) == 0;
        if self.stage() == Stage::Known && nothing_waits && !self.index().has(hash) {
            return;
        }
        let (disk, key) = (Arc::clone(self), Arc::clone(key));
        let forgetting = tokio::task::spawn_blocking(move || {
            let placing = disk.placing();
            let mut gone = disk.index().take(Some(hash), |facts| *facts.key == *key);
            if disk.stage() != Stage::Known {
                gone.extend(disk.folder.names_of(hash));
            }
            drop(placing);
            gone.iter().for_each(|name| disk.folder.remove(*name));
        });
        // It ends before its time only with the process.
        let _ = forgetting.await;
    }

    /// Waits until the files of before the start are known and what waited is written, but not for long.
    pub async fn settle(&self, limit: Duration) {
        let settling = async {
            let mut stage = self.stage.subscribe();
            if self.scanning.load(Ordering::Acquire) {
                // The sender is ours.
                let _ = stage.wait_for(Stage::is_settled).await;
            }
            let (done, told) = oneshot::channel();
            self.send(Job::Tell(done));
            let _ = told.await;
        };
        let _ = tokio::time::timeout(limit, settling).await;
    }

    /// Waits until every file of before the start was held against what was purged since.
    pub async fn known(&self) {
        self.settle(SCAN_PATIENCE).await;
    }

    /// A file is not what it should be: it goes, and counts as never there.
    pub(super) fn discard(&self, name: Name, harm: &Harm) {
        if !self.index().remove(name) {
            // It was purged or pushed out while it was read.
            return;
        }
        self.metrics.count("damaged");
        tracing::warn!(%name, error = harm as &dyn std::error::Error, "a stored response is not used");
        self.send(Job::Remove(name));
        self.show();
    }

    fn next_name(&self, key: &Key) -> Name {
        Name {
            key: hash(key),
            serial: self.serial.fetch_add(1, Ordering::AcqRel),
        }
    }

    fn remove_later(&self, names: Vec<Name>) {
        for name in names {
            self.send(Job::Remove(name));
        }
        self.show();
    }

    fn send(&self, job: Job) {
        // The thread ends after the last of those who send.
        let _ = self.jobs.send(job);
    }

    fn is_paused(&self) -> bool {
        nanos() < self.paused_until.load(Ordering::Acquire)
    }

    fn pause(&self, error: &io::Error) {
        let pause = u64::try_from(PAUSE.as_nanos()).unwrap_or(u64::MAX);
        let until = nanos().saturating_add(pause);
        self.metrics.count("failed");
        if self.paused_until.swap(until, Ordering::AcqRel) < nanos() {
            tracing::warn!(folder = %self.folder, %error, "responses are not kept on disk for a while");
        }
    }

    fn show(&self) {
        let (entries, bytes) = self.index().size();
        self.metrics.show(entries, bytes);
    }

    fn is_open(&self) -> bool {
        matches!(self.stage(), Stage::Reading | Stage::Known)
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn placing(&self) -> MutexGuard<'_, ()> {
        self.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_writer(disk: &Arc<Disk>, work: Receiver<Job>) -> io::Result<()> {
    let disk: Weak<Disk> = Arc::downgrade(disk);
    std::thread::Builder::new()
        .name("cache-disk".to_owned())
        .spawn(move || writer::run(&disk, &work))?;
    Ok(())
}

/// Nanoseconds since 1970.
fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
