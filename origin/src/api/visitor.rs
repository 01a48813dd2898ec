//! The key that visitors' cookies are signed with, for edges.

use axum::extract::State;
use helix_routing::api::Problem;
use helix_routing::visitor::{VisitorKey, VisitorKeyRotation};

use super::problem::Rejection;
use crate::app::App;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::visitor_key::{self, RotationError};

/// The key that edges sign visitors' cookies with
#[utoipa::path(
    get, path = "/v1/visitor-key", tag = "edges", responses((status = 200, body = VisitorKey))
)]
pub(super) async fn key(State(app): State<App>) -> Result<axum::Json<VisitorKey>, Rejection> {
    Ok(axum::Json(visitor_key::current(&app.store).await?))
}

/// Let edges sign visitors' cookies with another key
///
/// Edges are told of it at once, and sign with it three hours later. What the one before has signed is accepted for 91 days after that.
#[utoipa::path(
    post, path = "/v1/visitor-key/rotation", tag = "edges",
    responses(
        (status = 200, body = VisitorKeyRotation),
        (status = 409, body = Problem, description = "`rotation-under-way`: edges are told of one already"),
    )
)]
pub(super) async fn rotate(
    State(app): State<App>,
    caller: Caller,
) -> Result<axum::Json<VisitorKeyRotation>, Rejection> {
    let mut tx = app.store.write().await?;
    let rotation = visitor_key::rotate(&mut tx).await?;
    audit::record(&mut tx, &caller, Act::new("visitor_key.rotate", "fleet")).await?;
    tx.commit().await?;
    Ok(axum::Json(rotation))
}

impl From<RotationError> for Rejection {
    fn from(error: RotationError) -> Self {
        match error {
            RotationError::Store(error) => error.into(),
            RotationError::UnderWay { .. } => {
                Self::conflict("rotation-under-way", error.to_string())
            }
        }
    }
}
