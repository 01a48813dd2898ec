//! Why an edge is not let in, or a join token not made.

use helix_routing::edge::join::MAX_CLOCK_SECONDS;
use helix_routing::id::{EdgeId, RegionId};
use helix_service::claims::SignError;

use super::keys::KeysError;
use crate::auth::AuthError;
use crate::store::StoreError;

/// An edge was not let in, or a token not made.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Origin was not set up for it.
    #[error("this origin lets no edges in: `[admission]` is not in its configuration")]
    Off,
    /// There is no such region.
    #[error("there is no region {0} in origin's configuration")]
    UnknownRegion(RegionId),
    /// What is asked for cannot be.
    #[error("{0}")]
    Illegal(String),
    /// There is no such token.
    #[error("there is no join token {0} to revoke")]
    NoToken(String),
    /// Nobody's secret.
    #[error("this is no join token of this fleet")]
    BadToken,
    /// It was revoked.
    #[error("the join token was revoked")]
    RevokedToken,
    /// Its time is over.
    #[error("the join token expired {ago} s ago")]
    ExpiredToken {
        /// Since then, in seconds.
        ago: u64,
    },
    /// It has let in as many as it may.
    #[error("the join token is used up: it was for {0} edge(s)")]
    UsedToken(u32),
    /// It is for another region.
    #[error("the join token is for region {token}, the edge says that it is in {edge}")]
    OtherRegion {
        /// The token's.
        token: RegionId,
        /// The edge's.
        edge: RegionId,
    },
    /// It is for another edge.
    #[error("the join token is for edge {token} alone, not for {edge}")]
    OtherEdge {
        /// The token's.
        token: EdgeId,
        /// Who asks.
        edge: EdgeId,
    },
    /// There is one by this name.
    #[error("there is an edge {0} already; remove it first, or choose another name")]
    Exists(EdgeId),
    /// No such edge has joined.
    #[error("no edge {0} of this fleet has joined by a token")]
    NotJoined(EdgeId),
    /// What was signed is too old, or of the future.
    #[error("the edge's clock and origin's are {apart} s apart; {MAX_CLOCK_SECONDS} s are allowed")]
    Clock {
        /// By so much.
        apart: u64,
    },
    /// A key or a signature is not what it should be.
    #[error("{what} does not show that the edge holds its key")]
    Proof {
        /// Which.
        what: &'static str,
    },
    /// Too many bad tokens from one address.
    #[error("too many join tokens that were none; wait a minute")]
    TooManyTries,
    /// NATS does not confirm.
    #[error("nats-server does not take the edge's account: {0}")]
    Nats(String),
    /// A key of the fleet cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A key cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The certificate cannot be made.
    #[error("make the edge's certificate")]
    Certificate(#[from] rcgen::Error),
    /// Its token for artifacts cannot be made.
    #[error("make the token that the edge reads artifacts with")]
    ReadToken(#[from] AuthError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AdmissionError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}
