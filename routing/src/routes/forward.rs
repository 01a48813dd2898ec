//! Which requests are sent on to an upstream.
//!
//! Paths are compared as sent. One that could mean another path to a server that resolves dots or
//! decodes twice fits no rule, so that what lies outside a rule cannot be reached through it.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::{KeyProblem, Upstream};

/// Longest path of a rule, in bytes.
pub(super) const MAX_PATH_BYTES: usize = 1024;
/// Most upstreams of a release: each may hold connections and be asked about its health.
pub(super) const MAX_UPSTREAMS: usize = 32;
/// Most rules of a release; they are tried one after the other.
pub(super) const MAX_FORWARDS: usize = 100;
/// Longest name of an upstream, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// Requests that are sent on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Path that the request's must be, or, if it ends with `/*`, be or lie below.
    pub path: String,
    /// Name of the upstream.
    pub upstream: String,
    /// Start of the path that the upstream is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip: Option<String>,
    /// Whether responses may be kept and used again (RFC 9111).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub cache: bool,
}

impl Forward {
    /// Whether a request for `path`, escaped as sent, is sent on by this rule.
    #[must_use]
    pub fn fits(&self, path: &str) -> bool {
        self.covers(path) && is_plain(path)
    }

    /// The path the upstream is sent for `path`, which [fits](Self::fits).
    #[must_use]
    pub fn path_for<'a>(&self, path: &'a str) -> Cow<'a, str> {
        let stripped = self
            .strip
            .as_deref()
            .and_then(|strip| path.strip_prefix(strip));
        match stripped {
            None => Cow::Borrowed(path),
            Some(rest) if rest.starts_with('/') => Cow::Borrowed(rest),
            Some(rest) => Cow::Owned(format!("/{rest}")),
        }
    }

    fn covers(&self, path: &str) -> bool {
        match self.path.strip_suffix("/*") {
            None => path == self.path,
            Some(folder) => path
                .strip_prefix(folder)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    fn check(&self, at: usize, upstreams: &BTreeMap<String, Upstream>) -> Result<(), KeyProblem> {
        let key = |key: &str| format!("forward[{at}].{key}");
        check_path(&self.path).map_err(|problem| KeyProblem::new(key("path"), problem))?;
        if !upstreams.contains_key(&self.upstream) {
            let problem = format!("there is no [upstreams.{}]", shortened(&self.upstream));
            return Err(KeyProblem::new(key("upstream"), problem));
        }
        let fixed = self.path.strip_suffix("/*").unwrap_or(&self.path);
        let stripped = self.strip.as_deref().is_none_or(|strip| {
            strip.starts_with('/')
                && !strip.ends_with('/')
                && fixed
                    .strip_prefix(strip)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if stripped {
            Ok(())
        } else {
            Err(KeyProblem::new(
                key("strip"),
                "must be the start of path, whole parts of it, without / at its end",
            ))
        }
    }
}

/// Checks every upstream and every rule.
///
/// # Errors
/// Names the first key that is wrong.
pub(super) fn check(
    upstreams: &BTreeMap<String, Upstream>,
    forwards: &[Forward],
) -> Result<(), KeyProblem> {
    if upstreams.len() > MAX_UPSTREAMS {
        return Err(KeyProblem::new(
            "upstreams",
            format!(
                "has {} entries; {MAX_UPSTREAMS} are possible",
                upstreams.len()
            ),
        ));
    }
    if forwards.len() > MAX_FORWARDS {
        return Err(KeyProblem::new(
            "forward",
            format!(
                "has {} entries; {MAX_FORWARDS} are possible",
                forwards.len()
            ),
        ));
    }
    for (name, upstream) in upstreams {
        if !is_name(name) {
            let key = format!("upstreams.{}", shortened(name));
            return Err(KeyProblem::new(
                key,
                "a name has 1 to 63 letters a to z, digits and -",
            ));
        }
        upstream.check(name)?;
    }
    forwards
        .iter()
        .enumerate()
        .try_for_each(|(at, forward)| forward.check(at, upstreams))
}

/// Whether `name` can be that of an upstream or a gate.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn shortened(text: &str) -> String {
    text.chars()
        .take(MAX_NAME_BYTES)
        .collect::<String>()
        .escape_default()
        .collect()
}

fn check_path(path: &str) -> Result<(), String> {
    let fixed = path.strip_suffix("/*").unwrap_or(path);
    let legal = path.starts_with('/')
        && path.len() <= MAX_PATH_BYTES
        && fixed
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'?' | b'#'));
    if !legal {
        return Err("must start with /, be escaped as a client sends it, and may have one * as its last part".to_owned());
    }
    if is_plain(fixed) {
        Ok(())
    } else {
        Err("has a part . or .., a backslash, or an escaped slash or dot".to_owned())
    }
}

