//! What a build was made of: a bill of materials in CycloneDX 1.6 (ECMA-424), JSON.
//!
//! It lists what package managers have put into `node_modules`, whichever they are, or, where Yarn keeps packages as archives, what its
//! lockfile says; and the programs that the worker brought. The same source with the same packages has the same bill, byte for byte:
//! there is no time and no serial number in it. What packages say of themselves is theirs to say.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use helix_routing::api::MAX_MATERIALS_BYTES;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::toolchain::Tools;

/// Packages that are listed: the largest monorepos have some thousands.
const MAX_PACKAGES: usize = 20_000;
/// Folders that are looked into on the way to them.
const MAX_FOLDERS: usize = 200_000;
/// How deep below the project folders with packages are looked for.
const MAX_DEPTH: usize = 8;
/// Largest description of a package.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Largest lockfile.
const MAX_LOCKFILE_BYTES: u64 = 32 << 20;
/// The registry takes no longer name.
const MAX_NAME_BYTES: usize = 214;
/// Longest version and licence that are passed on.
const MAX_WORD_BYTES: usize = 128;
/// Where package managers keep packages under names of their own.
const STORES: [&str; 4] = [".bun", ".deno", ".pnpm", ".store"];

/// A package that was installed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    licence: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Materials {
    /// By their URLs, one each.
    packages: BTreeMap<String, Package>,
    /// Whether there is more than is listed.
    is_cut: bool,
}

#[derive(Deserialize)]
struct Manifest {
    name: String,
    version: String,
    #[serde(default)]
    license: Value,
}

impl Materials {
    /// Looks through a project after its packages were installed. What cannot be read is left out.
    #[must_use]
    pub fn collect(source: &Path) -> Self {
        let mut search = Search::default();
        search.project(source, 0);
        if search.found.packages.is_empty() {
            search.found.yarn(source);
        }
        search.found
    }

    /// How many packages.
    #[must_use]
    pub fn count(&self) -> usize {
        self.packages.len()
    }

    /// The bill of `project` at `commit`; none if it would be longer than is taken.
    #[must_use]
    pub fn bill(&self, project: &str, commit: &str, tools: &Tools) -> Option<String> {
        let packages = self.packages.values().map(Package::component);
        let programs = tools.versions.iter().map(|(name, version)| {
            let package = Package {
                name: name.clone(),
                version: version.to_string(),
                licence: None,
            };
            let mut component = package.component();
            component["type"] = Value::from("application");
            // It built, and is not in what was built.
            component["scope"] = Value::from("excluded");
            component["bom-ref"] = Value::from(format!("tool:{}", package.url()));
            component
        });
        let components: Vec<Value> = packages.chain(programs).collect();
        let aggregate = if self.is_cut { "incomplete" } else { "unknown" };
        let bill = json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "tools": {"components": [{"type": "application", "name": "helix-build", "version": env!("CARGO_PKG_VERSION")}]},
                "component": {"type": "application", "bom-ref": "project", "name": project, "version": commit},
            },
            "components": components,
            "compositions": [{"aggregate": aggregate, "assemblies": ["project"]}],
        });
        Some(bill.to_string()).filter(|bill| bill.len() <= MAX_MATERIALS_BYTES)
    }

    fn add(&mut self, package: Package) {
        let url = package.url();
        if self.packages.len() < MAX_PACKAGES {
            self.packages.entry(url).or_insert(package);
        } else {
            self.is_cut |= !self.packages.contains_key(&url);
        }
    }

    /// Yarn without `node_modules`: its lockfile has a line for each package, `resolution: "@a/b@npm:1.2.3"`.
    fn yarn(&mut self, source: &Path) {
        let text = read(&source.join("yarn.lock"), MAX_LOCKFILE_BYTES).unwrap_or_default();
        for line in text.lines() {
            let resolution = line.trim_start().strip_prefix("resolution: ");
            let resolved =
                resolution.and_then(|quoted| quoted.trim_matches('"').rsplit_once("@npm:"));
            if let Some((name, version)) = resolved {
                let package = Package::of(name, version, &Value::Null);
                package.into_iter().for_each(|package| self.add(package));
            }
        }
    }
}

impl Package {
    /// What it says it is, if it could be.
    fn of(name: &str, version: &str, licence: &Value) -> Option<Self> {
        let is_word = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_+~".contains(&byte))
                && !text.is_empty()
        };
        let parts: Vec<&str> = match name.strip_prefix('@') {
            Some(scoped) => scoped.splitn(2, '/').collect(),
            None => vec![name],
        };
        let named = name.len() <= MAX_NAME_BYTES
            && parts.len() == 1 + usize::from(name.starts_with('@'))
            && parts.iter().all(|part| is_word(part));
        let versioned = version.len() <= MAX_WORD_BYTES && is_word(version);
        let licence = licence.as_str().or_else(|| licence["type"].as_str());
        let licence = licence.filter(|text| {
            !text.is_empty() && text.len() <= MAX_WORD_BYTES && !text.chars().any(char::is_control)
        });
        (named && versioned).then(|| Self {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: licence.map(str::to_owned),
        })
    }

    /// Package URL (ECMA-427): `pkg:npm/%40scope/name@1.0.0`.
    fn url(&self) -> String {
        let version = self.version.replace('+', "%2B");
        format!("pkg:npm/{}@{version}", self.name.replacen('@', "%40", 1))
    }

    fn component(&self) -> Value {
        let url = self.url();
        let mut component = json!({
            "type": "library", "bom-ref": url, "name": self.name, "version": self.version, "purl": url,
        });
        if let Some((group, name)) = self.name.split_once('/') {
            component["group"] = Value::from(group);
            component["name"] = Value::from(name);
        }
        if let Some(licence) = &self.licence {
            component["licenses"] = json!([{"license": {"name": licence}}]);
        }
        component
    }
}

