//! What a child says: kept in a file of limited size, errors also shown.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

use crate::output;

/// A file larger than this is put aside, in place of the one before it.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// A longer line is cut into several.
const LINE_BYTES: u64 = 64 * 1024;
/// Errors that one start of a child may show; the rest are in its file.
const SHOWN: usize = 20;
/// How programs mark a line that tells of a failure.
const MARKS: [&str; 4] = [" ERROR ", "[ERR]", "[FTL]", "panicked at"];

struct Log {
    path: PathBuf,
    file: File,
    written: u64,
}

/// Copies all that comes through `reader`, on a thread that ends with it.
pub(super) fn copy(name: &str, path: &Path, reader: PipeReader) -> io::Result<()> {
    let mut log = Log::open(path)?;
    let name = name.to_owned();
    thread::Builder::new()
        .name(format!("log {name}"))
        .spawn(move || {
            let mut reader = BufReader::new(reader);
            let (mut line, mut left) = (Vec::new(), SHOWN);
            while matches!(
                (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line),
                Ok(1..)
            ) {
                log.write(&line);
                if left > 0 && is_error(&line) {
                    left -= 1;
                    output::say(&format!(
                        "{name}: {}",
                        String::from_utf8_lossy(&line).trim_end()
                    ));
                }
                line.clear();
            }
        })?;
    Ok(())
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            written,
        })
    }

    /// A log that cannot be written is no reason to stop what it tells of.
    fn write(&mut self, line: &[u8]) {
        if self.written > FILE_BYTES {
            let aside = self.path.with_extension("log.1");
            if fs::rename(&self.path, aside).is_ok()
                && let Ok(fresh) = Self::open(&self.path)
            {
                *self = fresh;
            }
        }
        self.written += line.len() as u64;
        let _ = self.file.write_all(line);
    }
}

fn is_error(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    MARKS.iter().any(|mark| line.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut log = Log::open(&path).unwrap();
        log.write(b"first\n");
        log.written = FILE_BYTES + 1;
        log.write(b"second\n");
        assert_eq!(fs::read(&path).unwrap(), b"second\n");
        assert_eq!(fs::read(folder.path().join("a.log.1")).unwrap(), b"first\n");
    }

    #[test]
    fn failures_are_told_from_the_rest() {
        assert!(is_error(
            b"2026-01-01T00:00:00Z ERROR helix_origin: disk full"
        ));
        assert!(is_error(b"[1] [FTL] cannot listen"));
        assert!(!is_error(
            b"2026-01-01T00:00:00Z  INFO helix_origin: errors=0"
        ));
    }
}
