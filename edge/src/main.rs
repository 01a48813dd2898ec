//! `helix-edge --config edge.toml [--check]`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use helix_edge::app;
use helix_edge::config::{EdgeConfig, VARIABLE_PREFIX};
use helix_service::shutdown::Shutdown;
use helix_service::{config, telemetry};

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

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = load(&arguments.config)?;
    if arguments.check {
        return print(&config);
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

fn load(path: &Path) -> anyhow::Result<EdgeConfig> {
    Ok(config::load(path, VARIABLE_PREFIX)?)
}

async fn run(config: EdgeConfig) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals(config.exit_with_parent).context("listen for signals")?;
    let running = Box::pin(app::start(config, shutdown)).await?;
    Ok(running.join().await?)
}

#[expect(clippy::print_stdout, reason = "printing is what --check is for")]
fn print(config: &EdgeConfig) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(config)?);
    Ok(())
}
