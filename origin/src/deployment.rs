//! Deployments: from a list of files to a running rollout.
//!
//! Invariant: the deployment's row and number, the rollout, its records and the answer under an
//! idempotency key are one transaction. A deployment that was answered exists; one that was not, does not.

use helix_routing::api::{DeploymentView, NewDeployment};
use helix_routing::id::{Environment, ProjectName, RegionId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_service::clock;

use crate::app::App;
use crate::artifact::read::ReadError;
use crate::artifact::release::MakeError;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::event::{self, Event};
use crate::hold::HoldError;
use crate::idempotency::{KeyError, Repeatable};
use crate::project::{self, ProjectError};
use crate::rollout::{Begun, NewRollout, RolloutError};
use crate::store::{StoreError, Tx, count, millis, number};

/// A deployment or rollback was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Only a person can give the word.
    #[error(
        "an automatic deployment lifts no quarantine: deploy by hand, or lift it with `helix release unquarantine`"
    )]
    AutomaticLift,
    /// The reason says nothing, or too much.
    #[error(transparent)]
    Reason(HoldError),
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
    if new.automatic && new.lift_quarantine {
        return Err(StartError::AutomaticLift);
    }
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
        automatic: new.automatic,
    };
    let mut begun = app.conductor.deploy(wanted).await?;
    if let Some(answer) = answered_now(&mut begun.tx, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::check(&mut begun.tx, project).await?;
    let view = record(&mut begun, app, caller, (site, new.automatic), release).await?;
    if let Some(repeatable) = &repeatable {
        repeatable.note(&mut begun.tx, &view).await?;
    }
    begun.commit().await?;
    app.artifacts.export_soon();
    Ok(view)
}

/// What the request was answered with before.
///
/// # Errors
/// When the key was used for another request, or the database fails.
pub(crate) async fn answered<T: serde::de::DeserializeOwned>(
    app: &App,
    repeatable: Option<&Repeatable>,
) -> Result<Option<T>, KeyError> {
    match repeatable {
        Some(repeatable) => repeatable.answer(&app.store).await,
        None => Ok(None),
    }
}

/// The same, once it is this request's turn to write.
///
/// # Errors
/// When the key was used for another request, or the database fails.
pub(crate) async fn answered_now<T: serde::de::DeserializeOwned>(
    tx: &mut Tx,
    repeatable: Option<&Repeatable>,
) -> Result<Option<T>, KeyError> {
    match repeatable {
        Some(repeatable) => repeatable.answer_now(tx).await,
        None => Ok(None),
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "one row, one entry and one event, each with all that is known"
)]
async fn record(
    begun: &mut Begun,
    app: &App,
    caller: &Caller,
    (site, automatic): (SiteId, bool),
    release: ReleaseRef,
) -> Result<DeploymentView, StoreError> {
    let Begun {
        tx,
        rollout,
        held,
        skipped,
        ..
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
    let left_out: Vec<&str> = skipped
        .iter()
        .map(|skipped| skipped.region.as_str())
        .collect();
    let left_out = (!left_out.is_empty()).then(|| left_out.join(" "));
    sqlx::query(
        "INSERT INTO deployments (project, number, label, site, release_id, rollout, by_whom, created, automatic, skipped)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(site.project.as_str())
    .bind(number(this))
    .bind(&label)
    .bind(site.to_string())
    .bind(release.release.as_str())
    .bind(rollout.as_str())
    .bind(&caller.name)
    .bind(millis(clock::now()))
    .bind(i64::from(automatic))
    .bind(&left_out)
    .execute(&mut **tx)
    .await?;
    let how = if automatic {
        "deploy.automatic"
    } else {
        "deploy"
    };
    let mut detail = format!("{label}: release {}, rollout {rollout}", release.release);
    if !held.is_empty() {
        let lifted: Vec<&str> = held.iter().map(RegionId::as_str).collect();
        detail.push_str(&format!("; lifts the hold on {}", lifted.join(", ")));
    }
    if let Some(left_out) = &left_out {
        detail.push_str(&format!("; leaves out {left_out}, which are held"));
    }
    let act = Act::new(how, site.to_string()).detail(Some(detail));
    audit::record(tx, caller, act).await?;
    let left_out: Vec<String> = skipped
        .iter()
        .map(|skipped| skipped.region.to_string())
        .collect();
    let created = Event::new("deployment.created", Some(&site.project))
        .on(&site)
        .with("rollout", Some(rollout.to_string()))
        .with("kind", Some("deploy"))
        .with("by", Some(caller.name.clone()))
        .with("deployment", Some(this))
        .with("label", Some(label.clone()))
        .with("release", Some(release.release.to_string()))
        .with("url", Some(app.addresses.site_url(&site)))
        .with("automatic", Some(automatic))
        .with("skipped", Some(left_out));
    event::emit(tx, created).await?;
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
        skipped: skipped.clone(),
    })
}
