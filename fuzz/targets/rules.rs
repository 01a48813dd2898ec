//! `_redirects` and `_headers`: whatever compiles decides every path without a panic, and never sends a client to
//! another host by a path alone; every complaint has a line that exists.
//!
//! The input is `_redirects`, `_headers` and a path, with lines of three dashes between them.
#![no_main]

use std::borrow::Cow;

use helix_routing::routes::{
    Client, Decision, Files, RouteError, Routes, Rules, SiteConfig, Target, decode,
};
use libfuzzer_sys::fuzz_target;

struct TwoPages;

impl Files for TwoPages {
    type File = &'static str;

    fn file(&self, path: &str) -> Option<Self::File> {
        ["index.html", "a.html", "a/index.html", "404.html"]
            .into_iter()
            .find(|file| *file == path)
    }
}

struct Browser;

impl Client for Browser {
    fn host(&self) -> Cow<'_, str> {
        Cow::Borrowed("shop.example")
    }

    fn is_secure(&self) -> bool {
        true
    }

    fn accept_language(&self) -> Option<&str> {
        Some("de-AT,de;q=0.8,en;q=0.5")
    }

    fn has_cookie(&self, name: &str) -> bool {
        name.len() % 2 == 0
    }

    fn accepts_html(&self) -> bool {
        true
    }

    fn method(&self) -> &str {
        "GET"
    }

    fn header(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn cookie(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, "\n---\n");
    let mut part = || parts.next().unwrap_or_default();
    let (redirects, headers, path) = (part(), part(), part());
    match Routes::compile(SiteConfig::default(), Some(redirects), Some(headers)) {
        Ok(routes) => decide(&routes, path),
        Err(errors) => complaints(&errors, redirects, headers),
    }
});

fn decide(routes: &Routes, raw: &str) {
    let rules = Rules::new(routes);
    let Ok(Some(path)) = decode(raw) else { return };
    let target = Target {
        raw,
        path: &path,
        query: Some("a=b&c"),
    };
    let decided = rules.decide(routes, &TwoPages, target, &Browser);
    for at in rules.headers(routes, raw) {
        assert!(at < routes.headers.len());
    }
    if let Decision::Redirect { status, location } = decided.decision {
        assert!(matches!(status, 301 | 302 | 303 | 307 | 308), "{status}");
        assert!(
            !location.bytes().any(|byte| byte.is_ascii_control()),
            "{location:?}"
        );
        let by_rule = decided.line.is_some();
        assert!(
            by_rule || !location.starts_with("//"),
            "{location:?} leads to another host"
        );
    }
}

fn complaints(errors: &[RouteError], redirects: &str, headers: &str) {
    assert!(!errors.is_empty());
    for error in errors {
        let text = if error.file == "_redirects" {
            redirects
        } else {
            headers
        };
        assert!(
            error.line >= 1 && error.line <= text.lines().count().max(1),
            "{error}"
        );
    }
}
