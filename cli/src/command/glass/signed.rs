//! An override of a whole region: signed with the operator's key, straight onto the region's stream, past origin.
//!
//! ```text
//!  is origin silent? ──▶ our term, above its ──▶ the record as it stands ──▶ the override, conditional on our term
//! ```
//!
//! The term comes first: from then on an origin that is not as dead as it seemed is refused by the server, and one that
//! comes back takes the override over before it writes. What is read from NATS counts only when it verifies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt as _;
use helix_routing::glass::signed;
use helix_routing::id::{Epoch, Generation, Incarnation, RegionId, SiteId};
use helix_routing::key::{self, BEACON, Scope};
use helix_routing::record::{Beacon, Override, SiteRecord, TermRecord};
use helix_routing::seal::{KeyRole, Seal};
use helix_routing::wire::Wire;
use helix_service::clock;
use helix_service::keys::{Address, KeyRing, PublicKey, SigningKey};
use helix_service::nats::{self, NatsConfig};
use serde::Deserialize;
use tokio::time::timeout;

use crate::arguments::{GlassRollback, Terms};
use crate::output;

/// Origin beats each second: after so long without, it is silent.
const LISTEN: Duration = Duration::from_millis(3500);
/// For a link, and for each answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Name of the ring beside the operator's key.
const RING: &str = "ring.toml";

/// Keys that are pinned, as the configs of edges have them.
#[derive(Deserialize)]
struct Ring {
    keys: Vec<PublicKey>,
}

/// What the server says to a write.
#[derive(Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    seq: u64,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    description: String,
}

/// One region's stream, as an operator reaches it.
struct Stream {
    client: Client,
    scope: Scope,
    key: SigningKey,
    ring: KeyRing,
}

/// Overrides `site` in `region`.
pub(super) async fn run(
    rollback: GlassRollback,
    region: RegionId,
    site: SiteId,
    by: String,
    json: bool,
) -> anyhow::Result<()> {
    let Terms { reason, ttl } = rollback.terms;
    let since = clock::now();
    let terms = Override {
        reason,
        by,
        since,
        until: since + ttl.duration(),
    };
    // Before anything is written: a mistake must cost nothing.
    helix_routing::glass::check_terms(&terms.reason, &terms.by, ttl.duration())?;
    let (key, nats, seed) = (
        rollback
            .operator_key
            .context("name the operator's key with --operator-key")?,
        rollback.nats.context("name the server with --nats")?,
        rollback
            .nats_seed
            .context("name the seed of a NATS user with --nats-seed")?,
    );
    let stream = Stream::open(&key, rollback.ring, Scope::Region(region), (nats, seed)).await?;
    if !rollback.though_origin_lives {
        stream.check_silence().await?;
    }
    let release = rollback.release.as_ref();
    let held = stream.site(&site).await?;
    // Whatever is wrong is found before the term is raised, which even a dead origin would notice.
    signed::overridden(&held, release, terms.clone(), held.epoch.next())
        .with_context(|| format!("override {site}"))?;
    let (epoch, place) = stream.raise_term(&site).await?;
    let held = stream.site(&site).await?;
    let record = signed::overridden(&held, release, terms, epoch)
        .with_context(|| format!("override {site}"))?;
    stream.write(&record, place).await?;
    if json {
        return output::print_json(&record);
    }
    let live = record.live.as_ref().map(|live| live.release.to_string());
    output::say(&format!(
        "{site} goes to {} in {} at generation {}; edges that follow NATS do so at once (their /sites says so), and origin takes it over when it is back",
        live.unwrap_or_default(),
        record.region,
        record.generation
    ));
    Ok(())
}

impl Stream {
    async fn open(
        key: &Path,
        ring: Option<PathBuf>,
        scope: Scope,
        (url, seed_file): (String, PathBuf),
    ) -> anyhow::Result<Self> {
        let ring = ring.unwrap_or_else(|| key.with_file_name(RING));
        let text = std::fs::read_to_string(&ring);
        let text = text.with_context(|| format!("read the pinned keys {}", ring.display()))?;
        let pinned: Ring = toml::from_str(&text)
            .with_context(|| format!("read the pinned keys {}", ring.display()))?;
        let key = SigningKey::load(KeyRole::Operator, key)?;
        ensure!(
            pinned.keys.contains(&key.public()),
            "the key is no operator's key that edges pin: {} is not in {}",
            key.public().id,
            ring.display()
        );
        let config = NatsConfig::new(url.clone(), seed_file);
        let client = nats::connect(&config, "operator").await?;
        let linked = timeout(ANSWER_LIMIT, client.flush()).await;
        let linked = linked.is_ok_and(|flushed| flushed.is_ok());
        ensure!(
            linked,
            "NATS does not answer at {url}: use the local socket of each edge, --socket"
        );
        Ok(Self {
            client,
            scope,
            key,
            ring: KeyRing::new(pinned.keys),
        })
    }

