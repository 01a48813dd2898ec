//! `_headers`: blocks of a path and the fields its responses carry, in Netlify's syntax.
//!
//! ```text
//! /assets/*
//!   Cache-Control: public, max-age=31536000
//!   X-Frame-Options: DENY
//! /assets/frame/*
//!   ! X-Frame-Options
//! ```
//!
//! Pure. All blocks for a path count, in order; `! Name` takes away what those before gave, as Cloudflare has
//! it. A field that an edge must decide by itself is refused by its name.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use super::{RouteError, WrittenLines};

/// Most blocks. Each with a wildcard may have to be tried for each request.
pub(super) const MAX_BLOCKS: usize = 200;
/// Most fields of one block.
pub(super) const MAX_FIELDS: usize = 40;
/// Longest line, in bytes: a content security policy is the longest that people write.
pub(super) const MAX_LINE_BYTES: usize = 4096;
/// Most bytes of fields in all blocks: a response never carries more, and clients refuse heads above 64 KiB or so.
pub(super) const MAX_BYTES: usize = 32 * 1024;

const FILE: &str = "_headers";

/// Fields that are the edge's to decide, or belong to one connection.
const FORBIDDEN: &[&str] = &[
    "accept-ranges",
    "age",
    "allow",
    "alt-svc",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "etag",
    "expect",
    "host",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "server",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "www-authenticate",
];

/// Fields that can have only one value: the last block counts. Others get the values of all blocks.
const SINGLE: &[&str] = &[
    "access-control-allow-credentials",
    "access-control-allow-origin",
    "access-control-max-age",
    "cache-control",
    "cdn-cache-control",
    "content-disposition",
    "content-location",
    "content-type",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "expires",
    "origin-agent-cluster",
    "pragma",
    "referrer-policy",
    "refresh",
    "retry-after",
    "sourcemap",
    "strict-transport-security",
    "x-content-type-options",
    "x-dns-prefetch-control",
    "x-download-options",
    "x-frame-options",
    "x-permitted-cross-domain-policies",
    "x-xss-protection",
];

/// The fields of some paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderRule {
    /// Line of its path, counted from 1.
    pub line: usize,
    /// The paths, whatever their case.
    pub path: Pattern,
    /// Fields of blocks before that these paths do not have, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// Name, in lower case, and value of each field.
    pub fields: Vec<(String, String)>,
}

/// Whether a field can have only one value, so that a later rule for it replaces an earlier one.
#[must_use]
pub(super) fn is_single(name: &str) -> bool {
    SINGLE.contains(&name)
}

/// Reads a whole `_headers`, and `more` lines behind it.
///
/// # Errors
/// Everything that is wrong in it, each with its line.
pub(super) fn parse(text: &str, more: &WrittenLines) -> Result<Vec<HeaderRule>, Vec<RouteError>> {
    let mut rules: Vec<HeaderRule> = Vec::new();
    let mut errors = Vec::new();
    let mut bytes = 0;
    // Fields below a path that was refused are checked all the same, and go nowhere.
    let mut refused = false;
    for (file, number, line) in more.after(FILE, text) {
        let outcome = match line.trim() {
            "" => Ok(()),
            comment if comment.starts_with('#') => Ok(()),
            _ if line.len() > MAX_LINE_BYTES => {
                Err(format!("the line is longer than {MAX_LINE_BYTES} bytes"))
            }
            path if path.starts_with('/') => {
                refused = true;
                block(number, path, &mut rules).inspect(|()| refused = false)
            }
            field => {
                bytes += field.len();
                let rule = rules.last_mut().filter(|_| !refused);
                add(field, rule, refused)
            }
        };
        errors.extend(outcome.err().map(|problem| error(file, number, problem)));
    }
    if bytes > MAX_BYTES {
        errors.push(error(
            FILE,
            1,
            format!("more than {MAX_BYTES} bytes of fields"),
        ));
    }
    rules.retain(|rule| !rule.fields.is_empty() || !rule.without.is_empty());
    if errors.is_empty() {
        Ok(rules)
    } else {
        Err(errors)
    }
}

const fn error(file: &'static str, line: usize, problem: String) -> RouteError {
    RouteError {
        file,
        line,
        problem,
    }
}

fn block(line: usize, path: &str, rules: &mut Vec<HeaderRule>) -> Result<(), String> {
    if rules.len() == MAX_BLOCKS {
        return Err(format!("more than {MAX_BLOCKS} paths"));
    }
    rules.push(HeaderRule {
        line,
        path: Pattern::parse(path).map_err(|error| error.to_string())?,
        without: Vec::new(),
        fields: Vec::new(),
    });
    Ok(())
}

