//! What every source file keeps to.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{none_of, root};

/// More lines than this before its tests, and a file holds more than one idea.
const MAX_LINES: usize = 600;

/// Folders that hold no source of ours.
const SKIPPED: &[&str] = &[
    ".git",
    ".tools",
    ".helix",
    "target",
    "node_modules",
    "results",
];

/// How a module's docs say that it takes values and returns values.
const PURE: &[&str] = &["*Pure*", "Pure.", "Pure:"];

/// Folders in which every module is.
const PURE_FOLDERS: &[&str] = &["routing/src/", "framing/src/"];

/// Words that such a module does not use.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "async fn",
    "rand::",
];

/// Starts of absolute paths that mean one machine only.
const MACHINE_PATHS: &[&str] = &["/root/", "/home/", "/Users/", "/work/", "/mnt/"];

struct Source {
    path: String,
    text: String,
}

/// Sources, without the files that only hold the tests of the module beside them.
fn rust_files() -> Vec<Source> {
    files(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs")
    })
}

fn files(wanted: impl Fn(&Path) -> bool) -> Vec<Source> {
    let mut folders = vec![root()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                if !SKIPPED.contains(&entry.file_name().to_str().unwrap()) {
                    folders.push(entry.path());
                }
            } else if wanted(&entry.path()) {
                found.extend(read(entry.path()));
            }
        }
    }
    assert!(
        !found.is_empty(),
        "no file was found under {}",
        root().display()
    );
    found
}

/// The file, unless it is not text.
fn read(path: PathBuf) -> Option<Source> {
    let text = String::from_utf8(fs::read(&path).unwrap()).ok()?;
    Some(Source {
        path: path.strip_prefix(root()).unwrap().display().to_string(),
        text,
    })
}

/// The part of a source before its own tests.
fn before_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod ")
        .map_or(text, |(code, _)| code)
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let violations: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| !file.text.trim_start().starts_with("//!"))
        .map(|file| file.path)
        .collect();
    none_of(&violations, "a source file does not start with `//!`");
}

#[test]
fn no_source_file_is_longer_than_one_idea() {
    let violations: Vec<String> = rust_files()
        .into_iter()
        .map(|file| (before_tests(&file.text).lines().count(), file.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path} has {lines} lines"))
        .collect();
    none_of(
        &violations,
        "a source file is over 600 lines before its tests",
    );
}

#[test]
fn modules_marked_pure_do_not_look_outside() {
    let mut violations = Vec::new();
    for file in rust_files() {
        let docs: String = file
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let marked = PURE.iter().any(|mark| docs.contains(mark))
            || PURE_FOLDERS
                .iter()
                .any(|folder| file.path.starts_with(folder));
        if file.path.starts_with("tests/architecture") || !marked {
            continue;
        }
        let code = before_tests(&file.text)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let word = IMPURE.iter().find(|word| line.contains(**word));
            violations.extend(word.map(|word| format!("{} uses {word}", file.path)));
        }
    }
    none_of(
        &violations,
        "a module marked Pure reads a clock, does I/O, or waits",
    );
}

#[test]
fn routing_is_no_std_in_what_ships() {
    let text = fs::read_to_string(root().join("routing/src/lib.rs")).unwrap();
    let attribute = r#"#![cfg_attr(not(any(test, feature = "openapi")), no_std)]"#;
    assert!(
        text.lines().any(|line| line == attribute),
        "routing/src/lib.rs has lost {attribute}"
    );
    let code = text
        .lines()
        .map(str::trim)
        .any(|line| line == "extern crate std;");
    assert!(!code, "routing brings std back");
}

#[test]
fn unsafe_code_and_lints_are_the_workspaces() {
    let mut violations = Vec::new();
    for file in files(|path| path.file_name().is_some_and(|name| name == "Cargo.toml")) {
        let manifest: toml::Table = toml::from_str(&file.text).unwrap();
        let lints = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        if manifest.contains_key("package") && lints != Some(true) {
            violations.push(file.path);
        }
    }
    none_of(&violations, "a member does not take the workspace's lints");
}

#[test]
fn dependencies_are_declared_once_with_default_features_off() {
    let mut violations = Vec::new();
    for file in files(|path| path.file_name().is_some_and(|name| name == "Cargo.toml")) {
        let manifest: toml::Table = toml::from_str(&file.text).unwrap();
        let shared = manifest
            .get("workspace")
            .and_then(|workspace| workspace.get("dependencies"));
        for (name, dependency) in table(shared) {
            if dependency
                .get("default-features")
                .and_then(toml::Value::as_bool)
                != Some(false)
            {
                violations.push(format!("{name} has its default features on"));
            }
        }
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, dependency) in table(manifest.get(kind)) {
                if dependency.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    violations.push(format!("{} declares {name} itself", file.path));
                }
            }
        }
    }
    none_of(
        &violations,
        "a dependency is not declared in the workspace with its features named",
    );
}

fn table(value: Option<&toml::Value>) -> impl Iterator<Item = (&String, &toml::Value)> {
    value.and_then(toml::Value::as_table).into_iter().flatten()
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let mut violations = Vec::new();
    for file in
        files(|path| !path.ends_with("Cargo.lock") && !path.ends_with("architecture/sources.rs"))
    {
        for (index, line) in file.text.lines().enumerate() {
            let path = MACHINE_PATHS.iter().find(|path| names(line, path));
            violations.extend(path.map(|path| format!("{}:{} has {path}", file.path, index + 1)));
        }
    }
    none_of(&violations, "a file has an absolute path of one machine");
}

/// Whether `line` has `path` as the start of an absolute path, not within a longer one or a URL.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| {
            before.is_alphanumeric() || matches!(before, '.' | '-' | '_' | '}' | '>' | '/')
        })
    })
}
