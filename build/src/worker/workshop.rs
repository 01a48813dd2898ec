//! What all builds of a worker share, and one build from its job to what came of it.
//!
//! ```text
//! fetch → detect → toolchain → install → build → output → upload
//! ```

use std::path::PathBuf;

use helix_client::Origin;
use helix_routing::api::{BuildJob, BuildOutcome, BuildStep};
use helix_service::digest::sha256;
use helix_service::random;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::secrets;
use super::space::Space;
use super::workbench::{Failure, Workbench, seconds};
use crate::config::Config;
use crate::dependencies::Dependencies;
use crate::log::Journal;
use crate::sandbox::{self, Engine, Local};
use crate::toolchain::{Index, Registry, Toolchain};

/// Everything that builds share.
#[derive(Clone, Debug)]
pub struct Workshop {
    pub(super) config: Config,
    pub(super) program: PathBuf,
    pub(super) user: Option<(u32, u32)>,
    pub(super) toolchain: Toolchain,
    pub(super) dependencies: Dependencies,
}

impl Workshop {
    /// Ready to build.
    ///
    /// # Errors
    /// When this program cannot be found, or there can be no HTTP client.
    pub fn open(config: Config) -> anyhow::Result<Self> {
        let toolchain = config.data_dir.join("toolchain");
        let registry = Registry::new(config.registry.clone(), config.data_dir.join("registry"))?;
        let index = Index::new(config.python_index.clone())?;
        let is_root = nix::unistd::geteuid().is_root();
        Ok(Self {
            program: std::env::current_exe()?,
            user: is_root.then_some((config.sandbox.uid, config.sandbox.gid)),
            toolchain: Toolchain::new(registry, index, toolchain),
            dependencies: Dependencies::new(config.data_dir.join("dependencies")),
            config,
        })
    }

    /// The same, run by another program than this one: for tests, whose own is no worker.
    #[must_use]
    pub fn run_by(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Starts of the names of this worker's control groups, which are those of its data folder.
    fn group_start(&self) -> String {
        let folder = self.config.data_dir.display().to_string();
        format!("helix-build-{}-", &sha256(folder.as_bytes()).hex()[..8])
    }

    /// Removes what builds left behind that were cut off.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn tidy(&self) -> std::io::Result<()> {
        sandbox::sweep(&self.group_start()).await;
        super::space::remove(&self.builds())
    }

    /// A log that hides what of a job is secret.
    #[must_use]
    pub fn journal(job: &BuildJob) -> Journal {
        Journal::new(secrets::mask(job), job.limits.log_bytes)
    }

    /// Builds, and brings what comes out to origin. `stop` holds a reason as soon as it is to end.
    pub async fn build(
        &self,
        job: &BuildJob,
        journal: &Journal,
        origin: &Origin,
        stop: watch::Receiver<Option<String>>,
    ) -> BuildOutcome {
        let outcome = match self.workbench(job, journal, stop) {
            Ok(workbench) => {
                let outcome = workbench.run(origin).await;
                // Thousands of files.
                let _ = spawn_blocking(move || drop(workbench.space)).await;
                outcome
            }
            Err(failure) => Err(failure),
        };
        outcome.unwrap_or_else(|Failure { step, reason }| {
            let reason = journal.mask().hide(&reason).into_owned();
            journal.say(step, &format!("failed: {reason}"));
            journal.close(step);
            BuildOutcome::Failed { step, reason }
        })
    }

    fn builds(&self) -> PathBuf {
        self.config.data_dir.join("builds")
    }

    fn workbench<'a>(
        &'a self,
        job: &'a BuildJob,
        journal: &'a Journal,
        stop: watch::Receiver<Option<String>>,
    ) -> Result<Workbench<'a>, Failure> {
        let name = format!("{}-{}", job.id, random::hex16());
        let space = Space::make(&self.builds(), &name, self.user)
            .map_err(|error| Failure::of(BuildStep::Fetch)(&error))?;
        let engine = Engine::Local(Local {
            bwrap: self.config.sandbox.bwrap.clone(),
            program: self.program.clone(),
            user: self.user,
            control: space.control(),
            name: format!("{}{name}", self.group_start()),
        });
        Ok(Workbench {
            shop: self,
            job,
            journal,
            stop,
            space,
            engine,
            until: Instant::now() + seconds(job.limits.seconds),
        })
    }
}
