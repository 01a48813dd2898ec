//! Whether a folder is a Build Output: then only that is deployed, and not the project that it was built from.
//!
//! What is sent lies in `.vercel/output/`, whether it was found there or the folder is such an output itself; a `helix.toml`
//! beside it goes along. The code of functions stays here: no edge runs it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use helix_service::rules::CONFIG;
use helix_service::rules::output::{
    FUNCTION_CONFIG, FUNCTIONS_FOLDER, MAX_OUTPUT_BYTES, OUTPUT_CONFIG, OUTPUT_FOLDER,
};

use super::folder::{self, Folder, FolderError, LocalFile};

/// What of an output is deployed as it is.
const DEPLOYED: [&str; 3] = ["config.json", "static", CONFIG];
/// Deepest folder of a function: their paths are those of URLs.
const MAX_DEPTH: usize = 32;

/// Looks a folder through, whatever kind it is.
pub fn look_through(path: &Path) -> Result<Folder, FolderError> {
    let inner = path.join(OUTPUT_FOLDER);
    let root = if path.join(OUTPUT_CONFIG).is_file() {
        inner.as_path()
    } else if is_output(path) {
        path
    } else {
        return folder::look_through(path);
    };
    let mut found = folder::look_through_only(root, &DEPLOYED)?;
    let own_config = take_config(&mut found);
    for file in &mut found.files {
        file.path.insert_str(0, OUTPUT_FOLDER);
    }
    functions(
        &root.join("functions"),
        FUNCTIONS_FOLDER,
        0,
        &mut found.files,
    );
    found
        .files
        .extend(own_config.or_else(|| local(CONFIG.to_owned(), path.join(CONFIG))));
    found.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// What declares each function. A function may be a link to another one.
fn functions(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<LocalFile>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|_| depth < MAX_DEPTH) {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = format!("{prefix}{name}/");
        if name.ends_with(".func") {
            let declared = entry.path().join(FUNCTION_CONFIG);
            files.extend(local(format!("{path}{FUNCTION_CONFIG}"), declared));
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            functions(&entry.path(), &path, depth + 1, files);
        }
    }
}

fn local(path: String, source: PathBuf) -> Option<LocalFile> {
    let known = fs::metadata(&source).ok().filter(fs::Metadata::is_file)?;
    Some(LocalFile {
        path,
        source,
        size: known.len(),
    })
}

/// The `helix.toml` at the root of an output, which is no file of it.
fn take_config(found: &mut Folder) -> Option<LocalFile> {
    let at = found.files.iter().position(|file| file.path == CONFIG)?;
    Some(found.files.remove(at))
}

/// Whether the folder itself is an output: a `config.json` of version 3 beside `static/`.
fn is_output(path: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u64,
    }
    let mut text = Vec::new();
    let read = fs::File::open(path.join("config.json"))
        .and_then(|file| file.take(MAX_OUTPUT_BYTES).read_to_end(&mut text));
    read.is_ok()
        && path.join("static").is_dir()
        && serde_json::from_slice::<Versioned>(&text).is_ok_and(|found| found.version == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn paths(root: &Path) -> Vec<String> {
        let found = look_through(root).unwrap();
        found.files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn only_the_output_of_a_project_is_deployed() {
        let project = folder(&[
            ("package.json", "{}"),
            ("helix.toml", ""),
            (".vercel/project.json", "{}"),
            (".vercel/output/config.json", r#"{"version":3}"#),
            (".vercel/output/static/index.html", "hi"),
            (".vercel/output/functions/api.func/.vc-config.json", "{}"),
            (".vercel/output/functions/api.func/index.js", "x"),
        ]);
        let rest = [
            ".vercel/output/config.json",
            ".vercel/output/functions/api.func/.vc-config.json",
            ".vercel/output/static/index.html",
            "helix.toml",
        ];
        assert_eq!(paths(project.path()), rest);
    }

    #[test]
    fn a_folder_may_be_the_output_itself_and_is_none_without_its_signs() {
        let output = folder(&[
            ("config.json", r#"{"version":3,"routes":[]}"#),
            ("helix.toml", ""),
            ("static/a.txt", "hi"),
        ]);
        let expected = [
            ".vercel/output/config.json",
            ".vercel/output/static/a.txt",
            "helix.toml",
        ];
        assert_eq!(paths(output.path()), expected);
        for files in [
            [("config.json", r#"{"version":2}"#), ("static/a.txt", "hi")],
            [("config.json", r#"{"version":3}"#), ("public/a.txt", "hi")],
        ] {
            let plain = folder(&files);
            assert_eq!(paths(plain.path())[0], "config.json");
        }
    }
}
