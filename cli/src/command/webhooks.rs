//! `helix webhooks`. A secret is printed once, when the webhook is added, and nowhere else.

use std::process::ExitCode;
use std::time::Duration;

use helix_routing::webhook::{
    CreatedWebhook, DeliveryState, DeliveryView, NewWebhook, WebhookView,
};
use tokio::time::{Instant, sleep};

use super::table::{moment, table};
use super::{NONE, joined, or_none};
use crate::arguments::Webhooks;
use crate::failure::{REFUSED, STILL_RUNNING};
use crate::output;
use helix_client::Origin;

/// How long the first attempt of a delivery is waited for: longer than origin lets one take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[expect(clippy::too_many_lines, reason = "one arm for each word")]
pub(crate) async fn run(
    origin: &Origin,
    arguments: Webhooks,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match arguments {
        Webhooks::Add {
            url,
            project,
            events,
        } => {
            let new = NewWebhook {
                url,
                project,
                events,
            };
            let created: CreatedWebhook = origin.create(&["webhooks"], &new).await?;
            if json {
                output::print_json(&created)?;
            } else {
                let webhook = &created.view.webhook;
                output::say(&format!(
                    "webhook {webhook}; its deliveries are signed with this secret, shown this once:"
                ));
                output::print(&created.secret);
            }
        }
        Webhooks::List => {
            let webhooks: Vec<WebhookView> = origin.read(&["webhooks"]).await?;
            if json {
                output::print_json(&webhooks)?;
            } else {
                output::print(&list(&webhooks));
            }
        }
        Webhooks::Remove { webhook } => {
            origin.discard(&["webhooks", &webhook]).await?;
            output::say(&format!("webhook {webhook} is removed"));
        }
        Webhooks::Enable { webhook } => {
            let view: WebhookView = origin
                .create(&["webhooks", &webhook, "enable"], &())
                .await?;
            if json {
                output::print_json(&view)?;
            } else {
                output::say(&format!("webhook {webhook} is sent to again"));
            }
        }
        Webhooks::Test { webhook } => {
            let sent: DeliveryView = origin.create(&["webhooks", &webhook, "test"], &()).await?;
            return follow(origin, sent, json).await;
        }
        Webhooks::Replay { delivery } => {
            let sent: DeliveryView = origin
                .create(&["deliveries", &delivery, "replay"], &())
                .await?;
            return follow(origin, sent, json).await;
        }
        Webhooks::Deliveries {
            webhook,
            state,
            limit,
        } => {
            let query = [("state", state), ("limit", Some(limit.to_string()))];
            let path = ["webhooks", webhook.as_str(), "deliveries"];
            let deliveries: Vec<DeliveryView> = origin.search(&path, &query).await?;
            if json {
                output::print_json(&deliveries)?;
            } else {
                output::print(&deliveries_table(&deliveries));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for what comes of the next attempt.
async fn follow(origin: &Origin, sent: DeliveryView, json: bool) -> anyhow::Result<ExitCode> {
    let mut view = sent;
    let path = ["deliveries".to_owned(), view.delivery.clone()];
    let path = path.each_ref().map(String::as_str);
    let until = Instant::now() + ATTEMPT_LIMIT;
    while view.state == DeliveryState::Pending && view.attempts == 0 && Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
        view = origin.read(&path).await?;
    }
    if json {
        output::print_json(&view)?;
    } else {
        output::say(&outcome(&view));
    }
    Ok(ExitCode::from(match view.state {
        DeliveryState::Delivered => 0,
        DeliveryState::Pending if view.attempts == 0 => STILL_RUNNING,
        DeliveryState::Pending | DeliveryState::Failed | DeliveryState::Dropped => REFUSED,
    }))
}

fn outcome(view: &DeliveryView) -> String {
    let DeliveryView {
        delivery,
        error,
        status,
        elapsed_ms,
        next,
        ..
    } = view;
    match (view.state, error) {
        (DeliveryState::Delivered, _) => format!(
            "{delivery} is delivered: {} after {} ms",
            or_none(status.as_ref()),
            or_none(elapsed_ms.as_ref())
        ),
        (_, Some(error)) => {
            let next = next.map(|next| format!("; tried again at {} UTC", moment(next)));
            format!(
                "{delivery} is not delivered: {error}{}",
                next.unwrap_or_default()
            )
        }
        (_, None) => format!("{delivery} has not been tried yet"),
    }
}

fn list(webhooks: &[WebhookView]) -> String {
    let rows: Vec<_> = webhooks
        .iter()
        .map(|webhook| {
            [
                webhook.webhook.clone(),
                webhook.url.clone(),
                webhook
                    .project
                    .as_ref()
                    .map_or_else(|| "all".to_owned(), ToString::to_string),
                if webhook.events.is_empty() {
                    "all".to_owned()
                } else {
                    joined(&webhook.events)
                },
                webhook.waiting.to_string(),
                state(webhook),
            ]
        })
        .collect();
    let heads = ["ID", "URL", "PROJECT", "EVENTS", "WAITING", "STATE"];
    table(heads, &rows)
}

fn state(webhook: &WebhookView) -> String {
    let because = webhook.disabled_because.as_deref().unwrap_or_default();
    match (webhook.disabled, webhook.failing) {
        (Some(since), _) => format!("disabled since {} UTC: {because}", moment(since)),
        (None, Some(since)) => format!("failing since {} UTC", moment(since)),
        (None, None) => "ok".to_owned(),
    }
}

fn deliveries_table(deliveries: &[DeliveryView]) -> String {
    let rows: Vec<_> = deliveries
        .iter()
        .map(|delivery| {
            let state = match delivery.state {
                DeliveryState::Pending => "pending",
                DeliveryState::Delivered => "delivered",
                DeliveryState::Failed => "failed",
                DeliveryState::Dropped => "dropped",
            };
            [
                delivery.delivery.clone(),
                delivery.kind.clone(),
                delivery.event.clone(),
                state.to_owned(),
                delivery.attempts.to_string(),
                delivery.tried.map_or_else(|| NONE.to_owned(), moment),
                or_none(delivery.status.as_ref()),
                delivery.next.map_or_else(|| NONE.to_owned(), moment),
                delivery.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let heads = [
        "DELIVERY",
        "EVENT",
        "ID",
        "STATE",
        "TRIED",
        "LAST (UTC)",
        "STATUS",
        "NEXT (UTC)",
        "WHY",
    ];
    table(heads, &rows)
}
