//! Hundreds of simulated edges on one NATS: from the commit in SQL to the last of them having applied it.
//!
//! The store, the publisher, NATS and its accounts (one an edge), each edge's link, follower, verification and ledger are the real ones. What
//! is left out is what an edge does besides: it serves nobody, and its ledger lies in memory, as a thousand edges do not share a disk.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use helix_edge::feed::record::Record;
use helix_edge::feed::{Change, Feed as EdgeFeed, Known};
use helix_edge::state::Ledger;
use helix_edge::table::Table;
use helix_origin::feed::{Feed, Policy, records};
use helix_origin::store::Store;
use helix_routing::id::{Digest, EdgeId, Generation, RegionId, SiteId};
use helix_routing::key::{self, Scope};
use helix_routing::record::{ReleaseRef, SiteRecord};
use helix_routing::report::SiteReport;
use helix_routing::seal::KeyRole;
use helix_routing::wire::Wire;
use helix_service::keys::{KeyRing, SigningKey};
use helix_service::nats::{self, NatsConfig};
use helix_service::shutdown::Shutdown;
use helix_tests::fleet::checkout;
use helix_tests::wait;
use nkeys::KeyPair;
use tokio::sync::mpsc;

use crate::figures::Figures;

/// Until every edge has caught up.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// A cutover that takes longer has failed.
const CUTOVER_LIMIT: Duration = Duration::from_secs(20);
/// What edges have told and nobody has looked at yet.
const WAITING: usize = 65_536;
/// Between two cutovers.
const PAUSE: Duration = Duration::from_millis(100);

/// Measures `cutovers` of one site on `count` edges of one region.
pub(crate) fn run(count: usize, cutovers: usize) -> anyhow::Result<()> {
    let folder = memory_folder()?;
    let bus = Bus::start(folder.path(), count)?;
    // Two runtimes, as origin and edges are processes of their own: none waits in the other's queue.
    let origin = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let edges = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let signer = Arc::new(SigningKey::generate(KeyRole::Record));
    let store = origin.block_on(begin(&bus, &signer, folder.path()))?;
    let (applied, mut seen) = mpsc::channel(WAITING);
    let ring = Arc::new(KeyRing::new([signer.public()]));
    edges.block_on(async {
        for user in &bus.edges {
            user.follow(&bus, Arc::clone(&ring), applied.clone(), folder.path())
                .await?;
        }
        anyhow::Ok(())
    })?;
    let mut spans = Vec::new();
    for number in 0..=cutovers as u64 {
        let committed = origin.block_on(commit(&store, number + 1))?;
        let limit = if number == 0 {
            READY_LIMIT
        } else {
            CUTOVER_LIMIT
        };
        let last = origin.block_on(last_of(&mut seen, Generation(number + 1), count, limit))?;
        if number > 0 {
            spans.push(last.saturating_duration_since(committed));
        }
        wait::pause(PAUSE);
    }
    println!(
        "{count} edges, commit to last applied      {}",
        Figures::of(spans)
    );
    println!(
        "nats-server with {count} edges           {:.0} MiB resident",
        crate::hosts::resident(i32::try_from(bus.server.id())?)?
    );
    Ok(())
}

fn region() -> RegionId {
    "fra".parse().expect("a legal region")
}

/// Where a sync costs nothing.
fn memory_folder() -> anyhow::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("helix-edges-");
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() {
        builder.tempdir_in(memory)?
    } else {
        builder.tempdir()?
    })
}

/// Origin's store and feed, running.
async fn begin(bus: &Bus, signer: &Arc<SigningKey>, folder: &Path) -> anyhow::Result<Store> {
    // On a real disk: the commit's sync is part of what is measured before it, NATS's of what comes after.
    let database = bus.disk.path().join("origin.db");
    let store = Store::lead(&database).await?;
    let client = nats::connect(&bus.config(folder, "origin"), "origin").await?;
    let feed = Feed::new(
        store.clone(),
        client,
        Arc::clone(signer),
        &[region()],
        Policy::default(),
    );
    let monitor = format!("http://127.0.0.1:{}", bus.monitor);
    let (shutdown, handle) = Shutdown::manual();
    tokio::spawn(async move {
        let _handle = handle;
        feed.run(Some(&monitor), &shutdown).await
    });
    Ok(store)
}

