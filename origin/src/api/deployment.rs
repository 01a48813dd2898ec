//! Deployments, rollbacks and the releases they are made of.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use helix_routing::api::{
    DeploymentView, NewDeployment, NewPromotion, NewRollback, Problem, ReleaseView, RollbackView,
};
use helix_routing::id::ProjectName;
use serde::Serialize;

use super::extract::{EnvironmentOf, Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::deployment::{self, StartError};
use crate::idempotency::{KeyError, Repeatable};
use crate::overview;
use crate::promotion;
use crate::rollback;
use crate::rollout::RolloutError;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Deploy uploaded files
///
/// Answers as soon as the rollout has started: follow it by its id.
#[utoipa::path(
    post, path = "/v1/projects/{project}/deployments", tag = "deployments",
    params(("project" = String, Path), ("idempotency-key" = Option<String>, Header, description = "The same key again: the same answer")),
    request_body = NewDeployment,
    responses(
        (status = 200, body = DeploymentView),
        (status = 409, body = Problem, description = "`missing-contents` (its detail names up to 20), `quarantined`, `held` (automatic, and every region is), `project-deleted`, `frozen`, `locked`, `linked-project`"),
        (status = 504, body = Problem, description = "`not-in-registry`: releases wait for the registry, and this one waited too long"),
        (status = 422, body = Problem, description = "`illegal-path`, `illegal-rules` (its detail has a line for each, as `file:line: problem`), `no-files`, `illegal-rollout`, `size-mismatch`, `release-too-large`, `idempotency-key-reused`"),
    )
)]
pub(super) async fn deploy(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    headers: HeaderMap,
    Json(new): Json<NewDeployment>,
) -> Result<axum::Json<DeploymentView>, Rejection> {
    let repeatable = repeatable(&caller, &headers, &format!("deploy {project}"), &new)?;
    // Its own task: a client that goes away must not end what it started half way.
    let started =
        tokio::spawn(
            async move { deployment::deploy(&app, &caller, &project, new, repeatable).await },
        );
    Ok(axum::Json(joined(started.await)?))
}

/// Promote a preview's release to production
///
/// As it is, with what it was built with. Production takes what was built of the default branch, so this needs a reason, which is kept in the
/// audit log.
#[utoipa::path(
    post, path = "/v1/projects/{project}/promotions", tag = "deployments",
    params(("project" = String, Path), ("idempotency-key" = Option<String>, Header, description = "The same key again: the same answer")),
    request_body = NewPromotion,
    responses(
        (status = 200, body = DeploymentView),
        (status = 404, body = Problem, description = "`unknown-release`"),
        (status = 409, body = Problem, description = "`override-needed`, `quarantined`, `frozen`, `locked`"),
        (status = 422, body = Problem, description = "`illegal-reason`"),
    )
)]
pub(super) async fn promote(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    headers: HeaderMap,
    Json(new): Json<NewPromotion>,
) -> Result<axum::Json<DeploymentView>, Rejection> {
    let repeatable = repeatable(&caller, &headers, &format!("promote {project}"), &new)?;
    let started =
        tokio::spawn(
            async move { promotion::promote(&app, &caller, &project, new, repeatable).await },
        );
    Ok(axum::Json(joined(started.await)?))
}

/// Roll back
///
/// Without a release, each region goes to its newest settled release before the live one. A rollout of the site that runs is ended,
/// whatever its phase. With `plan`, nothing changes, and every edge is asked whether it holds the target.
#[utoipa::path(
    post, path = "/v1/projects/{project}/rollbacks", tag = "deployments",
    params(("project" = String, Path), ("idempotency-key" = Option<String>, Header, description = "The same key again: the same answer")),
    request_body = NewRollback,
    responses(
        (status = 200, body = RollbackView),
        (status = 404, body = Problem, description = "`unknown-release`, `unknown-region`"),
        (status = 409, body = Problem, description = "`nothing-older`, `never-live`, `release-collected`, `already-live`, `quarantined`"),
        (status = 422, body = Problem, description = "`illegal-reason`"),
    )
)]
pub(super) async fn roll_back(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    headers: HeaderMap,
    Json(new): Json<NewRollback>,
) -> Result<axum::Json<RollbackView>, Rejection> {
    let repeatable = repeatable(&caller, &headers, &format!("rollback {project}"), &new)?;
    let started =
        tokio::spawn(
            async move { rollback::roll_back(&app, &caller, &project, new, repeatable).await },
        );
    Ok(axum::Json(joined(started.await)?))
}

