//! Restarts of sites.

use axum::extract::State;
use axum::http::HeaderMap;
use helix_routing::api::{NewRestart, Problem, RestartView};
use helix_routing::id::ProjectName;

use super::deployment::{joined, repeatable};
use super::extract::{Json, Path};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::restart;

/// Restart a site
///
/// What is live stays, and begins anew region by region: gates are run, upstreams connected to again, and what is in flight
/// is drained. With `plan`, nothing changes.
#[utoipa::path(
    post, path = "/v1/projects/{project}/restarts", tag = "deployments",
    params(("project" = String, Path), ("idempotency-key" = Option<String>, Header, description = "The same key again: the same answer")),
    request_body = NewRestart,
    responses(
        (status = 200, body = RestartView),
        (status = 404, body = Problem, description = "`unknown-region`"),
        (status = 409, body = Problem, description = "`nothing-live`, `rollout-running`"),
    )
)]
pub(super) async fn restart(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    headers: HeaderMap,
    Json(new): Json<NewRestart>,
) -> Result<axum::Json<RestartView>, Rejection> {
    let repeatable = repeatable(&caller, &headers, &format!("restart {project}"), &new)?;
    // Its own task: a client that goes away must not end what it started half way.
    let started =
        tokio::spawn(
            async move { restart::restart(&app, &caller, &project, new, repeatable).await },
        );
    Ok(axum::Json(joined(started.await)?))
}
