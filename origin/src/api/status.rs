//! The fleet and every site, and why a URL is answered as it is.

use axum::extract::State;
use helix_routing::api::{Explanation, Problem, Status};
use serde::Deserialize;

use super::extract::Query;
use super::problem::Rejection;
use crate::app::App;
use crate::explain::{self, ExplainError};
use crate::overview;

/// Show the fleet and every site
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(app): State<App>) -> Result<axum::Json<Status>, Rejection> {
    Ok(axum::Json(overview::status(&app).await?))
}

/// What to explain.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// An `http` or `https` URL of a site.
    url: String,
}

/// Explain which site, release, region, edge and file answer a URL
#[utoipa::path(
    get, path = "/v1/explain", tag = "status", params(Question),
    responses((status = 200, body = Explanation), (status = 400, body = Problem))
)]
pub(super) async fn explain(
    State(app): State<App>,
    Query(question): Query<Question>,
) -> Result<axum::Json<Explanation>, Rejection> {
    Ok(axum::Json(explain::explain(&app, &question.url).await?))
}

impl From<ExplainError> for Rejection {
    fn from(error: ExplainError) -> Self {
        match error {
            ExplainError::Url { .. } | ExplainError::Host(_) => {
                Self::bad_request(error.to_string())
            }
            ExplainError::Record(error) => error.into(),
            ExplainError::Store(error) => error.into(),
        }
    }
}
