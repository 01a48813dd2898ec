//! What detection may ask of a project: small texts, and which folders there are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file that is read: a manifest with thousands of dependencies fits, a lockfile's head is enough.
const MAX_READ_BYTES: u64 = 1024 * 1024;
/// Most folders that are listed of one: a monorepo has hundreds.
const MAX_FOLDERS: usize = 2_000;

/// A project's files, by their path from the repository's root with `/` between.
pub trait Files {
    /// The text of a file, or of its first part; none if there is no such file or it is not text.
    fn read(&self, path: &str) -> Option<String>;

    /// Whether there is such a file.
    fn has(&self, path: &str) -> bool;

    /// Names of the folders in a folder, in order.
    fn folders(&self, path: &str) -> Vec<String>;
}

/// A folder on disk. Nothing outside it is read, whatever its links say.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at `root`; none if there is none.
    #[must_use]
    pub fn open(root: &Path) -> Option<Self> {
        let root = fs::canonicalize(root).ok()?;
        root.is_dir().then_some(Self { root })
    }

    /// Where the file at `path` really is, if it is a plain one and within.
    #[must_use]
    pub fn locate(&self, path: &str) -> Option<PathBuf> {
        self.within(path).filter(|path| path.is_file())
    }

    /// Where `path` really is, if within.
    fn within(&self, path: &str) -> Option<PathBuf> {
        let path = fs::canonicalize(self.root.join(path)).ok()?;
        path.starts_with(&self.root).then_some(path)
    }
}

impl Files for Folder {
    fn read(&self, path: &str) -> Option<String> {
        use std::io::Read as _;
        let path = self.locate(path)?;
        let mut bytes = Vec::new();
        let file = fs::File::open(path).ok()?;
        file.take(MAX_READ_BYTES).read_to_end(&mut bytes).ok()?;
        match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            // The cut may go through a character.
            Err(error) if error.utf8_error().error_len().is_none() => {
                let end = error.utf8_error().valid_up_to();
                String::from_utf8(error.into_bytes()[..end].to_vec()).ok()
            }
            Err(_) => None,
        }
    }

    fn has(&self, path: &str) -> bool {
        self.locate(path).is_some()
    }

    fn folders(&self, path: &str) -> Vec<String> {
        let entries = self.within(path).and_then(|path| fs::read_dir(path).ok());
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .take(MAX_FOLDERS)
            .collect();
        names.sort();
        names
    }
}

/// Files that are only written down.
#[derive(Clone, Debug, Default)]
pub struct Written(BTreeMap<String, String>);

impl Written {
    /// Paths and texts.
    #[must_use]
    pub fn new(files: &[(&str, &str)]) -> Self {
        let files = files.iter();
        Self(
            files
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                .collect(),
        )
    }

    /// Each path and its text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

impl Files for Written {
    fn read(&self, path: &str) -> Option<String> {
        self.0.get(path).cloned()
    }

    fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn folders(&self, path: &str) -> Vec<String> {
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let mut names: Vec<String> = self
            .0
            .keys()
            .filter_map(|file| file.strip_prefix(&prefix)?.split_once('/'))
            .map(|(name, _)| name.to_owned())
            .collect();
        names.dedup();
        names
    }
}

/// `path` within `folder`, which may be the root.
#[must_use]
pub fn join(folder: &str, path: &str) -> String {
    if folder.is_empty() {
        path.to_owned()
    } else if path.is_empty() {
        folder.to_owned()
    } else {
        format!("{folder}/{path}")
    }
}

/// The folder above, down from the project's to the root.
#[must_use]
pub fn parent(folder: &str) -> Option<&str> {
    if folder.is_empty() {
        return None;
    }
    Some(folder.rsplit_once('/').map_or("", |(above, _)| above))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_that_leads_out_is_no_file() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(
            outside.path().join("secret"),
            inside.path().join("package.json"),
        )
        .unwrap();
        symlink(outside.path(), inside.path().join("apps")).unwrap();
        fs::write(inside.path().join("real"), "1").unwrap();
        let folder = Folder::open(inside.path()).unwrap();
        assert_eq!(folder.read("package.json"), None);
        assert!(!folder.has("apps/secret") && !folder.has("../x"));
        assert_eq!(folder.folders("apps"), Vec::<String>::new());
        assert_eq!(folder.read("real").as_deref(), Some("1"));
    }
}
