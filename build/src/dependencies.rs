//! What package managers have fetched and frameworks have worked out, kept from one build of a project to the next.
//!
//! A build works on a copy of its own, so whatever it does to it reaches no other. Only what is trusted writes: a build of the
//! default branch leaves its copy behind for those that come. Nothing is shared between projects. Packages are checked against the
//! lockfile by the package manager, whoever kept them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use helix_routing::api::Trust;
use helix_routing::id::{Commit, ProjectName};
use helix_service::digest::{Sha256, sha256_of};
use tokio::process::Command;

use crate::detect::manager::{Kind, Manager};
use crate::sandbox::disk;
use crate::toolchain::Tools;

/// Kept for each project and package manager: the newest, and one more for branches that are behind.
const KEPT: usize = 2;
/// What takes more is not kept.
const MAX_BYTES: u64 = 8 << 30;

/// The caches of this machine.
#[derive(Clone, Debug)]
pub struct Dependencies {
    folder: PathBuf,
}

/// What a cache is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    project: ProjectName,
    /// The package manager or framework.
    of: &'static str,
    hash: String,
}

/// What a build was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lent {
    /// What the same lockfile and programs left.
    Same,
    /// What others left: most of it will be of use.
    Older,
    /// Nothing: there is none yet, or it could not be copied.
    Nothing,
}

impl Key {
    /// Of a project's lockfile, if it has one, and the programs that read it.
    #[must_use]
    pub fn new(project: &ProjectName, kind: Kind, tools: &Tools, lockfile: Option<&Path>) -> Self {
        let mut sum = Sha256::new();
        sum.update(tools.described().as_bytes());
        sum.update(b"\0");
        sum.update(std::env::consts::ARCH.as_bytes());
        sum.update(b"\0");
        // One that cannot be read is as none.
        let read = lockfile.and_then(|path| sha256_of(&mut fs::File::open(path).ok()?).ok());
        sum.update(
            read.map_or_else(String::new, |digest| digest.to_string())
                .as_bytes(),
        );
        Self {
            project: project.clone(),
            of: kind.program(),
            hash: sum.finish().hex().to_owned(),
        }
    }
}

impl Key {
    /// Of what a framework has worked out for a commit.
    #[must_use]
    pub fn of_framework(project: &ProjectName, slug: &'static str, commit: &Commit) -> Self {
        Self {
            project: project.clone(),
            of: slug,
            hash: commit.to_string(),
        }
    }
}

/// What tells a package manager to use `folder` for what it fetches.
#[must_use]
pub fn variables(manager: &Manager, folder: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        variables.insert(name.to_owned(), value.to_owned());
    };
    // Scripts call npm whatever the package manager is.
    set("npm_config_cache", &format!("{folder}/npm"));
    for (name, value) in [
        ("audit", "false"),
        ("fund", "false"),
        ("update_notifier", "false"),
        ("progress", "false"),
    ] {
        set(&format!("npm_config_{name}"), value);
    }
    if manager.lockfile.is_some() {
        // Without one, what is kept would be older than what there is.
        set("npm_config_prefer_offline", "true");
    }
    match manager.kind {
        Kind::Npm => {}
        Kind::Pnpm => {
            set("npm_config_store_dir", &format!("{folder}/pnpm"));
            set("pnpm_config_store_dir", &format!("{folder}/pnpm"));
        }
        Kind::YarnClassic => set("YARN_CACHE_FOLDER", &format!("{folder}/yarn")),
        Kind::YarnBerry => {
            set("YARN_GLOBAL_FOLDER", &format!("{folder}/yarn"));
            set("YARN_ENABLE_TELEMETRY", "0");
        }
        Kind::Bun => set("BUN_INSTALL_CACHE_DIR", &format!("{folder}/bun")),
        Kind::Deno => set("DENO_DIR", &format!("{folder}/deno")),
    }
    variables
}

