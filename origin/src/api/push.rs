//! What the registry has of a release.

use axum::extract::State;
use helix_routing::api::{NewReleaseCheck, Problem, ReleaseCheck};
use helix_routing::id::ReleaseId;

use super::extract::{Json, Path};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::remote::check::{self, Checked};
use crate::{audit, gate, project};

/// Look whether all of a release is there
///
/// In origin's own store and, where releases are pushed to one, in the registry. What origin has lost is fetched from the registry, what that
/// has lost is pushed again.
#[utoipa::path(
    post, path = "/v1/releases/{release}/verify", tag = "deployments", params(("release" = String, Path)),
    request_body = NewReleaseCheck,
    responses(
        (status = 200, body = ReleaseCheck),
        (status = 404, body = Problem, description = "`unknown-release`"),
        (status = 409, body = Problem, description = "`release-collected`, `project-deleted`"),
    )
)]
pub(super) async fn verify(
    State(app): State<App>,
    caller: Caller,
    Path(release): Path<ReleaseId>,
    Json(new): Json<NewReleaseCheck>,
) -> Result<axum::Json<ReleaseCheck>, Rejection> {
    let gated = {
        let mut connection = app.store.read().await?;
        let gated = gate::find(&mut connection, &release).await?;
        project::check(&mut connection, &gated.site.project).await?;
        gated
    };
    let of = Checked {
        artifact: gated.kept.release.artifact,
        site: gated.site,
        release,
    };
    let subject = format!("{} {}", of.site, of.release);
    let found = check::check(&app, of, new.read).await?;
    let mut tx = app.store.write().await?;
    let detail = told(&found);
    audit::note(&mut tx, &caller, "release.verify", &subject, Some(&detail)).await?;
    tx.commit().await?;
    Ok(axum::Json(found))
}

/// What of it the audit log keeps.
fn told(found: &ReleaseCheck) -> String {
    let (mended, lost) = (found.mended.len(), found.lost.len());
    let own = format!("{} blobs, {mended} mended, {lost} lost", found.blobs);
    match &found.registry {
        Some(there) => format!(
            "{own}; {} has lost {} and {} tags",
            there.registry,
            there.lost.len(),
            there.tags_lost.len()
        ),
        None => own,
    }
}
