//! A whole fleet on this machine: `helix dev` in a folder of its own, on free ports.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use helix_routing::id::{EdgeId, RegionId, ReleaseId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::api::Api;
use crate::client::Client;
use crate::command::{Ended, Helix, program};
use crate::folder::Folder;
use crate::wait;

/// A first start makes keys and every stream, on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longer than the ten seconds that `helix dev` gives its children.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// A killed process is started again by `helix dev` and answers within this.
pub const REVIVE_LIMIT: Duration = Duration::from_secs(20);
/// Last lines of each log that a failed test shows.
const LOG_TAIL_LINES: usize = 30;

/// How a fleet is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The place where one process is to be killed, once, after [`Fleet::arm`].
    pub failpoint: Option<&'static str>,
    /// There it is paused instead, until [`Fleet::signal`] lets it go on.
    pub failpoint_pauses: bool,
    /// Where our programs are taken from; by default the folder of this build.
    pub programs: Option<PathBuf>,
    /// Variables that lay settings over the config files.
    pub settings: &'static [(&'static str, &'static str)],
    /// More arguments of `helix dev`.
    pub arguments: &'static [&'static str],
    /// A PostgreSQL for the records, and how many origins share it.
    pub shared: Option<(String, u8)>,
}

/// What `helix dev` says about itself in `dev.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct DevInfo {
    /// Origin's API.
    pub api: String,
    /// The base domain.
    pub base_domain: String,
    /// NATS.
    pub nats: String,
    /// The edges of each region.
    pub regions: BTreeMap<RegionId, Vec<EdgeInfo>>,
    /// A token that may do everything.
    pub token: String,
}

/// One edge in `dev.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct EdgeInfo {
    /// Its id.
    pub edge: EdgeId,
    /// Where it serves.
    pub http: String,
    /// Where it serves over TLS, if it does.
    #[serde(default)]
    pub https: Option<String>,
    /// Its admin address.
    pub admin: String,
}

/// A running fleet. Ends when dropped; shows the ends of its logs when the test has failed.
#[derive(Debug)]
pub struct Fleet {
    folder: TempDir,
    dev: Child,
    options: Options,
    /// Addresses and token.
    pub info: DevInfo,
}

impl Fleet {
    /// Starts one and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time.
    #[must_use]
    pub fn start(options: &Options) -> Self {
        Self::start_in(Self::new_folder(), options)
    }

