//! Repositories of projects, their variables, and what providers say.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use helix_routing::api::{
    EnvKind, EnvView, HookView, LinkView, LinkedView, NewLink, NewVariable, Problem, Provider,
};
use helix_routing::id::ProjectName;
use helix_service::clock;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;

use super::extract::{Json, Path, Query};
use super::problem::{RETRY_AFTER, Rejection};
use crate::app::App;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::project;
use crate::protection;
use crate::source::env::{self, EnvError};
use crate::source::intake::{self, IntakeError};
use crate::source::link::{self, LinkError};
use crate::source::payload::{self, PayloadError, Said};
use crate::source::signature::{self, SignatureError};

/// Largest delivery: GitHub sends none above it.
const MAX_DELIVERY_BYTES: usize = 25 * 1024 * 1024;
/// What counts as small. Nearly every delivery does.
const SMALL_BYTES: u64 = 256 * 1024;
/// How long a delivery waits for its place, and how long its body may take to come.
const PLACE_WAIT: Duration = Duration::from_secs(5);
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Show a project's repository
#[utoipa::path(
    get, path = "/v1/projects/{project}/link", tag = "source", params(("project" = String, Path)),
    responses((status = 200, body = LinkView), (status = 404, body = Problem, description = "`not-linked`"))
)]
pub(super) async fn show(
    State(app): State<App>,
    Path(project): Path<ProjectName>,
) -> Result<axum::Json<LinkView>, Rejection> {
    let mut connection = app.store.read().await?;
    let link = link::of(&mut connection, &project).await?;
    Ok(axum::Json(link.view(&app.source.public_url)))
}

/// Link a project to a repository
///
/// Makes the project if there is none. The webhook secret is made with the first link, and shown this once.
#[utoipa::path(
    put, path = "/v1/projects/{project}/link", tag = "source", params(("project" = String, Path)), request_body = NewLink,
    responses((status = 200, body = LinkedView), (status = 422, body = Problem, description = "`illegal-link`"))
)]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewLink>,
) -> Result<axum::Json<LinkedView>, Rejection> {
    project::ensure(&app.store, &project).await?;
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &project).await?;
    let view = link::put(&mut tx, &app.source, &caller, &project, new).await?;
    if view.link.private && protection::by_default(&mut tx, &caller, &project).await? {
        let act = Act::new("protection.change", format!("{project} preview"));
        let why = "on: the repository is private".to_owned();
        audit::record(&mut tx, &caller, act.project(&project).detail(Some(why))).await?;
    }
    let act = Act::new("link.put", project.as_str()).project(&project);
    let detail = format!("{} on {}", view.link.url, view.link.branch);
    audit::record(&mut tx, &caller, act.detail(Some(detail))).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// End a project's link
///
/// What is deployed stays.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/link", tag = "source", params(("project" = String, Path)),
    responses((status = 204), (status = 404, body = Problem, description = "`not-linked`"))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
) -> Result<StatusCode, Rejection> {
    let mut tx = app.store.write().await?;
    link::remove(&mut tx, &project).await?;
    let because = "the project is not linked any more";
    crate::build::cancel_project(&mut tx, &project, because).await?;
    let act = Act::new("link.remove", project.as_str()).project(&project);
    audit::record(&mut tx, &caller, act).await?;
    tx.commit().await?;
    app.source.changed();
    Ok(StatusCode::NO_CONTENT)
}

