//! Pushes what waits, several projects side by side and each one artifact at a time, and lets a deployment wait where that is required.
//!
//! Invariant: what came of an attempt is noted in a transaction that checks the term before the next of that project begins. An origin that
//! ends in between pushes again after its start, which changes nothing.

use std::time::Duration;

use helix_routing::id::{Digest, ProjectName, ReleaseId};
use helix_routing::record::ReleaseRef;
use helix_routing::routes::Span;
use helix_service::error::chain;
use helix_service::failpoint;
use helix_service::shutdown::Shutdown;
use tokio::task::JoinSet;

use super::queue::{self, Due};
use super::{Remote, RemoteError};
use crate::app::App;
use crate::artifact::Layout;
use crate::store::{Store, StoreError};

/// Projects that are pushed for at the same time.
const SIDE_BY_SIDE: usize = 4;
/// Commits wake it; this is how late a push can be whose time has come.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Wait before the database is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How late a deployment can hear that its release was pushed.
const WAIT_LOOK: Duration = Duration::from_secs(1);

/// A release does not go out, since the registry does not have it.
#[derive(Debug, thiserror::Error)]
#[error(
    "release {release} does not go out before {registry} has it, which it had not after {waited}: {why}; it is pushed as soon as that goes, deploy again then"
)]
pub struct NotThere {
    release: ReleaseId,
    registry: String,
    waited: Span,
    why: String,
}

/// Pushes until shutdown. Whatever fails is logged and tried again.
pub async fn run(app: &App, shutdown: &Shutdown) {
    let Some(remote) = &app.remote else {
        return shutdown.requested().await;
    };
    tokio::select! {
        () = shutdown.requested() => {}
        () = work(remote, &app.store, app.artifacts.layout()) => {}
    }
}

async fn work(remote: &Remote, store: &Store, layout: &Layout) {
    begin(remote, store).await;
    let committed = store.committed();
    let mut running: JoinSet<(ProjectName, bool)> = JoinSet::new();
    let mut busy: Vec<ProjectName> = Vec::new();
    let mut is_away = false;
    loop {
        start(remote, (store, layout), &mut running, &mut busy).await;
        tokio::select! {
            Some(done) = running.join_next() => match done {
                Ok((project, answered)) => {
                    busy.retain(|one| *one != project);
                    if is_away && answered {
                        hurry(store).await;
                    }
                    is_away = !answered;
                }
                Err(error) => {
                    // Which one it was is not known: all are looked at anew, and at worst pushed twice.
                    tracing::error!(%error, "a push failed inside");
                    running.abort_all();
                    busy.clear();
                }
            },
            () = committed.notified(), if busy.len() < SIDE_BY_SIDE => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Until the database answers.
async fn begin(remote: &Remote, store: &Store) {
    while let Err(error) = queue::move_to(store, remote.name()).await {
        tracing::warn!(error = %chain(&error), "pushes cannot begin");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn start(
    remote: &Remote,
    (store, layout): (&Store, &Layout),
    running: &mut JoinSet<(ProjectName, bool)>,
    busy: &mut Vec<ProjectName>,
) {
    if busy.len() >= SIDE_BY_SIDE || remote.is_quiet() {
        return;
    }
    let found = match queue::due(store, busy).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "pushes are not read");
            return;
        }
    };
    for due in found.into_iter().take(SIDE_BY_SIDE - busy.len()) {
        busy.push(due.project.clone());
        running.spawn(attempt(remote.clone(), store.clone(), layout.clone(), due));
    }
}

async fn hurry(store: &Store) {
    if let Err(error) = queue::hurry(store).await {
        tracing::warn!(error = %chain(&error), "pushes wait for their next attempt");
    }
}

/// One attempt, and a note of what came of it. Says of which project, and whether the registry answered.
async fn attempt(remote: Remote, store: Store, layout: Layout, due: Due) -> (ProjectName, bool) {
    let Due {
        project, artifact, ..
    } = &due;
    let pushed = remote.push(&store, &layout, project, artifact).await;
    failpoint::hit("origin.registry.pushed");
    say(&remote, &due, &pushed);
    if let Some(wait) = pushed.as_ref().err().and_then(RemoteError::retry_after) {
        remote.be_quiet(wait);
    }
    let answered = !matches!(pushed, Err(RemoteError::Unreachable { .. }));
    note(&store, &remote, &due, &pushed).await;
    remote.changed();
    (due.project, answered)
}

fn say(remote: &Remote, due: &Due, pushed: &Result<Vec<String>, RemoteError>) {
    let Due {
        project, artifact, ..
    } = due;
    match pushed {
        Ok(tags) => {
            tracing::info!(%project, %artifact, registry = remote.name(), tags = tags.join(" "), from = "waiting", to = "pushed", "artifact");
        }
        Err(error) => {
            tracing::warn!(%project, %artifact, registry = remote.name(), error = %chain(error), "not pushed");
        }
    }
}

/// Until the database answers, or another origin leads.
async fn note(
    store: &Store,
    remote: &Remote,
    due: &Due,
    pushed: &Result<Vec<String>, RemoteError>,
) {
    loop {
        match queue::note(store, remote, due, pushed).await {
            Ok(()) | Err(StoreError::Fenced { .. }) => return,
            Err(error) => {
                tracing::error!(project = %due.project, artifact = %due.artifact, error = %chain(&error), "what came of a push is not noted");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Waits until the registry has a release, where releases do not go out before.
///
/// # Errors
/// When it does not have it in time, with the reason; or when the database fails.
pub async fn wait_for(
    app: &App,
    project: &ProjectName,
    release: &ReleaseRef,
) -> Result<Result<(), NotThere>, StoreError> {
    let Some((remote, limit)) = app
        .remote
        .as_ref()
        .and_then(|remote| Some((remote, remote.required()?)))
    else {
        return Ok(Ok(()));
    };
    let deadline = tokio::time::Instant::now() + limit;
    let mut changes = remote.changes();
    loop {
        let push = push_of(&app.store, remote, project, &release.artifact).await?;
        if push.is_there {
            return Ok(Ok(()));
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(Err(NotThere {
                release: release.release.clone(),
                registry: remote.name().to_owned(),
                waited: Span::roughly(limit),
                why: push.why,
            }));
        }
        tokio::select! {
            // The sender lives as long as the remote.
            _ = changes.changed() => {}
            () = tokio::time::sleep(WAIT_LOOK) => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

struct PushOf {
    is_there: bool,
    why: String,
}

async fn push_of(
    store: &Store,
    remote: &Remote,
    project: &ProjectName,
    artifact: &Digest,
) -> Result<PushOf, StoreError> {
    let mut reader = store.read().await?;
    let view = queue::view(&mut reader, remote, project, artifact).await?;
    // A tag or a referrer may still wait.
    let is_there = view.as_ref().is_some_and(|view| view.since.is_some());
    let why = view.and_then(|view| view.error);
    Ok(PushOf {
        is_there,
        why: why.unwrap_or_else(|| "its push is not through".to_owned()),
    })
}
