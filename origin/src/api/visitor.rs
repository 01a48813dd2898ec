//! The key that visitors' cookies are signed with, for edges.

use axum::extract::State;
use helix_routing::visitor::VisitorKey;

use super::problem::Rejection;
use crate::app::App;
use crate::visitor_key;

/// The key that edges sign visitors' cookies with
#[utoipa::path(
    get, path = "/v1/visitor-key", tag = "edges", responses((status = 200, body = VisitorKey))
)]
pub(super) async fn key(State(app): State<App>) -> Result<axum::Json<VisitorKey>, Rejection> {
    Ok(axum::Json(visitor_key::current(&app.store).await?))
}
