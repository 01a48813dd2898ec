//! Provenance: origin attests where each release's files come from, and keeps the bundles beside the artifacts.
//!
//! ```text
//! deploy, build, promotion ──source──▶ note, in the deployment's transaction: statement ─▶ signed ─▶ bundle, referrer manifest
//! releases from before, or of a key before ──▶ vouch: the same, of what SQL knows, by a task at start and when an edge asks
//! ```
//!
//! Invariants: origin signs, and nothing that is built or uploaded ever sees the key. No rollout starts whose release has no
//! bundle. A bundle lives as long as its referrer's blob, which lives as long as a release that names it. Who may deploy what
//! where is decided before (`deployment`), and said again by edges.

mod manifest;
pub mod older;
mod source;

use std::sync::Arc;

use helix_routing::id::{Digest, Environment, ProjectName, SiteId};
use helix_routing::provenance::bundle::BUNDLE_TYPE;
use helix_routing::provenance::policy::Requires;
use helix_routing::provenance::statement::Statement;
use helix_routing::provenance::{MAX_BUNDLE_BYTES, MAX_BUNDLES, Provenance, Source};
use helix_routing::record::ReleaseRef;
use helix_service::digest::sha256;
use helix_service::keys::{PublicKey, SigningKey};
use helix_service::{clock, dsse};

pub(crate) use self::source::{of_build, of_release, promoted, promotion_detail};
use crate::artifact::content::blocking;
use crate::artifact::referrer::{self, Held, Referrer};
use crate::artifact::{Layout, LayoutError};
use crate::build::BuildError;
use crate::remote::queue;
use crate::source::link;
use crate::store::{self, Connection, Store, StoreError, Tx, count, id, millis, number};

/// Where a release comes from could not be attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// What it would say does not fit.
    #[error(
        "the provenance of {artifact} would have {bytes} bytes, at most {MAX_BUNDLE_BYTES} are read"
    )]
    TooLarge {
        /// The artifact.
        artifact: Digest,
        /// What it would have.
        bytes: usize,
    },
    /// The build that it is of cannot be read.
    #[error("read the build that a release is of")]
    Build(#[source] BuildError),
    /// The disk refused.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AttestError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// Attests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attestor {
    store: Store,
    layout: Layout,
    key: Arc<SigningKey>,
}

type Row = (String, i64, String, i64);

impl Attestor {
    /// Signs with `key`, and keeps bundles in `layout`.
    #[must_use]
    pub fn new(store: Store, layout: Layout, key: SigningKey) -> Self {
        Self {
            store,
            layout,
            key: Arc::new(key),
        }
    }

    /// The half that edges pin, and everybody may see.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Notes that a release of a site comes from `source`, as the newest that is known of its artifact. It is signed for if that
    /// was not done before.
    ///
    /// # Errors
    /// When what it says is too large, it cannot be written, or the database fails.
    pub(crate) async fn note(
        &self,
        tx: &mut Tx,
        site: &SiteId,
        made: &ReleaseRef,
        source: &Source,
    ) -> Result<(), AttestError> {
        let key = self.public().id;
        let (named, said) = (name_of(source), source.to_string());
        let row: Option<Row> = sqlx::query_as(
            "SELECT manifest, manifest_size, bundle, bundle_size FROM provenances \
             WHERE site = $1 AND artifact = $2 AND source = $3 AND key_id = $4",
        )
        .bind(site.to_string())
        .bind(made.artifact.as_str())
        .bind(&named)
        .bind(key.as_str())
        .fetch_optional(&mut **tx)
        .await?;
        let held = match row {
            Some(row) => held(&row)?,
            None => {
                queue::want(tx, &site.project, &made.artifact).await?;
                self.sign(tx, site, &made.artifact, source).await?
            }
        };
        sqlx::query(
            "INSERT INTO provenances (site, artifact, source, key_id, project, said, manifest, manifest_size, bundle, bundle_size, used) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (site, artifact, source, key_id) DO UPDATE SET used = excluded.used",
        )
        .bind(site.to_string())
        .bind(made.artifact.as_str())
        .bind(&named)
        .bind(key.as_str())
        .bind(site.project.as_str())
        .bind(store::text(&said))
        .bind(held.manifest.0.as_str())
        .bind(number(held.manifest.1))
        .bind(held.bytes.0.as_str())
        .bind(number(held.bytes.1))
        .bind(millis(clock::now()))
        .execute(&mut **tx)
        .await?;
        referrer::keep(tx, site, &made.release, &held, BUNDLE_TYPE).await?;
        Ok(trim(tx, site, &made.artifact).await?)
    }

