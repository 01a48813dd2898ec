//! Runs a shell line where it can do no harm, within limits, and ends everything that it started.
//!
//! The [`Engine`] is the seam for other ways of doing so (`docs/decisions/0171`): bubblewrap on this machine, or, for a project's
//! own owner at their own machine, nothing at all. Namespaces share the machine's kernel; they are no virtual machine.

mod bwrap;
mod cgroup;
mod confine;
pub(crate) mod disk;
pub(crate) mod init;
mod order;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch as channel;
use tokio::time::Instant;

use crate::log::Printer;
use bwrap::SystemFolder;
use cgroup::{Groups, Most, Reached};
use order::{Order, ProcessLimits, Relay};
use watch::Watch;

pub use init::run_if_asked;

/// Where a build's own space is inside.
pub const SPACE: &str = "/build";
/// Port of the sandbox's loopback that leads to the egress proxy.
pub const PROXY_PORT: u16 = 3128;
/// Name of the egress proxy's socket in its folder.
pub const PROXY_SOCKET: &str = "egress.sock";

/// Folders of a system that may be links into `/usr`.
const FOLDERS: &[&str] = &["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Something to run.
#[derive(Clone, Debug)]
pub struct Task {
    /// Shell line.
    pub line: String,
    /// Where it runs: inside for a sandbox, else on this machine.
    pub folder: String,
    /// All that a sandbox has in its environment; what an open engine has besides its own.
    pub env: BTreeMap<String, String>,
    /// What is to be seen inside besides the system.
    pub mounts: Vec<Mount>,
    /// Whether the egress proxy can be reached.
    pub online: bool,
    /// What it may use.
    pub limits: Limits,
}

/// A folder of this machine that is seen inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On this machine.
    pub outside: PathBuf,
    /// Inside.
    pub inside: String,
    /// Whether it can be written to.
    pub writable: bool,
}

/// What a task may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// When it has to have ended.
    pub until: Instant,
    /// How long it may print nothing.
    pub silence: Duration,
    /// Bytes of memory, of all processes.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Processors kept busy; all there are if left out.
    pub processors: Option<f64>,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// The folder whose size counts.
    pub disk_folder: Option<PathBuf>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With that code.
    Exited(i32),
    /// By that signal, which we did not send.
    Signalled(i32),
    /// By us: it ran for too long.
    Late,
    /// By us: it printed nothing for too long.
    Silent,
    /// By us: it took more of the disk than it may.
    Disk,
    /// By us: somebody asked for it, and says why.
    Asked(String),
}

/// How a task ended, and which limits it ran into without being ended for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How.
    pub ended: Ended,
    reached: Reached,
}

