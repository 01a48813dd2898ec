//! One artifact to the registry: every blob that it lacks, every manifest after those that it names, then the tags.
//!
//! Invariant: a tag is put only when all that it leads to is there. Pushed again, nothing changes but what the registry has lost.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use helix_routing::id::{Digest, ProjectName};

use super::manifest::Manifests;
use super::tree::{self, Stored};
use super::upload::Upload;
use super::{Remote, RemoteError};
use crate::artifact::{Layout, LayoutError};
use crate::store::{Store, StoreError, id};

/// Blobs of one artifact that are sent side by side.
const BLOBS_AT_ONCE: usize = 4;
/// Manifests that are mended for one push: a release's and its referrers'.
const MENDS: usize = 4;

impl Remote {
    /// Brings the registry up to date about an artifact, and says by which tags it names it.
    ///
    /// # Errors
    /// As [`RemoteError`] says. What was pushed until then stays there and is not pushed again.
    pub async fn push(
        &self,
        store: &Store,
        layout: &Layout,
        project: &ProjectName,
        artifact: &Digest,
    ) -> Result<Vec<String>, RemoteError> {
        let stored = self.tree(store, layout, (project, artifact)).await?;
        let repository = self.repository(project);
        let push = Push {
            remote: self,
            store,
            layout,
            project,
            repository: &repository,
        };
        push.blobs(&stored).await?;
        for one in &stored {
            push.manifest(one).await?;
        }
        let tags = tree::tags(store, project, artifact).await?;
        let root = stored.iter().find(|one| one.digest == *artifact);
        let root = root.ok_or_else(|| RemoteError::Malformed(artifact.clone()))?;
        for tag in &tags {
            push.manifests().tag(tag, root).await?;
        }
        Ok(tags)
    }

    /// What belongs to an artifact. Manifests that are lost here may be there.
    async fn tree(
        &self,
        store: &Store,
        layout: &Layout,
        of: (&ProjectName, &Digest),
    ) -> Result<Vec<Stored>, RemoteError> {
        for _ in 0..MENDS {
            match tree::manifests(store, layout, of).await {
                Err(RemoteError::Layout(LayoutError::Read { digest, .. })) => {
                    self.mend(store, layout, &digest).await?;
                }
                read => return read,
            }
        }
        tree::manifests(store, layout, of).await
    }
}

struct Push<'a> {
    remote: &'a Remote,
    store: &'a Store,
    layout: &'a Layout,
    project: &'a ProjectName,
    repository: &'a str,
}

impl Push<'_> {
    fn manifests(&self) -> Manifests<'_> {
        Manifests {
            link: &self.remote.0.link,
            repository: self.repository,
        }
    }

    /// Sends the blobs that the registry lacks, each once.
    async fn blobs(&self, stored: &[Stored]) -> Result<(), RemoteError> {
        let wanted: BTreeMap<Digest, u64> = stored
            .iter()
            .flat_map(|one| &one.blobs)
            .map(|blob| (blob.digest.clone(), blob.size))
            .collect();
        stream::iter(wanted)
            .map(|(digest, size)| self.blob(digest, size))
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    async fn blob(&self, digest: Digest, size: u64) -> Result<(), RemoteError> {
        let file = self.layout.path(&digest);
        let upload = Upload {
            link: &self.remote.0.link,
            repository: self.repository,
            digest: &digest,
            size,
            file: &file,
        };
        let is_distrusted = self.remote.is_distrusted(self.repository, &digest);
        if !is_distrusted && upload.is_there().await? {
            return Ok(());
        }
        // From elsewhere it would be what is distrusted, or lost there too.
        let from = if is_distrusted {
            None
        } else {
            self.elsewhere(&digest).await?
        };
        let from = from.map(|project| self.remote.repository(&project));
        upload.push(from.as_deref()).await?;
        self.remote.trust(self.repository, &digest);
        tracing::debug!(%digest, repository = self.repository, bytes = size, "blob pushed");
        Ok(())
    }

    /// Another project whose repository has the blob.
    async fn elsewhere(&self, digest: &Digest) -> Result<Option<ProjectName>, StoreError> {
        let project: Option<String> = sqlx::query_scalar(
            "SELECT p.project FROM packs p WHERE p.digest = $1 AND p.project <> $2 AND EXISTS ( \
                 SELECT 1 FROM release_packs rp JOIN releases r ON r.site = rp.site AND r.release_id = rp.release_id \
                 JOIN pushes ON pushes.project = p.project AND pushes.artifact = r.artifact \
                 WHERE rp.digest = p.digest AND rp.site LIKE p.project || '/%' AND pushes.registry = $3) LIMIT 1",
        )
        .bind(digest.as_str())
        .bind(self.project.as_str())
        .bind(self.remote.name())
        .fetch_optional(self.store.reader())
        .await?;
        project.as_deref().map(id).transpose()
    }

    async fn manifest(&self, stored: &Stored) -> Result<(), RemoteError> {
        let manifests = self.manifests();
        let digest = stored.digest.as_str();
        let is_distrusted = self.remote.is_distrusted(self.repository, &stored.digest);
        let is_there = !is_distrusted && manifests.names(digest, &stored.digest).await?;
        // Whether an index under a tag lists a referrer shows only when it is put. Where there is an API it is asked: some registries
        // list twice what is put twice.
        let is_found = match &stored.subject {
            Some(subject) if is_there => manifests.lists(subject, &stored.digest).await?,
            Some(_) | None => true,
        };
        if is_there && is_found {
            return Ok(());
        }
        match manifests.put(stored).await {
            Err(error) if error.lacks_a_blob() => {
                tracing::warn!(artifact = digest, repository = self.repository, error = %error, "the registry has lost blobs: they are pushed again");
                for blob in &stored.blobs {
                    self.remote.distrust(self.repository, &blob.digest);
                }
                self.blobs(std::slice::from_ref(stored)).await?;
                manifests.put(stored).await?;
            }
            put => put?,
        }
        self.remote.trust(self.repository, &stored.digest);
        Ok(())
    }
}
