//! Arguments of what belongs to the whole fleet: edges, tokens, and a fleet on this machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use helix_routing::api::Role;
use helix_routing::id::{EdgeId, RegionId};

use super::span;

#[derive(Debug, Subcommand)]
pub(crate) enum Edge {
    /// List edges: build, lease, how far each follows, and whether it is taken out
    List {
        /// Only this region's
        #[arg(long, value_name = "REGION")]
        region: Option<RegionId>,
    },
    /// Join tokens: what lets an edge in
    #[command(subcommand)]
    Token(JoinToken),
    /// Take an edge out for maintenance: visitors go elsewhere, no rollout waits for it
    Drain(Drain),
    /// Put an edge back
    Undrain {
        /// The edge
        edge: EdgeId,
    },
    /// Remove an edge: its lease ends, and nothing that it says counts for as long as origin's configuration names it
    Remove {
        /// The edge
        edge: EdgeId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Also the last one that serves its region
        #[arg(long)]
        force: bool,
    },
    /// Let edges sign visitors' cookies and passes with another key; what is signed stays good
    RotateVisitorKey,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JoinToken {
    /// Make a join token; its secret is shown this once, on standard output
    Create {
        /// The region of the edges that it lets in
        #[arg(long, value_name = "REGION")]
        region: RegionId,
        /// The only edge that it lets in
        #[arg(long, value_name = "EDGE")]
        name: Option<EdgeId>,
        /// How long it lives, such as 10m or 1h, at most 7d
        #[arg(long, value_name = "SPAN", value_parser = span, default_value = "1h")]
        ttl: Duration,
        /// How many edges it lets in
        #[arg(long, default_value_t = 1)]
        uses: u32,
    },
    /// List the join tokens that can still be used
    List,
    /// Make a join token invalid
    Revoke {
        /// Its id, from `helix edge token list`
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The edge
    pub(crate) edge: EdgeId,
    /// When WebSockets are told to end as well, such as 90s, 10m or 2h; else they last as long as they like
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) deadline: Option<Duration>,
    /// Why, for those who see it
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Do not wait until its connections have ended
    #[arg(long)]
    pub(crate) detach: bool,
    /// Also the last one that serves its region
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; its secret is shown this once, on standard output
    Create {
        /// What it is for
        name: String,
        /// `read`, `deploy` or `operate`, each with all rights of the ones before; or `edge` or `build`, for an edge or a worker
        #[arg(long)]
        role: Role,
    },
    /// List tokens
    List,
    /// Make a token invalid
    Revoke {
        /// Its id, from `helix token list`
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Folder for keys, configs, data and logs
    #[arg(long, value_name = "DIR", default_value = ".helix")]
    pub(crate) dir: PathBuf,
    /// The regions
    #[arg(long, value_delimiter = ',', default_value = "fra,iad")]
    pub(crate) regions: Vec<RegionId>,
    /// Edges in each region
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) edges: u8,
    /// Keep the records in this PostgreSQL instead of a file
    #[arg(
        long,
        value_name = "postgres://…",
        env = "HELIX_DEV_DATABASE",
        hide_env_values = true
    )]
    pub(crate) database: Option<String>,
    /// Origins that share the database: one leads, the others stand by
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) origins: u8,
    /// Take any free port for everything, where several fleets share a machine
    #[arg(long, env = "HELIX_DEV_ANY_PORTS")]
    pub(crate) any_ports: bool,
    /// Workers that build what is pushed to linked repositories; they need bubblewrap
    #[arg(long, default_value_t = 1, env = "HELIX_DEV_WORKERS", value_parser = clap::value_parser!(u8).range(0..=8))]
    pub(crate) workers: u8,
    /// The nats-server to run; else $NATS_SERVER, .tools/bin, $PATH
    #[arg(long, value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,
    /// Deploy no example
    #[arg(long, conflicts_with = "example")]
    pub(crate) no_example: bool,
    /// The folder to deploy as project `hello`; else deploy/examples/hello
    #[arg(long, value_name = "DIR")]
    pub(crate) example: Option<PathBuf>,
}