/// A cutover's record, as a rollout writes it. Returns when it was committed.
async fn commit(store: &Store, generation: u64) -> anyhow::Result<Instant> {
    let release = |number: u64| -> anyhow::Result<ReleaseRef> {
        Ok(ReleaseRef {
            release: format!("{number:020x}").parse()?,
            artifact: Digest::from_hex(&format!("{number:064x}"))?,
        })
    };
    let mut tx = store.write().await?;
    let mut record = SiteRecord::blank("shop/production".parse()?, region(), tx.epoch());
    record.generation = Generation(generation);
    record.live_since = Generation(generation);
    record.live = Some(release(generation)?);
    record.previous = vec![
        release(generation + 1_000_000)?,
        release(generation + 2_000_000)?,
    ];
    records::put_site(&mut tx, &record).await?;
    tx.commit().await?;
    Ok(Instant::now())
}

/// When the last of all edges had applied `generation`.
async fn last_of(
    seen: &mut mpsc::Receiver<(usize, Generation, Instant)>,
    generation: Generation,
    count: usize,
    limit: Duration,
) -> anyhow::Result<Instant> {
    let mut waiting: std::collections::HashSet<usize> = (0..count).collect();
    let mut last = Instant::now();
    let until = tokio::time::Instant::now() + limit;
    while !waiting.is_empty() {
        let next = tokio::time::timeout_at(until, seen.recv()).await;
        let next = next.with_context(|| format!("{} edges did not apply it", waiting.len()))?;
        let (edge, found, at) = next.context("every edge has ended")?;
        if found == generation && waiting.remove(&edge) {
            last = at;
        }
    }
    Ok(last)
}

/// `nats-server` with an account for each edge.
struct Bus {
    server: Child,
    port: u16,
    monitor: u16,
    edges: Vec<User>,
    disk: tempfile::TempDir,
}

struct User {
    number: usize,
    edge: EdgeId,
    nkey: String,
}

impl Drop for Bus {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Bus {
    fn start(folder: &Path, count: usize) -> anyhow::Result<Self> {
        let mut edges = Vec::new();
        for number in 0..count {
            let edge: EdgeId = format!("fra-{number}").parse()?;
            let nkey = user(folder, edge.as_str())?;
            edges.push(User { number, edge, nkey });
        }
        let origin = user(folder, "origin")?;
        let (port, monitor) = (free_port()?, free_port()?);
        let disk = tempfile::Builder::new().prefix("helix-bus-").tempdir()?;
        let path = folder.join("nats.conf");
        fs::write(
            &path,
            accounts(port, monitor, disk.path(), &origin, &edges)?,
        )?;
        let program = std::env::var_os("NATS_SERVER")
            .map_or_else(|| checkout().join(".tools/bin/nats-server"), PathBuf::from);
        let server = Command::new(program)
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(disk.path().join("nats.log"))?)
            .spawn()
            .context("start nats-server")?;
        Ok(Self {
            server,
            port,
            monitor,
            edges,
            disk,
        })
    }

    fn config(&self, folder: &Path, name: &str) -> NatsConfig {
        NatsConfig::new(
            format!("nats://127.0.0.1:{}", self.port),
            folder.join(format!("{name}.seed")),
        )
    }
}

/// Makes a key, and returns its public half.
fn user(folder: &Path, name: &str) -> anyhow::Result<String> {
    let pair = KeyPair::new_user();
    fs::write(folder.join(format!("{name}.seed")), pair.seed()?)?;
    Ok(pair.public_key())
}

