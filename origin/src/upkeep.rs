//! What is done now and then: projects whose time is over are purged, forgotten uploads and old events removed.

use std::time::Duration;

use helix_service::error::chain;
use helix_service::shutdown::Shutdown;
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::artifact::PARTIAL_KEPT;
use crate::{event, project};

/// How often. What is kept is kept for a day or more, so an hour late is soon enough.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Looks at start and every hour, until shutdown. A failure is logged and tried again the next time.
pub async fn run(app: &App, shutdown: &Shutdown) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        purge(app).await;
        sweep(app).await;
        if let Err(error) = event::forget(&app.store).await {
            tracing::warn!(error = %chain(&error), "old events are not removed");
        }
    }
}

async fn purge(app: &App) {
    match project::purge_due(&app.store, &app.regions).await {
        Ok(0) => {}
        Ok(_) => app.artifacts.export_soon(),
        Err(error) => tracing::warn!(error = %chain(&error), "projects are not purged"),
    }
}

async fn sweep(app: &App) {
    let partials = app.artifacts.partials().clone();
    match tokio::task::spawn_blocking(move || partials.sweep(PARTIAL_KEPT)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "partial uploads are not swept"),
        Err(error) => tracing::error!(%error, "the sweep of partial uploads failed"),
    }
}
