//! A site and its visitors, for the tests beside it.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::Routes;
use super::super::decide::{Client, Decided, Decision, Rules, Target};
use super::super::html::Files;
use super::super::path::decode;
use super::*;

#[path = "compile_tests.rs"]
mod compiling;
#[path = "condition_tests.rs"]
mod conditions;
#[path = "phase_tests.rs"]
mod phases;

/// A request, as `METHOD host path?query`, and fields.
struct Visit<'a> {
    method: &'a str,
    host: &'a str,
    fields: &'a [(&'a str, &'a str)],
}

impl Client for Visit<'_> {
    fn host(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.host)
    }
    fn is_secure(&self) -> bool {
        true
    }
    fn accept_language(&self) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(name, _)| *name == "accept-language");
        found.map(|(_, value)| *value)
    }
    fn has_cookie(&self, name: &str) -> bool {
        self.cookie(name).is_some()
    }
    fn accepts_html(&self) -> bool {
        true
    }
    fn method(&self) -> &str {
        self.method
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let found = self.fields.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| Cow::Borrowed(*value))
    }
    fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        let cookies = self.fields.iter().filter(|(known, _)| *known == "cookie");
        let mut pairs = cookies.filter_map(|(_, value)| value.split_once('='));
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| Cow::Borrowed(value))
    }
}

struct Site(Vec<&'static str>);

impl Files for &Site {
    type File = &'static str;

    fn file(&self, path: &str) -> Option<Self::File> {
        self.0.iter().copied().find(|file| *file == path)
    }
}

const FILES: [&str; 9] = [
    "index.html",
    "about/index.html",
    "a.txt",
    "404.html",
    "500.html",
    "blog/[slug]",
    "de/index.html",
    "app/x.js",
    "s p.txt",
];

fn written(json: &str) -> OutputConfig {
    let routes: Vec<WrittenRoute> = serde_json::from_str(json).unwrap();
    OutputConfig {
        routes: routes
            .into_iter()
            .enumerate()
            .map(|(at, route)| (at + 1, route))
            .collect(),
        ..OutputConfig::default()
    }
}

fn routes_of(config: &OutputConfig) -> Routes {
    let (output, upstreams) = config.compile(true).unwrap();
    Routes {
        output: Some(Box::new(output)),
        upstreams,
        ..Routes::default()
    }
}

fn visit_with(routes: &Routes, visit: &Visit<'_>, target: &str) -> Decided<&'static str> {
    let (raw, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    let path = decode(raw).unwrap().unwrap();
    let site = Site(FILES.to_vec());
    Rules::new(routes).decide(
        routes,
        &&site,
        Target {
            raw,
            path: &path,
            query,
        },
        visit,
    )
}

fn shown(decided: &Decided<&'static str>) -> String {
    let mut text = match &decided.decision {
        Decision::File { file, status } => format!("{status} {file}"),
        Decision::Redirect { status, location } => format!("{status} to {location}"),
        Decision::Forward(at) => format!("forward {at}"),
        Decision::Nothing { status } => format!("{status}"),
    };
    if let Some(given) = &decided.given {
        for (name, value) in &given.fields {
            text.push_str(&format!(" {name}={value}"));
        }
        if let Some(target) = &given.upstream_target {
            text.push_str(&format!(" {target}"));
        }
    }
    text
}

fn get(routes: &str, target: &str) -> String {
    get_with(routes, &[], target)
}

fn get_with(routes: &str, fields: &[(&str, &str)], target: &str) -> String {
    let visit = Visit {
        method: "GET",
        host: "shop.example",
        fields,
    };
    shown(&visit_with(&routes_of(&written(routes)), &visit, target))
}
