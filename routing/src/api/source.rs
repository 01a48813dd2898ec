//! The shapes of a project's repository and its variables.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::BuildSettings;
use crate::id::{Environment, ProjectName};
use crate::time::Timestamp;

/// Most bytes of all variables of one kind of environment, names and values.
pub const MAX_ENV_BYTES: usize = 64 * 1024;
/// Longest name of a variable, in bytes.
pub const MAX_ENV_NAME_BYTES: usize = 128;
/// Most variables of one kind of environment.
pub const MAX_ENV_NAMES: usize = 500;

/// Days after its newest deployment that a preview is taken down, unless a link says otherwise: what nobody has pushed to
/// for a month is not looked at.
pub const PREVIEW_DAYS: u32 = 30;
/// Most days: ten years.
pub const MAX_PREVIEW_DAYS: u32 = 3650;

/// Whose server a repository is at, and so what its webhooks and its API look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// GitHub, in the cloud or at home.
    Github,
    /// GitLab, in the cloud or at home.
    Gitlab,
    /// Bitbucket Cloud.
    Bitbucket,
    /// Any git server: it is asked for its newest commit now and then.
    Git,
}

impl Provider {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Bitbucket => "bitbucket",
            Self::Git => "git",
        }
    }

    /// Reads what [`Provider::name`] wrote.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Github, Self::Gitlab, Self::Bitbucket, Self::Git]
            .into_iter()
            .find(|provider| provider.name() == name)
    }
}

/// What becomes of pull requests from somebody else's repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Forks {
    /// Each commit is built once somebody has approved it.
    #[default]
    Approve,
    /// They are not built.
    Block,
    /// They are built at once; without secrets, as always.
    Build,
}

impl Forks {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Block => "block",
            Self::Build => "build",
        }
    }

    /// Reads what [`Forks::name`] wrote.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Approve, Self::Block, Self::Build]
            .into_iter()
            .find(|forks| forks.name() == name)
    }
}

/// One of the two sets of variables that a project has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum EnvKind {
    /// Of production.
    Production,
    /// Of every preview.
    Preview,
}

impl EnvKind {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Preview => "preview",
        }
    }
}

impl From<Environment> for EnvKind {
    fn from(environment: Environment) -> Self {
        match environment {
            Environment::Production => Self::Production,
            Environment::Preview(_) => Self::Preview,
        }
    }
}

shape! {
    /// Links a project to a repository.
    pub struct NewLink {
        /// Where git fetches from: `https`, `http` or `ssh`, without credentials.
        pub url: String,
        /// Found from the host of `url` if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub provider: Option<Provider>,
        /// The provider's API; that of its cloud, or at the host of `url`, if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub api: Option<String>,
        /// What is merged there goes to production; `main` if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub branch: Option<String>,
        /// How it is built.
        #[serde(default)]
        pub settings: BuildSettings,
        /// Whether the repository is not public.
        #[serde(default)]
        pub private: bool,
        /// Whether folders may be deployed to production, too.
        #[serde(default)]
        pub allow_uploads: bool,
        /// What becomes of pull requests from elsewhere.
        #[serde(default)]
        pub forks: Forks,
        /// What git and the provider's API are shown: `user:password`, or a token. Kept as it was if left out; sealed, and never shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub credential: Option<String>,
        /// Days after its newest deployment that a preview is taken down; 0 is never, [`PREVIEW_DAYS`] if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub preview_days: Option<u32>,
    }
}

shape! {
    /// A project's repository.
    pub struct LinkView {
        /// The project.
        pub project: ProjectName,
        /// Where git fetches from.
        pub url: String,
        /// Its path at the provider.
        pub repository: String,
        /// Whose server it is.
        pub provider: Provider,
        /// The provider's API, if there is one.
        pub api: Option<String>,
        /// What is merged there goes to production.
        pub branch: String,
        /// How it is built.
        pub settings: BuildSettings,
        /// Whether it is not public.
        pub private: bool,
        /// Whether folders may be deployed to production, too.
        pub allow_uploads: bool,
        /// What becomes of pull requests from elsewhere.
        pub forks: Forks,
        /// Days after its newest deployment that a preview is taken down; 0 is never.
        #[serde(default)]
        pub preview_days: u32,
        /// Whether there is a credential.
        pub has_credential: bool,
        /// Where the provider is to send its webhooks; none where it is asked instead.
        pub webhook_url: Option<String>,
        /// Until when the webhook secret before counts, too.
        pub secret_before_until: Option<Timestamp>,
        /// Who linked it.
        pub by: String,
        /// When.
        pub created: Timestamp,
    }
}

shape! {
    /// A link, with its webhook secret if that is new: it is shown this once.
    pub struct LinkedView {
        /// The link.
        pub link: LinkView,
        /// What the provider is to sign its webhooks with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub webhook_secret: Option<String>,
    }
}

shape! {
    /// Sets a variable.
    pub struct NewVariable {
        /// Of which set.
        pub kind: EnvKind,
        /// What it holds.
        pub value: String,
        /// Whether it must never be shown again.
        #[serde(default)]
        pub secret: bool,
    }
}

shape! {
    /// A variable of a project.
    pub struct VariableView {
        /// Its name.
        pub name: String,
        /// What it holds; none of a secret.
        pub value: Option<String>,
        /// Whether it is a secret.
        pub secret: bool,
        /// How often it was set.
        pub version: u64,
        /// When it was set.
        pub set: Timestamp,
        /// By whom.
        pub by: String,
    }
}

shape! {
    /// A revision of a project's variables.
    pub struct EnvView {
        /// The project.
        pub project: ProjectName,
        /// Of which set.
        pub kind: EnvKind,
        /// Counts up; 0 before the first.
        pub revision: u64,
        /// Its variables, by name.
        pub variables: Vec<VariableView>,
    }
}
