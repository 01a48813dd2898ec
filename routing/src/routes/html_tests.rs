use super::*;
use alloc::format;
use alloc::vec::Vec;

struct Named<'a>(&'a [&'a str]);

impl<'a> Files for Named<'a> {
    type File = &'a str;

    fn file(&self, path: &str) -> Option<&'a str> {
        self.0.iter().copied().find(|name| *name == path)
    }
}

fn meaning(files: &[&str], mode: HtmlHandling, path: &str) -> String {
    match find(&Named(files), mode, path) {
        Some(Found::File(file)) => file.to_owned(),
        Some(Found::Redirect { path, .. }) => format!("> /{path}"),
        None => "-".to_owned(),
    }
}

#[test]
fn every_spelling_of_a_page_leads_to_its_canonical_path() {
    let files = ["index.html", "a.html", "b/index.html", "x.txt", "about"];
    let modes = [
        HtmlHandling::AutoTrailingSlash,
        HtmlHandling::ForceTrailingSlash,
        HtmlHandling::DropTrailingSlash,
        HtmlHandling::None,
    ];
    for (path, expected) in [
        ("", ["index.html", "index.html", "index.html", "-"]),
        ("index", ["> /", "> /", "> /", "-"]),
        ("index.html", ["> /", "> /", "> /", "index.html"]),
        ("index/", ["> /", "> /", "> /", "-"]),
        ("a", ["a.html", "> /a/", "a.html", "-"]),
        ("a/", ["> /a", "a.html", "> /a", "-"]),
        ("a.html", ["> /a", "> /a/", "> /a", "a.html"]),
        ("a/index", ["> /a", "> /a/", "> /a", "-"]),
        ("b", ["> /b/", "> /b/", "b/index.html", "-"]),
        ("b/", ["b/index.html", "b/index.html", "> /b", "-"]),
        ("b.html", ["> /b/", "> /b/", "> /b", "-"]),
        ("b/index.html", ["> /b/", "> /b/", "> /b", "b/index.html"]),
        ("x.txt", ["x.txt"; 4]),
        ("x.txt/", ["-"; 4]),
        ("about", ["about"; 4]),
        ("about.html", ["-"; 4]),
        ("A", ["-"; 4]),
        ("x", ["-"; 4]),
    ] {
        let found: Vec<_> = modes
            .iter()
            .map(|mode| meaning(&files, *mode, path))
            .collect();
        assert_eq!(found, expected, "/{path}");
    }
}

#[test]
fn the_nearest_page_says_that_there_is_nothing() {
    let files = Named(&["404.html", "docs/404.html"]);
    for (path, expected) in [
        ("", "404.html"),
        ("x", "404.html"),
        ("docs", "404.html"),
        ("docs/", "docs/404.html"),
        ("docs/a/b/c", "docs/404.html"),
        ("documents/a", "404.html"),
    ] {
        assert_eq!(
            nearest_not_found_page(&files, path),
            Some(expected),
            "{path}"
        );
    }
    assert_eq!(nearest_not_found_page(&Named(&["a"]), "a/b/"), None);
}
