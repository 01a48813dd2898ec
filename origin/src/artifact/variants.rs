//! Variants: contents encoded once for clients that accept it, and kept as contents themselves.
//!
//! Invariant: what is noted as a variant of a content was encoded from bytes of that content, and lies where any
//! content lies, so that it is packed anew, counted and collected like one. It does not decide which client gets which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future::ready;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use helix_routing::artifact::{
    BLOB_TYPE, ContentEncoding, Encoding, PACK_BYTES, PACK_TYPE, STANDALONE_BYTES,
};
use helix_routing::id::{Digest, ProjectName};
use helix_service::digest::sha256;

use super::coding::{self, Effort};
use super::content::{
    BINDS, Place, Places, UploadError, blocking, insert_blob, insert_contents, places,
};
use super::pack::{Pack, Packed};
use super::{Artifacts, Layout, LayoutError};
use crate::store::{Statement, StoreError, Tx, id};

/// How long a release waits for its variants. What is not made by then is made after it went out, by [`super::improve`];
/// meanwhile there is the stored frame, which is the zstd variant.
const QUICK: Duration = Duration::from_secs(1);
/// Contents encoded by one piece of work, in bytes: large enough that handing it over costs nothing.
const BATCH_BYTES: u64 = 512 * 1024;
/// Values of one row of variants.
const VARIANT_BINDS: usize = 5;

/// What was tried with one content under one coding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) effort: Effort,
    /// The encoded bytes; none when they were not worth it.
    pub(super) variant: Option<Digest>,
}

/// What was tried, by content and coding.
pub(super) type Known = BTreeMap<Digest, BTreeMap<ContentEncoding, Tried>>;

/// A content, and the codings it is to be encoded in.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) content: Digest,
    pub(super) place: Place,
    pub(super) effort: Effort,
    /// Each with the most bytes its result may have to be of use.
    pub(super) codings: Vec<(ContentEncoding, u64)>,
}

/// What came of one coding of one content.
#[derive(Debug)]
pub(super) struct Made {
    content: Digest,
    coding: ContentEncoding,
    effort: Effort,
    result: Encoded,
}

#[derive(Debug)]
enum Encoded {
    Useless,
    Small(Vec<u8>),
    /// So large that it is a blob of its own, which is stored already.
    Blob(Digest, u64),
}

impl Artifacts {
    /// What was tried with these contents before.
    pub(super) async fn tried(
        &self,
        project: &ProjectName,
        contents: &BTreeSet<Digest>,
    ) -> Result<Known, StoreError> {
        let mut connection = self.store.read().await?;
        let contents: Vec<&Digest> = contents.iter().collect();
        let mut known = Known::new();
        for part in contents.chunks(BINDS) {
            let rows: Vec<(String, String, String, Option<String>)> = Statement::new(
                "SELECT content, coding, effort, variant FROM variants WHERE project = ",
            )
            .bind(project.as_str())
            .text(" AND content IN (")
            .list(part, |list, content| list.bind(content.as_str()))
            .text(")")
            .rows()?
            .fetch_all(&mut *connection)
            .await?;
            for (content, coding, effort, variant) in rows {
                let corrupt = |what| StoreError::Corrupt { what };
                let coding = coding::coding(&coding).ok_or_else(|| corrupt("variants.coding"))?;
                let tried = Tried {
                    effort: Effort::from_name(&effort).ok_or_else(|| corrupt("variants.effort"))?,
                    variant: variant.as_deref().map(id).transpose()?,
                };
                known
                    .entry(id(&content)?)
                    .or_default()
                    .insert(coding, tried);
            }
        }
        Ok(known)
    }

