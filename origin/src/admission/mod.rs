//! Letting edges in: join tokens, accounts at NATS, certificates.
//!
//! Invariant: SQL says which accounts there are and which are no more, and NATS is told; whatever its servers have forgotten, or not
//! heard, they are told again with each new link. An edge's private keys never leave it: it shows that it has them by signing what
//! it asks for.

pub mod authority;
mod enrolled;
pub mod keys;
mod proof;
mod refused;
mod renewal;
mod servers;
pub mod tokens;
mod tries;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use helix_routing::api::{NewToken, Role};
use helix_routing::edge::join::{JoinRequest, JoinTokenView, Joined, PinnedKey};
use helix_routing::edge::view::Admitted;
use helix_routing::id::{EdgeId, RegionId};
use helix_routing::time::Timestamp;
use helix_service::claims::{Issuer, edge_may};
use helix_service::clock;
use helix_service::keys::PublicKey;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use self::authority::Authority;
use self::enrolled::Admittance;
pub(crate) use self::enrolled::end;
use self::keys::{Keys, KeysError};
pub use self::refused::AdmissionError;
use self::servers::Servers;
use self::tries::Tries;
use crate::auth::{self, Caller};
use crate::config::Config;
use crate::fleet::{Edge, Enrolment, Roster};
use crate::store::{Store, Tx};

/// How edges are let in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionConfig {
    /// The folder that `helix-origin nats` made.
    pub keys: PathBuf,
    /// Where edges find NATS, if that is not where origin does.
    #[serde(default)]
    pub nats_urls: Vec<String>,
    /// What the edges of a region with leaf nodes use instead.
    #[serde(default)]
    pub leafs: Vec<LeafConfig>,
    /// What signed the certificates of NATS's servers, in PEM; none where they are spoken to in the clear.
    #[serde(default)]
    pub nats_ca: Option<PathBuf>,
    /// Where edges reach each origin of the fleet, if there are several: they are told when they join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
}

/// The leaf nodes of one region.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LeafConfig {
    /// The region.
    pub region: RegionId,
    /// Where its edges find NATS, nearest first.
    pub nats_urls: Vec<String>,
}

/// Lets edges in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Keys,
    authority: Authority,
    servers: Servers,
    config: AdmissionConfig,
    /// What NATS's certificates are signed by.
    nats_ca: Option<String>,
    origin_nats: String,
    base_domain: String,
    pinned: Vec<PinnedKey>,
    regions: Vec<RegionId>,
    tries: Tries,
    /// Held from reading whether an account is to be until NATS knows it: no older word comes after a newer one.
    telling: Mutex<()>,
}

