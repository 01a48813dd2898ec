//! Webhooks and their deliveries.

use axum::extract::State;
use axum::http::StatusCode;
use helix_routing::api::Problem;
use helix_routing::webhook::{
    CreatedWebhook, DeliveryState, DeliveryView, NewWebhook, WebhookView,
};
use serde::Deserialize;

use super::extract::{Json, Path, Query};
use super::problem::Rejection;
use crate::app::App;
use crate::auth::Caller;
use crate::webhook::{self, Wanted, WebhookError};

/// List the webhooks
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", responses((status = 200, body = Vec<WebhookView>)))]
pub(super) async fn list(
    State(app): State<App>,
) -> Result<axum::Json<Vec<WebhookView>>, Rejection> {
    let mut connection = app.store.read().await?;
    Ok(axum::Json(webhook::list(&mut connection).await?))
}

/// Add a webhook
///
/// The secret that its deliveries are signed with is shown this once.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", request_body = NewWebhook,
    responses(
        (status = 201, body = CreatedWebhook),
        (status = 404, body = Problem, description = "`unknown-project`"),
        (status = 409, body = Problem, description = "`project-deleted`, `too-many-webhooks`"),
        (status = 422, body = Problem, description = "`illegal-webhook-url`, `illegal-events`"),
    )
)]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewWebhook>,
) -> Result<(StatusCode, axum::Json<CreatedWebhook>), Rejection> {
    let mut tx = app.store.write().await?;
    let sender = &app.webhooks;
    let created = webhook::add(&mut tx, &caller, new, &sender.key, &sender.permitted).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(created)))
}

/// Remove a webhook
#[utoipa::path(
    delete, path = "/v1/webhooks/{webhook}", tag = "webhooks", params(("webhook" = String, Path)),
    responses((status = 204), (status = 404, body = Problem, description = "`unknown-webhook`"))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(webhook): Path<String>,
) -> Result<StatusCode, Rejection> {
    let mut tx = app.store.write().await?;
    webhook::remove(&mut tx, &caller, &webhook).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let a disabled webhook be tried again
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook}/enable", tag = "webhooks", params(("webhook" = String, Path)),
    responses((status = 200, body = WebhookView), (status = 404, body = Problem, description = "`unknown-webhook`"))
)]
pub(super) async fn enable(
    State(app): State<App>,
    caller: Caller,
    Path(webhook): Path<String>,
) -> Result<axum::Json<WebhookView>, Rejection> {
    let mut tx = app.store.write().await?;
    let view = webhook::enable(&mut tx, &caller, &webhook).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Send a test to a webhook
///
/// Answers at once; ask for the delivery to see what came of it.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook}/test", tag = "webhooks", params(("webhook" = String, Path)),
    responses(
        (status = 200, body = DeliveryView),
        (status = 404, body = Problem, description = "`unknown-webhook`"),
        (status = 409, body = Problem, description = "`webhook-disabled`"),
    )
)]
pub(super) async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(webhook): Path<String>,
) -> Result<axum::Json<DeliveryView>, Rejection> {
    let mut tx = app.store.write().await?;
    let view = webhook::test(&mut tx, &caller, &webhook).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// Which deliveries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those that stand so.
    state: Option<DeliveryState>,
    /// Only those of events before this number.
    before: Option<u64>,
    /// How many at most, up to 200.
    limit: Option<u32>,
}

/// List deliveries of a webhook, newest event first
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook}/deliveries", tag = "webhooks", params(("webhook" = String, Path), Which),
    responses((status = 200, body = Vec<DeliveryView>), (status = 404, body = Problem, description = "`unknown-webhook`"))
)]
pub(super) async fn deliveries(
    State(app): State<App>,
    Path(webhook): Path<String>,
    Query(which): Query<Which>,
) -> Result<axum::Json<Vec<DeliveryView>>, Rejection> {
    let wanted = Wanted {
        state: which.state,
        before: which.before,
        limit: which.limit,
    };
    let mut connection = app.store.read().await?;
    let deliveries = webhook::deliveries(&mut connection, &webhook, &wanted).await?;
    Ok(axum::Json(deliveries))
}

/// Show a delivery
#[utoipa::path(
    get, path = "/v1/deliveries/{delivery}", tag = "webhooks", params(("delivery" = String, Path)),
    responses((status = 200, body = DeliveryView), (status = 404, body = Problem, description = "`unknown-delivery`"))
)]
pub(super) async fn delivery(
    State(app): State<App>,
    Path(delivery): Path<String>,
) -> Result<axum::Json<DeliveryView>, Rejection> {
    let mut connection = app.store.read().await?;
    let view = webhook::one_delivery(&mut connection, &delivery).await?;
    Ok(axum::Json(view))
}

/// Send a delivery again
///
/// Under the id that it had, also where it was delivered.
#[utoipa::path(
    post, path = "/v1/deliveries/{delivery}/replay", tag = "webhooks", params(("delivery" = String, Path)),
    responses(
        (status = 200, body = DeliveryView),
        (status = 404, body = Problem, description = "`unknown-delivery`, `unknown-webhook`"),
        (status = 409, body = Problem, description = "`webhook-disabled`"),
    )
)]
pub(super) async fn replay(
    State(app): State<App>,
    caller: Caller,
    Path(delivery): Path<String>,
) -> Result<axum::Json<DeliveryView>, Rejection> {
    let mut tx = app.store.write().await?;
    let view = webhook::replay(&mut tx, &caller, &delivery).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

impl From<WebhookError> for Rejection {
    fn from(error: WebhookError) -> Self {
        let title = error.to_string();
        match error {
            WebhookError::Url(_) => Self::unprocessable("illegal-webhook-url", title),
            WebhookError::Pattern(_) | WebhookError::Patterns => {
                Self::unprocessable("illegal-events", title)
            }
            WebhookError::TooMany => Self::conflict("too-many-webhooks", title),
            WebhookError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "unknown-webhook", title),
            WebhookError::UnknownDelivery(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown-delivery", title)
            }
            WebhookError::Disabled(_) => Self::conflict("webhook-disabled", title),
            WebhookError::Project(error) => error.into(),
            WebhookError::Store(error) => error.into(),
        }
    }
}
