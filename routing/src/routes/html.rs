//! How pages are found by their path, as Cloudflare's static assets define it.
//!
//! Pure. A page is a file `stem.html` or `stem/index.html`. Each mode gives it one canonical path; the other
//! paths that people try for it are redirected there, unless that path means another file. A file whose
//! canonical path means another one is served under its own name.

use alloc::string::String;

use serde::{Deserialize, Serialize};

const INDEX: &str = "index.html";
const HTML: &str = ".html";

/// Which paths a page has, and which of them is the canonical one that the others redirect to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HtmlHandling {
    /// `/a` for `a.html`, `/a/` for `a/index.html`.
    #[default]
    AutoTrailingSlash,
    /// Always with a slash.
    ForceTrailingSlash,
    /// Always without.
    DropTrailingSlash,
    /// Only the exact name.
    None,
}

/// What a path gets that means no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotFoundHandling {
    /// The nearest `404.html`, with status 404.
    #[default]
    #[serde(rename = "404-page")]
    Page,
    /// `index.html`, with status 200, for pages of an application that routes by itself.
    #[serde(rename = "single-page-application")]
    SinglePageApplication,
    /// A plain 404.
    #[serde(rename = "none")]
    None,
}

/// The files of a release, by their path.
pub trait Files {
    /// One of them.
    type File: Copy;

    /// The file at exactly this path, without a slash at its start.
    fn file(&self, path: &str) -> Option<Self::File>;
}

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<F> {
    /// This file.
    File(F),
    /// The page whose canonical path this is: decoded, without the slash at its start.
    Redirect {
        /// The path.
        path: String,
        /// The page.
        file: F,
    },
}

impl<F> Found<F> {
    /// The file that is meant in the end.
    #[must_use]
    pub fn into_file(self) -> F {
        match self {
            Self::File(file) | Self::Redirect { file, .. } => file,
        }
    }
}

/// What `path`, decoded and without the slash at its start, means among `files`.
#[must_use]
pub fn find<S: Files>(files: &S, mode: HtmlHandling, path: &str) -> Option<Found<S::File>> {
    let exact = files.file(path);
    if mode == HtmlHandling::None || (exact.is_some() && !path.ends_with(HTML)) {
        return exact.map(Found::File);
    }
    let mut name = String::with_capacity(path.len() + "/index.html".len());
    for which in preference(mode, path) {
        which.write(path_stem(path), &mut name);
        // A page that is asked for by its own name is never taken for its neighbour.
        if exact.is_some() && name != path {
            continue;
        }
        let Some(file) = files.file(&name) else {
            continue;
        };
        if let Some(found) = at_its_place(files, mode, path, &name, file) {
            return Some(found);
        }
    }
    let served = || serves(files, mode, path, &mut name).map(Found::File);
    exact.map(Found::File).or_else(served)
}

/// The page `name`, if its canonical path leads to it: served when that is `path`, else redirected to.
fn at_its_place<S: Files>(
    files: &S,
    mode: HtmlHandling,
    path: &str,
    name: &str,
    file: S::File,
) -> Option<Found<S::File>> {
    let stem = path_stem(name);
    let slash = match mode {
        HtmlHandling::DropTrailingSlash => stem.is_empty(),
        HtmlHandling::ForceTrailingSlash => true,
        HtmlHandling::AutoTrailingSlash | HtmlHandling::None => is_index(name),
    };
    let mut canonical = String::with_capacity(stem.len() + 1);
    canonical.push_str(stem);
    if slash && !stem.is_empty() {
        canonical.push('/');
    }
    let mut served = String::with_capacity(name.len());
    serves(files, mode, &canonical, &mut served)?;
    if served != name {
        return None;
    }
    if canonical == path {
        return Some(Found::File(file));
    }
    // A path that is a file's own name means that file.
    files.file(&canonical).is_none().then_some(Found::Redirect {
        path: canonical,
        file,
    })
}

/// The page that `path` serves without a redirect; its name is left in `name`.
fn serves<S: Files>(
    files: &S,
    mode: HtmlHandling,
    path: &str,
    name: &mut String,
) -> Option<S::File> {
    let folder = path.is_empty() || path.ends_with('/');
    let stem = path.strip_suffix('/').unwrap_or(path);
    let tried: &[Page] = match (mode, folder) {
        (HtmlHandling::None, _) => &[],
        (HtmlHandling::AutoTrailingSlash, true) => &[Page::Index],
        (HtmlHandling::ForceTrailingSlash, true) => &[Page::Index, Page::Html],
        (HtmlHandling::DropTrailingSlash, true) if stem.is_empty() => &[Page::Index],
        (HtmlHandling::DropTrailingSlash, true) | (HtmlHandling::ForceTrailingSlash, false) => &[],
        (HtmlHandling::AutoTrailingSlash, false) => &[Page::Html],
        (HtmlHandling::DropTrailingSlash, false) => &[Page::Html, Page::Index],
    };
    tried.iter().find_map(|page| {
        page.write(stem, name);
        files.file(name)
    })
}

/// The two files that a stem has a page in.
#[derive(Clone, Copy)]
enum Page {
    Html,
    Index,
}

impl Page {
    /// Its name. The root has only an index; what is written for it otherwise names no file.
    fn write(self, stem: &str, name: &mut String) {
        name.clear();
        name.push_str(stem);
        match self {
            Self::Html if stem.is_empty() => {}
            Self::Html => name.push_str(HTML),
            Self::Index => {
                if !stem.is_empty() {
                    name.push('/');
                }
                name.push_str(INDEX);
            }
        }
    }
}

/// Which of a stem's pages a path means first.
fn preference(mode: HtmlHandling, path: &str) -> [Page; 2] {
    let folder = path.is_empty() || path.ends_with('/') || is_part(path, "index");
    if is_index(path) || (folder && mode != HtmlHandling::DropTrailingSlash) {
        [Page::Index, Page::Html]
    } else {
        [Page::Html, Page::Index]
    }
}

fn is_index(path: &str) -> bool {
    is_part(path, INDEX)
}

/// Whether the last part of `path` is `part`.
fn is_part(path: &str, part: &str) -> bool {
    path.strip_suffix(part)
        .is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// `path` without what tells the spellings of a page apart.
fn path_stem(path: &str) -> &str {
    for part in [INDEX, "index"] {
        if is_part(path, part) {
            let folder = &path[..path.len() - part.len()];
            return folder.strip_suffix('/').unwrap_or(folder);
        }
    }
    path.strip_suffix('/')
        .or_else(|| path.strip_suffix(HTML))
        .unwrap_or(path)
}

/// The nearest `404.html`, from the folder of `path` upwards.
#[must_use]
pub fn nearest_not_found_page<S: Files>(files: &S, path: &str) -> Option<S::File> {
    let mut name = String::with_capacity(path.len() + 8);
    let mut folder = path;
    loop {
        folder = folder.rfind('/').map_or("", |slash| &folder[..slash]);
        name.clear();
        name.push_str(folder);
        if !folder.is_empty() {
            name.push('/');
        }
        name.push_str("404.html");
        if let Some(file) = files.file(&name) {
            return Some(file);
        }
        if folder.is_empty() {
            return None;
        }
    }
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
