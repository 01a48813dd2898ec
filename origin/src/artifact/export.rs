//! Keeps the layout's `index.json` in step with the tags in SQL, for tools that read the folder.

use std::collections::BTreeMap;

use helix_routing::artifact::RELEASE_TYPE;
use helix_routing::id::{Digest, SiteId};
use helix_routing::provenance::bundle::BUNDLE_TYPE;
use helix_service::shutdown::Shutdown;

use super::Artifacts;
use super::annotation;
use super::content::blocking;
use super::layout::{LayoutError, Listed};
use crate::bill::BILL_TYPE;
use crate::store::{StoreError, count, id};

const BUNDLES: &str =
    "SELECT provenances.site, provenances.manifest, provenances.manifest_size FROM provenances
     JOIN packs ON packs.project = provenances.project AND packs.digest = provenances.manifest
     ORDER BY provenances.project, provenances.manifest";
const BILLS: &str = "SELECT bills.site, bills.manifest, bills.manifest_size FROM bills
     JOIN packs ON packs.project = bills.project AND packs.digest = bills.manifest
     ORDER BY bills.project, bills.manifest";

/// What a manifest is called in a layout (OCI image-spec, annotations.md).
const NAME: &str = "org.opencontainers.image.ref.name";

type Row = (String, String, Option<String>, String, i64);

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
        let mut listed = self.releases().await?;
        listed.extend(self.referrers().await?);
        let layout = self.layout.clone();
        blocking(move || layout.export(&listed)).await?;
        Ok(())
    }

    /// Releases by the tags of their deployments: each label names its newest, and so does a commit in its environment.
    async fn releases(&self) -> Result<Vec<Listed>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT deployments.site, deployments.label, deployments.commit_id, releases.artifact, packs.size FROM deployments
             JOIN (SELECT project, label, MAX(number) AS number FROM deployments GROUP BY project, label) AS newest
               ON newest.project = deployments.project AND newest.number = deployments.number
             JOIN releases ON releases.site = deployments.site AND releases.release_id = deployments.release_id
             JOIN packs ON packs.project = deployments.project AND packs.digest = releases.artifact
             WHERE releases.collected IS NULL ORDER BY deployments.project, deployments.number",
        )
        .fetch_all(self.store.reader())
        .await?;
        let mut listed = Vec::with_capacity(rows.len());
        let mut commits = BTreeMap::new();
        for (site, label, commit, artifact, size) in rows {
            let site: SiteId = id(&site)?;
            let mut annotations = annotation::of_site(&site);
            annotations.insert(annotation::LABEL.to_owned(), label.clone());
            if let Some(commit) = &commit {
                annotations.insert(annotation::COMMIT.to_owned(), commit.clone());
            }
            let (digest, size): (Digest, u64) = (id(&artifact)?, count(size, "packs.size")?);
            let named = |tag: &str| {
                let mut annotations = annotations.clone();
                annotations.insert(NAME.to_owned(), format!("{}:{tag}", site.project));
                Listed {
                    digest: digest.clone(),
                    size,
                    artifact_type: RELEASE_TYPE,
                    annotations,
                }
            };
            listed.push(named(&annotation::tag_of_label(&label)));
            if let Some(commit) = commit {
                let tag = annotation::tag_of_commit(&commit, site.environment);
                commits.insert((site.project.clone(), tag.clone()), named(&tag));
            }
        }
        listed.extend(commits.into_values());
        Ok(listed)
    }

    /// The referrers that say where they come from and what they were made of. They have no name: `subject` leads to them.
    async fn referrers(&self) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        for (query, artifact_type) in [(BUNDLES, BUNDLE_TYPE), (BILLS, BILL_TYPE)] {
            let rows: Vec<(String, String, i64)> =
                sqlx::query_as(query).fetch_all(self.store.reader()).await?;
            for (site, manifest, size) in rows {
                listed.push(Listed {
                    digest: id(&manifest)?,
                    size: count(size, "manifest_size")?,
                    artifact_type,
                    annotations: annotation::of_site(&id(&site)?),
                });
            }
        }
        Ok(listed)
    }
}