    /// The variants that the given contents have, made now where they can be made quickly; where each lies is added to `places`.
    ///
    /// Without room for them the project goes on without.
    pub(super) async fn quick_variants(
        &self,
        project: &ProjectName,
        contents: &BTreeSet<Digest>,
        places: &mut Places,
    ) -> Result<Known, UploadError> {
        let before = self.tried(project, contents).await?;
        let mut jobs: Vec<Job> = contents
            .iter()
            .filter_map(|content| quick_job(content, places.get(content)?, before.get(content)))
            .collect();
        // Pages, styles and scripts are small, and asked for first; maps and dumps are large.
        jobs.sort_by_key(|job| job.place.size);
        if jobs.is_empty() {
            self.locate(project, &before, places).await?;
            return Ok(before);
        }
        let (count, started) = (jobs.len(), Instant::now());
        match self.encode(project, jobs, Some(started + QUICK)).await {
            Ok(()) => {
                let took_ms = started.elapsed().as_millis();
                tracing::info!(%project, contents = count, took_ms, "variants made");
            }
            Err(full @ UploadError::Quota { .. }) => {
                tracing::warn!(%project, error = %full, "variants are not made");
            }
            Err(error) => return Err(error),
        }
        let known = self.tried(project, contents).await?;
        self.locate(project, &known, places).await?;
        Ok(known)
    }

    /// Adds where the variants lie.
    pub(super) async fn locate(
        &self,
        project: &ProjectName,
        known: &Known,
        all: &mut Places,
    ) -> Result<(), StoreError> {
        let variants: BTreeSet<&Digest> = known
            .values()
            .flat_map(BTreeMap::values)
            .filter_map(|tried| tried.variant.as_ref())
            .collect();
        all.extend(places(&self.store, project, variants.into_iter()).await?);
        Ok(())
    }

    /// Encodes contents side by side, and keeps what is of use. What was not begun when `until` comes is left.
    pub(super) async fn encode(
        &self,
        project: &ProjectName,
        jobs: Vec<Job>,
        until: Option<Instant>,
    ) -> Result<(), UploadError> {
        let in_time = move |_: &Vec<Job>| ready(until.is_none_or(|until| Instant::now() < until));
        let work = stream::iter(batches(jobs))
            .take_while(in_time)
            .map(|batch| async move {
                let _permit = self
                    .encoding
                    .acquire()
                    .await
                    .expect("the semaphore is never closed");
                let layout = self.layout.clone();
                blocking(move || run(&layout, &batch)).await
            });
        let mut work = std::pin::pin!(work.buffered(self.encoders));
        let mut ready = Vec::new();
        let mut bytes = 0;
        while let Some(made) = work.next().await {
            for made in made? {
                let size = match &made.result {
                    Encoded::Small(encoded) => encoded.len() as u64,
                    Encoded::Useless | Encoded::Blob(..) => 0,
                };
                if bytes + size > PACK_BYTES {
                    self.keep(project, std::mem::take(&mut ready)).await?;
                    bytes = 0;
                }
                bytes += size;
                ready.push(made);
            }
        }
        self.keep(project, ready).await
    }

