//! Names and ids, each a type that cannot hold an illegal value.
//!
//! Everything is parsed once, where it enters; inside, a [`ProjectName`] needs no second look.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name or id was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not legal: {rule}")]
pub struct InvalidId {
    /// What was being parsed, such as `project name`.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl InvalidId {
    pub(crate) fn new(kind: &'static str, value: &str, rule: &'static str) -> Self {
        Self {
            kind,
            value: value.chars().take(80).collect(),
            rule,
        }
    }
}

/// A text type with one rule: parse, display, serde, all through the same check.
macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let legal: fn(&str) -> bool = $check;
                if legal(text) { Ok(Self(text.into())) } else { Err(InvalidId::new($kind, text, $rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A project: one DNS label, since `<project>.<base>` is its host.
    ProjectName, "project name",
    "use 1 to 40 of a-z, 0-9 and -, starting with a letter and not ending with -; `preview`, `www`, `api` and names starting with `pr-` are reserved",
    |text| is_label(text, 40)
        && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && !matches!(text, "preview" | "www" | "api")
        && !text.starts_with("pr-")
}

text_id! {
    /// A set of edges that cut over together.
    RegionId, "region", "use 1 to 20 of a-z, 0-9 and -, not starting or ending with -",
    |text| is_label(text, 20)
}

text_id! {
    /// One edge node.
    EdgeId, "edge id", "use 1 to 40 of a-z, 0-9 and -, not starting or ending with -",
    |text| is_label(text, 40)
}

text_id! {
    /// What a region serves and what one goes back to: the first 20 hex digits of a hash over
    /// artifact digest, env revision, routes and health policy.
    ReleaseId, "release", "a release id is 20 of 0-9 and a-f",
    |text| text.len() == 20 && is_lower_hex(text)
}

text_id! {
    /// What a visitor shows to get the release that is pinned under it. The words for what a record names, and what could
    /// be a release, are no labels.
    PinLabel, "pin", "use 1 to 40 of a-z, 0-9 and -, not starting or ending with -; `live`, `candidate` and release ids are reserved",
    |text| is_label(text, 40)
        && !matches!(text, "live" | "candidate")
        && !(text.len() == 20 && is_lower_hex(text))
}

text_id! {
    /// One rollout: 16 hex digits.
    RolloutId, "rollout", "a rollout id is 16 of 0-9 and a-f",
    |text| text.len() == 16 && is_lower_hex(text)
}

text_id! {
    /// One build: 16 hex digits.
    BuildId, "build", "a build id is 16 of 0-9 and a-f",
    |text| text.len() == 16 && is_lower_hex(text)
}

text_id! {
    /// A commit of a git repository: its full name, 40 hex digits, or 64 where the repository uses SHA-256.
    Commit, "commit", "a commit is named by all of its 40 (or 64) digits of 0-9 and a-f",
    |text| matches!(text.len(), 40 | 64) && is_lower_hex(text)
}

text_id! {
    /// One start of one process: 16 random hex digits. What an edge prepared in an earlier boot is void.
    BootId, "boot id", "a boot id is 16 of 0-9 and a-f",
    |text| text.len() == 16 && is_lower_hex(text)
}

text_id! {
    /// One life of a stream: 16 random hex digits, new when the stream is made or restored.
    Incarnation, "incarnation", "an incarnation is 16 of 0-9 and a-f",
    |text| text.len() == 16 && is_lower_hex(text)
}

text_id! {
    /// Names a signing key: the first 16 hex digits of the hash of its public half.
    KeyId, "key id", "a key id is 16 of 0-9 and a-f",
    |text| text.len() == 16 && is_lower_hex(text)
}

text_id! {
    /// A content digest, `sha256:` and 64 hex digits (OCI image-spec, descriptor.md).
    Digest, "digest", "a digest is sha256: and 64 of 0-9 and a-f",
    |text| text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && is_lower_hex(hex))
}

impl Digest {
    /// The 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The digest whose 64 hex digits are `hex`.
    ///
    /// # Errors
    /// When `hex` is anything else.
    pub fn from_hex(hex: &str) -> Result<Self, InvalidId> {
        format!("sha256:{hex}").parse()
    }
}

/// Where a project is deployed: `production`, or `preview/<pull request number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Environment {
    /// What visitors see.
    Production,
    /// One pull request.
    Preview(u32),
}

impl FromStr for Environment {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let refused = || {
            InvalidId::new(
                "environment",
                text,
                "use `production` or `preview/N` with N from 1 to 4294967295",
            )
        };
        match text.strip_prefix("preview/") {
            None if text == "production" => Ok(Self::Production),
            None => Err(refused()),
            Some(digits) => {
                let number: u32 = digits.parse().map_err(|_| refused())?;
                if number == 0 || number.to_string() != digits {
                    Err(refused())
                } else {
                    Ok(Self::Preview(number))
                }
            }
        }
    }
}

impl TryFrom<String> for Environment {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Environment> for String {
    fn from(environment: Environment) -> Self {
        environment.to_string()
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Production => f.write_str("production"),
            Self::Preview(number) => write!(f, "preview/{number}"),
        }
    }
}

/// What a host routes to: one project in one environment, written `shop/production` or `shop/preview/42`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteId {
    /// The project.
    pub project: ProjectName,
    /// Which of its environments.
    pub environment: Environment,
}

impl FromStr for SiteId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (project, environment) = text
            .split_once('/')
            .ok_or_else(|| InvalidId::new("site", text, "a site is <project>/<environment>"))?;
        Ok(Self {
            project: project.parse()?,
            environment: environment.parse()?,
        })
    }
}

impl TryFrom<String> for SiteId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<SiteId> for String {
    fn from(site: SiteId) -> Self {
        site.to_string()
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.environment)
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A counter type: ordered, displayed as its number.
macro_rules! counter {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter! {
    /// Rises with every write of a record, also on rollback. Never decreases on any edge.
    Generation
}

counter! {
    /// The leading origin's term. Edges refuse a lower one.
    Epoch
}

/// One DNS label (RFC 1035 2.3.1) of at most `max` bytes, lower case.
fn is_label(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_round_trip_and_refuse_other_spellings() {
        for text in ["production", "preview/1", "preview/4294967295"] {
            assert_eq!(text.parse::<Environment>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Production",
            "preview",
            "preview/",
            "preview/0",
            "preview/01",
            "preview/-1",
            "preview/4294967296",
            "staging",
        ] {
            assert!(text.parse::<Environment>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn project_names_are_one_label_and_leave_reserved_names_alone() {
        for text in [
            "shop",
            "a",
            "shop-2",
            "a23456789012345678901234567890123456789x",
        ] {
            assert!(text.parse::<ProjectName>().is_ok(), "{text:?} was refused");
        }
        for text in [
            "", "Shop", "-shop", "shop-", "2shop", "sh op", "shöp", "shop.x", "preview", "pr-4",
            "a/b", "../x",
        ] {
            assert!(text.parse::<ProjectName>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn sites_round_trip() {
        for text in ["shop/production", "shop/preview/42"] {
            assert_eq!(text.parse::<SiteId>().unwrap().to_string(), text);
        }
        assert!("shop".parse::<SiteId>().is_err());
    }

    #[test]
    fn digests_are_lower_case_sha256() {
        let hex = "ab".repeat(32);
        assert_eq!(Digest::from_hex(&hex).unwrap().hex(), hex);
        assert!(Digest::from_hex(&hex.to_uppercase()).is_err());
        assert!("md5:00".parse::<Digest>().is_err());
    }
}