impl Admission {
    /// As the configuration has it, if at all: reads the keys, and connects to the servers' own account in the background. Edges
    /// pin the keys `pinned`.
    ///
    /// # Errors
    /// When a key cannot be read.
    pub async fn configured(
        config: &Config,
        pinned: Vec<PublicKey>,
        roster: &Roster,
    ) -> Result<Option<Self>, AdmissionError> {
        let Some(own) = config.admission.clone() else {
            return Ok(None);
        };
        let keys = Keys::open(&own.keys)?;
        let authority = Authority::open(keys.folder())?;
        let nats_ca = own.nats_ca.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|source| KeysError::Read {
                path: path.clone(),
                source,
            })
        });
        let system = helix_service::nats::NatsConfig {
            seed_file: own.keys.join("system.creds"),
            monitor: None,
            ..config.nats.clone()
        };
        let regions = config.regions.iter().map(|region| region.region.clone());
        let regions: Vec<RegionId> = regions.collect();
        for region in &regions {
            roster.link(region.clone(), keys.leaf_account(region)?);
        }
        Ok(Some(Self(Arc::new(Inner {
            authority,
            servers: Servers::connect(&system).await?,
            keys,
            config: own,
            nats_ca: nats_ca.transpose()?,
            origin_nats: config.nats.url.clone(),
            base_domain: config.base_domain.to_string(),
            pinned: pinned.into_iter().map(pin).collect(),
            regions,
            tries: Tries::default(),
            telling: Mutex::default(),
        }))))
    }

    /// Tells NATS with each new link which accounts there are and which there are no more, until shutdown.
    pub async fn run(&self, store: &Store, shutdown: &helix_service::shutdown::Shutdown) {
        tokio::select! {
            () = shutdown.requested() => {}
            () = self.0.servers.follow(async || self.tell_all(store).await) => {}
        }
    }

    /// Lets an edge in. The same edge with the same keys may ask again, if it has not heard the answer.
    ///
    /// # Errors
    /// As [`AdmissionError`] says.
    pub async fn join(
        &self,
        store: &Store,
        roster: &Roster,
        from: Option<IpAddr>,
        request: &JoinRequest,
    ) -> Result<Joined, AdmissionError> {
        let now = clock::now();
        if !self.0.tries.may_try(from, now) {
            return Err(AdmissionError::TooManyTries);
        }
        let joined = self.admit(store, roster, request, now).await;
        if matches!(joined, Err(AdmissionError::BadToken)) {
            self.0.tries.failed(from, now);
        }
        joined
    }

    async fn admit(
        &self,
        store: &Store,
        roster: &Roster,
        request: &JoinRequest,
        now: Timestamp,
    ) -> Result<Joined, AdmissionError> {
        let mut tx = store.write().await?;
        let token = tokens::find(&mut tx, &request.token, now).await?;
        proof::check(request, &token)?;
        let point = proof::point(request)?;
        let account = account(&mut tx, request, &token).await?;
        let issued = self
            .0
            .authority
            .issue(&request.edge, &token.region, &point)?;
        let (read_token, secret) = read_token(&mut tx, &request.edge).await?;
        let admittance = Admittance {
            edge: request.edge.clone(),
            region: token.region,
            account,
            issued,
            read_token,
        };
        enrolled::save(&mut tx, request, &admittance, now, &token.id).await?;
        tx.commit().await?;
        let edge = Edge {
            region: admittance.region.clone(),
            edge: request.edge.clone(),
            url: request.url.clone(),
        };
        roster.admit(edge, enrolment(&admittance, now));
        let (account, region) = (&admittance.account, &admittance.region);
        self.tell(store, account, &request.edge, region).await?;
        self.welcome(request, admittance, secret)
    }

    fn welcome(
        &self,
        request: &JoinRequest,
        admittance: Admittance,
        artifact_token: String,
    ) -> Result<Joined, AdmissionError> {
        let inner = &*self.0;
        let Admittance {
            edge,
            region,
            account,
            issued,
            read_token: _,
        } = admittance;
        let may = edge_may(&edge, &region);
        let issuer = Issuer {
            key: &inner.keys.signing,
            at: clock::now(),
        };
        Ok(Joined {
            base_domain: inner.base_domain.clone(),
            nats_urls: self.nats_urls(&region),
            nats_jwt: issuer.user(&request.nats_user, edge.as_str(), &account, Some(&may))?,
            nats_ca: inner.nats_ca.clone(),
            keys: inner.pinned.clone(),
            certificate: issued.pem,
            authority: inner.authority.pem.clone(),
            certificate_until: issued.until,
            artifact_token,
            origins: inner.config.origins.clone(),
            edge,
            region,
        })
    }

    /// Where the edges of a region find NATS.
    fn nats_urls(&self, region: &RegionId) -> Vec<String> {
        let config = &self.0.config;
        if let Some(leaf) = config.leafs.iter().find(|leaf| leaf.region == *region) {
            return leaf.nats_urls.clone();
        }
        if !config.nats_urls.is_empty() {
            return config.nats_urls.clone();
        }
        let urls = self.0.origin_nats.split(',');
        urls.map(|url| url.trim().to_owned()).collect()
    }

    /// Tells NATS that the account of an edge is no more: whoever is connected by it is cut, and nobody connects by it again.
    /// What it does not confirm it is told again until it does.
    pub async fn end(&self, edge: &EdgeId, account: &str) {
        if let Err(error) = self.tell_end(edge.as_str(), account).await {
            tracing::warn!(%edge, %error, "NATS has not ended the edge's account yet");
            self.0.servers.tell_again();
        }
    }

    /// Tells of an edge's account, unless its edge was removed meanwhile.
    async fn tell(
        &self,
        store: &Store,
        account: &str,
        edge: &EdgeId,
        region: &RegionId,
    ) -> Result<(), AdmissionError> {
        let _telling = self.0.telling.lock().await;
        if enrolled::is_ended(store, account).await? {
            return Ok(());
        }
        let keys = &self.0.keys;
        let signing = keys.signing.public_key();
        let jwt = self
            .operator()
            .edge(account, (edge, region), &keys.origin_account, &signing)?;
        self.0.servers.update(jwt).await
    }

    async fn tell_end(&self, edge: &str, account: &str) -> Result<(), AdmissionError> {
        let _telling = self.0.telling.lock().await;
        let jwt = self.operator().ended(account, edge)?;
        self.0.servers.update(jwt).await
    }

    async fn tell_all(&self, store: &Store) -> Result<(), AdmissionError> {
        let keys = &self.0.keys;
        let signing = keys.signing.public_key();
        // First who is out.
        for (account, edge) in enrolled::ended(store).await? {
            self.tell_end(&edge, &account).await?;
        }
        for region in &self.0.regions {
            let account = keys.leaf_account(region)?;
            let jwt = self
                .operator()
                .leaf(&account, region, &keys.origin_account, &signing)?;
            self.0.servers.update(jwt).await?;
        }
        for (account, edge, region) in enrolled::accounts(store).await? {
            self.tell(store, &account, &edge, &region).await?;
        }
        Ok(())
    }

    fn operator(&self) -> Issuer<'_> {
        Issuer {
            key: &self.0.keys.operator,
            at: clock::now(),
        }
    }
}