    /// Refuses while origin beats: it can be asked then.
    async fn check_silence(&self) -> anyhow::Result<()> {
        let mut beacons = self.client.subscribe(self.scope.beacon()).await?;
        let listen = async {
            while let Some(message) = beacons.next().await {
                let sealed = self.ring.verify(KeyRole::Record, &message.payload);
                let is_beacon = sealed.is_ok_and(|seal| {
                    seal.key == BEACON
                        && Beacon::decode(&seal.body)
                            .is_ok_and(|beacon| clock::now().since(beacon.at) < LISTEN)
                });
                if is_beacon {
                    return;
                }
            }
        };
        ensure!(
            timeout(LISTEN, listen).await.is_err(),
            "origin leads {}: use `helix rollback`, or --though-origin-lives to go past it",
            self.scope.stream()
        );
        Ok(())
    }

    /// Puts a term above every one that was there into the stream, and returns it with its sequence.
    async fn raise_term(&self, site: &SiteId) -> anyhow::Result<(Epoch, u64)> {
        let (seal, sequence) = self.newest(key::TERM).await?;
        let held = TermRecord::decode(&seal.body)?;
        // The record may be of the term after: both have to be below.
        let (record, _) = self.newest(&key::site(site)).await?;
        let epoch = Epoch(held.epoch.0.max(record.epoch.0).saturating_add(1));
        let term = TermRecord { epoch };
        let sealed = self.seal(
            key::TERM,
            &seal.incarnation,
            (epoch, Generation(0)),
            term.encode(),
        );
        let place = self.publish(key::TERM, sealed, (key::TERM, sequence)).await;
        let place = place.context(
            "raise the term: another one was written meanwhile; look whether origin is back",
        )?;
        Ok((epoch, place))
    }

    async fn site(&self, site: &SiteId) -> anyhow::Result<SiteRecord> {
        let (seal, _) = self.newest(&key::site(site)).await.with_context(|| {
            format!(
                "find {site} in {}: no such site is served there",
                self.scope.stream()
            )
        })?;
        Ok(SiteRecord::decode(&seal.body)?)
    }

    async fn write(&self, record: &SiteRecord, term: u64) -> anyhow::Result<()> {
        let key = key::site(&record.site);
        let (held, _) = self.newest(&key).await?;
        let place = (record.epoch, record.generation);
        let sealed = self.seal(&key, &held.incarnation, place, record.encode());
        let written = self.publish(&key, sealed, (key::TERM, term)).await;
        written.context("write the override: origin came back meanwhile, use `helix rollback`")?;
        Ok(())
    }

    fn seal(
        &self,
        key: &str,
        incarnation: &Incarnation,
        (epoch, generation): (Epoch, Generation),
        body: Vec<u8>,
    ) -> Vec<u8> {
        let address = Address {
            stream: self.scope.stream(),
            key: key.to_owned(),
            incarnation: incarnation.clone(),
            epoch,
            generation,
        };
        self.key.seal(address, body)
    }

    /// The newest message under a key, verified, and its sequence.
    async fn newest(&self, key: &str) -> anyhow::Result<(Seal, u64)> {
        let stream = self.scope.stream();
        let subject = format!(
            "$JS.API.DIRECT.GET.{stream}.{}{key}",
            self.scope.stored_prefix()
        );
        let message = self.request(subject, HeaderMap::new(), Vec::new()).await?;
        let sequence = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Sequence"))
            .and_then(|sequence| sequence.as_str().parse().ok());
        let Some(sequence) = sequence else {
            bail!("there is no {key} in {stream}");
        };
        let seal = self
            .ring
            .verify(KeyRole::Record, &message.payload)
            .or_else(|_| self.ring.verify(KeyRole::Operator, &message.payload));
        let seal = seal.with_context(|| format!("verify {key} of {stream}"))?;
        ensure!(
            seal.stream == stream && seal.key == key,
            "{key} of {stream} was signed for another place"
        );
        Ok((seal, sequence))
    }

    /// Writes under a key if the newest under another is at that sequence, and returns its own.
    async fn publish(
        &self,
        key: &str,
        sealed: Vec<u8>,
        (fence, at): (&str, u64),
    ) -> anyhow::Result<u64> {
        let prefix = self.scope.stored_prefix();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", at.to_string());
        headers.insert(
            "Nats-Expected-Last-Subject-Sequence-Subject",
            format!("{prefix}{fence}"),
        );
        let message = self
            .request(format!("{prefix}{key}"), headers, sealed)
            .await?;
        let acknowledged: Acknowledgement = serde_json::from_slice(&message.payload)?;
        match acknowledged.error {
            Some(error) => bail!("the server refuses it: {}", error.description),
            None => Ok(acknowledged.seq),
        }
    }

    async fn request(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Vec<u8>,
    ) -> anyhow::Result<Message> {
        let asked = self
            .client
            .request_with_headers(subject, headers, payload.into());
        let answered = timeout(ANSWER_LIMIT, asked).await;
        Ok(answered.context("NATS does not answer")??)
    }
}
