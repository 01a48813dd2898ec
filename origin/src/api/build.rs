//! Builds: what people ask of them, and what workers say.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use helix_routing::api::{
    BuildClaim, BuildEnd, BuildJob, BuildLog, BuildView, BuildWish, NewRedeploy, Problem,
};
use helix_routing::id::{BuildId, ProjectName, SiteId};
use serde::Deserialize;
use tokio::sync::watch;

use super::extract::{Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::build::log::{self, Position};
use crate::build::state::Refused;
use crate::build::work::{self, EndError};
use crate::build::{self, BuildError};
use crate::source::{intake, link};

/// A comment is sent after this long without a line, so that proxies and clients see the link is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A follower looks this often, whatever it hears; other origins' builds do not wake it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Which builds.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BuildsOf {
    /// Only of this project; of all, if left out.
    #[param(value_type = Option<String>)]
    project: Option<ProjectName>,
}

/// List builds, newest first
///
/// The newest 50.
#[utoipa::path(get, path = "/v1/builds", tag = "builds", params(BuildsOf), responses((status = 200, body = Vec<BuildView>)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<BuildsOf>,
) -> Result<axum::Json<Vec<BuildView>>, Rejection> {
    let mut connection = app.store.read().await?;
    let builds = build::list(&mut connection, query.project.as_ref()).await?;
    let views = builds.iter().map(|build| build.view(&app.addresses));
    Ok(axum::Json(views.collect()))
}

/// Show a build
#[utoipa::path(
    get, path = "/v1/builds/{build}", tag = "builds", params(("build" = String, Path)),
    responses((status = 200, body = BuildView), (status = 404, body = Problem, description = "`unknown-build`"))
)]
pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<BuildId>,
) -> Result<axum::Json<BuildView>, Rejection> {
    Ok(axum::Json(view(&app, &id).await?))
}

/// Follow a build's log
///
/// One event `line` with a LogLine for each line, from the beginning or from after `Last-Event-ID`; the event `end` with the BuildView is the
/// last.
#[utoipa::path(
    get, path = "/v1/builds/{build}/log", tag = "builds",
    params(("build" = String, Path), ("last-event-id" = Option<String>, Header, description = "Goes on after this line")),
    responses((status = 200, body = helix_routing::api::LogLine, content_type = "text/event-stream"), (status = 404, body = Problem))
)]
pub(super) async fn follow(
    State(app): State<App>,
    Path(id): Path<BuildId>,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    view(&app, &id).await?;
    let last = headers.get(LAST_EVENT_ID);
    let last = last.and_then(|last| Position::read(last.to_str().ok()?));
    let reader = LogReader {
        changes: app.source.changes(),
        app,
        id,
        position: last.unwrap_or_default(),
        ready: Vec::new().into_iter(),
        is_over: false,
    };
    let stream = Sse::new(reader.events()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let unbuffered = (
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    let fresh = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([fresh, unbuffered], stream).into_response())
}

/// Somebody who reads a log as it grows.
struct LogReader {
    app: App,
    id: BuildId,
    changes: watch::Receiver<u64>,
    position: Position,
    ready: std::vec::IntoIter<Event>,
    is_over: bool,
}

impl LogReader {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut reader| async move {
            loop {
                if let Some(event) = reader.ready.next() {
                    return Some((Ok(event), reader));
                }
                if reader.is_over {
                    return None;
                }
                // A database that is away ends the stream; whoever reads goes on with `Last-Event-ID`.
                reader.look().await.ok()?;
            }
        })
    }

    /// Takes what is new; waits for a change if nothing is.
    async fn look(&mut self) -> Result<(), BuildError> {
        self.changes.mark_unchanged();
        let mut connection = self.app.store.read().await?;
        // Before the lines: whatever has ended then has said all it will.
        let build = build::find(&mut connection, &self.id).await?;
        let lines = log::after(&mut connection, &self.id, self.position).await?;
        drop(connection);
        let mut events = Vec::with_capacity(lines.len());
        for (position, line) in lines {
            self.position = position;
            let event = Event::default().event("line").id(position.to_string());
            events.push(event.json_data(&line).expect("plain data always encodes"));
        }
        if events.is_empty() && build.state.shown().has_ended() {
            let view = build.view(&self.app.addresses);
            let event = Event::default().event("end");
            events.push(event.json_data(&view).expect("plain data always encodes"));
            self.is_over = true;
        }
        if events.is_empty() {
            // The sender lives as long as the app, which this holds.
            let _ = tokio::time::timeout(LOOK_EVERY, self.changes.changed()).await;
        }
        self.ready = events.into_iter();
        Ok(())
    }
}

