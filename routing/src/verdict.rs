//! What a check comes to, of a gate as of a bake.

use core::fmt;

use serde::{Deserialize, Serialize};

/// How a gate or a bake ended. A gate lets a release go on only with [`Verdict::Pass`]; a bake takes a region back only with
/// [`Verdict::Fail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What was wanted was seen, or nothing was beyond its limit.
    Pass,
    /// Something else was seen, or something was beyond its limit.
    Fail,
    /// Too little was seen to say.
    Inconclusive,
    /// Something that was to be asked could not be.
    Error,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Fail, Self::Inconclusive, Self::Error];

    /// As in logs and on screens.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}
