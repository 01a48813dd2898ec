//! Who may depend on whom, and on what.

use std::process::Command;

use serde::Deserialize;

use crate::{none_of, root};

/// Our crates, and those of ours that each may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("helix-routing", &[]),
    ("helix-framing", &[]),
    ("helix-service", &["helix-routing"]),
    (
        "helix-edge",
        &["helix-framing", "helix-routing", "helix-service"],
    ),
    ("helix-origin", &["helix-routing", "helix-service"]),
    ("helix-client", &["helix-routing", "helix-service"]),
    (
        "helix-build",
        &["helix-client", "helix-routing", "helix-service"],
    ),
    (
        "helix-cli",
        &[
            "helix-build",
            "helix-client",
            "helix-routing",
            "helix-service",
        ],
    ),
    ("helix-tests", &["helix-routing", "helix-service"]),
    (
        "helix-bench",
        &[
            "helix-edge",
            "helix-origin",
            "helix-routing",
            "helix-service",
            "helix-tests",
        ],
    ),
];

/// Everything that `routing` may use: data types and parsers that work without `std`.
const ROUTING_MAY_USE: &[&str] = &[
    "fancy-regex",
    "hashbrown",
    "idna",
    "postcard",
    "regex",
    "regex-syntax",
    "serde",
    "thiserror",
    "utoipa",
];

/// Everything that `framing` may use: types and searches that wait for nothing.
const FRAMING_MAY_USE: &[&str] = &["bytes", "http", "httpdate", "memchr", "thiserror"];

/// Crates that stay behind one door: the name's start, and who may use it.
const DOORS: &[(&str, &[&str])] = &[
    (
        "async-nats",
        &[
            "helix-service",
            "helix-edge",
            "helix-origin",
            "helix-build",
            // An operator's override, with origin dead.
            "helix-cli",
            "helix-tests",
            "helix-bench",
        ],
    ),
    ("pingora", &["helix-edge"]),
    ("sqlx", &["helix-origin"]),
    ("axum", &["helix-origin", "helix-edge"]),
    (
        "clap",
        &[
            "helix-build",
            "helix-cli",
            "helix-edge",
            "helix-origin",
            "helix-bench",
        ],
    ),
    ("indicatif", &["helix-cli"]),
];

/// Licences under which we may ship what we link.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

impl Metadata {
    fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }
}

fn metadata(options: &[&str]) -> Metadata {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(options)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn arrows_between_our_crates_point_one_way() {
    let metadata = metadata(&["--no-deps"]);
    let mut violations = Vec::new();
    for package in metadata.ours() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            violations.push(format!("{} has no line in ARROWS", package.name));
            continue;
        };
        let ours = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.name.starts_with("helix-"));
        violations.extend(
            ours.filter(|dependency| !allowed.contains(&dependency.name.as_str()))
                .map(|dependency| format!("{} depends on {}", package.name, dependency.name)),
        );
    }
    none_of(&violations, "a crate depends on one it may not know");
}

#[test]
fn routing_depends_only_on_data_types_and_parsers() {
    let violations = not_on_the_list("helix-routing", ROUTING_MAY_USE);
    none_of(&violations, "routing uses a crate that is not on its list");
}

#[test]
fn framing_depends_on_nothing_that_could_wait_or_grow() {
    let violations = not_on_the_list("helix-framing", FRAMING_MAY_USE);
    none_of(&violations, "framing uses a crate that is not on its list");
}

/// What ships with `package` and is not in `list`.
fn not_on_the_list(package: &str, list: &[&str]) -> Vec<String> {
    let metadata = metadata(&["--no-deps"]);
    let found = metadata.ours().find(|ours| ours.name == package).unwrap();
    let shipped = found
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind.as_deref() != Some("dev"));
    shipped
        .map(|dependency| dependency.name.clone())
        .filter(|name| !list.contains(&name.as_str()))
        .collect()
}

#[test]
fn outside_crates_stay_behind_their_door() {
    let metadata = metadata(&["--no-deps"]);
    let mut violations = Vec::new();
    for package in metadata.ours() {
        // What only tests use is not linked into what ships.
        let shipped = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"));
        for dependency in shipped {
            let door = DOORS
                .iter()
                .find(|(name, _)| dependency.name.starts_with(name));
            if door.is_some_and(|(_, allowed)| !allowed.contains(&package.name.as_str())) {
                violations.push(format!("{} uses {}", package.name, dependency.name));
            }
        }
    }
    none_of(&violations, "a crate is used outside its door");
}

#[test]
fn every_dependency_has_a_licence_we_may_ship() {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = metadata(&["--filter-platform", &target]);
    let violations: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| !package.license.as_deref().is_some_and(is_allowed))
        .map(|package| {
            format!(
                "{} {}: {}",
                package.name,
                package.version,
                package.license.as_deref().unwrap_or("none given")
            )
        })
        .collect();
    none_of(&violations, "a dependency's licence is not on the list");
}

/// Reads an SPDX expression as far as crates use it: `AND` binds tighter than `OR`, and `/` is an old spelling
/// of `OR`. A term in brackets is one alternative list that has to hold as a whole.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let (outside, brackets) = split_brackets(&expression);
    let inside = brackets.iter().all(|group| is_allowed(group));
    let holds = |term: &str| {
        if term == "()" {
            inside
        } else {
            LICENCES.contains(&term)
        }
    };
    outside
        .split(" OR ")
        .any(|alternative| alternative.split(" AND ").map(str::trim).all(holds))
}

/// Replaces each bracketed group by `()` and returns the groups.
fn split_brackets(expression: &str) -> (String, Vec<String>) {
    let mut outside = String::new();
    let mut groups = Vec::new();
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once('(') {
        let (group, tail) = after
            .split_once(')')
            .expect("a licence expression closes its brackets");
        outside.push_str(before);
        outside.push_str("()");
        groups.push(group.to_owned());
        rest = tail;
    }
    outside.push_str(rest);
    (outside, groups)
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    for allowed in [
        "MIT",
        "MIT OR GPL-3.0",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "GPL-2.0 OR (MIT AND ISC)",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(GPL-3.0 OR LGPL-2.1) AND MIT",
        "",
    ] {
        assert!(!is_allowed(refused), "{refused}");
    }
}