    /// Notes what was made, and stores what is small in one pack.
    async fn keep(&self, project: &ProjectName, made: Vec<Made>) -> Result<(), UploadError> {
        let mut pack = Pack::default();
        let mut seen = BTreeSet::new();
        let mut blobs = Vec::new();
        let mut rows = Vec::with_capacity(made.len());
        for made in made {
            let variant = match made.result {
                Encoded::Useless => None,
                Encoded::Small(encoded) => {
                    let digest = sha256(&encoded);
                    if seen.insert(digest.clone()) {
                        let size = encoded.len() as u64;
                        pack.push(digest.clone(), size, Encoding::Identity, &encoded);
                    }
                    Some(digest)
                }
                Encoded::Blob(digest, size) => {
                    blobs.push((digest.clone(), size));
                    Some(digest)
                }
            };
            rows.push((made.content, made.coding, made.effort, variant));
        }
        let more = pack.bytes.len() as u64 + blobs.iter().map(|(_, size)| size).sum::<u64>();
        self.check_quota(project, more).await?;
        let stored = if pack.contents.is_empty() {
            None
        } else {
            let layout = self.layout.clone();
            let size = pack.bytes.len() as u64;
            let Pack { bytes, contents } = pack;
            let blob = blocking(move || layout.put(&bytes)).await?;
            Some((blob, size, contents))
        };
        let mut tx = self.store.write().await?;
        if let Some((blob, size, contents)) = stored {
            insert_blob(&mut tx, project, &blob, PACK_TYPE, size).await?;
            insert_contents(&mut tx, project, &blob, &contents).await?;
        }
        for (digest, size) in blobs {
            insert_blob(&mut tx, project, &digest, BLOB_TYPE, size).await?;
            let content = Packed {
                digest: digest.clone(),
                size,
                offset: 0,
                length: size,
                encoding: Encoding::Identity,
                encoded: None,
            };
            insert_contents(&mut tx, project, &digest, std::slice::from_ref(&content)).await?;
        }
        note(&mut tx, project, &rows).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// What is left to do before a release with this content goes out.
fn quick_job(
    content: &Digest,
    place: &Place,
    tried: Option<&BTreeMap<ContentEncoding, Tried>>,
) -> Option<Job> {
    if !(coding::MIN_BYTES..=coding::MAX_BYTES).contains(&place.size) {
        return None;
    }
    let is_tried = |coding| tried.is_some_and(|tried| tried.contains_key(&coding));
    // The stored frame is the zstd one.
    let codings: Vec<_> = [ContentEncoding::Br, ContentEncoding::Gzip]
        .into_iter()
        .filter(|coding| !is_tried(*coding))
        .map(|coding| (coding, place.size))
        .collect();
    (!codings.is_empty()).then(|| Job {
        content: content.clone(),
        place: place.clone(),
        effort: Effort::Quick,
        codings,
    })
}

fn batches(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let mut batches: Vec<Vec<Job>> = Vec::new();
    let mut room = 0;
    for job in jobs {
        let size = job.place.size;
        match batches.last_mut() {
            Some(batch) if size <= room => batch.push(job),
            _ => {
                room = BATCH_BYTES;
                batches.push(vec![job]);
            }
        }
        room = room.saturating_sub(size);
    }
    batches
}

fn run(layout: &Layout, jobs: &[Job]) -> Result<Vec<Made>, LayoutError> {
    let mut made = Vec::new();
    for job in jobs {
        let failed = |source| LayoutError::Read {
            digest: job.content.clone(),
            source,
        };
        let is_small = job.place.size < STANDALONE_BYTES;
        let content = if is_small {
            Some(read_content(layout, &job.place)?)
        } else {
            None
        };
        for (coding, limit) in &job.codings {
            let result = match &content {
                Some(content) => small(*coding, job.effort, content),
                None => large(layout, job, *coding, *limit),
            };
            let result = result.map_err(failed)?;
            made.push(Made {
                content: job.content.clone(),
                coding: *coding,
                effort: job.effort,
                result: useful(result, job.place.size, *limit),
            });
        }
    }
    Ok(made)
}

/// Of use when it saves enough of the content, and of what there was.
fn useful(result: Encoded, size: u64, limit: u64) -> Encoded {
    let encoded = match &result {
        Encoded::Useless => return result,
        Encoded::Small(encoded) => encoded.len() as u64,
        Encoded::Blob(_, encoded) => *encoded,
    };
    if is_useful(size, limit, encoded) {
        result
    } else {
        Encoded::Useless
    }
}

const fn is_useful(size: u64, limit: u64, encoded: u64) -> bool {
    coding::is_worth_it(size, encoded) && (limit == size || coding::is_gain(limit, encoded))
}

fn small(coding: ContentEncoding, effort: Effort, content: &[u8]) -> io::Result<Encoded> {
    let mut encoded = Vec::with_capacity(content.len() / 2);
    coding::encode(
        coding,
        effort,
        content.len() as u64,
        &mut &*content,
        &mut encoded,
    )?;
    Ok(Encoded::Small(encoded))
}

/// Through a file, so that memory stays small.
fn large(layout: &Layout, job: &Job, coding: ContentEncoding, limit: u64) -> io::Result<Encoded> {
    let path = layout.temporary();
    let done = write_large(layout, job, coding, &path).and_then(|()| {
        let encoded = path.metadata()?.len();
        if !is_useful(job.place.size, limit, encoded) {
            return Ok(Encoded::Useless);
        }
        if encoded < STANDALONE_BYTES {
            return std::fs::read(&path).map(Encoded::Small);
        }
        let digest = helix_service::digest::sha256_of(&mut File::open(&path)?)?;
        layout.adopt(&path, &digest).map_err(io::Error::other)?;
        Ok(Encoded::Blob(digest, encoded))
    });
    // Adopted or not, nothing is left beside.
    let _ = std::fs::remove_file(&path);
    done
}

fn write_large(
    layout: &Layout,
    job: &Job,
    coding: ContentEncoding,
    path: &std::path::Path,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create_new(path)?);
    let mut content = open(layout, &job.place)?;
    coding::encode(coding, job.effort, job.place.size, &mut content, &mut out)?;
    out.flush()
}

/// A content as a whole; the caller knows that it is small.
pub(super) fn read_content(layout: &Layout, place: &Place) -> Result<Vec<u8>, LayoutError> {
    let mut content = Vec::new();
    match open(layout, place).and_then(|mut from| from.read_to_end(&mut content)) {
        Ok(_) => Ok(content),
        Err(source) => Err(LayoutError::Read {
            digest: place.pack.clone(),
            source,
        }),
    }
}

/// A content's bytes. They were verified when they came in.
fn open(layout: &Layout, place: &Place) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(layout.path(&place.pack))?;
    file.seek(SeekFrom::Start(place.offset))?;
    let encoded = BufReader::new(file.take(place.length));
    Ok(match place.encoding {
        Encoding::Identity => Box::new(encoded),
        Encoding::Zstd => Box::new(zstd::Decoder::with_buffer(encoded)?.take(place.size)),
    })
}

