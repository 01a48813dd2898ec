//! The table of Cloudflare's static assets, case by case. It is not part of this project: the folder that
//! `HELIX_CONFORMANCE` names may have it as `cf_html_handling.json`.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a skipped test says so"
)]
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use helix_routing::routes::{Files, Found, HtmlHandling, decode, encode, find};
use serde::Deserialize;

/// One row: which of the files is answered for a path, and the path the client ends at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(rename = "html_handling")]
    mode: HtmlHandling,
    title: String,
    files: Vec<String>,
    request_path: String,
    matched_file: Option<String>,
    final_path: Option<String>,
}

struct Named(Vec<String>);

impl Files for Named {
    type File = usize;

    fn file(&self, path: &str) -> Option<usize> {
        self.0.iter().position(|name| name[1..] == *path)
    }
}

/// Follows redirects as a client does.
fn visit(files: &Named, mode: HtmlHandling, path: &str) -> (Option<String>, Option<String>) {
    let mut path = path
        .split_once('?')
        .map_or(path, |(path, _)| path)
        .to_owned();
    for _ in 0..2 {
        let decoded = decode(&path).unwrap().unwrap();
        match find(files, mode, &decoded.path) {
            None => return (None, None),
            Some(Found::File(file)) if decoded.canonical => {
                return (Some(files.0[file].clone()), Some(path));
            }
            Some(Found::File(_)) => path = format!("/{}", encode(&decoded.path)),
            Some(Found::Redirect { path: to, .. }) => path = format!("/{}", encode(&to)),
        }
    }
    (Some("more than one redirect".to_owned()), Some(path))
}

#[test]
fn files_are_found_as_cloudflare_finds_them() {
    let Some(folder) = std::env::var_os("HELIX_CONFORMANCE") else {
        eprintln!("skipped: HELIX_CONFORMANCE names no folder with cf_html_handling.json");
        return;
    };
    let file = std::path::Path::new(&folder).join("cf_html_handling.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("skipped: {} cannot be read", file.display());
        return;
    };
    let rows: Vec<Row> = serde_json::from_str(&text).unwrap();
    assert_eq!(rows.len(), 196, "the table is not the one that is known");
    let mut failed = Vec::new();
    for row in &rows {
        let files = Named(row.files.clone());
        let got = visit(&files, row.mode, &row.request_path);
        if got != (row.matched_file.clone(), row.final_path.clone()) {
            failed.push(format!(
                "{:?} {} of {:?}: {got:?}",
                row.mode, row.title, row.files
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        rows.len(),
        failed.join("\n")
    );
    println!("{} rows agree", rows.len());
}
