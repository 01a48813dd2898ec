//! Looks whether all of a release is where it should be: in origin's own store, and in the registry. What is lost is fetched back, or pushed
//! again.
//!
//! Invariant: it changes nothing of what is served, and finds no more than it says: blobs that are only asked for may still have other
//! bytes there; reading them finds that out.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use helix_routing::api::{RegistryCheck, ReleaseCheck};
use helix_routing::id::{Digest, ProjectName, ReleaseId, SiteId};
use helix_service::error::chain;

use super::manifest::Manifests;
use super::queue;
use super::tree::{self, Stored};
use super::upload::Upload;
use super::{Remote, RemoteError};
use crate::app::App;
use crate::store::{StoreError, id};

/// Questions to the registry at one time.
const ASKED_AT_ONCE: usize = 8;
/// Clients end a call after two minutes. What was found until then is said.
const LONGEST: Duration = Duration::from_secs(90);

/// A release whose blobs are looked at.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The site that it is of.
    pub site: SiteId,
    /// The release.
    pub release: ReleaseId,
    /// Its manifest.
    pub artifact: Digest,
}

/// Looks at a release. With `read`, every blob of the registry is read to its end.
///
/// # Errors
/// When the database fails.
pub async fn check(app: &App, of: Checked, read: bool) -> Result<ReleaseCheck, StoreError> {
    let project = &of.site.project;
    let noted: Vec<String> = sqlx::query_scalar(
        "SELECT digest FROM release_packs WHERE site = $1 AND release_id = $2 ORDER BY digest",
    )
    .bind(of.site.to_string())
    .bind(of.release.as_str())
    .fetch_all(app.store.reader())
    .await?;
    let (mut mended, mut lost) = (Vec::new(), Vec::new());
    for digest in &noted {
        let digest: Digest = id(digest)?;
        match app.artifacts.whole_again(&digest).await {
            Ok(true) => mended.push(digest),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%digest, error = %chain(&error), "a blob is lost");
                lost.push(digest);
            }
        }
    }
    let registry = match &app.remote {
        Some(remote) => Some(ask(app, remote, &of, read).await?),
        None => None,
    };
    if registry
        .as_ref()
        .is_some_and(|found| !found.lost.is_empty() || !found.tags_lost.is_empty())
    {
        let mut tx = app.store.write().await?;
        queue::want(&mut tx, project, &of.artifact).await?;
        tx.commit().await?;
    }
    Ok(ReleaseCheck {
        blobs: noted.len() as u64,
        release: of.release,
        artifact: of.artifact,
        site: of.site,
        mended,
        lost,
        registry,
    })
}

/// What the registry has. What goes wrong is a part of the answer.
async fn ask(
    app: &App,
    remote: &Remote,
    of: &Checked,
    read: bool,
) -> Result<RegistryCheck, StoreError> {
    let mut found = RegistryCheck {
        registry: remote.name().to_owned(),
        lost: Vec::new(),
        tags_lost: Vec::new(),
        problem: None,
    };
    let asked = asked(app, remote, of, read, &mut found);
    let problem = match tokio::time::timeout(LONGEST, asked).await {
        Ok(Ok(())) => None,
        Ok(Err(RemoteError::Store(error))) => return Err(error),
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("not through after {} s", LONGEST.as_secs())),
    };
    found.problem = problem;
    Ok(found)
}

async fn asked(
    app: &App,
    remote: &Remote,
    of: &Checked,
    read: bool,
    found: &mut RegistryCheck,
) -> Result<(), RemoteError> {
    let project = &of.site.project;
    let layout = app.artifacts.layout();
    let stored = tree::manifests(&app.store, layout, (project, &of.artifact)).await?;
    let repository = remote.repository(project);
    found.lost = lost_blobs(app, remote, &repository, &stored, read).await?;
    for digest in &found.lost {
        // It may say that it has them.
        remote.distrust(&repository, digest);
    }
    let manifests = Manifests {
        link: &remote.0.link,
        repository: &repository,
    };
    for one in &stored {
        if manifests.read(one.digest.as_str()).await?.as_ref() != Some(&one.bytes) {
            remote.distrust(&repository, &one.digest);
            found.lost.push(one.digest.clone());
        }
    }
    found.tags_lost = lost_tags(app, manifests, project, &of.artifact).await?;
    Ok(())
}

async fn lost_tags(
    app: &App,
    manifests: Manifests<'_>,
    project: &ProjectName,
    artifact: &Digest,
) -> Result<Vec<String>, RemoteError> {
    let mut lost = Vec::new();
    for tag in tree::tags(&app.store, project, artifact).await? {
        if !manifests.names(&tag, artifact).await? {
            lost.push(tag);
        }
    }
    Ok(lost)
}

async fn lost_blobs(
    app: &App,
    remote: &Remote,
    repository: &str,
    stored: &[Stored],
    read: bool,
) -> Result<Vec<Digest>, RemoteError> {
    let mut blobs: Vec<(Digest, u64)> = stored
        .iter()
        .flat_map(|one| &one.blobs)
        .map(|blob| (blob.digest.clone(), blob.size))
        .collect();
    blobs.sort();
    blobs.dedup();
    let looked = stream::iter(blobs).map(|(digest, size)| async move {
        let file = app.artifacts.layout().path(&digest);
        let is_there = if read {
            remote.reads_back(repository, &digest, size).await?
        } else {
            let upload = Upload {
                link: &remote.0.link,
                repository,
                digest: &digest,
                size,
                file: &file,
            };
            upload.is_there().await?
        };
        Ok::<_, RemoteError>((!is_there).then_some(digest))
    });
    let lost: Vec<Option<Digest>> = looked.buffered(ASKED_AT_ONCE).try_collect().await?;
    Ok(lost.into_iter().flatten().collect())
}
