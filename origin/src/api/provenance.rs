//! Where releases come from, for whoever wants to check it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use helix_routing::api::Problem;
use helix_routing::id::{Digest, ReleaseId, SiteId};
use helix_routing::provenance::bundle::{BUNDLE_TYPE, Bundle};

use super::extract::Path;
use super::problem::Rejection;
use crate::app::App;
use crate::bill::{self, BILL_TYPE, BillError};
use crate::provenance::{self, AttestError};

/// What a key in PEM is sent as (RFC 8555, 9.1, for want of one of its own).
const PEM_TYPE: &str = "application/x-pem-file";

/// Show where a release comes from
///
/// The newest Sigstore bundle of it, as the registry lists it among the referrers of the release's manifest.
#[utoipa::path(
    get, path = "/v1/releases/{release}/provenance", tag = "releases", params(("release" = String, Path)),
    responses(
        (status = 200, body = Bundle, content_type = "application/vnd.dev.sigstore.bundle.v0.3+json"),
        (status = 404, body = Problem, description = "`unknown-release`"),
        (status = 409, body = Problem, description = "`release-collected`"),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    Path(release): Path<ReleaseId>,
) -> Result<Response, Rejection> {
    let (site, artifact) = found(&app, &release).await?;
    let bundle = provenance::newest(&app.attestor, &site, &artifact).await?;
    let bundle = bundle.ok_or_else(|| {
        Rejection::not_found(format!(
            "nothing is known of where release {release} comes from"
        ))
    })?;
    Ok(([(CONTENT_TYPE, BUNDLE_TYPE)], bundle).into_response())
}

/// Show what a release was made of
///
/// The bill of materials that its build brought, in CycloneDX; the registry lists it among the referrers of the release's manifest.
#[utoipa::path(
    get, path = "/v1/releases/{release}/materials", tag = "releases", params(("release" = String, Path)),
    responses(
        (status = 200, body = serde_json::Value, content_type = "application/vnd.cyclonedx+json"),
        (status = 404, body = Problem, description = "`unknown-release`, or its build brought no bill"),
        (status = 409, body = Problem, description = "`release-collected`"),
    )
)]
pub(super) async fn materials(
    State(app): State<App>,
    Path(release): Path<ReleaseId>,
) -> Result<Response, Rejection> {
    let (site, artifact) = found(&app, &release).await?;
    let bill = bill::of(&app.store, app.artifacts.layout(), &site, &artifact).await;
    let bill = bill?.ok_or_else(|| {
        Rejection::not_found(format!("no build says what release {release} was made of"))
    })?;
    Ok(([(CONTENT_TYPE, BILL_TYPE)], bill).into_response())
}

/// The site and artifact of a release that is kept.
async fn found(app: &App, release: &ReleaseId) -> Result<(SiteId, Digest), Rejection> {
    let mut connection = app.store.read().await?;
    let found = crate::gate::find(&mut connection, release).await?;
    Ok((found.site, found.kept.release.artifact))
}

/// Show the key that provenance is signed with, in PEM
#[utoipa::path(
    get, path = "/v1/keys/provenance", tag = "releases",
    responses((status = 200, body = String, content_type = "application/x-pem-file"))
)]
pub(super) async fn key(State(app): State<App>) -> Result<Response, Rejection> {
    let pem = app.attestor.public().pem();
    let pem = pem.ok_or_else(|| {
        let title = "the key that provenance is signed with cannot be shown";
        Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title)
    })?;
    Ok(([(CONTENT_TYPE, PEM_TYPE)], pem).into_response())
}

impl From<BillError> for Rejection {
    fn from(error: BillError) -> Self {
        let title = error.to_string();
        match error {
            BillError::NotOne => Self::unprocessable("no-bill", title),
            BillError::Store(error) => error.into(),
            BillError::Layout(_) => Self::internal(&error),
        }
    }
}

impl From<AttestError> for Rejection {
    fn from(error: AttestError) -> Self {
        let title = error.to_string();
        match error {
            AttestError::TooLarge { .. } => Self::unprocessable("provenance-too-large", title),
            AttestError::Store(error) => error.into(),
            AttestError::Build(_) | AttestError::Layout(_) => Self::internal(&error),
        }
    }
}
