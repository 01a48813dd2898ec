//! What belongs to an artifact: manifests, from the leaves up, with the blobs that each names; referrers; tags.
//!
//! Invariant: whatever is listed here is pushed, checked and repaired, and nothing else is.

use std::collections::BTreeSet;

use helix_routing::artifact::{Descriptor, MANIFEST_TYPE, MAX_MANIFEST_BYTES};
use helix_routing::id::{Digest, ProjectName, SiteId};
use serde::Deserialize;

use super::RemoteError;
use crate::artifact::Layout;
use crate::store::{Store, StoreError, id};

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// Manifests of one artifact, with its referrers.
const MAX_MANIFESTS: usize = 256;

/// A manifest as origin's store has it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) artifact_type: Option<String>,
    pub(super) bytes: Vec<u8>,
    pub(super) blobs: Vec<Descriptor>,
    pub(super) subject: Option<Digest>,
}

/// A manifest or an index: what the two have of references.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

/// All manifests of an artifact and its referrers, each after those that it names.
pub(super) async fn manifests(
    store: &Store,
    layout: &Layout,
    (project, artifact): (&ProjectName, &Digest),
) -> Result<Vec<Stored>, RemoteError> {
    let mut roots = vec![artifact.clone()];
    roots.extend(referrers(store, project, artifact).await?);
    let layout = layout.clone();
    let read = tokio::task::spawn_blocking(move || {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for root in &roots {
            walk(&layout, root, MAX_DEPTH, &mut found, &mut seen)?;
        }
        Ok(found)
    });
    match read.await {
        Ok(read) => read,
        Err(_) => Err(RemoteError::Malformed(artifact.clone())),
    }
}

fn walk(
    layout: &Layout,
    digest: &Digest,
    depth: usize,
    found: &mut Vec<Stored>,
    seen: &mut BTreeSet<Digest>,
) -> Result<(), RemoteError> {
    if !seen.insert(digest.clone()) {
        return Ok(());
    }
    let malformed = || RemoteError::Malformed(digest.clone());
    if depth == 0 || seen.len() > MAX_MANIFESTS {
        return Err(malformed());
    }
    let bytes = layout.read(digest, MAX_MANIFEST_BYTES as u64)?;
    let shape: Shape = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
    for child in &shape.manifests {
        walk(layout, &child.digest, depth - 1, found, seen)?;
    }
    found.push(Stored {
        digest: digest.clone(),
        media_type: shape.media_type.unwrap_or_else(|| MANIFEST_TYPE.to_owned()),
        artifact_type: shape.artifact_type,
        blobs: shape.config.into_iter().chain(shape.layers).collect(),
        subject: shape.subject.map(|subject| subject.digest),
        bytes,
    });
    Ok(())
}

/// Manifests that say more about an artifact: the improvement of a release, where it comes from, what it was made of. What else comes to refer to one is listed here, and
/// whoever adds it calls [`super::queue::want`] in the same transaction.
async fn referrers(
    store: &Store,
    project: &ProjectName,
    artifact: &Digest,
) -> Result<Vec<Digest>, StoreError> {
    // A project's name has no character that LIKE reads as a pattern.
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT improvement FROM releases WHERE artifact = $2 AND site LIKE $1 || '/%'
         AND improvement IS NOT NULL AND collected IS NULL
         UNION SELECT manifest FROM provenances WHERE project = $1 AND artifact = $2
         UNION SELECT manifest FROM bills WHERE project = $1 AND artifact = $2 ORDER BY 1",
    )
    .bind(project.as_str())
    .bind(artifact.as_str())
    .fetch_all(store.reader())
    .await?;
    rows.iter().map(|digest| id(digest)).collect()
}

/// Tags that name an artifact now: the label of each deployment of it, and its commit. A tag that a newer deployment has taken over is
/// not among them, so that a push that comes late takes nothing back.
pub(super) async fn tags(
    store: &Store,
    project: &ProjectName,
    artifact: &Digest,
) -> Result<Vec<String>, StoreError> {
    type Row = (String, String, Option<String>, i64, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT d.label, d.site, d.commit_id,
                (SELECT COUNT(*) FROM deployments newer WHERE newer.project = d.project AND newer.label = d.label
                 AND newer.number > d.number) AS newer_of_label,
                (SELECT COUNT(*) FROM deployments newer WHERE newer.project = d.project AND newer.site = d.site
                 AND newer.commit_id = d.commit_id AND newer.number > d.number) AS newer_of_commit
         FROM deployments d JOIN releases r ON r.site = d.site AND r.release_id = d.release_id
         WHERE d.project = $1 AND r.artifact = $2 AND r.collected IS NULL ORDER BY d.number",
    )
    .bind(project.as_str())
    .bind(artifact.as_str())
    .fetch_all(store.reader())
    .await?;
    let mut tags = BTreeSet::new();
    for (label, site, commit, newer_of_label, newer_of_commit) in rows {
        if newer_of_label == 0 {
            tags.insert(label.replace('/', "-"));
        }
        if let Some(commit) = commit.filter(|_| newer_of_commit == 0) {
            let site: SiteId = id(&site)?;
            let environment = site.environment.to_string().replace('/', "-");
            tags.insert(format!("git-{commit}-{environment}"));
        }
    }
    Ok(tags.into_iter().collect())
}
