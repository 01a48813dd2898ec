//! Freezes and locks.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::{FreezeView, LockView, NewFreeze, NewLock, Problem};
use helix_routing::id::{Environment, ProjectName, SiteId};
use helix_service::clock;
use serde::Deserialize;

use super::extract::{Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::lane::{self, LaneError};
use crate::{audit, project};

/// Freeze a project
///
/// Nothing is deployed to its production meanwhile; rollbacks are never frozen.
#[utoipa::path(
    post, path = "/v1/projects/{project}/freezes", tag = "lanes", params(("project" = String, Path)),
    request_body = NewFreeze,
    responses((status = 200, body = FreezeView), (status = 404, body = Problem), (status = 422, body = Problem, description = "`illegal-lane`"))
)]
pub(super) async fn add_freeze(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewFreeze>,
) -> Result<axum::Json<FreezeView>, Rejection> {
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &project).await?;
    let view = lane::add_freeze(&mut tx, &caller, &project, new).await?;
    let until = format!("until {} UTC: {}", view.until.utc(), view.reason);
    audit::note(
        &mut tx,
        &caller,
        "freeze.add",
        project.as_str(),
        Some(&until),
    )
    .await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// List a project's freezes that are not over
#[utoipa::path(
    get, path = "/v1/projects/{project}/freezes", tag = "lanes", params(("project" = String, Path)),
    responses((status = 200, body = Vec<FreezeView>), (status = 404, body = Problem))
)]
pub(super) async fn freezes(
    State(app): State<App>,
    Path(project): Path<ProjectName>,
) -> Result<axum::Json<Vec<FreezeView>>, Rejection> {
    let mut connection = app.store.read().await?;
    project::check(&mut connection, &project).await?;
    let views = lane::freezes(&mut connection, &project, clock::now()).await?;
    Ok(axum::Json(views))
}

/// Remove a freeze
#[utoipa::path(
    delete, path = "/v1/projects/{project}/freezes/{freeze}", tag = "lanes",
    params(("project" = String, Path), ("freeze" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn remove_freeze(
    State(app): State<App>,
    caller: Caller,
    Path((project, freeze)): Path<(ProjectName, String)>,
) -> Result<StatusCode, Rejection> {
    let mut tx = app.store.write().await?;
    lane::remove_freeze(&mut tx, &project, &freeze).await?;
    audit::note(
        &mut tx,
        &caller,
        "freeze.remove",
        project.as_str(),
        Some(&freeze),
    )
    .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lock a site
///
/// Others cannot deploy to it. Whoever holds the lock renews it in the same way.
#[utoipa::path(
    post, path = "/v1/projects/{project}/lock", tag = "lanes", params(("project" = String, Path)),
    request_body = NewLock,
    responses(
        (status = 200, body = LockView), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "`locked`"), (status = 422, body = Problem, description = "`illegal-lane`"),
    )
)]
pub(super) async fn acquire(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewLock>,
) -> Result<axum::Json<LockView>, Rejection> {
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &project).await?;
    let site = site(project, Some(new.environment));
    let view = lane::acquire(&mut tx, &caller, site.clone(), &new).await?;
    let subject = site.to_string();
    audit::note(
        &mut tx,
        &caller,
        "lock.acquire",
        &subject,
        Some(&new.reason),
    )
    .await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Which site's lock.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LockOf {
    /// `production` (if left out) or `preview/N`.
    #[param(value_type = Option<String>)]
    environment: Option<Environment>,
    /// Also somebody else's: only with the role `operate`.
    #[serde(default)]
    force: bool,
}

/// Say who holds a site's lock
#[utoipa::path(
    get, path = "/v1/projects/{project}/lock", tag = "lanes", params(("project" = String, Path), LockOf),
    responses((status = 200, body = LockView), (status = 404, body = Problem))
)]
pub(super) async fn show_lock(
    State(app): State<App>,
    Path(project): Path<ProjectName>,
    Query(query): Query<LockOf>,
) -> Result<axum::Json<LockView>, Rejection> {
    let mut connection = app.store.read().await?;
    project::check(&mut connection, &project).await?;
    let site = site(project, query.environment);
    Ok(axum::Json(lane::lock(&mut connection, site).await?))
}

/// Release a site's lock
#[utoipa::path(
    delete, path = "/v1/projects/{project}/lock", tag = "lanes", params(("project" = String, Path), LockOf),
    responses((status = 200, body = LockView), (status = 409, body = Problem, description = "`locked` by somebody else, `not-locked`"))
)]
pub(super) async fn release(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Query(query): Query<LockOf>,
) -> Result<axum::Json<LockView>, Rejection> {
    let mut tx = app.store.write().await?;
    let site = site(project, query.environment);
    let view = lane::release(&mut tx, &caller, site.clone(), query.force).await?;
    let forced = query.force.then_some("by force");
    audit::note(&mut tx, &caller, "lock.release", &site.to_string(), forced).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

fn site(project: ProjectName, environment: Option<Environment>) -> SiteId {
    SiteId {
        project,
        environment: environment.unwrap_or(Environment::Production),
    }
}

impl From<LaneError> for Rejection {
    fn from(error: LaneError) -> Self {
        let title = error.to_string();
        match error {
            LaneError::Frozen { .. } => Self::conflict("frozen", title),
            LaneError::Locked { .. } => Self::conflict("locked", title),
            LaneError::NotLocked(_) => Self::conflict("not-locked", title),
            LaneError::UnknownFreeze { .. } => {
                Self::new(StatusCode::NOT_FOUND, "unknown-freeze", title)
            }
            LaneError::Illegal { .. } => Self::unprocessable("illegal-lane", title),
            LaneError::Store(error) => error.into(),
        }
    }
}
