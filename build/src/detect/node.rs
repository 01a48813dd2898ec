//! Which Node a project is built with.
//!
//! Pure: it looks only at what it is given.

use super::files::{Files, join};
use super::manifest::Manifest;
use super::semver::Range;

/// What projects get that ask for nothing, or for a range with it: what is in long-term support.
pub const DEFAULT_MAJOR: u64 = 24;
/// The oldest and the newest that there is.
pub const MAJORS: core::ops::RangeInclusive<u64> = 16..=26;

/// Which Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its major.
    pub major: u64,
    /// What it has to be within the major.
    pub range: Range,
    /// What asks for it; none for the default.
    pub asked_by: Option<String>,
}

/// Names of the majors that were in long-term support.
const NAMES: &[(&str, u64)] = &[
    ("gallium", 16),
    ("hydrogen", 18),
    ("iron", 20),
    ("jod", 22),
    ("krypton", 24),
];

/// Looks in each folder, the project's first.
#[must_use]
pub fn find(files: &impl Files, folders: &[&str], notes: &mut Vec<String>) -> Node {
    for (by, text) in folders.iter().flat_map(|folder| wishes(files, folder)) {
        match range(&text) {
            Some(range) => match pick(&range) {
                Some(major) => {
                    return Node {
                        major,
                        range: range.within(major),
                        asked_by: Some(format!("{by}: {text}")),
                    };
                }
                None => notes.push(format!(
                    "{by} asks for Node {text}, which there is none of: {} to {} can be had",
                    MAJORS.start(),
                    MAJORS.end()
                )),
            },
            None => notes.push(format!("{by} says {text:?}, which names no Node")),
        }
    }
    Node {
        major: DEFAULT_MAJOR,
        range: Range::major(DEFAULT_MAJOR),
        asked_by: None,
    }
}

/// Where each wish of a folder stands, and what it says.
fn wishes(files: &impl Files, folder: &str) -> Vec<(String, String)> {
    let mut wishes = Vec::new();
    for name in [".node-version", ".nvmrc"] {
        let path = join(folder, name);
        if let Some(text) = files.read(&path) {
            let lines = text
                .lines()
                .map(|line| line.split('#').next().unwrap_or_default().trim());
            let line = lines.into_iter().find(|line| !line.is_empty());
            wishes.extend(line.map(|line| (path, line.to_owned())));
        }
    }
    let path = join(folder, ".tool-versions");
    if let Some(text) = files.read(&path) {
        let line = text.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            matches!(words.next(), Some("nodejs" | "node")).then(|| words.next())?
        });
        wishes.extend(line.map(|line| (path, line.to_owned())));
    }
    let path = join(folder, "package.json");
    let manifest = files
        .read(&path)
        .and_then(|text| Manifest::read(&text).ok());
    for fields in [["volta", "node"], ["engines", "node"]] {
        let text = manifest
            .as_ref()
            .and_then(|manifest| manifest.text(&fields));
        let by = format!("{} in {path}", fields.join("."));
        wishes.extend(text.map(|text| (by, text.to_owned())));
    }
    wishes
}

/// A wish, in all the ways in which version managers let one write it.
fn range(text: &str) -> Option<Range> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "node" | "current" | "latest" => Some(Range::major(*MAJORS.end())),
        "lts" | "lts/*" | "lts/-0" => Some(Range::major(DEFAULT_MAJOR)),
        name => {
            let name = name.strip_prefix("lts/").unwrap_or(name);
            let named = NAMES.iter().find(|(known, _)| *known == name);
            named
                .map(|(_, major)| Range::major(*major))
                .or_else(|| text.parse().ok())
        }
    }
}

/// The default where it will do, else the newest even major, else the newest.
fn pick(range: &Range) -> Option<u64> {
    let fits = |major: &u64| range.touches(*major);
    Some(DEFAULT_MAJOR)
        .filter(fits)
        .or_else(|| MAJORS.rev().filter(|major| major % 2 == 0).find(fits))
        .or_else(|| MAJORS.rev().find(fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::files::Written;

    fn major(files: &[(&str, &str)]) -> (u64, usize) {
        let mut notes = Vec::new();
        let node = find(&Written::new(files), &["app", ""], &mut notes);
        (node.major, notes.len())
    }

    #[test]
    fn the_nearest_and_most_exact_wish_counts() {
        let engines = |range: &str| format!(r#"{{"engines": {{"node": "{range}"}}}}"#);
        for (range, expected) in [
            (">=18", 24),
            ("18.x || 20.x", 20),
            ("^19", 19),
            ("<21", 20),
            ("25", 25),
        ] {
            assert_eq!(
                major(&[("package.json", &engines(range))]),
                (expected, 0),
                "{range}"
            );
        }
        assert_eq!(
            major(&[(".nvmrc", "v20.11.1\n"), ("package.json", &engines("18"))]),
            (20, 0)
        );
        assert_eq!(
            major(&[("app/.nvmrc", "# ours\nlts/jod\n"), (".nvmrc", "18")]),
            (22, 0)
        );
        assert_eq!(
            major(&[(".tool-versions", "ruby 3\nnodejs 22.1.0\n")]),
            (22, 0)
        );
        assert_eq!(major(&[]), (DEFAULT_MAJOR, 0));
    }

    #[test]
    fn a_range_is_cut_to_the_major_that_was_chosen() {
        let files = Written::new(&[("package.json", r#"{"engines": {"node": ">=20.5 || 18"}}"#)]);
        let node = find(&files, &[""], &mut Vec::new());
        let holds = |text: &str| node.range.holds(text.parse().unwrap());
        assert_eq!(node.major, 24);
        assert!(holds("24.0.0") && holds("24.9.9"));
        assert!(!holds("26.1.0") && !holds("22.0.0") && !holds("18.0.0"));
    }

    #[test]
    fn what_cannot_be_had_is_said_and_passed_over() {
        assert_eq!(
            major(&[(".nvmrc", "4"), (".node-version", "banana")]),
            (DEFAULT_MAJOR, 2)
        );
    }
}
