//! `helix dev`: a whole fleet on one machine, as it would be on many. NATS with one account for each edge, origin,
//! and edges in regions, each a process of its own that is started again when it dies.
//!
//! Keys, ports and data are kept in one folder, so the next start goes on where this one ended.

mod certificate;
mod child;
mod fleet;
mod home;
mod info;
mod leftover;
mod log;
#[cfg(test)]
mod nats_attacks;
mod nats_config;
mod ports;
mod programs;
mod ready;
mod secrets;
mod worker;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use helix_routing::api::Status;
use helix_routing::id::{Environment, ProjectName};
use helix_service::shutdown::Shutdown;
use tokio::process::Command;
use tokio::time::timeout;
use url::Url;

use crate::access::Access;
use crate::arguments::Dev;
use crate::{deploy, output, rollout};
use child::{Children, Program};
use fleet::{Fleet, Wanted, url};
use helix_client::Origin;
use home::Home;
use info::InfoFile;
use worker::Workers;

/// The project that shows the example.
const EXAMPLE_PROJECT: &str = "hello";

/// What to run.
struct Programs {
    nats: PathBuf,
    origin: PathBuf,
    edge: PathBuf,
}

/// `helix dev`.
pub(crate) async fn run(arguments: Dev) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let programs = Programs {
        nats: programs::nats_server(arguments.nats_server.as_deref())?,
        origin: programs::own("helix-origin")?,
        edge: programs::own("helix-edge")?,
    };
    let home = Home::open(&arguments.dir)?;
    let shutdown = Shutdown::on_signals(false).context("listen for signals")?;
    InfoFile::clear(&home);
    leftover::end_all(&home).await;
    if arguments.origins > 1 && arguments.database.is_none() {
        bail!(
            "--origins {}: several origins share a PostgreSQL, so say --database postgres://…",
            arguments.origins
        );
    }
    let fleet = Fleet::plan(
        &home,
        &Wanted {
            regions: &distinct(&arguments)?,
            edges: arguments.edges,
            origins: arguments.origins,
            database: arguments.database.as_deref(),
            any_ports: arguments.any_ports,
        },
    )?;
    fleet.write_configs(&home)?;
    check_nats_config(&programs, &home).await?;

    // Apart, so that NATS ends last: what ends before it can still say so.
    let (mut nats, mut others) = (Children::new(), Children::new());
    let lived = tokio::select! {
        lived = live(&arguments, &programs, &home, &fleet, (&mut nats, &mut others), start) => lived,
        () = shutdown.requested() => Ok(()),
    };
    InfoFile::clear(&home);
    output::say("ending every process");
    others.end().await;
    nats.end().await;
    lived.map(|()| ExitCode::SUCCESS)
}

/// Starts everything, says when it is ready, and stays.
async fn live(
    arguments: &Dev,
    programs: &Programs,
    home: &Home,
    fleet: &Fleet,
    (nats, others): (&mut Children, &mut Children),
    start: Instant,
) -> anyhow::Result<()> {
    nats.start(program(home, "nats", &programs.nats, "-c", "nats.conf"));
    ready::nats(fleet, nats).await?;
    for origin in &fleet.origins {
        others.start(program(
            home,
            &origin.name,
            &programs.origin,
            "--config",
            &format!("{}.toml", origin.name),
        ));
    }
    let origin = Origin::new(Access {
        api: Url::parse(&url(fleet.api))?,
        others: fleet
            .other_origins()
            .map(|other| Url::parse(&other))
            .collect::<Result<_, _>>()?,
        token: fleet.token.clone(),
        found: "helix dev".to_owned(),
    })?;
    // First, so that it hears the first heartbeat of every edge and does not wait for the second. One that was restored
    // answers only after the edges have.
    if let Ok(ready) = timeout(HEAD_START, ready::origin(&origin, others)).await {
        ready?;
    }
    for edge in &fleet.edges {
        let id = edge.edge.as_str();
        let edge = program(home, id, &programs.edge, "--config", &format!("{id}.toml"));
        others.start(Program {
            niceness: 0,
            ..edge
        });
    }
    let status = ready::everything(&origin, fleet, others).await?;
    let site = example(arguments, &origin, &status).await?;
    start_workers(arguments, home, fleet, &origin, others).await?;
    let _info = InfoFile::write(home, fleet)?;
    announce(home, fleet, site.as_deref(), start);
    certificate::follow(home, &origin).await
}

