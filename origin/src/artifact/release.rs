//! Making a release of uploaded contents: its index, config and manifest, and its row in SQL.
//!
//! Invariant: a release is its paths, contents and types in one site. Made again of the same, by
//! anyone, at any time, it has the same id, and while it is kept the same manifest. How its
//! contents are packed is no part of it.
//!
//! The id is the first 20 hex digits of SHA-256 over these lines, each ended by a line feed:
//!
//! ```text
//! helixstack.release.v1
//! <site>
//! <digest over the files: path, content, type>
//! env <revision>    of the variables, or none
//! routes <digest>   of the route table as JSON, or none
//! health default    until there are health policies
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helix_routing::api::NewFile;
use helix_routing::artifact::{
    BLOB_TYPE, CONFIG_TYPE, FileIndex, INDEX_TYPE, InvalidPath, MANIFEST_TYPE, MAX_CONFIG_BYTES,
    MAX_INDEX_BYTES, MAX_MANIFEST_BYTES, Manifest, PACK_BYTES, PACK_TYPE,
};
use helix_routing::gate;
use helix_routing::id::{Digest, ProjectName, ReleaseId, SiteId};
use helix_routing::record::ReleaseRef;
use helix_routing::routes::output::OutputConfig;
use helix_routing::routes::{RouteError, Routes};
use helix_service::clock;
use helix_service::digest::sha256;
use helix_service::rules::output::MAX_FUNCTION_BYTES;
use helix_service::rules::{self, Rules};

use super::content::{Place, Places, UploadError, blocking, insert_blob, move_contents, places};
use super::files::Files;
use super::layering::{Packs, regroup};
use super::manifest::{config_bytes, manifest};
use super::pack::Pack;
use super::read::ReadError;
use super::variants::read_content;
use super::{Artifacts, Layout, LayoutError};
use crate::remote::queue;
use crate::store::{StoreError, Tx, id, millis, number};

/// Missing contents that an error lists.
const MISSING_LISTED: usize = 20;
/// Level the index is compressed with: it is fetched by every edge, and made once.
const INDEX_LEVEL: i32 = 6;

/// A release could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A path is not legal.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// A path is there twice.
    #[error("path {path:?} is there twice")]
    Twice {
        /// The path.
        path: String,
    },
    /// A path is a file and also a folder of another.
    #[error("path {path:?} is both a file and a folder")]
    Folder {
        /// The path.
        path: String,
    },
    /// Nothing to serve.
    #[error("a release needs at least one file, or rules")]
    Empty,
    /// Its rules cannot be compiled.
    #[error("the release's rules cannot be compiled")]
    Rules {
        /// Everything that is wrong.
        errors: Vec<RouteError>,
    },
    /// More files, or more layers, than a release may have.
    #[error("the release is too large: {what}")]
    TooLarge {
        /// What is too many, and the limit.
        what: String,
    },
    /// Not everything was uploaded.
    #[error("{} contents are not uploaded", digests.len())]
    Missing {
        /// All of them.
        digests: Vec<Digest>,
    },
    /// A file's size is not its content's.
    #[error("file {path:?} is said to have {said} bytes; its content has {found}")]
    Size {
        /// The file.
        path: String,
        /// The size it was named with.
        said: u64,
        /// The size of its content.
        found: u64,
    },
    /// The disk refused.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The release that it is made of cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Variants cannot be kept.
    #[error(transparent)]
    Variants(#[from] UploadError),
}

impl MakeError {
    /// The first missing contents, for a person.
    #[must_use]
    pub fn missing(digests: &[Digest]) -> String {
        let listed: Vec<&str> = digests
            .iter()
            .take(MISSING_LISTED)
            .map(Digest::as_str)
            .collect();
        let more = digests.len().saturating_sub(MISSING_LISTED);
        if more == 0 {
            listed.join(", ")
        } else {
            format!("{} and {more} more", listed.join(", "))
        }
    }
}

/// The blobs that describe a release, and what it is made of.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) manifest: Digest,
    /// Every blob: manifest, config, index, packs; with its type and size.
    pub(super) blobs: BTreeMap<Digest, (&'static str, u64)>,
}

