//! What `helix build` takes.

use std::path::PathBuf;

use clap::Args;
use helix_routing::api::BuildSettings;
use helix_service::reachable::Network;

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The project's repository
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Only say what it is and how it would be built
    #[arg(long)]
    pub(crate) plan: bool,
    /// Build as a worker does: in a sandbox, with programs of its own, and no network but the hosts that are allowed
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// A host that the sandbox may reach, besides the npm registry; may be given more than once
    #[arg(long = "host", value_name = "NAME", requires = "sandbox")]
    pub(crate) hosts: Vec<String>,
    /// Addresses that the sandbox may reach although they are not public, such as 10.0.0.0/8; may be given more than once
    #[arg(long = "allow-network", value_name = "RANGE", requires = "sandbox")]
    pub(crate) networks: Vec<Network>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What is not said is found from the files.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "How it is built")]
pub(crate) struct Settings {
    /// Folder of the project within the repository
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<String>,
    /// A framework's name, or `none`
    #[arg(long, value_name = "NAME")]
    pub(crate) framework: Option<String>,
    /// Line that installs; empty for none
    #[arg(long = "install-command", value_name = "LINE")]
    pub(crate) install: Option<String>,
    /// Line that builds; empty for none
    #[arg(long = "build-command", value_name = "LINE")]
    pub(crate) build: Option<String>,
    /// Folder of what is deployed, within the project's
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<String>,
}

impl From<Settings> for BuildSettings {
    fn from(typed: Settings) -> Self {
        let Settings {
            root,
            framework,
            install,
            build,
            output,
        } = typed;
        Self {
            root,
            framework,
            install,
            build,
            output,
            start: None,
        }
    }
}