fn pin(key: PublicKey) -> PinnedKey {
    let role = serde_json::to_value(key.role).ok();
    PinnedKey {
        role: role
            .and_then(|role| role.as_str().map(str::to_owned))
            .unwrap_or_default(),
        id: key.id.to_string(),
        public: key.public,
    }
}

/// The account of who asks: a new one, which uses the token, or that of an edge that asks again, whose artifact token ends.
async fn account(
    tx: &mut Tx,
    request: &JoinRequest,
    token: &JoinTokenView,
) -> Result<String, AdmissionError> {
    let held = enrolled::holder(tx, &request.edge).await?;
    match held {
        Some(held) if held.is_by(request, &token.id) => {
            if let Some(before) = &held.read_token {
                // It may have been revoked by hand.
                match auth::revoke(tx, before).await {
                    Ok(()) | Err(auth::AuthError::Missing { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let account = held.account;
            account.ok_or_else(|| AdmissionError::Exists(request.edge.clone()))
        }
        _ if token.used >= token.uses => Err(AdmissionError::UsedToken(token.uses)),
        Some(_) => Err(AdmissionError::Exists(request.edge.clone())),
        None => {
            tokens::consume(tx, &token.id).await?;
            let by = Caller {
                id: token.id.clone(),
                name: format!("join token {}", token.id),
                role: Role::Edge,
                request: None,
            };
            let (edge, url) = (request.edge.as_str(), Some(request.url.as_str()));
            crate::audit::note(tx, &by, "edge.join", edge, url).await?;
            Ok(KeyPair::new_account().public_key())
        }
    }
}

/// A token of its own that an edge reads artifacts with: its id and its secret.
async fn read_token(tx: &mut Tx, edge: &EdgeId) -> Result<(String, String), AdmissionError> {
    let new = NewToken {
        name: format!("edge {edge}"),
        role: Role::Edge,
    };
    let created = auth::create(tx, new).await?;
    Ok((created.view.id, created.token))
}

fn enrolment(admittance: &Admittance, now: Timestamp) -> Enrolment {
    Enrolment {
        admitted: Admitted::Token,
        joined: now,
        account: Some(admittance.account.clone()),
        certificate_until: Some(admittance.issued.until),
        ..Enrolment::default()
    }
}
