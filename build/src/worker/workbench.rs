//! One build at work: every step, from the source to what origin has of it.
//!
//! Whatever goes wrong in a step is the build's failure, with a reason that says what to do. Only the first and the last talk to
//! anybody outside but the egress proxy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use helix_client::Origin;
use helix_client::upload::{self, hash};
use helix_routing::api::{BuildJob, BuildOutcome, BuildStep, NewFile, Trust};
use helix_service::error::chain;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::space::{self, Space};
use super::workshop::Workshop;
use super::{intermediate, secrets};
use crate::dependencies::{Key, Lent};
use crate::detect::files::{Folder, join};
use crate::detect::{self, Plan, hugo};
use crate::egress::Egress;
use crate::environment::{self, SYSTEM_PATH};
use crate::fetch::Fetch;
use crate::log::Journal;
use crate::materials::Materials;
use crate::output;
use crate::sandbox::{Engine, Limits, Mount, PROXY_SOCKET, SPACE, Task};
use crate::toolchain::{self, Tools};

/// No build is watched for longer than a day.
const MAX_SECONDS: u64 = 24 * 60 * 60;

/// What one build has.
pub(super) struct Workbench<'a> {
    pub(super) shop: &'a Workshop,
    pub(super) job: &'a BuildJob,
    pub(super) journal: &'a Journal,
    pub(super) stop: watch::Receiver<Option<String>>,
    pub(super) space: Space,
    pub(super) engine: Engine,
    pub(super) until: Instant,
}

/// A step that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: BuildStep,
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn of(step: BuildStep) -> impl Fn(&dyn std::error::Error) -> Self {
        move |error| Self {
            step,
            reason: chain(error),
        }
    }
}

