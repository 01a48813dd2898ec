//! The files of a folder that is to be deployed.
//!
//! Everything that cannot be deployed is found here, before anything is uploaded. No link leads out of
//! the folder. Contents are not read here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use helix_routing::artifact::{MAX_FILE_BYTES, MAX_FILES, check_path};

/// What no site wants to publish: history with its secrets, a desktop's notes, our own state.
const SKIPPED: [&str; 3] = [".git", ".DS_Store", ".helix"];
/// Bad files that are listed before the rest is only counted.
const LISTED: usize = 20;

/// A folder, looked through.
#[derive(Debug, Default)]
pub struct Folder {
    /// Its files, in order of path.
    pub files: Vec<LocalFile>,
    /// What was left out.
    pub skipped: Vec<String>,
}

/// One file.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// Path within the release.
    pub path: String,
    /// Where its bytes are.
    pub source: PathBuf,
    /// Its size when it was found.
    pub size: u64,
}

/// A folder that cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("read folder {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a folder", path.display())]
    NotAFolder { path: PathBuf },
    #[error("folder {} has no files to deploy", path.display())]
    Empty { path: PathBuf },
    #[error("folder {} has more than {MAX_FILES} files, the most that a release can have", path.display())]
    TooMany { path: PathBuf },
    #[error("nothing was uploaded, since folder {} has files that cannot be deployed:{}", path.display(), list(refused))]
    Refused { path: PathBuf, refused: Vec<String> },
}

/// Looks a folder through.
pub fn look_through(path: &Path) -> Result<Folder, FolderError> {
    look_through_only(path, &[])
}

/// Looks through what of a folder has one of these names; all of it, if there is none.
pub fn look_through_only(path: &Path, only: &[&str]) -> Result<Folder, FolderError> {
    let failed = |source| FolderError::Read {
        path: path.to_owned(),
        source,
    };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(FolderError::NotAFolder {
            path: path.to_owned(),
        });
    }
    let root = fs::canonicalize(path).map_err(failed)?;
    let mut walk = Walk {
        root: root.clone(),
        folder: Folder::default(),
        refused: Vec::new(),
        only,
        waiting: vec![(root, String::new())],
    };
    while let Some((folder, prefix)) = walk.waiting.pop() {
        walk.enter(&folder, &prefix);
        if walk.folder.files.len() > MAX_FILES {
            return Err(FolderError::TooMany {
                path: path.to_owned(),
            });
        }
    }
    if !walk.refused.is_empty() {
        walk.refused.sort();
        return Err(FolderError::Refused {
            path: path.to_owned(),
            refused: walk.refused,
        });
    }
    if walk.folder.files.is_empty() {
        return Err(FolderError::Empty {
            path: path.to_owned(),
        });
    }
    walk.folder.files.sort_by(|a, b| a.path.cmp(&b.path));
    walk.folder.skipped.sort();
    Ok(walk.folder)
}

impl Folder {
    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Paths that differ in case alone: served exactly, but one of them is lost on some desktops.
    pub fn case_twins(&self) -> Vec<(&str, &str)> {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        let mut twins = Vec::new();
        for file in &self.files {
            match seen.get(&file.path.to_lowercase()) {
                Some(first) => twins.push((*first, file.path.as_str())),
                None => {
                    seen.insert(file.path.to_lowercase(), &file.path);
                }
            }
        }
        twins
    }
}

struct Walk<'a> {
    root: PathBuf,
    /// Names at the root that are looked at; all, if there is none.
    only: &'a [&'a str],
    folder: Folder,
    refused: Vec<String>,
    waiting: Vec<(PathBuf, String)>,
}

impl Walk<'_> {
    fn enter(&mut self, folder: &Path, prefix: &str) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.refuse(prefix, &format!("cannot be read: {error}")),
        };
        for entry in entries {
            match entry {
                Ok(entry) => self.take(&entry, prefix),
                Err(error) => self.refuse(prefix, &format!("cannot be read: {error}")),
            }
        }
    }

    fn take(&mut self, entry: &fs::DirEntry, prefix: &str) {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return self.refuse(
                &format!("{prefix}{}", name.to_string_lossy()),
                "has a name that is not UTF-8",
            );
        };
        if prefix.is_empty() && !self.only.is_empty() && !self.only.contains(&name) {
            return;
        }
        let path = format!("{prefix}{name}");
        if SKIPPED.contains(&name) {
            self.folder.skipped.push(path);
            return;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => self.waiting.push((entry.path(), format!("{path}/"))),
            Ok(kind) if kind.is_symlink() => self.take_link(&entry.path(), path),
            Ok(_) => self.take_file(entry.path(), path),
            Err(error) => self.refuse(&path, &format!("cannot be read: {error}")),
        }
    }

    /// A link to a file within the folder is that file's content under another name.
    fn take_link(&mut self, link: &Path, path: String) {
        let target = match fs::canonicalize(link) {
            Ok(target) => target,
            Err(error) => {
                let named = fs::read_link(link).unwrap_or_default();
                return self.refuse(
                    &path,
                    &format!(
                        "is a link to {}, which cannot be read: {error}",
                        named.display()
                    ),
                );
            }
        };
        let Ok(within) = target.strip_prefix(&self.root) else {
            return self.refuse(
                &path,
                &format!("is a link out of the folder, to {}", target.display()),
            );
        };
        let skipped = within
            .components()
            .any(|part| SKIPPED.iter().any(|name| part.as_os_str() == *name));
        if skipped {
            self.refuse(
                &path,
                &format!("is a link to {}, which is not deployed", within.display()),
            );
        } else if target.is_dir() {
            self.refuse(
                &path,
                &format!(
                    "is a link to the folder {}; only links to files are followed",
                    within.display()
                ),
            );
        } else {
            self.take_file(target, path);
        }
    }

    fn take_file(&mut self, source: PathBuf, path: String) {
        if let Err(error) = check_path(&path) {
            return self.refused.push(error.to_string());
        }
        match readable(&source) {
            Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
                self.refuse(
                    &path,
                    &format!(
                        "has {} bytes, more than the {MAX_FILE_BYTES} allowed",
                        metadata.len()
                    ),
                );
            }
            Ok(metadata) => self.folder.files.push(LocalFile {
                path,
                source,
                size: metadata.len(),
            }),
            Err(reason) => self.refuse(&path, &reason),
        }
    }

    fn refuse(&mut self, path: &str, reason: &str) {
        self.refused.push(format!("{path:?} {reason}"));
    }
}

