//! The one thread that writes what fell out of memory, and deletes what is no longer wanted.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

use super::files::{self, Folder};
use super::format::{Body, Head, Name, Summing};
use super::index::{Slot, on_disk};
use super::{Disk, Job, nanos};
use crate::cache::purge::Fate;
use crate::cache::store::Stored;

/// Works until nobody can send work any more.
pub(super) fn run(disk: &Weak<Disk>, work: &Receiver<Job>) {
    while let Ok(job) = work.recv() {
        let Some(disk) = disk.upgrade() else {
            return;
        };
        match job {
            Job::Keep(stored, bytes) => {
                disk.keep(&stored);
                disk.waiting.fetch_sub(bytes, Ordering::AcqRel);
            }
            Job::Restate(stored) => disk.restate_now(&stored),
            Job::Remove(name) => disk.folder.remove(name),
            Job::RemoveFile(path) => files::remove_file(&path),
            Job::Tell(done) => {
                // Who no longer waits needs no answer.
                let _ = done.send(());
            }
        }
    }
}

impl Disk {
    fn keep(self: &Arc<Self>, stored: &Arc<Stored>) {
        let Some(bytes) = stored.content.bytes() else {
            return;
        };
        if self.has(stored) {
            // It was handed over twice.
            return;
        }
        let fate = self.purges.fate_since(&stored.facts, stored.began);
        if self.is_paused() || fate == Fate::Gone {
            return;
        }
        let mut summing = Summing::new();
        summing.take(&bytes);
        let name = self.next_name(&stored.facts.key);
        let body = summing.finish(false);
        match self.write(stored, name, body, Some(&bytes), 0) {
            // It may have been written before, and that file pushed out; then this one is found by its key alone.
            Ok(true) => drop(stored.file.set(name)),
            Ok(false) => {}
            Err(error) => self.pause(&error),
        }
        self.show();
    }

    /// Writes the head of a response, with its body if that is not beside already, and lists it, which gives back
    /// what was `reserved` for it. False if there is no room, or it was purged.
    pub(super) fn write(
        &self,
        stored: &Stored,
        name: Name,
        body: Body,
        bytes: Option<&[u8]>,
        reserved: u64,
    ) -> io::Result<bool> {
        let beside = body.length * u64::from(body.beside);
        let head = self.head(stored, name, body).seal();
        let bytes = bytes.unwrap_or_default();
        let room = on_disk((head.len() + bytes.len()) as u64);
        let Some(gone) = self.index().reserve(room) else {
            self.metrics.count("no_room");
            return Ok(false);
        };
        self.evicted(&gone);
        let written = Folder::write(&self.folder.beside(name, "e"), &[&head, bytes]);
        let slot = Slot {
            name,
            facts: stored.facts.clone(),
            bytes: room + on_disk(beside),
            used: nanos(),
            stale: false,
        };
        let reserved = reserved + room;
        let placed = written.and_then(|()| self.place(stored, slot, beside > 0, reserved));
        if !matches!(placed, Ok(true)) {
            self.index().release(room);
            files::remove_file(&self.folder.beside(name, "e"));
        }
        self.metrics.count(match placed {
            Ok(true) => "kept",
            Ok(false) => "purged",
            Err(_) => "not_written",
        });
        placed
    }

    fn head(&self, stored: &Stored, name: Name, body: Body) -> Head {
        Head::new(
            name,
            &stored.facts,
            stored.status,
            &stored.headers,
            &stored.freshness,
            stored.purged,
            stored.invalid.load(Ordering::Acquire),
            body,
        )
    }

    /// Gives a response its name and lists it, unless it was purged.
    fn place(
        &self,
        stored: &Stored,
        mut slot: Slot,
        beside: bool,
        reserved: u64,
    ) -> io::Result<bool> {
        let (placing, name) = (self.placing(), slot.name);
        let fate = self.purges.fate_since(&stored.facts, stored.began);
        if fate == Fate::Gone {
            return Ok(false);
        }
        // Its head may have been written before it was marked.
        slot.stale = fate == Fate::Stale;
        let stale = slot.stale;
        if beside {
            self.folder.place(name, "b")?;
        }
        self.folder
            .place(name, "e")
            .inspect_err(|_| self.folder.remove(name))?;
        let mut index = self.index();
        index.release(reserved);
        let gone = index.insert(slot);
        drop((index, placing));
        self.evicted(&gone);
        if stale {
            self.mark(name);
        }
        Ok(true)
    }

    /// The same body under a new head.
    fn restate_now(&self, stored: &Stored) {
        let Some(reading) = stored.content.reading() else {
            return;
        };
        let (old, body) = (reading.name(), reading.body().clone());
        let name = self.next_name(&stored.facts.key);
        let bytes = on_disk(body.length);
        let head = self.head(stored, name, body).seal();
        let path = self.folder.beside(name, "e");
        let written = Folder::write(&path, &[&head]);
        let placing = self.placing();
        let wanted = self.index().contains(old) && !self.purges.since(&stored.facts, stored.began);
        let placed = written.and_then(|()| {
            if !wanted {
                return Ok(());
            }
            self.folder.pass_body(old, name)?;
            self.folder.place(name, "e")?;
            let mut index = self.index();
            index.remove(old);
            let gone = index.insert(Slot {
                name,
                facts: stored.facts.clone(),
                bytes: bytes + on_disk(head.len() as u64),
                used: nanos(),
                stale: false,
            });
            drop(index);
            self.folder.remove(old);
            self.evicted(&gone);
            Ok(())
        });
        drop(placing);
        if let Err(error) = placed {
            self.pause(&error);
        }
        if !wanted {
            files::remove_file(&path);
        }
    }

    /// Deletes what was pushed out.
    pub(super) fn evicted(&self, gone: &[Name]) {
        for name in gone {
            self.metrics.count("evicted");
            self.folder.remove(*name);
        }
    }
}