/// Make a new webhook secret
///
/// The one before counts for a day more.
#[utoipa::path(
    post, path = "/v1/projects/{project}/link/secret", tag = "source", params(("project" = String, Path)),
    responses((status = 200, body = LinkedView), (status = 404, body = Problem, description = "`not-linked`"))
)]
pub(super) async fn rotate(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
) -> Result<axum::Json<LinkedView>, Rejection> {
    let mut tx = app.store.write().await?;
    let view = link::rotate(&mut tx, &app.source, &project).await?;
    let act = Act::new("link.rotate", project.as_str()).project(&project);
    audit::record(&mut tx, &caller, act).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Which set of variables.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KindOf {
    /// `production` (if left out) or `preview`.
    kind: Option<EnvKind>,
}

/// List a project's variables
///
/// Values of secrets are not shown.
#[utoipa::path(
    get, path = "/v1/projects/{project}/env", tag = "source", params(("project" = String, Path), KindOf),
    responses((status = 200, body = EnvView), (status = 404, body = Problem))
)]
pub(super) async fn variables(
    State(app): State<App>,
    Path(project): Path<ProjectName>,
    Query(query): Query<KindOf>,
) -> Result<axum::Json<EnvView>, Rejection> {
    let mut connection = app.store.read().await?;
    project::check(&mut connection, &project).await?;
    let kind = query.kind.unwrap_or(EnvKind::Production);
    let view = env::view(&mut connection, &app.source.key, &project, kind).await?;
    Ok(axum::Json(view))
}

/// Set a variable
///
/// Makes a new revision. Releases keep the one that they were built with.
#[utoipa::path(
    put, path = "/v1/projects/{project}/env/{name}", tag = "source", params(("project" = String, Path), ("name" = String, Path)),
    request_body = NewVariable,
    responses((status = 200, body = EnvView), (status = 404, body = Problem), (status = 422, body = Problem, description = "`illegal-variable`"))
)]
pub(super) async fn set_variable(
    State(app): State<App>,
    caller: Caller,
    Path((project, name)): Path<(ProjectName, String)>,
    Json(new): Json<NewVariable>,
) -> Result<axum::Json<EnvView>, Rejection> {
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &project).await?;
    let key = &app.source.key;
    env::set(&mut tx, key, &caller, &project, (&name, &new)).await?;
    let view = env::view(&mut tx, key, &project, new.kind).await?;
    let act = Act::new("env.set", format!("{project} {name}")).project(&project);
    let detail = format!("{}, revision {}", new.kind.name(), view.revision);
    audit::record(&mut tx, &caller, act.detail(Some(detail))).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Remove a variable
///
/// Makes a new revision.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/env/{name}", tag = "source",
    params(("project" = String, Path), ("name" = String, Path), KindOf),
    responses((status = 200, body = EnvView), (status = 404, body = Problem, description = "`unknown-variable`"))
)]
pub(super) async fn unset_variable(
    State(app): State<App>,
    caller: Caller,
    Path((project, name)): Path<(ProjectName, String)>,
    Query(query): Query<KindOf>,
) -> Result<axum::Json<EnvView>, Rejection> {
    let kind = query.kind.unwrap_or(EnvKind::Production);
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &project).await?;
    env::unset(&mut tx, &caller, &project, kind, &name).await?;
    let view = env::view(&mut tx, &app.source.key, &project, kind).await?;
    let act = Act::new("env.unset", format!("{project} {name}")).project(&project);
    let detail = format!("{}, revision {}", kind.name(), view.revision);
    audit::record(&mut tx, &caller, act.detail(Some(detail))).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Take a provider's webhook
