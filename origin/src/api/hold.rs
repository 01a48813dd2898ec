//! Holds and quarantines.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::{HoldView, Problem};
use helix_routing::id::{ProjectName, ReleaseId};
use helix_routing::operators::{ClearHolds, HoldsView, NewHold, NewQuarantine, QuarantineView};
use serde::Deserialize;

use super::extract::{Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::hold::{self, HoldError};
use crate::quarantine::{self, QuarantineError};

/// Hold a site, or every site of a project
///
/// There are no automatic deployments to the regions from now on. What is being rolled out goes on.
#[utoipa::path(
    post, path = "/v1/projects/{project}/holds", tag = "holds", params(("project" = String, Path)),
    request_body = NewHold,
    responses(
        (status = 200, body = HoldsView),
        (status = 404, body = Problem, description = "`unknown-project`, `unknown-site`, `unknown-region`"),
        (status = 409, body = Problem, description = "`project-deleted`"),
        (status = 422, body = Problem, description = "`illegal-reason`, `illegal-ttl`"),
    )
)]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewHold>,
) -> Result<axum::Json<HoldsView>, Rejection> {
    let mut tx = app.store.write().await?;
    let view = hold::set(&mut tx, &caller, &project, new, &app.regions).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Lift holds
#[utoipa::path(
    post, path = "/v1/projects/{project}/holds/clear", tag = "holds", params(("project" = String, Path)),
    request_body = ClearHolds,
    responses(
        (status = 200, body = HoldsView),
        (status = 404, body = Problem, description = "`unknown-project`, `unknown-site`, `unknown-region`"),
        (status = 409, body = Problem, description = "`project-deleted`"),
        (status = 422, body = Problem, description = "`illegal-reason`"),
    )
)]
pub(super) async fn clear(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(wanted): Json<ClearHolds>,
) -> Result<axum::Json<HoldsView>, Rejection> {
    let mut tx = app.store.write().await?;
    let view = hold::clear(&mut tx, &caller, &project, wanted, &app.regions).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Whose holds or quarantines.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// Only this project's.
    #[param(value_type = Option<String>)]
    project: Option<ProjectName>,
}

/// List the holds in force
#[utoipa::path(
    get, path = "/v1/holds", tag = "holds", params(Of),
    responses((status = 200, body = Vec<HoldView>))
)]
pub(super) async fn list(
    State(app): State<App>,
    Query(of): Query<Of>,
) -> Result<axum::Json<Vec<HoldView>>, Rejection> {
    let mut connection = app.store.read().await?;
    let holds = hold::list(&mut connection, of.project.as_ref()).await?;
    Ok(axum::Json(holds))
}

/// Quarantine a release
///
/// It is deployed again only with the word, and no rollback goes to it. What is served stays as it is.
#[utoipa::path(
    post, path = "/v1/releases/{release}/quarantine", tag = "releases", params(("release" = String, Path)),
    request_body = NewQuarantine,
    responses(
        (status = 200, body = Vec<QuarantineView>),
        (status = 404, body = Problem, description = "`unknown-release`, `unknown-region`"),
        (status = 409, body = Problem, description = "`release-collected`, `project-deleted`"),
        (status = 422, body = Problem, description = "`illegal-reason`"),
    )
)]
pub(super) async fn quarantine(
    State(app): State<App>,
    caller: Caller,
    Path(release): Path<ReleaseId>,
    Json(new): Json<NewQuarantine>,
) -> Result<axum::Json<Vec<QuarantineView>>, Rejection> {
    let mut tx = app.store.write().await?;
    let marked = quarantine::set(&mut tx, &caller, &release, &new, &app.regions).await?;
    tx.commit().await?;
    Ok(axum::Json(marked))
}

/// Lift a release's quarantine
#[utoipa::path(
    post, path = "/v1/releases/{release}/unquarantine", tag = "releases", params(("release" = String, Path)),
    request_body = NewQuarantine,
    responses(
        (status = 200, body = Vec<QuarantineView>, description = "Those that it had"),
        (status = 404, body = Problem, description = "`unknown-release`, `unknown-region`"),
        (status = 409, body = Problem, description = "`release-collected`, `project-deleted`"),
        (status = 422, body = Problem, description = "`illegal-reason`"),
    )
)]
pub(super) async fn unquarantine(
    State(app): State<App>,
    caller: Caller,
    Path(release): Path<ReleaseId>,
    Json(new): Json<NewQuarantine>,
) -> Result<axum::Json<Vec<QuarantineView>>, Rejection> {
    let mut tx = app.store.write().await?;
    let lifted = quarantine::lift(&mut tx, &caller, &release, &new, &app.regions).await?;
    tx.commit().await?;
    Ok(axum::Json(lifted))
}

/// List the releases in quarantine
#[utoipa::path(
    get, path = "/v1/quarantines", tag = "releases", params(Of),
    responses((status = 200, body = Vec<QuarantineView>))
)]
pub(super) async fn quarantines(
    State(app): State<App>,
    Query(of): Query<Of>,
) -> Result<axum::Json<Vec<QuarantineView>>, Rejection> {
    let mut connection = app.store.read().await?;
    let marks = quarantine::list(&mut connection, of.project.as_ref()).await?;
    Ok(axum::Json(marks))
}

impl From<HoldError> for Rejection {
    fn from(error: HoldError) -> Self {
        let title = error.to_string();
        match error {
            HoldError::Reason => Self::unprocessable("illegal-reason", title),
            HoldError::Ttl => Self::unprocessable("illegal-ttl", title),
            HoldError::UnknownRegion(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown-region", title)
            }
            HoldError::UnknownSite(_) => Self::new(StatusCode::NOT_FOUND, "unknown-site", title),
            HoldError::Project(error) => error.into(),
            HoldError::Record(error) => error.into(),
            HoldError::Store(error) => error.into(),
        }
    }
}

impl From<QuarantineError> for Rejection {
    fn from(error: QuarantineError) -> Self {
        match error {
            QuarantineError::Release(error) => error.into(),
            QuarantineError::Scope(error) => error.into(),
            QuarantineError::Store(error) => error.into(),
        }
    }
}
