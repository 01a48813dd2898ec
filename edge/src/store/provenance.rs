//! Whether an artifact comes from where it may: what origin has attested of it, fetched, verified and kept with it.
//!
//! ```text
//! kept on disk ──does it count?──yes──▶ vouched for
//!       │ no, or not there
//!       ▼
//! referrers ──▶ manifest, bundle ──signature, artifact, site, what the record requires──▶ kept, vouched for
//! ```
//!
//! Invariants: no release is served that was not vouched for before its layers were fetched, where a key of role `provenance` is
//! pinned; without one nothing is asked. What is kept was verified and is verified again at each start, so that neither needs
//! origin. Nobody who waits for a response waits for any of this.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use helix_routing::artifact::{MAX_MANIFEST_BYTES, Manifest};
use helix_routing::id::{Digest, KeyId, SiteId};
use helix_routing::provenance::policy::{Refused, Requires, judge};
use helix_routing::provenance::statement::{Statement, Unreadable};
use helix_routing::provenance::{MAX_BUNDLE_BYTES, MAX_BUNDLES, Source};
use helix_routing::seal::KeyRole;
use helix_service::dsse::{self, BundleError};
use helix_service::keys::{KeyRing, VerifyError};
use prometheus::IntCounterVec;
use tokio::time::timeout;

use super::fetch::{FetchError, Fetcher};
use super::index::{self, Invalid};
use super::prepare::{PrepareError, layers};
use super::read::blocking;
use super::{Kind, Store};

/// How long what is whole on disk waits for origin at a start, where what is kept with it does not count (any more).
const KNOWN_WAIT: Duration = Duration::from_secs(2);

/// Whose word counts, and how often it was asked for.
#[derive(Clone, Debug)]
pub struct Trust {
    ring: Arc<KeyRing>,
    counted: IntCounterVec,
}

impl Trust {
    /// Trust in the keys of role `provenance` of a ring; none where it has none. `counted` has one label, the outcome.
    #[must_use]
    pub fn of(ring: &Arc<KeyRing>, counted: IntCounterVec) -> Option<Self> {
        let ring = Arc::clone(ring);
        (!ring.lacks(KeyRole::Provenance)).then_some(Self { ring, counted })
    }

    fn count(&self, outcome: &str) {
        self.counted.with_label_values(&[outcome]).inc();
    }
}

