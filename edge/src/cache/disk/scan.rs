//! What lay there before the start, read in the background.
//!
//! Only heads are read; bodies are checked when they are used. A file that is no response of this version, was
//! purged since it was asked for, or comes from the future is deleted; one that a purge only marks is marked.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use super::files;
use super::format::{Harm, Head, Name};
use super::index::{Slot, on_disk};
use super::{Disk, Stage};
use crate::cache::purge::Fate;

/// How often a folder that another process has is asked for again: one that drains needs it a little longer.
const LOCK_RETRY: Duration = Duration::from_millis(100);
/// A response that is further in the future than clocks are wrong was written under another clock: its age is unknown.
const CLOCK_SLACK: u64 = 60;

/// Reads everything, once the folder is this process's own.
/// `began` is the moment up to which the fleet's purges were known.
pub(super) fn run(disk: &Weak<Disk>, began: u64) {
    let Some(disk) = take_folder(disk) else {
        return;
    };
    disk.stage.send_replace(Stage::Reading);
    for folder in disk.folder.folders() {
        if let Err(error) = read_folder(&disk, &folder, began) {
            tracing::warn!(folder = %folder.display(), %error, "stored responses are not found again");
        }
    }
    disk.stage.send_replace(Stage::Known);
    disk.show();
    let (entries, bytes) = disk.index().size();
    tracing::info!(folder = %disk.folder, entries, bytes, "stored responses are known");
}

/// The disk, once its folder is this process's own; none when it cannot be, or nobody wants it any more.
fn take_folder(disk: &Weak<Disk>) -> Option<Arc<Disk>> {
    let locked = lock(disk);
    let disk = disk.upgrade()?;
    match locked.and_then(|lock| disk.folder.prepare().map(|()| lock)) {
        Ok(lock) => *disk.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock),
        Err(error) => {
            tracing::error!(folder = %disk.folder, %error, "no response is kept on disk");
            disk.stage.send_replace(Stage::Failed);
            return None;
        }
    }
    Some(disk)
}

fn lock(disk: &Weak<Disk>) -> io::Result<fs::File> {
    let mut told = false;
    loop {
        let gone = io::ErrorKind::NotConnected;
        let folder = disk.upgrade().ok_or(gone)?.folder.clone();
        match folder.lock() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            locked => return locked,
        }
        if !told {
            tracing::info!(%folder, "another process has the stored responses");
            told = true;
        }
        std::thread::park_timeout(LOCK_RETRY);
    }
}

fn read_folder(disk: &Arc<Disk>, folder: &Path, began: u64) -> io::Result<()> {
    let mut beside = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .and_then(|stem| Name::parse(stem.to_str()?));
        match (name, path.extension().and_then(|kind| kind.to_str())) {
            (Some(name), Some("e")) => read_entry(disk, name, began),
            (Some(name), Some("b" | "s")) => beside.push((name, path)),
            _ => files::remove_file(&path),
        }
    }
    for (name, path) in beside {
        let placing = disk.placing();
        if !disk.index().contains(name) {
            files::remove_file(&path);
        }
        drop(placing);
    }
    Ok(())
}

fn read_entry(disk: &Arc<Disk>, name: Name, began: u64) {
    if disk.index().contains(name) {
        // It was written since the start.
        return;
    }
    match slot(disk, name) {
        Ok((mut slot, head)) => {
            let placing = disk.placing();
            if disk.index().contains(name) {
                // It was written since it was listed.
                return;
            }
            let purges = &disk.purges;
            let fate = purges.fate_after(&slot.facts, head.purged);
            let fate = fate.max(purges.fate_since(&slot.facts, began));
            let future = head.freshness.received > crate::cache::now() + CLOCK_SLACK;
            if future || fate == Fate::Gone {
                disk.metrics.count("outdated");
                disk.folder.remove(name);
                return;
            }
            let marks = fate == Fate::Stale && !slot.stale;
            slot.stale |= marks;
            let gone = insert_older(disk, slot);
            drop(placing);
            if marks {
                disk.mark(name);
            }
            disk.evicted(&gone);
        }
        // It went since the folder was listed.
        Err(Harm::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(harm) => {
            disk.metrics.count(match harm {
                Harm::Version => "outdated",
                _ => "damaged",
            });
            tracing::warn!(%name, error = &harm as &dyn std::error::Error, "a stored response is deleted");
            disk.folder.remove(name);
        }
    }
}

/// Lists what was written before the start, unless something newer answers the same.
fn insert_older(disk: &Disk, slot: Slot) -> Vec<Name> {
    let mut index = disk.index();
    let newer = index.newest_like(slot.name.key, &slot.facts);
    if newer.is_some_and(|newer| newer.serial > slot.name.serial) {
        return vec![slot.name];
    }
    index.insert(slot)
}

fn slot(disk: &Disk, name: Name) -> Result<(Slot, Head), Harm> {
    let (head, file) = disk.folder.read_head(name)?;
    let facts = head.facts().ok_or(Harm::Damaged)?;
    let (used, bytes) = file.used()?;
    let beside = head.body.length * u64::from(head.body.beside);
    if head.body.beside && !disk.folder.has_body(name, beside) {
        return Err(Harm::Damaged);
    }
    let used = used.duration_since(UNIX_EPOCH).unwrap_or_default();
    let slot = Slot {
        name,
        facts,
        bytes: on_disk(bytes) + on_disk(beside),
        used: u64::try_from(used.as_nanos()).unwrap_or(0),
        stale: disk.folder.is_marked(name),
    };
    Ok((slot, head))
}