type Row = (Digest, ContentEncoding, Effort, Option<Digest>);

/// Notes what was tried. What was better before stays.
async fn note(tx: &mut Tx, project: &ProjectName, rows: &[Row]) -> Result<(), StoreError> {
    for part in rows.chunks(BINDS / VARIANT_BINDS) {
        Statement::new("INSERT INTO variants (project, content, coding, effort, variant) VALUES ")
            .list(part, |row, (content, coding, effort, variant)| {
                row.row()
                    .value(project.as_str())
                    .value(content.as_str())
                    .value(coding.name())
                    .value(effort.name())
                    .value(variant.as_ref().map(Digest::as_str))
                    .end()
            })
            .text(
                " ON CONFLICT (project, content, coding) DO UPDATE SET effort = excluded.effort,
                  variant = COALESCE(excluded.variant, variants.variant)",
            )
            .query()?
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Forgets variants of contents that lie in a blob, and variants that lie there themselves.
pub(crate) async fn forget(tx: &mut Tx, project: &str, blob: &str) -> Result<(), StoreError> {
    let statements = [
        "DELETE FROM variants WHERE project = $1
         AND content IN (SELECT digest FROM contents WHERE project = $1 AND pack = $2)",
        "DELETE FROM variants WHERE project = $1
         AND variant IN (SELECT digest FROM contents WHERE project = $1 AND pack = $2)",
    ];
    for statement in statements {
        sqlx::query(statement)
            .bind(project)
            .bind(blob)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::time::Timestamp;

    fn place(size: u64) -> Place {
        Place {
            size,
            pack: sha256(b"pack"),
            offset: 0,
            length: size,
            encoding: Encoding::Identity,
            encoded: None,
            seen: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        let content = sha256(b"content");
        let codings = |tried: &[ContentEncoding], size| {
            let tried = tried
                .iter()
                .map(|coding| {
                    let tried = Tried {
                        effort: Effort::Quick,
                        variant: None,
                    };
                    (*coding, tried)
                })
                .collect();
            quick_job(&content, &place(size), Some(&tried)).map_or(0, |job| job.codings.len())
        };
        assert_eq!(codings(&[], 5000), 2);
        assert_eq!(codings(&[ContentEncoding::Br], 5000), 1);
        assert_eq!(
            codings(&[ContentEncoding::Br, ContentEncoding::Gzip], 5000),
            0
        );
        assert_eq!(codings(&[], coding::MIN_BYTES - 1), 0);
        assert_eq!(codings(&[], coding::MAX_BYTES + 1), 0);
    }

    #[test]
    fn batches_hold_every_job_once() {
        let job = |size| Job {
            content: sha256(b"content"),
            place: place(size),
            effort: Effort::Quick,
            codings: Vec::new(),
        };
        let sizes = [
            10,
            BATCH_BYTES,
            BATCH_BYTES / 2,
            BATCH_BYTES / 2,
            1,
            5 * BATCH_BYTES,
            3,
        ];
        let batches = batches(sizes.map(job).to_vec());
        assert_eq!(batches.concat().len(), sizes.len());
        assert!(batches.len() < sizes.len());
    }
}
