//! Oldest versions that are free of known faults. Refreshed by hand when an advisory appears.

use serde::Deserialize;

use crate::{none_of, root};

/// Crate (or the start of its name, when it ends in `*`), the first version without the fault, and the fault.
const FIXED_IN: &[(&str, &str, &str)] = &[
    (
        "pingora*",
        "0.9.1",
        "CVE-2026-105299 and before: smuggling, hop-by-hop header drop; 0.9.1: panic with tokio 1.54",
    ),
    (
        "quinn-proto",
        "0.11.19",
        "CVE-2026-31812, RUSTSEC-2026-0185, -0338 to -0343: remote panics and memory",
    ),
    ("rustls", "0.23.46", "RUSTSEC-2024-0399, 2026-0346 to -0349"),
    (
        "rustls-webpki",
        "0.103.13",
        "RUSTSEC-2026-0049, -0098, -0099, -0104",
    ),
    (
        "h2",
        "0.4.16",
        "RUSTSEC-2024-0332, 2026-0258: CONTINUATION and empty DATA floods",
    ),
    ("hickory-proto", "0.26.3", "RUSTSEC-2026-0118, -0119"),
    (
        "async-nats",
        "0.29.0",
        "RUSTSEC-2023-0027: TLS name check skipped",
    ),
    (
        "zstd",
        "0.13.0",
        "older bindings carry zstd with known faults",
    ),
];

/// Crates that may not appear at all.
const BANNED: &[(&str, &str)] = &[
    (
        "tar",
        "archives are never unpacked: RUSTSEC-2026-0067, -0068",
    ),
    ("tokio-tar", "RUSTSEC-2025-0111, unfixed"),
    (
        "astral-tokio-tar",
        "archives are never unpacked: RUSTSEC-2026-0112, -0113, -0145",
    ),
    ("zip", "archives are never unpacked: RUSTSEC-2025-0168"),
    ("openssl-sys", "one TLS library: aws-lc through rustls"),
];

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
}

fn lock() -> Lock {
    toml::from_str(&std::fs::read_to_string(root().join("Cargo.lock")).unwrap()).unwrap()
}

#[test]
fn locked_versions_are_free_of_known_faults() {
    let mut violations = Vec::new();
    for package in lock().package {
        for (name, fixed, fault) in FIXED_IN {
            if matches(name, &package.name) && number(&package.version) < number(fixed) {
                violations.push(format!(
                    "{} {} is below {fixed}: {fault}",
                    package.name, package.version
                ));
            }
        }
    }
    none_of(&violations, "Cargo.lock has versions with known faults");
}

#[test]
fn banned_crates_are_not_locked() {
    let mut violations = Vec::new();
    for package in lock().package {
        violations.extend(
            BANNED
                .iter()
                .filter(|(name, _)| *name == package.name)
                .map(|(name, reason)| format!("{name}: {reason}")),
        );
    }
    none_of(&violations, "Cargo.lock has a crate that may not be used");
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(name == pattern, |start| name.starts_with(start))
}

/// The three numbers of a version; what follows `-` or `+` does not count here.
fn number(version: &str) -> [u64; 3] {
    let plain = version.split(['-', '+']).next().unwrap();
    let mut parts = plain.split('.').map(|part| part.parse().unwrap());
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[test]
fn versions_compare_by_number_not_by_text() {
    assert!(number("0.11.9") < number("0.11.19"));
    assert!(number("1.0.0-rc.1+build") < number("1.0.1"));
}
