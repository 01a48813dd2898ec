//! The file of a release that a path means.
//!
//! Pure. `/` and `dir/` mean their `index.html`; `dir` with such a file is sent on to `dir/`, since the
//! links in it are relative to that; everything else is exact.

use std::sync::Arc;

use super::path::{BadPath, decode};
use crate::release::{File, Release};

const INDEX: &str = "index.html";
const NOT_FOUND_PAGE: &str = "404.html";

/// What a path means in a release.
#[derive(Debug)]
pub enum Found {
    /// This file.
    File(Arc<File>),
    /// A folder with an index, named without its slash.
    Folder,
    /// Nothing, and this page says so, if the release has one.
    Nothing(Option<Arc<File>>),
}

/// What `path`, the path of a URL, means in `release`.
///
/// # Errors
/// When no file can have that path.
pub fn find(release: &Release, path: &str) -> Result<Found, BadPath> {
    let nothing = || Found::Nothing(release.file(NOT_FOUND_PAGE).cloned());
    let Some(name) = decode(path)? else {
        return Ok(nothing());
    };
    if name.is_empty() || name.ends_with('/') {
        return Ok(release
            .file(&format!("{name}{INDEX}"))
            .cloned()
            .map_or_else(nothing, Found::File));
    }
    if let Some(file) = release.file(&name) {
        return Ok(Found::File(Arc::clone(file)));
    }
    Ok(if release.file(&format!("{name}/{INDEX}")).is_some() {
        Found::Folder
    } else {
        nothing()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use helix_routing::id::Digest;

    fn release(paths: &[&'static str]) -> Release {
        let digest = Digest::from_hex(&"0".repeat(64)).unwrap();
        let files = paths
            .iter()
            .map(|path| (*path, "text/html", Bytes::from_static(b"x")));
        Release::from_memory("aaaaaaaaaaaaaaaaaaaa".parse().unwrap(), digest, files)
    }

    fn meaning(release: &Release, path: &str) -> String {
        match find(release, path) {
            Ok(Found::File(file)) => file.path.to_string(),
            Ok(Found::Folder) => "folder".to_owned(),
            Ok(Found::Nothing(page)) => page.map_or_else(
                || "nothing".to_owned(),
                |page| format!("nothing, says {}", page.path),
            ),
            Err(_) => "bad".to_owned(),
        }
    }

    #[test]
    fn paths_mean_files_and_folders_their_index() {
        let release = release(&[
            "index.html",
            "a.html",
            "dir/index.html",
            "dir/b c.txt",
            "bare/x.txt",
            "A.html",
        ]);
        for (path, expected) in [
            ("/", "index.html"),
            ("/index.html", "index.html"),
            ("/a.html", "a.html"),
            ("/A.html", "A.html"),
            ("/a.HTML", "nothing"),
            ("/a", "nothing"),
            ("/a.html/", "nothing"),
            ("/dir", "folder"),
            ("/dir/", "dir/index.html"),
            ("/dir/b%20c.txt", "dir/b c.txt"),
            ("/dir%2Fb%20c.txt", "nothing"),
            ("/bare", "nothing"),
            ("/bare/", "nothing"),
            ("//", "nothing"),
            ("//dir", "nothing"),
            ("/../a.html", "bad"),
        ] {
            assert_eq!(meaning(&release, path), expected, "{path}");
        }
    }

    #[test]
    fn a_release_without_the_path_shows_its_own_page() {
        let release = release(&["404.html"]);
        assert_eq!(meaning(&release, "/"), "nothing, says 404.html");
        assert_eq!(meaning(&release, "/404.html"), "404.html");
    }
}
