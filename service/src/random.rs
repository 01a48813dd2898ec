//! Ids and secrets that nobody can guess.

use helix_routing::id::BootId;

/// A boot id for this start of the process.
#[must_use]
pub fn boot_id() -> BootId {
    hex16().parse().expect("16 hex digits are a boot id")
}

/// 16 random hex digits: rollout ids, incarnations.
#[must_use]
pub fn hex16() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

/// A secret of 256 random bits as 64 hex digits.
#[must_use]
pub fn secret() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}
