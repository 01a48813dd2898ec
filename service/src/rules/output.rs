//! `.vercel/output`: what a Build Output API v3 folder says, and which of its files are served under which path.
//!
//! Pure. Reads `config.json` into the shapes of [`helix_routing::routes::output`], with the line of each route; what they
//! mean is that module's business.

use std::collections::BTreeMap;

use helix_routing::routes::RouteError;
use helix_routing::routes::output::{
    FileOverride, Function, OutputConfig, WrittenRoute, WrittenWildcard, check_file_override,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

/// The folder, within what is deployed.
pub const OUTPUT_FOLDER: &str = ".vercel/output/";
/// Its routes.
pub const OUTPUT_CONFIG: &str = ".vercel/output/config.json";
/// Its files that are served.
pub const STATIC_FOLDER: &str = ".vercel/output/static/";
/// Its functions.
pub const FUNCTIONS_FOLDER: &str = ".vercel/output/functions/";
/// What declares a function, within its folder.
pub const FUNCTION_CONFIG: &str = ".vc-config.json";
/// Largest `config.json`, in bytes: tens of thousands of pages that are served under another path than their own.
pub const MAX_OUTPUT_BYTES: u64 = 8 * 1024 * 1024;
/// Most functions of one output.
pub const MAX_FUNCTIONS: usize = 4096;
/// Largest declaration of a function, in bytes.
pub const MAX_FUNCTION_BYTES: u64 = 256 * 1024;

/// The one version of the format that is known.
const VERSION: u64 = 3;
/// Longest media type, in bytes: it becomes a field.
const MAX_MEDIA_TYPE_BYTES: usize = 255;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File<'a> {
    version: u64,
    #[serde(borrow, default)]
    routes: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    overrides: Option<&'a RawValue>,
    #[serde(borrow, default)]
    wildcard: Option<&'a RawValue>,
    #[serde(default)]
    images: Option<IgnoredAny>,
    #[serde(default)]
    crons: Vec<IgnoredAny>,
    #[serde(default)]
    services: Vec<IgnoredAny>,
    // What only tells builders and their machines something.
    #[serde(default, rename = "cache")]
    _cache: Option<IgnoredAny>,
    #[serde(default, rename = "framework")]
    _framework: Option<IgnoredAny>,
    #[serde(default, rename = "deploymentId")]
    _deployment_id: Option<IgnoredAny>,
}

/// Reads `text`, a whole `config.json`.
///
/// # Errors
/// Everything that has not the shape it should, each with its line.
pub(super) fn read(text: &str) -> Result<OutputConfig, Vec<RouteError>> {
    let file: File<'_> =
        serde_json::from_str(text).map_err(|error| vec![problem(error.line(), "", &error)])?;
    if file.version != VERSION {
        let problem = format!(
            "version: {} is no Build Output API that is known here: {VERSION}",
            file.version
        );
        return Err(vec![refused(1, problem)]);
    }
    let mut errors = Vec::new();
    let mut config = OutputConfig::default();
    for (at, raw) in file.routes.iter().enumerate() {
        let line = line_of(text, raw);
        match serde_json::from_str::<WrittenRoute>(raw.get()) {
            Ok(route) => config.routes.push((line, route)),
            Err(error) => errors.push(problem(
                line + error.line().max(1) - 1,
                &format!("routes[{at}]: "),
                &error,
            )),
        }
    }
    config.overrides =
        part::<BTreeMap<String, FileOverride>>(text, "overrides", file.overrides, &mut errors);
    config.wildcard = part::<Vec<WrittenWildcard>>(text, "wildcard", file.wildcard, &mut errors);
    let unserved = [
        ("images", file.images.is_some()),
        ("crons", !file.crons.is_empty()),
        ("services", !file.services.is_empty()),
    ];
    let unserved = unserved.into_iter().filter(|(_, there)| *there);
    config.unserved = unserved.map(|(name, _)| name.to_owned()).collect();
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(errors)
    }
}

