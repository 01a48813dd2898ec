//! Deployments and rollbacks: from a list of files, or a wish to go back, to a running rollout.
//!
//! Invariant: the deployment's row and number, the rollout, its records and the answer under an
//! idempotency key are one transaction. A deployment that was answered exists; one that was not, does not.

use std::collections::BTreeMap;

use helix_routing::api::{DeploymentView, NewDeployment, NewRollback, RollbackStep, RollbackView};
use helix_routing::id::{Environment, ProjectName, RolloutId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_service::clock;

use crate::app::App;
use crate::artifact::read::ReadError;
use crate::artifact::release::MakeError;
use crate::audit;
use crate::auth::Caller;
use crate::idempotency::{KeyError, Repeatable};
use crate::project::{self, ProjectError};
use crate::rollout::{self, Begun, NewRollout, RolloutError, Step};
use crate::store::{StoreError, Tx, count, millis, number};

/// A deployment or rollback was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The project cannot be deployed to.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The release cannot be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The release just made cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The rollout cannot start.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// The idempotency key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the release of the given files and rolls it out everywhere.
///
/// # Errors
/// As [`StartError`] says; then nothing was changed, though a release may have been made.
pub async fn deploy(
    app: &App,
    caller: &Caller,
    project: &ProjectName,
    new: NewDeployment,
    repeatable: Option<Repeatable>,
) -> Result<DeploymentView, StartError> {
    if let Some(answer) = answered(app, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::ensure(&app.store, project).await?;
    let site = SiteId {
        project: project.clone(),
        environment: new.environment,
    };
    let release = app.artifacts.make_release(&site, new.files).await?;
    let routes = app.artifacts.routes_of(&release.artifact).await?;
    let wanted = NewRollout {
        bake: app.bakes.plan(&site, &routes)?,
        site: site.clone(),
        release: release.clone(),
        by: caller.name.clone(),
        lift_quarantine: new.lift_quarantine,
    };
    let mut begun = app.conductor.deploy(wanted).await?;
    if let Some(answer) = answered_now(&mut begun.tx, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::check(&mut begun.tx, project).await?;
    let view = record(&mut begun, app, caller, site, release).await?;
    if let Some(repeatable) = &repeatable {
        repeatable.note(&mut begun.tx, &view).await?;
    }
    begun.commit().await?;
    app.artifacts.export_soon();
    Ok(view)
}

/// Takes regions back, or says what that would change.
///
/// # Errors
/// As [`StartError`] says; then nothing was changed.
pub async fn roll_back(
    app: &App,
    caller: &Caller,
    project: &ProjectName,
    new: NewRollback,
    repeatable: Option<Repeatable>,
) -> Result<RollbackView, StartError> {
    if let Some(answer) = answered(app, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    let site = SiteId {
        project: project.clone(),
        environment: new.environment,
    };
    if new.plan {
        let steps = app
            .conductor
            .plan_rollback(&site, new.release.as_ref(), new.regions.as_deref())
            .await?;
        return rollback_view(app, &site, None, &steps).await;
    }
    let wanted = rollout::NewRollback {
        site: site.clone(),
        release: new.release,
        regions: new.regions,
        by: caller.name.clone(),
        reason: new.reason.clone(),
    };
    let mut begun = app.conductor.rollback(wanted).await?;
    if let Some(answer) = answered_now(&mut begun.tx, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::check(&mut begun.tx, project).await?;
    audit::note(
        &mut begun.tx,
        caller,
        "rollback",
        &site.to_string(),
        new.reason.as_deref(),
    )
    .await?;
    let view = rollback_view(app, &site, Some(begun.rollout.clone()), &begun.steps).await?;
    if let Some(repeatable) = &repeatable {
        repeatable.note(&mut begun.tx, &view).await?;
    }
    begun.commit().await?;
    Ok(view)
}

pub(crate) async fn answered<T: serde::de::DeserializeOwned>(
    app: &App,
    repeatable: Option<&Repeatable>,
) -> Result<Option<T>, KeyError> {
    match repeatable {
        Some(repeatable) => repeatable.answer(&app.store).await,
        None => Ok(None),
    }
}

pub(crate) async fn answered_now<T: serde::de::DeserializeOwned>(
    tx: &mut Tx,
    repeatable: Option<&Repeatable>,
) -> Result<Option<T>, KeyError> {
    match repeatable {
        Some(repeatable) => repeatable.answer_now(tx).await,
        None => Ok(None),
    }
}

async fn record(
    begun: &mut Begun,
    app: &App,
    caller: &Caller,
    site: SiteId,
    release: ReleaseRef,
) -> Result<DeploymentView, StoreError> {
    let Begun {
        tx, rollout, held, ..
    } = begun;
    let last: i64 =
        sqlx::query_scalar("SELECT COALESCE(MAX(number), 0) FROM deployments WHERE project = $1")
            .bind(site.project.as_str())
            .fetch_one(&mut **tx)
            .await?;
    let this = count(last, "deployments.number")? + 1;
    let label = match site.environment {
        Environment::Production => format!("main/{this}"),
        Environment::Preview(pull_request) => format!("preview/{pull_request}"),
    };
    sqlx::query(
        "INSERT INTO deployments (project, number, label, site, release_id, rollout, by_whom, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(site.project.as_str())
    .bind(number(this))
    .bind(&label)
    .bind(site.to_string())
    .bind(release.release.as_str())
    .bind(rollout.as_str())
    .bind(&caller.name)
    .bind(millis(clock::now()))
    .execute(&mut **tx)
    .await?;
    audit::note(
        tx,
        caller,
        "deploy",
        &site.to_string(),
        Some(release.release.as_str()),
    )
    .await?;
    Ok(DeploymentView {
        number: this,
        label,
        url: app.addresses.site_url(&site),
        release_url: app.addresses.release_url(&site.project, &release.release),
        site,
        release: release.release,
        artifact: release.artifact,
        rollout: rollout.clone(),
        held: held.clone(),
    })
}

async fn rollback_view(
    app: &App,
    site: &SiteId,
    rollout: Option<RolloutId>,
    steps: &[Step],
) -> Result<RollbackView, StartError> {
    let mut regions: Vec<RollbackStep> = Vec::with_capacity(steps.len());
    // Regions mostly go the same way, and comparing two releases reads both their indexes.
    let mut compared = BTreeMap::new();
    for Step { region, from, to } in steps {
        let files_changed = match compared.get(&(from, to)) {
            Some(files_changed) => *files_changed,
            None => app.artifacts.files_changed(from.as_ref(), to).await,
        };
        compared.insert((from, to), files_changed);
        regions.push(RollbackStep {
            region: region.clone(),
            from: from.as_ref().map(|from| from.release.clone()),
            to: to.release.clone(),
            files_changed,
        });
    }
    let mut connection = app
        .store
        .reader()
        .acquire()
        .await
        .map_err(StoreError::from)?;
    let hosts = project::hosts(&mut connection, &site.project, &app.addresses).await?;
    let hosts = hosts
        .into_iter()
        .filter(|(_, shown)| shown == site)
        .map(|(host, _)| host.to_string())
        .collect();
    Ok(RollbackView {
        rollout,
        regions,
        hosts,
    })
}
