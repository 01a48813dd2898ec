//! Projects and their domains.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::{DomainView, NewDomain, Problem, ProjectView};
use helix_routing::host::HostPattern;
use helix_routing::id::ProjectName;

use super::extract::{Json, Path};
use super::problem::Rejection;
use crate::app::App;
use crate::audit::Act;
use crate::auth::Caller;
use crate::domain::DomainError;
use crate::feed::records::RecordError;
use crate::project::ProjectError;
use crate::store::StoreError;
use crate::{audit, domain, project};

/// List the projects
#[utoipa::path(get, path = "/v1/projects", tag = "projects", responses((status = 200, body = Vec<ProjectView>)))]
pub(super) async fn list(
    State(app): State<App>,
) -> Result<axum::Json<Vec<ProjectView>>, Rejection> {
    Ok(axum::Json(project::list(&app.store).await?))
}

/// Delete a project
///
/// Its hosts answer 404 at once. What was uploaded is kept for seven days, in which it can be restored.
#[utoipa::path(
    delete, path = "/v1/projects/{project}", tag = "projects", params(("project" = String, Path)),
    responses(
        (status = 200, body = ProjectView),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "`project-deleted`, `rollout-running`"),
    )
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<ProjectName>,
) -> Result<axum::Json<ProjectView>, Rejection> {
    let mut tx = app.store.write().await?;
    let view = project::delete(&mut tx, &name, &app.reach()).await?;
    let act = Act::new("project.delete", name.as_str()).project(&name);
    audit::record(&mut tx, &caller, act).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Restore a deleted project
#[utoipa::path(
    post, path = "/v1/projects/{project}/restore", tag = "projects", params(("project" = String, Path)),
    responses(
        (status = 200, body = ProjectView),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "`project-not-deleted`"),
    )
)]
pub(super) async fn restore(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<ProjectName>,
) -> Result<axum::Json<ProjectView>, Rejection> {
    let mut tx = app.store.write().await?;
    let view = project::restore(&mut tx, &name, &app.reach()).await?;
    let act = Act::new("project.restore", name.as_str()).project(&name);
    audit::record(&mut tx, &caller, act).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// List a project's domains
#[utoipa::path(
    get, path = "/v1/projects/{project}/domains", tag = "domains", params(("project" = String, Path)),
    responses((status = 200, body = Vec<DomainView>), (status = 404, body = Problem))
)]
pub(super) async fn domains(
    State(app): State<App>,
    Path(name): Path<ProjectName>,
) -> Result<axum::Json<Vec<DomainView>>, Rejection> {
    let mut connection = app
        .store
        .reader()
        .acquire()
        .await
        .map_err(StoreError::from)?;
    project::check(&mut connection, &name).await?;
    Ok(axum::Json(domain::list(&mut connection, &name).await?))
}

/// Add a domain
#[utoipa::path(
    post, path = "/v1/projects/{project}/domains", tag = "domains", params(("project" = String, Path)),
    request_body = NewDomain,
    responses(
        (status = 200, body = DomainView),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "`host-taken`, `too-many-domains`"),
        (status = 422, body = Problem, description = "`under-base-domain`"),
    )
)]
pub(super) async fn add_domain(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<ProjectName>,
    Json(new): Json<NewDomain>,
) -> Result<axum::Json<DomainView>, Rejection> {
    let mut tx = app.store.write().await?;
    project::check(&mut tx, &name).await?;
    let view = domain::add(&mut tx, &name, new, app.addresses.base()).await?;
    let act = Act::new("domain.add", view.host.to_string()).site(&view.site);
    let act = act.detail(Some(view.site.to_string()));
    audit::record(&mut tx, &caller, act).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Remove a domain
#[utoipa::path(
    delete, path = "/v1/projects/{project}/domains/{host}", tag = "domains",
    params(("project" = String, Path), ("host" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn remove_domain(
    State(app): State<App>,
    caller: Caller,
    Path((name, host)): Path<(ProjectName, HostPattern)>,
) -> Result<StatusCode, Rejection> {
    let mut tx = app.store.write().await?;
    let subject = host.to_string();
    domain::remove(&mut tx, &name, host).await?;
    let act = Act::new("domain.remove", subject).project(&name);
    audit::record(&mut tx, &caller, act).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<ProjectError> for Rejection {
    fn from(error: ProjectError) -> Self {
        let title = error.to_string();
        match error {
            ProjectError::Unknown { .. } => {
                Self::new(StatusCode::NOT_FOUND, "unknown-project", title)
            }
            ProjectError::Deleted { .. } => Self::conflict("project-deleted", title),
            ProjectError::NotDeleted { .. } => Self::conflict("project-not-deleted", title),
            ProjectError::Running { .. } => Self::conflict("rollout-running", title),
            ProjectError::Alias(error) => error.into(),
            ProjectError::Record(error) => error.into(),
            ProjectError::Store(error) => error.into(),
        }
    }
}

impl From<DomainError> for Rejection {
    fn from(error: DomainError) -> Self {
        let title = error.to_string();
        match error {
            DomainError::UnderBase { .. } | DomainError::CoversBase { .. } => {
                Self::unprocessable("under-base-domain", title)
            }
            DomainError::Taken { .. } => Self::conflict("host-taken", title),
            DomainError::TooMany { .. } => Self::conflict("too-many-domains", title),
            DomainError::Unknown { .. } => Self::not_found(title),
            DomainError::Record(error) => error.into(),
            DomainError::Store(error) => error.into(),
        }
    }
}

impl From<RecordError> for Rejection {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Store(error) => error.into(),
            RecordError::Conflict { .. } => {
                Self::conflict("changed-meanwhile", "the site changed meanwhile; try again")
            }
            RecordError::Malformed { .. } => Self::internal(&error),
        }
    }
}