impl Written {
    /// What a manifest of this digest and size names.
    pub(super) fn of(manifest: &Manifest, digest: Digest, size: u64) -> Self {
        let mut blobs = BTreeMap::from([(digest.clone(), (MANIFEST_TYPE, size))]);
        for descriptor in manifest.layers.iter().chain([&manifest.config]) {
            let media_type = [INDEX_TYPE, PACK_TYPE, BLOB_TYPE]
                .into_iter()
                .find(|known| *known == descriptor.media_type);
            blobs.insert(
                descriptor.digest.clone(),
                (media_type.unwrap_or(CONFIG_TYPE), descriptor.size),
            );
        }
        Self {
            manifest: digest,
            blobs,
        }
    }
}

/// What is noted of a release.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) content: Digest,
    pub(super) routes: Option<Digest>,
    /// How many files, and how many bytes they have.
    pub(super) totals: (u64, u64),
    /// How long its gates may take on an edge.
    pub(super) gates: Duration,
    /// The revision of the variables that it has.
    pub(super) env_revision: Option<u64>,
}

impl Artifacts {
    /// Makes the release of `files`, or finds it; with `static_only`, without what needs a runtime.
    ///
    /// # Errors
    /// When it is not legal, contents are missing, or it cannot be stored.
    pub async fn make_release(
        &self,
        site: &SiteId,
        files: Vec<NewFile>,
        env_revision: Option<u64>,
        static_only: bool,
    ) -> Result<ReleaseRef, MakeError> {
        let _permit = self
            .making
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut files = Files::check(files)?;
        let mut places = places(
            &self.store,
            &site.project,
            files.0.values().map(|(digest, ..)| digest),
        )
        .await?;
        files.compare(&places)?;
        let routes = self.compiled(&mut files, &mut places, static_only).await?;
        let content = files.content();
        let routes_digest = digest_of(&routes);
        let release = release_id(site, &content, env_revision, routes_digest.as_ref());
        if let Some(artifact) = self.kept(site, &release).await? {
            return Ok(ReleaseRef { release, artifact });
        }
        let known = self
            .quick_variants(&site.project, &files.compressible(), &mut places)
            .await?;
        let mut sizes = self.pack_sizes(&site.project, &places).await?;
        self.repack(&site.project, &mut places, &mut sizes).await?;
        let totals = files.totals();
        let gates = gate::patience(&routes);
        let (layout, site_id) = (self.layout.clone(), site.clone());
        let written = blocking(move || {
            let index = files.index(&places, &known);
            let config = config_bytes(&site_id, routes);
            write(&layout, &site_id, &index, &places, &sizes, &config)
        })
        .await?;
        let made = ReleaseRef {
            release,
            artifact: written.manifest.clone(),
        };
        let row = Row {
            content,
            routes: routes_digest,
            totals,
            gates,
            env_revision,
        };
        self.record(site, &made, &row, &written).await?;
        Ok(made)
    }

    /// Takes the files of rules out, and compiles them.
    async fn compiled(
        &self,
        files: &mut Files,
        places: &mut Places,
        static_only: bool,
    ) -> Result<Routes, MakeError> {
        let taken = files.take_rules();
        if files.0.is_empty() && taken.is_empty() {
            return Err(MakeError::Empty);
        }
        let declared = files.take_functions()?;
        let place = |digest: &Digest| places[digest].clone();
        let wanted = Wanted {
            found: taken
                .iter()
                .map(|(name, digest)| (*name, place(digest)))
                .collect(),
            functions: declared
                .into_iter()
                .map(|(name, digest)| (name, digest.as_ref().map(place)))
                .collect(),
            commands: self.runs_commands,
            static_only,
        };
        let read = wanted.found.iter().map(|(_, place)| place.pack.clone());
        self.whole_of(read.collect()).await;
        let layout = self.layout.clone();
        let (routes, output) = blocking(move || read_rules(&layout, wanted)).await?;
        if let Some(output) = output {
            files
                .serve_output(&output)
                .map_err(|errors| MakeError::Rules { errors })?;
        }
        // What only the rules need is no part of the release.
        let used: BTreeSet<&Digest> = files.0.values().map(|(digest, ..)| digest).collect();
        places.retain(|digest, _| used.contains(digest));
        Ok(routes)
    }

