//! Large bodies: written while they come, read block by block.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::files::{self, Folder};
use super::format::{BLOCK_BYTES, Body, Harm, Name, Summing, sum};
use super::index::on_disk;
use super::{Disk, Job};
use crate::cache::store::Stored;

/// Room is reserved in steps, so that the index is not asked for each part.
const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// A body that lies on disk, and how it is checked.
#[derive(Debug)]
pub(in crate::cache) struct Reading {
    file: File,
    name: Name,
    body: Body,
    disk: Weak<Disk>,
}

impl Reading {
    pub(super) const fn new(file: File, name: Name, body: Body, disk: Weak<Disk>) -> Self {
        Self {
            file,
            name,
            body,
            disk,
        }
    }

    /// Its length in bytes.
    pub(in crate::cache) const fn length(&self) -> u64 {
        self.body.length
    }

    pub(super) const fn name(&self) -> Name {
        self.name
    }

    pub(super) const fn body(&self) -> &Body {
        &self.body
    }

    /// What stands from `at` to the end of its block, read and checked. Blocks.
    ///
    /// # Errors
    /// When it is not what was written; then the whole response is deleted.
    pub(in crate::cache) fn part(&self, at: u64) -> Result<Bytes, Harm> {
        let block = at / BLOCK_BYTES as u64;
        let skip = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
        match self.block(block) {
            Ok(bytes) if skip < bytes.len() => Ok(bytes.slice(skip..)),
            Ok(_) => Err(Harm::Damaged),
            Err(harm) => {
                if let Some(disk) = self.disk.upgrade() {
                    disk.discard(self.name, &harm);
                }
                Err(harm)
            }
        }
    }

    pub(super) fn block(&self, number: u64) -> Result<Bytes, Harm> {
        let at = number * BLOCK_BYTES as u64;
        let length = self.body.length.saturating_sub(at).min(BLOCK_BYTES as u64);
        let length = usize::try_from(length).unwrap_or(0);
        let expected = usize::try_from(number)
            .ok()
            .and_then(|number| self.body.sums.get(number));
        let bytes = files::read_at(&self.file, at, length)?;
        if expected == Some(&sum(&bytes)) || (length == 0 && expected.is_none()) {
            Ok(bytes.into())
        } else {
            Err(Harm::Damaged)
        }
    }
}

/// A body that comes and is written. Dropped, it leaves nothing.
pub(in crate::cache) struct Writing {
    disk: Arc<Disk>,
    name: Name,
    reserved: u64,
    written: u64,
    open: Option<Open>,
    placed: bool,
    _permit: OwnedSemaphorePermit,
}

struct Open {
    file: Arc<File>,
    summing: Summing,
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Writing({}, {} bytes)", self.name, self.written)
    }
}

impl Writing {
    pub(super) fn new(disk: Arc<Disk>, permit: OwnedSemaphorePermit) -> Self {
        // What it answers is said when it is whole.
        let name = Name {
            key: 0,
            serial: disk
                .serial
                .fetch_add(1, std::sync::atomic::Ordering::AcqRel),
        };
        Self {
            disk,
            name,
            reserved: 0,
            written: 0,
            open: None,
            placed: false,
            _permit: permit,
        }
    }

    /// Writes `parts` behind what is there, and hands out where they can be read.
    ///
    /// # Errors
    /// When there is no room, or the disk fails. What was written before stays readable.
    pub(in crate::cache) async fn append(&mut self, parts: Vec<Bytes>) -> io::Result<Arc<File>> {
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        self.reserve(length).await?;
        let path = self.disk.folder.beside(self.name, "b");
        let open = self.open.take();
        let writing = tokio::task::spawn_blocking(move || {
            let mut open = match open {
                Some(open) => open,
                None => Open {
                    file: Arc::new(Folder::create(&path)?),
                    summing: Summing::new(),
                },
            };
            let mut file = &*open.file;
            for part in &parts {
                file.write_all(part)?;
                open.summing.take(part);
            }
            Ok::<_, io::Error>(open)
        });
        let written = writing
            .await
            .map_err(io::Error::other)
            .and_then(|result| result);
        let open = written.inspect_err(|error| self.disk.pause(error))?;
        self.written += length;
        let file = Arc::clone(&open.file);
        self.open = Some(open);
        Ok(file)
    }

    async fn reserve(&mut self, length: u64) -> io::Result<()> {
        if self.written + length > self.disk.largest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let needed = (self.written + length).saturating_sub(self.reserved);
        if needed == 0 {
            return Ok(());
        }
        let step = on_disk(needed.max(RESERVE_BYTES));
        let gone = self.disk.index().reserve(step);
        let Some(gone) = gone else {
            self.disk.metrics.count("no_room");
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        self.reserved += step;
        let disk = Arc::clone(&self.disk);
        let removing = tokio::task::spawn_blocking(move || disk.evicted(&gone));
        removing.await.map_err(io::Error::other)
    }

    /// Keeps it as the body of `stored`, unless that was purged since it was asked for.
    pub(in crate::cache) async fn keep(self, stored: Arc<Stored>) {
        let keeping = tokio::task::spawn_blocking(move || self.keep_now(&stored));
        // It ends before its time only with the process.
        let _ = keeping.await;
    }

    fn keep_now(mut self, stored: &Stored) {
        let Some(open) = self.open.take() else {
            return;
        };
        if self.disk.purges.since(&stored.facts, stored.began) {
            return;
        }
        let body = open.summing.finish(true);
        let folder = &self.disk.folder;
        let name = self.disk.next_name(&stored.facts.key);
        let renamed = std::fs::rename(folder.beside(self.name, "b"), folder.beside(name, "b"));
        self.name = name;
        let kept = renamed.and_then(|()| self.disk.write(stored, name, body, None, self.reserved));
        match kept {
            Ok(true) => {
                self.placed = true;
                self.reserved = 0;
            }
            Ok(false) => {}
            Err(error) => self.disk.pause(&error),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.disk.index().release(self.reserved);
        if !self.placed {
            let path = self.disk.folder.beside(self.name, "b");
            self.disk.send(Job::RemoveFile(path));
        }
        self.disk.show();
    }
}
