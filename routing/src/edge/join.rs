//! How an edge comes into the fleet, in origin's HTTP API.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{EdgeId, RegionId};
use crate::time::Timestamp;

/// What every join token starts with, so that scanners for leaked ones can find it.
pub const PREFIX: &str = "helix_join_";
/// Longest time to live of a join token: a week.
pub const MAX_TTL_SECONDS: u64 = 7 * 24 * 60 * 60;
/// How long a join token lives unless somebody says otherwise.
pub const DEFAULT_TTL_SECONDS: u64 = 60 * 60;
/// Most edges that one join token admits.
pub const MAX_USES: u32 = 1000;

/// Asks for a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// The region of the edges that it admits.
    pub region: RegionId,
    /// The only edge that it admits; any name, without.
    #[serde(default)]
    pub edge: Option<EdgeId>,
    /// How long it lives, in seconds; an hour, without.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
    /// How many edges it admits; one, without.
    #[serde(default)]
    pub uses: Option<u32>,
}

/// A join token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinTokenView {
    /// Its id, to revoke it by.
    pub id: String,
    /// The region of the edges that it admits.
    pub region: RegionId,
    /// The only edge that it admits.
    pub edge: Option<EdgeId>,
    /// How many edges it admits.
    pub uses: u32,
    /// How many it has admitted.
    pub used: u32,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Who made it.
    pub by: String,
}

/// A new join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreatedJoinToken {
    /// The secret; shown this once.
    pub token: String,
    /// The rest.
    pub view: JoinTokenView,
}

/// An edge asks to be let in. It shows that it holds the private halves of both keys by signing what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The join token.
    pub token: String,
    /// What the edge wants to be called.
    pub edge: EdgeId,
    /// The region it believes to be in; that of the token, without.
    #[serde(default)]
    pub region: Option<RegionId>,
    /// Where origin can probe it.
    pub url: String,
    /// Public nkey of its NATS user.
    pub nats_user: String,
    /// Signature of [`statement`] by that key, in base64 without padding, as URLs have it.
    pub nats_proof: String,
    /// Public key of its certificate: an uncompressed point of P-256 in hex.
    pub certificate_key: String,
    /// Signature of [`statement`] by that key (ECDSA with SHA-256, fixed size), in base64 like the other.
    pub certificate_proof: String,
}

/// What an edge signs with both of its keys, so that nobody can join with the public key of another.
#[must_use]
pub fn statement(token: &str, edge: &EdgeId, url: &str) -> Vec<u8> {
    alloc::format!("helix join 1\n{token}\n{edge}\n{url}\n").into_bytes()
}

/// An edge has been let in: all that it needs to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The edge.
    pub edge: EdgeId,
    /// Its region.
    pub region: RegionId,
    /// The domain sites are under.
    pub base_domain: String,
    /// Where NATS is, nearest first.
    pub nats_urls: Vec<String>,
    /// What admits its user there: a NATS JWT.
    pub nats_jwt: String,
    /// What a server of NATS shows has to be signed by this, in PEM; none where NATS is spoken to in the clear.
    pub nats_ca: Option<String>,
    /// Keys to trust, by role.
    pub keys: Vec<PinnedKey>,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// The fleet's authority that signed it, in PEM.
    pub authority: String,
    /// Until when the certificate is good.
    pub certificate_until: Timestamp,
    /// The token that artifacts are read with.
    pub artifact_token: String,
    /// Every origin of the fleet, by its base URL; none where origin's config does not name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
}

/// A key that edges pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PinnedKey {
    /// What it may sign.
    pub role: String,
    /// Its name.
    pub id: String,
    /// The uncompressed point in hex.
    pub public: String,
}

/// An edge that joined asks for its next certificate. It shows by one signature that it is that edge, and by the other that it holds the
/// private half of the key that is to be certified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewalRequest {
    /// The edge.
    pub edge: EdgeId,
    /// When this was signed.
    pub at: Timestamp,
    /// Public key of the certificate: an uncompressed point of P-256 in hex.
    pub certificate_key: String,
    /// Signature of [`renewal`] by the edge's NATS user, in base64 without padding, as URLs have it.
    pub nats_proof: String,
    /// Signature of [`renewal`] by the certificate's key (ECDSA with SHA-256, fixed size), in base64 like the other.
    pub certificate_proof: String,
}

/// How far the clocks of an edge and of origin may be apart for a renewal, in seconds.
pub const MAX_CLOCK_SECONDS: u64 = 300;

/// What an edge signs for its next certificate.
#[must_use]
pub fn renewal(edge: &EdgeId, at: Timestamp, certificate_key: &str) -> Vec<u8> {
    alloc::format!(
        "helix renew 1\n{edge}\n{}\n{certificate_key}\n",
        at.as_millis()
    )
    .into_bytes()
}

/// The next certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Renewed {
    /// The certificate, in PEM.
    pub certificate: String,
    /// The fleet's authority that signed it, in PEM.
    pub authority: String,
    /// Until when it is good.
    pub certificate_until: Timestamp,
}