/// A plain file that can be opened. Its kind comes first: to open a pipe would wait for its writer.
fn readable(source: &Path) -> Result<Metadata, String> {
    use std::os::unix::fs::FileTypeExt as _;
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let metadata = fs::metadata(source).map_err(cannot)?;
    let kind = metadata.file_type();
    if kind.is_file() {
        return File::open(source).map(|_| metadata).map_err(cannot);
    }
    let name = match () {
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "neither a file nor a folder",
    };
    Err(format!("is {name}"))
}

fn list(refused: &[String]) -> String {
    let mut text = String::new();
    for line in refused.iter().take(LISTED) {
        write!(text, "\n    {line}").expect("writing to a string cannot fail");
    }
    if let Some(more @ 1..) = refused.len().checked_sub(LISTED) {
        write!(text, "\n    and {more} more").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn refusal(folder: &Path) -> String {
        look_through(folder).unwrap_err().to_string()
    }

    #[test]
    fn files_come_in_order_with_links_read_as_files_and_some_left_out() {
        let site = folder(&[
            ("b/c.css", "x"),
            ("a.html", ""),
            (".git/config", "secret"),
            ("b/.DS_Store", "x"),
            (".well-known/x", "1"),
        ]);
        symlink("b/c.css", site.path().join("z.css")).unwrap();
        let found = look_through(site.path()).unwrap();
        let paths: Vec<&str> = found.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".well-known/x", "a.html", "b/c.css", "z.css"]);
        assert_eq!(found.skipped, [".git", "b/.DS_Store"]);
        assert_eq!(found.bytes(), 3);
    }

    #[test]
    fn links_out_of_the_folder_into_what_is_skipped_and_to_folders_are_refused_by_name() {
        let outside = folder(&[("secret", "x")]);
        let site = folder(&[("a.html", "x"), (".git/config", "x"), ("d/e", "x")]);
        symlink(outside.path().join("secret"), site.path().join("out")).unwrap();
        symlink(".git/config", site.path().join("history")).unwrap();
        symlink("d", site.path().join("loop")).unwrap();
        symlink("nowhere", site.path().join("dangling")).unwrap();
        let text = refusal(site.path());
        for words in [
            "\"out\" is a link out of the folder, to",
            "secret",
            "\"history\" is a link to .git/config",
            "the folder d",
            "link to nowhere",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn pipes_sockets_devices_and_odd_names_are_refused_together() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;
        let site = folder(&[("a.html", "x"), ("back\\slash", "x")]);
        nix::unistd::mkfifo(&site.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(site.path().join("socket")).unwrap();
        fs::write(site.path().join(OsStr::from_bytes(b"bad\xff")), "x").unwrap();
        let text = refusal(site.path());
        for words in [
            "\"pipe\" is a named pipe",
            "\"socket\" is a socket",
            "not UTF-8",
            "backslash",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn missing_empty_and_plain_file_are_told_apart() {
        let site = folder(&[("file", "x")]);
        assert!(refusal(&site.path().join("none")).contains("none"));
        assert!(refusal(&site.path().join("file")).contains("not a folder"));
        fs::remove_file(site.path().join("file")).unwrap();
        assert!(refusal(site.path()).contains("no files"));
    }

    #[test]
    fn twins_by_case_are_named_and_taken() {
        let site = folder(&[("Logo.svg", "1"), ("logo.svg", "2")]);
        assert_eq!(
            look_through(site.path()).unwrap().case_twins(),
            [("Logo.svg", "logo.svg")]
        );
    }

    #[test]
    fn at_most_twenty_bad_files_are_listed() {
        let refused: Vec<String> = (0..23).map(|n| format!("file {n}")).collect();
        let text = list(&refused);
        assert!(
            text.ends_with("and 3 more") && text.contains("file 19") && !text.contains("file 20"),
            "{text}"
        );
    }
}
