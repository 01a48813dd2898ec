//! `helix-origin`: reads its config, puts the parts together, and runs them until one fails or it is told to end.

mod offline;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use clap::Parser;
use futures_util::FutureExt;
use helix_origin::address::Addresses;
use helix_origin::admin::{self, Admin};
use helix_origin::admission::Admission;
use helix_origin::app::App;
use helix_origin::artifact::{Artifacts, improve};
use helix_origin::collect::{self, Keep};
use helix_origin::config::Config;
use helix_origin::feed::{Feed, Operators, Policy};
use helix_origin::fleet::{self, registry};
use helix_origin::metrics::Metrics;
use helix_origin::provenance::{Attestor, older};
use helix_origin::remote::{self, Remote};
use helix_origin::rollout::{Adopter, Conductor};
use helix_origin::source::seal::SealKey;
use helix_origin::source::{Source, feedback, poll};
use helix_origin::standby::Door;
use helix_origin::store::{self, Place, Store, lease};
use helix_origin::webhook::deliver::{self, Sender};
use helix_origin::webhook::secret::WebhookKey;
use helix_origin::webhook::send::Permitted;
use helix_origin::{api, auth, build, event, glass, hold, provenance, recovery, upkeep};
use helix_routing::api::Role;
use helix_routing::id::RegionId;
use helix_routing::seal::KeyRole;
use helix_service::keys::{KeyRing, SigningKey};
use helix_service::reachable::Reachable;
use helix_service::shutdown::Shutdown;
use helix_service::{clock, nats, telemetry};
use tokio::net::TcpListener;

use crate::offline::Work;

/// HelixStack's control service.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Print the config that holds and end. Secrets are in files, of which only the paths are shown.
    #[arg(long)]
    check: bool,
    /// Instead of serving.
    #[command(subcommand)]
    work: Option<Work>,
}

/// Worker threads: requests wait for disk and NATS, and hashing has threads of its own.
const WORKERS: usize = 2;
/// How long what runs on threads of its own, hashing and disk, may take to end with a term.
const LEFT_OVER: Duration = Duration::from_secs(1);

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
    let path = arguments.config;
    let load = || -> anyhow::Result<Config> {
        let path = path
            .as_ref()
            .context("name the configuration file with --config")?;
        let config: Config = helix_service::config::load(path, "HELIX_ORIGIN")?;
        config
            .check()
            .with_context(|| format!("config {}", path.display()))?;
        Ok(config)
    };
    if let Some(work) = arguments.work {
        return offline::run(work, load);
    }
    let config = load()?;
    if arguments.check {
        let text = serde_json::to_string_pretty(&config)?;
        return writeln!(io::stdout(), "{text}").context("print the config");
    }
    telemetry::init(config.log);
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("make {}", config.data_dir.display()))?;
    // Signals are heard by a thread of their own, whatever becomes of the rest.
    let control = runtime(1)?;
    let shutdown = {
        let _inside = control.enter();
        Shutdown::on_signals(config.exit_with_parent).context("watch for signals")?
    };
    let place = config.place();
    if place.is_shared() {
        shared(&config, &place, &shutdown)
    } else {
        runtime(WORKERS)?.block_on(alone(&config, &place, &shutdown))
    }
}

fn runtime(workers: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
}

/// An origin that has its database for itself: it leads at once, and what fails ends it.
async fn alone(config: &Config, place: &Place, shutdown: &Shutdown) -> anyhow::Result<()> {
    let led = Store::lead(place).await?;
    let Some(store) = recovered(config, led, shutdown).await? else {
        return Ok(());
    };
    let parts = Box::pin(assemble(config, store)).await?;
    let listeners = Listeners::bind(config)?;
    let (listener, admin) = listeners.hand_out()?;
    let (api, pages) = parts.routers()?;
    let doors = async {
        tokio::try_join!(
            async {
                axum::serve(listener, known(api))
                    .await
                    .context("serve the API")
            },
            async {
                axum::serve(admin, pages)
                    .await
                    .context("serve the admin address")
            },
        )
        .map(|_| ())
    };
    Box::pin(serve(config, parts, doors, shutdown)).await
}

