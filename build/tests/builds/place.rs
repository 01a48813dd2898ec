//! A place to build in: a folder that another user can reach, an engine, a log.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use helix_build::log::Journal;
use helix_build::log::mask::Mask;
use helix_build::sandbox::{Engine, Local, Mount, Outcome, SPACE, SandboxError, Task};
use helix_routing::api::BuildStep;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

/// Who builds where the tests run as root.
pub(crate) const USER: (u32, u32) = (65_534, 65_534);

/// Bubblewrap, if it is there.
pub(crate) fn bwrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("bwrap"))
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: bubblewrap is not installed");
    }
    found
}

/// See the module.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) journal: Journal,
    pub(crate) engine: Engine,
    pub(crate) stop: watch::Sender<Option<String>>,
}

impl Place {
    pub(crate) fn new(bwrap: PathBuf) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("helix-build")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let root = nix::unistd::geteuid().is_root();
        for name in ["space", "control"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        if root {
            std::os::unix::fs::chown(folder.path().join("space"), Some(USER.0), Some(USER.1))
                .unwrap();
        }
        let engine = Engine::Local(Local {
            bwrap,
            program: PathBuf::from(env!("CARGO_BIN_EXE_helix-build")),
            user: root.then_some(USER),
            control: folder.path().join("control"),
            name: format!("helix-test-{}", helix_service::random::hex16()),
        });
        Self {
            folder,
            journal: Journal::new(Mask::new([("TOKEN", "hunter22-hunter22")]), 100_000),
            engine,
            stop: watch::channel(None).0,
        }
    }

    pub(crate) fn space(&self) -> PathBuf {
        self.folder.path().join("space")
    }

    pub(crate) fn task(&self, line: &str) -> Task {
        let mut task = Task::of(line);
        task.folder = SPACE.to_owned();
        task.env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", SPACE)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        task.mounts.push(Mount {
            outside: self.space(),
            inside: SPACE.to_owned(),
            writable: true,
        });
        task.limits.disk_folder = Some(self.space());
        task.limits.until = Instant::now() + Duration::from_secs(60);
        task
    }

    pub(crate) async fn run(&self, task: &Task) -> Result<Outcome, SandboxError> {
        let printer = || self.journal.printer(BuildStep::Build);
        self.engine
            .run(task, [printer(), printer()], &self.stop.subscribe())
            .await
    }

    pub(crate) fn printed(&self) -> String {
        let lines = self.journal.waiting(usize::MAX);
        lines.into_iter().map(|line| line.text + "\n").collect()
    }
}

/// Processes of this machine whose command line has `word`.
pub(crate) fn processes(word: &str) -> usize {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read(Path::new(&entry.path()).join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(word))
        .count()
}