/// Adds a field to its block, or what it goes without. One that is repeated there is joined to the first.
fn add(field: &str, rule: Option<&mut HeaderRule>, refused: bool) -> Result<(), String> {
    let (name, value) = match field.strip_prefix('!') {
        Some(name) => (known(name)?, None),
        None => split(field).map(|(name, value)| (name, Some(value)))?,
    };
    let Some(rule) = rule else {
        return if refused {
            Ok(())
        } else {
            Err(format!(
                "`{name}` stands before any path: a path starts with `/`"
            ))
        };
    };
    let Some(value) = value else {
        if rule.without.len() == MAX_FIELDS {
            return Err(format!("more than {MAX_FIELDS} fields for one path"));
        }
        rule.without.push(name);
        return Ok(());
    };
    if let Some((_, first)) = rule.fields.iter_mut().find(|(other, _)| *other == name) {
        first.push_str(", ");
        first.push_str(value);
    } else if rule.fields.len() == MAX_FIELDS {
        return Err(format!("more than {MAX_FIELDS} fields for one path"));
    } else {
        rule.fields.push((name, value.to_owned()));
    }
    Ok(())
}

fn split(field: &str) -> Result<(String, &str), String> {
    let (name, value) = field.split_once(':').ok_or_else(|| {
        let shown: String = field.chars().take(60).collect();
        format!("`{shown}` is no field like `Name: value`, nor a path, which starts with `/`")
    })?;
    let (name, value) = (known(name)?, value.trim());
    if value.is_empty() {
        return Err(format!("`{name}` has no value"));
    }
    if !value
        .bytes()
        .all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte))
    {
        return Err(format!(
            "the value of `{name}` holds what is not ASCII, or a control character"
        ));
    }
    Ok((name, value))
}

/// The name of a field that a site may decide on, in lower case.
pub(super) fn known(name: &str) -> Result<String, String> {
    let name = name.trim().to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&byte);
    if name.is_empty() || name.len() > 100 || !name.bytes().all(token) {
        return Err("the name of the field is not made of letters, digits and hyphens".to_owned());
    }
    if name == "basic-auth" {
        return Err("`basic-auth` would put a password into the release: an edge keeps no visitors' passwords".to_owned());
    }
    if FORBIDDEN.contains(&name.as_str())
        || name.starts_with("x-helix-")
        || name.starts_with("proxy-")
    {
        return Err(format!("`{name}` is set by the edge and cannot be changed"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Vec<HeaderRule>, Vec<RouteError>> {
        super::parse(text, &WrittenLines::default())
    }

    #[test]
    fn blocks_are_read_with_their_lines() {
        let text = "# all\n/*\n  X-Frame-Options: DENY\n\n\tLink: </a.css>; rel=preload\n  link: </b.js>; rel=preload\n/empty\n/a/:b\nCache-Control:no-store\n";
        let rules = parse(text).unwrap();
        let shown: Vec<_> = rules
            .iter()
            .map(|rule| (rule.line, rule.path.as_str(), rule.fields.clone()))
            .collect();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            shown,
            [
                (
                    2,
                    "/*",
                    vec![
                        field("x-frame-options", "DENY"),
                        field("link", "</a.css>; rel=preload, </b.js>; rel=preload"),
                    ]
                ),
                (8, "/a/:b", vec![field("cache-control", "no-store")]),
            ]
        );
    }

    #[test]
    fn a_block_may_go_without_what_others_give() {
        let rules = parse("/a\n  ! X-Frame-Options\n  !x-b\n  X-B: 1\n/b\n  ! Link\n").unwrap();
        assert_eq!(rules[0].without, ["x-frame-options", "x-b"]);
        assert_eq!(rules[0].fields, [("x-b".to_owned(), "1".to_owned())]);
        assert_eq!((rules[1].line, rules[1].fields.len()), (5, 0));
        let lines = |text: &str| -> Vec<_> {
            let errors = parse(text).unwrap_err();
            errors.iter().map(|error| error.line).collect()
        };
        assert_eq!(lines("! Early\n/a\n  !\n  ! a b\n  ! ETag\n"), [1, 3, 4, 5]);
    }

    #[test]
    fn everything_that_is_wrong_is_named_with_its_line() {
        let text = "X-Early: 1\n/a\n  Content-Length: 5\n  nothing\n  X-Helix-Release: x\n  Basic-Auth: a:b\n  X-Empty:\n  b d: 1\n  x: \u{1}\n/..\n  X: 1\n/b\n  Set-Cookie: a\n";
        let errors = parse(text).unwrap_err();
        let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 6, 7, 8, 9, 10, 13]);
        assert_eq!(
            errors[1].to_string(),
            "_headers:3: `content-length` is set by the edge and cannot be changed"
        );
        assert!(!errors[4].to_string().contains("a:b"));
    }

    #[test]
    fn counts_and_lengths_are_bounded() {
        assert!(parse(&"/a\n x: 1\n".repeat(MAX_BLOCKS)).is_ok());
        assert_eq!(
            parse(&"/a\n x: 1\n".repeat(MAX_BLOCKS + 1))
                .unwrap_err()
                .len(),
            1
        );
        assert!(parse(&format!("/a\n x: {}\n", "y".repeat(MAX_LINE_BYTES))).is_err());
        let long = format!("/a\n x: {}\n", "y".repeat(4000));
        assert!(parse(&long.repeat(9)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(/[a*:]{0,3}|[ \t]?[a-z-]{0,5}: ?[ -~]{0,5}|#|\\PC{0,9}|\n){0,20}") {
            let _ = parse(&text);
        }
    }
}