/// One of several origins: it stands by and leads, term after term. Each time has a runtime of its own, so that nothing
/// of a term goes on after it.
fn shared(config: &Config, place: &Place, shutdown: &Shutdown) -> anyhow::Result<()> {
    let listeners = Listeners::bind(config)?;
    // At first, a row with our address can only be of a process that is gone.
    let mut is_back = true;
    while !shutdown.is_requested() {
        let runtime = runtime(WORKERS)?;
        let ended = runtime.block_on(time(config, place, &listeners, is_back, shutdown));
        runtime.shutdown_timeout(LEFT_OVER);
        let Err(error) = ended else {
            continue;
        };
        is_back = error.chain().any(store::is_away);
        if !is_back && !error.chain().any(<dyn std::error::Error>::is::<Deposed>) {
            return Err(error);
        }
        tracing::warn!(
            error = format!("{error:#}"),
            from = "leading",
            to = "standing by",
            "origin steps down"
        );
    }
    Ok(())
}

/// Standing by, and then leading, until it no longer leads.
async fn time(
    config: &Config,
    place: &Place,
    listeners: &Listeners,
    is_back: bool,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let door = Door::new(config.address(), config.record_key.clone())?;
    if !config.provenance_key().exists() {
        tracing::warn!(path = %config.provenance_key().display(), "the key that attests releases is not here: copy the leader's before this origin has to lead");
    }
    let (listener, admin) = listeners.hand_out()?;
    let leading = async {
        let store = tokio::select! {
            store = door.lead(place, is_back) => store?,
            () = shutdown.requested() => {
                door.withdraw(place).await;
                return Ok(());
            }
        };
        let recovered = async {
            tokio::select! {
                held = lease::hold(&store) => held.context("hold the lead").and(Err(Deposed.into())),
                recovered = recovered(config, store.clone(), shutdown) => recovered,
            }
        };
        let Some(store) = recovered.await? else {
            return Ok(());
        };
        // From now on, and not only when all of it is there: what it takes may take a while.
        let held = lease::hold(&store);
        let led = async {
            let parts = Box::pin(assemble(config, store.clone())).await?;
            let (api, pages) = parts.routers()?;
            door.open(api, pages);
            Box::pin(serve(config, parts, std::future::pending(), shutdown)).await
        };
        tokio::select! {
            held = held => held.context("hold the lead").and(Err(Deposed.into())),
            led = led => led,
        }
    };
    tokio::select! {
        answered = async { axum::serve(listener, known(door.api())).await } => answered.context("serve the API"),
        answered = async { axum::serve(admin, door.admin()).await } => answered.context("serve the admin address"),
        led = leading => led,
    }
}

/// The router, which hears where each request comes from.
fn known(router: axum::Router) -> IntoMakeServiceWithConnectInfo<axum::Router, SocketAddr> {
    router.into_make_service_with_connect_info()
}

/// Sockets that listen for as long as the process lives: who knocks between two terms waits for the next.
struct Listeners {
    api: std::net::TcpListener,
    admin: std::net::TcpListener,
}

impl Listeners {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = |address| {
            let listener = std::net::TcpListener::bind(address)
                .with_context(|| format!("listen on {address}"))?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(listener)
        };
        let listeners = Self {
            api: bind(config.listen)?,
            admin: bind(config.admin)?,
        };
        tracing::info!(listen = %config.listen, admin = %config.admin, url = config.public_url, "origin serves");
        Ok(listeners)
    }

    fn hand_out(&self) -> io::Result<(TcpListener, TcpListener)> {
        Ok((
            TcpListener::from_std(self.api.try_clone()?)?,
            TcpListener::from_std(self.admin.try_clone()?)?,
        ))
    }
}

/// What an origin that leads consists of.
struct Parts {
    app: App,
    feed: Feed,
    client: async_nats::Client,
}

impl Parts {
    fn routers(&self) -> anyhow::Result<(axum::Router, axum::Router)> {
        let pages = Admin {
            app: self.app.clone(),
            feed: self.feed.clone(),
            metrics: Metrics::new(self.app.conductor.ends())?,
        };
        Ok((api::router(self.app.clone()), admin::router(pages)))
    }
}

