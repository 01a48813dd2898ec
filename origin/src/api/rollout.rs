//! How far a rollout is: once, or as it changes.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use helix_routing::api::{Problem, RolloutView};
use helix_routing::id::{Environment, ProjectName, RolloutId, SiteId};
use serde::Deserialize;

use super::extract::{Path, Query};
use super::problem::Rejection;
use crate::app::App;

/// A comment is sent after this long without an event, so that proxies and clients see the link is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Show a rollout
#[utoipa::path(
    get, path = "/v1/rollouts/{rollout}", tag = "rollouts", params(("rollout" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem))
)]
pub(super) async fn show(
    State(app): State<App>,
    Path(rollout): Path<RolloutId>,
) -> Result<axum::Json<RolloutView>, Rejection> {
    let view = app.conductor.view(&rollout).await?;
    let view = view.map(|view| with_flights(&app, view));
    view.map(axum::Json).ok_or_else(|| unknown(&rollout))
}

/// Which rollouts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RolloutsOf {
    /// Only of this project; of all, if left out.
    #[param(value_type = Option<String>)]
    project: Option<ProjectName>,
    /// `production` (if left out) or `preview/N`, with a project.
    #[param(value_type = Option<String>)]
    environment: Option<Environment>,
}

/// List rollouts, newest first
///
/// The newest 50, those that run and those that have ended.
#[utoipa::path(
    get, path = "/v1/rollouts", tag = "rollouts", params(RolloutsOf),
    responses((status = 200, body = Vec<RolloutView>))
)]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<RolloutsOf>,
) -> Result<axum::Json<Vec<RolloutView>>, Rejection> {
    let environment = query.environment.unwrap_or(Environment::Production);
    let site = query.project.map(|project| SiteId {
        project,
        environment,
    });
    Ok(axum::Json(app.conductor.list(site.as_ref()).await?))
}

/// Follow a rollout
///
/// One event `rollout` with the whole RolloutView at once and after every change; the stream ends after the finished one.
#[utoipa::path(
    get, path = "/v1/rollouts/{rollout}/events", tag = "rollouts", params(("rollout" = String, Path)),
    responses((status = 200, body = RolloutView, content_type = "text/event-stream"), (status = 404, body = Problem))
)]
pub(super) async fn follow(
    State(app): State<App>,
    Path(rollout): Path<RolloutId>,
) -> Result<Response, Rejection> {
    let views = app
        .conductor
        .watch(&rollout)
        .await?
        .ok_or_else(|| unknown(&rollout))?;
    let events = views.map(move |view| Ok::<_, Infallible>(event(&with_flights(&app, view))));
    let stream = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let unbuffered = (
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok((
        [
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            unbuffered,
        ],
        stream,
    )
        .into_response())
}

/// What is in flight is no part of a rollout, and what who watches one wants to know.
fn with_flights(app: &App, view: RolloutView) -> RolloutView {
    RolloutView {
        in_flight: app.roster.in_flight(&view.site),
        ..view
    }
}

fn event(view: &RolloutView) -> Event {
    Event::default()
        .event("rollout")
        .id(view.revision.to_string())
        .json_data(view)
        .expect("plain data with text keys always encodes")
}

fn unknown(rollout: &RolloutId) -> Rejection {
    Rejection::new(
        StatusCode::NOT_FOUND,
        "unknown-rollout",
        format!("there is no rollout {rollout}"),
    )
}
