//! Letting edges in: join tokens, and the one call that needs nothing else.

use std::net::SocketAddr;

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use helix_routing::api::Problem;
use helix_routing::edge::join::{
    CreatedJoinToken, JoinRequest, JoinTokenView, Joined, NewJoinToken, RenewalRequest, Renewed,
};

use super::extract::{Json, Path};
use super::problem::Rejection;
use crate::admission::{Admission, AdmissionError, tokens};
use crate::app::App;
use crate::audit;
use crate::auth::Caller;

/// List the join tokens that can still be used
#[utoipa::path(get, path = "/v1/join-tokens", tag = "edges", responses((status = 200, body = Vec<JoinTokenView>)))]
pub(super) async fn list(
    State(app): State<App>,
) -> Result<axum::Json<Vec<JoinTokenView>>, Rejection> {
    Ok(axum::Json(tokens::list(&app.store).await?))
}

/// Make a join token
///
/// The secret is shown this once.
#[utoipa::path(
    post, path = "/v1/join-tokens", tag = "edges", request_body = NewJoinToken,
    responses(
        (status = 201, body = CreatedJoinToken),
        (status = 404, body = Problem, description = "`unknown-region`"),
        (status = 409, body = Problem, description = "`no-admission`: origin was not set up to let edges in"),
        (status = 422, body = Problem, description = "`illegal-token`"),
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewJoinToken>,
) -> Result<(StatusCode, axum::Json<CreatedJoinToken>), Rejection> {
    admission(&app)?;
    let mut tx = app.store.write().await?;
    let created = tokens::create(&mut tx, new, &app.regions, &caller).await?;
    let detail = serde_json::to_string(&created.view).ok();
    audit::note(
        &mut tx,
        &caller,
        "edge.token.create",
        &created.view.id,
        detail.as_deref(),
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(created)))
}

/// Revoke a join token
#[utoipa::path(
    delete, path = "/v1/join-tokens/{id}", tag = "edges", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Rejection> {
    let mut tx = app.store.write().await?;
    tokens::revoke(&mut tx, &id).await?;
    audit::note(&mut tx, &caller, "edge.token.revoke", &id, None).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Join as an edge
///
/// The join token in the body is all that is needed. The same edge may ask again with the same keys when it has not heard
/// the answer.
#[utoipa::path(
    post, path = "/v1/join", tag = "edges", request_body = JoinRequest, security(()),
    responses(
        (status = 200, body = Joined),
        (status = 401, body = Problem, description = "`bad-join-token`: unknown, revoked, expired or used up"),
        (status = 403, body = Problem, description = "`other-region`, `other-edge`: the token is for another one"),
        (status = 409, body = Problem, description = "`edge-exists`, `no-admission`"),
        (status = 422, body = Problem, description = "`bad-proof`, `illegal-join`"),
        (status = 429, body = Problem, description = "`too-many-tries`"),
        (status = 503, body = Problem, description = "`nats-away`: ask again, with the same keys"),
    )
)]
pub(super) async fn join(
    State(app): State<App>,
    from: Option<Extension<ConnectInfo<SocketAddr>>>,
    Json(request): Json<JoinRequest>,
) -> Result<axum::Json<Joined>, Rejection> {
    let from = from.map(|Extension(ConnectInfo(address))| address.ip());
    let admission = admission(&app)?;
    let joined = admission
        .join(&app.store, &app.roster, from, &request)
        .await;
    if let Err(error) = &joined {
        tracing::warn!(edge = %request.edge, ?from, %error, "an edge was not let in");
    }
    Ok(axum::Json(joined?))
}

/// Renew an edge's certificate
///
/// Signatures of the keys that the edge joined with are all that is needed.
#[utoipa::path(
    post, path = "/v1/join/renewal", tag = "edges", request_body = RenewalRequest, security(()),
    responses(
        (status = 200, body = Renewed),
        (status = 404, body = Problem, description = "`unknown-edge`: it did not join by a token, or was removed"),
        (status = 409, body = Problem, description = "`no-admission`"),
        (status = 422, body = Problem, description = "`bad-proof`, `wrong-clock`"),
        (status = 429, body = Problem, description = "`too-many-tries`"),
    )
)]
pub(super) async fn renew(
    State(app): State<App>,
    from: Option<Extension<ConnectInfo<SocketAddr>>>,
    Json(request): Json<RenewalRequest>,
) -> Result<axum::Json<Renewed>, Rejection> {
    let from = from.map(|Extension(ConnectInfo(address))| address.ip());
    let admission = admission(&app)?;
    let renewed = admission
        .renew(&app.store, &app.roster, from, &request)
        .await;
    if let Err(error) = &renewed {
        tracing::warn!(edge = %request.edge, ?from, %error, "an edge's certificate was not renewed");
    }
    Ok(axum::Json(renewed?))
}

fn admission(app: &App) -> Result<&Admission, AdmissionError> {
    app.admission.as_ref().ok_or(AdmissionError::Off)
}

impl From<AdmissionError> for Rejection {
    fn from(error: AdmissionError) -> Self {
        use AdmissionError as Error;
        let title = error.to_string();
        match error {
            Error::Off => Self::conflict("no-admission", title),
            Error::UnknownRegion(_) => Self::new(StatusCode::NOT_FOUND, "unknown-region", title)
                .detail("add it to `[[regions]]` of origin's configuration and start origin again"),
            Error::Illegal(_) => Self::unprocessable("illegal-join", title),
            Error::NoToken(_) => Self::not_found(title),
            Error::BadToken
            | Error::RevokedToken
            | Error::ExpiredToken { .. }
            | Error::UsedToken(_) => Self::new(StatusCode::UNAUTHORIZED, "bad-join-token", title)
                .detail("`helix edge token create --region REGION` makes another one"),
            Error::OtherRegion { .. } => Self::new(StatusCode::FORBIDDEN, "other-region", title),
            Error::OtherEdge { .. } => Self::new(StatusCode::FORBIDDEN, "other-edge", title),
            Error::Exists(_) => Self::conflict("edge-exists", title),
            Error::NotJoined(_) => Self::new(StatusCode::NOT_FOUND, "unknown-edge", title)
                .detail("it has to join, by a new token"),
            Error::Clock { .. } => Self::unprocessable("wrong-clock", title),
            Error::Proof { .. } => Self::unprocessable("bad-proof", title),
            Error::TooManyTries => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-tries", title)
                    .header(RETRY_AFTER, HeaderValue::from_static("60"))
            }
            Error::Nats(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "nats-away", title),
            Error::Store(error) => error.into(),
            Error::Keys(_) | Error::Sign(_) | Error::Certificate(_) | Error::ReadToken(_) => {
                Self::internal(&error)
            }
        }
    }
}
