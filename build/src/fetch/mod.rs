//! The source at its commit: fetched by git, shallow, without running anything that a repository holds.
//!
//! Access is given by the environment and so leaves nothing in the repository's own configuration. Whatever git is told by this
//! machine's configuration counts for nothing. Submodules stay out, and large files (LFS) stay the pointers that they are.

mod check;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use helix_routing::api::Source;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};
use url::Url;

use crate::sandbox::disk;
use crate::sandbox::init::ENTER;

pub use check::{FetchConfig, SourceError};

/// Commits that are looked through where a commit cannot be asked for by its name.
const DEPTH: u32 = 200;
/// How often the size is looked at.
const SIZE_EACH: Duration = Duration::from_millis(500);
/// What is kept of what git says.
const SAID_BYTES: u64 = 64 * 1024;
/// What of it is shown.
const SHOWN_BYTES: usize = 500;
/// A server that sends less than this for [`SLOW_SECONDS`] is given up.
const SLOW_BYTES: &str = "1000";
/// See [`SLOW_BYTES`].
const SLOW_SECONDS: &str = "30";
/// What a pointer to a large file begins with.
pub const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// The source could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not fetched at all.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no git.
    #[error("start git")]
    Start(#[source] io::Error),
    /// The host says that there is none, or that it is not ours to see.
    #[error("the repository is gone, or cannot be read with the access that the project has")]
    Access,
    /// The commit is not there any more.
    #[error("commit {commit} is not in the repository; was the branch pushed anew?")]
    Commit {
        /// Which.
        commit: String,
    },
    /// Larger than a build may be.
    #[error("the repository takes more than the {limit} bytes that a build has on disk")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// It takes too long.
    #[error("the repository was not fetched in time")]
    Late,
    /// Somebody stopped it.
    #[error("was stopped: {0}")]
    Stopped(String),
    /// Anything else that git says.
    #[error("git {step}: {said}")]
    Git {
        /// What was attempted.
        step: &'static str,
        /// Its own words.
        said: String,
    },
}

/// How git is run.
#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    /// What may be fetched.
    pub config: FetchConfig,
    /// This program and the user that git becomes, if this process is root.
    pub user: Option<(&'a Path, u32, u32)>,
    /// When it has to be done.
    pub until: Instant,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// A reason, as soon as it is to be given up.
    pub stop: tokio::sync::watch::Receiver<Option<String>>,
}

/// What was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Whether files are pointers to large ones that were not fetched.
    pub has_lfs: bool,
    /// Whether it names submodules, which were not fetched.
    pub has_submodules: bool,
}

impl Fetch<'_> {
    /// Fetches `source` into `folder`, which is there and empty.
    ///
    /// # Errors
    /// As [`FetchError`] says. The folder may then hold a part of it.
    pub async fn run(&self, source: &Source, folder: &Path) -> Result<Fetched, FetchError> {
        let scheme = check::check(source, self.config)?;
        let git = Git {
            fetch: self,
            folder,
            settings: settings(source, scheme),
        };
        let commit = source.commit.as_str();
        let format = if commit.len() == 64 { "sha256" } else { "sha1" };
        git.run(
            "init",
            &["init", "--quiet", &format!("--object-format={format}"), "."],
        )
        .await?;
        git.fetch(source, commit).await?;
        git.run(
            "checkout",
            &["checkout", "--quiet", "--detach", "--force", commit, "--"],
        )
        .await?;
        Ok(Fetched {
            has_lfs: mentions(&folder.join(".gitattributes"), "filter=lfs"),
            has_submodules: mentions(&folder.join(".gitmodules"), "[submodule"),
        })
    }
}

/// Whether a file of the repository, and not one that it links to, has a text.
fn mentions(file: &Path, text: &str) -> bool {
    fs::symlink_metadata(file).is_ok_and(|found| found.is_file() && found.len() < 1 << 20)
        && fs::read_to_string(file).is_ok_and(|whole| whole.contains(text))
}

struct Git<'a> {
    fetch: &'a Fetch<'a>,
    folder: &'a Path,
    settings: Vec<(String, String)>,
}

