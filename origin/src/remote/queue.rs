//! Which artifacts wait to be pushed: rows of `pushes`, written in the transactions that give them a reason.
//!
//! Invariant: `wanted` rises with each reason and `done` follows it, so that what changes while a push is under way is pushed after it,
//! and what changed twice is pushed once. A row stays for as long as its artifact is kept.

use helix_routing::api::{PushState, PushView, RegistryStatus};
use helix_routing::id::{Digest, ProjectName};
use helix_service::clock;
use helix_service::error::chain;

use super::{Remote, RemoteError};
use crate::event::{self, Event};
use crate::store::{self, Connection, Store, StoreError, Tx, millis, time};

/// How much of an error is kept, in characters.
const MAX_ERROR: usize = 500;
/// Rows that are looked at to find one for each project.
const PAGE_ROWS: i64 = 256;

/// An artifact whose time has come.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) project: ProjectName,
    pub(super) artifact: Digest,
    wanted: i64,
    attempts: u32,
}

/// Notes that the registry has to be brought up to date about an artifact: it is new, or a tag or a referrer of it is.
///
/// # Errors
/// When the database fails.
pub async fn want(tx: &mut Tx, project: &ProjectName, artifact: &Digest) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO pushes (project, artifact, wanted, done, attempts, next_at) VALUES ($1, $2, 1, 0, 0, $3) \
         ON CONFLICT (project, artifact) DO UPDATE SET wanted = pushes.wanted + 1, attempts = 0, next_at = excluded.next_at",
    )
    .bind(project.as_str())
    .bind(artifact.as_str())
    .bind(millis(clock::now()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets artifacts that no kept release of the project has any more. What the registry has of them stays there.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut Tx, project: &ProjectName) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM pushes WHERE project = $1 AND NOT EXISTS (SELECT 1 FROM releases r \
         WHERE r.artifact = pushes.artifact AND r.collected IS NULL AND r.site LIKE $1 || '/%')",
    )
    .bind(project.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What another registry has, this one does not: all of it is pushed again.
pub(super) async fn move_to(store: &Store, registry: &str) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    sqlx::query(
        "UPDATE pushes SET wanted = wanted + 1, registry = NULL, pushed = NULL, attempts = 0, next_at = 0, error = NULL \
         WHERE registry IS NOT NULL AND registry <> $1",
    )
    .bind(registry)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Whatever waits for its next attempt is due now: the registry answers again.
pub(super) async fn hurry(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    let now = millis(clock::now());
    sqlx::query("UPDATE pushes SET next_at = $1 WHERE done < wanted AND next_at > $1")
        .bind(now)
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// The artifact of each project that comes next, but of those in `busy`: the newest first, since somebody waits for that.
pub(super) async fn due(store: &Store, busy: &[ProjectName]) -> Result<Vec<Due>, StoreError> {
    let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
        "SELECT project, artifact, wanted, attempts FROM pushes WHERE done < wanted AND next_at <= $1 \
         ORDER BY next_at DESC LIMIT $2",
    )
    .bind(millis(clock::now()))
    .bind(PAGE_ROWS)
    .fetch_all(store.reader())
    .await?;
    let mut found: Vec<Due> = Vec::new();
    for (project, artifact, wanted, attempts) in rows {
        let project: ProjectName = store::id(&project)?;
        if busy.contains(&project) || found.iter().any(|due| due.project == project) {
            continue;
        }
        found.push(Due {
            artifact: store::id(&artifact)?,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            project,
            wanted,
        });
    }
    Ok(found)
}

/// Notes what came of an attempt. The first push of an artifact is an event.
pub(super) async fn note(
    store: &Store,
    remote: &Remote,
    due: &Due,
    pushed: &Result<Vec<String>, RemoteError>,
) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    match pushed {
        Ok(tags) => note_pushed(&mut tx, remote, due, tags).await?,
        Err(error) => note_failed(&mut tx, remote, due, error).await?,
    }
    tx.commit().await
}