/// A task could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Nothing is run without one.
    #[error("start {}: is bubblewrap installed?", program.display())]
    Start {
        /// What was started.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The sandbox does not come about on this machine.
    #[error("set up the sandbox: {reason}")]
    SetUp {
        /// What bubblewrap, or the first process inside, says.
        reason: String,
    },
    /// A file beside the build cannot be written.
    #[error("prepare {}", path.display())]
    Prepare {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What happens inside can no longer be seen.
    #[error("watch the build")]
    Watch(#[source] io::Error),
}

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Ends and removes what is left of control groups whose names begin with `start`: a worker that was killed could not.
pub async fn sweep(start: &str) {
    Groups::left(Path::new(GROUPS), &own_groups(), start)
        .end()
        .await;
}

fn own_groups() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// How tasks are run.
#[derive(Clone, Debug)]
pub enum Engine {
    /// In bubblewrap, on this machine.
    Local(Local),
    /// As whoever runs this: for one's own projects.
    Open,
}

/// What the local engine needs.
#[derive(Clone, Debug)]
pub struct Local {
    /// Bubblewrap.
    pub bwrap: PathBuf,
    /// This program, which has to call [`run_if_asked`] first of all.
    pub program: PathBuf,
    /// Who builds outside, if this process is root.
    pub user: Option<(u32, u32)>,
    /// A folder of this build's own, beside its space, that it cannot write to.
    pub control: PathBuf,
    /// Name of its control groups.
    pub name: String,
}

impl Task {
    /// One that only runs a line, without a limit to speak of.
    #[must_use]
    pub fn of(line: &str) -> Self {
        Self {
            line: line.to_owned(),
            folder: "/".to_owned(),
            env: BTreeMap::new(),
            mounts: Vec::new(),
            online: false,
            limits: Limits {
                until: Instant::now() + Duration::from_secs(60),
                silence: Duration::from_secs(60),
                memory_bytes: 1 << 30,
                processes: 256,
                processors: None,
                disk_bytes: 1 << 30,
                disk_folder: None,
            },
        }
    }
}

impl Task {
    /// What of it can be written to, inside.
    fn writable(&self) -> Vec<String> {
        let writable = self.mounts.iter().filter(|mount| mount.writable);
        writable.map(|mount| mount.inside.clone()).collect()
    }
}

impl Outcome {
    /// What went wrong, if anything did.
    #[must_use]
    pub fn complaint(&self, limits: &Limits) -> Option<String> {
        let text = match &self.ended {
            Ended::Exited(0) => return None,
            Ended::Exited(code) => format!("ended with code {code}"),
            Ended::Signalled(signal) => format!("was ended by signal {signal}"),
            Ended::Late => "ran for longer than a build may".to_owned(),
            Ended::Silent => format!("printed nothing for {} s", limits.silence.as_secs()),
            Ended::Disk => format!("took more than {} bytes on disk", limits.disk_bytes),
            Ended::Asked(reason) => format!("was stopped: {reason}"),
        };
        let memory = format!(
            "; it ran out of the {} bytes of memory that it has",
            limits.memory_bytes
        );
        let processes = format!("; it ran into the limit of {} processes", limits.processes);
        let mut text = text;
        if self.reached.memory {
            text.push_str(&memory);
        }
        if self.reached.processes {
            text.push_str(&processes);
        }
        Some(text)
    }
}

impl Engine {
    /// How limits are kept, for the log.
    #[must_use]
    pub fn described(&self, limits: &Limits) -> String {
        match self {
            Self::Local(local) => {
                let groups = local.groups(limits);
                format!("runs in a sandbox; {}", groups.described())
            }
            Self::Open => "runs without a sandbox".to_owned(),
        }
    }

    /// Runs a task to its end. `stop` holds a reason as soon as it is to be ended.
    ///
    /// # Errors
    /// When it cannot be run. How it ends is no error.
    pub async fn run(
        &self,
        task: &Task,
        printers: [Printer; 2],
        stop: &channel::Receiver<Option<String>>,
    ) -> Result<Outcome, SandboxError> {
        let watch = Watch {
            limits: task.limits.clone(),
            printers,
            stop: stop.clone(),
        };
        match self {
            Self::Local(local) => local.run(task, watch).await,
            Self::Open => open(task, watch).await,
        }
    }
}

impl Local {
    fn groups(&self, limits: &Limits) -> Groups {
        Groups::make(
            Path::new(GROUPS),
            &own_groups(),
            &self.name,
            Most {
                memory_bytes: limits.memory_bytes,
                processes: limits.processes,
                processors: limits.processors,
            },
        )
    }

    async fn run(&self, task: &Task, watch: Watch) -> Result<Outcome, SandboxError> {
        self.write_control()?;
        let groups = self.groups(&task.limits);
        let order = Order {
            line: task.line.clone(),
            folder: task.folder.clone(),
            env: task.env.clone(),
            writable: task.writable(),
            relay: task.online.then(|| Relay {
                port: PROXY_PORT,
                socket: format!("{}/{PROXY_SOCKET}", bwrap::CONTROL),
            }),
            limits: ProcessLimits {
                file_bytes: task.limits.disk_bytes,
                memory_bytes: (!groups.limit_memory()).then_some(task.limits.memory_bytes),
                processes: (!groups.limit_processes()).then_some(task.limits.processes),
            },
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(SandboxError::Watch)?;
        let child = self.spawn(task, &groups, theirs)?;
        let ended = watch.sandbox(child, ours, &order).await;
        let reached = groups.reached();
        groups.end().await;
        Ok(Outcome {
            ended: ended?,
            reached,
        })
    }

    fn spawn(
        &self,
        task: &Task,
        groups: &Groups,
        control: std::os::unix::net::UnixStream,
    ) -> Result<Child, SandboxError> {
        let folders: Vec<(&str, SystemFolder)> = FOLDERS
            .iter()
            .filter_map(|path| Some((*path, system(path)?)))
            .collect();
        let mut command = Command::new(&self.program);
        command.arg(init::ENTER);
        for folder in groups.folders() {
            command.arg("--group").arg(folder);
        }
        if let Some((uid, gid)) = self.user {
            command.arg("--user").arg(format!("{uid}:{gid}"));
        }
        command.arg("--").arg(&self.bwrap);
        command.args(bwrap::arguments(
            task,
            &folders,
            &self.program,
            &self.control,
        ));
        command
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(control)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SandboxError::Start {
                program: self.program.clone(),
                source,
            })
    }

    /// Who there is inside, and the folder for the proxy's socket.
    fn write_control(&self) -> Result<(), SandboxError> {
        let files = [
            ("passwd", "build:x:1000:1000:build:/build/home:/bin/sh\n"),
            ("group", "build:x:1000:\n"),
            ("hosts", "127.0.0.1 localhost build\n::1 localhost\n"),
        ];
        for (name, text) in files {
            let path = self.control.join(name);
            fs::write(&path, text).map_err(|source| SandboxError::Prepare { path, source })?;
        }
        let path = self.control.join("egress");
        fs::create_dir_all(&path).map_err(|source| SandboxError::Prepare { path, source })
    }
}

fn system(path: &str) -> Option<SystemFolder> {
    let kind = fs::symlink_metadata(path).ok()?;
    if kind.is_symlink() {
        return fs::read_link(path).ok().map(SystemFolder::Link);
    }
    kind.is_dir().then_some(SystemFolder::Folder)
}

async fn open(task: &Task, watch: Watch) -> Result<Outcome, SandboxError> {
    let child = Command::new("/bin/sh")
        .args(["-c", &task.line])
        .current_dir(&task.folder)
        .envs(&task.env)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| SandboxError::Start {
            program: PathBuf::from("/bin/sh"),
            source,
        })?;
    let ended = watch.open(child).await?;
    Ok(Outcome {
        ended,
        reached: Reached::default(),
    })
}
