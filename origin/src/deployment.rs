//! Deployments: from a list of files to a running rollout.
//!
//! Invariant: the deployment's row and number, the rollout, its records and the answer under an
//! idempotency key are one transaction. A deployment that was answered exists; one that was not, does not.

use helix_routing::api::{DeploymentView, InFreeze, NewDeployment};
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
use crate::lane::{self, LaneError};
use crate::project::{self, ProjectError};
use crate::rollout::policy::WayOut;
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
    /// It may not be deployed now, or by this one.
    #[error(transparent)]
    Lane(#[from] LaneError),
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
    let release = app
        .artifacts
        .make_release(&site, new.files, new.static_only)
        .await?;
    let routes = app.artifacts.routes_of(&release.artifact).await?;
    let wanted = NewRollout {
        bake: app.bakes.plan(&site, &routes)?,
        site: site.clone(),
        release: release.clone(),
        by: caller.name.clone(),
        lift_quarantine: new.lift_quarantine,
        automatic: new.automatic,
        way_out: WayOut {
            typed: new.rollout,
            release: routes.rollout,
            config: (*app.rollouts).clone(),
            order: app.regions.to_vec(),
        },
        not_before: new.at,
        closed: Vec::new(),
        superseded: None,
    };
    let mut begun = begin(app, caller, wanted, &new.in_freeze, new.push_seq).await?;

    if let Some(answer) = answered_now(&mut begun.tx, repeatable.as_ref()).await? {
        return Ok(answer);
    }
    project::check(&mut begun.tx, project).await?;
    note_override(&mut begun.tx, caller, &site, &new.in_freeze).await?;
    let origin = (site, new.automatic, new.push_seq);
    let view = record(&mut begun, app, caller, origin, release).await?;
    if let Some(repeatable) = &repeatable {
        repeatable.note(&mut begun.tx, &view).await?;
    }
    begun.commit().await?;
    app.artifacts.export_soon();
    Ok(view)
}

/// Starts it, if it may be started now and by this one.
async fn begin(
    app: &App,
    caller: &Caller,
    mut wanted: NewRollout,
    in_freeze: &InFreeze,
    push_seq: Option<u64>,
) -> Result<Begun, StartError> {
    let mut tx = app.store.write().await?;
    let (site, at) = (&wanted.site, wanted.not_before);
    wanted.closed = lane::check_deploy(&mut tx, caller, site, at, in_freeze).await?;
    if let Some(push_seq) = push_seq
        && let Some(newest) = lane::newest_push(&mut tx, site).await?
        && newest > push_seq
    {
        let because = format!("push {push_seq} came after push {newest}, which is newer");
        wanted.superseded = Some(because);
    }
    Ok(app.conductor.deploy_in(tx, wanted).await?)
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

/// Who deploys in a freeze all the same says why, and it is kept.
async fn note_override(
    tx: &mut Tx,
    caller: &Caller,
    site: &SiteId,
    in_freeze: &InFreeze,
) -> Result<(), StoreError> {
    match in_freeze {
        InFreeze::Override(reason) => {
            let site = site.to_string();
            audit::note(tx, caller, "freeze.override", &site, Some(reason)).await
        }
        InFreeze::Refuse | InFreeze::Wait => Ok(()),
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
    (site, automatic, push_seq): (SiteId, bool, Option<u64>),
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
        "INSERT INTO deployments (project, number, label, site, release_id, rollout, by_whom, created, automatic, skipped, push_seq)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
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
    .bind(push_seq.map(number))
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