async fn note_pushed(
    tx: &mut Tx,
    remote: &Remote,
    due: &Due,
    tags: &[String],
) -> Result<(), StoreError> {
    let before: Option<Option<i64>> =
        sqlx::query_scalar("SELECT pushed FROM pushes WHERE project = $1 AND artifact = $2")
            .bind(due.project.as_str())
            .bind(due.artifact.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    sqlx::query(
        "UPDATE pushes SET done = $1, registry = $2, pushed = COALESCE(pushed, $3), attempts = 0, error = NULL \
         WHERE project = $4 AND artifact = $5",
    )
    .bind(due.wanted)
    .bind(remote.name())
    .bind(millis(clock::now()))
    .bind(due.project.as_str())
    .bind(due.artifact.as_str())
    .execute(&mut **tx)
    .await?;
    if before == Some(None) {
        let pushed = Event::new("release.pushed", Some(&due.project))
            .with("artifact", Some(due.artifact.to_string()))
            .with("registry", Some(remote.name().to_owned()))
            .with("tags", Some(tags.to_vec()));
        event::emit(tx, pushed).await?;
    }
    Ok(())
}

async fn note_failed(
    tx: &mut Tx,
    remote: &Remote,
    due: &Due,
    error: &RemoteError,
) -> Result<(), StoreError> {
    let attempts = due.attempts.saturating_add(1);
    let wait = remote
        .0
        .patience
        .wait(attempts, rand::random(), error.retry_after());
    let text: String = chain(error).chars().take(MAX_ERROR).collect();
    // What was wanted meanwhile begins anew, at once.
    sqlx::query(
        "UPDATE pushes SET error = $1, attempts = CASE WHEN wanted = $2 THEN $3 ELSE attempts END, \
         next_at = CASE WHEN wanted = $2 THEN $4 ELSE next_at END WHERE project = $5 AND artifact = $6",
    )
    .bind(store::text(&text))
    .bind(due.wanted)
    .bind(i64::from(attempts))
    .bind(millis(clock::now() + wait))
    .bind(due.project.as_str())
    .bind(due.artifact.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How an artifact's push stands; none when nothing is known of it.
///
/// # Errors
/// When the database fails.
pub async fn view(
    connection: &mut Connection,
    remote: &Remote,
    project: &ProjectName,
    artifact: &Digest,
) -> Result<Option<PushView>, StoreError> {
    type Row = (i64, i64, Option<String>, Option<i64>, i64, Option<String>);
    let row: Option<Row> = sqlx::query_as(
        "SELECT wanted, done, registry, pushed, next_at, error FROM pushes WHERE project = $1 AND artifact = $2",
    )
    .bind(project.as_str())
    .bind(artifact.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(wanted, done, registry, pushed, next_at, error)| {
        let is_there = registry.as_deref() == Some(remote.name());
        let is_done = is_there && done >= wanted;
        PushView {
            state: if is_done {
                PushState::Pushed
            } else {
                PushState::Waiting
            },
            since: pushed.filter(|_| is_there).map(time),
            next_at: (!is_done && error.is_some()).then(|| time(next_at)),
            error,
        }
    }))
}

/// How far the registry is behind.
///
/// # Errors
/// When the database fails.
pub async fn status(
    connection: &mut Connection,
    remote: &Remote,
) -> Result<RegistryStatus, StoreError> {
    let (waiting, failing): (i64, i64) =
        sqlx::query_as("SELECT COUNT(*), COUNT(error) FROM pushes WHERE done < wanted")
            .fetch_one(&mut *connection)
            .await?;
    let error: Option<String> = sqlx::query_scalar(
        "SELECT error FROM pushes WHERE done < wanted AND error IS NOT NULL ORDER BY next_at DESC LIMIT 1",
    )
    .fetch_optional(connection)
    .await?;
    Ok(RegistryStatus {
        registry: remote.name().to_owned(),
        required: remote.required().is_some(),
        waiting: u64::try_from(waiting).unwrap_or_default(),
        failing: u64::try_from(failing).unwrap_or_default(),
        error,
    })
}