/// Approve the commit of a fork
///
/// This commit is built, and no other: a newer one needs an approval of its own.
#[utoipa::path(
    post, path = "/v1/builds/{build}/approve", tag = "builds", params(("build" = String, Path)),
    responses((status = 200, body = BuildView), (status = 404, body = Problem), (status = 409, body = Problem, description = "`not-waiting`"))
)]
pub(super) async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<BuildId>,
) -> Result<axum::Json<BuildView>, Rejection> {
    let mut tx = app.store.write().await?;
    let build = build::approve(&mut tx, &id).await?;
    let detail = format!("build {id} of commit {}", build.wanted.commit);
    let act = Act::new("build.approve", build.wanted.site.to_string()).detail(Some(detail));
    audit::record(&mut tx, &caller, act).await?;
    tx.commit().await?;
    app.source.changed();
    Ok(axum::Json(build.view(&app.addresses)))
}

/// Cancel a build
///
/// One that has ended stays as it is.
#[utoipa::path(
    post, path = "/v1/builds/{build}/cancel", tag = "builds", params(("build" = String, Path)),
    responses((status = 200, body = BuildView), (status = 404, body = Problem))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<BuildId>,
) -> Result<axum::Json<BuildView>, Rejection> {
    let mut tx = app.store.write().await?;
    let because = format!("cancelled by {}", caller.name);
    let build = build::cancel(&mut tx, &id, &because).await?;
    let act = Act::new("build.cancel", build.wanted.site.to_string());
    let act = act.detail(Some(format!("build {id}")));
    audit::record(&mut tx, &caller, act).await?;
    tx.commit().await?;
    app.source.changed();
    Ok(axum::Json(build.view(&app.addresses)))
}

/// Build a site's newest commit once more
#[utoipa::path(
    post, path = "/v1/projects/{project}/redeploys", tag = "builds", params(("project" = String, Path)), request_body = NewRedeploy,
    responses((status = 200, body = BuildView), (status = 404, body = Problem, description = "`not-linked`, `no-commit`"))
)]
pub(super) async fn redeploy(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewRedeploy>,
) -> Result<axum::Json<BuildView>, Rejection> {
    let mut tx = app.store.write().await?;
    crate::project::check(&mut tx, &project).await?;
    let link = link::of(&mut tx, &project).await?;
    let site = SiteId {
        project,
        environment: new.environment,
    };
    let build = intake::redeploy(&mut tx, &caller, &link, &site).await?;
    let act = Act::new("redeploy", site.to_string());
    let detail = format!("build {} of commit {}", build.id, build.wanted.commit);
    audit::record(&mut tx, &caller, act.detail(Some(detail))).await?;
    tx.commit().await?;
    app.source.changed();
    Ok(axum::Json(build.view(&app.addresses)))
}

