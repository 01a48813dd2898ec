//! What of a site is seen only by who was let in: its protection, as a record carries it.
//!
//! Invariant: a rule that lets paths pass unasked covers only paths that every server reads in the same way. Whatever could
//! be taken for another path by somebody behind us is covered by none.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Most rules of a protection: each is looked at with every request that shows no pass.
pub const MAX_EXEMPT: usize = 32;
/// Longest rule, in bytes.
const MAX_RULE_BYTES: usize = 256;
/// Most rounds that an edge does to check a password: about a second of one core.
pub const MAX_ITERATIONS: u32 = 4_000_000;
/// Longest half of a key, in bytes.
const MAX_SECRET_BYTES: usize = 128;

/// A site is seen by who was let in alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// Half of the key that its passes are signed with; the other half is the fleet's, and in no record. A new one ends
    /// all passes.
    #[serde(deserialize_with = "secret")]
    pub secret: String,
    /// What a password is checked against; none when only passes let in.
    pub password: Option<PasswordCheck>,
    /// Paths that are answered unasked.
    #[serde(deserialize_with = "rules")]
    pub exempt: Vec<PathRule>,
}

impl Protection {
    /// Whether `path`, escaped as sent, is answered unasked.
    #[must_use]
    pub fn exempts(&self, path: &str) -> bool {
        self.exempt.iter().any(|rule| rule.covers(path))
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection")
            .field("password", &self.password)
            .field("exempt", &self.exempt)
            .finish_non_exhaustive()
    }
}

/// What is kept of a password: PBKDF2 with HMAC-SHA-256 (RFC 8018 5.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordCheck {
    /// How many rounds.
    #[serde(deserialize_with = "iterations")]
    pub iterations: u32,
    /// Random, so that equal passwords look different.
    pub salt: [u8; 16],
    /// What comes out.
    pub hash: [u8; 32],
}

impl fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordCheck")
    }
}

/// Paths that need no pass: one, or with `/*` at its end all below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct PathRule(String);

/// No such rule can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} exempts no paths: write a path such as /health, or what all paths below begin with and `/*`, such as /api/webhooks/*; \
     letters, digits and -._~!$&'()+,=:@ only"
)]
pub struct InvalidRule(String);

impl PathRule {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it covers `path`, escaped as sent.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let is_covered = match self.0.strip_suffix('*') {
            Some(folder) => path.len() > folder.len() && path.starts_with(folder),
            None => path == self.0,
        };
        is_covered && is_plain(path)
    }
}

impl FromStr for PathRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let below = text.strip_suffix("/*");
        let path = below.unwrap_or(text);
        // All paths: that is no protection.
        let is_some = path.len() > 1 && text.len() <= MAX_RULE_BYTES;
        // So that only the star is a star.
        let ends = below.is_none_or(|path| !path.ends_with('/'));
        if is_some && ends && is_plain(path) {
            Ok(Self(String::from(text)))
        } else {
            Err(InvalidRule(text.chars().take(MAX_RULE_BYTES).collect()))
        }
    }
}

impl TryFrom<String> for PathRule {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PathRule> for String {
    fn from(rule: PathRule) -> Self {
        rule.0
    }
}

/// Whether everybody reads `path` alike: nothing escaped, no backslash, no parameters of a segment, no empty segment and none of dots.
fn is_plain(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@/".contains(&byte);
    let mut segments = path.strip_prefix('/').unwrap_or("..").split('/').peekable();
    let mut is_sound = path.bytes().all(is_plain);
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        is_sound &= !matches!(segment, "." | "..") && (is_last || !segment.is_empty());
    }
    is_sound
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let secret = String::deserialize(from)?;
    if secret.is_empty() || secret.len() > MAX_SECRET_BYTES {
        return Err(serde::de::Error::custom("a key has 1 to 128 bytes"));
    }
    Ok(secret)
}

fn rules<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathRule>, D::Error> {
    let rules = Vec::<PathRule>::deserialize(from)?;
    if rules.len() > MAX_EXEMPT {
        return Err(serde::de::Error::custom(
            "a protection has at most 32 rules",
        ));
    }
    Ok(rules)
}

fn iterations<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let iterations = u32::deserialize(from)?;
    if !(1..=MAX_ITERATIONS).contains(&iterations) {
        return Err(serde::de::Error::custom(
            "a password is checked in 1 to 4000000 rounds",
        ));
    }
    Ok(iterations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn covers(rule: &str, path: &str) -> bool {
        rule.parse::<PathRule>().unwrap().covers(path)
    }

    #[test]
    fn a_rule_covers_one_path_or_all_below_one() {
        for (rule, path, expected) in [
            ("/health", "/health", true),
            ("/health", "/health/", false),
            ("/health", "/healthy", false),
            ("/health", "/Health", false),
            ("/api/webhooks/*", "/api/webhooks/stripe", true),
            ("/api/webhooks/*", "/api/webhooks/stripe/v1/", true),
            ("/api/webhooks/*", "/api/webhooks", false),
            ("/api/webhooks/*", "/api/webhooks/", false),
            ("/api/webhooks/*", "/api/webhooksx/a", false),
        ] {
            assert_eq!(covers(rule, path), expected, "{rule} {path}");
        }
    }

    #[test]
    fn what_could_be_another_path_to_somebody_is_covered_by_no_rule() {
        for rest in [
            "../secret",
            "./x",
            "a/../../secret",
            "..",
            ".",
            "%2e%2e/secret",
            "a%2f..%2fsecret",
            "..;/secret",
            "a;b",
            "..\\secret",
            "\\",
            "/secret",
            "a//b",
            "*",
            "a b",
            "\u{e9}",
            "a\0b",
            "%zz",
            "a?b",
            "a#b",
        ] {
            let path = format!("/api/webhooks/{rest}");
            assert!(!covers("/api/webhooks/*", &path), "{path}");
        }
    }

    #[test]
    fn what_exempts_everything_or_nothing_is_no_rule() {
        for text in [
            "",
            "/",
            "/*",
            "*",
            "//*",
            "a",
            "a/*",
            "/a*",
            "/a/**",
            "/a//*",
            "/a/../*",
            "/%41",
            "/a b",
            "/a/*/b",
            &format!("/{}", "x".repeat(256)),
        ] {
            assert!(text.parse::<PathRule>().is_err(), "{text}");
        }
        let rule: PathRule = "/a/b/*".parse().unwrap();
        assert_eq!(rule.as_str(), "/a/b/*");
    }

    #[test]
    fn nothing_secret_is_in_what_is_printed() {
        let protection = Protection {
            secret: String::from("hidden"),
            password: Some(PasswordCheck {
                iterations: 1,
                salt: [7; 16],
                hash: [77; 32],
            }),
            exempt: Vec::from(["/a".parse().unwrap()]),
        };
        let text = format!("{protection:?}");
        assert!(!text.contains("hidden") && !text.contains("77"), "{text}");
        assert!(text.contains("/a") && text.contains("PasswordCheck"));
    }
}
