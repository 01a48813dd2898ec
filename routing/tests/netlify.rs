//! Rules of `_redirects` against Netlify's own engine: npm's `netlify-redirector`, which is theirs compiled to
//! WebAssembly. Needs Node and the package in `.tools/judges`; without them the test says that it was skipped.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use std::borrow::Cow;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use helix_routing::routes::{
    Client, Decision, Files, NotFoundHandling, Routes, Rules, SiteConfig, Target, decode,
};
use serde::{Deserialize, Serialize};

const ENGINE: &str = "
const engine = require('netlify-redirector');
let text = '';
process.stdin.on('data', part => text += part).on('end', async () => {
  const found = [];
  for (const one of JSON.parse(text)) {
    const rules = await engine.parsePlain(one.rules, {});
    const headers = { 'x-language': one.language };
    const match = rules.match({ scheme: 'http', host: 'shop.example', path: one.path, query: one.query, headers,
      getHeader: name => headers[name.toLowerCase()] || '', cookieValues: {}, getCookie: () => '' });
    found.push(match && match.to !== undefined ? { to: match.to, status: match.status, force: match.force } : null);
  }
  require('fs').writeFileSync(1, JSON.stringify(found));
  process.exit(0);
});";

/// What stands before `_redirects` rules' paths, and what they may be made of.
const FROM: [&str; 16] = [
    "/a",
    "/a/",
    "/a/b",
    "/A",
    "/*",
    "/a/*",
    "/a/b/*",
    "/a/*/b",
    "/:x",
    "/a/:x",
    "/:x/:y",
    "/:x/*",
    "/a/:x/*",
    "http://shop.example/a/*",
    "https://shop.example/a",
    "http://other.example/*",
];
const QUERY: [&str; 4] = ["", "q=1 ", "q=:q ", "q=:q r=2 "];
const TAIL: [&str; 5] = ["", " 302", " 301!", " 302 Language=de", " 307!"];
/// None has a doubled slash, which is one here and never reaches a target.
const PATHS: [&str; 15] = [
    "/", "/a", "/a/", "/A", "/b", "/ab", "/a/b", "/a/b/", "/a/c", "/a/c/", "/a/c/b", "/a/c/b/",
    "/a/c/d/b", "/a/b/c/d", "/b/a",
];
const QUERIES: [&str; 5] = ["", "q=1", "q=2&r=2", "r=2&q=1", "x=1"];

/// One text of rules, and a request.
#[derive(Debug, Serialize)]
struct Case {
    rules: String,
    path: &'static str,
    query: &'static str,
    language: &'static str,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Found {
    to: String,
    status: u16,
    force: bool,
}

impl Client for Case {
    fn host(&self) -> Cow<'_, str> {
        Cow::Borrowed("shop.example")
    }
    fn is_secure(&self) -> bool {
        false
    }
    fn accept_language(&self) -> Option<&str> {
        Some(self.language)
    }
    fn has_cookie(&self, _: &str) -> bool {
        false
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

struct NoFiles;

impl Files for NoFiles {
    type File = ();

    fn file(&self, _: &str) -> Option<()> {
        None
    }
}

/// The same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        all[self.below(all.len())]
    }

    fn case(&mut self) -> Case {
        let rules = (0..=self.below(4)).map(|at| {
            let (from, query) = (self.one_of(&FROM), self.one_of(&QUERY));
            let query = if self.below(3) == 0 { query } else { "" };
            let mut to = format!("/to{at}");
            for name in [":x", ":y"] {
                if from.contains(name) {
                    to.push_str(&format!("/{name}"));
                }
            }
            if from.contains('*') {
                to.push_str("/:splat");
            }
            if query.contains(":q") {
                to.push_str("/:q");
            }
            format!("{from} {query}{to}{}\n", self.one_of(&TAIL))
        });
        Case {
            rules: rules.collect(),
            path: self.one_of(&PATHS),
            query: self.one_of(&QUERIES),
            language: self.one_of(&["de", "en"]),
        }
    }
}

/// What our rules say; the query that is passed on taken off again, which is not the engine's business.
fn ours(case: &Case) -> Option<Found> {
    let mut config = SiteConfig::default();
    config.static_files.not_found_handling = NotFoundHandling::None;
    let routes = Routes::compile(config, Some(&case.rules), None).unwrap();
    let path = decode(case.path).unwrap().unwrap();
    let target = Target {
        raw: case.path,
        path: &path,
        query: Some(case.query).filter(|query| !query.is_empty()),
    };
    let decided = Rules::new(&routes).decide(&routes, &NoFiles, target, case);
    let Decision::Redirect { status, location } = decided.decision else {
        return None;
    };
    let to = location.split('?').next().unwrap().to_owned();
    let line = decided.line.unwrap();
    let force = routes
        .redirects
        .iter()
        .any(|rule| rule.line == line && rule.force);
    Some(Found { to, status, force })
}

fn theirs(cases: &[Case], packages: &PathBuf) -> Vec<Option<Found>> {
    let mut node = Command::new("node")
        .args(["--eval", ENGINE])
        .env("NODE_PATH", packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = serde_json::to_vec(cases).unwrap();
    node.stdin.take().unwrap().write_all(&text).unwrap();
    let ended = node.wait_with_output().unwrap();
    assert!(ended.status.success(), "Netlify's engine failed");
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[test]
fn rules_lead_where_netlifys_engine_leads() {
    let packages = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.tools/judges/node_modules");
    let node = Command::new("node").arg("--version").output().is_ok();
    if !node || !packages.join("netlify-redirector").exists() {
        eprintln!("skipped: no Node, or no netlify-redirector in .tools/judges");
        return;
    }
    let mut numbers = Numbers(7);
    let cases: Vec<Case> = (0..4000).map(|_| numbers.case()).collect();
    let theirs = theirs(&cases, &packages);
    assert_eq!(theirs.len(), cases.len());
    assert!(theirs.iter().flatten().count() > cases.len() / 4);
    let failed: Vec<_> = cases
        .iter()
        .zip(&theirs)
        .filter_map(|(case, theirs)| {
            let ours = ours(case);
            (ours != *theirs).then(|| format!("{case:?}: ours {ours:?}, theirs {theirs:?}"))
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        cases.len(),
        failed[..failed.len().min(20)].join("\n")
    );
}