/// On the way through a project.
#[derive(Default)]
struct Search {
    found: Materials,
    folders: usize,
}

impl Search {
    /// A folder of the project's own.
    fn project(&mut self, folder: &Path, depth: usize) {
        for name in self.folders(folder) {
            match name.as_str() {
                ".git" => {}
                "node_modules" => self.modules(&folder.join(name)),
                _ if depth < MAX_DEPTH => self.project(&folder.join(name), depth + 1),
                _ => {}
            }
        }
    }

    /// A folder of packages.
    fn modules(&mut self, folder: &Path) {
        for name in self.folders(folder) {
            let below = folder.join(&name);
            if STORES.contains(&name.as_str()) {
                for kept in self.folders(&below) {
                    self.modules(&below.join(kept).join("node_modules"));
                }
            } else if name.starts_with('@') {
                for scoped in self.folders(&below) {
                    self.package(&below.join(scoped));
                }
            } else if !name.starts_with('.') {
                self.package(&below);
            }
        }
    }

    fn package(&mut self, folder: &Path) {
        let text = read(&folder.join("package.json"), MAX_MANIFEST_BYTES);
        let manifest = text.and_then(|text| serde_json::from_str::<Manifest>(&text).ok());
        let package = manifest
            .and_then(|manifest| Package::of(&manifest.name, &manifest.version, &manifest.license));
        package
            .into_iter()
            .for_each(|package| self.found.add(package));
        self.modules(&folder.join("node_modules"));
    }

    /// Names of the folders in a folder, no links among them; none once too many were looked into.
    fn folders(&mut self, folder: &Path) -> Vec<String> {
        self.folders += 1;
        if self.folders > MAX_FOLDERS {
            self.found.is_cut = true;
            return Vec::new();
        }
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut names: Vec<String> = folders
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        // Which are left out when there are too many is not for chance.
        names.sort_unstable();
        names
    }
}

/// A regular file that is not too long. A build made it: it may be a pipe that nobody writes to, or a link out.
fn read(path: &Path, most: u64) -> Option<String> {
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    let file = options.open(path).ok()?;
    let kind = file.metadata().ok()?;
    if !kind.is_file() || kind.len() > most {
        return None;
    }
    let mut text = String::new();
    file.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn urls(materials: &Materials) -> Vec<&str> {
        materials.packages.keys().map(String::as_str).collect()
    }

    #[test]
    fn packages_are_found_however_they_were_installed() {
        let root = tempfile::tempdir().unwrap();
        let package = |path: &str, name: &str| {
            let text = format!(r#"{{"name": "{name}", "version": "1.0.0+b", "license": "MIT"}}"#);
            write(root.path(), &format!("{path}/package.json"), &text);
        };
        package("node_modules/a", "a");
        package("node_modules/a/node_modules/@s/b", "@s/b");
        package("apps/web/node_modules/.pnpm/c@1/node_modules/c", "c");
        package("node_modules/a/fixtures/d", "d");
        package("lib", "own");
        std::os::unix::fs::symlink("a", root.path().join("node_modules/link")).unwrap();
        let found = Materials::collect(root.path());
        assert_eq!(
            urls(&found),
            [
                "pkg:npm/%40s/b@1.0.0%2Bb",
                "pkg:npm/a@1.0.0%2Bb",
                "pkg:npm/c@1.0.0%2Bb"
            ]
        );
        let bill: Value =
            serde_json::from_str(&found.bill("shop", "c0ffee", &Tools::default()).unwrap())
                .unwrap();
        assert_eq!(bill["components"][0]["group"], "@s");
        assert_eq!(
            bill["components"][1]["licenses"][0]["license"]["name"],
            "MIT"
        );
        assert_eq!(bill["metadata"]["component"]["version"], "c0ffee");
    }

    #[test]
    fn archives_of_yarn_are_read_from_its_lockfile() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "yarn.lock",
            "\"@s/b@npm:^1.0.0\":\n  version: 1.2.0\n  resolution: \"@s/b@npm:1.2.0\"\n\"own@workspace:.\":\n  resolution: \"own@workspace:.\"\n",
        );
        assert_eq!(
            urls(&Materials::collect(root.path())),
            ["pkg:npm/%40s/b@1.2.0"]
        );
    }

    #[test]
    fn what_a_package_says_of_itself_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        for (at, text) in [
            "{\"name\": \"a b\", \"version\": \"1\"}",
            "{\"name\": \"a/../b\", \"version\": \"1\"}",
            "{\"name\": \"@s\", \"version\": \"1\"}",
            "{\"name\": \"a\", \"version\": \"1?x\"}",
            "{\"name\": \"a\"}",
            "[",
        ]
        .iter()
        .enumerate()
        {
            write(
                root.path(),
                &format!("node_modules/{at}/package.json"),
                text,
            );
        }
        write(
            root.path(),
            "secret",
            r#"{"name": "outside", "version": "1"}"#,
        );
        fs::create_dir_all(root.path().join("node_modules/x")).unwrap();
        std::os::unix::fs::symlink(
            "../../secret",
            root.path().join("node_modules/x/package.json"),
        )
        .unwrap();
        nix::unistd::mkfifo(
            &root.path().join("node_modules/package.json"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        assert_eq!(urls(&Materials::collect(root.path())), Vec::<&str>::new());
    }
}
