//! Edges: list them, take them out for maintenance, put them back, remove them.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::Problem;
use helix_routing::edge::view::{EdgeView, NewDrain};
use helix_routing::id::EdgeId;
use serde::Deserialize;

use super::extract::{Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::audit;
use crate::auth::Caller;
use crate::fleet::maintenance::{self, MaintenanceError};

/// List the edges
///
/// Each with its build, its lease, how far it follows, and whether it is taken out.
#[utoipa::path(get, path = "/v1/edges", tag = "edges", responses((status = 200, body = Vec<EdgeView>)))]
pub(super) async fn list(State(app): State<App>) -> axum::Json<Vec<EdgeView>> {
    axum::Json(app.roster.views(&app.feed.heads()))
}

/// How sure the operator is.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// Also when no other edge of the region serves.
    #[serde(default)]
    force: bool,
}

/// Take an edge out for maintenance
///
/// Its `readyz` fails, connections end as they become idle, and no rollout waits for it, until it is put back. Answers as
/// soon as the edge is being told; `GET /v1/edges` says how far it is. Asked again, the newer reason and deadline hold.
#[utoipa::path(
    put, path = "/v1/edges/{edge}/drain", tag = "edges", params(("edge" = String, Path), Force), request_body = NewDrain,
    responses(
        (status = 200, body = EdgeView),
        (status = 404, body = Problem, description = "`unknown-edge`"),
        (status = 409, body = Problem, description = "`last-edge`: nobody else serves its region"),
        (status = 422, body = Problem, description = "`illegal-drain`"),
    )
)]
pub(super) async fn drain(
    State(app): State<App>,
    caller: Caller,
    Path(edge): Path<EdgeId>,
    Query(Force { force }): Query<Force>,
    Json(new): Json<NewDrain>,
) -> Result<axum::Json<EdgeView>, Rejection> {
    let mut tx = app.store.write().await?;
    let record = maintenance::drain(&mut tx, &app.roster, &edge, &new, force).await?;
    let detail = serde_json::to_string(&new).ok();
    let name = edge.to_string();
    audit::note(&mut tx, &caller, "edge.drain", &name, detail.as_deref()).await?;
    tx.commit().await?;
    app.roster.told(&record);
    view(&app, &edge)
}

/// Put an edge back
#[utoipa::path(
    delete, path = "/v1/edges/{edge}/drain", tag = "edges", params(("edge" = String, Path)),
    responses((status = 200, body = EdgeView), (status = 404, body = Problem, description = "`unknown-edge`"))
)]
pub(super) async fn undrain(
    State(app): State<App>,
    caller: Caller,
    Path(edge): Path<EdgeId>,
) -> Result<axum::Json<EdgeView>, Rejection> {
    let mut tx = app.store.write().await?;
    let record = maintenance::undrain(&mut tx, &app.roster, &edge).await?;
    if let Some(record) = record {
        audit::note(&mut tx, &caller, "edge.undrain", edge.as_str(), None).await?;
        tx.commit().await?;
        app.roster.told(&record);
    }
    view(&app, &edge)
}

/// Remove an edge from the fleet
///
/// Its lease ends and nothing that it says counts any more, for as long as origin's configuration goes on naming it. One that joined
/// by a token loses its account at NATS, and its token.
#[utoipa::path(
    delete, path = "/v1/edges/{edge}", tag = "edges", params(("edge" = String, Path), Force),
    responses(
        (status = 204),
        (status = 404, body = Problem, description = "`unknown-edge`"),
        (status = 409, body = Problem, description = "`last-edge`: nobody else serves its region"),
    )
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(edge): Path<EdgeId>,
    Query(Force { force }): Query<Force>,
) -> Result<StatusCode, Rejection> {
    let mut tx = app.store.write().await?;
    maintenance::remove(&mut tx, &app.roster, &edge, force).await?;
    let detail = force.then_some("forced");
    audit::note(&mut tx, &caller, "edge.remove", edge.as_str(), detail).await?;
    tx.commit().await?;
    let account = app.roster.account(&edge);
    app.roster.remove(&edge);
    if let Some((admission, account)) = app.admission.as_ref().zip(account) {
        admission.end(&edge, &account).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

fn view(app: &App, edge: &EdgeId) -> Result<axum::Json<EdgeView>, Rejection> {
    let views = app.roster.views(&app.feed.heads());
    let found = views.into_iter().find(|view| view.edge == *edge);
    let unknown = || MaintenanceError::Unknown(edge.clone()).into();
    found.map(axum::Json).ok_or_else(unknown)
}

impl From<MaintenanceError> for Rejection {
    fn from(error: MaintenanceError) -> Self {
        let title = error.to_string();
        match error {
            MaintenanceError::Unknown(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown-edge", title)
                    .detail("`helix edge list` names those there are")
            }
            MaintenanceError::Illegal { .. } => Self::unprocessable("illegal-drain", title),
            MaintenanceError::Last { .. } => Self::conflict("last-edge", title)
                .detail("wait until another edge of the region is ready, or say that it shall be done all the same"),
            MaintenanceError::Record(error) => error.into(),
            MaintenanceError::Store(error) => error.into(),
        }
    }
}