fn part<T: DeserializeOwned + Default>(
    text: &str,
    key: &str,
    raw: Option<&RawValue>,
    errors: &mut Vec<RouteError>,
) -> T {
    let Some(raw) = raw else { return T::default() };
    serde_json::from_str(raw.get()).unwrap_or_else(|error| {
        let line = line_of(text, raw) + error.line().max(1) - 1;
        errors.push(problem(line, &format!("{key}: "), &error));
        T::default()
    })
}

/// The line, from 1, where `raw` begins, which was borrowed from `text`.
fn line_of(text: &str, raw: &RawValue) -> usize {
    let at = (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.as_bytes().get(..at).unwrap_or_default();
    super::line(before)
}

fn problem(line: usize, key: &str, error: &serde_json::Error) -> RouteError {
    let text = error.to_string().replace('\n', " ");
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(text, _)| text);
    refused(
        line.max(1),
        format!("{key}{}", text.chars().take(300).collect::<String>()),
    )
}

const fn refused(line: usize, problem: String) -> RouteError {
    RouteError {
        file: OUTPUT_CONFIG,
        line,
        problem,
    }
}

/// What a function's declaration says, as far as is noted; nothing where it cannot be read.
pub(super) fn function(bytes: &[u8]) -> Function {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Declared {
        runtime: String,
        handler: String,
        entrypoint: String,
    }
    let declared: Declared = serde_json::from_slice(bytes).unwrap_or_default();
    let short = |text: String| text.chars().take(200).collect();
    let handler = if declared.handler.is_empty() {
        declared.entrypoint
    } else {
        declared.handler
    };
    Function {
        runtime: short(declared.runtime),
        handler: short(handler),
    }
}

/// The function that a file belongs to, by its path within what is deployed.
#[must_use]
pub fn function_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix(FUNCTIONS_FOLDER)?;
    path.split_once(".func/").map(|(name, _)| name)
}

/// A file of an output as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its path within the release.
    pub path: String,
    /// Its `Content-Type`, if that is said.
    pub media_type: Option<String>,
}

/// Which of the files that are deployed are served, and as what; all others are not. `beside` are files that may lie beside
/// the output.
///
/// # Errors
/// When something lies beside the output, or two files would be served under one path.
pub fn served<'a>(
    config: &OutputConfig,
    files: impl Iterator<Item = &'a str>,
    beside: &[&str],
) -> Result<BTreeMap<&'a str, Served>, Vec<RouteError>> {
    let mut errors = Vec::new();
    let mut served: BTreeMap<&str, Served> = BTreeMap::new();
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for file in files {
        if beside.contains(&file) {
            continue;
        }
        let Some(path) = file.strip_prefix(STATIC_FOLDER) else {
            if !file.starts_with(OUTPUT_FOLDER) {
                let problem = format!(
                    "`{}` lies beside the output: only what is in {OUTPUT_FOLDER} is deployed",
                    shown(file)
                );
                errors.push(refused(1, problem));
            }
            continue;
        };
        match one(config, path) {
            Ok(None) => {}
            Ok(Some(as_served)) => {
                if let Some(other) = taken.insert(as_served.path.clone(), file) {
                    let problem = format!(
                        "overrides: `{}` and `{}` would both be served as `/{}`",
                        shown(other),
                        shown(file),
                        shown(&as_served.path)
                    );
                    errors.push(refused(1, problem));
                }
                served.insert(file, as_served);
            }
            Err(problem) => errors.push(refused(1, problem)),
        }
    }
    // As many as a person reads.
    errors.truncate(20);
    if errors.is_empty() {
        Ok(served)
    } else {
        Err(errors)
    }
}

fn one(config: &OutputConfig, path: &str) -> Result<Option<Served>, String> {
    let key = |problem: &str| format!("overrides[\"{}\"].{problem}", shown(path));
    let (moved, media_type) = check_file_override(path, config.overrides.get(path))
        .map_err(|wrong| key(&format!("path: {wrong}")))?;
    let legal = |kind: &str| {
        (1..=MAX_MEDIA_TYPE_BYTES).contains(&kind.len())
            && kind.bytes().all(|byte| (0x20..0x7f).contains(&byte))
    };
    if media_type.is_some_and(|kind| !legal(kind)) {
        return Err(key("contentType: is no media type"));
    }
    Ok(moved.map(|path| Served {
        path: path.to_owned(),
        media_type: media_type.map(str::to_owned),
    }))
}