/// Nobody whose word counts says that an artifact comes from where it may.
#[derive(Debug, thiserror::Error)]
pub enum Unvouched {
    /// Origin has none.
    #[error("origin has attested nothing of it")]
    Missing,
    /// The referrer is none.
    #[error("what refers to it is no provenance")]
    Referrer(#[source] Invalid),
    /// A key signed it that is not pinned: the wrong one, or one that took the place of another.
    #[error(
        "its provenance does not count: it is signed by unknown key {0}; if that took the place of another, pin it in `[[keys]]` of this edge's config and restart the edge"
    )]
    Key(KeyId),
    /// The bundle does not count.
    #[error("its provenance does not count")]
    Bundle(#[source] BundleError),
    /// What it says cannot be relied on.
    #[error("its provenance cannot be relied on")]
    Statement(#[from] Unreadable),
    /// It says something else than what is needed.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Store {
    /// Makes sure that `artifact` comes from where what is served for `site` may come from.
    ///
    /// # Errors
    /// When nobody says so, or who would cannot be asked.
    pub async fn vouch(
        &self,
        site: &SiteId,
        artifact: &Digest,
        requires: Option<&Requires>,
        fetcher: &Fetcher,
    ) -> Result<(), PrepareError> {
        let Some(trust) = &fetcher.trust else {
            return Ok(());
        };
        if self.is_attested(trust, (site, artifact), requires).await {
            return Ok(());
        }
        self.ask(trust, (site, artifact), requires, fetcher).await
    }

    /// The same before a release is made ready. One that is whole on disk was vouched for when it came, or came before anybody
    /// was asked: that origin is away does not keep it from being served, or not for long.
    pub(super) async fn vouch_or_known(
        self: &Arc<Self>,
        site: &SiteId,
        artifact: &Digest,
        manifest: &Manifest,
        fetcher: &Fetcher,
    ) -> Result<(), PrepareError> {
        let Some(trust) = &fetcher.trust else {
            return Ok(());
        };
        if self.is_attested(trust, (site, artifact), None).await {
            return Ok(());
        }
        let asking = self.ask(trust, (site, artifact), None, fetcher);
        let (store, of) = (Arc::clone(self), manifest.clone());
        let is_whole = blocking(move || Ok(store.is_whole(&of))).await;
        if !is_whole.unwrap_or(false) {
            return asking.await;
        }
        let away = match timeout(KNOWN_WAIT, asking).await {
            Ok(Err(PrepareError::Fetch(error))) if error.is_away() => error.to_string(),
            Ok(result) => return result,
            Err(_) => "no answer in time".to_owned(),
        };
        trust.count("unchecked");
        tracing::warn!(site = %site, artifact = %artifact, away, "provenance is not checked: origin is away, and the release was here before");
        Ok(())
    }

    /// Whether what is kept of an artifact's provenance says what is needed.
    async fn is_attested(
        &self,
        trust: &Trust,
        of: (&SiteId, &Digest),
        requires: Option<&Requires>,
    ) -> bool {
        let kept = tokio::fs::read(self.attested(of.1)).await;
        kept.is_ok_and(|kept| check(trust, &kept, of, requires).is_ok())
    }

    /// Asks origin, and keeps what counts.
    async fn ask(
        &self,
        trust: &Trust,
        (site, artifact): (&SiteId, &Digest),
        requires: Option<&Requires>,
        fetcher: &Fetcher,
    ) -> Result<(), PrepareError> {
        let mut last = Unvouched::Missing;
        let listed = fetcher.bundles(&site.project, artifact).await?;
        for manifest in listed.into_iter().take(MAX_BUNDLES) {
            let bundle = match self.bundle(site, artifact, &manifest, fetcher).await? {
                Ok(bundle) => bundle,
                Err(invalid) => {
                    last = Unvouched::Referrer(invalid);
                    continue;
                }
            };
            match check(trust, &bundle, (site, artifact), requires) {
                Ok(source) => {
                    trust.count("verified");
                    tracing::info!(site = %site, artifact = %artifact, %source, "provenance verified");
                    return self.keep_attested(artifact, &bundle);
                }
                Err(error) => last = error,
            }
        }
        trust.count("refused");
        tracing::warn!(site = %site, artifact = %artifact, error = &last as &dyn std::error::Error, "provenance refused");
        Err(PrepareError::Provenance {
            artifact: artifact.clone(),
            source: last,
        })
    }

    /// The bundle that a referrer holds; the inner error says that it is no such referrer.
    async fn bundle(
        &self,
        site: &SiteId,
        artifact: &Digest,
        manifest: &Digest,
        fetcher: &Fetcher,
    ) -> Result<Result<Vec<u8>, Invalid>, PrepareError> {
        let project = &site.project;
        let limit = MAX_MANIFEST_BYTES as u64;
        let bytes = self.meta(project, manifest, limit, true, fetcher).await?;
        let layer = match index::bundle(&bytes, artifact) {
            Ok(layer) => layer,
            Err(invalid) => return Ok(Err(invalid)),
        };
        let limit = MAX_BUNDLE_BYTES as u64;
        let bundle = self.meta(project, &layer, limit, false, fetcher).await?;
        Ok(Ok(bundle))
    }

    fn keep_attested(&self, artifact: &Digest, bundle: &[u8]) -> Result<(), PrepareError> {
        let written = helix_service::disk::write_atomic(&self.attested(artifact), bundle);
        written.map_err(|error| PrepareError::Disk {
            artifact: artifact.clone(),
            source: error.source,
        })
    }

    /// Where the bundle of an artifact is kept.
    fn attested(&self, artifact: &Digest) -> PathBuf {
        self.root.join("attested").join(artifact.hex())
    }

    /// Whether everything that is needed of an artifact is on disk. Blocks.
    fn is_whole(&self, manifest: &Manifest) -> bool {
        let path = self.path(Kind::Meta, &manifest.layers[0].digest);
        let index = fs::read(path).ok();
        let index = index.and_then(|bytes| index::index(&bytes, manifest).ok());
        index.is_some_and(|index| {
            let mut layers = layers(manifest, &index).into_iter();
            layers.all(|layer| self.has_layer(&layer))
        })
    }
}

impl From<BundleError> for Unvouched {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::Verify(VerifyError::UnknownKey { key_id, .. }) => Self::Key(key_id),
            error => Self::Bundle(error),
        }
    }
}

/// Where the artifact comes from, if the bundle counts and says what is needed.
fn check(
    trust: &Trust,
    bundle: &[u8],
    (site, artifact): (&SiteId, &Digest),
    requires: Option<&Requires>,
) -> Result<Source, Unvouched> {
    let statement: Statement = dsse::open(&trust.ring, KeyRole::Provenance, bundle)?;
    let provenance = statement.read()?;
    judge(&provenance, artifact, site, requires)?;
    Ok(provenance.source)
}

impl FetchError {
    /// Whether it is origin that is away, and not an answer of it.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            Self::Token { .. }
            | Self::TooLarge { .. }
            | Self::Digest { .. }
            | Self::Absent { .. }
            | Self::Disk { .. } => false,
        }
    }
}
