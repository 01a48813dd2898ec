//! Plain git servers tell nobody: they are asked for the newest commit of their branch, each minute or so.
//!
//! Invariant: git gets an address that was checked, after `--`, and no configuration but what is said here; the address it connects to is
//! one that was looked up and permitted a moment before. It reads names of commits and fetches nothing.

use std::process::Stdio;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use helix_routing::id::Commit;
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;
use rand::RngExt as _;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use url::Url;

use super::Source;
use super::intake::{self, IntakeError};
use super::link::{self, Link};
use super::payload::Hint;
use super::seal::SealError;
use crate::app::App;
use crate::build::work::authorization;
use crate::store::StoreError;
use crate::webhook::send::{check, look_up};

/// How long a server may take to answer.
const WAIT: Duration = Duration::from_secs(30);
/// Servers that are asked at once.
const ASKED_AT_ONCE: usize = 8;
/// How much of an answer is read: one line with one name.
const MAX_ANSWER: u64 = 64 * 1024;
/// How much of a complaint is shown, in characters.
const MAX_SHOWN: usize = 300;

/// A server was asked in vain.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// It must not be connected to.
    #[error("ask {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why not.
        why: String,
    },
    /// The credential does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// git cannot be run.
    #[error("run git")]
    Run(#[source] std::io::Error),
    /// It took too long.
    #[error("ask {url}: no answer within {} s", WAIT.as_secs())]
    Slow {
        /// Where.
        url: String,
    },
    /// git complained.
    #[error("ask {url}: {said}")]
    Refused {
        /// Where.
        url: String,
        /// What git said.
        said: String,
    },
    /// What came of it could not be followed.
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

/// Asks until shutdown. A failure is logged and tried again the next time.
pub async fn run(app: &App, shutdown: &Shutdown) {
    let every = app.source.poll_every;
    loop {
        // Not all at the full minute, and not all origins' servers in the same second.
        let jitter = rand::rng().random_range(0.8..1.2);
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(every.mul_f64(jitter)) => {}
        }
        if let Err(error) = ask_all(app).await {
            tracing::warn!(error = %chain(&error), "git servers are not asked");
        }
    }
}

/// Asks every server once.
///
/// # Errors
/// When the database fails; a server that does not answer is logged.
pub async fn ask_all(app: &App) -> Result<(), StoreError> {
    let mut reader = app.store.read().await?;
    let links = link::asked(&mut reader).await?;
    drop(reader);
    let asked = links.into_iter().map(|link| async move {
        if let Err(error) = ask(app, &link).await {
            tracing::warn!(project = %link.project, error = %chain(&error), "git server asked in vain");
        }
    });
    stream::iter(asked)
        .buffer_unordered(ASKED_AT_ONCE)
        .collect::<()>()
        .await;
    Ok(())
}

async fn ask(app: &App, link: &Link) -> Result<(), PollError> {
    let Some(after) = newest(&app.source, link).await? else {
        return Ok(());
    };
    let hint = Hint::Push {
        branch: link.branch.clone(),
        before: None,
        after,
    };
    intake::follow(app, link, &[], &[hint]).await?;
    Ok(())
}

/// The newest commit of the link's branch; none if there is no such branch.
async fn newest(source: &Source, link: &Link) -> Result<Option<Commit>, PollError> {
    let mut command = git(source, link).await?;
    let url = link.url.clone();
    let asked = async {
        let mut child = command.spawn().map_err(PollError::Run)?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            let (mut stdout, mut stderr) = (stdout.take(MAX_ANSWER), stderr.take(MAX_ANSWER));
            let read = tokio::try_join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
            read.map_err(PollError::Run)?;
        }
        let ended = child.wait().await.map_err(PollError::Run)?;
        Ok::<_, PollError>((ended, out, err))
    };
    let Ok(asked) = tokio::time::timeout(WAIT, asked).await else {
        return Err(PollError::Slow { url });
    };
    let (ended, out, err) = asked?;
    match ended.code() {
        Some(0) => Ok(read(&String::from_utf8_lossy(&out), &link.branch)),
        // There is no such branch.
        Some(2) => Ok(None),
        Some(_) | None => {
            let said = String::from_utf8_lossy(&err);
            let plain = said.chars().map(|c| if c.is_control() { ' ' } else { c });
            let said = plain.take(MAX_SHOWN).collect::<String>().trim().to_owned();
            Err(PollError::Refused { url, said })
        }
    }
}

async fn git(source: &Source, link: &Link) -> Result<Command, PollError> {
    let unreachable = |why: String| PollError::Unreachable {
        url: link.url.clone(),
        why,
    };
    let mut config = vec![
        ("protocol.allow".to_owned(), "never".to_owned()),
        ("http.followRedirects".to_owned(), "false".to_owned()),
        ("credential.helper".to_owned(), String::new()),
    ];
    let url = Url::parse(&link.url).map_err(|error| unreachable(error.to_string()))?;
    config.push((
        format!("protocol.{}.allow", url.scheme()),
        "always".to_owned(),
    ));
    if url.scheme() != "file" {
        let checked = check(&link.url, &source.permitted);
        checked.map_err(|error| unreachable(error.to_string()))?;
        let found = look_up(&url, &source.permitted).await;
        if let Some((name, addresses)) = found.map_err(unreachable)? {
            let port = url.port_or_known_default().unwrap_or(443);
            let addresses: Vec<String> = addresses
                .iter()
                .map(|found| found.ip().to_string())
                .collect();
            let pinned = format!("{name}:{port}:{}", addresses.join(","));
            config.push(("http.curloptResolve".to_owned(), pinned));
        }
        if let Some(credential) = link.credential(&source.key)? {
            let shown = authorization(link.provider, &credential);
            config.push((
                "http.extraHeader".to_owned(),
                format!("Authorization: {shown}"),
            ));
        }
    }
    let mut command = Command::new(&*source.git);
    command
        .args(["ls-remote", "--exit-code", "--"])
        .arg(&link.url)
        .arg(format!("refs/heads/{}", link.branch))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_COUNT", config.len().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // Not as arguments, which everybody on this machine can read.
    for (number, (key, value)) in config.iter().enumerate() {
        command
            .env(format!("GIT_CONFIG_KEY_{number}"), key)
            .env(format!("GIT_CONFIG_VALUE_{number}"), value);
    }
    Ok(command)
}

fn read(answer: &str, branch: &str) -> Option<Commit> {
    let wanted = format!("refs/heads/{branch}");
    answer.lines().find_map(|line| {
        let (commit, reference) = line.split_once('\t')?;
        (reference == wanted).then(|| commit.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_branch_that_was_asked_for_counts() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let answer = format!("{a}\trefs/heads/x/main\n{b}\trefs/heads/main\n");
        assert_eq!(read(&answer, "main").unwrap().as_str(), b);
        assert_eq!(read(&answer, "other"), None);
        assert_eq!(read("nonsense\trefs/heads/main\n", "main"), None);
        assert_eq!(read("", "main"), None);
    }
}
