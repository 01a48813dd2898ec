//! What can be typed after `helix break-glass`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use helix_routing::id::{RegionId, ReleaseId};
use helix_routing::routes::Span;

use super::Site;

#[derive(Debug, Subcommand)]
pub(crate) enum BreakGlass {
    /// Serve an earlier release; it is held on the edges already, so nothing is fetched
    Rollback(GlassRollback),
    /// End an override of one edge: its record counts again
    End(GlassEnd),
    /// Show the overrides of one edge
    Status(Socket),
}

/// An edge's local socket.
#[derive(Debug, Args)]
pub(crate) struct Socket {
    /// The edge's local socket: `admin.sock` in its data folder
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct GlassRollback {
    /// The release to go to; else the newest before what is served that is held
    pub(crate) release: Option<ReleaseId>,
    #[command(flatten)]
    pub(crate) site: Site,
    #[command(flatten)]
    pub(crate) terms: Terms,
    /// With NATS dead: one edge's local socket, `admin.sock` in its data folder
    #[arg(long, value_name = "PATH", required_unless_present = "region", conflicts_with_all = ["region", "operator_key"])]
    pub(crate) socket: Option<PathBuf>,
    /// With origin dead: the region to take back, by a record that the operator's key signs
    #[arg(long, value_name = "REGION", requires_all = ["operator_key", "nats", "nats_seed"])]
    pub(crate) region: Option<RegionId>,
    /// The operator's key, whose public half edges and origin pin with role `operator`
    #[arg(long, value_name = "FILE")]
    pub(crate) operator_key: Option<PathBuf>,
    /// The keys that edges pin, as `[[keys]]` of their config; else ring.toml beside the operator's key
    #[arg(long, value_name = "FILE")]
    pub(crate) ring: Option<PathBuf>,
    /// NATS, as nats://host:port
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<String>,
    /// The seed of a NATS user that may write overrides
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_seed: Option<PathBuf>,
    /// Go past an origin that is there; it ends, starts again, and takes the override over
    #[arg(long)]
    pub(crate) though_origin_lives: bool,
}

/// What every override has.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// Why; shown everywhere until origin has taken the override over
    #[arg(long)]
    pub(crate) reason: String,
    /// How long it is meant for, at most 168h; it is shown as expired afterwards and goes on being served
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub(crate) ttl: Span,
}

#[derive(Debug, Args)]
pub(crate) struct GlassEnd {
    #[command(flatten)]
    pub(crate) site: Site,
    #[command(flatten)]
    pub(crate) socket: Socket,
}
