//! Routes of a Build Output: whatever compiles decides every path without a panic and within its limits, and never sends a
//! client to another host by what the client sent; every complaint has a line that exists.
//!
//! The input is a list of routes in JSON, a path, a query and the value of a field, with lines of three dashes between them.
#![no_main]

use std::borrow::Cow;

use helix_routing::routes::output::{OutputConfig, WrittenRoute};
use helix_routing::routes::{Client, Decision, Files, Routes, Rules, Target, decode};
use libfuzzer_sys::fuzz_target;

struct Pages;

impl Files for Pages {
    type File = &'static str;

    fn file(&self, path: &str) -> Option<Self::File> {
        ["index.html", "a", "a/index.html", "b/[slug]", "404.html"]
            .into_iter()
            .find(|file| *file == path)
    }
}

struct Visitor<'a>(&'a str);

impl Client for Visitor<'_> {
    fn host(&self) -> Cow<'_, str> {
        Cow::Borrowed("shop.example")
    }

    fn is_secure(&self) -> bool {
        true
    }

    fn accept_language(&self) -> Option<&str> {
        Some(self.0)
    }

    fn has_cookie(&self, _name: &str) -> bool {
        true
    }

    fn accepts_html(&self) -> bool {
        true
    }

    fn method(&self) -> &str {
        "GET"
    }

    fn header(&self, _name: &str) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.0))
    }

    fn cookie(&self, _name: &str) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.0))
    }
}

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(4, "\n---\n");
    let mut part = || parts.next().unwrap_or_default();
    let (routes, path, query, field) = (part(), part(), part(), part());
    let Ok(written) = serde_json::from_str::<Vec<WrittenRoute>>(routes) else {
        return;
    };
    let lines = written.len();
    let config = OutputConfig {
        routes: written
            .into_iter()
            .enumerate()
            .map(|(at, route)| (at + 1, route))
            .collect(),
        ..OutputConfig::default()
    };
    match config.compile(true) {
        Ok((output, upstreams)) => {
            let routes = Routes {
                output: Some(Box::new(output)),
                upstreams,
                ..Routes::default()
            };
            decide(&routes, path, query, field);
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(
                problems
                    .iter()
                    .all(|wrong| (1..=lines.max(1)).contains(&wrong.line))
            );
        }
    }
});

fn decide(routes: &Routes, raw: &str, query: &str, field: &str) {
    // What an edge carries travels as JSON, and means the same then.
    let json = serde_json::to_string(routes).expect("plain data");
    assert_eq!(
        serde_json::from_str::<Routes>(&json).ok().as_ref(),
        Some(routes)
    );
    let Ok(Some(path)) = decode(raw) else { return };
    let query = Some(query).filter(|query| {
        query
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    });
    let target = Target {
        raw,
        path: &path,
        query,
    };
    let decided = Rules::new(routes).decide(routes, &Pages, target, &Visitor(field));
    let clean = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    match &decided.decision {
        Decision::Redirect { status, location } => {
            assert!(matches!(status, 301 | 302 | 303 | 307 | 308), "{status}");
            assert!(!location.starts_with("//"), "{location:?}");
            assert!(clean(location) && !location.contains(' '), "{location:?}");
        }
        Decision::Forward(at) => assert!(routes.forward(*at).is_some()),
        Decision::File { status, .. } | Decision::Nothing { status } => {
            assert!((200..600).contains(status), "{status}");
        }
    }
    for given in decided.given.iter() {
        assert!(
            given.fields.iter().all(|(_, value)| clean(value)),
            "{given:?}"
        );
        let target = given.upstream_target.as_deref();
        assert!(target.is_none_or(|target| target.starts_with('/')
            && clean(target)
            && !target.contains(' ')));
    }
}
