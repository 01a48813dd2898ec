//! Which package manager a project is installed with, in which version, and by which shell line.
//!
//! Pure: it looks only at what it is given. A lockfile is always kept to: what it does not say is not installed.

use core::fmt;

use super::files::{Files, join};
use super::manifest::Manifest;
use super::semver::Range;

/// A package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// npm.
    Npm,
    /// pnpm.
    Pnpm,
    /// Yarn 1.
    YarnClassic,
    /// Yarn 2 and later.
    YarnBerry,
    /// Bun.
    Bun,
    /// Deno.
    Deno,
}

/// The one that a project uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Which.
    pub kind: Kind,
    /// Which of its versions; any that suits if left out.
    pub version: Option<Range>,
    /// Path of the lockfile from the repository's root.
    pub lockfile: Option<String>,
}

/// Lockfiles and what writes them, in the order in which they count where there are several.
const LOCKFILES: &[(&str, Kind)] = &[
    ("pnpm-lock.yaml", Kind::Pnpm),
    ("yarn.lock", Kind::YarnClassic),
    ("bun.lock", Kind::Bun),
    ("bun.lockb", Kind::Bun),
    ("package-lock.json", Kind::Npm),
    ("npm-shrinkwrap.json", Kind::Npm),
    ("deno.lock", Kind::Deno),
];

impl Kind {
    /// The program's name.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::YarnClassic | Self::YarnBerry => "yarn",
            Self::Bun => "bun",
            Self::Deno => "deno",
        }
    }

    /// Shell line that installs, and keeps to the lockfile if there is one.
    #[must_use]
    pub const fn install(self, locked: bool) -> &'static str {
        match (self, locked) {
            (Self::Npm, true) => "npm ci",
            (Self::Npm, false) => "npm install",
            (Self::Pnpm, true) => "pnpm install --frozen-lockfile",
            (Self::Pnpm, false) => "pnpm install --no-frozen-lockfile",
            (Self::YarnClassic, true) => "yarn install --frozen-lockfile",
            (Self::YarnBerry, true) => "yarn install --immutable",
            (Self::YarnClassic, false) => "yarn install",
            (Self::YarnBerry, false) => "yarn install --no-immutable",
            (Self::Bun, true) => "bun install --frozen-lockfile",
            (Self::Bun, false) => "bun install",
            (Self::Deno, true) => "deno install --frozen",
            (Self::Deno, false) => "deno install",
        }
    }

    /// Shell line that runs a script of the project.
    #[must_use]
    pub fn run(self, script: &str) -> String {
        match self {
            Self::Deno => format!("deno task {script}"),
            Self::Npm | Self::Pnpm | Self::YarnClassic | Self::YarnBerry | Self::Bun => {
                format!("{} run {script}", self.program())
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::YarnClassic => "yarn 1",
            Self::YarnBerry => "yarn",
            Self::Bun => "bun",
            Self::Deno => "deno",
        })
    }
}

/// Looks in each folder, the project's first, for what names a package manager. None where nothing is to be installed.
#[must_use]
pub fn find(files: &impl Files, folders: &[&str], notes: &mut Vec<String>) -> Option<Manager> {
    let mut manifests = folders.iter().filter_map(|folder| {
        let text = files.read(&join(folder, "package.json"))?;
        Manifest::read(&text).ok()
    });
    let asked = manifests.find_map(|manifest| asked_for(&manifest, notes));
    let locked = folders
        .iter()
        .find_map(|folder| lockfile(files, folder, notes));
    match (asked, locked) {
        (Some(mut asked), locked) => {
            let fits = |(kind, path): (Kind, String)| {
                (kind.program() == asked.kind.program()).then_some(path)
            };
            asked.lockfile = locked.and_then(fits).or_else(|| {
                folders
                    .iter()
                    .find_map(|folder| lockfile_of(files, folder, asked.kind))
            });
            Some(asked)
        }
        (None, Some((kind, path))) => Some(Manager {
            kind,
            version: version_of(files, kind, &path),
            lockfile: Some(path),
        }),
        (None, None) => without_lockfile(files, folders),
    }
}

/// What `packageManager` or `devEngines` name.
fn asked_for(manifest: &Manifest, notes: &mut Vec<String>) -> Option<Manager> {
    let (name, version) = match manifest.text(&["packageManager"]) {
        Some(text) => text.rsplit_once('@').unwrap_or((text, "")),
        None => (
            manifest.text(&["devEngines", "packageManager", "name"])?,
            manifest
                .text(&["devEngines", "packageManager", "version"])
                .unwrap_or_default(),
        ),
    };
    let version: Option<Range> = version.parse().ok().filter(|_| !version.is_empty());
    let kind = match name {
        "npm" => Kind::Npm,
        "pnpm" => Kind::Pnpm,
        "yarn" if version.as_ref().is_none_or(|wish| wish.touches(1)) => Kind::YarnClassic,
        "yarn" => Kind::YarnBerry,
        "bun" => Kind::Bun,
        "deno" => Kind::Deno,
        other => {
            notes.push(format!(
                "packageManager names {other:?}, which is not known; the lockfile decides"
            ));
            return None;
        }
    };
    Some(Manager {
        kind,
        version,
        lockfile: None,
    })
}