///
/// There is no token: the bytes are signed with the secret of the project's link. Whatever has no effect is answered with 202 and the reason.
#[utoipa::path(
    post, path = "/v1/webhooks/in/{provider}/{project}", tag = "source", security(()),
    params(("provider" = String, Path), ("project" = String, Path)),
    responses(
        (status = 200, body = HookView), (status = 202, body = HookView, description = "nothing follows from it"),
        (status = 400, body = Problem, description = "`bad-delivery`"), (status = 401, body = Problem, description = "`bad-signature`"),
        (status = 413, body = Problem), (status = 422, body = Problem, description = "`another-repository`"),
        (status = 503, body = Problem, description = "`busy`"),
    )
)]
pub(super) async fn receive(
    State(app): State<App>,
    Path((provider, project)): Path<(Provider, ProjectName)>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, axum::Json<HookView>), Rejection> {
    let link = {
        let mut connection = app.store.read().await?;
        project::check(&mut connection, &project).await?;
        link::of(&mut connection, &project).await?
    };
    if link.provider != provider {
        return Err(LinkError::NotLinked(project).into());
    }
    let secrets = link.webhook_secrets(&app.source.key);
    let secrets = secrets.map_err(LinkError::from)?;
    let places = &app.source.intake;
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let places = if length.is_some_and(|length| length <= SMALL_BYTES) {
        &places.small
    } else {
        &places.large
    };
    let place = tokio::time::timeout(PLACE_WAIT, places.acquire()).await;
    let _place = place.map_err(|_| busy())?;
    let body = whole(body).await?;
    signature::verify(provider, &headers, &body, &secrets, clock::now())?;
    let delivery = payload::read(provider, &headers, &body)?;
    if let Some(other) = delivery
        .repository
        .filter(|repository| !repository.eq_ignore_ascii_case(&link.repository))
    {
        let title = format!(
            "the delivery is about {other}, and {project} is linked to {}",
            link.repository
        );
        return Err(Rejection::unprocessable("another-repository", title));
    }
    let view = match delivery.said {
        Said::Ignored(why) => HookView {
            accepted: false,
            reason: why.into_owned(),
            build: None,
        },
        Said::Hints(mut hints) => {
            let names = signature::names(provider, &headers, &body);
            drop(body);
            intake::complete(&app, &link, &mut hints).await?;
            intake::follow(&app, &link, &names, &hints).await?
        }
    };
    tracing::info!(%project, provider = provider.name(), accepted = view.accepted, reason = view.reason, "webhook taken");
    let status = if view.accepted {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, axum::Json(view)))
}

/// The body, if it comes in time and is not too large.
async fn whole(body: Body) -> Result<bytes::Bytes, Rejection> {
    let read = Limited::new(body, MAX_DELIVERY_BYTES).collect();
    match tokio::time::timeout(BODY_WAIT, read).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let title = format!("a delivery has at most {MAX_DELIVERY_BYTES} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Err(Rejection::new(status, "body-too-large", title))
        }
        Ok(Err(_)) => Err(Rejection::bad_request("the body ended before its end")),
        Err(_) => {
            let title = format!("the body did not come within {} s", BODY_WAIT.as_secs());
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(Rejection::new(status, "body-too-slow", title))
        }
    }
}

fn busy() -> Rejection {
    let title = "origin takes as many webhooks as it can; send it again";
    Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title)
        .header(header::RETRY_AFTER, RETRY_AFTER)
}

impl From<LinkError> for Rejection {
    fn from(error: LinkError) -> Self {
        let title = error.to_string();
        match error {
            LinkError::NotLinked(_) => Self::new(StatusCode::NOT_FOUND, "not-linked", title),
            LinkError::Repository(_)
            | LinkError::Settings(_)
            | LinkError::Credential
            | LinkError::PreviewDays => Self::unprocessable("illegal-link", title),
            LinkError::Seal(error) => Self::internal(&error),
            LinkError::Store(error) => error.into(),
        }
    }
}

impl From<EnvError> for Rejection {
    fn from(error: EnvError) -> Self {
        let title = error.to_string();
        match error {
            EnvError::Name | EnvError::Value | EnvError::TooLarge => {
                Self::unprocessable("illegal-variable", title)
            }
            EnvError::Unknown { .. } => Self::new(StatusCode::NOT_FOUND, "unknown-variable", title),
            EnvError::Seal(error) => Self::internal(&error),
            EnvError::Store(error) => error.into(),
        }
    }
}

impl From<SignatureError> for Rejection {
    fn from(error: SignatureError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "bad-signature", error.to_string())
    }
}

impl From<PayloadError> for Rejection {
    fn from(error: PayloadError) -> Self {
        let title = helix_service::error::chain(&error);
        Self::new(StatusCode::BAD_REQUEST, "bad-delivery", title)
    }
}

impl From<IntakeError> for Rejection {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Build(error) => error.into(),
            IntakeError::Seal(error) => Self::internal(&error),
            IntakeError::Forge(error) => {
                let title = error.to_string();
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "provider-away", title)
                    .header(header::RETRY_AFTER, RETRY_AFTER)
            }
            IntakeError::Rollout(error) => error.into(),
            IntakeError::Record(error) => error.into(),
            IntakeError::Store(error) => error.into(),
        }
    }
}
