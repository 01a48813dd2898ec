//! Which answers are good: by status, and by what a body holds.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Longest text or pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// Most bytes a compiled pattern may take: `[a-z]{1000}` fits, `(a{100}){100}` does not. Matching takes time in
/// proportion to this and to the bytes looked at, whatever the pattern.
const MAX_COMPILED_BYTES: usize = 512 * 1024;

/// A status that is good, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// This one.
    Code(u16),
    /// All that start with this digit.
    Class(u8),
}

/// The text is no status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no status: write a number from 200 to 599, or a class from \"2xx\" to \"5xx\"")]
pub struct InvalidStatus(String);

impl Status {
    /// Whether `status` is this one, or of this class.
    #[must_use]
    pub const fn covers(self, status: u16) -> bool {
        match self {
            Self::Code(code) => status == code,
            Self::Class(class) => status / 100 == class as u16,
        }
    }

    fn code(code: u64) -> Result<Self, InvalidStatus> {
        u16::try_from(code)
            .ok()
            .filter(|code| (200..600).contains(code))
            .map(Self::Code)
            .ok_or_else(|| InvalidStatus(code.to_string()))
    }
}

impl FromStr for Status {
    type Err = InvalidStatus;

    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        match text {
            "2xx" => Ok(Self::Class(2)),
            "3xx" => Ok(Self::Class(3)),
            "4xx" => Ok(Self::Class(4)),
            "5xx" => Ok(Self::Class(5)),
            _ => {
                let shown: String = text.chars().take(40).collect();
                Err(InvalidStatus(format!("{shown:?}")))
            }
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{code}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Code(code) => to.serialize_u16(*code),
            Self::Class(_) => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StatusVisitor)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status, as 204, or a class of them, as \"2xx\"")
    }

    fn visit_u64<E: Error>(self, code: u64) -> Result<Status, E> {
        Status::code(code).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, code: i64) -> Result<Status, E> {
        let code = u64::try_from(code).map_err(|_| InvalidStatus(code.to_string()));
        code.and_then(Status::code).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Status, E> {
        text.parse().map_err(E::custom)
    }
}

/// What a body has to hold, as it is written: a text, or a pattern between slashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BodyMatch(String);

/// The same, ready to be looked for.
#[derive(Clone, Debug)]
pub enum BodyTest {
    /// These bytes, anywhere.
    Holds(String),
    /// This pattern, anywhere.
    Matches(Regex),
}

/// The text cannot be looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}")]
pub struct InvalidBodyMatch {
    text: String,
    problem: String,
}

impl BodyMatch {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Made ready.
    ///
    /// # Errors
    /// Never, for one that was read: a pattern that cannot be compiled is refused then.
    pub fn test(&self) -> Result<BodyTest, InvalidBodyMatch> {
        compile(&self.0)
    }
}

impl BodyTest {
    /// Whether `body` holds it.
    #[must_use]
    pub fn is_met(&self, body: &[u8]) -> bool {
        match self {
            Self::Holds(text) => body
                .windows(text.len())
                .any(|window| window == text.as_bytes()),
            Self::Matches(pattern) => pattern.is_match(body),
        }
    }
}

fn compile(text: &str) -> Result<BodyTest, InvalidBodyMatch> {
    let refused = |problem: &str| InvalidBodyMatch {
        text: text.chars().take(100).collect(),
        problem: problem.to_owned(),
    };
    if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
        return Err(refused(&format!(
            "must have 1 to {MAX_PATTERN_BYTES} bytes"
        )));
    }
    let pattern = text
        .strip_prefix('/')
        .and_then(|rest| rest.strip_suffix('/'));
    let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty()) else {
        return Ok(BodyTest::Holds(text.to_owned()));
    };
    let mut builder = RegexBuilder::new(&pattern.replace("\\/", "/"));
    builder
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES);
    builder
        .build()
        .map(BodyTest::Matches)
        .map_err(|error| refused(&problem_of(&error)))
}

/// Its last line: the ones before draw the pattern.
fn problem_of(error: &regex::Error) -> String {
    if matches!(error, regex::Error::CompiledTooBig(_)) {
        return format!("needs more than the {MAX_COMPILED_BYTES} bytes that a pattern may take");
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    let last = last.strip_prefix("error: ").unwrap_or(last);
    format!("is no pattern: {last}")
}

impl TryFrom<String> for BodyMatch {
    type Error = InvalidBodyMatch;

    fn try_from(text: String) -> Result<Self, InvalidBodyMatch> {
        compile(&text).map(|_| Self(text))
    }
}

impl From<BodyMatch> for String {
    fn from(text: BodyMatch) -> Self {
        text.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_met(text: &str, body: &[u8]) -> bool {
        let wanted = BodyMatch::try_from(text.to_owned()).unwrap();
        wanted.test().unwrap().is_met(body)
    }

    #[test]
    fn a_status_is_a_number_or_a_class() {
        for (json, status, good) in [
            ("204", 204, true),
            ("204", 200, false),
            ("\"2xx\"", 200, true),
            ("\"2xx\"", 299, true),
            ("\"2xx\"", 301, false),
            ("\"5xx\"", 503, true),
        ] {
            let wanted: Status = serde_json::from_str(json).unwrap();
            assert_eq!(wanted.covers(status), good, "{json} {status}");
            assert_eq!(serde_json::to_string(&wanted).unwrap(), json);
        }
        for json in [
            "199", "600", "-200", "\"200\"", "\"6xx\"", "\"1xx\"", "\"2XX\"", "true", "2.5",
        ] {
            assert!(serde_json::from_str::<Status>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_body_holds_a_text_or_fits_a_pattern() {
        for (text, body, met) in [
            ("ready", "not ready yet", true),
            ("ready", "read", false),
            ("/ready", "/ready", true),
            ("/", "a/b", true),
            ("//", "a//b", true),
            ("/^ok$/", "ok", true),
            ("/^ok$/", "ok ", false),
            ("/(?m)^ok$/", "no\nok\n", true),
            ("/\\/a\\d+/", "x/a12", true),
            ("/(?i)READY/", "ready", true),
        ] {
            assert_eq!(is_met(text, body.as_bytes()), met, "{text} {body}");
        }
        assert!(is_met("/\\w/", b"\xff\xfea"), "a body is bytes");
    }

    #[test]
    fn what_cannot_be_looked_for_is_refused_in_a_line() {
        let long = "x".repeat(MAX_PATTERN_BYTES + 1);
        for text in [
            "",
            long.as_str(),
            "/(/",
            "/a{1000}{1000}{1000}/",
            "/[z-a]/",
            "/(?<=a)b/",
        ] {
            let refused = BodyMatch::try_from(text.to_owned()).unwrap_err();
            let told = refused.to_string();
            assert!(!told.contains('\n') && told.len() < 400, "{told}");
        }
    }

    #[test]
    fn no_pattern_takes_long_on_the_largest_body() {
        let body = [b'a'].repeat(super::super::MAX_BODY_BYTES);
        for text in ["/(a+)+$b/", "/(a|aa)+$b/", "/(.*)*x/"] {
            assert!(!is_met(text, &body), "{text}");
        }
    }
}
