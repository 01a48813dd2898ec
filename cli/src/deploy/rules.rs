//! The rules at the root of a folder, compiled here as origin will compile them: a mistake in them costs no upload.

use std::fs;
use std::io;

use helix_routing::routes::RouteError;
use helix_service::rules::{CONFIG, FILES, Rules, max_bytes, output, too_large};

use helix_client::upload::folder::LocalFile;

/// The rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesError {
    #[error("read file {path}")]
    Read {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "nothing was uploaded, since the rules cannot be used:{}",
        list(errors)
    )]
    Illegal { errors: Vec<RouteError> },
}

/// Checks what a folder has of rules.
pub(crate) fn check(files: &[LocalFile], static_only: bool) -> Result<(), RulesError> {
    let (mut rules, mut errors) = (Rules::default(), Vec::new());
    rules.static_only = static_only;
    for name in files
        .iter()
        .filter_map(|file| output::function_of(&file.path))
    {
        // What a function says of itself is origin's to note.
        rules.add_function(name, &[]);
    }
    for path in FILES {
        let Some(file) = files.iter().find(|file| file.path == path) else {
            continue;
        };
        let added = if file.size > max_bytes(path) {
            Err(too_large(path))
        } else {
            let read = fs::read(&file.source);
            rules.add(
                path,
                read.map_err(|source| RulesError::Read { path, source })?,
            )
        };
        errors.extend(added.err());
    }
    match rules.compile().and_then(|_| rules.output_config()) {
        Ok(Some(config)) => {
            let paths = files.iter().map(|file| file.path.as_str());
            errors.extend(
                output::served(&config, paths, &[CONFIG])
                    .err()
                    .unwrap_or_default(),
            );
        }
        Ok(None) => {}
        Err(more) => errors.extend(more),
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(RulesError::Illegal { errors })
    }
}

fn list(errors: &[RouteError]) -> String {
    errors
        .iter()
        .map(|error| format!("\n    {error}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_named_with_its_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &[u8]| {
            let source = folder.path().join(path);
            fs::write(&source, text).unwrap();
            LocalFile {
                path: path.to_owned(),
                size: text.len() as u64,
                source,
            }
        };
        let page = file("index.html", b"hi");
        assert!(check(std::slice::from_ref(&page), false).is_ok());
        let files = [
            page,
            file("helix.toml", b"[static]\nhtml_handling = \"all\"\n"),
            file("_headers", b"/*\n  X: \xff\n"),
        ];
        let text = check(&files, false).unwrap_err().to_string();
        for words in ["\n    helix.toml:2: ", "\n    _headers:2: "] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