/// List a site's releases, newest first
#[utoipa::path(
    get, path = "/v1/projects/{project}/releases", tag = "deployments",
    params(("project" = String, Path), EnvironmentOf),
    responses((status = 200, body = Vec<ReleaseView>), (status = 404, body = Problem))
)]
pub(super) async fn releases(
    State(app): State<App>,
    Path(project): Path<ProjectName>,
    Query(query): Query<EnvironmentOf>,
) -> Result<axum::Json<Vec<ReleaseView>>, Rejection> {
    let site = query.site(project);
    let rollouts = app.conductor.list(Some(&site)).await?;
    Ok(axum::Json(
        overview::releases(&app, &site, &rollouts).await?,
    ))
}

pub(super) fn repeatable(
    caller: &Caller,
    headers: &HeaderMap,
    what: &str,
    body: &impl Serialize,
) -> Result<Option<Repeatable>, Rejection> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = key.to_str().map_err(|_| KeyError::Illegal)?;
    Ok(Some(Repeatable::new(caller, key, what, body)?))
}

pub(super) fn joined<T>(
    done: Result<Result<T, StartError>, tokio::task::JoinError>,
) -> Result<T, Rejection> {
    match done {
        Ok(result) => Ok(result?),
        Err(failed) => Err(Rejection::internal(&failed)),
    }
}

impl From<StartError> for Rejection {
    fn from(error: StartError) -> Self {
        match error {
            StartError::AutomaticLift => Self::unprocessable("automatic-lift", error.to_string()),
            StartError::Linked(_) => Self::conflict("linked-project", error.to_string()),
            StartError::NoOverride(_) => Self::conflict("override-needed", error.to_string()),
            StartError::Differs(_) => Self::conflict("regions-differ", error.to_string()),
            StartError::Source(_) => Self::conflict("untrusted-source", error.to_string()),
            StartError::Attest(error) => error.into(),
            StartError::Bill(error) => error.into(),
            StartError::Untrusted(_) => Self::conflict("untrusted-build", error.to_string()),
            StartError::NotBuilding(_) => Self::conflict("build-ended", error.to_string()),
            StartError::Reason(error) => error.into(),
            StartError::Project(error) => error.into(),
            StartError::Make(error) => error.into(),
            StartError::Read(error) => Self::internal(&error),
            StartError::Lane(error) => error.into(),
            StartError::Rollout(error) => error.into(),
            StartError::NotThere(_) => {
                let title = error.to_string();
                Self::new(StatusCode::GATEWAY_TIMEOUT, "not-in-registry", title)
            }
            StartError::Key(error) => error.into(),
            StartError::Store(error) => error.into(),
        }
    }
}

impl From<KeyError> for Rejection {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Illegal => Self::bad_request(error.to_string()),
            KeyError::Reused => Self::unprocessable("idempotency-key-reused", error.to_string()),
            KeyError::Store(error) => error.into(),
        }
    }
}

impl From<RolloutError> for Rejection {
    fn from(error: RolloutError) -> Self {
        let (kind, title) = (error.kind(), error.to_string());
        match error {
            RolloutError::UnknownRelease { .. } | RolloutError::UnknownRegion(_) => {
                Self::new(StatusCode::NOT_FOUND, kind, title)
            }
            RolloutError::Policy { .. } => Self::unprocessable(kind, title),
            RolloutError::Quarantined { .. }
            | RolloutError::Collected { .. }
            | RolloutError::NeverLive { .. }
            | RolloutError::NothingOlder { .. }
            | RolloutError::AlreadyLive { .. }
            | RolloutError::NothingLive { .. }
            | RolloutError::Running { .. }
            | RolloutError::Held { .. }
            | RolloutError::NoPrometheus { .. }
            | RolloutError::NoRegions => Self::conflict(kind, title),
            RolloutError::Store(error) => error.into(),
            RolloutError::Record(error) => error.into(),
            RolloutError::Machine { .. } => Self::internal(&error),
        }
    }
}
