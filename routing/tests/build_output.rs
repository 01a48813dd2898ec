//! Build Output routes against what others make of them: patterns against JavaScript's own, and tables that Vercel's
//! `@vercel/routing-utils` makes of a `vercel.json`. Needs Node, and for the latter the package in `.tools/judges`; without them the
//! tests say that they were skipped.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test may stop here")]

use std::borrow::Cow;
use std::io::Write;
use std::process::{Command, Stdio};

use helix_routing::routes::output::{OutputConfig, WrittenRoute};
use helix_routing::routes::{Client, Decision, Files, Routes, Rules, Target, decode};
use serde_json::{Value, json};

/// What build tools emit, and what people write by hand.
const PATTERNS: [&str; 33] = [
    "^/old$",
    "/old/?",
    "^/(.*)$",
    "^/(.*)/$",
    "^(?:/(.*))?$",
    "^/(?:(.+)/)?index(?:\\.html)?/?$",
    "^/(.*)\\.html/?$",
    "^/((?:[^/]+/)*[^/\\.]+)$",
    "^/((?:[^/]+/)*[^/]+\\.\\w+)/$",
    "^/blog/(?<slug>[^/]+?)(?:/)?$",
    "^/blog(?:/([^/]+?))$",
    "^/docs(?:/((?:[^/]+?)(?:/(?:[^/]+?))*))?$",
    "^/p(?:/(\\d{1,}))$",
    "^/(?!api/)(.*)$",
    "^/((?!app/|x).*)$",
    "^(?:/((?!_next/|api/)(?:[^/]+?)(?:/(?:[^/]+?))*))/$",
    "^(?:/((?!_next/).*))?/?$",
    "^/_next/static/(?:[^/]+/pages|pages|chunks|runtime|css|image|media)/.+$",
    "^/((?!.+\\.rsc).+?)(?:/)?$",
    "^/(?=a)(a+)b?$",
    "^/(?:de|fr|(en))(?:/(.*))?$",
    "^/(.)(.)\\1\\2$",
    "^/(a|ab)(c|bcd)(d*)$",
    "^/([a-z0-9_-]+)\\.(js|css)$",
    "/(?:a|b)/c",
    "^/[^/.]*$",
    "^/(?<nxtPid>\\d+)/(?<nxtPname>\\w*)$",
    "/.*\\.(?:png|svg)",
    "^/(?<!x)a(?<=a)b$",
    "^/a{2,3}(a*)$",
    "^/%5Bid%5D$",
    "^/\\[slug\\]$",
    "^/a\\.b\\-c\\/d$",
];

const PATHS: [&str; 44] = [
    "/",
    "/old",
    "/OLD",
    "/old/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/",
    "/index",
    "/index.html",
    "/x/index",
    "/x/index.html/",
    "/a.html",
    "/a/b.html",
    "/a.txt",
    "/a.txt/",
    "/blog",
    "/blog/hi",
    "/blog/hi/",
    "/blog/a/b",
    "/docs",
    "/docs/a/b/c",
    "/p/12",
    "/p/x",
    "/api/x",
    "/apis",
    "/app/x",
    "/_next/x/",
    "/_next/static/chunks/a.js",
    "/_next/static/",
    "/a.rsc",
    "/aab",
    "/ab",
    "/aaaa",
    "/de",
    "/en/x",
    "/abab",
    "/abcd",
    "/12/name",
    "/12/",
    "/x.png",
    "/%5Bid%5D",
    "/a.b-c/d",
    "/main-1.js",
];

struct Visit<'a>(&'a str, &'a [(&'a str, &'a str)]);

