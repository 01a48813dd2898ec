//! Which Hugo a project is built with: it is no package of npm, and so nothing of a project's own brings it.
//!
//! Pure: it looks only at what it is given.

use super::files::{Files, join};
use super::semver::Range;
use super::table::Framework;

/// The variable of a project that names one, as hosts of sites have it.
pub const VARIABLE: &str = "HUGO_VERSION";
/// The program, and the framework's name in the table.
pub const TOOL: &str = "hugo";

/// The first of what the folders' files ask for; any for a project of Hugo's that asks for none, and none for another.
#[must_use]
pub fn find(
    files: &impl Files,
    folders: &[&str],
    framework: Option<&Framework>,
    notes: &mut Vec<String>,
) -> Option<Range> {
    for (by, text) in folders.iter().flat_map(|folder| wishes(files, folder)) {
        match range(&text) {
            Some(range) => return Some(range),
            None => notes.push(format!("{by} says {text:?}, which names no Hugo")),
        }
    }
    framework
        .is_some_and(|framework| framework.slug == TOOL)
        .then(Range::any)
}

/// `0.152.2`, or `extended_0.152.2`: there is no other than the extended one.
#[must_use]
pub fn range(text: &str) -> Option<Range> {
    let text = text.trim();
    text.strip_prefix("extended_").unwrap_or(text).parse().ok()
}

fn wishes(files: &impl Files, folder: &str) -> Vec<(String, String)> {
    let path = join(folder, ".hugo-version");
    let own = files.read(&path).map(|text| (path, text.trim().to_owned()));
    let path = join(folder, ".tool-versions");
    let listed = files.read(&path).and_then(|text| {
        let line = text.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            matches!(words.next(), Some("hugo" | "gohugo")).then(|| words.next())?
        });
        line.map(|word| (path, word.to_owned()))
    });
    own.into_iter().chain(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::files::Written;
    use crate::detect::semver::Version;
    use crate::detect::table;
    use std::collections::BTreeSet;

    fn found(files: &[(&str, &str)]) -> (Option<Range>, usize) {
        let (files, mut notes) = (Written::new(files), Vec::new());
        let framework = table::first(&files, "", &BTreeSet::new());
        (find(&files, &[""], framework, &mut notes), notes.len())
    }

    #[test]
    fn the_version_is_where_version_managers_look_for_it() {
        let exact = Some(Range::exactly(Version::new(0, 152, 2)));
        assert_eq!(found(&[(".hugo-version", "0.152.2\n")]), (exact.clone(), 0));
        assert_eq!(
            found(&[(".tool-versions", "nodejs 22\nhugo extended_0.152.2\n")]),
            (exact, 0)
        );
        assert_eq!(found(&[("hugo.toml", "")]), (Some(Range::any()), 0));
        assert_eq!(
            found(&[("hugo.toml", ""), (".hugo-version", "newest")]),
            (Some(Range::any()), 1)
        );
        assert_eq!(found(&[("index.html", "")]), (None, 0));
    }
}
