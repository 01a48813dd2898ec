//! What a provider is told of builds: the status of a commit, and one comment for each pull request.
//!
//! Invariant: nothing waits for a provider. A change notes that there is something to tell; whoever tells it says how things are by then,
//! so that what changed twice meanwhile is told once, and a provider that was away hears the newest.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use helix_routing::api::{BuildState, BuildView};
use helix_routing::id::{BuildId, Environment, RolloutId};
use helix_service::clock;
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;

use self::forge::{Forge, ForgeError};
use self::words::Fate;
use super::link;
use super::seal::SealError;
use crate::app::App;
use crate::build::{self, Build, BuildError};
use crate::protection;
use crate::store::{self, StoreError, Tx, millis};

pub mod forge;
pub mod words;

/// How often it is looked for what is due, whatever is heard.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What is told at once.
const AT_ONCE: usize = 8;
const PAGE_ROWS: i64 = 64;
/// Wait before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// After so many attempts, about three hours, a provider is not told.
const MAX_ATTEMPTS: i64 = 12;
/// How much of an error is kept, in characters.
const MAX_ERROR: usize = 500;

/// A provider was not told.
#[derive(Debug, thiserror::Error)]
enum TellError {
    /// It did not take it.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// The build cannot be read.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The credential does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for TellError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// Notes that the provider is to be told how a build is.
///
/// # Errors
/// When the database fails.
pub async fn want(tx: &mut Tx, build: &Build) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO feedback (build, project, wanted, told, attempts, next_at) \
         SELECT $1, project, 1, 0, 0, $2 FROM links WHERE project = $3 AND provider <> 'git' AND api IS NOT NULL AND credential IS NOT NULL \
         ON CONFLICT (build) DO UPDATE SET wanted = feedback.wanted + 1, attempts = 0, next_at = excluded.next_at",
    )
    .bind(build.id.as_str())
    .bind(millis(clock::now()))
    .bind(build.project().as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes that the provider is to be told how the rollout of a build ended.
///
/// # Errors
/// When the database fails.
pub async fn want_of(tx: &mut Tx, rollout: &RolloutId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE feedback SET wanted = wanted + 1, attempts = 0, next_at = $1 \
         WHERE build IN (SELECT build FROM deployments WHERE rollout = $2 AND build IS NOT NULL)",
    )
    .bind(millis(clock::now()))
    .bind(rollout.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Tells providers until shutdown. A failure is logged and tried again later.
pub async fn run(app: &App, shutdown: &Shutdown) {
    let mut changes = app.source.changes();
    loop {
        if let Err(error) = tell_due(app).await {
            tracing::warn!(error = %chain(&error), "providers are not told of builds");
        }
        tokio::select! {
            () = shutdown.requested() => return,
            // The sender lives as long as the app.
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Tells everything that is due, once.
///
/// # Errors
/// When the database fails; a provider that does not take it is noted.
pub async fn tell_due(app: &App) -> Result<(), StoreError> {
    let due: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT build, wanted, attempts FROM feedback WHERE told < wanted AND next_at <= $1 ORDER BY next_at LIMIT $2",
    )
    .bind(millis(clock::now()))
    .bind(PAGE_ROWS)
    .fetch_all(app.store.reader())
    .await?;
    let told = due.into_iter().map(|(build, wanted, attempts)| async move {
        let id = store::id(&build)?;
        let told = tell(app, &id).await;
        note(app, &id, (wanted, attempts), told).await
    });
    let told: Vec<Result<(), StoreError>> =
        stream::iter(told).buffer_unordered(AT_ONCE).collect().await;
    told.into_iter().collect()
}

async fn note(
    app: &App,
    build: &BuildId,
    (wanted, attempts): (i64, i64),
    told: Result<(), TellError>,
) -> Result<(), StoreError> {
    let (error, pause) = match told {
        Ok(()) => (None, None),
        Err(TellError::Store(error) | TellError::Build(BuildError::Store(error))) => {
            return Err(error);
        }
        Err(error) => {
            let text = chain(&error);
            tracing::warn!(%build, attempts, error = text, "provider not told of a build");
            let doubled = FIRST_PAUSE * 2_u32.saturating_pow(u32::try_from(attempts).unwrap_or(0));
            let tries_again = attempts + 1 < MAX_ATTEMPTS;
            let pause = tries_again.then(|| doubled.min(LONGEST_PAUSE));
            (Some(text), pause)
        }
    };
    let text = error.map(|text| store::text(&text.chars().take(MAX_ERROR).collect::<String>()));
    let mut tx = app.store.write().await?;
    match pause {
        // What changed meanwhile begins anew, at once.
        Some(pause) => {
            sqlx::query(
                "UPDATE feedback SET attempts = attempts + 1, next_at = $1, error = $2 WHERE build = $3 AND wanted = $4",
            )
            .bind(millis(clock::now() + pause))
        }
        None => sqlx::query("UPDATE feedback SET told = $1, error = $2 WHERE build = $3 AND wanted >= $4")
            .bind(wanted),
    }
    .bind(text)
    .bind(build.as_str())
    .bind(wanted)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

async fn tell(app: &App, id: &BuildId) -> Result<(), TellError> {
    let mut reader = app.store.read().await?;
    let build = build::find(&mut reader, id).await?;
    let Some(link) = link::find(&mut reader, build.project()).await? else {
        return Ok(());
    };
    let site = build.wanted.site.to_string();
    let outcome: Option<Option<String>> = sqlx::query_scalar(
        "SELECT r.outcome FROM deployments d JOIN rollouts r ON r.rollout = d.rollout WHERE d.build = $1",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *reader)
    .await?;
    let newest = build::newest(&mut reader, &build.wanted.site).await?;
    let is_protected = protection::of_site(&mut reader, &build.wanted.site).await?;
    let is_protected = is_protected.is_some();
    let taken_down: Option<i64> = sqlx::query_scalar(
        "SELECT s.closed FROM sites s JOIN heads h ON h.site = s.site WHERE s.site = $1 AND s.closed IS NOT NULL AND h.closed IS NULL",
    )
    .bind(&site)
    .fetch_optional(&mut *reader)
    .await?;
    let remark: Option<Option<String>> =
        sqlx::query_scalar("SELECT remark FROM heads WHERE site = $1")
            .bind(&site)
            .fetch_optional(&mut *reader)
            .await?;
    drop(reader);
    let Some(credential) = link.credential(&app.source.key)? else {
        return Ok(());
    };
    let Some(forge) = Forge::new(&link, credential, &app.source.permitted) else {
        return Ok(());
    };
    let view = build.view(&app.addresses);
    let fate = match fate(&view, outcome.flatten().as_deref()) {
        Fate::Live if taken_down.is_some() => Fate::Expired,
        fate => fate,
    };
    forge
        .status(&view.commit, &words::status(&view, fate))
        .await?;
    let Environment::Preview(number) = view.site.environment else {
        return Ok(());
    };
    // The comment is of the newest commit.
    if newest.is_some_and(|newest| newest.id != *id) {
        return Ok(());
    }
    let remark = remark.flatten();
    let text = words::remark(&view, fate, is_protected);
    let now = forge.remark(number, remark.as_deref(), &text).await?;
    if remark.as_ref() != Some(&now) {
        let mut tx = app.store.write().await?;
        sqlx::query("UPDATE heads SET remark = $1 WHERE site = $2")
            .bind(&now)
            .bind(&site)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
    }
    Ok(())
}

fn fate(view: &BuildView, outcome: Option<&str>) -> Fate {
    match (view.state, outcome) {
        (BuildState::Waiting, _) => Fate::Waits,
        (BuildState::Queued | BuildState::Claimed, _) => Fate::Building,
        (BuildState::Failed, _) => Fate::Failed,
        (BuildState::Cancelled, _) => Fate::Cancelled,
        (BuildState::Succeeded, None) => Fate::RollsOut,
        (BuildState::Succeeded, Some("settled")) => Fate::Live,
        (BuildState::Succeeded, Some("superseded")) => Fate::Cancelled,
        (BuildState::Succeeded, Some(_)) => Fate::WentBack,
    }
}
