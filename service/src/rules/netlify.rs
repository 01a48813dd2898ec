//! `netlify.toml`: its `[[redirects]]` and `[[headers]]`, as lines of `_redirects` and `_headers`.
//!
//! Pure. Each entry becomes the line that says the same, so that one reader decides what can be carried out; whatever it
//! complains of carries the line of the entry. Other tables are about the build, and are left alone.

use std::collections::BTreeMap;

use helix_routing::routes::{RouteError, WrittenLines};
use serde::Deserialize;
use toml::Spanned;
use toml::Value;

use super::{NETLIFY, line, refused};

/// Most characters of a text that is shown.
const SHOWN: usize = 60;

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    redirects: Vec<Spanned<Value>>,
    #[serde(default)]
    headers: Vec<Spanned<Value>>,
    #[serde(default)]
    edge_functions: Vec<Spanned<Value>>,
}

/// One entry of `[[redirects]]`, under each name that Netlify takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Redirect {
    #[serde(alias = "origin")]
    from: String,
    #[serde(alias = "destination")]
    to: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    force: bool,
    #[serde(default, alias = "params", alias = "parameters")]
    query: BTreeMap<String, String>,
    #[serde(default)]
    conditions: BTreeMap<String, OneOrMore>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(alias = "sign", alias = "signing")]
    signed: Option<Value>,
    #[serde(alias = "rateLimit")]
    rate_limit: Option<Value>,
    #[serde(alias = "edge_handlers")]
    edge_handler: Option<Value>,
}

/// One entry of `[[headers]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Headers {
    #[serde(rename = "for", alias = "path")]
    path: String,
    #[serde(default)]
    values: BTreeMap<String, OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn all(&self) -> Vec<&str> {
        match self {
            Self::One(one) => vec![one],
            Self::More(all) => all.iter().map(String::as_str).collect(),
        }
    }
}

/// Lines of `_redirects`, and of `_headers`.
type Both = (WrittenLines, WrittenLines);

/// Reads `text`, a whole `netlify.toml`.
///
/// # Errors
/// Everything that cannot be carried out, each with the line of its entry.
pub(super) fn read(text: &str) -> Result<Both, Vec<RouteError>> {
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let problem = error.message().replace('\n', " ");
        vec![refused(NETLIFY, line_at(text, at), problem)]
    })?;
    let mut errors = Vec::new();
    let (mut redirects, mut headers) = (Vec::new(), Vec::new());
    for (at, entry) in file.redirects.into_iter().enumerate() {
        let number = line_at(text, entry.span().start);
        let read = entry.into_inner().try_into().map_err(|error| told(&error));
        match read.and_then(redirect) {
            Ok(written) => redirects.push((number, written)),
            Err(problem) => {
                errors.push(refused(
                    NETLIFY,
                    number,
                    format!("redirects[{at}]: {problem}"),
                ));
            }
        }
    }
    for (at, entry) in file.headers.into_iter().enumerate() {
        let number = line_at(text, entry.span().start);
        let read = entry.into_inner().try_into().map_err(|error| told(&error));
        match read.and_then(block) {
            Ok(written) => headers.extend(written.into_iter().map(|line| (number, line))),
            Err(problem) => {
                errors.push(refused(
                    NETLIFY,
                    number,
                    format!("headers[{at}]: {problem}"),
                ));
            }
        }
    }
    errors.extend(file.edge_functions.iter().take(1).map(|entry| {
        let problem =
            "`[[edge_functions]]` need a runtime on the edges, which do not run functions yet";
        refused(
            NETLIFY,
            line_at(text, entry.span().start),
            problem.to_owned(),
        )
    }));
    if errors.is_empty() {
        let of = |lines| WrittenLines {
            file: NETLIFY,
            lines,
        };
        Ok((of(redirects), of(headers)))
    } else {
        Err(errors)
    }
}

fn line_at(text: &str, at: usize) -> usize {
    line(text.as_bytes().get(..at).unwrap_or_default())
}