    /// A folder for a fleet that is not there yet.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new_folder() -> TempDir {
        let mut builder = tempfile::Builder::new();
        builder.prefix("helix-fleet-").tempdir().unwrap()
    }

    /// Starts one on what is in `folder`, and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time.
    #[must_use]
    pub fn start_in(folder: TempDir, options: &Options) -> Self {
        // One at a time: a port that was free for two would be taken for one.
        let _turn = starts();
        let dev = spawn(folder.path(), options);
        let mut fleet = Self {
            folder,
            dev,
            options: options.clone(),
            info: DevInfo::unknown(),
        };
        fleet.info = fleet.wait_until_ready();
        fleet
    }

    /// The fleet that independent tests share, each with projects of its own. It ends with its last user.
    ///
    /// # Panics
    /// When it is not ready in time.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Fleet>> = Mutex::new(Weak::new());
        // A test that panicked while it held the lock has left a Weak that is still right.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let fleet = Arc::new(Self::start(&Options::default()));
            *shared = Arc::downgrade(&fleet);
            fleet
        })
    }

    /// Ends it in the orderly way and leaves its folder.
    ///
    /// # Panics
    /// When a process does not end in time.
    pub fn stop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.dev.id()).unwrap());
        // It may have ended by itself; then there is nothing to stop.
        let _ = kill(pid, Signal::SIGTERM);
        wait::until_true("helix dev ends after SIGTERM", STOP_LIMIT, || {
            self.dev.try_wait().unwrap().is_some()
        });
    }

    /// Starts it again on the same folder.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start_again(&mut self) {
        let _turn = starts();
        self.dev = spawn(self.folder.path(), &self.options);
        self.info = self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) -> DevInfo {
        let path = self.folder.path().join("dev.json");
        wait::until("helix dev writes dev.json", START_LIMIT, || {
            if let Some(status) = self.dev.try_wait().unwrap() {
                panic!("helix dev ended with {status}");
            }
            serde_json::from_slice(&fs::read(&path).ok()?).ok()
        })
    }

    /// Where it keeps its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every edge with its region.
    pub fn edges(&self) -> impl Iterator<Item = (&RegionId, &EdgeInfo)> {
        self.info
            .regions
            .iter()
            .flat_map(|(region, edges)| edges.iter().map(move |edge| (region, edge)))
    }

    /// Origin's API with the operator's token.
    #[must_use]
    pub fn api(&self) -> Api {
        Api {
            url: self.info.api.clone(),
            token: self.info.token.clone(),
        }
    }

    /// The command with the operator's token.
    #[must_use]
    pub fn helix(&self) -> Helix {
        Helix {
            api: self.info.api.clone(),
            token: self.info.token.clone(),
        }
    }

    /// `<project>.<base>`.
    #[must_use]
    pub fn host(&self, project: &str) -> String {
        format!("{project}.{}", self.info.base_domain)
    }

    /// Deploys a folder to production and returns the release, which is settled then.
    ///
    /// # Panics
    /// When it does not settle.
    #[track_caller]
    pub fn deploy(&self, project: &str, folder: &Folder) -> ReleaseId {
        let ended = self.deploy_to(project, "production", folder.path()).with(0);
        release_of(&ended)
    }

    /// Deploys a path to an environment.
    pub fn deploy_to(&self, project: &str, environment: &str, path: &Path) -> Ended {
        let path = path.to_str().expect("temporary folders have UTF-8 names");
        self.helix().run([
            "deploy",
            path,
            "--project",
            project,
            "--env",
            environment,
            "--json",
        ])
    }

    /// The answer of one edge.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn ask(&self, edge: &EdgeInfo, host: &str, target: &str) -> crate::client::Response {
        let request = crate::client::Request::get(host, target);
        Client::of(&edge.http)
            .send(request)
            .unwrap_or_else(|error| panic!("{} {host}{target}: {error}", edge.edge))
    }

    /// Fails unless every edge answers `target` of `host` with this status and body.
    ///
    /// # Panics
    /// Then, naming the edge.
    #[track_caller]
    pub fn all_answer(&self, host: &str, target: &str, status: u16, body: Option<&[u8]>) {
        for (_, edge) in self.edges() {
            let response = self.ask(edge, host, target);
            assert_eq!(
                response.status,
                status,
                "{} {host}{target}: {}",
                edge.edge,
                short(&response.text())
            );
            if let Some(body) = body {
                assert!(
                    response.body == body,
                    "{} {host}{target} has another body: {}",
                    edge.edge,
                    short(&response.text())
                );
            }
        }
    }

    /// The config file that `helix dev` wrote for `origin` or an edge.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn config_file(&self, name: &str) -> PathBuf {
        let wanted = format!("{name}.toml");
        find(self.folder.path(), &wanted)
            .unwrap_or_else(|| panic!("no {wanted} under {}", self.folder.path().display()))
    }

    /// What that file says.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn config(&self, name: &str) -> toml::Table {
        let path = self.config_file(name);
        toml::from_str(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The process id of a child: `nats`, `origin` or an edge's id.
    ///
    /// # Panics
    /// When there is no such child.
    #[must_use]
    pub fn pid(&self, name: &str) -> Pid {
        self.pid_now(name)
            .unwrap_or_else(|| panic!("{name} has no process"))
    }

    fn pid_now(&self, name: &str) -> Option<Pid> {
        let text =
            fs::read_to_string(self.folder.path().join("run").join(format!("{name}.pid"))).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    /// `kill -9`. `helix dev` starts it again.
    ///
    /// # Panics
    /// When it has no process.
    pub fn kill(&self, name: &str) -> Pid {
        let pid = self.pid(name);
        kill(pid, Signal::SIGKILL).unwrap();
        pid
    }

    /// Sends a signal that it lives through: stop, go on.
    ///
    /// # Panics
    /// When it has no process.
    pub fn signal(&self, name: &str, signal: Signal) {
        kill(self.pid(name), signal).unwrap();
    }

    /// Keeps `helix dev` from noticing anything, and so from starting processes that have ended.
    ///
    /// # Panics
    /// When it has ended itself.
    pub fn freeze(&self) {
        let pid = Pid::from_raw(i32::try_from(self.dev.id()).unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
    }

    /// Lets `helix dev` go on after [`Fleet::freeze`].
    ///
    /// # Panics
    /// When it has ended itself.
    pub fn thaw(&self) {
        let pid = Pid::from_raw(i32::try_from(self.dev.id()).unwrap());
        kill(pid, Signal::SIGCONT).unwrap();
    }

    /// The name of a child that stands still, if one does.
    ///
    /// # Panics
    /// When the fleet's folder cannot be read.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        let pids = fs::read_dir(self.folder.path().join("run")).unwrap();
        let names = pids.flatten().filter_map(|entry| {
            let path = entry.path();
            (path.extension()? == "pid").then_some(path.file_stem()?.to_str()?.to_owned())
        });
        let is_paused = |name: &String| {
            let pid = self.pid_now(name)?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The state follows the name, which is in parentheses and may hold anything.
            stat.rsplit(')')
                .next()?
                .trim_start()
                .starts_with('T')
                .then_some(())
        };
        names.into_iter().find(|name| is_paused(name).is_some())
    }

    /// Waits until `name` runs as another process than `before`.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait_for_successor(&self, name: &str, before: Pid) {
        wait::until_true(&format!("{name} is started again"), REVIVE_LIMIT, || {
            self.pid_now(name)
                .is_some_and(|pid| pid != before && kill(pid, None).is_ok())
        });
    }

    /// Waits until origin sees every edge live and ready.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait_until_whole(&self) {
        let api = self.api();
        wait::until_true("every edge is live and ready", REVIVE_LIMIT, || {
            api.status().is_some_and(|status| {
                !status.edges.is_empty() && status.edges.iter().all(|edge| edge.live && edge.ready)
            })
        });
    }

    /// From now on, the next process that reaches the fleet's failpoint is killed there.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn arm(&self) {
        File::create(self.once()).unwrap();
    }

    /// Whether a process has been killed since [`Fleet::arm`].
    #[must_use]
    pub fn has_fired(&self) -> bool {
        !self.once().exists()
    }

    fn once(&self) -> PathBuf {
        self.folder.path().join("failpoint")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_logs(self.folder.path());
        }
        let pid = Pid::from_raw(i32::try_from(self.dev.id()).unwrap_or(i32::MAX));
        // Errors mean that it has ended, which is what is wanted.
        if matches!(self.dev.try_wait(), Ok(None)) {
            let _ = kill(pid, Signal::SIGTERM);
            // It may be frozen.
            let _ = kill(pid, Signal::SIGCONT);
            let deadline = std::time::Instant::now() + STOP_LIMIT;
            while matches!(self.dev.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
                wait::pause(Duration::from_millis(20));
            }
            let _ = self.dev.kill();
            let _ = self.dev.wait();
        }
    }
}