fn shown(text: &str) -> String {
    text.chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_the_right_shape_is_named_with_its_line() {
        for (text, line, words) in [
            ("{\n\"version\": 2}", 1, "version: 2"),
            ("{\"version\": 3,\n \"rutes\": []}", 2, "rutes"),
            (
                "{\"version\": 3,\n \"routes\": [\n{\"src\": \"/a\"},\n{\"src\": \"/a\",\n\"dst\": \"/b\"}]}",
                5,
                "routes[1]: unknown field `dst`",
            ),
            (
                "{\"version\": 3, \"routes\": [{\"src\": 1}]}",
                1,
                "routes[0]: ",
            ),
            (
                "{\"version\": 3, \"routes\": [\n{\"src\": \"/\", \"status\": 99999}]}",
                2,
                "routes[0]: ",
            ),
            (
                "{\"version\": 3,\n\n\"overrides\": {\"a\": {\"paht\": \"b\"}}}",
                3,
                "overrides: unknown field `paht`",
            ),
            ("{\"version\": 3", 1, "EOF"),
            ("[]", 1, ""),
            ("", 1, "EOF"),
        ] {
            let errors = read(text).unwrap_err();
            assert_eq!(errors[0].line, line, "{text}: {}", errors[0]);
            assert!(errors[0].problem.contains(words), "{text}: {}", errors[0]);
        }
        let deep = format!(
            "{{\"version\":3,\"routes\":[{}{}]}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(read(&deep).is_err());
    }

    #[test]
    fn what_edges_do_not_serve_is_noted() {
        let config = read(r#"{"version":3,"images":{"sizes":[1]},"crons":[{"path":"/a","schedule":"* * * * *"}],"framework":{"version":"1"},"cache":["x"]}"#).unwrap();
        assert_eq!(config.unserved, ["images", "crons"]);
        let function = function(br#"{"runtime":"nodejs22.x","handler":"index.js","memory":1}"#);
        assert_eq!(
            (function.runtime.as_str(), function.handler.as_str()),
            ("nodejs22.x", "index.js")
        );
        assert_eq!(
            function_of(".vercel/output/functions/api/a.func/.vc-config.json"),
            Some("api/a")
        );
        assert_eq!(function_of(".vercel/output/static/a.func/x"), None);
    }

    #[test]
    fn files_are_served_as_overrides_say() {
        let config = read(r#"{"version":3,"overrides":{"a.html":{"path":"a","contentType":"text/html; charset=utf-8"},"gone.html":{"path":"gone/"},"b.html":{"path":"x/../b"},"c.bin":{"contentType":"\n"}}}"#).unwrap();
        let map = |files: &[&'static str]| served(&config, files.iter().copied(), &["helix.toml"]);
        let found = map(&[
            OUTPUT_CONFIG,
            "helix.toml",
            ".vercel/output/static/a.html",
            ".vercel/output/static/d/e.js",
            ".vercel/output/static/gone.html",
            ".vercel/output/functions/x.func/i.js",
        ])
        .unwrap();
        let shown: Vec<_> = found
            .values()
            .map(|one| (one.path.as_str(), one.media_type.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [("a", Some("text/html; charset=utf-8")), ("d/e.js", None)]
        );
        for (files, words) in [
            (&["package.json"][..], "lies beside"),
            (
                &[".vercel/output/static/a.html", ".vercel/output/static/a"],
                "both be served as `/a`",
            ),
            (
                &[".vercel/output/static/b.html"],
                "overrides[\"b.html\"].path",
            ),
            (
                &[".vercel/output/static/c.bin"],
                "overrides[\"c.bin\"].contentType",
            ),
        ] {
            let errors = map(files).unwrap_err();
            assert!(errors[0].problem.contains(words), "{}", errors[0]);
        }
    }
}
