//! Keeps the layout's `index.json` in step with the tags in SQL, for tools that read the folder.

use helix_service::shutdown::Shutdown;

use super::Artifacts;
use super::content::blocking;
use super::layout::{LayoutError, Listed};
use crate::store::{StoreError, count, id};

/// The list could not be exported.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Artifacts {
    /// Has the list of manifests written soon; many calls at once are one.
    pub fn export_soon(&self) {
        self.export.notify_one();
    }

    /// Writes the list whenever it was asked for, until shutdown.
    pub async fn export_on_demand(&self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.export.notified() => {}
            }
            if let Err(error) = self.export_now().await {
                tracing::warn!(error = %helix_service::error::chain(&error), "the layout's list is not up to date");
            }
        }
    }

    async fn export_now(&self) -> Result<(), ExportError> {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT deployments.project, deployments.label, releases.artifact, packs.size FROM deployments
             JOIN (SELECT project, label, MAX(number) AS number FROM deployments GROUP BY project, label) AS newest
               ON newest.project = deployments.project AND newest.number = deployments.number
             JOIN releases ON releases.site = deployments.site AND releases.release_id = deployments.release_id
             JOIN packs ON packs.project = deployments.project AND packs.digest = releases.artifact
             WHERE releases.collected IS NULL ORDER BY deployments.project, deployments.number",
        )
        .fetch_all(self.store.reader())
        .await
        .map_err(StoreError::from)?;
        let mut listed = Vec::with_capacity(rows.len());
        for (project, label, artifact, size) in rows {
            let name = format!("{project}:{}", label.replace('/', "-"));
            listed.push(Listed {
                digest: id(&artifact)?,
                size: count(size, "packs.size")?,
                name,
            });
        }
        let layout = self.layout.clone();
        blocking(move || layout.export(&listed)).await?;
        Ok(())
    }
}