impl Client for Visit<'_> {
    fn host(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }
    fn is_secure(&self) -> bool {
        true
    }
    fn accept_language(&self) -> Option<&str> {
        None
    }
    fn has_cookie(&self, _name: &str) -> bool {
        false
    }
    fn accepts_html(&self) -> bool {
        true
    }
    fn method(&self) -> &str {
        "GET"
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let found = self.1.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| Cow::Borrowed(*value))
    }
    fn cookie(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

struct Site;

impl Files for Site {
    type File = &'static str;

    fn file(&self, path: &str) -> Option<Self::File> {
        let files = ["index.html", "about", "a.txt", "post", "dir/index.html"];
        files.into_iter().find(|file| *file == path)
    }
}

fn routes_of(written: &Value) -> Routes {
    let written: Vec<WrittenRoute> = serde_json::from_value(written.clone()).unwrap();
    let config = OutputConfig {
        routes: written
            .into_iter()
            .enumerate()
            .map(|(at, route)| (at + 1, route))
            .collect(),
        ..OutputConfig::default()
    };
    let (output, upstreams) = config.compile(false).unwrap();
    Routes {
        output: Some(Box::new(output)),
        upstreams,
        ..Routes::default()
    }
}

/// Status, file or location, and fields.
fn decided(routes: &Routes, target: &str, client: &Visit<'_>) -> String {
    let (raw, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    let path = decode(raw).unwrap().unwrap();
    let decided = Rules::new(routes).decide(
        routes,
        &Site,
        Target {
            raw,
            path: &path,
            query,
        },
        client,
    );
    let given = decided.given.unwrap_or_default();
    let mut text = match decided.decision {
        Decision::File { file, status } => format!("{status} {file}"),
        Decision::Redirect { status, location } => format!("{status} to {location}"),
        Decision::Forward(_) => format!("forward {}", given.upstream_target.unwrap_or_default()),
        Decision::Nothing { status } => status.to_string(),
    };
    for (name, value) in given.fields {
        text.push_str(&format!(" {name}={value}"));
    }
    text
}

/// What a script of Node prints for `input`, if there is Node and what the script needs.
fn node(script: &str, input: &Value) -> Option<Value> {
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/judges/node_modules");
    let mut child = Command::new("node")
        .args(["--no-deprecation", "--eval", script])
        .env("NODE_PATH", packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let text = input.to_string();
    child.stdin.take()?.write_all(text.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn patterns_find_what_they_find_in_javascript() {
    const SCRIPT: &str = "
const { patterns, paths } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const whole = src => (src.startsWith('^') ? '' : '^') + src + (src.endsWith('$') ? '' : '$');
console.log(JSON.stringify(patterns.map(src => ['', 'i'].map(flags => paths.map(path => {
  const found = new RegExp(whole(src), flags).exec(path);
  return found && [0, 1, 2, 3].map(at => found[at] || '').join('|');
})))));";
    let Some(theirs) = node(
        SCRIPT,
        &json!({ "patterns": PATTERNS.as_slice(), "paths": PATHS.as_slice() }),
    ) else {
        eprintln!("skipped: no Node");
        return;
    };
    let mut compared = 0;
    for (at, src) in PATTERNS.iter().enumerate() {
        for (flag, sensitive) in [(0, true), (1, false)] {
            let routes = routes_of(&json!([
                { "src": src, "caseSensitive": sensitive, "headers": { "x-found": "$0|$1|$2|$3" }, "continue": true }
            ]));
            for (number, path) in PATHS.iter().enumerate() {
                let ours = decided(&routes, path, &Visit("shop.example", &[]));
                let ours = ours.split_once("x-found=").map(|(_, found)| found);
                let theirs = theirs[at][flag][number].as_str();
                assert_eq!(ours, theirs, "{src} on {path}, case sensitive: {sensitive}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, PATTERNS.len() * PATHS.len() * 2);
}

#[test]
fn tables_of_vercels_own_tool_mean_here_what_they_mean_there() {
    const SCRIPT: &str = "
const { getTransformedRoutes } = require('@vercel/routing-utils');
const configs = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(configs.map(config => {
  const { routes, error } = getTransformedRoutes(config);
  if (error) throw new Error(error.message);
  return routes || [];
})));";
    let configs = json!([
        { "cleanUrls": true },
        { "cleanUrls": true, "trailingSlash": false },
        { "trailingSlash": true },
        { "redirects": [
            { "source": "/old/:path*", "destination": "/new/:path*" },
            { "source": "/p/:id(\\d{1,})", "destination": "/q/:id?k=1", "permanent": false },
            { "source": "/x", "has": [{ "type": "header", "key": "x-a", "value": "(?<v>.+)" }], "destination": "/y/:v", "statusCode": 302 },
            { "source": "/(.*)", "has": [{ "type": "host", "value": "(?<sub>.*)\\.old\\.example" }], "destination": "https://:sub.new.example/$1" }
        ] },
        { "rewrites": [
            { "source": "/blog/:slug", "destination": "/post" },
            { "source": "/api/:path*", "destination": "https://api.example/v1/:path*" },
            { "source": "/((?!app/|x).*)", "destination": "/" }
        ] },
        { "headers": [
            { "source": "/(.*).txt", "headers": [{ "key": "X-File", "value": "$1" }] },
            { "source": "/:path*", "headers": [{ "key": "x-path", "value": ":path*" }] },
            { "source": "/about", "missing": [{ "type": "header", "key": "x-a" }], "headers": [{ "key": "x-b", "value": "2" }] }
        ] }
    ]);
    let Some(tables) = node(SCRIPT, &configs) else {
        eprintln!("skipped: no Node, or no @vercel/routing-utils in .tools/judges");
        return;
    };
    for (at, target, expected) in [
        (0, "/about.html", "308 to /about"),
        (0, "/a/index.html?q", "308 to /a?q"),
        (0, "/index", "308 to /"),
        (0, "/about", "200 about"),
        (1, "/about/", "308 to /about"),
        (1, "/", "200 index.html"),
        (2, "/dir", "308 to /dir/"),
        (2, "/dir/", "200 dir/index.html"),
        (2, "/a.txt/", "308 to /a.txt"),
        (2, "/a.txt", "200 a.txt"),
        (2, "/.well-known/x", "404"),
        (3, "/old", "308 to /new/"),
        (3, "/old/a/b?q=1", "308 to /new/a/b?q=1"),
        (3, "/p/12?k=2&z", "307 to /q/12?k=2&z"),
        (3, "/p/x", "404"),
        (3, "/x", "302 to /y/7"),
        (4, "/blog/hi", "200 post"),
        (4, "/api/a/b?c", "forward /v1/a/b?c"),
        (4, "/other", "200 index.html"),
        (4, "/app/x", "404"),
        (4, "/about", "200 about"),
        (5, "/a.txt", "200 a.txt x-file=a x-path=a.txt"),
        (5, "/about", "200 about x-path=about"),
    ] {
        let routes = routes_of(&tables[at]);
        let client = Visit("shop.example", &[("x-a", "7")]);
        assert_eq!(decided(&routes, target, &client), expected, "{at} {target}");
    }
    let moved = decided(
        &routes_of(&tables[3]),
        "/a/b",
        &Visit("de.old.example", &[]),
    );
    assert_eq!(moved, "308 to https://de.new.example/a/b");
}