fn lockfile(files: &impl Files, folder: &str, notes: &mut Vec<String>) -> Option<(Kind, String)> {
    let mut found = LOCKFILES
        .iter()
        .filter(|(name, _)| files.has(&join(folder, name)));
    let (name, kind) = found.next()?;
    let others: Vec<&str> = found
        .filter(|(_, other)| other != kind)
        .map(|(name, _)| *name)
        .collect();
    if !others.is_empty() {
        notes.push(format!(
            "{name} counts, {} does not; say which with packageManager in package.json",
            others.join(", ")
        ));
    }
    let path = join(folder, name);
    let kind = match kind {
        Kind::YarnClassic if is_berry(files, &path) => Kind::YarnBerry,
        kind => *kind,
    };
    Some((kind, path))
}

/// The lockfile of one package manager, where another's comes before it.
fn lockfile_of(files: &impl Files, folder: &str, kind: Kind) -> Option<String> {
    LOCKFILES
        .iter()
        .filter(|(_, other)| other.program() == kind.program())
        .map(|(name, _)| join(folder, name))
        .find(|path| files.has(path))
}

fn is_berry(files: &impl Files, lockfile: &str) -> bool {
    files
        .read(lockfile)
        .is_some_and(|text| text.contains("__metadata:"))
}

/// Which version writes lockfiles such as this one.
fn version_of(files: &impl Files, kind: Kind, lockfile: &str) -> Option<Range> {
    let range = match kind {
        Kind::Pnpm => {
            let text = files.read(lockfile)?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("lockfileVersion:"))?;
            match line.trim().trim_matches(['\'', '"']) {
                "5.3" => "6",
                "5.4" => "7",
                version if version.starts_with("6.") => "8",
                version if version.starts_with("9.") => "10",
                _ => return None,
            }
        }
        Kind::YarnClassic => "1",
        Kind::YarnBerry => {
            let text = files.read(lockfile)?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("  version:"))?;
            match line.trim() {
                "4" | "5" => "2",
                "6" | "7" => "3",
                _ => "4",
            }
        }
        Kind::Npm | Kind::Bun | Kind::Deno => return None,
    };
    range.parse().ok()
}

fn without_lockfile(files: &impl Files, folders: &[&str]) -> Option<Manager> {
    let has = |name: &str| folders.iter().any(|folder| files.has(&join(folder, name)));
    let kind = if has("pnpm-workspace.yaml") {
        Kind::Pnpm
    } else if has("package.json") {
        Kind::Npm
    } else if has("deno.json") || has("deno.jsonc") {
        Kind::Deno
    } else {
        return None;
    };
    Some(Manager {
        kind,
        version: None,
        lockfile: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::files::Written;

    fn found(files: &[(&str, &str)]) -> Option<(Kind, Option<u64>, Option<String>)> {
        let manager = find(&Written::new(files), &[""], &mut Vec::new())?;
        let major = manager
            .version
            .and_then(|version| (0..30).find(|major| version.touches(*major)));
        Some((manager.kind, major, manager.lockfile))
    }

    #[test]
    fn the_manifest_counts_before_the_lockfile_and_the_lockfile_says_the_version() {
        let lock = |name: &str| Some(name.to_owned());
        for (files, expected) in [
            (vec![("package.json", "{}")], Some((Kind::Npm, None, None))),
            (
                vec![
                    ("package.json", "{}"),
                    ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n"),
                ],
                Some((Kind::Pnpm, Some(10), lock("pnpm-lock.yaml"))),
            ),
            (
                vec![
                    ("package.json", "{}"),
                    ("yarn.lock", "# yarn lockfile v1\n"),
                ],
                Some((Kind::YarnClassic, Some(1), lock("yarn.lock"))),
            ),
            (
                vec![
                    ("package.json", "{}"),
                    ("yarn.lock", "__metadata:\n  version: 8\n"),
                ],
                Some((Kind::YarnBerry, Some(4), lock("yarn.lock"))),
            ),
            (
                vec![
                    ("package.json", r#"{"packageManager": "npm@10.8.2"}"#),
                    ("pnpm-lock.yaml", ""),
                    ("package-lock.json", "{}"),
                ],
                Some((Kind::Npm, Some(10), lock("package-lock.json"))),
            ),
            (
                vec![(
                    "package.json",
                    r#"{"packageManager": "yarn@4.1.0+sha224.abc"}"#,
                )],
                Some((Kind::YarnBerry, Some(4), None)),
            ),
            (vec![("deno.json", "{}")], Some((Kind::Deno, None, None))),
            (
                vec![("bun.lock", "{}")],
                Some((Kind::Bun, None, lock("bun.lock"))),
            ),
            (vec![("index.html", "")], None),
        ] {
            assert_eq!(found(&files), expected, "{files:?}");
        }
    }

    #[test]
    fn what_is_odd_is_said() {
        let mut notes = Vec::new();
        let files = Written::new(&[
            ("package.json", r#"{"packageManager": "cnpm@1"}"#),
            ("yarn.lock", ""),
            ("package-lock.json", ""),
        ]);
        assert!(find(&files, &[""], &mut notes).is_some());
        assert!(
            notes[0].contains("cnpm") && notes[1].contains("package-lock.json"),
            "{notes:?}"
        );
    }
}