impl Dependencies {
    /// Caches below `folder`, which has to be on the same disk as the builds'.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Copies the best that there is to `into`, which is not there yet or empty.
    pub async fn lend(&self, key: &Key, into: &Path) -> Lent {
        let same = self.place(key);
        let (from, lent) = if same.is_dir() {
            (same, Lent::Same)
        } else {
            match newest(&self.of(key)).into_iter().next() {
                Some(older) => (older, Lent::Older),
                None => return Lent::Nothing,
            }
        };
        if copy(&from, into).await.is_ok() {
            return lent;
        }
        // Half of one is worse than none.
        let _ = fs::remove_dir_all(into);
        let _ = fs::create_dir(into);
        Lent::Nothing
    }

    /// Keeps what a build has in `from`, if it is trusted that far. What is kept under the same key stays. Whether it was kept.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn keep(&self, key: &Key, from: &Path, trust: Trust) -> io::Result<bool> {
        match trust {
            Trust::Fork | Trust::Branch => return Ok(false),
            Trust::Default => {}
        }
        // A build may have put a link in its place.
        let is_folder = fs::symlink_metadata(from).is_ok_and(|found| found.is_dir());
        let place = self.place(key);
        if !is_folder || place.exists() || disk::taken(from, MAX_BYTES) > MAX_BYTES {
            return Ok(false);
        }
        fs::create_dir_all(self.of(key))?;
        fs::rename(from, &place)?;
        for old in newest(&self.of(key)).into_iter().skip(KEPT) {
            fs::remove_dir_all(old)?;
        }
        Ok(true)
    }

    fn of(&self, key: &Key) -> PathBuf {
        self.folder.join(key.project.as_str()).join(key.of)
    }

    fn place(&self, key: &Key) -> PathBuf {
        self.of(key).join(&key.hash)
    }
}

/// Folders in a folder, the newest first.
fn newest(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// A copy that shares blocks where the file system can.
async fn copy(from: &Path, into: &Path) -> io::Result<()> {
    let status = Command::new("cp")
        .args(["--archive", "--reflink=auto", "--no-target-directory", "--"])
        .args([from, into])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("cp failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(project: &str, lockfile: &Path) -> Key {
        Key::new(
            &project.parse().unwrap(),
            Kind::Npm,
            &Tools::default(),
            Some(lockfile),
        )
    }

    #[tokio::test]
    async fn only_the_default_branch_writes_and_everybody_gets_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for lockfile in ["one", "two"] {
            fs::write(at(lockfile), lockfile).unwrap();
        }
        let caches = Dependencies::new(at("caches"));
        let one = key("shop", &at("one"));
        assert_eq!(caches.lend(&one, &at("a")).await, Lent::Nothing);
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/package"), "good").unwrap();
        for trust in [Trust::Fork, Trust::Branch] {
            assert!(!caches.keep(&one, &at("a"), trust).unwrap());
        }
        assert!(caches.keep(&one, &at("a"), Trust::Default).unwrap());

        assert_eq!(caches.lend(&one, &at("b")).await, Lent::Same);
        fs::write(at("b/package"), "poisoned").unwrap();
        assert_eq!(
            caches.lend(&key("shop", &at("two")), &at("c")).await,
            Lent::Older
        );
        assert_eq!(fs::read_to_string(at("c/package")).unwrap(), "good");
        assert!(!caches.keep(&one, &at("b"), Trust::Default).unwrap());
        assert_eq!(
            caches.lend(&key("other", &at("one")), &at("d")).await,
            Lent::Nothing
        );
        std::os::unix::fs::symlink("/etc", at("e")).unwrap();
        assert!(
            !caches
                .keep(&key("shop", &at("two")), &at("e"), Trust::Default)
                .unwrap()
        );
    }

    #[test]
    fn old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let caches = Dependencies::new(folder.path().join("caches"));
        for number in 0..4 {
            let (lockfile, from) = (folder.path().join("lock"), folder.path().join("from"));
            fs::write(&lockfile, number.to_string()).unwrap();
            fs::create_dir(&from).unwrap();
            assert!(
                caches
                    .keep(&key("shop", &lockfile), &from, Trust::Default)
                    .unwrap()
            );
        }
        assert_eq!(
            fs::read_dir(folder.path().join("caches/shop/npm"))
                .unwrap()
                .count(),
            KEPT
        );
    }
}
