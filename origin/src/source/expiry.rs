//! Previews that nobody has pushed to for long are taken down.
//!
//! Invariant: the preview that `preview.<project>.<base>` shows stays, and so does one that is being built or rolled out. A pull
//! request whose preview was taken down is as open as before: its next commit is built, and the preview is there again.

use std::time::Duration;

use helix_routing::host::HostPattern;
use helix_routing::id::SiteId;
use helix_routing::time::Timestamp;
use helix_service::clock;

use super::feedback;
use super::intake::{self, IntakeError};
use crate::app::App;
use crate::audit::{self, Act};
use crate::auth::Caller;
use crate::build;
use crate::event::{self, Event};
use crate::feed::records;
use crate::store::{self, StoreError, Tx, millis, time};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Previews that are read at once.
const PAGE_ROWS: i64 = 64;

/// Takes previews down whose time is over.
///
/// # Errors
/// When the database fails.
pub async fn sweep(app: &App) -> Result<(), IntakeError> {
    sweep_at(app, clock::now()).await
}

/// The same, of those whose time is over at `now`.
///
/// # Errors
/// When the database fails.
pub async fn sweep_at(app: &App, now: Timestamp) -> Result<(), IntakeError> {
    let mut last = String::new();
    loop {
        let page = due(app, now, &last).await?;
        let Some(reached) = page.last() else {
            return Ok(());
        };
        last.clone_from(reached);
        for site in &page {
            look(app, &store::id(site)?, now).await?;
        }
    }
}

async fn look(app: &App, site: &SiteId, now: Timestamp) -> Result<(), IntakeError> {
    let mut tx = app.store.write().await?;
    // Asked again: it may have been pushed to since.
    let Some(preview) = Preview::over(&mut tx, site, now).await? else {
        return Ok(());
    };
    let alias = HostPattern::Exact(app.addresses.alias(&site.project));
    let shown = records::host(&mut tx, &alias).await?;
    if shown.is_some_and(|shown| shown.site.as_ref() == Some(site)) {
        return Ok(());
    }
    end(&mut tx, app, site, &preview).await?;
    tx.commit().await?;
    app.source.changed();
    app.conductor.reload(site);
    Ok(())
}

/// A preview whose time is over.
struct Preview {
    days: i64,
    deployed: Timestamp,
}

impl Preview {
    async fn over(tx: &mut Tx, site: &SiteId, now: Timestamp) -> Result<Option<Self>, StoreError> {
        let row: Option<(i64, i64)> = sqlx::query_as(
            "SELECT l.preview_days, MAX(d.created) FROM sites s JOIN links l ON l.project = s.project \
             JOIN deployments d ON d.site = s.site WHERE s.site = $1 AND s.closed IS NULL AND l.preview_days > 0 \
             GROUP BY l.preview_days",
        )
        .bind(site.to_string())
        .fetch_optional(&mut **tx)
        .await?;
        let Some((days, deployed)) = row else {
            return Ok(None);
        };
        let open: i64 = sqlx::query_scalar(
            "SELECT (SELECT COUNT(*) FROM builds WHERE site = $1 AND state IN ('queued', 'claimed')) \
             + (SELECT COUNT(*) FROM rollouts WHERE site = $1 AND outcome IS NULL)",
        )
        .bind(site.to_string())
        .fetch_one(&mut **tx)
        .await?;
        let deployed = time(deployed);
        let life = DAY * u32::try_from(days).unwrap_or(u32::MAX);
        let is_over = open == 0 && deployed + life <= now;
        Ok(is_over.then_some(Self { days, deployed }))
    }
}

/// Previews after `last` that look as if their time were over, in order.
async fn due(app: &App, now: Timestamp, last: &str) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT s.site FROM sites s JOIN links l ON l.project = s.project JOIN deployments d ON d.site = s.site \
         WHERE s.closed IS NULL AND l.preview_days > 0 AND s.site LIKE '%/preview/%' AND s.site > $4 \
         GROUP BY s.site, l.preview_days HAVING MAX(d.created) + l.preview_days * $1 <= $2 ORDER BY s.site LIMIT $3",
    )
    .bind(i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX))
    .bind(millis(now))
    .bind(PAGE_ROWS)
    .bind(last)
    .fetch_all(app.store.reader())
    .await?)
}

async fn end(tx: &mut Tx, app: &App, site: &SiteId, preview: &Preview) -> Result<(), IntakeError> {
    intake::take_down(tx, app, site).await?;
    let why = format!(
        "its newest deployment is of {}, and previews are kept for {} days",
        preview.deployed.rfc3339(),
        preview.days
    );
    let act = Act::new("preview.expire", site.to_string()).project(&site.project);
    audit::record(tx, &Caller::origin(), act.detail(Some(why))).await?;
    let event = Event::new("deployment.preview.expired", Some(&site.project)).on(site);
    event::emit(tx, event.with("days", Some(preview.days.to_string()))).await?;
    if let Some(newest) = build::newest(tx, site).await? {
        feedback::want(tx, &newest).await?;
    }
    Ok(())
}
