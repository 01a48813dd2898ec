//! The folder and its files: the only place that names a path. Everything here blocks.
//!
//! Files are named by hash and number alone, in 256 folders by the hash's first byte. What is being written stands
//! in `tmp`, which is emptied at start.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::SystemTime;

use bytes::Bytes;

use super::Disk;
use super::body::Reading;
use super::format::{BLOCK_BYTES, Body, Harm, Head, Name, PRELUDE_BYTES, sum};

/// The folder of what is kept.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl fmt::Display for Folder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(out)
    }
}

/// A file whose head was read, and whose body may follow.
pub(super) struct Opened {
    file: File,
    /// Where the body begins.
    at: u64,
}

impl Folder {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// The lock that makes the folder one process's own; an error while another has it.
    pub(super) fn lock(&self) -> io::Result<File> {
        let options = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .clone();
        let file = options.open(self.0.join("lock"))?;
        file.try_lock()?;
        Ok(file)
    }

    /// Removes what was being written when the last process ended, and makes every folder.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let tmp = self.0.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(&tmp)?;
        for folder in self.folders() {
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The folders that files lie in.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..=255_u8).map(|byte| self.0.join(format!("{byte:02x}")))
    }

    /// The names of all files of a hash.
    pub(super) fn names_of(&self, hash: u128) -> Vec<Name> {
        let name = Name {
            key: hash,
            serial: 0,
        };
        let path = self.path(name, "e");
        let folder = path.parent().map(fs::read_dir);
        let Some(Ok(entries)) = folder else {
            return Vec::new();
        };
        let names = entries.flatten().filter_map(|entry| {
            let file = entry.file_name();
            Name::parse(file.to_str()?.split_once('.')?.0)
        });
        names.filter(|name| name.key == hash).collect()
    }

    fn path(&self, name: Name, kind: &str) -> PathBuf {
        let file = format!("{name}.{kind}");
        self.0.join(&file[..2]).join(file)
    }

    /// Where a file stands while it is written.
    pub(super) fn beside(&self, name: Name, kind: &str) -> PathBuf {
        self.0.join("tmp").join(format!("{name}.{kind}"))
    }

    /// Creates a file that is to be written.
    pub(super) fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
    }

    /// Writes a file beside.
    pub(super) fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        let mut file = Self::create(path)?;
        let written = parts.iter().try_for_each(|part| file.write_all(part));
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(path);
        }
        written
    }

    /// Gives what was written beside its name.
    pub(super) fn place(&self, name: Name, kind: &str) -> io::Result<()> {
        fs::rename(self.beside(name, kind), self.path(name, kind))
    }

    /// Gives the body of one response to its successor.
    pub(super) fn pass_body(&self, from: Name, to: Name) -> io::Result<()> {
        fs::rename(self.path(from, "b"), self.path(to, "b"))
    }

    /// Removes a response. What is open goes on being read.
    pub(super) fn remove(&self, name: Name) {
        // The head first: a body without one is nobody's.
        remove_file(&self.path(name, "e"));
        remove_file(&self.path(name, "b"));
        remove_file(&self.path(name, "s"));
    }

    /// Says that a response has to be asked about before its next use. Its head is not written anew for that.
    pub(super) fn mark(&self, name: Name) -> io::Result<()> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path(name, "s"))
            .map(drop)
    }

    /// Whether that was said.
    pub(super) fn is_marked(&self, name: Name) -> bool {
        fs::exists(self.path(name, "s")).unwrap_or(true)
    }

    /// Reads and checks the head of a response.
    pub(super) fn read_head(&self, name: Name) -> Result<(Head, Opened), Harm> {
        let mut file = File::open(self.path(name, "e"))?;
        let mut prelude = [0; PRELUDE_BYTES];
        read_exact(&mut file, &mut prelude)?;
        let mut head = vec![0; Head::length(&prelude)?];
        read_exact(&mut file, &mut head)?;
        let at = (PRELUDE_BYTES + head.len()) as u64;
        let head = Head::open(&prelude, &head, name)?;
        let behind = if head.body.beside {
            0
        } else {
            head.body.length
        };
        if file.metadata()?.len() != at + behind {
            return Err(Harm::Damaged);
        }
        Ok((head, Opened { file, at }))
    }

    /// Opens a body that lies beside, and checks that it is as long as it should be and begins well.
    pub(super) fn open_body(
        &self,
        name: Name,
        body: Body,
        disk: Weak<Disk>,
    ) -> Result<Reading, Harm> {
        let file = File::open(self.path(name, "b"))?;
        if file.metadata()?.len() != body.length {
            return Err(Harm::Damaged);
        }
        let reading = Reading::new(file, name, body, disk);
        reading.block(0)?;
        Ok(reading)
    }

    /// Whether a body of this length lies beside.
    pub(super) fn has_body(&self, name: Name, length: u64) -> bool {
        fs::metadata(self.path(name, "b")).is_ok_and(|found| found.len() == length)
    }

    /// It was used now: a restart goes by that.
    pub(super) fn touch(&self, name: Name) {
        // Without it the order of eviction is a little off.
        let _ =
            File::open(self.path(name, "e")).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

impl Opened {
    /// Reads and checks the body that follows the head.
    pub(super) fn read_body(mut self, body: &Body) -> Result<Bytes, Harm> {
        let length = usize::try_from(body.length).map_err(|_| Harm::Damaged)?;
        let mut bytes = vec![0; length];
        self.file.seek(SeekFrom::Start(self.at))?;
        read_exact(&mut self.file, &mut bytes)?;
        let mut sums = bytes.chunks(BLOCK_BYTES).map(sum);
        if body
            .sums
            .iter()
            .any(|expected| sums.next() != Some(*expected))
        {
            return Err(Harm::Damaged);
        }
        Ok(bytes.into())
    }

    /// When it was last used, and how many bytes it has.
    pub(super) fn used(&self) -> io::Result<(SystemTime, u64)> {
        let found = self.file.metadata()?;
        Ok((found.modified()?, found.len()))
    }
}

/// Reads so many bytes from `at` on.
pub(super) fn read_at(file: &File, at: u64, length: usize) -> Result<Vec<u8>, Harm> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Harm::Damaged),
        Err(error) => Err(error.into()),
    }
}

fn read_exact(file: &mut File, bytes: &mut [u8]) -> Result<(), Harm> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Harm::Damaged),
        read => Ok(read?),
    }
}

pub(super) fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "remove a stored response");
        }
        _ => {}
    }
}
