//! How long what is in flight may go on once its release is no longer live: the table `[drain]` of `helix.toml`.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::{InvalidSpan, KeyProblem, Span};

/// Longer than any request or tunnel should hold the server of a release that is gone.
const LONGEST: Span = Span::from_secs(24 * 60 * 60);
/// What is written where nothing is ever cut.
const NEVER: &str = "never";

/// What a release grants to what is in flight when another takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// To requests that were sent on: their responses, streams and calls included.
    pub requests: Grace,
    /// To WebSockets, each of which is then closed in order.
    pub websockets: Grace,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            requests: Grace::For(Span::from_secs(30)),
            websockets: Grace::For(Span::from_secs(120)),
        }
    }
}

/// For how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Grace {
    /// For so long from the swap.
    For(Span),
    /// As long as it takes.
    Unlimited,
}

impl Drain {
    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// Names the first key that is wrong.
    pub fn check(&self) -> Result<(), KeyProblem> {
        for (key, grace) in [
            ("drain.requests", self.requests),
            ("drain.websockets", self.websockets),
        ] {
            if let Grace::For(span) = grace
                && span > LONGEST
            {
                let problem = format!(
                    "{span} is too long: at most {LONGEST}, or {NEVER:?} for as long as it takes"
                );
                return Err(KeyProblem::new(key, problem));
            }
        }
        Ok(())
    }

    /// Whether it is what releases grant that say nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Grace {
    /// How long that is; none for as long as it takes.
    #[must_use]
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::For(span) => Some(span.duration()),
            Self::Unlimited => None,
        }
    }
}

impl FromStr for Grace {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        if text == NEVER {
            Ok(Self::Unlimited)
        } else {
            text.parse().map(Self::For)
        }
    }
}

impl fmt::Display for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(span) => write!(f, "{span}"),
            Self::Unlimited => f.write_str(NEVER),
        }
    }
}

impl TryFrom<String> for Grace {
    type Error = InvalidSpan;

    fn try_from(text: String) -> Result<Self, InvalidSpan> {
        text.parse()
    }
}

impl From<Grace> for String {
    fn from(grace: Grace) -> Self {
        format!("{grace}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_read_as_it_is_written() {
        let drain: Drain = serde_json::from_str(r#"{"requests":"5s"}"#).unwrap();
        assert_eq!(drain.requests.duration(), Some(Duration::from_secs(5)));
        assert_eq!(drain.websockets.duration(), Some(Duration::from_secs(120)));
        let drain: Drain = serde_json::from_str(r#"{"websockets":"never"}"#).unwrap();
        assert_eq!(drain.websockets.duration(), None);
        let text = serde_json::to_string(&drain).unwrap();
        assert_eq!(text, r#"{"requests":"30s","websockets":"never"}"#);
    }

    #[test]
    fn what_is_no_time_or_too_long_is_refused() {
        for text in ["soon", "", "-1s", "Never"] {
            assert!(text.parse::<Grace>().is_err(), "{text}");
        }
        let long = Drain {
            websockets: "25h".parse().unwrap(),
            ..Drain::default()
        };
        let problem = long.check().unwrap_err().to_string();
        assert!(problem.starts_with("drain.websockets: 25h"), "{problem}");
        assert_eq!(Drain::default().check(), Ok(()));
    }
}