    /// The manifest of a release that is kept.
    pub(super) async fn kept(
        &self,
        site: &SiteId,
        release: &ReleaseId,
    ) -> Result<Option<Digest>, StoreError> {
        let artifact: Option<String> =
            sqlx::query_scalar("SELECT artifact FROM releases WHERE site = $1 AND release_id = $2 AND collected IS NULL")
                .bind(site.to_string())
                .bind(release.as_str())
                .fetch_optional(self.store.reader())
                .await?;
        artifact.map(|artifact| id(&artifact)).transpose()
    }

    /// Size of each blob in use, by whether it is a pack.
    async fn pack_sizes(
        &self,
        project: &ProjectName,
        places: &Places,
    ) -> Result<Sizes, StoreError> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT digest, media_type, size FROM packs WHERE project = $1 AND media_type IN ($2, $3)")
                .bind(project.as_str())
                .bind(PACK_TYPE)
                .bind(BLOB_TYPE)
                .fetch_all(self.store.reader())
                .await?;
        let used: BTreeSet<&str> = places.values().map(|place| place.pack.as_str()).collect();
        let mut sizes = Sizes::default();
        for (digest, media_type, size) in rows
            .into_iter()
            .filter(|(digest, ..)| used.contains(digest.as_str()))
        {
            let size = crate::store::count(size, "packs.size")?;
            let kind = if media_type == PACK_TYPE {
                &mut sizes.packs
            } else {
                &mut sizes.blobs
            };
            kind.insert(id(&digest)?, size);
        }
        Ok(sizes)
    }

    /// Merges worn packs, if there are any; what they hold is then found in the new ones, also by later releases.
    async fn repack(
        &self,
        project: &ProjectName,
        places: &mut Places,
        sizes: &mut Sizes,
    ) -> Result<(), MakeError> {
        for group in regroup(&Packs {
            places,
            sizes: &sizes.packs,
        }) {
            let merged = group.iter().map(|digest| places[digest].pack.clone());
            self.whole_of(merged.collect()).await;
            let layout = self.layout.clone();
            let parts: Vec<_> = group
                .into_iter()
                .map(|digest| (places[&digest].clone(), digest))
                .collect();
            let (blob, pack) = blocking(move || merge(&layout, parts)).await?;
            let size = pack.bytes.len() as u64;
            let mut tx = self.store.write().await?;
            insert_blob(&mut tx, project, &blob, PACK_TYPE, size).await?;
            move_contents(&mut tx, project, &blob, &pack.contents).await?;
            tx.commit().await?;
            tracing::info!(%project, pack = %blob, contents = pack.contents.len(), bytes = size, "packs merged");
            sizes.packs.insert(blob.clone(), size);
            for packed in pack.contents {
                let place = places
                    .get_mut(&packed.digest)
                    .expect("it was moved from here");
                place.pack = blob.clone();
                place.offset = packed.offset;
            }
        }
        Ok(())
    }

    pub(super) async fn record(
        &self,
        site: &SiteId,
        made: &ReleaseRef,
        row: &Row,
        written: &Written,
    ) -> Result<(), MakeError> {
        let (files, bytes) = row.totals;
        let mut tx = self.store.write().await?;
        let now = millis(clock::now());
        make_site(&mut tx, site).await?;
        sqlx::query(
            "INSERT INTO releases (site, release_id, artifact, content, created, files, bytes, routes, gates_ms, env_revision)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (site, release_id) DO UPDATE SET artifact = excluded.artifact, collected = NULL, improvement = NULL",
        )
        .bind(site.to_string())
        .bind(made.release.as_str())
        .bind(made.artifact.as_str())
        .bind(row.content.as_str())
        .bind(now)
        .bind(number(files))
        .bind(number(bytes))
        .bind(row.routes.as_ref().map(Digest::as_str))
        .bind(number(u64::try_from(row.gates.as_millis()).unwrap_or(u64::MAX)))
        .bind(row.env_revision.map(number))
        .execute(&mut *tx)
        .await
        .map_err(StoreError::from)?;
        record_blobs(&mut tx, site, &made.release, written).await?;
        queue::want(&mut tx, &site.project, &made.artifact).await?;
        tx.commit().await?;
        tracing::info!(%site, release = %made.release, artifact = %made.artifact, files, bytes, "release made");
        Ok(())
    }
}

