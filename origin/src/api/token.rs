//! Tokens: list, make, revoke.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::{CreatedToken, NewToken, Problem, TokenView};

use super::extract::{Json, Path};
use super::problem::Rejection;
use crate::app::App;
use crate::audit;
use crate::auth::{self, Caller};

/// List the tokens in force
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = Vec<TokenView>)))]
pub(super) async fn list(State(app): State<App>) -> Result<axum::Json<Vec<TokenView>>, Rejection> {
    Ok(axum::Json(auth::list(&app.store).await?))
}

/// Make a token
///
/// The secret is shown this once.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, body = CreatedToken), (status = 422, body = Problem, description = "`illegal-name`"))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, axum::Json<CreatedToken>), Rejection> {
    let mut tx = app.store.write().await?;
    let created = auth::create(&mut tx, new).await?;
    audit::note(
        &mut tx,
        &caller,
        "token.create",
        &created.view.id,
        Some(&created.view.name),
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(created)))
}

/// Revoke a token
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Rejection> {
    let mut tx = app.store.write().await?;
    auth::revoke(&mut tx, &id).await?;
    audit::note(&mut tx, &caller, "token.revoke", &id, None).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
