//! `helix-build`: reads its config, and takes builds off the queue until it is told to end.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use async_nats::jetstream;
use clap::Parser;
use helix_build::config::{Config, VARIABLE_PREFIX};
use helix_build::sandbox;
use helix_build::worker::{Worker, Workshop};
use helix_client::{Access, Origin};
use helix_service::shutdown::Shutdown;
use helix_service::{nats, telemetry};
use nix::fcntl::{Flock, FlockArg};

/// HelixStack's build worker.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Print the config that holds and end. Secrets are in files, of which only the paths are shown.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    // On the way into a sandbox this program is something else.
    if let Some(code) = sandbox::run_if_asked() {
        return code;
    }
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::init(telemetry::LogFormat::default());
            tracing::error!(error = format!("{error:#}"), "the worker ends");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config: Config = helix_service::config::load(&arguments.config, VARIABLE_PREFIX)?;
    if arguments.check {
        let text = serde_json::to_string_pretty(&config)?;
        return writeln!(io::stdout(), "{text}").context("print the config");
    }
    telemetry::init(config.log);
    fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("make {}", config.data_dir.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work(config))
}

async fn work(config: Config) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals(config.exit_with_parent).context("watch for signals")?;
    let token = fs::read_to_string(&config.token_file)
        .with_context(|| format!("read token {}", config.token_file.display()))?;
    let origin = Origin::new(Access {
        api: config.origin.clone(),
        others: config.other_origins.clone(),
        token: token.trim().to_owned(),
        found: "config".to_owned(),
    })?;
    let client = nats::connect(&config.nats, "build").await?;
    let (slots, queue_api) = (config.slots, config.queue_api.clone());
    // Held to the end: what is in the folder is this worker's alone.
    let lock = fs::File::create(config.data_dir.join("lock")).context("make the lock file")?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| {
            format!(
                "lock {}: does another worker use it?",
                config.data_dir.display()
            )
        })?;
    let workshop = Workshop::open(config)?;
    workshop
        .tidy()
        .await
        .context("remove what was left of builds")?;
    tracing::info!(slots, "the worker waits for builds");
    Worker::new(origin, workshop)
        .run(jetstream::with_prefix(client, &queue_api), slots, &shutdown)
        .await;
    Ok(())
}