/// Claim a build
///
/// Answers with what there is to do, its variables and the credential for its source. Claimed again by the same worker: the same answer.
#[utoipa::path(
    post, path = "/v1/builds/{build}/claim", tag = "workers", params(("build" = String, Path)), request_body = BuildClaim,
    responses((status = 200, body = BuildJob), (status = 404, body = Problem), (status = 409, body = Problem, description = "`build-taken`, `build-ended`, `build-waiting`"))
)]
pub(super) async fn claim(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<BuildId>,
    Json(asked): Json<BuildClaim>,
) -> Result<axum::Json<BuildJob>, Rejection> {
    Ok(axum::Json(work::claim(&app, &caller, &id, &asked).await?))
}

/// Say that a build goes on
#[utoipa::path(
    post, path = "/v1/builds/{build}/heartbeat", tag = "workers", params(("build" = String, Path)), request_body = BuildClaim,
    responses((status = 200, body = BuildWish), (status = 404, body = Problem))
)]
pub(super) async fn heartbeat(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<BuildId>,
    Json(asked): Json<BuildClaim>,
) -> Result<axum::Json<BuildWish>, Rejection> {
    let wish = work::heartbeat(&app, &caller, &id, &asked).await?;
    Ok(axum::Json(wish))
}

/// Send lines of a build's log
#[utoipa::path(
    post, path = "/v1/builds/{build}/log", tag = "workers", params(("build" = String, Path)), request_body = BuildLog,
    responses((status = 200, body = BuildWish), (status = 404, body = Problem), (status = 422, body = Problem, description = "`too-many-lines`"))
)]
pub(super) async fn log(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<BuildId>,
    Json(lines): Json<BuildLog>,
) -> Result<axum::Json<BuildWish>, Rejection> {
    let wish = log::append(&app, &caller, &id, lines).await?;
    Ok(axum::Json(wish))
}

/// End a build
///
/// What succeeded is deployed in the same change. Said again, or by a worker that lost the build, it changes nothing.
#[utoipa::path(
    post, path = "/v1/builds/{build}/end", tag = "workers", params(("build" = String, Path)), request_body = BuildEnd,
    responses((status = 200, body = BuildWish), (status = 404, body = Problem), (status = 409, body = Problem, description = "`missing-contents`"))
)]
pub(super) async fn end(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<BuildId>,
    Json(ended): Json<BuildEnd>,
) -> Result<axum::Json<BuildWish>, Rejection> {
    // Its own task: a worker that goes away must not end what it started half way.
    let done = tokio::spawn(async move { work::end(&app, &caller, &id, ended).await });
    match done.await {
        Ok(wish) => Ok(axum::Json(wish?)),
        Err(failed) => Err(Rejection::internal(&failed)),
    }
}

async fn view(app: &App, id: &BuildId) -> Result<BuildView, Rejection> {
    let mut connection = app.store.read().await?;
    let build = build::find(&mut connection, id).await?;
    Ok(build.view(&app.addresses))
}

impl From<BuildError> for Rejection {
    fn from(error: BuildError) -> Self {
        let title = error.to_string();
        match error {
            BuildError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "unknown-build", title),
            BuildError::NoCommit(_) => Self::new(StatusCode::NOT_FOUND, "no-commit", title),
            BuildError::Refused(Refused::Taken(_)) => Self::conflict("build-taken", title),
            BuildError::Refused(Refused::Ended) => Self::conflict("build-ended", title),
            BuildError::Refused(Refused::Waiting) => Self::conflict("build-waiting", title),
            BuildError::NotWaiting { .. } => Self::conflict("not-waiting", title),
            BuildError::Worker => Self::unprocessable("illegal-worker", title),
            BuildError::TooMany(_) => Self::conflict("too-many-builds", title),
            BuildError::Lines(_) => Self::unprocessable("too-many-lines", title),
            BuildError::Link(error) => error.into(),
            BuildError::Env(error) => error.into(),
            BuildError::Store(error) => error.into(),
        }
    }
}

impl From<EndError> for Rejection {
    fn from(error: EndError) -> Self {
        match error {
            EndError::Build(error) => error.into(),
            EndError::Start(error) => error.into(),
        }
    }
}
