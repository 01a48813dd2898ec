//! Servers as processes: started on their core, and what they used.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use helix_tests::wait;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::Case;
use super::load;

/// Core of the server under test.
pub(crate) const SERVER_CORE: &str = "0";
/// Core of loads and the upstream.
pub(crate) const LOAD_CORE: &str = "1";
/// What `/proc` counts time in: fixed for every Linux (proc(5), USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// A server that has not opened its port by then will not.
const START_LIMIT: Duration = Duration::from_secs(20);

/// One server under test.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// How it was set up, for the report.
    pub(crate) setup: &'static str,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    /// What it cannot do, and why.
    pub(crate) gaps: Vec<(Case, &'static str)>,
    /// Process whose tree is measured; none when the server is not installed.
    pub(crate) pid: Option<Pid>,
    /// Ends the process when dropped, or whatever else keeps it.
    pub(crate) _keeper: Option<Box<dyn std::any::Any>>,
}

impl Server {
    /// A server that is not on this machine.
    pub(crate) fn missing(name: &'static str) -> Self {
        let gaps = Case::ALL.map(|case| (case, "not installed")).to_vec();
        Self {
            name,
            version: String::from("none"),
            setup: "",
            http: None,
            https: None,
            gaps,
            pid: None,
            _keeper: None,
        }
    }

    /// Why it cannot do `case`.
    pub(crate) fn unsupported(&self, case: Case) -> Option<&'static str> {
        let gap = |(other, why): &(Case, &'static str)| (*other == case).then_some(*why);
        self.gaps.iter().find_map(gap)
    }
}

/// Ends a child when dropped.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until {
            wait::pause(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `command` on `core` and waits until `ready` accepts. Its output goes to a file in `folder`.
pub(crate) fn start(
    core: &str,
    command: &[&str],
    variables: &[(&str, &str)],
    folder: &Path,
    ready: SocketAddr,
) -> anyhow::Result<(Pid, Box<dyn std::any::Any>)> {
    start_within(core, command, variables, folder, ready, START_LIMIT)
}

/// The same, with so much time.
pub(crate) fn start_within(
    core: &str,
    command: &[&str],
    variables: &[(&str, &str)],
    folder: &Path,
    ready: SocketAddr,
    limit: Duration,
) -> anyhow::Result<(Pid, Box<dyn std::any::Any>)> {
    let output = fs::File::create(folder.join("output"))?;
    let mut child = Kept(
        Command::new("taskset")
            .args(["-c", core])
            .args(command)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", command[0]))?,
    );
    let until = Instant::now() + limit;
    while TcpStream::connect(ready).is_err() {
        if child.0.try_wait()?.is_some() || Instant::now() > until {
            let said = fs::read_to_string(folder.join("output")).unwrap_or_default();
            bail!("{} does not listen on {ready}: {said}", command[0]);
        }
        wait::pause(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(i32::try_from(child.0.id())?);
    Ok((pid, Box::new(child)))
}

/// What a program says of its version, shortened to what looks like one.
pub(crate) fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let is_version = |word: &&str| word.chars().any(|c| c.is_ascii_digit()) && word.contains('.');
    let word = said
        .split(|c: char| c.is_whitespace() || c == '/')
        .find(is_version)?;
    Some(word.trim_start_matches('v').to_owned())
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Moves a process that runs already, with all its threads, to `core`.
pub(crate) fn pin(pid: Pid, core: &str) -> anyhow::Result<()> {
    let moved = Command::new("taskset")
        .args(["-acp", core, &pid.to_string()])
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(moved.success(), "taskset: {moved}");
    Ok(())
}

/// One run of one case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) cpu_us_per_request: f64,
    pub(crate) requests_per_s: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) rss_mib: f64,
    /// Cores' worth of time that neither server, upstream nor load used.
    pub(crate) foreign: f64,
}

/// Runs `case` once and reads what the server used meanwhile.
pub(crate) fn measure(
    case: Case,
    server: &Server,
    upstream: &Server,
    seconds: u64,
) -> anyhow::Result<Sample> {
    let pid = server.pid.context("it runs")?;
    let before = Moment::now(pid, upstream)?;
    let load = load::run(case, server, Duration::from_secs(seconds))?;
    let after = Moment::now(pid, upstream)?;
    anyhow::ensure!(load.errors == 0, "{} requests failed", load.errors);
    anyhow::ensure!(load.requests > 0, "no request was answered");
    let used = after.server - before.server;
    let known = used + after.upstream - before.upstream + after.loads - before.loads;
    let elapsed = after.at.duration_since(before.at).as_secs_f64();
    Ok(Sample {
        cpu_us_per_request: used * 1e6 / load.requests as f64,
        requests_per_s: load.requests as f64 / load.seconds,
        p50_ms: load.p50_ms,
        p99_ms: load.p99_ms,
        rss_mib: resident_tree(pid) / 1024.0,
        foreign: (after.machine - before.machine - known).max(0.0) / elapsed,
    })
}

/// CPU seconds used up to a moment.
struct Moment {
    at: Instant,
    server: f64,
    upstream: f64,
    loads: f64,
    machine: f64,
}

impl Moment {
    fn now(server: Pid, upstream: &Server) -> anyhow::Result<Self> {
        let loads = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Ok(Self {
            at: Instant::now(),
            server: used(server),
            upstream: upstream.pid.map_or(0.0, used),
            loads: seconds(loads.user_time()) + seconds(loads.system_time()),
            machine: machine()?,
        })
    }
}

/// CPU seconds of a process and its descendants.
pub(crate) fn used(pid: Pid) -> f64 {
    tree(pid).into_iter().filter_map(ticks).sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// User and system time in ticks.
fn ticks(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces, and ends with the last bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Resident memory of a process and its descendants in KiB. What they share counts for each.
pub(crate) fn resident_tree(pid: Pid) -> f64 {
    tree(pid).into_iter().filter_map(resident).sum()
}

/// Resident memory in KiB.
fn resident(pid: Pid) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn tree(pid: Pid) -> Vec<Pid> {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|child| child.parse().ok());
    let below = children.map(Pid::from_raw).flat_map(tree);
    std::iter::once(pid).chain(below).collect()
}

/// CPU seconds that all cores were busy.
fn machine() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("an empty /proc/stat")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, then idle and iowait, then irq, softirq, steal.
    let busy: u64 = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|at| fields.get(*at))
        .sum();
    Ok(busy as f64 / TICKS_PER_SECOND)
}