    /// Writes the bundle and its referrer.
    async fn sign(
        &self,
        tx: &mut Tx,
        site: &SiteId,
        artifact: &Digest,
        source: &Source,
    ) -> Result<Held, AttestError> {
        let provenance = Provenance {
            site: site.clone(),
            artifact: artifact.clone(),
            source: source.clone(),
        };
        let bundle = dsse::sign(&self.key, &Statement::of(&provenance));
        if bundle.len() > MAX_BUNDLE_BYTES {
            return Err(AttestError::TooLarge {
                artifact: artifact.clone(),
                bytes: bundle.len(),
            });
        }
        let subject = referrer::subject(tx, &site.project, artifact).await?;
        let (layout, created) = (self.layout.clone(), clock::now());
        let written = blocking(move || {
            let said = manifest::said(&bundle);
            let manifest = manifest::referrer(&provenance, subject, &said, created);
            referrer::write(&layout, &manifest, &said)
        });
        Ok(written.await?)
    }
}

fn held((manifest, manifest_size, bundle, bundle_size): &Row) -> Result<Held, StoreError> {
    Ok(Held {
        manifest: (id(manifest)?, size(*manifest_size)?),
        bytes: (id(bundle)?, size(*bundle_size)?),
    })
}

fn size(value: i64) -> Result<u64, StoreError> {
    count(value, "provenances.size")
}

/// One source by its name: what is attested again of it is the same.
fn name_of(source: &Source) -> String {
    let of = |text: String| sha256(text.as_bytes()).hex()[..16].to_owned();
    match source {
        Source::Build(built) => format!("build {}", built.build),
        Source::Upload { by } => format!("upload {}", of(by.clone())),
        Source::Promotion(promoted) => {
            let why = of(format!("{}\n{}", promoted.by, promoted.reason));
            format!("promotion {} {why}", promoted.release)
        }
    }
}

/// Lets the oldest bundles of an artifact go where there are more than anybody looks at. Their blobs are then collected.
async fn trim(tx: &mut Tx, site: &SiteId, artifact: &Digest) -> Result<(), StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT manifest, bundle FROM provenances WHERE site = $1 AND artifact = $2 ORDER BY used DESC, manifest",
    )
    .bind(site.to_string())
    .bind(artifact.as_str())
    .fetch_all(&mut **tx)
    .await?;
    for (manifest, bundle) in rows.iter().skip(MAX_BUNDLES) {
        forget(tx, site.project.as_str(), manifest).await?;
        for blob in [manifest, bundle] {
            sqlx::query("DELETE FROM release_packs WHERE site = $1 AND digest = $2")
                .bind(site.to_string())
                .bind(blob)
                .execute(&mut **tx)
                .await?;
        }
    }
    Ok(())
}

/// Whether anything was ever attested, by whichever key.
///
/// # Errors
/// When the database fails.
pub async fn has_signed(store: &Store) -> Result<bool, StoreError> {
    let key: Option<String> = sqlx::query_scalar("SELECT key_id FROM provenances LIMIT 1")
        .fetch_optional(store.reader())
        .await?;
    Ok(key.is_some())
}

/// Forgets a bundle whose referrer is no more.
///
/// # Errors
/// When the database fails.
pub(crate) async fn forget(tx: &mut Tx, project: &str, manifest: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM provenances WHERE project = $1 AND manifest = $2")
        .bind(project)
        .bind(manifest)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// What a deployment to a site has to come from, besides what is checked before it starts: for edges to check once more.
///
/// # Errors
/// When the database fails.
pub(crate) async fn required(
    connection: &mut Connection,
    site: &SiteId,
) -> Result<Option<Requires>, StoreError> {
    if site.environment != Environment::Production {
        return Ok(None);
    }
    let link = link::find(connection, &site.project).await?;
    Ok(link.map(|link| Requires {
        repository: link.url,
        branch: link.branch,
        uploads: link.allow_uploads,
    }))
}

/// The bundles of an artifact, newest first.
///
/// # Errors
/// When the database fails.
pub(crate) async fn referrers(
    connection: &mut Connection,
    project: &ProjectName,
    artifact: &Digest,
) -> Result<Vec<Referrer>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT manifest, manifest_size FROM provenances WHERE project = $1 AND artifact = $2 ORDER BY used DESC, manifest",
    )
    .bind(project.as_str())
    .bind(artifact.as_str())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Referrer::of).collect()
}

/// The newest bundle of an artifact in a site, as it was signed.
///
/// # Errors
/// When it cannot be read, or the database fails.
pub(crate) async fn newest(
    attestor: &Attestor,
    site: &SiteId,
    artifact: &Digest,
) -> Result<Option<Vec<u8>>, AttestError> {
    attestor.vouch(&site.project, artifact).await?;
    let bundle: Option<String> = sqlx::query_scalar(
        "SELECT bundle FROM provenances WHERE site = $1 AND artifact = $2 ORDER BY used DESC, manifest LIMIT 1",
    )
    .bind(site.to_string())
    .bind(artifact.as_str())
    .fetch_optional(attestor.store.reader())
    .await?;
    let Some(bundle) = bundle else {
        return Ok(None);
    };
    let (layout, digest) = (attestor.layout.clone(), id(&bundle)?);
    let read = blocking(move || layout.read(&digest, MAX_BUNDLE_BYTES as u64)).await;
    Ok(Some(read?))
}
