//! Builds whose worker is silent go back to the queue, deliveries that were remembered long enough are forgotten, and old previews
//! are taken down.

use std::time::Duration;

use helix_routing::id::BuildId;
use helix_service::clock;
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;
use tokio::time::MissedTickBehavior;

use super::{BuildError, find, log, move_to};
use crate::app::App;
use crate::source::{expiry, intake};
use crate::store::{self, millis};

/// How often leases are looked at: a lost build is queued again so much later at most.
const EVERY: Duration = Duration::from_secs(5);
/// After so many looks old logs, deliveries and previews are removed, too: every hour.
const FORGET_AFTER: u32 = 720;

/// Looks until shutdown. A failure is logged and tried again the next time.
pub async fn run(app: &App, shutdown: &Shutdown) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => look(app, looks.is_multiple_of(FORGET_AFTER)).await,
        }
        looks = looks.wrapping_add(1);
    }
}

async fn look(app: &App, forgets: bool) {
    let looked = async {
        lapse(app).await?;
        if forgets {
            log::forget(&app.store).await?;
            intake::forget(&app.store).await?;
        }
        Ok::<_, BuildError>(())
    };
    if let Err(error) = looked.await {
        tracing::warn!(error = %chain(&error), "leases of builds are not looked at");
    }
    if forgets && let Err(error) = expiry::sweep(app).await {
        tracing::warn!(error = %chain(&error), "old previews are not taken down");
    }
}

/// Takes builds from workers that are silent.
///
/// # Errors
/// When the database fails.
pub async fn lapse(app: &App) -> Result<(), BuildError> {
    lapse_by(app, Duration::ZERO).await
}

/// The same, of those that will be silent for too long unless they are heard of within `ahead`.
///
/// # Errors
/// When the database fails.
pub async fn lapse_by(app: &App, ahead: Duration) -> Result<(), BuildError> {
    let now = clock::now() + ahead;
    let due: Vec<String> =
        sqlx::query_scalar("SELECT build FROM builds WHERE state = 'claimed' AND until <= $1")
            .bind(millis(now))
            .fetch_all(app.store.reader())
            .await?;
    for id in due {
        let id: BuildId = store::id(&id)?;
        let mut tx = app.store.write().await?;
        let build = find(&mut tx, &id).await?;
        if let Some(state) = build.state.lapsed(build.attempts, now) {
            move_to(&mut tx, &build, state).await?;
            tx.commit().await?;
            app.source.changed();
        }
    }
    Ok(())
}
