//! The same build on one's own machine, in place: `helix build`.
//!
//! Nothing is fetched, uploaded or removed. Without a sandbox it is what typing the lines would be, with the programs that are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use helix_routing::api::{BuildLimits, BuildSettings, BuildStep};
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use crate::detect::files::{Folder, join};
use crate::detect::{self, DetectError, Plan};
use crate::egress::{Egress, EgressConfig};
use crate::environment;
use crate::log::Journal;
use crate::log::mask::Mask;
use crate::output::{self, Output, OutputError};
use crate::sandbox::{Engine, Limits, Local, Mount, PROXY_SOCKET, SPACE, SandboxError, Task};
use crate::toolchain::{
    self, Index, NPM_REGISTRY, PYTHON_INDEX, Registry, Toolchain, ToolchainError, Tools,
};

/// A build in place failed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// There is no such folder.
    #[error("{} is not a folder", .0.display())]
    NoFolder(PathBuf),
    /// It is not known how to build it.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// A program is missing.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// No HTTP client.
    #[error("set up the HTTP client")]
    Client(#[from] reqwest::Error),
    /// A folder beside it cannot be made.
    #[error("prepare a sandbox")]
    Prepare(#[from] std::io::Error),
    /// It cannot be run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A line failed.
    #[error("`{line}` {complaint}")]
    Line {
        /// Which.
        line: String,
        /// How.
        complaint: String,
    },
    /// What came out cannot be deployed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// How the sandbox is made, if there is to be one.
#[derive(Clone, Debug)]
pub struct Sandboxed {
    /// Where programs and what package managers fetch are kept.
    pub cache: PathBuf,
    /// Hosts that may be reached.
    pub hosts: Vec<String>,
    /// Addresses that may be reached besides public ones.
    pub egress: EgressConfig,
}

/// How the project in `folder` is built.
///
/// # Errors
/// When there is no such folder, or settings name what there is not.
pub fn plan(folder: &Path, settings: &BuildSettings) -> Result<Plan, LocalError> {
    let files = Folder::open(folder).ok_or_else(|| LocalError::NoFolder(folder.to_owned()))?;
    Ok(detect::plan(&files, settings)?)
}

/// What was built in `folder`.
///
/// # Errors
/// When there is nothing, or it cannot be deployed.
pub fn built(folder: &Path, plan: &Plan) -> Result<Output, LocalError> {
    Ok(output::collect(
        folder,
        &plan.root,
        &plan.outputs,
        &Mask::new([]),
    )?)
}

/// Installs and builds in `folder`, and looks through what came out. Lines go to `journal`.
///
/// # Errors
/// As [`LocalError`] says.
pub async fn build(
    folder: &Path,
    plan: &Plan,
    sandbox: Option<&Sandboxed>,
    journal: &Journal,
) -> Result<Output, LocalError> {
    let folder = fs::canonicalize(folder)?;
    let lines = [
        (BuildStep::Install, &plan.install, &plan.install_root),
        (BuildStep::Build, &plan.build, &plan.root),
    ];
    let lines = lines
        .into_iter()
        .filter_map(|(step, line, root)| Some((step, line.as_ref()?, root)));
    match sandbox {
        None => {
            for (step, line, root) in lines {
                let task = open_task(&folder, plan, line, root);
                run(&Engine::Open, &task, step, journal).await?;
            }
        }
        Some(sandbox) => {
            let workbench = Workbench::make(&folder, plan, sandbox).await?;
            journal.say(BuildStep::Toolchain, &workbench.tools.described());
            for (step, line, root) in lines {
                let _egress = workbench.egress(step, sandbox, journal)?;
                run(
                    &workbench.engine,
                    &workbench.task(plan, line, root),
                    step,
                    journal,
                )
                .await?;
            }
        }
    }
    let output = built(&folder, plan)?;
    journal.close(BuildStep::Output);
    Ok(output)
}

async fn run(
    engine: &Engine,
    task: &Task,
    step: BuildStep,
    journal: &Journal,
) -> Result<(), LocalError> {
    journal.say(step, &format!("$ {}", task.line));
    let printers = [journal.printer(step), journal.printer(step)];
    // Whoever waits for it ends it by ending this program.
    let (_stop, stopped) = watch::channel(None);
    let outcome = engine.run(task, printers, &stopped).await?;
    match outcome.complaint(&task.limits) {
        None => Ok(()),
        Some(complaint) => Err(LocalError::Line {
            line: task.line.clone(),
            complaint,
        }),
    }
}

fn open_task(folder: &Path, plan: &Plan, line: &str, root: &str) -> Task {
    let path = std::env::var("PATH").unwrap_or_default();
    Task {
        folder: folder.join(root).display().to_string(),
        env: environment::open(plan, folder, &path),
        limits: limits(),
        ..Task::of(line)
    }
}

/// As of a worker, but for the disk, which is one's own.
fn limits() -> Limits {
    let limits = BuildLimits::default();
    Limits {
        until: Instant::now() + Duration::from_secs(limits.seconds),
        silence: Duration::from_secs(limits.silence_seconds),
        memory_bytes: limits.memory_bytes,
        processors: None,
        processes: limits.processes,
        disk_bytes: limits.disk_bytes,
        disk_folder: None,
    }
}

/// A sandbox around a folder that stays where it is.
struct Workbench {
    engine: Engine,
    tools: Tools,
    toolchain: PathBuf,
    source: PathBuf,
    beside: tempfile::TempDir,
    cache: PathBuf,
}

impl Workbench {
    async fn make(source: &Path, plan: &Plan, sandbox: &Sandboxed) -> Result<Self, LocalError> {
        let address = |text| Url::parse(text).expect("the address is a constant that parses");
        let registry = Registry::new(address(NPM_REGISTRY), sandbox.cache.join("registry"))?;
        let index = Index::new(address(PYTHON_INDEX))?;
        let toolchain = Toolchain::new(registry, index, sandbox.cache.join("toolchain"));
        let tools = toolchain.provide(plan).await?;
        let beside = tempfile::Builder::new().prefix("helix-build").tempdir()?;
        let cache = sandbox.cache.join("packages");
        for folder in [
            &beside.path().join("home"),
            &beside.path().join("control"),
            &cache,
            &toolchain.folder().to_owned(),
        ] {
            fs::create_dir_all(folder)?;
        }
        Ok(Self {
            engine: Engine::Local(Local {
                bwrap: bubblewrap(),
                program: std::env::current_exe()?,
                user: None,
                control: beside.path().join("control"),
                name: format!("helix-build-{}", helix_service::random::hex16()),
            }),
            tools,
            toolchain: toolchain.folder().to_owned(),
            source: source.to_owned(),
            beside,
            cache,
        })
    }

    fn egress(
        &self,
        step: BuildStep,
        sandbox: &Sandboxed,
        journal: &Journal,
    ) -> Result<Egress, LocalError> {
        let folder = self.beside.path().join("control/egress");
        fs::create_dir_all(&folder)?;
        let socket = folder.join(PROXY_SOCKET);
        // That of the line before.
        let _ = fs::remove_file(&socket);
        let journal = journal.clone();
        Ok(Egress::start(
            &socket,
            &sandbox.hosts,
            &sandbox.egress,
            move |text| journal.say(step, text),
        )?)
    }

    fn task(&self, plan: &Plan, line: &str, root: &str) -> Task {
        let mount = |outside: &Path, inside: String, writable: bool| Mount {
            outside: outside.to_owned(),
            inside,
            writable,
        };
        Task {
            folder: format!("{SPACE}/{}", join("source", root)),
            env: environment::sandboxed(plan, &self.tools, []),
            mounts: vec![
                mount(&self.source, format!("{SPACE}/source"), true),
                mount(
                    &self.beside.path().join("home"),
                    format!("{SPACE}/home"),
                    true,
                ),
                mount(&self.cache, format!("{SPACE}/cache"), true),
                mount(&self.toolchain, toolchain::INSIDE.to_owned(), false),
            ],
            online: true,
            limits: limits(),
            ..Task::of(line)
        }
    }
}

/// Where it is found on the way of this process.
fn bubblewrap() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("bwrap"))
        .find(|file| file.is_file())
        .unwrap_or_else(|| PathBuf::from("bwrap"))
}
