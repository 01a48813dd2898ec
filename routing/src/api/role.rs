//! What tokens may do.

use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Claim builds, and upload what came of them; nothing else is seen.
    Build,
    /// Pull artifacts, and have the key that visitors' cookies are signed with; nothing else is seen.
    Edge,
    /// See everything but secrets, pull artifacts.
    Read,
    /// Deploy, roll back, manage domains.
    Deploy,
    /// Everything: tokens, removing projects.
    Operate,
}

impl Role {
    /// Whether who has this may do what `other` may. From reading on each includes the ones before it; what workers and edges may is
    /// theirs alone, and an operator's, who could make a token for one.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Operate, _)
            | (Self::Deploy, Self::Deploy | Self::Read)
            | (Self::Read, Self::Read)
            | (Self::Edge, Self::Edge)
            | (Self::Build, Self::Build) => true,
            (Self::Build | Self::Edge | Self::Read | Self::Deploy, _) => false,
        }
    }

    /// The role as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Edge => "edge",
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Operate => "operate",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "build" => Ok(Self::Build),
            "edge" => Ok(Self::Edge),
            "read" => Ok(Self::Read),
            "deploy" => Ok(Self::Deploy),
            "operate" => Ok(Self::Operate),
            _ => Err(UnknownRole),
        }
    }
}

/// It is no role.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("use build, edge, read, deploy or operate")]
pub struct UnknownRole;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Role; 5] = [
        Role::Build,
        Role::Edge,
        Role::Read,
        Role::Deploy,
        Role::Operate,
    ];

    #[test]
    fn each_role_includes_what_it_says() {
        let included = |role: Role| ALL.map(|other| u8::from(role.includes(other)));
        assert_eq!(included(Role::Build), [1, 0, 0, 0, 0]);
        assert_eq!(included(Role::Edge), [0, 1, 0, 0, 0]);
        assert_eq!(included(Role::Read), [0, 0, 1, 0, 0]);
        assert_eq!(included(Role::Deploy), [0, 0, 1, 1, 0]);
        assert_eq!(included(Role::Operate), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
            assert_eq!(
                serde_json::to_string(&role).unwrap(),
                format!("\"{}\"", role.as_str())
            );
        }
        assert!("admin".parse::<Role>().is_err());
    }
}