/// The accounts as `helix dev` writes them: what an edge may do there, it may do here.
fn accounts(
    port: u16,
    monitor: u16,
    store: &Path,
    origin: &str,
    edges: &[User],
) -> anyhow::Result<String> {
    let scopes = [Scope::Global, Scope::Region(region())];
    let feeds = scopes
        .each_ref()
        .map(|scope| format!("{}>", scope.feed_prefix()));
    let reads: Vec<String> = scopes
        .iter()
        .flat_map(|scope| [scope.stream(), scope.snapshot_stream()])
        .map(|stream| format!("$JS.API.DIRECT.GET.{stream}"))
        .collect();
    let quoted = |subjects: &[String]| {
        subjects
            .iter()
            .map(|s| format!("\"{s}\""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = format!(
        "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\nmax_payload: 1MB\nwrite_deadline: \"5s\"\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always }}\naccounts {{\n  ORIGIN {{ jetstream: enabled, users: [ {{ nkey: {origin} }} ], exports: [\n",
        store.display()
    );
    for feed in &feeds {
        writeln!(text, "    {{ stream: \"{feed}\" }}")?;
    }
    for read in &reads {
        writeln!(text, "    {{ service: \"{read}\", response_type: stream }}")?;
    }
    for user in edges {
        writeln!(
            text,
            "    {{ service: \"rpt.fra.{0}.>\", accounts: [\"EDGE_{0}\"] }}",
            user.edge
        )?;
    }
    writeln!(text, "  ] }}")?;
    for User { edge, nkey, .. } in edges {
        let reports = format!("rpt.fra.{edge}.>");
        let publish = quoted(&[&reads[..], std::slice::from_ref(&reports)].concat());
        let subscribe = quoted(&[&feeds[..], &[String::from("_INBOX.>")]].concat());
        writeln!(
            text,
            "  \"EDGE_{edge}\" {{ users: [ {{ nkey: {nkey}, permissions: {{ publish: [{publish}], subscribe: [{subscribe}] }} }} ], imports: ["
        )?;
        for feed in &feeds {
            writeln!(
                text,
                "    {{ stream: {{ account: ORIGIN, subject: \"{feed}\" }} }}"
            )?;
        }
        for read in &reads {
            writeln!(
                text,
                "    {{ service: {{ account: ORIGIN, subject: \"{read}\" }} }}"
            )?;
        }
        writeln!(
            text,
            "    {{ service: {{ account: ORIGIN, subject: \"{reports}\" }}, share: true }}\n  ] }}"
        )?;
    }
    writeln!(text, "}}")?;
    Ok(text)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

impl User {
    /// Follows both streams as an edge does, and tells of every generation of the site.
    async fn follow(
        &self,
        bus: &Bus,
        ring: Arc<KeyRing>,
        applied: mpsc::Sender<(usize, Generation, Instant)>,
        folder: &Path,
    ) -> anyhow::Result<()> {
        let client =
            nats::connect(&bus.config(folder, self.edge.as_str()), self.edge.as_str()).await?;
        let (changes, mut inbox) = mpsc::channel(64);
        for scope in [Scope::Global, Scope::Region(region())] {
            let state = folder.join(self.edge.as_str()).join(scope.stream());
            let ledger = Ledger::open(state, scope.clone(), Arc::clone(&ring), |_| {})?;
            let (feed, _) = EdgeFeed::new(
                scope,
                Arc::clone(&ring),
                client.clone(),
                Known {
                    ledger,
                    table: Arc::new(Table::new("helix.localhost".parse()?)),
                    edge: self.edge.clone(),
                },
                changes.clone(),
            );
            tokio::spawn(feed.run());
        }
        drop(changes);
        let (number, edge) = (self.number, self.edge.clone());
        let boot = helix_service::random::boot_id();
        tokio::spawn(async move {
            while let Some(batch) = inbox.recv().await {
                for change in batch.into_changes() {
                    let Change::Record {
                        record: Record::Site(record),
                        ..
                    } = change
                    else {
                        continue;
                    };
                    let at = Instant::now();
                    let report = SiteReport {
                        edge: edge.clone(),
                        region: region(),
                        boot: boot.clone(),
                        site: SiteId::clone(&record.site),
                        generation: record.generation,
                        serving: record.generation,
                        live: record.live.as_ref().map(|live| live.release.clone()),
                        candidate: None,
                    };
                    let subject = key::report(&region(), &edge, "site");
                    // Without a link it is lost, as the record that it answers will come again.
                    let _ = client.publish(subject, report.encode().into()).await;
                    // The measurement may have ended.
                    let _ = applied.send((number, record.generation, at)).await;
                }
            }
        });
        Ok(())
    }
}
