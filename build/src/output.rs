//! What a build left: found, looked through, and searched for secrets, before any of it leaves this machine.
//!
//! Links that lead out, devices, pipes, names that cannot be served, and more than a release can have are refused, with the file's
//! name. What is in the Build Output API's form is handed over as it is, under its own folder.

use std::fs;
use std::io;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use helix_client::upload::built;
use helix_client::upload::folder::{self, FolderError, LocalFile};

use crate::detect::BUILD_OUTPUT;
use crate::fetch::LFS_POINTER;
use crate::log::mask::Mask;
use crate::log::scan;

/// Bytes of all files together: what a release of the largest sites has, ten times.
pub const MAX_OUTPUT_BYTES: u64 = 20 << 30;
/// A pointer to a large file is shorter.
const MAX_POINTER_BYTES: u64 = 1024;
/// Bad files that are named before the rest is only counted.
const NAMED: usize = 10;

/// The output is not one that can be deployed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// None of the folders is there.
    #[error("the build left no output: there is no folder {}", list(looked_for))]
    Missing {
        /// Where it was looked for.
        looked_for: Vec<String>,
    },
    /// The folder leads elsewhere.
    #[error("the output folder {folder:?} leads out of the project")]
    Outside {
        /// Which.
        folder: String,
    },
    /// Something in it cannot be deployed.
    #[error("look through the output folder {folder:?}")]
    Folder {
        /// Which.
        folder: String,
        /// What.
        #[source]
        source: FolderError,
    },
    /// Too much of it.
    #[error(
        "the output has {bytes} bytes, more than the {MAX_OUTPUT_BYTES} that a release may have"
    )]
    TooLarge {
        /// How much.
        bytes: u64,
    },
    /// Files that stand for others which were not fetched.
    #[error(
        "these files are pointers of git LFS, not the files themselves, which are not fetched: {}",
        list(files)
    )]
    Pointers {
        /// Which.
        files: Vec<String>,
    },
    /// A secret is in it.
    #[error(
        "file {file} has the value of the secret {name} in it, where every visitor could read it"
    )]
    Secret {
        /// Which file.
        file: String,
        /// Which variable.
        name: String,
    },
    /// It cannot be read.
    #[error("read output file {file}")]
    Read {
        /// Which file.
        file: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What is deployed.
#[derive(Debug)]
pub struct Output {
    /// The folder it was found in, from the project's.
    pub folder: String,
    /// Its files, in order of path.
    pub files: Vec<LocalFile>,
    /// What somebody should know.
    pub notes: Vec<String>,
}

impl Output {
    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Looks for the output in each of `folders` of the project in folder `root` of `source`, and through the first that is there.
///
/// # Errors
/// As [`OutputError`] says.
pub fn collect(
    source: &Path,
    root: &str,
    folders: &[String],
    mask: &Mask,
) -> Result<Output, OutputError> {
    let project = inside(source, root).ok_or_else(|| OutputError::Outside {
        folder: root.to_owned(),
    })?;
    let folder = folders.iter().find(|folder| is_output(&project, folder));
    let folder = folder.ok_or_else(|| OutputError::Missing {
        looked_for: folders.to_vec(),
    })?;
    let path = inside(&project, folder).ok_or_else(|| OutputError::Outside {
        folder: folder.clone(),
    })?;
    let looked = if folder == BUILD_OUTPUT {
        built::look_through(&project)
    } else {
        folder::look_through(&path)
    };
    let looked = looked.map_err(|source| OutputError::Folder {
        folder: folder.clone(),
        source,
    })?;
    let mut notes: Vec<String> = looked
        .case_twins()
        .into_iter()
        .take(NAMED)
        .map(|(one, other)| {
            format!("{one} and {other} differ in case alone; each is served under its exact name")
        })
        .collect();
    if !looked.skipped.is_empty() {
        notes.push(format!("left out: {}", list(&looked.skipped)));
    }
    let bytes = looked.bytes();
    if bytes > MAX_OUTPUT_BYTES {
        return Err(OutputError::TooLarge { bytes });
    }
    let files = looked.files;
    search(&files, mask)?;
    Ok(Output {
        folder: folder.clone(),
        files,
        notes,
    })
}

fn is_output(project: &Path, folder: &str) -> bool {
    let path = project.join(folder);
    if folder == BUILD_OUTPUT {
        return path.join("config.json").is_file();
    }
    path.is_dir()
}

/// Where the folder really is, if within the project.
fn inside(project: &Path, folder: &str) -> Option<PathBuf> {
    let project = fs::canonicalize(project).ok()?;
    let path = fs::canonicalize(project.join(folder)).ok()?;
    path.starts_with(&project).then_some(path)
}

fn search(files: &[LocalFile], mask: &Mask) -> Result<(), OutputError> {
    let mut pointers = Vec::new();
    for file in files {
        let failed = |source| OutputError::Read {
            file: file.path.clone(),
            source,
        };
        if file.size <= MAX_POINTER_BYTES && is_pointer(&file.source).map_err(failed)? {
            pointers.push(file.path.clone());
        }
        if let Some(name) = scan::scan(mask, &file.source).map_err(failed)? {
            return Err(OutputError::Secret {
                file: file.path.clone(),
                name,
            });
        }
    }
    if pointers.is_empty() {
        Ok(())
    } else {
        Err(OutputError::Pointers { files: pointers })
    }
}

fn is_pointer(file: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    fs::File::open(file)?
        .take(LFS_POINTER.len() as u64)
        .read_to_end(&mut start)?;
    Ok(start == LFS_POINTER)
}

fn list(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(NAMED)
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(NAMED) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn project(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn collected(project: &Path, folders: &[&str]) -> Result<Output, OutputError> {
        let folders: Vec<String> = folders.iter().map(|&folder| folder.to_owned()).collect();
        collect(
            project,
            "",
            &folders,
            &Mask::new([("API_KEY", "hunter22-hunter22")]),
        )
    }

    #[test]
    fn the_first_folder_that_is_there_counts_and_build_output_keeps_its_prefix() {
        let site = project(&[("dist/index.html", b"x"), ("out/a", b"x")]);
        let output = collected(site.path(), &[BUILD_OUTPUT, "dist", "out"]).unwrap();
        assert_eq!(
            (output.folder.as_str(), output.files[0].path.as_str()),
            ("dist", "index.html")
        );
        let site = project(&[
            (".vercel/output/config.json", b"{}"),
            (".vercel/output/static/a.js", b"x"),
            ("dist/a", b"x"),
        ]);
        let output = collected(site.path(), &[BUILD_OUTPUT, "dist"]).unwrap();
        let paths: Vec<&str> = output.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [".vercel/output/config.json", ".vercel/output/static/a.js"]
        );
    }

    #[test]
    fn what_is_missing_empty_or_elsewhere_is_named() {
        let site = project(&[("src/x", b"x")]);
        let error = collected(site.path(), &["dist", "build"]).unwrap_err();
        assert!(error.to_string().contains("\"dist\", \"build\""), "{error}");
        fs::create_dir(site.path().join("dist")).unwrap();
        assert!(matches!(
            collected(site.path(), &["dist"]),
            Err(OutputError::Folder { .. })
        ));
        let outside = project(&[("passwd", b"x")]);
        symlink(outside.path(), site.path().join("build")).unwrap();
        assert!(matches!(
            collected(site.path(), &["build"]),
            Err(OutputError::Outside { .. })
        ));
        symlink(outside.path(), site.path().join("app")).unwrap();
        let elsewhere = collect(site.path(), "app", &[String::new()], &Mask::new([]));
        assert!(matches!(elsewhere, Err(OutputError::Outside { .. })));
        symlink(outside.path().join("passwd"), site.path().join("dist/link")).unwrap();
        let error = collected(site.path(), &["dist"]).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            cause.contains("\"link\" is a link out of the folder"),
            "{cause}"
        );
    }

    #[test]
    fn secrets_and_pointers_are_named_and_secrets_not_shown() {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode("x hunter22-hunter22 y");
        let site = project(&[("dist/app.js", format!("var a = \"{encoded}\"").as_bytes())]);
        let error = collected(site.path(), &["dist"]).unwrap_err().to_string();
        assert!(
            error.contains("app.js") && error.contains("API_KEY") && !error.contains("hunter"),
            "{error}"
        );
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
        let site = project(&[("dist/film.mp4", pointer)]);
        let error = collected(site.path(), &["dist"]).unwrap_err().to_string();
        assert!(
            error.contains("film.mp4") && error.contains("LFS"),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_three_gigabytes_and_too_many_files_are_refused() {
        let site = project(&[("dist/a", b"x")]);
        fs::File::create(site.path().join("dist/film.mp4"))
            .unwrap()
            .set_len(3 << 30)
            .unwrap();
        let error = collected(site.path(), &["dist"]).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            cause.contains("film.mp4") && cause.contains("3221225472 bytes"),
            "{cause}"
        );
    }
}
