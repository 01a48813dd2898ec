//! `helix-origin`: reads its config, puts the parts together, and runs them until one fails or it is told to end.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures_util::FutureExt;
use helix_origin::address::Addresses;
use helix_origin::admin::{self, Admin};
use helix_origin::app::App;
use helix_origin::artifact::{Artifacts, improve};
use helix_origin::collect::{self, Keep};
use helix_origin::config::Config;
use helix_origin::feed::Feed;
use helix_origin::fleet::{self, Roster};
use helix_origin::metrics::Metrics;
use helix_origin::rollout::Conductor;
use helix_origin::store::Store;
use helix_origin::{api, auth, upkeep};
use helix_routing::api::Role;
use helix_routing::id::RegionId;
use helix_routing::seal::KeyRole;
use helix_service::keys::SigningKey;
use helix_service::shutdown::Shutdown;
use helix_service::{clock, nats, telemetry};
use tokio::net::TcpListener;

/// HelixStack's control service.
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

/// Worker threads: requests wait for disk and NATS, and hashing has threads of its own.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::init(telemetry::LogFormat::default());
            tracing::error!(error = format!("{error:#}"), "origin ends");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config: Config = helix_service::config::load(&arguments.config, "HELIX_ORIGIN")?;
    config
        .check()
        .with_context(|| format!("config {}", arguments.config.display()))?;
    if arguments.check {
        let text = serde_json::to_string_pretty(&config)?;
        return writeln!(io::stdout(), "{text}").context("print the config");
    }
    telemetry::init(config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()?;
    runtime.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals(config.exit_with_parent).context("watch for signals")?;
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("make {}", config.data_dir.display()))?;
    let store = Store::lead(&config.data_dir.join("origin.db")).await?;
    auth::ensure_file(
        &store,
        &config.bootstrap_token_file,
        "bootstrap",
        Role::Operate,
    )
    .await?;
    auth::ensure_file(&store, &config.edge_token_file, "edges", Role::Read).await?;
    let client = nats::connect(&config.nats, "origin").await?;
    let regions: Arc<[RegionId]> = config
        .regions
        .iter()
        .map(|region| region.region.clone())
        .collect();
    let feed = Feed::new(
        store.clone(),
        client.clone(),
        Arc::new(record_key(&config)?),
        &regions,
    );
    let edges = registered(&config);
    fleet::versions::register(&store, &edges).await?;
    let roster = Roster::new(edges, clock::now());
    let conductor = Conductor::new(
        store.clone(),
        feed.clone(),
        roster.clone(),
        config.base_domain.clone(),
        config.bake.prometheus.as_deref(),
    );
    let app = App {
        artifacts: Artifacts::open(store.clone(), &config.data_dir, config.keep.project_bytes)?
            .running_commands(config.gates.commands),
        store,
        addresses: Arc::new(Addresses::new(config.base_domain.clone(), config.site_port)),
        regions,
        conductor,
        bakes: Arc::new(config.bake.clone()),
        roster,
        asking: reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?,
    };
    app.conductor.resume().await?;
    Box::pin(serve(&config, app, feed, client, &shutdown)).await
}

/// Everything at once. The first part to fail ends the process; its supervisor starts it again.
async fn serve(
    config: &Config,
    app: App,
    feed: Feed,
    client: async_nats::Client,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    let admin = TcpListener::bind(config.admin)
        .await
        .with_context(|| format!("listen on {}", config.admin))?;
    tracing::info!(listen = %config.listen, admin = %config.admin, url = config.public_url, "origin serves");
    let store = app.store.clone();
    let metrics = Admin {
        app: app.clone(),
        feed: feed.clone(),
        metrics: Metrics::new()?,
    };
    let parts = async {
        tokio::try_join!(
            async {
                feed.run(config.nats.monitor.as_deref(), shutdown)
                    .await
                    .context("feed the edges")
            },
            async {
                axum::serve(listener, api::router(app.clone()))
                    .await
                    .context("serve the API")
            },
            async {
                axum::serve(admin, admin::router(metrics))
                    .await
                    .context("serve the admin address")
            },
            fleet::reports::run(client, app.roster.clone(), app.conductor.clone(), shutdown)
                .map(Ok),
            app.artifacts.export_on_demand(shutdown).map(Ok),
            upkeep::run(&app, shutdown).map(Ok),
            collected(config, &app, shutdown).map(Ok),
            improve::run(&app.artifacts, shutdown).map(Ok),
        )
    };
    let ended = tokio::select! {
        ended = parts => ended.map(|_| ()),
        () = store.fenced() => Err(anyhow::anyhow!("another origin leads")),
        // Requests in flight end with the process: each change is one transaction, and clients repeat what was cut off.
        () = shutdown.requested() => Ok(()),
    };
    store.close().await;
    ended
}

async fn collected(config: &Config, app: &App, shutdown: &Shutdown) {
    let (store, artifacts, regions) = (
        app.store.clone(),
        app.artifacts.clone(),
        app.regions.to_vec(),
    );
    collect::run(
        store,
        artifacts,
        regions,
        keep(config),
        app.conductor.settled(),
        shutdown,
    )
    .await;
}

fn keep(config: &Config) -> Keep {
    Keep {
        releases: config.keep.releases,
        age: Duration::from_secs(u64::from(config.keep.days) * 24 * 60 * 60),
        upload_grace: Duration::from_secs(config.keep.upload_seconds),
    }
}

fn record_key(config: &Config) -> anyhow::Result<SigningKey> {
    if config.record_key.exists() {
        return Ok(SigningKey::load(KeyRole::Record, &config.record_key)?);
    }
    let key = SigningKey::generate(KeyRole::Record);
    key.save(&config.record_key)?;
    tracing::info!(key.id = %key.public().id, "record key made");
    Ok(key)
}

fn registered(config: &Config) -> Vec<fleet::Edge> {
    let edges = config
        .regions
        .iter()
        .flat_map(|region| region.edges.iter().map(move |edge| (region, edge)));
    edges
        .map(|(region, edge)| fleet::Edge {
            region: region.region.clone(),
            edge: edge.edge.clone(),
            url: edge.url.clone(),
        })
        .collect()
}
