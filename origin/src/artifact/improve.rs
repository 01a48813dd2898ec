//! Improvements: when a release has settled, its contents are encoded again, as hard as can be, and edges may fetch what
//! came of it.
//!
//! ```text
//! settled ──▶ encode what was not tried, a few contents at a time ──▶ a manifest whose `subject` is the release's
//! ```
//!
//! Invariants: the queue is SQL, so that a restart goes on where it was; one release is worked on at a time, and never
//! while a rollout runs. A release has one improvement at most, also when it holds nothing: then edges stop asking.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use helix_routing::artifact::{
    ContentEncoding, Descriptor, EMPTY_CONFIG, EMPTY_TYPE, FileEntry, FileIndex, Improvement,
    MANIFEST_TYPE, VARIANTS_TYPE, Variant,
};
use helix_routing::id::{Digest, SiteId};
use helix_service::error::chain;
use helix_service::shutdown::Shutdown;
use tokio::time::sleep;

use super::coding::{self, Effort};
use super::content::{Place, Places, UploadError, blocking, insert_blob, places};
use super::manifest::improvement;
use super::read::ReadError;
use super::variants::{Job, Known};
use super::{Artifacts, LayoutError};
use crate::remote::queue;
use crate::store::{StoreError, Tx, count, id};

/// Between looks for work, and after a failure.
const LOOK: Duration = Duration::from_secs(5);
/// Contents above this are encoded quickly here too: the slowest encoder would take tens of seconds for one.
const MAX_SLOW_BYTES: u64 = 4 * 1024 * 1024;
/// Contents encoded before others have their turn, in bytes: a second or so of work.
const TURN_BYTES: u64 = 512 * 1024;
/// Level of the list of variants, which every edge fetches.
const LIST_LEVEL: i32 = 6;

/// A release was not improved; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ImproveError {
    /// Its index cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its variants cannot be made or kept.
    #[error(transparent)]
    Encode(#[from] UploadError),
    /// The disk refused.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A release that can be improved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its site.
    pub site: SiteId,
    /// Its id.
    pub release: String,
    /// Its manifest.
    pub artifact: Digest,
}

