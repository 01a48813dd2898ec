//! The audit log.

use axum::extract::State;
use helix_routing::id::ProjectName;
use helix_routing::operators::{AuditCheck, AuditHead, AuditPage};
use helix_routing::time::Timestamp;
use serde::Deserialize;

use super::extract::Query;
use super::problem::Rejection;
use crate::app::App;
use crate::audit::{self, Wanted};

/// Which entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Entries {
    /// Only of this project.
    #[param(value_type = Option<String>)]
    project: Option<ProjectName>,
    /// Only from this moment on, in milliseconds since 1970.
    #[param(value_type = Option<u64>)]
    since: Option<Timestamp>,
    /// Only of whom: the name or the id of a token, or `origin`.
    by: Option<String>,
    /// Only this action, such as `hold.set`, or all that begin with it and a dot, such as `hold`.
    action: Option<String>,
    /// Only older ones: `next` of the page before.
    before: Option<u64>,
    /// How many at most, up to 500.
    limit: Option<u32>,
}

/// List the audit log, newest first
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(Entries), responses((status = 200, body = AuditPage)))]
pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<Entries>,
) -> Result<axum::Json<AuditPage>, Rejection> {
    let wanted = Wanted {
        project: query.project,
        since: query.since,
        by: query.by,
        action: query.action,
        before: query.before,
        limit: query.limit,
    };
    let mut connection = app.store.read().await?;
    Ok(axum::Json(audit::list(&mut connection, &wanted).await?))
}

/// A head that was written down.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Known {
    /// Its number.
    number: Option<u64>,
    /// Its hash.
    hash: Option<String>,
}

/// Verify the whole audit log
///
/// Walks the chain of hashes, and looks for the head that is given.
#[utoipa::path(
    get, path = "/v1/audit/verification", tag = "audit", params(Known), responses((status = 200, body = AuditCheck))
)]
pub(super) async fn verify(
    State(app): State<App>,
    Query(known): Query<Known>,
) -> Result<axum::Json<AuditCheck>, Rejection> {
    let known = match (known.number, known.hash) {
        (Some(number), Some(hash)) => Some(AuditHead { number, hash }),
        (None, None) => None,
        _ => {
            return Err(Rejection::bad_request(
                "a head is both: a number and a hash",
            ));
        }
    };
    let mut connection = app.store.read().await?;
    let check = audit::verify(&mut connection, known.as_ref()).await?;
    Ok(axum::Json(check))
}
