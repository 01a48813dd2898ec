//! A million hosts on one edge: how long a start takes from disk and from a snapshot, what it weighs, how fast a host is found, how
//! soon a changed one is live, and what requests feel while a snapshot is taken over.
//!
//! Origin, NATS and the edge are real; the hosts are written into origin's database the way origin writes them, only many in a transaction.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use helix_edge::table::{Resolved, Serving, Table};
use helix_origin::feed::records;
use helix_origin::store::Store;
use helix_routing::host::{Host, HostPattern};
use helix_routing::id::{Generation, SiteId};
use helix_routing::record::SiteRecord;
use helix_tests::command::program;
use helix_tests::fleet::{Fleet, Options};
use helix_tests::folder::Folder;
use helix_tests::wait;

use crate::figures::Figures;

/// One edge.
const ONE_EDGE: &[&str] = &["--regions", "fra", "--edges", "1"];
/// Records in one transaction.
const TRANSACTION: u64 = 20_000;
/// Every so many hosts belong to the site that is live.
const LIVE_SHARE: u64 = 10;
/// An import of a million takes a minute or two; a busy machine several.
const IMPORT_LIMIT: Duration = Duration::from_secs(1800);
/// A start that takes longer has failed.
const START_LIMIT: Duration = Duration::from_secs(300);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) hosts: u64,
    pub(crate) sites: u64,
    /// Starts from disk, and as many from a snapshot.
    pub(crate) starts: usize,
    /// Hosts changed one by one.
    pub(crate) changes: u64,
}

pub(crate) fn run(size: Size) -> anyhow::Result<()> {
    lookup(size)?;
    let mut fleet = Fleet::start(&Options {
        arguments: ONE_EDGE,
        ..Options::default()
    });
    fleet.deploy("bench", &Folder::page("live"));
    let data = Place::of(&fleet)?;
    fleet.stop();
    let early = data.state.with_extension("early");
    copy(&data.state, &early)?;
    fill(&data.database, size)?;
    fleet.start_again();
    let edge = Running::address(&fleet)?;
    import(&fleet, edge, size)?;
    println!(
        "edge resident after the import          {:.0} MiB",
        resident(fleet.pid("fra-1").as_raw())?
    );
    changes(&fleet, edge, size)?;
    await_cover(&fleet, size)?;
    fleet.freeze();
    fleet.kill("fra-1");
    starts(&data, edge, size)?;
    takeover(&data, &early, edge, size)
}

/// `host-17.customer-3.example`: what a customer's host looks like.
fn host(number: u64) -> String {
    format!("host-{number}.customer-{}.example", number % 977)
}

fn site_of(number: u64, sites: u64) -> SiteId {
    let text = if number.is_multiple_of(LIVE_SHARE) {
        String::from("bench/production")
    } else {
        format!("p{}/production", number % sites)
    };
    text.parse().expect("a legal site")
}

/// Hosts on one edge's table, looked up at random.
fn lookup(size: Size) -> anyhow::Result<()> {
    let table = Table::new("helix.localhost".parse()?);
    for from in (0..size.hosts).step_by(32_768) {
        let batch: Vec<(HostPattern, SiteId)> = (from..size.hosts.min(from + 32_768))
            .map(|n| Ok((host(n).parse()?, site_of(n, size.sites))))
            .collect::<anyhow::Result<_>>()?;
        table.set_hosts(batch.iter().map(|(host, site)| (host, Some(site))));
    }
    let live: SiteId = "bench/production".parse()?;
    table.publish(&live, Serving::new(Generation(1), None, Vec::new()));
    let mut seed = 88_172_645_463_325_252_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % size.hosts
    };
    let asked: Vec<Host> = (0..500_000)
        .map(|_| Ok(host(random()).parse()?))
        .collect::<anyhow::Result<_>>()?;
    let mut runs = Vec::new();
    for _ in 0..7 {
        let hosts = asked.clone();
        let count = hosts.len() as u32;
        let begun = Instant::now();
        let mut found = 0;
        for host in hosts {
            found += usize::from(matches!(table.resolve(host), Resolved::Site { .. }));
        }
        ensure!(found == asked.len(), "every host is found");
        runs.push(begun.elapsed() / count);
    }
    runs.sort();
    println!(
        "lookup of a random host                 {:.0} ns (least {:.0}), of {} hosts",
        runs[runs.len() / 2].as_secs_f64() * 1e9,
        runs[0].as_secs_f64() * 1e9,
        table.host_count(),
    );
    Ok(())
}