impl Workbench<'_> {
    pub(super) async fn run(&self, origin: &Origin) -> Result<BuildOutcome, Failure> {
        self.fetch().await?;
        let plan = self.detect()?;
        let tools = self.tools(&plan).await?;
        let materials = self.commands(&plan, &tools).await?;
        let files = self.upload(&plan, origin).await?;
        let materials = self.bill(&materials, &tools);
        self.journal.close(BuildStep::Upload);
        Ok(BuildOutcome::Succeeded {
            files,
            framework: plan.framework.map(|framework| framework.slug.clone()),
            materials,
        })
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let step = BuildStep::Fetch;
        self.journal.say(
            step,
            &format!(
                "fetch {} at {}",
                self.job.source.url, self.job.source.commit
            ),
        );
        let fetch = Fetch {
            config: self.shop.config.fetch,
            user: self
                .shop
                .user
                .map(|(uid, gid)| (self.shop.program.as_path(), uid, gid)),
            until: self.until,
            disk_bytes: self.job.limits.disk_bytes,
            stop: self.stop.clone(),
        };
        let fetched = fetch.run(&self.job.source, &self.space.source()).await;
        let fetched = fetched.map_err(|error| Failure::of(step)(&error))?;
        if fetched.has_lfs {
            self.journal.say(step, "large files (git LFS) are not fetched: they stay pointers, which cannot be deployed");
        }
        if fetched.has_submodules {
            self.journal.say(step, "submodules are not fetched");
        }
        Ok(())
    }

    fn detect(&self) -> Result<Plan, Failure> {
        let step = BuildStep::Detect;
        let failed = |reason: String| Failure { step, reason };
        let folder = Folder::open(&self.space.source())
            .ok_or_else(|| failed("the source is gone".to_owned()))?;
        let mut plan =
            detect::plan(&folder, &self.job.settings).map_err(|error| Failure::of(step)(&error))?;
        if let Some(asked) = self.job.env.get(hugo::VARIABLE) {
            match hugo::range(&asked.value) {
                Some(range) => plan.hugo = Some(range),
                None => plan.notes.push(format!("{} names no Hugo", hugo::VARIABLE)),
            }
        }
        if !plan.root.is_empty() && !self.space.source().join(&plan.root).is_dir() {
            return Err(failed(format!(
                "the root directory {:?} is not in the repository",
                plan.root
            )));
        }
        self.journal.say(step, &plan.summary());
        for note in &plan.notes {
            self.journal.say(step, note);
        }
        Ok(plan)
    }

    async fn tools(&self, plan: &Plan) -> Result<Tools, Failure> {
        let step = BuildStep::Toolchain;
        if plan.install.is_none() && plan.build.is_none() {
            return Ok(Tools::default());
        }
        if let Some(tool) = missing(plan) {
            let reason =
                format!("{tool} builds this project, and is not installed where builds run");
            return Err(Failure { step, reason });
        }
        let provided = self
            .in_time(step, self.shop.toolchain.provide(plan))
            .await?;
        let tools = provided.map_err(|error| Failure::of(step)(&error))?;
        if !tools.versions.is_empty() {
            self.journal.say(step, &tools.described());
        }
        Ok(tools)
    }

    /// Install and build.
    async fn commands(&self, plan: &Plan, tools: &Tools) -> Result<Materials, Failure> {
        let mut materials = Materials::default();
        if plan.install.is_none() && plan.build.is_none() {
            return Ok(materials);
        }
        self.journal
            .say(BuildStep::Toolchain, &self.engine.described(&self.limits()));
        let key = plan.manager.as_ref().map(|manager| {
            let source = Folder::open(&self.space.source());
            let path = manager.lockfile.as_ref();
            let lockfile = source
                .zip(path)
                .and_then(|(source, path)| source.locate(path));
            Key::new(&self.job.project, manager.kind, tools, lockfile.as_deref())
        });
        if let Some(line) = &plan.install {
            if let Some(key) = &key {
                self.lend(key).await;
            }
            let folder = join("source", &plan.install_root);
            self.line(BuildStep::Install, line, &folder, plan, tools)
                .await?;
            // Before the project's own line may change what is there.
            let source = self.space.source();
            let collected = spawn_blocking(move || Materials::collect(&source)).await;
            materials = collected.map_err(|error| Failure::of(BuildStep::Install)(&error))?;
        }
        if let Some(line) = &plan.build {
            let folder = join("source", &plan.root);
            self.bring(plan).await;
            self.line(BuildStep::Build, line, &folder, plan, tools)
                .await?;
            self.take(plan).await;
        }
        if let Some(key) = key.filter(|_| plan.install.is_some()) {
            self.keep(key).await;
        }
        Ok(materials)
    }

    /// Brings what the framework has worked out in an earlier build. One that cannot be brought is missed and not needed.
    async fn bring(&self, plan: &Plan) {
        let Some(key) = self.framework(plan) else {
            return;
        };
        let aside = self.space.aside();
        if self.shop.dependencies.lend(&key, &aside).await == Lent::Nothing {
            return;
        }
        let (from, project, places) = (aside.clone(), self.project(plan), owned(plan));
        let user = self.shop.user;
        let brought = spawn_blocking(move || {
            let brought = intermediate::bring(&from, &project, &places, user);
            space::remove(&from).and(brought)
        });
        match brought.await {
            Ok(Ok(())) => self.journal.say(
                BuildStep::Build,
                "what the framework worked out before is there",
            ),
            Ok(Err(error)) => {
                tracing::warn!(build.id = %self.job.id, error = &error as &dyn std::error::Error, "what a framework worked out is not brought")
            }
            Err(_) => {}
        }
    }

    /// Keeps what the framework has worked out for builds to come, if this one is trusted that far.
    async fn take(&self, plan: &Plan) {
        let Some(key) = self
            .framework(plan)
            .filter(|_| self.job.trust == Trust::Default)
        else {
            return;
        };
        let (project, aside, places) = (self.project(plan), self.space.aside(), owned(plan));
        let (caches, trust) = (self.shop.dependencies.clone(), self.job.trust);
        let taken = spawn_blocking(move || {
            let any = intermediate::take(&project, &aside, &places)?;
            Ok::<_, std::io::Error>(any && caches.keep(&key, &aside, trust)?)
        });
        if let Ok(Err(error)) = taken.await {
            tracing::warn!(build.id = %self.job.id, error = &error as &dyn std::error::Error, "what a framework worked out is not kept");
        }
    }

    fn framework(&self, plan: &Plan) -> Option<Key> {
        let slug = plan.framework?.slug.as_str();
        let commit = &self.job.source.commit;
        Some(Key::of_framework(&self.job.project, slug, commit))
    }

    fn project(&self, plan: &Plan) -> PathBuf {
        self.space.source().join(&plan.root)
    }

    fn bill(&self, materials: &Materials, tools: &Tools) -> Option<String> {
        let project = self.job.project.to_string();
        let commit = self.job.source.commit.to_string();
        let bill = materials.bill(&project, &commit, tools);
        let said = match &bill {
            Some(_) => format!("a bill of {} packages goes with it", materials.count()),
            None => format!(
                "its bill of {} packages is longer than is taken",
                materials.count()
            ),
        };
        self.journal.say(BuildStep::Upload, &said);
        bill
    }

    /// What is done outside the sandbox ends when the build has to, too.
    async fn in_time<T>(
        &self,
        step: BuildStep,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let reason = tokio::select! {
            done = work => return Ok(done),
            reason = stopped(self.stop.clone()) => format!("was stopped: {reason}"),
            () = sleep_until(self.until) => "it took longer than a build may".to_owned(),
        };
        Err(Failure { step, reason })
    }

    async fn lend(&self, key: &Key) {
        let said = match self.shop.dependencies.lend(key, &self.space.cache()).await {
            Lent::Same => "dependencies of the same lockfile are there",
            Lent::Older => "dependencies of another lockfile are there",
            Lent::Nothing => "no dependencies are there yet",
        };
        self.journal.say(BuildStep::Install, said);
    }

    async fn keep(&self, key: Key) {
        let (caches, from, trust) = (
            self.shop.dependencies.clone(),
            self.space.cache(),
            self.job.trust,
        );
        let kept = spawn_blocking(move || caches.keep(&key, &from, trust)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(build.id = %self.job.id, error = &error as &dyn std::error::Error, "dependencies are not kept");
        }
    }

    /// One shell line in the sandbox.
    async fn line(
        &self,
        step: BuildStep,
        line: &str,
        folder: &str,
        plan: &Plan,
        tools: &Tools,
    ) -> Result<(), Failure> {
        let failed = Failure::of(step);
        self.journal.say(step, &format!("$ {line}"));
        let egress = self.egress(step).map_err(|error| failed(&error))?;
        let task = Task {
            line: line.to_owned(),
            folder: format!("{SPACE}/{folder}"),
            env: self.env(plan, tools),
            mounts: self.mounts(),
            online: true,
            limits: self.limits(),
        };
        let printers = [self.journal.printer(step), self.journal.printer(step)];
        let start = Instant::now();
        let outcome = self
            .engine
            .run(&task, printers, &self.stop)
            .await
            .map_err(|error| failed(&error))?;
        let Some(complaint) = outcome.complaint(&task.limits) else {
            self.journal.say(
                step,
                &format!("done in {:.1} s", start.elapsed().as_secs_f64()),
            );
            return Ok(());
        };
        let mut reason = format!("`{line}` {complaint}");
        let refused = egress.refused();
        if !refused.is_empty() {
            reason.push_str(&format!(
                "; it asked for hosts that it may not reach: {}",
                refused.join(", ")
            ));
        }
        Err(Failure { step, reason })
    }

    fn egress(&self, step: BuildStep) -> std::io::Result<Egress> {
        let folder = self.space.control().join("egress");
        std::fs::create_dir_all(&folder)?;
        let socket = folder.join(PROXY_SOCKET);
        // That of the step before.
        let _ = std::fs::remove_file(&socket);
        let journal = self.journal.clone();
        Egress::start(
            &socket,
            &self.job.hosts,
            &self.shop.config.egress,
            move |text| journal.say(step, text),
        )
    }

    fn mounts(&self) -> Vec<Mount> {
        let mut mounts = vec![Mount {
            outside: self.space.whole(),
            inside: SPACE.to_owned(),
            writable: true,
        }];
        let toolchain = self.shop.toolchain.folder();
        if toolchain.is_dir() {
            mounts.push(Mount {
                outside: toolchain.to_owned(),
                inside: toolchain::INSIDE.to_owned(),
                writable: false,
            });
        }
        mounts
    }

    fn limits(&self) -> Limits {
        let limits = &self.job.limits;
        Limits {
            until: self.until,
            silence: seconds(limits.silence_seconds),
            memory_bytes: limits.memory_bytes,
            processors: self.shop.config.sandbox.processors,
            processes: limits.processes,
            disk_bytes: limits.disk_bytes,
            disk_folder: Some(self.space.whole()),
        }
    }

    fn env(&self, plan: &Plan, tools: &Tools) -> BTreeMap<String, String> {
        let mut env = environment::sandboxed(plan, tools, secrets::variables(self.job));
        for (name, value) in [
            ("HELIX_PROJECT", self.job.project.to_string()),
            ("HELIX_ENVIRONMENT", self.job.environment.to_string()),
            ("HELIX_COMMIT", self.job.source.commit.to_string()),
        ] {
            env.insert(name.to_owned(), value);
        }
        env
    }

    async fn upload(&self, plan: &Plan, origin: &Origin) -> Result<Vec<NewFile>, Failure> {
        let step = BuildStep::Output;
        let (source, root) = (self.space.source(), plan.root.clone());
        let (folders, journal) = (plan.outputs.clone(), self.journal.clone());
        let collected =
            spawn_blocking(move || output::collect(&source, &root, &folders, journal.mask())).await;
        let output = collected
            .map_err(|error| Failure::of(step)(&error))?
            .map_err(|error| Failure::of(step)(&error))?;
        for note in &output.notes {
            self.journal.say(step, note);
        }
        let (count, bytes) = (output.files.len(), output.bytes());
        self.journal.say(
            step,
            &format!(
                "{count} files, {bytes} bytes in {}",
                detect::shown(&output.folder)
            ),
        );
        let step = BuildStep::Upload;
        let hashed = spawn_blocking(move || {
            hash::hash_all(&output.files, &())
                .map(|digests| upload::contents(output.files, digests))
        })
        .await;
        let (files, contents) = hashed
            .map_err(|error| Failure::of(step)(&error))?
            .map_err(|error| Failure::of(step)(&error))?;
        let sending = upload::send(origin, &self.job.project, contents, |_| ());
        let sent = self
            .in_time(step, sending)
            .await?
            .map_err(|error| Failure {
                step,
                reason: format!("{error:#}"),
            })?;
        self.journal.say(
            step,
            &format!(
                "uploaded {} of {count} files, {} bytes",
                sent.files, sent.bytes
            ),
        );
        Ok(files)
    }
}

