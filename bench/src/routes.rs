//! How long routes take to decide a request: 2,000 of a Build Output, with and without look-around.
//!
//! Measures `decide` alone, in this process: no socket, no file. Each path is asked for many times in turn, and what is
//! printed is the median over all and the worst path by its own median, since a single sample is as long as the machine's
//! next interruption.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};

use helix_routing::routes::{Client, Files, Routes, Rules, Target, decode};
use helix_service::rules::output::OUTPUT_CONFIG;
use helix_service::rules::{REDIRECTS, Rules as Texts};

use crate::figures::Figures;

/// Times that each path is asked for.
const ROUNDS: usize = 2_000;
/// Decisions between two looks at the clock: it takes as long as one of them.
const AT_ONCE: u32 = 16;

/// A site of one page.
struct Page;

impl Files for Page {
    type File = ();

    fn file(&self, path: &str) -> Option<()> {
        (path == "index.html" || path == "page/[slug].html").then_some(())
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
    fn has_cookie(&self, _name: &str) -> bool {
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

/// Prints the figures of each table.
pub(crate) fn run(count: usize) -> anyhow::Result<()> {
    for (name, file, text) in [
        ("no look-around", OUTPUT_CONFIG, plain(count)),
        ("look-around", OUTPUT_CONFIG, looking(count)),
        (
            "_redirects, one in ten with a wildcard",
            REDIRECTS,
            redirects(count),
        ),
    ] {
        let started = Instant::now();
        let mut texts = Texts::default();
        texts.add(file, text.into_bytes())?;
        let routes = texts
            .compile()
            .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let compiled = started.elapsed();
        let before = resident()?;
        let started = Instant::now();
        let rules = Rules::new(&routes);
        let arranged = started.elapsed();
        let (median, worst, path) = measure(&routes, &rules, count);
        println!(
            "{count} routes, {name}: median {median:?}, worst path {worst:?} ({:.40})  \
             compiled in {compiled:.1?}, arranged in {arranged:.1?}, {} KiB",
            path,
            resident()?.saturating_sub(before)
        );
    }
    Ok(())
}

/// The median over all, and the path whose own median is the longest.
fn measure(routes: &Routes, rules: &Rules, count: usize) -> (Duration, Duration, String) {
    let mut all = Vec::new();
    let mut worst = (Duration::ZERO, String::new());
    for raw in paths(count) {
        let samples: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let started = Instant::now();
                for _ in 0..AT_ONCE {
                    let path = decode(&raw).unwrap().unwrap();
                    let target = Target {
                        raw: &raw,
                        path: &path,
                        query: Some("utm_source=mail&a=b"),
                    };
                    black_box(rules.decide(routes, &Page, black_box(target), &Browser));
                }
                started.elapsed() / AT_ONCE
            })
            .collect();
        let own = Figures::of(samples.clone()).quantile(500);
        if own > worst.0 {
            worst = (own, raw);
        }
        all.extend(samples);
    }
    (Figures::of(all).quantile(500), worst.0, worst.1)
}

/// What visitors ask for, most of it known to some route.
fn paths(count: usize) -> Vec<String> {
    let at = |share: usize| count * share / 100;
    vec![
        "/".to_owned(),
        format!("/old/page-{}", at(5)),
        format!("/old/page-{}", at(30)),
        format!("/section-{}/an-article", at(62)),
        format!("/section-{}/2026/11/an-article-with-a-long-name", at(75)),
        format!("/docs/v{}/guide/start.html", at(90)),
        "/page/some-product".to_owned(),
        "/assets/app-DiwrgTda.js".to_owned(),
        "/no/such/path/anywhere/at/all".to_owned(),
        format!("/{}", "a".repeat(400)),
        format!("/section-1/{}", "x/".repeat(200)),
    ]
}

/// As redirects of an old site, fields for folders and dynamic pages are written.
fn plain(count: usize) -> String {
    table(count, |at| match at % 10 {
        0..=5 => format!(
            r#"{{"src":"^/old/page-{at}(?:/)?$","headers":{{"Location":"/new/{at}"}},"status":308}}"#
        ),
        6 | 7 => format!(
            r#"{{"src":"^/section-{at}(?:/(.*))?$","headers":{{"x-section":"{at}"}},"continue":true}}"#
        ),
        8 => format!(
            r#"{{"src":"^/section-{at}/(?<year>[0-9]{{4}})/([^/]+?)$","dest":"/archive/$year/$2"}}"#
        ),
        _ => format!(r#"{{"src":"^/docs/v{at}/(.*)\\.html$","dest":"/docs/$1"}}"#),
    })
}

/// The same, each with what must not follow; and 20 that are for every path but some.
fn looking(count: usize) -> String {
    table(count, |at| match at % 100 {
        0 => format!(
            r#"{{"src":"^/((?!_next/|api/|area-{at}/).*)$","headers":{{"x-all":"{at}"}},"continue":true}}"#
        ),
        1..=14 => format!(
            r#"{{"src":"^/section-{at}/(?!draft|private)([^/]+?)(?:/)?$","headers":{{"x-section":"{at}"}},"continue":true}}"#
        ),
        _ => format!(
            r#"{{"src":"^/old/page-{at}(?:/)?$","headers":{{"Location":"/new/{at}"}},"status":308}}"#
        ),
    })
}

fn redirects(count: usize) -> String {
    let rule = |at: usize| match at % 10 {
        0 => format!("/section-{at}/*  /new/{at}/:splat  301\n"),
        _ => format!("/old/page-{at}  /new/{at}  301\n"),
    };
    (0..count).map(rule).collect()
}

fn table(count: usize, route: impl Fn(usize) -> String) -> String {
    // As Next.js writes them: for everything but its own files.
    let wide = [
        r#"{"src":"^(?:/((?!_next/|api/)(?:[^/]+?)(?:/(?:[^/]+?))*))/$","headers":{"Location":"/$1"},"status":308}"#,
        r#"{"src":"^/((?!_next/static|favicon\\.ico).*)$","headers":{"x-frame-options":"DENY"},"continue":true}"#,
    ];
    let mut all: Vec<String> = (0..count.saturating_sub(4)).map(route).collect();
    if all.iter().any(|one| one.contains("(?!")) {
        all.splice(0..0, wide.map(str::to_owned));
    }
    all.push(r#"{"handle":"rewrite"}"#.to_owned());
    all.push(
        r#"{"src":"^/page/(?<slug>[^/]+?)$","dest":"/page/[slug].html?slug=$slug"}"#.to_owned(),
    );
    format!(r#"{{"version":3,"routes":[{}]}}"#, all.join(","))
}

/// Memory of this process in KiB.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line
        .unwrap_or_default()
        .trim()
        .trim_end_matches(" kB")
        .parse()?)
}
