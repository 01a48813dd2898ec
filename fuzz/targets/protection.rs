//! Protection of a site: what one carries is within its limits, and a path that needs no pass is one that no server behind us
//! takes for another.
//!
//! The input is a protection in JSON, a rule and a path, with lines of three dashes between them.
#![no_main]

use helix_routing::protection::{MAX_EXEMPT, MAX_ITERATIONS, PathRule, Protection};
use helix_routing::routes::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, "\n---\n");
    let mut part = || parts.next().unwrap_or_default();
    let (protection, rule, path) = (part(), part(), part());
    if let Ok(rule) = rule.parse::<PathRule>() {
        assert_eq!(rule.as_str().parse().as_ref(), Ok(&rule));
        if rule.covers(path) {
            covered(&rule, path);
        }
    }
    let Ok(protection) = serde_json::from_str::<Protection>(protection) else {
        return;
    };
    assert!(protection.exempt.len() <= MAX_EXEMPT);
    if let Some(password) = &protection.password {
        assert!((1..=MAX_ITERATIONS).contains(&password.iterations));
    }
    let printed = format!("{protection:?}");
    assert!(protection.secret.len() < 12 || !printed.contains(&protection.secret));
    let by_one = protection.exempt.iter().any(|rule| rule.covers(path));
    assert_eq!(protection.exempts(path), by_one);
    let json = serde_json::to_string(&protection).expect("plain data");
    assert_eq!(serde_json::from_str(&json).ok(), Some(protection));
});

fn covered(rule: &PathRule, path: &str) {
    let folder = rule.as_str().strip_suffix('*');
    assert!(folder.map_or(path == rule.as_str(), |folder| path.starts_with(folder)));
    // Decoding it changes nothing, and no part of it leads elsewhere.
    let decoded = decode(path).expect("a path that means something");
    assert_eq!(decoded.as_ref().map(|at| &*at.path), path.strip_prefix('/'));
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        assert!(!matches!(part, "." | "..") && (!part.is_empty() || parts.peek().is_none()));
    }
}
