//! Arguments of what belongs to one project: its releases, domains, pins, cached responses.

use clap::{Args, Subcommand};
use helix_routing::host::HostPattern;
use helix_routing::id::{PinLabel, ProjectName, RegionId, ReleaseId};

use super::{Project, Site};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["urls", "tags", "release", "everything"]))]
pub(crate) struct Purge {
    #[command(flatten)]
    pub(crate) site: Site,
    /// What answers this URL, over http and https, in all its variants; may be given more than once
    #[arg(long = "url", value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// What carries this tag; may be given more than once, and means what fits any of the URLs and tags
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Only what was fetched under this release
    #[arg(long, value_name = "RELEASE")]
    pub(crate) release: Option<ReleaseId>,
    /// All that is kept for the site
    #[arg(long, conflicts_with_all = ["urls", "tags", "release"])]
    pub(crate) everything: bool,
    /// Only in this region; may be given more than once
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Keep it, and ask about it before its next use
    #[arg(long)]
    pub(crate) stale: bool,
    /// Do not wait for the edges
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Releases {
    #[command(flatten)]
    pub(crate) site: Site,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Domains {
    /// Show a site on a host, or on every host one label below a suffix (`*.example.com`)
    Add {
        /// The host
        host: HostPattern,
        #[command(flatten)]
        site: Site,
    },
    /// List a project's hosts
    List {
        #[command(flatten)]
        project: Project,
    },
    /// Take a host from a project
    Remove {
        /// The host
        host: HostPattern,
        #[command(flatten)]
        project: Project,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pin {
    /// Give a release to who sends `x-helix-pin: LABEL` or the cookie `__helix_pin=LABEL`
    Add {
        /// The pin's name; what was pinned under it is replaced
        label: PinLabel,
        /// A release of the site, from `helix releases`
        release: ReleaseId,
        #[command(flatten)]
        site: Site,
        /// Also to who sends this header
        #[arg(long, value_name = "NAME=VALUE", conflicts_with = "cookie")]
        header: Option<Shows>,
        /// Also to who sends this cookie
        #[arg(long, value_name = "NAME=VALUE")]
        cookie: Option<Shows>,
        /// Why, for the record
        #[arg(long, short = 'm')]
        reason: Option<String>,
    },
    /// List a site's pins
    List {
        #[command(flatten)]
        site: Site,
    },
    /// Remove a pin
    Remove {
        /// Its name
        label: PinLabel,
        #[command(flatten)]
        site: Site,
    },
}

/// What a visitor shows: `NAME=VALUE`. Origin says what may be one.
#[derive(Clone, Debug)]
pub(crate) struct Shows {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl std::str::FromStr for Shows {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text
            .split_once('=')
            .ok_or("is not of the form NAME=VALUE")?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Projects {
    /// List projects
    List,
    /// Remove a project's sites from every edge; it can be restored for 7 days
    Delete {
        /// The project
        project: ProjectName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Bring a removed project back
    Restore {
        /// The project
        project: ProjectName,
    },
}