/// Where the framework keeps what it works out.
fn owned(plan: &Plan) -> Vec<String> {
    let places = intermediate::places(plan);
    places.into_iter().map(str::to_owned).collect()
}

/// What a job says, within what a clock can count.
pub(super) fn seconds(said: u64) -> Duration {
    Duration::from_secs(said.min(MAX_SECONDS))
}

/// The program that no package brings, if the plan needs one that this machine has not.
fn missing(plan: &Plan) -> Option<&'static str> {
    let framework = plan.framework?;
    let tool = framework.tool.as_deref()?;
    if plan.hugo.is_some() && tool == hugo::TOOL {
        return None;
    }
    let needed = [&plan.install, &plan.build];
    let needed = needed
        .iter()
        .any(|line| line.as_ref().is_some_and(|line| line.starts_with(tool)));
    let there = SYSTEM_PATH
        .split(':')
        .any(|folder| Path::new(folder).join(tool).exists());
    (needed && !there).then_some(tool)
}

/// Why to stop, once there is a reason.
pub(super) async fn stopped(mut stop: watch::Receiver<Option<String>>) -> String {
    let reason = stop
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|reason| reason.clone());
    match reason {
        Some(reason) => reason,
        // Nobody can ask any more.
        None => std::future::pending().await,
    }
}
