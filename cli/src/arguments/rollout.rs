//! Arguments of what moves releases: deploying, going back, restarts, and what people say of a rollout.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use helix_routing::id::{Environment, ProjectName, RegionId, ReleaseId, RolloutId};
use helix_routing::rollout::{Approvals, Step, WaveOrder};
use helix_routing::routes::Span;

use super::{Settings, Site};
use crate::when::When;

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The folder: everything in it, except .git, .helix and .DS_Store
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// The folder is a project that `helix build` has built: deploy its output
    #[arg(long)]
    pub(crate) prebuilt: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) site: Site,
    /// Do not wait for the rollout
    #[arg(long)]
    pub(crate) detach: bool,
    /// Deploy although this release is quarantined
    #[arg(long)]
    pub(crate) lift_quarantine: bool,
    /// Leave held regions alone instead of lifting their holds: what a deployment does that nobody asked for by hand
    #[arg(long, conflicts_with = "lift_quarantine")]
    pub(crate) automatic: bool,
    /// Of a Build Output folder, deploy what is static, although functions, middleware or images of it would not be served
    #[arg(long)]
    pub(crate) static_only: bool,
    #[command(flatten)]
    pub(crate) way_out: WayOut,
}

/// In which stages a release goes out; what is not said is left to its helix.toml, then to origin's config.
#[derive(Debug, Args)]
#[command(next_help_heading = "Stages")]
pub(crate) struct WayOut {
    /// `together`, `canary`, or waves: regions parted by commas, waves by slashes, `*` for the rest (`fra/iad,gru/*`)
    #[arg(long, value_name = "ORDER")]
    pub(crate) order: Option<WaveOrder>,
    /// Regions of a wave at once; 0 is all
    #[arg(long, value_name = "N")]
    pub(crate) parallel: Option<u16>,
    /// Wait between waves, such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) soak: Option<Span>,
    /// What waits for `helix rollout approve`: `none`, `waves`, `stages`, `all`, or numbers of stages (`2,3`)
    #[arg(long, value_name = "WHAT")]
    pub(crate) approve: Option<Approvals>,
    /// So many percent of a region's visitors for so long before all of them, such as 5%:2m; may be given more than once
    #[arg(long = "step", value_name = "PERCENT:TIME")]
    pub(crate) steps: Vec<Step>,
    /// Every region's visitors at once, whatever the release says
    #[arg(long, conflicts_with = "steps")]
    pub(crate) no_steps: bool,
    /// Prepare now, and let nothing go live before this time, such as 2026-11-28T18:00:00Z, or in so long (+2h)
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<When>,
    /// In a freeze prepare, and go live when it is over, instead of being refused
    #[arg(long, conflicts_with = "override_freeze")]
    pub(crate) wait_freeze: bool,
    /// Go live in a freeze, for this reason, which is kept
    #[arg(long, value_name = "REASON")]
    pub(crate) override_freeze: Option<String>,
    /// The number of the push it comes from; one that comes after a higher one is superseded
    #[arg(long, value_name = "N")]
    pub(crate) push_seq: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The release to go to; else the newest settled one before what is live, region by region
    pub(crate) release: Option<ReleaseId>,
    #[command(flatten)]
    pub(crate) site: Site,
    /// A region to take back; may be given more than once
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Take every region back, which is also what happens without --region
    #[arg(long, conflicts_with = "regions")]
    pub(crate) all: bool,
    /// Only show what would change
    #[arg(long)]
    pub(crate) plan: bool,
    /// Why, for the record
    #[arg(long, short = 'm')]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    pub(crate) site: Site,
    /// A region to restart in; may be given more than once; else all in which something is live
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Only show what would begin anew
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do not wait for the rollout
    #[arg(long)]
    pub(crate) detach: bool,
    /// With the newest variables, instead of those that the release has; in all regions
    #[arg(long, conflicts_with = "regions")]
    pub(crate) reload_env: bool,
    /// Why, for the record
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Gate {
    /// Run the gates of a release now, on every edge of a region; nothing that is served depends on it
    Run(RunGates),
}

#[derive(Debug, Args)]
pub(crate) struct RunGates {
    /// The release, whether it is live or not; edges that do not have it fetch it
    pub(crate) release: ReleaseId,
    /// Only in this region; may be given more than once
    #[arg(long = "region", value_name = "REGION", value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// Only this gate; `artifact`, `certificate` and `upstream` are those that every release has
    #[arg(long, value_name = "NAME")]
    pub(crate) gate: Option<String>,
    /// Do not wait for the edges
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// List rollouts, newest first
    List {
        /// Only of this project
        #[arg(long, value_name = "NAME", env = "HELIX_PROJECT")]
        project: Option<ProjectName>,
        /// `production`, or `preview/N`, with a project
        #[arg(long = "env", value_name = "ENVIRONMENT", default_value = "production")]
        environment: Environment,
    },
    /// Follow a rollout to its end
    Watch(WhichRollout),
    /// Begin no further stage; what has begun goes on, and goes back if it fails
    Pause {
        #[command(flatten)]
        which: WhichRollout,
        /// Why, for the record
        #[arg(long, short = 'm')]
        reason: Option<String>,
    },
    /// Go on with a paused rollout
    Resume(WhichRollout),
    /// Let the stage begin that waits for it
    Approve {
        #[command(flatten)]
        which: WhichRollout,
        /// Its number, as `helix rollout watch` and `helix status` say it
        #[arg(long, value_name = "N")]
        stage: u16,
    },
    /// End a rollout: what is not live stays so, what is goes back to the release that settled before
    Abort {
        #[command(flatten)]
        which: WhichRollout,
        /// Why, for the record
        #[arg(long, short = 'm')]
        reason: Option<String>,
        /// Do not wait until every region is back
        #[arg(long)]
        detach: bool,
    },
}

/// One rollout.
#[derive(Debug, Args)]
pub(crate) struct WhichRollout {
    /// Its id, or a project: then the one that runs there
    #[arg(value_name = "ID|PROJECT")]
    pub(crate) which: Which,
    /// `production`, or `preview/N`, of a project
    #[arg(long = "env", value_name = "ENVIRONMENT", default_value = "production")]
    pub(crate) environment: Environment,
}

/// A rollout by its id, or by its project.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    /// This one.
    Rollout(RolloutId),
    /// The one of this project.
    Project(ProjectName),
}

impl FromStr for Which {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Sixteen hex digits are an id, also where a project is called so.
        match (text.parse(), text.parse()) {
            (Ok(rollout), _) => Ok(Self::Rollout(rollout)),
            (Err(_), Ok(project)) => Ok(Self::Project(project)),
            (Err(_), Err(_)) => Err("is neither a rollout's id nor a project's name"),
        }
    }
}
