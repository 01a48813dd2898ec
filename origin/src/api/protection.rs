//! Who may see a project's sites, and links that let somebody in.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::{EnvKind, NewProtection, NewShare, Problem, ProtectionView, ShareView};
use helix_routing::id::ProjectName;
use serde::Deserialize;

use super::extract::{Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::project;
use crate::protection::{self, ProtectionError};

/// Which sites.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KindOf {
    /// `preview` (if left out) or `production`.
    kind: Option<EnvKind>,
}

/// Show who may see a project's sites
#[utoipa::path(
    get, path = "/v1/projects/{project}/protection", tag = "protection", params(("project" = String, Path), KindOf),
    responses((status = 200, body = ProtectionView), (status = 404, body = Problem))
)]
pub(super) async fn show(
    State(app): State<App>,
    Path(project): Path<ProjectName>,
    Query(query): Query<KindOf>,
) -> Result<axum::Json<ProtectionView>, Rejection> {
    let mut connection = app.store.read().await?;
    project::check(&mut connection, &project).await?;
    let kind = query.kind.unwrap_or(EnvKind::Preview);
    Ok(axum::Json(
        protection::view(&mut connection, &project, kind).await?,
    ))
}

/// Change who may see a project's sites
///
/// Edges are told at once, but for sites whose rollout runs: those with its next step. A new password ends every session and every link.
#[utoipa::path(
    put, path = "/v1/projects/{project}/protection", tag = "protection", params(("project" = String, Path)),
    request_body = NewProtection,
    responses(
        (status = 200, body = ProtectionView), (status = 404, body = Problem),
        (status = 422, body = Problem, description = "`illegal-protection`"),
    )
)]
pub(super) async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewProtection>,
) -> Result<axum::Json<ProtectionView>, Rejection> {
    let kept = protection::kept(&new).await?;
    let (kind, said) = (new.kind, said(&new));
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &project).await?;
    protection::change(&mut tx, &caller, &project, (new, kept)).await?;
    let act = Act::new("protection.change", format!("{project} {}", kind.name()));
    let act = act.project(&project).detail(Some(said));
    audit::record(&mut tx, &caller, act).await?;
    let view = protection::view(&mut tx, &project, kind).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Make a link that lets somebody in
///
/// Whoever has it is let in until it is over, or until every link is ended.
#[utoipa::path(
    post, path = "/v1/projects/{project}/shares", tag = "protection", params(("project" = String, Path)),
    request_body = NewShare,
    responses(
        (status = 200, body = ShareView), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "`not-protected`"),
        (status = 422, body = Problem, description = "`illegal-protection`"),
    )
)]
pub(super) async fn share(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<ProjectName>,
    Json(new): Json<NewShare>,
) -> Result<axum::Json<ShareView>, Rejection> {
    {
        let mut connection = app.store.read().await?;
        project::check(&mut connection, &project).await?;
    }
    let view = protection::share(&app, project.clone(), &new).await?;
    let mut tx = app.store.write().await?;
    let act = Act::new("protection.share", view.site.to_string()).project(&project);
    let detail = format!("until {}", view.until.rfc3339());
    audit::record(&mut tx, &caller, act.detail(Some(detail))).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// What was asked for, in words: nothing that lets in.
fn said(new: &NewProtection) -> String {
    let mut said = Vec::new();
    match new.on {
        Some(true) => said.push("on".to_owned()),
        Some(false) => said.push("off".to_owned()),
        None => {}
    }
    if new.password.is_some() {
        said.push("a new password".to_owned());
    }
    if new.no_password {
        said.push("no password".to_owned());
    }
    if let Some(rules) = &new.exempt {
        let rules: Vec<&str> = rules.iter().map(|rule| rule.as_str()).collect();
        said.push(format!("exempt: {}", rules.join(" ")));
    }
    if new.revoke {
        said.push("links and sessions ended".to_owned());
    }
    said.join(", ")
}

impl From<ProtectionError> for Rejection {
    fn from(error: ProtectionError) -> Self {
        let title = error.to_string();
        match error {
            ProtectionError::Password
            | ProtectionError::Both
            | ProtectionError::TooMany
            | ProtectionError::Life => Self::unprocessable("illegal-protection", title),
            ProtectionError::Open(_) => Self::new(StatusCode::CONFLICT, "not-protected", title),
            ProtectionError::Record(error) => error.into(),
            ProtectionError::Store(error) => error.into(),
        }
    }
}