impl DevInfo {
    fn unknown() -> Self {
        let text = String::new;
        Self {
            api: text(),
            base_domain: text(),
            nats: text(),
            regions: BTreeMap::new(),
            token: text(),
        }
    }
}

/// The release that `helix deploy --json` names.
///
/// # Panics
/// When it names none.
#[track_caller]
#[must_use]
pub fn release_of(ended: &Ended) -> ReleaseId {
    let json = ended.json();
    let release = json
        .get("release")
        .or_else(|| json.get("deployment")?.get("release"));
    let text = release
        .and_then(serde_json::Value::as_str)
        .unwrap_or_else(|| panic!("no release in {json}"));
    text.parse().unwrap()
}

/// The checkout.
///
/// # Panics
/// Never: this package lies in it.
#[must_use]
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn starts() -> MutexGuard<'static, ()> {
    static STARTS: Mutex<()> = Mutex::new(());
    STARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(folder: &Path, options: &Options) -> Child {
    let output = File::options()
        .create(true)
        .append(true)
        .open(folder.join("dev.out"))
        .unwrap();
    let helix = match &options.programs {
        Some(folder) => folder.join("helix"),
        None => program("helix"),
    };
    let mut command = Command::new(helix);
    command
        .arg("dev")
        .arg("--dir")
        .arg(folder)
        .arg("--no-example")
        .args(options.arguments)
        .current_dir(checkout());
    let nats = checkout().join(".tools/bin/nats-server");
    if std::env::var_os("NATS_SERVER").is_none() && nats.exists() {
        command.env("NATS_SERVER", nats);
    }
    // While an origin is dead its port is free, and another fleet that prefers it would be taken for it.
    command.env("HELIX_DEV_ANY_PORTS", "true");
    // A test that wants builds asks for workers.
    command.env("HELIX_DEV_WORKERS", "0");
    command.envs(options.settings.iter().copied());
    if let Some((database, origins)) = &options.shared {
        command
            .env("HELIX_DEV_DATABASE", database)
            .args(["--origins", &origins.to_string()]);
    }
    if let Some(point) = options.failpoint {
        command
            .env("HELIX_FAILPOINT", point)
            .env("HELIX_FAILPOINT_ONCE", folder.join("failpoint"));
    }
    if options.failpoint_pauses {
        command.env("HELIX_FAILPOINT_PAUSES", "1");
    }
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap_or_else(|error| panic!("start helix dev: {error}; `make build` builds it"))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let here = entries
        .iter()
        .find(|path| path.file_name().is_some_and(|found| found == name));
    here.cloned().or_else(|| {
        entries
            .iter()
            .filter(|path| path.is_dir())
            .find_map(|path| find(path, name))
    })
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

#[expect(
    clippy::print_stderr,
    reason = "what a person needs when a test has failed"
)]
fn show_logs(folder: &Path) {
    let logs = fs::read_dir(folder.join("log"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for path in std::iter::once(folder.join("dev.out")).chain(logs) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(LOG_TAIL_LINES)..)
            .unwrap_or_default();
        eprintln!("--- the end of {}\n{}", path.display(), tail.join("\n"));
    }
}
