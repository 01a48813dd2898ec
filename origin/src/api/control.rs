//! What people may ask of a rollout that runs.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use helix_routing::api::{Approval, ControlReason, Problem, RolloutView};
use helix_routing::id::RolloutId;
use helix_routing::rollout::Control;

use super::deployment::repeatable;
use super::extract::{Json, Path};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::rollout::ControlError;

/// Pause a rollout
///
/// No further stage begins. What has begun goes on, and goes back by itself if it fails.
#[utoipa::path(
    post, path = "/v1/rollouts/{rollout}/pause", tag = "rollouts",
    params(("rollout" = String, Path), ("idempotency-key" = Option<String>, Header, description = "The same key again: the same answer")),
    request_body = ControlReason,
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem, description = "`refused`"))
)]
pub(super) async fn pause(
    state: State<App>,
    caller: Caller,
    path: Path<RolloutId>,
    headers: HeaderMap,
    Json(body): Json<ControlReason>,
) -> Result<axum::Json<RolloutView>, Rejection> {
    let reason = body.reason;
    ask(state, caller, path, &headers, Control::Pause { reason }).await
}

/// Resume a paused rollout
#[utoipa::path(
    post, path = "/v1/rollouts/{rollout}/resume", tag = "rollouts",
    params(("rollout" = String, Path), ("idempotency-key" = Option<String>, Header, description = "The same key again: the same answer")),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem, description = "`refused`"))
)]
pub(super) async fn resume(
    state: State<App>,
    caller: Caller,
    path: Path<RolloutId>,
    headers: HeaderMap,
) -> Result<axum::Json<RolloutView>, Rejection> {
    ask(state, caller, path, &headers, Control::Resume).await
}

/// Approve a stage
///
/// Only the stage that waits for it, by its number: a stage that began already is left as it is, a later one is refused.
#[utoipa::path(
    post, path = "/v1/rollouts/{rollout}/approve", tag = "rollouts",
    params(("rollout" = String, Path), ("idempotency-key" = Option<String>, Header, description = "The same key again: the same answer")),
    request_body = Approval,
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem, description = "`refused`"))
)]
pub(super) async fn approve(
    state: State<App>,
    caller: Caller,
    path: Path<RolloutId>,
    headers: HeaderMap,
    Json(body): Json<Approval>,
) -> Result<axum::Json<RolloutView>, Rejection> {
    let stage = body.stage;
    ask(state, caller, path, &headers, Control::Approve { stage }).await
}

/// Abort a rollout
///
/// What is not live stays so; regions that it went out to go back to the release that settled there before.
#[utoipa::path(
    post, path = "/v1/rollouts/{rollout}/abort", tag = "rollouts",
    params(("rollout" = String, Path), ("idempotency-key" = Option<String>, Header, description = "The same key again: the same answer")),
    request_body = ControlReason,
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem, description = "`refused`"))
)]
pub(super) async fn abort(
    state: State<App>,
    caller: Caller,
    path: Path<RolloutId>,
    headers: HeaderMap,
    Json(body): Json<ControlReason>,
) -> Result<axum::Json<RolloutView>, Rejection> {
    let reason = body.reason;
    ask(state, caller, path, &headers, Control::Abort { reason }).await
}

async fn ask(
    State(app): State<App>,
    caller: Caller,
    Path(rollout): Path<RolloutId>,
    headers: &HeaderMap,
    control: Control,
) -> Result<axum::Json<RolloutView>, Rejection> {
    let body = format!("{control:?}");
    let what = format!("rollout {rollout}");
    let repeatable = repeatable(&caller, headers, &what, &body)?;
    let view = app.conductor.control(&rollout, control, caller, repeatable);
    Ok(axum::Json(view.await?))
}

impl From<ControlError> for Rejection {
    fn from(error: ControlError) -> Self {
        let title = error.to_string();
        match error {
            ControlError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "unknown-rollout", title),
            ControlError::Refused { .. } => Self::conflict("refused", title),
            ControlError::Away(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "rollout-away", title)
            }
            ControlError::Key(error) => error.into(),
            ControlError::Rollout(error) => error.into(),
        }
    }
}