impl Git<'_> {
    /// By the commit's name; where that is not served, by the reference.
    async fn fetch(&self, source: &Source, commit: &str) -> Result<(), FetchError> {
        let missing = || FetchError::Commit {
            commit: commit.to_owned(),
        };
        let by_name = fetching(source, "--depth=1", commit);
        let refused = match self.run("fetch", &by_name).await {
            Ok(()) => return Ok(()),
            Err(error @ FetchError::Git { .. }) => error,
            Err(error) => return Err(error),
        };
        let Some(reference) = &source.reference else {
            return Err(if is_unknown(&refused) {
                missing()
            } else {
                refused
            });
        };
        let depth = format!("--depth={DEPTH}");
        let by_reference = fetching(source, &depth, reference);
        match self.run("fetch", &by_reference).await {
            Err(error) if is_unknown(&error) => return Err(missing()),
            fetched => fetched?,
        }
        let there = format!("{commit}^{{commit}}");
        self.run("cat-file", &["cat-file", "-e", &there])
            .await
            .map_err(|_| missing())
    }

    async fn run(&self, step: &'static str, arguments: &[&str]) -> Result<(), FetchError> {
        let mut child = self.command(arguments).spawn().map_err(FetchError::Start)?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok());
        let mut said = Vec::new();
        let mut stderr = child.stderr.take();
        let read = async {
            if let Some(stderr) = &mut stderr {
                // What is more than that is not read, and git waits for ever to say it: the time limit ends that.
                let _ = stderr.take(SAID_BYTES).read_to_end(&mut said).await;
            }
        };
        let mut stop = self.fetch.stop.clone();
        let limit = self.fetch.disk_bytes;
        let ended = tokio::select! {
            (status, ()) = async { tokio::join!(child.wait(), read) } => Ok(status.is_ok_and(|status| status.success())),
            () = sleep_until(self.fetch.until) => Err(FetchError::Late),
            () = grows(self.folder, limit) => Err(FetchError::TooLarge { limit }),
            reason = async { stop.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()) }, if !self.fetch.stop_is_gone() => {
                Err(FetchError::Stopped(reason.unwrap_or_default()))
            }
        };
        if let Some(group) = group {
            // Git's own helpers; none left is what is wanted.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = child.wait().await;
        if ended? {
            Ok(())
        } else {
            Err(explain(step, &String::from_utf8_lossy(&said)))
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.fetch.user {
            Some((program, uid, gid)) => {
                let mut command = Command::new(program);
                command
                    .args([ENTER, "--user", &format!("{uid}:{gid}"), "--"])
                    .arg(git());
                command
            }
            None => Command::new(git()),
        };
        command
            .args(arguments)
            .current_dir(self.folder)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs([
                ("HOME", "/nonexistent"),
                ("LC_ALL", "C"),
                ("GIT_TERMINAL_PROMPT", "0"),
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_LFS_SKIP_SMUDGE", "1"),
                (
                    "GIT_SSH_COMMAND",
                    "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes",
                ),
            ])
            .env("GIT_CONFIG_COUNT", self.settings.len().to_string())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (number, (key, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command
    }
}

impl Fetch<'_> {
    fn stop_is_gone(&self) -> bool {
        self.stop.has_changed().is_err() && self.stop.borrow().is_none()
    }
}

/// Git, as it is found on the way of this process.
fn git() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("git"))
        .find(|file| file.is_file())
        .unwrap_or_else(|| PathBuf::from("git"))
}

/// A fetch of `wanted`. Of a repository on this machine the other half is started here, and is told nothing of our settings: whoever
/// allows such repositories allows them whoever's they are.
fn fetching<'a>(source: &'a Source, depth: &'a str, wanted: &'a str) -> Vec<&'a str> {
    const ANYBODYS: &str = "--upload-pack=git -c 'safe.directory=*' upload-pack";
    let mut arguments = vec!["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
    if source.url.starts_with("file:") {
        arguments.push(ANYBODYS);
    }
    arguments.extend([depth, "--", &source.url, wanted]);
    arguments
}

/// What git is told, in place of any configuration.
fn settings(source: &Source, scheme: &str) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = [
        ("protocol.allow", "never"),
        ("protocol.version", "2"),
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("fetch.fsckObjects", "true"),
        ("fetch.recurseSubmodules", "false"),
        ("submodule.recurse", "false"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("credential.helper", ""),
        ("http.followRedirects", "false"),
        ("http.lowSpeedLimit", SLOW_BYTES),
        ("http.lowSpeedTime", SLOW_SECONDS),
        ("init.defaultBranch", "main"),
        ("advice.detachedHead", "false"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec();
    settings.push((format!("protocol.{scheme}.allow"), "always".to_owned()));
    let base = Url::parse(&source.url).map(|url| url.origin().ascii_serialization());
    if let (Some(authorization), Ok(base)) = (&source.authorization, base) {
        settings.push((
            format!("http.{base}/.extraHeader"),
            format!("Authorization: {authorization}"),
        ));
    }
    settings
}

/// Returns once the folder takes more than `limit`.
async fn grows(folder: &Path, limit: u64) {
    loop {
        sleep(SIZE_EACH).await;
        let folder = folder.to_owned();
        let counted = tokio::task::spawn_blocking(move || disk::taken(&folder, limit)).await;
        if counted.is_ok_and(|bytes| bytes > limit) {
            return;
        }
    }
}

/// What git says, in words of ours where it is clear.
fn explain(step: &'static str, said: &str) -> FetchError {
    const CLOSED: &[&str] = &[
        "could not read Username",
        "could not read Password",
        "Authentication failed",
        "Permission denied",
        "not found",
        "does not exist",
        "does not appear to be a git repository",
        "error: 401",
        "error: 403",
        "error: 404",
        "terminal prompts disabled",
    ];
    if step == "fetch"
        && CLOSED.iter().any(|words| said.contains(words))
        && !said.contains("remote ref")
    {
        return FetchError::Access;
    }
    let mut shown: String = said.trim().lines().collect::<Vec<_>>().join("; ");
    if shown.len() > SHOWN_BYTES {
        let mut end = SHOWN_BYTES;
        while !shown.is_char_boundary(end) {
            end -= 1;
        }
        shown.truncate(end);
    }
    FetchError::Git { step, said: shown }
}

/// Whether git says that there is no such thing.
fn is_unknown(error: &FetchError) -> bool {
    const WORDS: &[&str] = &[
        "not our ref",
        "unadvertised object",
        "couldn't find remote ref",
        "no such remote ref",
        "bad object",
    ];
    match error {
        FetchError::Git { said, .. } => WORDS.iter().any(|words| said.contains(words)),
        FetchError::Source(_)
        | FetchError::Start(_)
        | FetchError::Access
        | FetchError::Commit { .. }
        | FetchError::TooLarge { .. }
        | FetchError::Late
        | FetchError::Stopped(_) => false,
    }
}
