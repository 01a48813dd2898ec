//! Measures a whole fleet on this machine: four edges in two regions, NATS and origin on loopback.
//!
//! Figures are reported, never asserted: machines are noisy, and a run shares its cores with the load it makes.
//! What must hold at any speed is checked all the same: no failed response, no body of another release.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement may stop here, and prints"
)]

mod cutovers;
mod figures;
mod folders;
mod memory;
mod rollbacks;
mod watch;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use helix_tests::fleet::{Fleet, Options};

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
    /// Deploys of real folders: the first time, and with one file changed.
    Folders {
        /// Folders to deploy.
        folders: Vec<PathBuf>,
    },
    /// SQL commit to the last of four edges serving the new release.
    Cutovers {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        count: usize,
    },
    /// `helix rollback --region fra`, from typed to ended.
    Rollbacks {
        /// How many.
        #[arg(long, default_value_t = 100)]
        count: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let fleet = Fleet::start(&Options::default());
    match arguments.what {
        What::Memory => memory::run(&fleet),
        What::Folders { folders } => folders::run(&fleet, &folders),
        What::Cutovers { count } => cutovers::run(&fleet, count),
        What::Rollbacks { count } => rollbacks::run(&fleet, count),
    }
}