/// Improves releases one by one, until shutdown.
pub async fn run(artifacts: &Artifacts, shutdown: &Shutdown) {
    let work = async {
        loop {
            match artifacts.improve_next().await {
                Ok(true) => {}
                Ok(false) => sleep(LOOK).await,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a release is not improved");
                    sleep(LOOK).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.requested() => {}
        () = work => {}
    }
}

impl Artifacts {
    /// Improves the newest release that wants it; false when none does.
    ///
    /// # Errors
    /// As [`ImproveError`] says.
    pub async fn improve_next(&self) -> Result<bool, ImproveError> {
        let Some(wanted) = self.wanted().await? else {
            return Ok(false);
        };
        let (site, artifact) = (&wanted.site, &wanted.artifact);
        let index = self.index(artifact).await?;
        let started = Instant::now();
        let contents = entries(&index);
        let digests: BTreeSet<Digest> = contents.keys().map(|digest| (*digest).clone()).collect();
        let places = places(&self.store, &site.project, digests.iter()).await?;
        let tried = self.tried(&site.project, &digests).await?;
        for turn in turns(jobs(&contents, &places, &tried)) {
            self.wait_for_rollouts().await?;
            let began = Instant::now();
            match self.encode(&site.project, turn, None).await {
                // Without room for more the project goes on with what it has.
                Ok(()) | Err(UploadError::Quota { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            // As long again for others: this work is never in a hurry.
            sleep(began.elapsed()).await;
        }
        let found = self.better(site, &contents, &digests).await?;
        let (improved, took_ms) = (found.len(), started.elapsed().as_millis());
        let manifest = self.publish(&wanted, found).await?;
        tracing::info!(%site, release.id = wanted.release, improvement = %manifest, contents = improved, took_ms, "release improved");
        Ok(true)
    }

    /// The newest release that settled somewhere, is kept and has no improvement.
    async fn wanted(&self) -> Result<Option<Wanted>, StoreError> {
        let row: Option<(String, String, String)> = sqlx::query_as(
            "SELECT releases.site, releases.release_id, releases.artifact FROM releases
             JOIN region_sites ON region_sites.site = releases.site AND region_sites.settled = releases.release_id
             WHERE releases.collected IS NULL AND releases.improvement IS NULL
             AND NOT EXISTS (SELECT 1 FROM rollouts WHERE outcome IS NULL)
             ORDER BY releases.created DESC LIMIT 1",
        )
        .fetch_optional(self.store.reader())
        .await?;
        row.map(|(site, release, artifact)| {
            Ok(Wanted {
                site: id(&site)?,
                release,
                artifact: id(&artifact)?,
            })
        })
        .transpose()
    }

    async fn wait_for_rollouts(&self) -> Result<(), StoreError> {
        loop {
            let running: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM rollouts WHERE outcome IS NULL")
                    .fetch_one(self.store.reader())
                    .await?;
            if running == 0 {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// Variants that are smaller than those the release has.
    async fn better(
        &self,
        site: &SiteId,
        contents: &BTreeMap<&Digest, &FileEntry>,
        digests: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<Digest, Vec<Variant>>, StoreError> {
        let known = self.tried(&site.project, digests).await?;
        let mut variants = Places::new();
        self.locate(&site.project, &known, &mut variants).await?;
        let mut found = BTreeMap::new();
        for (digest, entry) in contents {
            let tried = known.get(*digest).into_iter().flatten();
            let better: Vec<Variant> = tried
                .filter_map(|(coding, tried)| {
                    let variant = tried.variant.as_ref()?;
                    let place = variants.get(variant)?;
                    let before = size_of(entry, *coding).unwrap_or(entry.size);
                    coding::is_gain(before, place.length).then(|| Variant {
                        encoding: *coding,
                        digest: variant.clone(),
                        size: place.length,
                        pack: place.pack.clone(),
                        offset: place.offset,
                    })
                })
                .collect();
            if !better.is_empty() {
                found.insert((*digest).clone(), better);
            }
        }
        Ok(found)
    }

    /// Writes the improvement, and notes it as a part of its release.
    async fn publish(
        &self,
        wanted: &Wanted,
        variants: BTreeMap<Digest, Vec<Variant>>,
    ) -> Result<Digest, ImproveError> {
        let project = &wanted.site.project;
        let used: BTreeSet<&Digest> = variants.values().flatten().map(|one| &one.pack).collect();
        let packs = self.blobs(project, &used).await?;
        let list = Improvement {
            version: 1,
            variants,
        };
        let (layout, artifact) = (self.layout.clone(), wanted.artifact.clone());
        let written = blocking(move || {
            let subject = Descriptor {
                media_type: MANIFEST_TYPE.to_owned(),
                size: layout.size(&artifact)?,
                digest: artifact,
                annotations: BTreeMap::new(),
            };
            let list = serde_json::to_vec(&list).expect("plain data always encodes");
            let list =
                zstd::bulk::compress(&list, LIST_LEVEL).map_err(|source| LayoutError::Store {
                    path: "variants".into(),
                    source,
                })?;
            let manifest = improvement(subject, &list, &packs);
            let bytes = serde_json::to_vec(&manifest).expect("plain data always encodes");
            let config = layout.put(EMPTY_CONFIG)?;
            let (list_digest, manifest) = (layout.put(&list)?, layout.put(&bytes)?);
            let mut blobs = packs;
            blobs.insert(config, (EMPTY_TYPE, EMPTY_CONFIG.len() as u64));
            blobs.insert(list_digest, (VARIANTS_TYPE, list.len() as u64));
            blobs.insert(manifest.clone(), (MANIFEST_TYPE, bytes.len() as u64));
            Ok::<_, LayoutError>((manifest, blobs))
        });
        let (manifest, blobs) = written.await?;
        let mut tx = self.store.write().await?;
        note(&mut tx, wanted, &manifest, &blobs).await?;
        tx.commit().await?;
        Ok(manifest)
    }
}

/// Contents that have a variant, or may have one: what their first file says of them.
fn entries(index: &FileIndex) -> BTreeMap<&Digest, &FileEntry> {
    let encoded = index.files.values().filter(|entry| {
        coding::compressible(&entry.media_type)
            && (coding::MIN_BYTES..=coding::MAX_BYTES).contains(&entry.size)
    });
    encoded.map(|entry| (&entry.digest, entry)).collect()
}

fn size_of(entry: &FileEntry, coding: ContentEncoding) -> Option<u64> {
    let variant = entry.variants.iter().find(|one| one.encoding == coding)?;
    Some(variant.size)
}

/// What was not tried yet.
fn jobs(contents: &BTreeMap<&Digest, &FileEntry>, places: &Places, tried: &Known) -> Vec<Job> {
    let all = [
        ContentEncoding::Br,
        ContentEncoding::Zstd,
        ContentEncoding::Gzip,
    ];
    let job = |digest: &Digest, entry: &FileEntry, place: &Place| {
        let effort = if entry.size > MAX_SLOW_BYTES {
            Effort::Quick
        } else {
            Effort::Slow
        };
        let is_left = |coding: &ContentEncoding| {
            let tried = tried.get(digest).and_then(|tried| tried.get(coding));
            tried.is_none_or(|tried| tried.effort < effort)
        };
        let codings: Vec<_> = all
            .into_iter()
            .filter(is_left)
            .map(|coding| (coding, size_of(entry, coding).unwrap_or(entry.size)))
            .collect();
        (!codings.is_empty()).then(|| Job {
            content: digest.clone(),
            place: place.clone(),
            effort,
            codings,
        })
    };
    contents
        .iter()
        .filter_map(|(digest, entry)| job(digest, entry, places.get(*digest)?))
        .collect()
}

fn turns(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let mut turns: Vec<Vec<Job>> = Vec::new();
    let mut room = 0;
    for job in jobs {
        let size = job.place.size;
        match turns.last_mut() {
            Some(turn) if size <= room => turn.push(job),
            _ => {
                room = TURN_BYTES;
                turns.push(vec![job]);
            }
        }
        room = room.saturating_sub(size);
    }
    turns
}

/// A release that was collected meanwhile keeps nothing.
async fn note(
    tx: &mut Tx,
    wanted: &Wanted,
    manifest: &Digest,
    blobs: &BTreeMap<Digest, (&'static str, u64)>,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE releases SET improvement = $4
         WHERE site = $1 AND release_id = $2 AND artifact = $3 AND collected IS NULL",
    )
    .bind(wanted.site.to_string())
    .bind(&wanted.release)
    .bind(wanted.artifact.as_str())
    .bind(manifest.as_str())
    .execute(&mut **tx)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(());
    }
    for (digest, (media_type, size)) in blobs {
        insert_blob(tx, &wanted.site.project, digest, media_type, *size).await?;
        sqlx::query(
            "INSERT INTO release_packs (site, release_id, digest) VALUES ($1, $2, $3)
             ON CONFLICT (site, release_id, digest) DO NOTHING",
        )
        .bind(wanted.site.to_string())
        .bind(&wanted.release)
        .bind(digest.as_str())
        .execute(&mut **tx)
        .await?;
    }
    queue::want(tx, &wanted.site.project, &wanted.artifact).await
}

impl Artifacts {
    /// Types and sizes of blobs that hold contents.
    async fn blobs(
        &self,
        project: &helix_routing::id::ProjectName,
        digests: &BTreeSet<&Digest>,
    ) -> Result<BTreeMap<Digest, (&'static str, u64)>, StoreError> {
        let mut blobs = BTreeMap::new();
        for digest in digests {
            let row: Option<(String, i64)> = sqlx::query_as(
                "SELECT media_type, size FROM packs WHERE project = $1 AND digest = $2",
            )
            .bind(project.as_str())
            .bind(digest.as_str())
            .fetch_optional(self.store.reader())
            .await?;
            let (media_type, size) = row.ok_or(StoreError::Corrupt {
                what: "the blob of a variant",
            })?;
            let known = [
                helix_routing::artifact::PACK_TYPE,
                helix_routing::artifact::BLOB_TYPE,
            ];
            let media_type = known.into_iter().find(|known| *known == media_type).ok_or(
                StoreError::Corrupt {
                    what: "packs.media_type",
                },
            )?;
            blobs.insert((*digest).clone(), (media_type, count(size, "packs.size")?));
        }
        Ok(blobs)
    }
}
