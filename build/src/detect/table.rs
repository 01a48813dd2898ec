//! The table of frameworks: `frameworks.toml`, read once.
//!
//! Pure: it looks only at what it is given.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::Deserialize;

use super::files::{Files, join};

/// The rows, in the order in which they are tried.
static TABLE: LazyLock<Vec<Framework>> = LazyLock::new(|| {
    let table: Table =
        toml::from_str(include_str!("frameworks.toml")).expect("a test reads the table");
    table.framework
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    framework: Vec<Framework>,
}

/// What is known of one framework.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Framework {
    /// Its name in settings.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// Packages of which one shows it.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Packages that have to be there as well.
    #[serde(default)]
    pub all: Vec<String>,
    /// Packages that show that it is something else.
    #[serde(default)]
    pub not: Vec<String>,
    /// Files of which one shows it.
    #[serde(default)]
    pub files: Vec<String>,
    /// Texts in files of which one shows it.
    #[serde(default)]
    pub contents: Vec<Content>,
    /// Shell line that builds it, where the project has no script of its own.
    pub build: Option<String>,
    /// Shell line that installs what it needs, where that is no package manager's.
    pub install: Option<String>,
    /// Where what is deployed may be, in the order in which it is looked for.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Starts of the paths, within the output, whose files never change under their names.
    #[serde(default)]
    pub immutable: Vec<String>,
    /// Where it keeps what it has worked out and would use again, within the project.
    #[serde(default)]
    pub caches: Vec<String>,
    /// Start of the names of variables that end up in what is built.
    pub env_prefix: Option<String>,
    /// A program that has to be installed with the worker.
    pub tool: Option<String>,
    /// Whether it needs a server for what it answers.
    #[serde(default)]
    pub server: bool,
}

/// A file, and a text that it has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Within the project.
    pub file: String,
    /// Anywhere in it.
    pub text: String,
}

/// All of them.
#[must_use]
pub fn all() -> &'static [Framework] {
    &TABLE
}

/// The one of that name.
#[must_use]
pub fn named(slug: &str) -> Option<&'static Framework> {
    TABLE.iter().find(|framework| framework.slug == slug)
}

/// The first that the project in folder `root` shows, which depends on `packages`.
#[must_use]
pub fn first(
    files: &impl Files,
    root: &str,
    packages: &BTreeSet<String>,
) -> Option<&'static Framework> {
    TABLE
        .iter()
        .find(|framework| framework.is_shown(files, root, packages))
}

impl Framework {
    fn is_shown(&self, files: &impl Files, root: &str, packages: &BTreeSet<String>) -> bool {
        let has = |package: &String| packages.contains(package);
        if !self.all.iter().all(has) || self.not.iter().any(has) {
            return false;
        }
        let holds = |content: &Content| {
            files
                .read(&join(root, &content.file))
                .is_some_and(|text| text.contains(&content.text))
        };
        self.packages.iter().any(has)
            || self.files.iter().any(|file| files.has(&join(root, file)))
            || self.contents.iter().any(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_and_each_row_can_hold() {
        let mut slugs = BTreeSet::new();
        for framework in all() {
            assert!(slugs.insert(&framework.slug), "{} twice", framework.slug);
            let shown = framework.packages.len() + framework.files.len() + framework.contents.len();
            assert!(shown > 0, "{} is shown by nothing", framework.slug);
            assert!(
                framework.server || framework.build.is_some() && !framework.outputs.is_empty(),
                "{} has no build or no output",
                framework.slug
            );
        }
        assert!(slugs.len() >= 75, "{}", slugs.len());
    }
}