/// Once everything else is there: a build that waits is no reason to wait for it.
async fn start_workers(
    arguments: &Dev,
    home: &Home,
    fleet: &Fleet,
    origin: &Origin,
    others: &mut Children,
) -> anyhow::Result<()> {
    if arguments.workers == 0 {
        return Ok(());
    }
    let workers = match Workers::plan(arguments.workers, home) {
        Ok(workers) => workers,
        Err(missing) => {
            output::say(&missing);
            return Ok(());
        }
    };
    workers.prepare(home, fleet, origin).await?;
    for name in workers.names() {
        others.start(program(
            home,
            name,
            &workers.program,
            "--config",
            &format!("{name}.toml"),
        ));
    }
    Ok(())
}

/// How long edges wait for origin to start: a few times what it takes.
const HEAD_START: Duration = Duration::from_secs(5);

/// The regions, once each: their names are the edges' names.
fn distinct(arguments: &Dev) -> anyhow::Result<Vec<helix_routing::id::RegionId>> {
    let mut regions = arguments.regions.clone();
    regions.sort();
    regions.dedup();
    if regions.len() != arguments.regions.len() || regions.is_empty() {
        bail!("--regions names a region twice, or none");
    }
    Ok(arguments.regions.clone())
}

async fn check_nats_config(programs: &Programs, home: &Home) -> anyhow::Result<()> {
    let checked = Command::new(&programs.nats)
        .arg("-t")
        .arg("-c")
        .arg(home.config("nats.conf"))
        .output()
        .await
        .with_context(|| format!("run {}", programs.nats.display()))?;
    if !checked.status.success() {
        bail!(
            "{} refuses its configuration: {}",
            programs.nats.display(),
            String::from_utf8_lossy(&checked.stderr)
        );
    }
    Ok(())
}

/// Of all but the edges: visitors come before who deploys and builds.
const BEHIND_EDGES: i32 = 10;

/// How to start what stands behind the edges.
fn program(home: &Home, name: &str, program: &Path, flag: &str, config: &str) -> Program {
    Program {
        name: name.to_owned(),
        program: program.to_owned(),
        arguments: vec![OsString::from(flag), home.config(config).into_os_string()],
        niceness: BEHIND_EDGES,
        pid: home.run().join(format!("{name}.pid")),
        log: home.log(name),
    }
}

/// Deploys the example unless it is live: somebody may have taken it back on purpose. Where it answers.
async fn example(
    arguments: &Dev,
    origin: &Origin,
    status: &Status,
) -> anyhow::Result<Option<String>> {
    if arguments.no_example {
        return Ok(None);
    }
    let project: ProjectName = EXAMPLE_PROJECT
        .parse()
        .expect("the name is a legal constant");
    let live = status.sites.iter().find(|site| {
        site.site.project == project
            && site.site.environment == Environment::Production
            && !site.regions.is_empty()
            && site.regions.iter().all(|region| region.live.is_some())
    });
    if let Some(site) = live {
        return Ok(site.hosts.first().cloned());
    }
    let Some(folder) = arguments.example.clone().or_else(programs::example) else {
        output::say("no example site found, so none is deployed");
        return Ok(None);
    };
    let deployed = deploy::deploy(
        origin,
        deploy::Files::Folder(folder),
        &project,
        Environment::Production,
        deploy::Wish::default(),
    )
    .await?;
    let ended = rollout::follow(origin, &deployed.view.rollout).await?;
    if ended.exit_code() != 0 {
        bail!("the example {}", ended.name());
    }
    Ok(Some(deployed.view.url))
}

fn announce(home: &Home, fleet: &Fleet, site: Option<&str>, start: Instant) {
    output::say(&format!(
        "ready after {}\n",
        output::seconds(start.elapsed())
    ));
    if site.is_some() {
        let port = fleet.edges.first().map_or(0, |edge| edge.http);
        output::say(&format!(
            "  site    http://{EXAMPLE_PROJECT}.{}:{port}/",
            fleet::BASE_DOMAIN
        ));
    }
    output::say(&format!("  api     {}", url(fleet.api)));
    for (region, edges) in fleet.regions() {
        let edges: Vec<String> = edges
            .iter()
            .map(|edge| format!("{} {}", edge.edge, url(edge.http)))
            .collect();
        output::say(&format!("  {:<7} {}", region.as_str(), edges.join("  ")));
    }
    output::say(&format!(
        "  state   {}, logs in its log/",
        home.root().display()
    ));
    output::say(
        "\nhelix status · helix deploy DIR --project NAME · Ctrl-C ends every process and keeps the state",
    );
}
