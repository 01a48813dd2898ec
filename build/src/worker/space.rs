//! The folders of one build, which go with it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// Folders of one build.
#[derive(Debug)]
pub(super) struct Space {
    root: PathBuf,
}

impl Space {
    /// Makes them below `builds`. What can be written to belongs to `user`, if there is one.
    pub(super) fn make(builds: &Path, name: &str, user: Option<(u32, u32)>) -> io::Result<Self> {
        let space = Self {
            root: builds.join(name),
        };
        fs::create_dir_all(builds)?;
        fs::create_dir(&space.root)?;
        // The build's user passes through, and sees nothing of what is beside.
        for folder in [builds, &space.root] {
            fs::set_permissions(folder, Permissions::from_mode(0o711))?;
        }
        fs::create_dir(space.control())?;
        for folder in [space.whole(), space.source(), space.cache(), space.home()] {
            fs::create_dir(&folder)?;
            if let Some((uid, gid)) = user {
                chown(&folder, Some(uid), Some(gid))?;
            }
        }
        Ok(space)
    }

    /// What a build can write to.
    pub(super) fn whole(&self) -> PathBuf {
        self.root.join("space")
    }

    pub(super) fn source(&self) -> PathBuf {
        self.whole().join("source")
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.whole().join("cache")
    }

    /// Beside it: what frameworks keep, on its way.
    pub(super) fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }

    fn home(&self) -> PathBuf {
        self.whole().join("home")
    }

    /// What it cannot write to.
    pub(super) fn control(&self) -> PathBuf {
        self.root.join("control")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.root) {
            tracing::warn!(folder = %self.root.display(), error = &error as &dyn std::error::Error, "a build's folder is not removed");
        }
    }
}

/// Removes a folder, whatever modes were set in it.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => return removed,
    }
    for entry in WalkDir::new(folder).follow_links(false) {
        // Of a folder that cannot be entered the entry comes all the same, and after it what is in it.
        let path = match &entry {
            Ok(entry) if entry.file_type().is_dir() => entry.path(),
            Ok(_) => continue,
            Err(error) => match error.path() {
                Some(path) => path,
                None => continue,
            },
        };
        // The removal says what is wrong if this does not help.
        let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    }
    fs::remove_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_whatever_the_modes() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::make(&folder.path().join("builds"), "one", None).unwrap();
        let closed = space.source().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        drop(space);
        assert!(!folder.path().join("builds/one").exists());
    }
}