/// Sizes of the blobs a release uses.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    pub(super) packs: BTreeMap<Digest, u64>,
    pub(super) blobs: BTreeMap<Digest, u64>,
}

/// Makes the site's row if there is none; one that was closed is open again.
///
/// # Errors
/// When the database fails.
pub async fn make_site(tx: &mut Tx, site: &SiteId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sites (site, project, created) VALUES ($1, $2, $3)
         ON CONFLICT (site) DO UPDATE SET closed = NULL",
    )
    .bind(site.to_string())
    .bind(site.project.as_str())
    .bind(millis(clock::now()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes the blobs of the release. A pack that was collected since it was looked up makes the release fail.
async fn record_blobs(
    tx: &mut Tx,
    site: &SiteId,
    release: &ReleaseId,
    written: &Written,
) -> Result<(), MakeError> {
    sqlx::query("DELETE FROM release_packs WHERE site = $1 AND release_id = $2")
        .bind(site.to_string())
        .bind(release.as_str())
        .execute(&mut **tx)
        .await
        .map_err(StoreError::from)?;
    for (digest, (media_type, size)) in &written.blobs {
        if matches!(*media_type, PACK_TYPE | BLOB_TYPE) {
            let there: Option<i64> =
                sqlx::query_scalar("SELECT size FROM packs WHERE project = $1 AND digest = $2")
                    .bind(site.project.as_str())
                    .bind(digest.as_str())
                    .fetch_optional(&mut **tx)
                    .await
                    .map_err(StoreError::from)?;
            if there.is_none() {
                return Err(MakeError::Missing {
                    digests: vec![digest.clone()],
                });
            }
        } else {
            insert_blob(tx, &site.project, digest, media_type, *size).await?;
        }
        sqlx::query("INSERT INTO release_packs (site, release_id, digest) VALUES ($1, $2, $3)")
            .bind(site.to_string())
            .bind(release.as_str())
            .bind(digest.as_str())
            .execute(&mut **tx)
            .await
            .map_err(StoreError::from)?;
    }
    Ok(())
}

pub(super) fn release_id(
    site: &SiteId,
    content: &Digest,
    env_revision: Option<u64>,
    routes: Option<&Digest>,
) -> ReleaseId {
    let routes = routes.map_or("none", Digest::as_str);
    let env = env_revision.map_or_else(|| "none".to_owned(), |revision| revision.to_string());
    let lines = format!(
        "helixstack.release.v1\n{site}\n{content}\nenv {env}\nroutes {routes}\nhealth default\n"
    );
    sha256(lines.as_bytes()).hex()[..20]
        .parse()
        .expect("20 hex digits are a release id")
}

/// Digest of a route table; none of the one that every release without rules has.
fn digest_of(routes: &Routes) -> Option<Digest> {
    (*routes != Routes::default()).then(|| {
        let json = serde_json::to_vec(routes).expect("plain data with text keys always encodes");
        sha256(&json)
    })
}

/// What is read to compile a release's rules.
struct Wanted {
    found: Vec<(&'static str, Place)>,
    /// Functions, and where what declares each lies.
    functions: BTreeMap<String, Option<Place>>,
    /// Whether edges can run the commands of gates.
    commands: bool,
    static_only: bool,
}

/// The routes, and what a Build Output folder says of its files if this is one.
fn read_rules(
    layout: &Layout,
    wanted: Wanted,
) -> Result<(Routes, Option<OutputConfig>), MakeError> {
    let (mut rules, mut errors) = (Rules::default(), Vec::new());
    rules.static_only = wanted.static_only;
    for (name, place) in wanted.found {
        let read = if place.size > rules::max_bytes(name) {
            Err(rules::too_large(name))
        } else {
            rules.add(name, read_content(layout, &place)?)
        };
        errors.extend(read.err());
    }
    for (name, place) in wanted.functions {
        let small = place.filter(|place| place.size <= MAX_FUNCTION_BYTES);
        let declared = small
            .map(|place| read_content(layout, &place))
            .transpose()?;
        rules.add_function(&name, &declared.unwrap_or_default());
    }
    if !wanted.commands {
        errors.extend(rules.refuse_commands());
    }
    match rules.compile() {
        Ok(routes) if errors.is_empty() => {
            let output = rules
                .output_config()
                .map_err(|errors| MakeError::Rules { errors })?;
            return Ok((routes, output));
        }
        Ok(_) => {}
        Err(more) => errors.extend(more),
    }
    Err(MakeError::Rules { errors })
}

/// Reads the encoded contents from where they lie into one new pack. They were verified when they came in.
fn merge(layout: &Layout, parts: Vec<(Place, Digest)>) -> Result<(Digest, Pack), LayoutError> {
    use std::io::{Read, Seek, SeekFrom};
    let mut pack = Pack::default();
    let mut open: Option<(Digest, std::fs::File)> = None;
    for (place, digest) in parts {
        let read_failed = |source| LayoutError::Read {
            digest: place.pack.clone(),
            source,
        };
        let mut file = match open.take() {
            Some((held, file)) if held == place.pack => file,
            _ => std::fs::File::open(layout.path(&place.pack)).map_err(read_failed)?,
        };
        let length = usize::try_from(place.length.min(PACK_BYTES)).expect("a pack fits in memory");
        let mut encoded = vec![0; length];
        file.seek(SeekFrom::Start(place.offset))
            .map_err(read_failed)?;
        file.read_exact(&mut encoded).map_err(read_failed)?;
        pack.push(digest, place.size, place.encoding, &encoded);
        open = Some((place.pack, file));
    }
    let blob = layout.put(&pack.bytes)?;
    Ok((blob, pack))
}

fn write(
    layout: &Layout,
    site: &SiteId,
    index: &FileIndex,
    places: &Places,
    sizes: &Sizes,
    config: &[u8],
) -> Result<Written, MakeError> {
    if config.len() as u64 > MAX_CONFIG_BYTES {
        return Err(MakeError::TooLarge {
            what: format!(
                "rules that compile to {} bytes, at most {MAX_CONFIG_BYTES}",
                config.len()
            ),
        });
    }
    let index = serde_json::to_vec(index).expect("plain data with text keys always encodes");
    if index.len() as u64 > MAX_INDEX_BYTES {
        return Err(MakeError::TooLarge {
            what: format!(
                "an index of {} bytes, at most {MAX_INDEX_BYTES}",
                index.len()
            ),
        });
    }
    let index = zstd::bulk::compress(&index, INDEX_LEVEL).map_err(|source| LayoutError::Store {
        path: "index".into(),
        source,
    })?;
    let manifest = manifest(site, &index, places, sizes, config);
    let bytes = serde_json::to_vec(&manifest).expect("plain data with text keys always encodes");
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(MakeError::TooLarge {
            what: format!("{} layers do not fit a manifest", manifest.layers.len()),
        });
    }
    layout.put(config)?;
    layout.put(&index)?;
    let digest = layout.put(&bytes)?;
    Ok(Written::of(&manifest, digest, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::files::sample::file;

    #[test]
    fn the_same_files_in_the_same_site_are_the_same_release() {
        let id_of = |site: &str, files: Vec<NewFile>| {
            release_id(
                &site.parse().unwrap(),
                &Files::check(files).unwrap().content(),
                None,
                None,
            )
        };
        let one = id_of("shop/production", vec![file("a", "1"), file("b", "2")]);
        assert_eq!(
            id_of("shop/production", vec![file("b", "2"), file("a", "1")]),
            one
        );
        assert_ne!(
            id_of("shop/preview/1", vec![file("a", "1"), file("b", "2")]),
            one
        );
        assert_ne!(
            id_of("shop/production", vec![file("a", "1"), file("b", "1")]),
            one
        );
        assert_ne!(
            id_of("shop/production", vec![file("a", "1"), file("c", "2")]),
            one
        );
    }

    #[test]
    fn twenty_missing_contents_are_named_and_the_rest_counted() {
        let digests: Vec<Digest> = (0..25_u8).map(|n| sha256(&[n])).collect();
        let text = MakeError::missing(&digests);
        assert_eq!(text.matches("sha256:").count(), 20);
        assert!(text.ends_with("and 5 more"));
    }
}