/// Another origin leads.
#[derive(Debug, thiserror::Error)]
#[error("another origin leads")]
struct Deposed;

/// After a restore nothing is led before the edges have said what they hold, and then in a term above theirs. None when it is told to end
/// meanwhile.
async fn recovered(
    config: &Config,
    store: Store,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Store>> {
    let Some(due) = recovery::due(&store).await? else {
        return Ok(Some(store));
    };
    let client = nats::connect(&config.nats, "origin").await?;
    let key = record_key(config)?;
    let keys = config.operator_keys.iter().cloned();
    let fleet = recovery::Fleet {
        client: &client,
        ring: &KeyRing::new(keys.chain([key.public()])),
        key: &key,
        roster: &registry::open(&store, &configured(config), clock::now()).await?,
        base: &config.base_domain,
    };
    tokio::select! {
        recovered = recovery::run(&store, fleet, due) => recovered.context("take over what the edges hold")?,
        () = shutdown.requested() => return Ok(None),
    }
    Ok(Some(store.lead_anew().await?))
}

/// Puts together what leads.
async fn assemble(config: &Config, store: Store) -> anyhow::Result<Parts> {
    auth::ensure_file(
        &store,
        &config.bootstrap_token_file,
        "bootstrap",
        Role::Operate,
    )
    .await?;
    auth::ensure_file(&store, &config.edge_token_file, "edges", Role::Edge).await?;
    let client = nats::connect(&config.nats, "origin").await?;
    let regions: Arc<[RegionId]> = config
        .regions
        .iter()
        .map(|region| region.region.clone())
        .collect();
    let record_key = record_key(config)?;
    let operators = config.operator_keys.iter().cloned();
    let provenance_key = provenance_key(config, &store).await?;
    let pinned = operators.chain([record_key.public(), provenance_key.public()]);
    let pinned = pinned.collect();
    let roster = registry::open(&store, &configured(config), clock::now()).await?;
    let adopter = Adopter::new(store.clone(), config.base_domain.clone(), roster.clone());
    let feed = Feed::new(
        store.clone(),
        client.clone(),
        Arc::new(record_key),
        &regions,
        Policy {
            may_drop: config.snapshots_may_drop,
            replicas: config.stream_replicas,
            operators: Operators {
                keys: config.operator_keys.clone(),
                adopter: Some(adopter),
            },
        },
    );
    fleet::versions::register(&store, &roster.all()).await?;
    let admission = Admission::configured(config, pinned, &roster).await?;
    let conductor = Conductor::new(
        store.clone(),
        feed.clone(),
        roster.clone(),
        config.base_domain.clone(),
        config.bake.prometheus.as_deref(),
    );
    let remote = config.registry.as_ref().map(Remote::open).transpose()?;
    let artifacts = artifacts(config, &store, remote.clone())?;
    let layout = artifacts.layout().clone();
    let app = App {
        attestor: Attestor::new(store.clone(), layout, provenance_key),
        artifacts,
        store,
        addresses: Arc::new(Addresses::new(config.base_domain.clone(), config.site_port)),
        regions,
        conductor,
        bakes: Arc::new(config.bake.clone()),
        rollouts: Arc::new(config.rollout.clone()),
        roster,
        admission,
        feed: feed.clone(),
        webhooks: webhooks(config)?,
        source: source(config)?,
        remote,
        asking: reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?,
    };
    app.conductor.resume().await?;
    Ok(Parts { app, feed, client })
}

fn artifacts(config: &Config, store: &Store, remote: Option<Remote>) -> anyhow::Result<Artifacts> {
    let opened = Artifacts::open(store.clone(), config.artifacts(), config.keep.project_bytes)?;
    Ok(opened
        .running_commands(config.gates.commands)
        .mending_from(remote))
}

/// Everything at once, with `held`: what else has to go on. The first part to fail ends all; who leads next goes on from SQL.
async fn serve(
    config: &Config,
    parts: Parts,
    held: impl Future<Output = anyhow::Result<()>>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let Parts { app, feed, client } = parts;
    let (store, events, builds) = (app.store.clone(), client.clone(), client.clone());
    let parts = async {
        tokio::try_join!(
            async {
                feed.run(config.nats.monitor.as_deref(), shutdown)
                    .await
                    .context("feed the edges")
            },
            held,
            fleet::reports::run(client, app.roster.clone(), app.conductor.clone(), shutdown)
                .map(Ok),
            app.artifacts.export_on_demand(shutdown).map(Ok),
            upkeep::run(&app, shutdown).map(Ok),
            tell_accounts(&app, shutdown).map(Ok),
            hold::run(&app.store, shutdown).map(Ok),
            event::publisher::run(&app.store, events, config.stream_replicas, shutdown).map(Ok),
            deliver::run(&app.store, &app.webhooks, shutdown).map(Ok),
            glass::run(app.roster.clone(), app.conductor.clone(), shutdown).map(Ok),
            collected(config, &app, shutdown).map(Ok),
            improve::run(&app.artifacts, shutdown).map(Ok),
            older::run(&app.attestor, shutdown).map(Ok),
            built(config, &app, builds, shutdown).map(Ok),
            remote::run::run(&app, shutdown).map(Ok),
        )
    };
    let ended = tokio::select! {
        ended = parts => ended.map(|_| ()),
        () = store.fenced() => Err(Deposed.into()),
        // Requests in flight end with the process: each change is one transaction, and clients repeat what was cut off.
        () = shutdown.requested() => Ok(()),
    };
    if ended.is_ok() && store.is_shared() {
        // Without it the others wait for a lease.
        if let Err(error) = lease::release(&store).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lead is not let go"
            );
        }
    }
    store.close().await;
    ended
}

