//! The same files as another release: for another site of the project, or with other variables.
//!
//! Invariant: nothing is packed or uploaded again. Index and packs are those of the release that it is made of; only config and manifest
//! say for which site they are.

use std::time::Duration;

use helix_routing::artifact::MAX_MANIFEST_BYTES;
use helix_routing::id::{Digest, ReleaseId, SiteId};
use helix_routing::record::ReleaseRef;

use super::content::blocking;
use super::manifest::{config_bytes, restated};
use super::read::{read_manifest, read_routes};
use super::release::{MakeError, Row, Written, release_id};
use super::{Artifacts, Layout, LayoutError};
use crate::store::{StoreError, count, id};

type Kept = (String, String, Option<String>, i64, i64, i64);

impl Artifacts {
    /// Makes the release of `from`'s files in `to`, with a revision of the variables. None when `from` is not kept.
    ///
    /// # Errors
    /// When a blob cannot be read or written, or the database fails.
    pub async fn restate(
        &self,
        from: (&SiteId, &ReleaseId),
        to: &SiteId,
        env_revision: Option<u64>,
    ) -> Result<Option<ReleaseRef>, MakeError> {
        let kept: Option<Kept> = sqlx::query_as(
            "SELECT artifact, content, routes, files, bytes, gates_ms FROM releases WHERE site = $1 AND release_id = $2 AND collected IS NULL",
        )
        .bind(from.0.to_string())
        .bind(from.1.as_str())
        .fetch_optional(self.store.reader())
        .await
        .map_err(StoreError::from)?;
        let Some((artifact, content, routes, files, bytes, gates_ms)) = kept else {
            return Ok(None);
        };
        let routes: Option<Digest> = routes.as_deref().map(id).transpose()?;
        let row = Row {
            content: id(&content)?,
            totals: (
                count(files, "releases.files")?,
                count(bytes, "releases.bytes")?,
            ),
            gates: Duration::from_millis(count(gates_ms, "releases.gates_ms")?),
            routes,
            env_revision,
        };
        let release = release_id(to, &row.content, env_revision, row.routes.as_ref());
        if let Some(artifact) = self.kept(to, &release).await? {
            return Ok(Some(ReleaseRef { release, artifact }));
        }
        let (layout, site, artifact) = (self.layout.clone(), to.clone(), id(&artifact)?);
        let is_same = from.0 == to;
        let written = blocking(move || write(&layout, &site, &artifact, is_same)).await?;
        let made = ReleaseRef {
            release,
            artifact: written.manifest.clone(),
        };
        self.record(to, &made, &row, &written).await?;
        Ok(Some(made))
    }
}

fn write(
    layout: &Layout,
    site: &SiteId,
    artifact: &Digest,
    is_same: bool,
) -> Result<Written, MakeError> {
    let manifest = read_manifest(layout, artifact)?;
    if is_same {
        let bytes = layout.read(artifact, MAX_MANIFEST_BYTES as u64)?;
        return Ok(Written::of(&manifest, artifact.clone(), bytes.len() as u64));
    }
    let config = config_bytes(site, read_routes(layout, artifact)?);
    let manifest = restated(manifest, site, &config);
    let bytes = serde_json::to_vec(&manifest).expect("plain data with text keys always encodes");
    layout.put(&config)?;
    let digest: Result<Digest, LayoutError> = layout.put(&bytes);
    Ok(Written::of(&manifest, digest?, bytes.len() as u64))
}
