//! Pins: visitors who show something get a release of their own.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::Problem;
use helix_routing::id::{PinLabel, ProjectName, SiteId};
use helix_routing::visitor::{NewPin, PinView};

use super::extract::{EnvironmentOf, Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::pin::PinError;
use crate::{audit, pin, project};

/// Pin a release
///
/// Visitors who show the label (by the header `x-helix-pin` or the cookie `__helix_pin`), or the header or cookie that is
/// named, get this release. It is kept on every edge as long as it is pinned.
#[utoipa::path(
    post, path = "/v1/projects/{project}/pins", tag = "pins", params(("project" = String, Path)),
    request_body = NewPin,
    responses(
        (status = 200, body = [PinView]),
        (status = 404, body = Problem, description = "`unknown-project`, `unknown-release`"),
        (status = 409, body = Problem, description = "`too-many-pins`, `release-collected`"),
        (status = 422, body = Problem, description = "`illegal-pin`"),
    )
)]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewPin>,
) -> Result<axum::Json<Vec<PinView>>, Rejection> {
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &project).await?;
    let site = SiteId {
        project,
        environment: new.environment,
    };
    let detail = serde_json::to_string(&new).ok();
    pin::add(&mut tx, &site, new, &caller.name).await?;
    let (subject, detail) = (site.to_string(), detail.as_deref());
    audit::note(&mut tx, &caller, "pin.add", &subject, detail).await?;
    let pins = pin::list(&mut tx, &site).await?;
    tx.commit().await?;
    Ok(axum::Json(pins))
}

/// List a site's pins
#[utoipa::path(
    get, path = "/v1/projects/{project}/pins", tag = "pins", params(("project" = String, Path), EnvironmentOf),
    responses((status = 200, body = [PinView]), (status = 404, body = Problem))
)]
pub(super) async fn list(
    State(app): State<App>,
    Path(project): Path<ProjectName>,
    Query(query): Query<EnvironmentOf>,
) -> Result<axum::Json<Vec<PinView>>, Rejection> {
    let mut connection = app.store.read().await?;
    project::check(&mut connection, &project).await?;
    let pins = pin::list(&mut connection, &query.site(project)).await?;
    Ok(axum::Json(pins))
}

/// Remove a pin
#[utoipa::path(
    delete, path = "/v1/projects/{project}/pins/{label}", tag = "pins",
    params(("project" = String, Path), ("label" = String, Path), EnvironmentOf),
    responses((status = 204), (status = 404, body = Problem, description = "`unknown-pin`"))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((project, label)): Path<(ProjectName, PinLabel)>,
    Query(query): Query<EnvironmentOf>,
) -> Result<StatusCode, Rejection> {
    let site = query.site(project);
    let mut tx = app.store.write().await?;
    pin::remove(&mut tx, &site, &label).await?;
    let (subject, detail) = (site.to_string(), Some(label.as_str()));
    audit::note(&mut tx, &caller, "pin.remove", &subject, detail).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<PinError> for Rejection {
    fn from(error: PinError) -> Self {
        let title = error.to_string();
        let conflict = |kind, title| Self::new(StatusCode::CONFLICT, kind, title);
        let missing = |kind, title| Self::new(StatusCode::NOT_FOUND, kind, title);
        match error {
            PinError::By(_) | PinError::Both | PinError::Reason => {
                Self::unprocessable("illegal-pin", title)
            }
            PinError::UnknownRelease { .. } => missing("unknown-release", title),
            PinError::Unknown { .. } => missing("unknown-pin", title),
            PinError::Collected(_) => conflict("release-collected", title),
            PinError::TooMany(_) => conflict("too-many-pins", title),
            PinError::Record(error) => error.into(),
            PinError::Store(error) => error.into(),
        }
    }
}
