//! Purges of what edges keep of upstreams' responses.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::{NewPurge, Problem, PurgeView};
use helix_routing::id::{ProjectName, SiteId};

use super::extract::{EnvironmentOf, Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::purge::PurgeError;
use crate::{audit, project, purge};

/// Purge stored responses
///
/// Answers as soon as the edges are being told; ask for the site's purges to see who has forgotten. The same purge again
/// does no harm.
#[utoipa::path(
    post, path = "/v1/projects/{project}/purges", tag = "purges", params(("project" = String, Path)),
    request_body = NewPurge,
    responses(
        (status = 200, body = PurgeView),
        (status = 404, body = Problem, description = "`unknown-project`, `unknown-site`, `unknown-region`"),
        (status = 409, body = Problem, description = "`project-deleted`, `changed-meanwhile`"),
        (status = 422, body = Problem, description = "`illegal-purge`: a URL or a tag is none, or there are too many"),
    )
)]
pub(super) async fn purge(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewPurge>,
) -> Result<axum::Json<PurgeView>, Rejection> {
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &project).await?;
    let site = SiteId {
        project,
        environment: new.environment,
    };
    let regions = purge::purge(&mut tx, &site, &new, &app.regions).await?;
    let view = purge::view(&mut tx, &site, &regions, &app.roster).await?;
    let detail = serde_json::to_string(&new).ok();
    audit::note(
        &mut tx,
        &caller,
        "cache.purge",
        &site.to_string(),
        detail.as_deref(),
    )
    .await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Show how far a site's newest purges have come
#[utoipa::path(
    get, path = "/v1/projects/{project}/purges", tag = "purges",
    params(("project" = String, Path), EnvironmentOf),
    responses((status = 200, body = PurgeView), (status = 404, body = Problem))
)]
pub(super) async fn show(
    State(app): State<App>,
    Path(project): Path<ProjectName>,
    Query(query): Query<EnvironmentOf>,
) -> Result<axum::Json<PurgeView>, Rejection> {
    let mut connection = app.store.read().await?;
    project::check(&mut connection, &project).await?;
    let site = query.site(project);
    let view = purge::view(&mut connection, &site, &app.regions, &app.roster).await?;
    Ok(axum::Json(view))
}

impl From<PurgeError> for Rejection {
    fn from(error: PurgeError) -> Self {
        let title = error.to_string();
        match error {
            PurgeError::Part { .. } | PurgeError::TooMany { .. } => {
                Self::unprocessable("illegal-purge", title)
            }
            PurgeError::UnknownRegion(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown-region", title)
            }
            PurgeError::UnknownSite(_) => Self::new(StatusCode::NOT_FOUND, "unknown-site", title),
            PurgeError::Record(error) => error.into(),
            PurgeError::Store(error) => error.into(),
        }
    }
}
