//! Gates of a release, run by hand.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::Problem;
use helix_routing::gate::view::{GateRunView, NewGateRun};
use helix_routing::id::ReleaseId;

use super::extract::{Json, Path};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::gate::GateError;
use crate::{audit, gate, project};

/// Run gates
///
/// Answers as soon as the edges are being told; ask for the release's gates to see what they have found. Nothing that is served
/// depends on it.
#[utoipa::path(
    post, path = "/v1/releases/{release}/gates", tag = "gates", params(("release" = String, Path)),
    request_body = NewGateRun,
    responses(
        (status = 200, body = GateRunView),
        (status = 404, body = Problem, description = "`unknown-release`, `unknown-region`, `unknown-gate`"),
        (status = 409, body = Problem, description = "`release-collected`, `project-deleted`, `changed-meanwhile`"),
    )
)]
pub(super) async fn run(
    State(app): State<App>,
    caller: Caller,
    Path(release): Path<ReleaseId>,
    Json(new): Json<NewGateRun>,
) -> Result<axum::Json<GateRunView>, Rejection> {
    let gated = {
        let mut connection = app.store.read().await?;
        gate::find(&mut connection, &release).await?
    };
    gate::check(&app.artifacts, &gated, &new).await?;
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &gated.site.project).await?;
    let regions = gate::run(&mut tx, &gated, &new, &app.regions).await?;
    let view = gate::view(&mut tx, &gated, &regions, &app.roster).await?;
    let subject = format!("{} {release}", gated.site);
    let detail = serde_json::to_string(&new).ok();
    audit::note(&mut tx, &caller, "gate.run", &subject, detail.as_deref()).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Show what the newest runs of a release's gates have found
#[utoipa::path(
    get, path = "/v1/releases/{release}/gates", tag = "gates", params(("release" = String, Path)),
    responses((status = 200, body = GateRunView), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn show(
    State(app): State<App>,
    Path(release): Path<ReleaseId>,
) -> Result<axum::Json<GateRunView>, Rejection> {
    let mut connection = app.store.read().await?;
    let gated = gate::find(&mut connection, &release).await?;
    let view = gate::view(&mut connection, &gated, &app.regions, &app.roster).await?;
    Ok(axum::Json(view))
}

impl From<GateError> for Rejection {
    fn from(error: GateError) -> Self {
        let title = error.to_string();
        let unknown = |kind| Self::new(StatusCode::NOT_FOUND, kind, title);
        match error {
            GateError::UnknownRelease(_) => unknown("unknown-release"),
            GateError::UnknownRegion(_) => unknown("unknown-region"),
            GateError::UnknownGate { .. } => unknown("unknown-gate"),
            GateError::Rollout(error) => error.into(),
            GateError::Read(error) => Self::internal(&error),
            GateError::Record(error) => error.into(),
            GateError::Store(error) => error.into(),
        }
    }
}
