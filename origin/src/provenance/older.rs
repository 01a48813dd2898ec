//! Releases that have no bundle of the key that signs now: those from before there were bundles, and after a change of the key.
//!
//! Invariant: it is done page by page and says only what SQL knows, so that it may end at any time and goes on where it was.
//! An edge that asks in between is not kept waiting for its turn.

use std::time::Duration;

use helix_routing::id::{Digest, ProjectName, ReleaseId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;
use tokio::time::sleep;

use super::{AttestError, Attestor, of_release};
use crate::store::id;

/// Releases that are attested before others have a turn at the database.
const PAGE_ROWS: i64 = 32;
/// Between two pages: this work is in no hurry.
const PAUSE: Duration = Duration::from_millis(100);
/// After a failure.
const RETRY: Duration = Duration::from_secs(30);

/// A kept release without a bundle.
type Older = (String, String, String);

/// Attests what has to be, until all is or shutdown.
pub async fn run(attestor: &Attestor, shutdown: &Shutdown) {
    let work = async {
        let mut total = 0;
        loop {
            match attestor.page().await {
                Ok(0) => break,
                Ok(attested) => {
                    total += attested;
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "releases from before are not attested yet");
                    sleep(RETRY).await;
                }
            }
        }
        if total > 0 {
            tracing::info!(releases = total, "releases from before are attested");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = shutdown.requested() => {}
        () = work => {}
    }
}

impl Attestor {
    /// Attests some of the kept releases that need it, newest first, and says how many.
    ///
    /// # Errors
    /// When one cannot be; those before it are.
    async fn page(&self) -> Result<usize, AttestError> {
        let rows: Vec<Older> = sqlx::query_as(
            "SELECT site, release_id, artifact FROM releases WHERE collected IS NULL AND NOT EXISTS ( \
                 SELECT 1 FROM provenances WHERE provenances.site = releases.site \
                 AND provenances.artifact = releases.artifact AND provenances.key_id = $1) \
             ORDER BY created DESC LIMIT $2",
        )
        .bind(self.public().id.as_str())
        .bind(PAGE_ROWS)
        .fetch_all(self.store.reader())
        .await?;
        self.all(rows).await
    }

    /// Makes sure that there is a bundle for each kept release that has this artifact.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(crate) async fn vouch(
        &self,
        project: &ProjectName,
        artifact: &Digest,
    ) -> Result<(), AttestError> {
        // A project's name has no character that LIKE reads as a pattern.
        let rows: Vec<Older> = sqlx::query_as(
            "SELECT site, release_id, artifact FROM releases WHERE artifact = $1 AND site LIKE $2 || '/%' AND collected IS NULL \
             AND NOT EXISTS (SELECT 1 FROM provenances WHERE provenances.site = releases.site \
                 AND provenances.artifact = releases.artifact AND provenances.key_id = $3)",
        )
        .bind(artifact.as_str())
        .bind(project.as_str())
        .bind(self.public().id.as_str())
        .fetch_all(self.store.reader())
        .await?;
        self.all(rows).await.map(|_| ())
    }

    async fn all(&self, rows: Vec<Older>) -> Result<usize, AttestError> {
        let found = rows.len();
        for (site, release, artifact) in rows {
            let (site, release, artifact): (SiteId, ReleaseId, Digest) =
                (id(&site)?, id(&release)?, id(&artifact)?);
            let source = {
                let mut reader = self.store.read().await?;
                of_release(&mut reader, &site, &release).await?
            };
            let made = ReleaseRef { release, artifact };
            let mut tx = self.store.write().await?;
            self.note(&mut tx, &site, &made, &source).await?;
            tx.commit().await?;
        }
        Ok(found)
    }
}
