//! Monorepos: which folder a project is installed in, and what else is in there.
//!
//! Pure: it looks only at what it is given.

use super::files::{Files, join, parent};
use super::manifest::Manifest;

/// Folders that are looked through for members: a monorepo of a thousand packages fits.
const MAX_VISITED: usize = 5_000;
/// How deep below the root members are looked for.
const MAX_DEPTH: usize = 5;

/// Folders of no project's own.
const SKIPPED: &[&str] = &["node_modules", ".git", "dist", "build", ".next"];

/// A folder whose packages are installed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workspace {
    /// The folder, from the repository's root.
    pub(super) root: String,
    /// Which folders within are members; those behind `!` are not.
    patterns: Vec<String>,
}

/// The workspace that the project in folder `project` is a member of, or whose root it is.
#[must_use]
pub(super) fn of(files: &impl Files, project: &str) -> Option<Workspace> {
    let mut folder = project;
    loop {
        if let Some(workspace) = at(files, folder) {
            let within = project[folder.len()..].trim_start_matches('/');
            if within.is_empty() || workspace.has(within) {
                return Some(workspace);
            }
        }
        folder = parent(folder)?;
    }
}

fn at(files: &impl Files, folder: &str) -> Option<Workspace> {
    let patterns = pnpm(files, folder).or_else(|| {
        let text = files.read(&join(folder, "package.json"))?;
        Manifest::read(&text).ok()?.workspaces()
    })?;
    Some(Workspace {
        root: folder.to_owned(),
        patterns,
    })
}

/// The patterns of `pnpm-workspace.yaml`, which is always a plain list where it is written by hand. Without one there are only settings.
fn pnpm(files: &impl Files, folder: &str) -> Option<Vec<String>> {
    let text = files.read(&join(folder, "pnpm-workspace.yaml"))?;
    let mut lines = text
        .lines()
        .skip_while(|line| !line.starts_with("packages:"));
    let inline = lines.next()?.trim_start_matches("packages:").trim();
    let item = |text: &str| {
        let text = text.trim().trim_matches(['\'', '"']);
        (!text.is_empty()).then(|| text.to_owned())
    };
    if let Some(list) = inline
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        return Some(list.split(',').filter_map(item).collect());
    }
    let lines = lines
        .map(|line| line.split(" #").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map_while(|line| line.strip_prefix('-'));
    Some(lines.filter_map(item).collect())
}

impl Workspace {
    /// Whether the folder `path` within it is a member.
    #[must_use]
    pub(super) fn has(&self, path: &str) -> bool {
        let tidy = |pattern: &str| {
            pattern
                .trim_start_matches("./")
                .trim_end_matches('/')
                .to_owned()
        };
        let mut is = false;
        for pattern in &self.patterns {
            match pattern.strip_prefix('!') {
                Some(pattern) if matches(&tidy(pattern), path) => is = false,
                None if matches(&tidy(pattern), path) => is = true,
                _ => {}
            }
        }
        is
    }

    /// Folders of its members, in order, from the repository's root.
    #[must_use]
    pub(super) fn members(&self, files: &impl Files) -> Vec<String> {
        let (mut waiting, mut found, mut visited) = (vec![(String::new(), 0)], Vec::new(), 0);
        while let Some((folder, depth)) = waiting.pop() {
            visited += 1;
            if visited > MAX_VISITED {
                break;
            }
            let whole = join(&self.root, &folder);
            if !folder.is_empty() && self.has(&folder) && files.has(&join(&whole, "package.json")) {
                found.push(whole.clone());
            }
            if depth < MAX_DEPTH {
                let names = files.folders(&whole).into_iter();
                let names = names.filter(|name| !SKIPPED.contains(&name.as_str()));
                waiting.extend(names.map(|name| (join(&folder, &name), depth + 1)));
            }
        }
        found.sort();
        found
    }
}

/// Whether a path fits a pattern: `*` is within one name, `**` any number of names.
fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    parts_match(&pattern, &path)
}

fn parts_match(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            parts_match(rest, path)
                || path
                    .split_first()
                    .is_some_and(|(_, path)| parts_match(pattern, path))
        }
        (Some((part, pattern)), Some((name, path))) => {
            name_matches(part, name) && parts_match(pattern, path)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    loop {
        if name_matches(rest, name) {
            return true;
        }
        let mut characters = name.chars();
        if characters.next().is_none() {
            return false;
        }
        name = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::files::Written;

    #[test]
    fn patterns_take_names_and_folders() {
        for (pattern, path, expected) in [
            ("packages/*", "packages/a", true),
            ("packages/*", "packages/a/b", false),
            ("packages/**", "packages/a/b", true),
            ("apps/web-*", "apps/web-shop", true),
            ("apps/*-web", "apps/shop-web", true),
            ("apps/web", "apps/web2", false),
            ("*", "a", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_project_belongs_to_the_workspace_that_names_it() {
        let files = Written::new(&[
            (
                "pnpm-workspace.yaml",
                "# all\npackages:\n  - 'apps/*'   # sites\n  - \"!apps/old\"\nother: 1\n",
            ),
            ("apps/web/package.json", "{}"),
            ("apps/old/package.json", "{}"),
            ("tools/x/package.json", "{}"),
            (
                "yarn/package.json",
                r#"{"workspaces": {"packages": ["a"]}}"#,
            ),
            ("yarn/a/package.json", "{}"),
        ]);
        let workspace = of(&files, "apps/web").unwrap();
        assert_eq!(workspace.root, "");
        assert_eq!(workspace.members(&files), ["apps/web"]);
        assert_eq!(of(&files, "apps/old"), None);
        assert_eq!(of(&files, "tools/x"), None);
        assert_eq!(of(&files, "yarn/a").unwrap().root, "yarn");
        assert_eq!(of(&files, "").unwrap().root, "");
    }
}