/// How webhooks are sent to: never to origin itself, whatever is allowed.
fn webhooks(config: &Config) -> anyhow::Result<Sender> {
    Ok(Sender {
        key: Arc::new(WebhookKey::open(&config.webhook_key())?),
        permitted: Arc::new(Permitted {
            reachable: Reachable {
                allow: config.webhooks.allow.clone(),
                own: vec![config.listen, config.admin],
            },
            plain_http: config.webhooks.plain_http,
        }),
        patience: config.webhooks.retries,
    })
}

/// Where origin asks for sources: as webhooks, but for what the config says of sources.
fn source(config: &Config) -> anyhow::Result<Source> {
    let permitted = Permitted {
        reachable: Reachable {
            allow: config.webhooks.allow.clone(),
            own: vec![config.listen, config.admin],
        },
        plain_http: config.source.plain_http,
    };
    let key = SealKey::open(&config.seal_key())?;
    let permitted = Arc::new(permitted);
    Ok(Source::new(
        &config.source,
        key,
        &config.public_url,
        permitted,
    ))
}

/// All that goes on about builds.
async fn built(config: &Config, app: &App, client: async_nats::Client, shutdown: &Shutdown) {
    tokio::join!(
        build::queue::run(&app.store, client, config.stream_replicas, shutdown),
        build::sweep::run(app, shutdown),
        poll::run(app, shutdown),
        feedback::run(app, shutdown),
    );
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

async fn tell_accounts(app: &App, shutdown: &Shutdown) {
    if let Some(admission) = &app.admission {
        admission.run(&app.store, shutdown).await;
    }
}

fn keep(config: &Config) -> Keep {
    Keep {
        releases: config.keep.releases,
        age: Duration::from_secs(u64::from(config.keep.days) * 24 * 60 * 60),
        upload_grace: Duration::from_secs(config.keep.upload_seconds),
    }
}

fn record_key(config: &Config) -> anyhow::Result<SigningKey> {
    Ok(SigningKey::open(KeyRole::Record, &config.record_key)?)
}

/// The key that attests releases. A new one is made only where none has attested anything yet: edges pin the one that has.
async fn provenance_key(config: &Config, store: &Store) -> anyhow::Result<SigningKey> {
    let path = config.provenance_key();
    if !path.exists() && provenance::has_signed(store).await? {
        anyhow::bail!(
            "{} is missing, and releases are attested with a key already: copy it from the origin that led before",
            path.display()
        );
    }
    Ok(SigningKey::open(KeyRole::Provenance, &path)?)
}

fn configured(config: &Config) -> Vec<fleet::Edge> {
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
