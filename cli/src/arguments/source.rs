//! Arguments of what concerns a project's repository: its link, its variables, its builds.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use helix_routing::api::{EnvKind, Forks, PREVIEW_DAYS, Provider};
use helix_routing::id::{BuildId, Environment, ProjectName, ReleaseId};
use helix_routing::protection::PathRule;

use super::{Project, Site};

#[derive(Debug, Args)]
pub(crate) struct Link {
    /// The repository, as https://host/owner/name; without it, the link is shown
    pub(crate) repository: Option<String>,
    #[command(flatten)]
    pub(crate) project: Project,
    /// Whose server it is; else found from the address
    #[arg(long, requires = "repository")]
    pub(crate) provider: Option<ProviderName>,
    /// The provider's API, where it is at home
    #[arg(long = "provider-api", value_name = "URL", requires = "repository")]
    pub(crate) provider_api: Option<String>,
    /// What is merged there goes to production
    #[arg(long, value_name = "BRANCH", default_value = "main")]
    pub(crate) branch: String,
    /// The project's folder within the repository
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<String>,
    /// What it is, if that is not to be found out
    #[arg(long, value_name = "NAME")]
    pub(crate) framework: Option<String>,
    /// Shell line that installs dependencies; empty for none
    #[arg(long, value_name = "LINE")]
    pub(crate) install: Option<String>,
    /// Shell line that builds; empty for none
    #[arg(long, value_name = "LINE")]
    pub(crate) build: Option<String>,
    /// Folder of what is deployed
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<String>,
    /// Shell line that starts the application: kept for a runtime, nothing runs it yet
    #[arg(long, value_name = "LINE")]
    pub(crate) start: Option<String>,
    /// The repository is not public: its previews are protected, unless `helix protect` said otherwise
    #[arg(long)]
    pub(crate) private: bool,
    /// Folders may be deployed to production, too
    #[arg(long)]
    pub(crate) allow_uploads: bool,
    /// What becomes of pull requests of other repositories
    #[arg(long, value_name = "WHAT", default_value = "approve")]
    pub(crate) forks: ForksName,
    /// Days after its newest deployment that a preview is taken down; 0 is never
    #[arg(long, value_name = "DAYS", default_value_t = PREVIEW_DAYS)]
    pub(crate) preview_days: u32,
    /// File with the token, or user:password, that git and the provider's API are shown; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "repository")]
    pub(crate) credential_file: Option<PathBuf>,
    /// Make a new webhook secret; the one before counts for a day more
    #[arg(long, conflicts_with = "repository")]
    pub(crate) rotate_secret: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unlink {
    #[command(flatten)]
    pub(crate) project: Project,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProviderName {
    Github,
    Gitlab,
    Bitbucket,
    Git,
}

impl From<ProviderName> for Provider {
    fn from(name: ProviderName) -> Self {
        match name {
            ProviderName::Github => Self::Github,
            ProviderName::Gitlab => Self::Gitlab,
            ProviderName::Bitbucket => Self::Bitbucket,
            ProviderName::Git => Self::Git,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ForksName {
    /// Each commit is built once somebody has approved it
    Approve,
    /// They are not built
    Block,
    /// They are built at once, without secrets
    Build,
}

impl From<ForksName> for Forks {
    fn from(name: ForksName) -> Self {
        match name {
            ForksName::Approve => Self::Approve,
            ForksName::Block => Self::Block,
            ForksName::Build => Self::Build,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KindName {
    /// Of production
    Production,
    /// Of every preview
    Preview,
}

impl From<KindName> for EnvKind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Production => Self::Production,
            KindName::Preview => Self::Preview,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Env {
    /// Set a variable; builds from now on have it
    Set {
        /// Its name
        name: String,
        /// Its value; else standard input, to its end
        value: Option<String>,
        /// Never show it again, and keep it out of logs and of what is built
        #[arg(long)]
        secret: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Remove a variable
    Unset {
        /// Its name
        name: String,
        #[command(flatten)]
        which: Which,
    },
    /// List variables; secrets by name only
    List {
        #[command(flatten)]
        which: Which,
    },
}

/// One of the two sets of variables of a project.
#[derive(Debug, Args)]
pub(crate) struct Which {
    #[command(flatten)]
    pub(crate) project: Project,
    /// Of production or of previews
    #[arg(long = "env", value_name = "KIND", default_value = "production")]
    pub(crate) kind: KindName,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Builds {
    /// Only this project's
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<ProjectName>,
    #[command(subcommand)]
    pub(crate) word: Option<BuildWord>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildWord {
    /// Let the commit of a fork be built: this one, and no other
    Approve {
        /// Its id, from `helix builds`
        build: BuildId,
    },
    /// Cancel a build
    Cancel {
        /// Its id, from `helix builds`
        build: BuildId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The build, from `helix builds`
    #[arg(long, value_name = "BUILD")]
    pub(crate) build: BuildId,
    /// Go on until it has ended
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Redeploy {
    #[command(flatten)]
    pub(crate) site: Site,
    /// Do not wait for the build
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// The release, from `helix releases --env preview/N`
    pub(crate) release: ReleaseId,
    #[command(flatten)]
    pub(crate) project: Project,
    /// Where to
    #[arg(long, value_name = "ENVIRONMENT", default_value = "production", value_parser = ["production"])]
    pub(crate) to: String,
    /// Why production gets what was not built of the default branch; kept in the audit log
    #[arg(long = "override", value_name = "REASON")]
    pub(crate) override_reason: Option<String>,
    /// Do not wait for the rollout
    #[arg(long)]
    pub(crate) detach: bool,
}

/// Who may see a project's sites. With nothing to change, it is shown.
#[derive(Debug, Args)]
pub(crate) struct Protect {
    #[command(flatten)]
    pub(crate) project: Project,
    /// Of production or of previews
    #[arg(long = "env", value_name = "KIND", default_value = "preview")]
    pub(crate) kind: KindName,
    /// Only who was let in sees them
    #[arg(long, conflicts_with = "off")]
    pub(crate) on: bool,
    /// Everybody sees them
    #[arg(long)]
    pub(crate) off: bool,
    /// File with a password that lets in; `-` is standard input. Whoever was in has to come in anew
    #[arg(long, value_name = "FILE", conflicts_with_all = ["off", "no_password"])]
    pub(crate) password_file: Option<PathBuf>,
    /// No password lets in any more, only links. Whoever was in has to come in anew
    #[arg(long)]
    pub(crate) no_password: bool,
    /// A path that is answered unasked, or with `/*` all below it; in place of those before
    #[arg(long, value_name = "PATH")]
    pub(crate) exempt: Vec<PathRule>,
    /// No path is answered unasked
    #[arg(long, conflicts_with = "exempt")]
    pub(crate) no_exempt: bool,
    /// End every session and every link
    #[arg(long)]
    pub(crate) revoke: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Share {
    #[command(flatten)]
    pub(crate) project: Project,
    /// `preview/N`, or `production`
    #[arg(
        long = "env",
        value_name = "ENVIRONMENT",
        required_unless_present = "preview"
    )]
    pub(crate) environment: Option<Environment>,
    /// The preview, as in its address: pr-N
    #[arg(long, value_name = "pr-N", value_parser = preview, conflicts_with = "environment")]
    pub(crate) preview: Option<Environment>,
    /// For how long the link lets in
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = super::span)]
    pub(crate) ttl: Duration,
}

fn preview(text: &str) -> Result<Environment, String> {
    let number = text.strip_prefix("pr-").unwrap_or(text);
    let environment = format!("preview/{number}").parse();
    environment.map_err(|_| "write pr-N, such as pr-12".to_owned())
}
