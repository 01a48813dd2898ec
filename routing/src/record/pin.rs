//! Pins: visitors who show something get a release of their own.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::site::ReleaseRef;
use crate::id::PinLabel;

/// Most pins of a site: each keeps a release on every edge, and each is looked at with every request of its site.
pub const MAX_PINS: usize = 16;
/// Longest name of a field or cookie, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Longest value, in bytes.
const MAX_VALUE_BYTES: usize = 128;
/// Fields that a pin cannot go by: what frames and routes a request, what is read otherwise, and what edges set themselves.
const TAKEN: [&str; 9] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Visitors who show something get this release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its name, which a visitor can always show.
    pub label: PinLabel,
    /// What else a visitor can show.
    pub by: PinBy,
    /// The release.
    pub release: ReleaseRef,
}

/// What a visitor shows to be pinned, besides the label itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum PinBy {
    /// Nothing else.
    #[default]
    Label,
    /// A header field with exactly this value.
    Header(Shown),
    /// A cookie with exactly this value.
    Cookie(Shown),
}

/// A name and a value that were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    name: String,
    value: String,
}

/// As it is written.
#[derive(Clone, Serialize, Deserialize)]
enum Written {
    Label,
    Header { name: String, value: String },
    Cookie { name: String, value: String },
}

/// A pin goes by something that it cannot go by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin cannot go by {what} {name:?}: {rule}")]
pub struct InvalidPin {
    what: &'static str,
    name: String,
    rule: &'static str,
}

impl Shown {
    /// The name; of a header field, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl PinBy {
    /// By a header field. Names have no case.
    ///
    /// # Errors
    /// When there can be no such field, or no pin can go by it.
    pub fn header(name: &str, value: &str) -> Result<Self, InvalidPin> {
        let refused = |rule| refused("header", name, rule);
        let lower = name.to_ascii_lowercase();
        if !is_token(&lower) {
            return Err(refused("the name is 1 to 64 letters, digits and -_.~"));
        }
        if TAKEN.contains(&&*lower) || lower.starts_with("x-helix-") {
            return Err(refused("it has a meaning of its own; take another"));
        }
        let is_legal = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if value.trim() != value || !is_value(value, is_legal) {
            return Err(refused(
                "the value is 1 to 128 visible characters without space around",
            ));
        }
        Ok(Self::Header(Shown {
            name: lower,
            value: value.into(),
        }))
    }

    /// By a cookie.
    ///
    /// # Errors
    /// When there can be no such cookie, or no pin can go by it.
    pub fn cookie(name: &str, value: &str) -> Result<Self, InvalidPin> {
        let refused = |rule| refused("cookie", name, rule);
        if !is_token(name) {
            return Err(refused("the name is 1 to 64 letters, digits and -_.~"));
        }
        if name.to_ascii_lowercase().starts_with("__helix") {
            return Err(refused("those are the edge's own"));
        }
        // RFC 6265 4.1.1, cookie-octet.
        let is_legal = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        if !is_value(value, is_legal) {
            return Err(refused(
                "the value is 1 to 128 visible characters without quotes, comma, semicolon and backslash",
            ));
        }
        Ok(Self::Cookie(Shown {
            name: name.into(),
            value: value.into(),
        }))
    }
}

fn refused(what: &'static str, name: &str, rule: &'static str) -> InvalidPin {
    InvalidPin {
        what,
        name: name.chars().take(80).collect(),
        rule,
    }
}

fn is_token(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_legal)
}

fn is_value(value: &str, is_legal: impl Fn(u8) -> bool) -> bool {
    (1..=MAX_VALUE_BYTES).contains(&value.len()) && value.bytes().all(is_legal)
}

impl fmt::Display for PinBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label => f.write_str("label"),
            Self::Header(shown) => write!(f, "header {}: {}", shown.name, shown.value),
            Self::Cookie(shown) => write!(f, "cookie {}={}", shown.name, shown.value),
        }
    }
}

impl TryFrom<Written> for PinBy {
    type Error = InvalidPin;

    fn try_from(written: Written) -> Result<Self, InvalidPin> {
        match written {
            Written::Label => Ok(Self::Label),
            Written::Header { name, value } => Self::header(&name, &value),
            Written::Cookie { name, value } => Self::cookie(&name, &value),
        }
    }
}

impl From<PinBy> for Written {
    fn from(by: PinBy) -> Self {
        match by {
            PinBy::Label => Self::Label,
            PinBy::Header(Shown { name, value }) => Self::Header { name, value },
            PinBy::Cookie(Shown { name, value }) => Self::Cookie { name, value },
        }
    }
}

/// Reads as many pins as there can be.
pub(super) fn pins<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Pin>, D::Error> {
    let pins = Vec::<Pin>::deserialize(from)?;
    if pins.len() > MAX_PINS {
        return Err(serde::de::Error::custom("a site has more pins than it may"));
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_goes_by_what_can_be_shown_and_means_nothing_else() {
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        for (name, value, by_header, by_cookie) in [
            ("X-Team", "internal", true, true),
            ("beta", "1", true, true),
            ("beta", "a b", true, false),
            ("beta", "a;b", true, false),
            ("beta", "", false, false),
            ("beta", " a", false, false),
            ("beta", "\u{fc}", false, false),
            ("beta", "a\r\nb", false, false),
            ("beta", &long, false, false),
            ("", "1", false, false),
            ("a b", "1", false, false),
            ("a:b", "1", false, false),
            ("Cookie", "1", false, true),
            ("host", "1", false, true),
            ("X-Helix-Pin", "1", false, true),
            ("__helix_draw", "1", true, false),
        ] {
            let header = PinBy::header(name, value);
            assert_eq!(header.is_ok(), by_header, "header {name:?} {value:?}");
            let cookie = PinBy::cookie(name, value);
            assert_eq!(cookie.is_ok(), by_cookie, "cookie {name:?} {value:?}");
        }
        let by = PinBy::header("X-Team", "internal").unwrap();
        assert_eq!(by.to_string(), "header x-team: internal");
    }

    #[test]
    fn labels_are_not_what_a_record_names_or_a_release() {
        for (label, is_legal) in [
            ("beta", true),
            ("pr-7", true),
            ("live", false),
            ("candidate", false),
            ("aaaaaaaaaaaaaaaaaaaa", false),
            ("aaaaaaaaaaaaaaaaaaa", true),
            ("Beta", false),
            ("", false),
        ] {
            assert_eq!(label.parse::<PinLabel>().is_ok(), is_legal, "{label:?}");
        }
    }
}
