//! `helix-edge --config edge.toml [--check]`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use helix_edge::app;
use helix_edge::config::{EdgeConfig, VARIABLE_PREFIX};
use helix_edge::join::{self, JoinArguments};
use helix_service::shutdown::Shutdown;
use helix_service::{config, telemetry};

/// Bodies and heads of a few kilobytes come and go with every request, which it does in half the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of the threads that follow, fetch and report.
const NICENESS: i32 = 10;

/// Serves the sites of one region.
#[derive(Debug, Parser)]
#[command(
    name = "helix-edge",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    /// The config file; `HELIX_EDGE_…` variables override it.
    #[arg(long, required = true)]
    config: Option<PathBuf>,
    /// Print the config that holds and end. Secrets are in files, of which only the paths are shown.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Come into a fleet by a join token: makes keys, and writes the config that this edge is started with
    Join(Box<JoinArguments>),
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::init(telemetry::LogFormat::default());
            tracing::error!(error = format!("{error:#}"), "edge ends");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Join(join)) = arguments.command {
        return join_fleet(*join);
    }
    let path = arguments.config.context("say --config")?;
    let config: EdgeConfig = config::load(&path, VARIABLE_PREFIX)?;
    if arguments.check {
        let text = serde_json::to_string_pretty(&config)?;
        return writeln!(io::stdout(), "{text}").context("print the config");
    }
    telemetry::init(config.log);
    // One thread follows, fetches and reports; the listener brings a thread per core, from this one.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(give_way)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(run(config));
    // What still runs here holds nothing that is not on disk.
    runtime.shutdown_background();
    ended
}

/// Lets the threads that serve come first: one that wakes up for a request would wait some milliseconds for the core of one that is
/// no less urgent. Where all cores are busy this one still gets a tenth of one.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "following is as urgent as serving");
    }
}

fn join_fleet(arguments: JoinArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let name = arguments.name.clone();
    let config = runtime.block_on(Box::pin(join::join(arguments)))?;
    let text = format!(
        "{name} is in the fleet; start it with: helix-edge --config {}",
        config.display()
    );
    writeln!(io::stdout(), "{text}").context("say where the config is")
}

async fn run(config: EdgeConfig) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals(config.exit_with_parent).context("listen for signals")?;
    let running = Box::pin(app::start(config, shutdown)).await?;
    Ok(running.join().await?)
}
