//! The envelope around every record: what is signed, and where it may be used.
//!
//! Laid out as one version byte, the postcard form of [`Seal`], and a 64-byte ECDSA P-256
//! signature (r then s, big-endian) over all bytes before it. The envelope names the stream,
//! key, incarnation and epoch that the record was published under, so a record copied
//! to another region, key or life of a stream no longer verifies in its place.
//! This module only takes envelopes apart; `helix_service::keys` signs and verifies.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, Generation, Incarnation, KeyId};
use crate::wire::{Wire, WireError};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// Routing records, snapshots and beacons.
    Record,
    /// Where an artifact came from.
    Provenance,
    /// An operator's override.
    Operator,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The role of the key that signed.
    pub role: KeyRole,
    /// The key that signed.
    pub key_id: KeyId,
    /// The stream it was published to, or the subject of a core message.
    pub stream: String,
    /// Its key in that stream.
    pub key: String,
    /// The life of the stream.
    pub incarnation: Incarnation,
    /// The term of the origin that published it.
    pub epoch: Epoch,
    /// The generation of the record inside; 0 for what has none.
    pub generation: Generation,
    /// The record.
    pub body: Vec<u8>,
}

impl Wire for Seal {
    const WHAT: &'static str = "sealed record";
    // A snapshot of a million hosts is sealed as one; its store's limit binds first.
    const MAX_BYTES: usize = 1024 * 1024 * 1024;
}

/// An envelope taken apart, not yet verified.
#[derive(Clone, Debug)]
pub struct Unverified<'a> {
    /// What it claims.
    pub seal: Seal,
    /// The bytes the signature covers.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

/// Takes an envelope apart.
///
/// # Errors
/// When the bytes are not an envelope of a version this build knows.
pub fn open(bytes: &[u8]) -> Result<Unverified<'_>, WireError> {
    let Some(end) = bytes.len().checked_sub(SIGNATURE_BYTES) else {
        return Err(WireError::Malformed { what: Seal::WHAT });
    };
    let (signed, signature) = bytes.split_at(end);
    Ok(Unverified {
        seal: Seal::decode(signed)?,
        signed,
        signature,
    })
}
