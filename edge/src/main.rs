//! `helix-edge --config edge.toml [--check]`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use helix_edge::app;
use helix_edge::config::{EdgeConfig, VARIABLE_PREFIX};
use helix_service::shutdown::Shutdown;
use helix_service::{config, telemetry};

/// Bodies and heads of a few kilobytes come and go with every request, which it does in half the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves the sites of one region.
#[derive(Debug, Parser)]
#[command(name = "helix-edge", version)]
struct Arguments {
    /// The config file; `HELIX_EDGE_…` variables override it.
    #[arg(long)]
    config: PathBuf,
    /// Print the config that holds and end. Secrets are in files, of which only the paths are shown.
    #[arg(long)]
    check: bool,
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
    let config: EdgeConfig = config::load(&arguments.config, VARIABLE_PREFIX)?;
    if arguments.check {
        let text = serde_json::to_string_pretty(&config)?;
        return writeln!(io::stdout(), "{text}").context("print the config");
    }
    telemetry::init(config.log);
    // One thread follows, fetches and reports; the listener brings a thread per core.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(run(config));
    // What still runs here holds nothing that is not on disk.
    runtime.shutdown_background();
    ended
}

async fn run(config: EdgeConfig) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals(config.exit_with_parent).context("listen for signals")?;
    let running = Box::pin(app::start(config, shutdown)).await?;
    Ok(running.join().await?)
}