fn told(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

/// The line of `_redirects` that says the same.
fn redirect(written: Redirect) -> Result<String, String> {
    for (key, there) in [
        ("headers", !written.headers.is_empty()),
        ("signed", written.signed.is_some()),
        ("rate_limit", written.rate_limit.is_some()),
        ("edge_handler", written.edge_handler.is_some()),
    ] {
        if there {
            return Err(format!(
                "`{key}` is not possible: an edge has nothing that it could do"
            ));
        }
    }
    let mut tokens = vec![token("from", &written.from)?];
    for (name, value) in &written.query {
        tokens.push(token("query", &format!("{name}={value}"))?);
    }
    let to = written
        .to
        .as_deref()
        .map(|to| token("to", to))
        .transpose()?;
    let sends_to = to.as_deref().is_none_or(|to| {
        ["/", "http://", "https://"]
            .iter()
            .any(|start| to.starts_with(start))
    });
    if !sends_to {
        return Err("`to` has to start with `/`, or to be a URL".to_owned());
    }
    let needs_status = written.status.is_some() || written.force || to.is_none();
    tokens.extend(to);
    if needs_status {
        let force = if written.force { "!" } else { "" };
        tokens.push(format!("{}{force}", written.status.unwrap_or(301)));
    }
    for (name, values) in &written.conditions {
        tokens.push(token(
            "conditions",
            &format!("{name}={}", values.all().join(",")),
        )?);
    }
    Ok(tokens.join(" "))
}

/// What is one word of a line, and no comment.
fn token(key: &str, text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('#') || text.contains(char::is_whitespace) {
        let shown: String = text
            .chars()
            .take(SHOWN)
            .flat_map(char::escape_default)
            .collect();
        return Err(format!(
            "`{key}` cannot be `{shown}`: it is empty, has a space, or starts with `#`"
        ));
    }
    Ok(text.to_owned())
}

/// The lines of `_headers` that say the same.
fn block(written: Headers) -> Result<Vec<String>, String> {
    let mut lines = vec![token("for", &written.path)?];
    if !written.path.starts_with('/') {
        return Err("`for` has to start with `/`".to_owned());
    }
    for (name, values) in &written.values {
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(format!(
                "values: `{}` is no name of a field",
                name.escape_default()
            ));
        }
        for value in values.all() {
            // People break long values over lines.
            let words: Vec<&str> = value.split_whitespace().collect();
            lines.push(format!("  {name}: {}", words.join(" ")));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;

    fn compiled(
        text: &str,
        redirects: &str,
    ) -> Result<helix_routing::routes::Routes, Vec<RouteError>> {
        let rules = Rules {
            netlify: Some(text.to_owned()),
            redirects: Some(redirects.to_owned()),
            ..Rules::default()
        };
        rules.compile()
    }

    #[test]
    fn entries_are_rules_behind_those_of_the_two_files() {
        let text = r#"
[build]
command = "make"

[[redirects]]
from = "/a/*"
to = "/b/:splat"

[[redirects]]
from = "/store"
to = "/products/:id"
status = 302
force = true
query = { id = ":id" }
conditions = { Language = ["de", "at"], Cookie = ["beta"] }

[[headers]]
for = "/*"
[headers.values]
X-Frame-Options = "DENY"
Cache-Control = """
public,
max-age=1"""
Link = ["</a>; rel=preload", "</b>; rel=preload"]
"#;
        let routes = compiled(text, "/first /x 302\n").unwrap();
        let shown: Vec<_> = routes
            .redirects
            .iter()
            .map(|rule| {
                (
                    rule.line,
                    rule.beside,
                    rule.status,
                    rule.force,
                    rule.to.as_str(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (1, false, 302, false, "/x"),
                (5, true, 301, false, "/b/:splat"),
                (9, true, 302, true, "/products/:id"),
            ]
        );
        assert_eq!(
            (
                routes.redirects[2].query.len(),
                routes.redirects[2].conditions.len()
            ),
            (1, 2)
        );
        let fields: Vec<_> = routes.headers[0]
            .fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            fields,
            [
                "cache-control=public, max-age=1",
                "link=</a>; rel=preload, </b>; rel=preload",
                "x-frame-options=DENY"
            ]
        );
        assert_eq!(routes.headers[0].line, 17);
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_its_entry_and_line() {
        for (entry, words) in [
            (
                "[[redirects]]\nfrom = \"/a\"\nto = \"/b\"\nconditions = { Country = [\"de\"] }",
                "netlify.toml:2: `Country`",
            ),
            (
                "[[redirects]]\nfrom = \"/a\"\nto = \"/b\"\nsigned = \"X\"",
                "netlify.toml:2: redirects[0]: `signed`",
            ),
            (
                "[[redirects]]\nfrom = \"/a\"\nto = \"/b\"\nheaders = { X = \"y\" }",
                "`headers`",
            ),
            (
                "[[redirects]]\nfrom = \"/a\"\nto = \"/b\"\nrate_limit = { a = 1 }",
                "`rate_limit`",
            ),
            (
                "[[redirects]]\nfrom = \"/a b\"\nto = \"/b\"",
                "`from` cannot be `/a b`",
            ),
            (
                "[[redirects]]\nfrom = \"/a\"\nto = \"b\"",
                "`to` has to start",
            ),
            (
                "[[redirects]]\nfrom = \"/a\"\nto = \"https://x.example/\"\nstatus = 200",
                "upstream",
            ),
            ("[[redirects]]\nfrom = \"/a\"\ntoo = \"/b\"", "too"),
            ("[[redirects]]\nto = \"/b\"", "from"),
            (
                "[[headers]]\nfor = \"/a\"\nvalues = { \"/x\" = \"1\" }",
                "is no name of a field",
            ),
            (
                "[[headers]]\nfor = \"a\"\nvalues = { X = \"1\" }",
                "`for` has to start",
            ),
            (
                "[[headers]]\nfor = \"/a\"\nvalues = { Content-Length = \"1\" }",
                "netlify.toml:2: `content-length`",
            ),
            ("[[edge_functions]]\nfunction = \"a\"", "need a runtime"),
            ("[[redirects", "netlify.toml:2: "),
        ] {
            let errors = compiled(&format!("\n{entry}\n"), "").unwrap_err();
            let text = errors[0].to_string();
            assert!(text.starts_with("netlify.toml:"), "{text}");
            assert!(text.contains(words), "{entry}: {text}");
        }
    }
}