/// Whether every server reads `path` as these same parts: none is `.` or `..`, escaped or not, and none
/// hides a slash, a backslash or a NUL.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    if needs_a_look(bytes) {
        return bytes.split(|byte| *byte == b'/').all(is_plain_part);
    }
    true
}

/// Whether there is anything in `bytes` that needs a closer look.
fn needs_a_look(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte, b'.' | b'%' | b'\\'))
}

fn is_plain_part(part: &[u8]) -> bool {
    let mut dots = 0;
    let mut others = false;
    let mut bytes = part.iter().copied();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex))
            else {
                return false;
            };
            let decoded = high * 16 + low;
            // A second decoder would find an escape here.
            if matches!(decoded, b'/' | b'\\' | b'%' | 0) {
                return false;
            }
            decoded
        } else {
            byte
        };
        match byte {
            b'\\' => return false,
            b'.' => dots += 1,
            // Some servers cut parameters off before they resolve dots: `..;a`.
            b';' if dots > 0 && !others => return false,
            _ => others = true,
        }
    }
    others || !(1..=2).contains(&dots)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(path: &str, strip: Option<&str>) -> Forward {
        Forward {
            path: path.to_owned(),
            upstream: "api".to_owned(),
            strip: strip.map(str::to_owned),
            cache: false,
        }
    }

    #[test]
    fn a_rule_fits_its_path_and_what_lies_below() {
        for (rule, path, fits) in [
            ("/api/*", "/api", true),
            ("/api/*", "/api/", true),
            ("/api/*", "/api/a/b", true),
            ("/api/*", "/apis", false),
            ("/api/*", "/", false),
            ("/api/*", "/API/a", false),
            ("/api", "/api", true),
            ("/api", "/api/", false),
            ("/*", "/", true),
            ("/*", "/a.b/...", true),
            ("/api/*", "/api//a", true),
            ("/api/*", "/api/%C3%A4.json", true),
        ] {
            assert_eq!(forward(rule, None).fits(path), fits, "{rule} {path}");
        }
    }

    #[test]
    fn a_path_that_could_lead_out_of_a_rule_fits_none() {
        for path in [
            "/api/..",
            "/api/../b",
            "/api/./b",
            "/api/%2e%2e/b",
            "/api/.%2E/b",
            "/api/%2e",
            "/api/..%2fb",
            "/api/%2F..",
            "/api/a%5c..",
            "/api/a\\..\\b",
            "/api/%252e%252e/b",
            "/api/%00",
            "/api/%",
            "/api/%2",
            "/api/%zz",
            "/api/..;/b",
            "/api/.;x=1/b",
        ] {
            assert!(!forward("/api/*", None).fits(path), "{path}");
            assert!(!forward("/*", None).fits(path), "{path}");
        }
    }

    #[test]
    fn the_start_of_a_path_can_be_kept_from_the_upstream() {
        for (strip, path, sent) in [
            (None, "/api/a", "/api/a"),
            (Some("/api"), "/api/a", "/a"),
            (Some("/api"), "/api", "/"),
            (Some("/api"), "/api/", "/"),
            (Some("/api"), "/api//host", "//host"),
        ] {
            assert_eq!(forward("/api/*", strip).path_for(path), sent);
        }
    }

    #[test]
    fn wrong_rules_are_told_by_their_key() {
        let upstream = serde_json::from_str(r#"{"addresses":["http://a.example"]}"#).unwrap();
        let upstreams = BTreeMap::from([("api".to_owned(), upstream)]);
        let check = |forward: Forward| check(&upstreams, &[forward]).map_err(|problem| problem.key);
        assert_eq!(check(forward("/api/*", Some("/api"))), Ok(()));
        for path in [
            "api", "", "/a b", "/a?b", "/*/a", "/a*", "/ä", "/a/../b", "/a/%2e", "/a/%2f",
        ] {
            assert_eq!(
                check(forward(path, None)),
                Err("forward[0].path".to_owned()),
                "{path}"
            );
        }
        for strip in ["api", "/api/", "/ap", "/", "/api/a", ""] {
            assert_eq!(
                check(forward("/api/*", Some(strip))),
                Err("forward[0].strip".to_owned()),
                "{strip}"
            );
        }
        let mut nowhere = forward("/api/*", None);
        nowhere.upstream = "other".to_owned();
        assert_eq!(check(nowhere), Err("forward[0].upstream".to_owned()));
    }
}
