//! Measures a whole fleet on this machine, four edges in two regions, NATS and origin on loopback; and one edge
//! beside the servers people use now.
//!
//! Figures are reported, never asserted: machines are noisy, and a run shares its cores with the load it makes.
//! What must hold at any speed is checked all the same: no failed response, no body of another release.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement may stop here, and prints"
)]

mod cutovers;
mod edges;
mod figures;
mod folders;
mod h3_load;
mod hosts;
mod idle;
mod memory;
mod peers;
mod pushes;
mod rollbacks;
mod routes;
mod under_load;
mod watch;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use helix_tests::fleet::{Fleet, Options};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The edge's own, whose table is looked up in here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures a fleet on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Memory of an idle edge and of origin.
    Memory,
    /// Memory that each idle connection costs an edge, by protocol.
    Idle {
        /// How many of each.
        #[arg(long, default_value_t = 3_000)]
        count: usize,
    },
    /// CPU time per request of one serving thread and of two.
    Workers {
        /// Times each.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Seconds each time.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
    },
    /// Deploys of real folders: the first time, and with one file changed.
    Folders {
        /// Folders to deploy.
        folders: Vec<PathBuf>,
    },
    /// Deploys of a site of many small files, of which some change.
    Redeploys {
        /// Files.
        #[arg(long, default_value_t = 5_000)]
        files: usize,
        /// Files that change.
        #[arg(long, default_value_t = 10)]
        changed: usize,
    },
    /// A push to its event on JetStream, and to the end of a build whose own lines take no time.
    Pushes {
        /// Pushes.
        #[arg(long, default_value_t = 200)]
        pushes: usize,
        /// Builds.
        #[arg(long, default_value_t = 20)]
        builds: usize,
    },
    /// SQL commit to the last of four edges serving the new release.
    Cutovers {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        count: usize,
    },
    /// A million hosts on one edge: starts, memory, lookups, changes, and requests meanwhile.
    Hosts {
        /// Hosts.
        #[arg(long, default_value_t = 1_000_000)]
        hosts: u64,
        /// Sites they belong to.
        #[arg(long, default_value_t = 100_000)]
        sites: u64,
        /// Starts from disk, and as many from a snapshot.
        #[arg(long, default_value_t = 5)]
        starts: usize,
        /// Hosts changed one by one.
        #[arg(long, default_value_t = 300)]
        changes: u64,
    },
    /// Simulated edges on one NATS: SQL commit to the last of them having applied it.
    Edges {
        /// How many.
        #[arg(long, default_value_t = 200)]
        count: usize,
        /// Cutovers.
        #[arg(long, default_value_t = 200)]
        cutovers: usize,
    },
    /// nginx, Caddy and Traefik with many hosts: start, memory, reload, and what visitors see of it.
    PeerHosts {
        /// How many hosts.
        #[arg(long, value_delimiter = ',', default_value = "10000,100000")]
        counts: Vec<usize>,
        /// Reloads.
        #[arg(long, default_value_t = 5)]
        reloads: usize,
        /// Only these servers.
        #[arg(long)]
        servers: Vec<String>,
    },
    /// One edge beside nginx, HAProxy, Caddy and Traefik: CPU time per request, case by case.
    Peers {
        /// Times each server does each case.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Seconds each time.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Only cases whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// Only servers whose name contains one of these.
        #[arg(long)]
        servers: Vec<String>,
        /// Folder for `latest.json`, `latest.md` and `latest.svg`.
        #[arg(long, default_value = "bench/results")]
        into: PathBuf,
    },
    /// Loads a server with HTTP/3 requests and prints what it answered, as JSON.
    H3Load(h3_load::Options),
    /// How long a table of routes takes to decide a request.
    Routes {
        /// How many routes.
        #[arg(long, default_value_t = 2_000)]
        count: usize,
    },
    /// `helix rollback --region fra`, from typed to ended.
    Rollbacks {
        /// How many.
        #[arg(long, default_value_t = 100)]
        count: usize,
    },
    /// Rollbacks of both regions under load, back and forth: what requests and WebSockets notice.
    RollbacksUnderLoad(under_load::Options),
}

fn main() -> anyhow::Result<()> {
    // Once: what starts many processes and connections needs it, and the rest does not mind.
    allow_descriptors()?;
    let fleet = || Fleet::start(&Options::default());
    match Arguments::parse().what {
        What::Peers {
            runs,
            seconds,
            only,
            servers,
            into,
        } => {
            let options = peers::Options {
                runs,
                seconds,
                only,
                servers,
            };
            peers::run(&options, &into)
        }
        What::H3Load(options) => h3_load::run(&options),
        What::Workers { runs, seconds } => peers::workers::run(runs, seconds),
        What::Hosts {
            hosts,
            sites,
            starts,
            changes,
        } => hosts::run(hosts::Size {
            hosts,
            sites,
            starts,
            changes,
        }),
        What::Routes { count } => routes::run(count),
        What::Edges { count, cutovers } => edges::run(count, cutovers),
        What::PeerHosts {
            counts,
            reloads,
            servers,
        } => peers::hosts::run(&counts, reloads, &servers),
        What::Idle { count } => idle::run(&fleet(), count),
        What::Memory => memory::run(&fleet()),
        What::Folders { folders } => folders::run(&fleet(), &folders),
        What::Redeploys { files, changed } => folders::redeploy(&fleet(), files, changed),
        What::Pushes { pushes, builds } => pushes::run(pushes, builds),
        What::Cutovers { count } => cutovers::run(&fleet(), count),
        What::Rollbacks { count } => rollbacks::run(&fleet(), count),
        What::RollbacksUnderLoad(options) => under_load::run(&fleet(), options),
    }
}

/// As many descriptors as this process, and those it starts, may have.
fn allow_descriptors() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
