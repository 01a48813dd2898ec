//! The processes of a fleet, each started again when it dies.
//!
//! Invariant: no child outlives its supervisor for long. Ours end when their standard input does; a
//! `nats-server` that was left behind is ended by the next start (see [`super::leftover`]).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use helix_service::disk::{WriteError, write_atomic};
use helix_service::error::chain;
use helix_service::shutdown::{Shutdown, ShutdownHandle};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::log;
use crate::output;

/// How long a child may take to end before it is killed.
pub(super) const END_LIMIT: Duration = Duration::from_secs(10);
/// The first wait before a child is started again, doubled up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// A child that ran for so long did not die of its start.
const STEADY: Duration = Duration::from_secs(10);

/// How to start one child.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// What it is called: `nats`, `origin`, or the edge's id.
    pub(super) name: String,
    /// The executable.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// How far it stands back behind this process when it wants a core that others want, too.
    pub(super) niceness: i32,
    /// Where its process id is written.
    pub(super) pid: PathBuf,
    /// Where its output goes.
    pub(super) log: PathBuf,
}

/// A child could not be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("start {}", program.display())]
    Spawn {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Pid(#[from] WriteError),
    #[error("wait for {}", program.display())]
    Wait {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Children that end together.
#[derive(Debug)]
pub(super) struct Children {
    end: ShutdownHandle,
    ended: Shutdown,
    tasks: JoinSet<()>,
    deaths: Arc<AtomicUsize>,
}

impl Children {
    /// None yet.
    pub(super) fn new() -> Self {
        let (ended, end) = Shutdown::manual();
        Self {
            end,
            ended,
            tasks: JoinSet::new(),
            deaths: Arc::default(),
        }
    }

    /// Starts a child and keeps it running.
    pub(super) fn start(&mut self, program: Program) {
        self.tasks.spawn(supervise(
            program,
            self.ended.clone(),
            Arc::clone(&self.deaths),
        ));
    }

    /// How often a child has died.
    pub(super) fn deaths(&self) -> usize {
        self.deaths.load(Ordering::Relaxed)
    }

    /// Ends them all, and returns when the last is gone.
    pub(super) async fn end(mut self) {
        self.end.request();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn supervise(program: Program, ended: Shutdown, deaths: Arc<AtomicUsize>) {
    let mut wait = FIRST_WAIT;
    loop {
        let started = Instant::now();
        let end = match run(&program, &ended).await {
            Ok(None) => return,
            Ok(Some(status)) => format!("ended ({status})"),
            Err(error) => format!("failed: {}", chain(&error)),
        };
        deaths.fetch_add(1, Ordering::Relaxed);
        if started.elapsed() > STEADY {
            wait = FIRST_WAIT;
        }
        output::say(&format!(
            "{} {end}; starting it again in {}",
            program.name,
            output::seconds(wait)
        ));
        tokio::select! {
            () = sleep(wait) => {}
            () = ended.requested() => return,
        }
        wait = (wait * 2).min(LAST_WAIT);
    }
}

/// Runs the child once: how it died, or none when it was asked to end.
async fn run(program: &Program, ended: &Shutdown) -> Result<Option<ExitStatus>, StartError> {
    let mut child = spawn(program)?;
    // Held until the child is gone: its end tells the child that we are.
    let _stdin = child.stdin.take();
    let failed = |source| StartError::Wait {
        program: program.program.clone(),
        source,
    };
    let died = tokio::select! {
        status = child.wait() => Some(status.map_err(failed)?),
        () = ended.requested() => {
            end(&mut child).await.map_err(failed)?;
            None
        }
    };
    // A file that names no process misleads nobody: its holder checks whose process it is.
    let _ = fs::remove_file(&program.pid);
    Ok(died)
}

fn spawn(program: &Program) -> Result<Child, StartError> {
    let failed = |source| StartError::Spawn {
        program: program.program.clone(),
        source,
    };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut command = Command::new(&program.program);
    command
        .args(&program.arguments)
        .stdin(Stdio::piped())
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer)
        // Ctrl-C reaches the supervisor alone, which ends its children in order.
        .process_group(0)
        .kill_on_drop(true);
    let child = spawn_behind(command, program.niceness).map_err(failed)?;
    log::copy(&program.name, &program.log, reader).map_err(failed)?;
    if let Some(id) = child.id() {
        write_atomic(&program.pid, id.to_string().as_bytes())?;
    }
    Ok(child)
}

/// From a thread that stands back as far: a niceness is inherited, and cannot be taken back.
fn spawn_behind(mut command: Command, niceness: i32) -> io::Result<Child> {
    let runtime = Handle::current();
    let spawned = std::thread::spawn(move || {
        let _entered = runtime.enter();
        // Where it is refused the child is as urgent as the others, which does no harm.
        let _ = rustix::process::nice(niceness);
        command.spawn()
    });
    let lost = |_| io::Error::other("the thread that starts it panicked");
    spawned.join().map_err(lost).flatten()
}

async fn end(child: &mut Child) -> io::Result<()> {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may be gone already; the wait below tells.
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
    match timeout(END_LIMIT, child.wait()).await {
        Ok(status) => status.map(drop),
        Err(_) => child.kill().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &tempfile::TempDir, script: &str) -> Program {
        Program {
            name: "child".to_owned(),
            program: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            niceness: 0,
            pid: folder.path().join("child.pid"),
            log: folder.path().join("child.log"),
        }
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again_and_all_end_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (count, pid) = (folder.path().join("count"), folder.path().join("child.pid"));
        let mut children = Children::new();
        children.start(shell(
            &folder,
            &format!(
                "echo x >> {}; test $(wc -l < {0}) -ge 3 && exec cat",
                count.display()
            ),
        ));
        until("two deaths", || children.deaths() == 2).await;
        until("a third start", || {
            fs::read_to_string(&count).is_ok_and(|text| text.len() == 6)
        })
        .await;
        until("its process id", || pid.is_file()).await;
        children.end().await;
        assert!(!pid.exists());
    }

    #[tokio::test]
    async fn a_child_stands_back_from_its_start_on() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let mut children = Children::new();
        children.start(Program {
            niceness: 10,
            ..shell(&folder, &format!("nice > {}; exec cat", said.display()))
        });
        until("its niceness", || {
            fs::read_to_string(&said).is_ok_and(|text| text == "10\n")
        })
        .await;
        children.end().await;
    }
}
