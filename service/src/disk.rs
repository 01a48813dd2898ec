//! Files that are either the old or the new one, never half of it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Could not write a file durably.
#[derive(Debug, thiserror::Error)]
#[error("write {}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Replaces `path` by `bytes`: written beside, synced, renamed, the folder synced.
///
/// # Errors
/// When any step fails; the old file is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    replace(path, bytes, 0o644).map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })
}

/// Like [`write_atomic`], for secrets: only the owner can read the file, at no moment anyone else.
///
/// # Errors
/// When any step fails; the old file is then still there.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    replace(path, bytes, 0o600).map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })
}

/// Makes a rename or a new file in `folder` survive a power cut.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let beside = folder.join(format!(
        ".{}.{}.tmp",
        file_name(path),
        crate::random::hex16()
    ));
    let written = write_synced(&beside, bytes, mode).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to report; a leftover is swept by whoever owns the folder.
        let _ = fs::remove_file(&beside);
    }
    written?;
    sync_folder(folder)
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = std::env::temp_dir().join(format!("helix-disk-{}", crate::random::hex16()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("state");
        write_atomic(&path, b"one").unwrap();
        write_secret(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(write_atomic(&folder.join("no/such/folder"), b"x").is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