/// Where things lie.
struct Place {
    database: PathBuf,
    /// The edge's state of the stream of hosts.
    state: PathBuf,
    config: PathBuf,
}

impl Place {
    fn of(fleet: &Fleet) -> anyhow::Result<Self> {
        let folder = |name: &str| -> anyhow::Result<PathBuf> {
            let config = fleet.config(name);
            let folder = config.get("data_dir").and_then(toml::Value::as_str);
            Ok(PathBuf::from(folder.context("a data_dir")?))
        };
        Ok(Self {
            database: folder("origin")?.join("origin.db"),
            state: folder("fra-1")?.join("state/KV_g"),
            config: fleet.config_file("fra-1"),
        })
    }
}

fn fill(database: &Path, size: Size) -> anyhow::Result<()> {
    let begun = Instant::now();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let store = Store::lead(database).await?;
        for from in (0..size.sites).step_by(TRANSACTION as usize) {
            let mut tx = store.write().await?;
            for number in from..size.sites.min(from + TRANSACTION) {
                let site = format!("p{number}/production").parse()?;
                let mut record = SiteRecord::blank(site, "fra".parse()?, tx.epoch());
                record.generation = Generation(1);
                records::put_site(&mut tx, &record).await?;
            }
            tx.commit().await?;
        }
        for from in (0..size.hosts).step_by(TRANSACTION as usize) {
            let mut tx = store.write().await?;
            for number in from..size.hosts.min(from + TRANSACTION) {
                let pattern = host(number).parse()?;
                records::put_host(&mut tx, &pattern, Some(&site_of(number, size.sites))).await?;
            }
            tx.commit().await?;
        }
        store.close().await;
        anyhow::Ok(())
    })?;
    println!(
        "hosts and sites into SQL                {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Waits until the edge answers for the last host.
fn import(fleet: &Fleet, edge: SocketAddr, size: Size) -> anyhow::Result<()> {
    let begun = Instant::now();
    let last = (size.hosts - 1) / LIVE_SHARE * LIVE_SHARE;
    let until = begun + IMPORT_LIMIT;
    while status(edge, &host(last)).ok() != Some(200) || !fleet_is_ready(fleet) {
        ensure!(Instant::now() < until, "the edge never had the last host");
        wait::pause(Duration::from_millis(100));
    }
    let records = size.hosts + size.sites;
    println!(
        "SQL to the edge, one record each        {:.1} s, {:.0} records/s",
        begun.elapsed().as_secs_f64(),
        records as f64 / begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn fleet_is_ready(fleet: &Fleet) -> bool {
    let status = fleet.api().status();
    status.is_some_and(|status| status.edges.iter().all(|edge| edge.live && edge.ready))
}

/// Changes one host after the other and asks the edge for it until it is there.
fn changes(fleet: &Fleet, edge: SocketAddr, size: Size) -> anyhow::Result<()> {
    let mut spans = Vec::new();
    for number in 0..size.changes {
        let name = format!("new-{number}.example");
        let begun = Instant::now();
        let ended = fleet.api().post(
            "/v1/projects/bench/domains",
            &serde_json::json!({ "host": name, "environment": "production" }),
        );
        ensure!(ended.status < 300, "domain: {}", ended.text());
        while status(edge, &name)? != 200 {
            ensure!(begun.elapsed() < START_LIMIT, "{name} is never live");
            wait::pause(Duration::from_micros(500));
        }
        spans.push(begun.elapsed());
    }
    println!(
        "one host more, API call to first 200    {}",
        Figures::of(spans)
    );
    Ok(())
}

/// Waits until the edge's state begins with snapshots that cover all but the last few hosts and sites, as it does soon after an import.
/// An edge that ends before has to verify the rest one by one when it starts.
fn await_cover(fleet: &Fleet, size: Size) -> anyhow::Result<()> {
    let log = fleet.folder().join("log/fra-1.log");
    let until = Instant::now() + START_LIMIT;
    // One sequence a record, and origin makes a snapshot anew when so many of a hundred have changed.
    let nearly = |records: u64| records * 97 / 100;
    loop {
        let log = fs::read_to_string(&log)?;
        let mut covered: Vec<u64> = covered(&log).into_values().collect();
        covered.sort_unstable();
        if let [.., sites, hosts] = covered[..]
            && sites >= nearly(size.sites)
            && hosts >= nearly(size.hosts)
        {
            break;
        }
        ensure!(
            Instant::now() < until,
            "snapshots cover the logs up to {covered:?} only"
        );
        wait::pause(Duration::from_millis(200));
    }
    // What it was replaced by is folded and removed meanwhile.
    wait::pause(Duration::from_secs(2));
    Ok(())
}

/// The last sequence that a snapshot covers, of each stream of an edge's log.
fn covered(log: &str) -> BTreeMap<&str, u64> {
    let lines = log.lines();
    lines
        .filter(|line| line.contains("state begins with a newer snapshot"))
        .filter_map(|line| {
            let value = |name| {
                line.split_whitespace()
                    .find_map(|word| word.strip_prefix(name))
            };
            Some((value("stream=")?, value("sequence=")?.parse().ok()?))
        })
        .collect()
}

/// An edge that was started here, under the config of the fleet's.
struct Running {
    child: Child,
    /// Where it says what it does.
    said: PathBuf,
}

impl Running {
    fn address(fleet: &Fleet) -> anyhow::Result<SocketAddr> {
        let (_, edge) = fleet.edges().next().context("a fleet has edges")?;
        let (_, address) = edge.http.rsplit_once('/').context("a URL has slashes")?;
        Ok(address.replace("localhost", "127.0.0.1").parse()?)
    }

    fn start(config: &Path) -> anyhow::Result<Self> {
        let said = config.with_extension("out");
        let child = Command::new(program("helix-edge"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said)?)
            .spawn()
            .context("start helix-edge")?;
        Ok(Self { child, said })
    }

    /// Fails with what it said when it has ended by itself.
    fn ensure_runs(&mut self) -> anyhow::Result<()> {
        if let Some(ended) = self.child.try_wait()? {
            let said = fs::read_to_string(&self.said)?;
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            bail!("helix-edge ended, {ended}: {last:?}");
        }
        Ok(())
    }

    /// Until hosts from all over the map answer.
    fn await_hosts(&mut self, edge: SocketAddr, size: Size, begun: Instant) -> anyhow::Result<()> {
        let asked = |n: u64| (size.hosts - 1) * n / 199 / LIVE_SHARE * LIVE_SHARE;
        for number in (0..200).map(asked) {
            while status(edge, &host(number)).ok() != Some(200) {
                self.ensure_runs()?;
                ensure!(
                    begun.elapsed() < START_LIMIT,
                    "{} never answers",
                    host(number)
                );
                wait::pause(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    fn resident(&self) -> anyhow::Result<f64> {
        resident(i32::try_from(self.child.id())?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn starts(data: &Place, edge: SocketAddr, size: Size) -> anyhow::Result<()> {
    for (from, removes) in [("disk", false), ("a snapshot", true)] {
        let (mut spans, mut weights) = (Vec::new(), Vec::new());
        for _ in 0..size.starts {
            if removes {
                fs::remove_dir_all(&data.state)?;
            }
            let begun = Instant::now();
            let mut running = Running::start(&data.config)?;
            running.await_hosts(edge, size, begun)?;
            spans.push(begun.elapsed());
            wait::pause(Duration::from_secs(3));
            weights.push(running.resident()?);
        }
        weights.sort_by(f64::total_cmp);
        let weight = weights[weights.len() / 2];
        println!(
            "start from {from:<29}{}, then {weight:.0} MiB resident",
            Figures::of(spans)
        );
    }
    Ok(())
}

/// What requests feel while an edge that serves takes over a million hosts.
fn takeover(data: &Place, early: &Path, edge: SocketAddr, size: Size) -> anyhow::Result<()> {
    let (mut calm, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..size.starts {
        fs::remove_dir_all(&data.state)?;
        copy(early, &data.state)?;
        let mut running = Running::start(&data.config)?;
        let begun = Instant::now();
        while status(edge, "bench.helix.localhost").ok() != Some(200) {
            running.ensure_runs()?;
            ensure!(begun.elapsed() < START_LIMIT, "the edge does not serve");
            wait::pause(Duration::from_millis(1));
        }
        let last = host((size.hosts - 1) / LIVE_SHARE * LIVE_SHARE);
        ensure!(status(edge, &last)? != 200, "it has no million hosts yet");
        let loads = Loads::start(edge);
        running.await_hosts(edge, size, Instant::now())?;
        busy.extend(loads.stop()?);
        wait::pause(Duration::from_secs(2));
        let loads = Loads::start(edge);
        wait::pause(Duration::from_secs(5));
        calm.extend(loads.stop()?);
    }
    for (when, spans) in [("while a snapshot is taken over", busy), ("without", calm)] {
        let count = spans.len();
        let figures = Figures::of(spans);
        println!(
            "requests {when:<31}p50 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms, n {count}",
            figures.quantile(500).as_secs_f64() * 1e3,
            figures.quantile(990).as_secs_f64() * 1e3,
            figures.quantile(999).as_secs_f64() * 1e3,
        );
    }
    Ok(())
}

/// Four visitors who ask a thousand times a second together.
struct Loads {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<anyhow::Result<Vec<Duration>>>>,
}

impl Loads {
    fn start(edge: SocketAddr) -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let threads = (0..4).map(|_| {
            let stop = std::sync::Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut visitor = Visitor::connect(edge)?;
                let mut spans = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    ensure!(
                        visitor.ask("bench.helix.localhost")? == 200,
                        "a request failed"
                    );
                    spans.push(begun.elapsed());
                    wait::pause(Duration::from_millis(4).saturating_sub(begun.elapsed()));
                }
                Ok(spans)
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    fn stop(self) -> anyhow::Result<Vec<Duration>> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut spans = Vec::new();
        for thread in self.threads {
            match thread.join() {
                Ok(some) => spans.extend(some?),
                Err(_) => bail!("a visitor panicked"),
            }
        }
        Ok(spans)
    }
}

/// One kept-alive connection.
pub(crate) struct Visitor(BufReader<TcpStream>);

impl Visitor {
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The status of the answer, whose body is read.
    pub(crate) fn ask(&mut self, host: &str) -> anyhow::Result<u16> {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length) = (0, 0);
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "the connection ended");
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest.get(..3).unwrap_or_default().parse()?;
            }
            if let Some(rest) = text.strip_prefix("content-length:") {
                length = rest.trim().parse()?;
            }
        }
        std::io::copy(&mut self.0.by_ref().take(length), &mut std::io::sink())?;
        Ok(status)
    }
}

/// The status of one request over a connection of its own.
pub(crate) fn status(edge: SocketAddr, host: &str) -> anyhow::Result<u16> {
    Visitor::connect(edge)?.ask(host)
}

/// Resident memory in MiB.
pub(crate) fn resident(pid: i32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
