//! Pure. A Sigstore bundle v0.3 around one DSSE envelope that a key has signed: shapes, and the bytes that are signed.
//!
//! After `bundle.proto` and the envelope and protocol documents of DSSE v1. A bundle of ours has no certificate and no entry of
//! a transparency log: who checks it has the public key.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::KeyId;

/// Media type of a bundle; also the `artifactType` of the referrer that holds one.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What the payload of an in-toto statement's envelope is (in-toto attestation, spec/v1/envelope.md).
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// [`BUNDLE_TYPE`].
    pub media_type: String,
    /// Which key has signed.
    pub verification_material: VerificationMaterial,
    /// What was signed.
    pub dsse_envelope: Envelope,
}

/// What a bundle says of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct VerificationMaterial {
    /// The key, by its id: whoever checks has it.
    pub public_key: PublicKeyHint,
}

/// Names a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublicKeyHint {
    /// Its [`KeyId`].
    pub hint: String,
}

/// A DSSE envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The statement, in base64.
    pub payload: String,
    /// [`PAYLOAD_TYPE`].
    pub payload_type: String,
    /// Exactly one.
    pub signatures: Vec<Signature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Signature {
    /// ECDSA in DER, in base64.
    pub sig: String,
    /// The key's id, if it is named here too.
    #[serde(default)]
    pub keyid: String,
}

/// A bundle that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Of another kind or version.
    #[error("bundle has media type {0:?}, {BUNDLE_TYPE} is needed")]
    MediaType(String),
    /// The envelope holds something else than a statement.
    #[error("envelope holds {0:?}, {PAYLOAD_TYPE} is needed")]
    PayloadType(String),
    /// None, or more than one.
    #[error("envelope has {0} signatures, one is needed")]
    Signatures(usize),
    /// No key that could be one of ours.
    #[error("bundle names no key, or two")]
    Key,
}

/// Longest foreign text that an error repeats, in characters.
const MAX_SHOWN: usize = 100;

impl Bundle {
    /// A bundle of a payload and its signature, both in base64.
    #[must_use]
    pub fn of(key: &KeyId, payload: String, sig: String) -> Self {
        let hint = String::from(key.clone());
        Self {
            media_type: String::from(BUNDLE_TYPE),
            verification_material: VerificationMaterial {
                public_key: PublicKeyHint { hint },
            },
            dsse_envelope: Envelope {
                payload,
                payload_type: String::from(PAYLOAD_TYPE),
                signatures: Vec::from([Signature {
                    sig,
                    keyid: String::new(),
                }]),
            },
        }
    }

    /// The key that is said to have signed, and the signature, in base64.
    ///
    /// # Errors
    /// When the bundle is of another kind, or has not one signature of one key.
    pub fn signed_by(&self) -> Result<(KeyId, &str), Malformed> {
        let shown = |text: &str| text.chars().take(MAX_SHOWN).collect();
        if self.media_type != BUNDLE_TYPE {
            return Err(Malformed::MediaType(shown(&self.media_type)));
        }
        let envelope = &self.dsse_envelope;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(Malformed::PayloadType(shown(&envelope.payload_type)));
        }
        let [signature] = envelope.signatures.as_slice() else {
            return Err(Malformed::Signatures(envelope.signatures.len()));
        };
        let hint = &self.verification_material.public_key.hint;
        let is_other = !signature.keyid.is_empty() && signature.keyid != *hint;
        let key = hint.parse().ok().filter(|_| !is_other);
        Ok((key.ok_or(Malformed::Key)?, &signature.sig))
    }
}

/// The bytes that are signed: DSSE's pre-authentication encoding (protocol.md, v1.0.2).
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = alloc::format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle() -> Bundle {
        let key: KeyId = "0123456789abcdef".parse().unwrap();
        Bundle::of(&key, "e30=".to_owned(), "MEQ=".to_owned())
    }

    #[test]
    fn what_is_signed_is_the_encoding_of_the_protocol() {
        let encoded = pae("http://example.com/HelloWorld", b"hello world");
        assert_eq!(
            encoded,
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn a_bundle_has_one_signature_of_one_key_over_a_statement() {
        assert_eq!(bundle().signed_by().unwrap().1, "MEQ=");
        let refused = |change: fn(&mut Bundle)| {
            let mut other = bundle();
            change(&mut other);
            other.signed_by().unwrap_err()
        };
        type Change = fn(&mut Bundle);
        let cases: [(Change, Malformed); 7] = [
            (
                |bundle| bundle.media_type = "x".to_owned(),
                Malformed::MediaType("x".to_owned()),
            ),
            (
                |bundle| bundle.dsse_envelope.payload_type = "text/plain".to_owned(),
                Malformed::PayloadType("text/plain".to_owned()),
            ),
            (
                |bundle| bundle.dsse_envelope.signatures.clear(),
                Malformed::Signatures(0),
            ),
            (
                |bundle| {
                    let again = bundle.dsse_envelope.signatures[0].clone();
                    bundle.dsse_envelope.signatures.push(again);
                },
                Malformed::Signatures(2),
            ),
            (
                |bundle| bundle.verification_material.public_key.hint.clear(),
                Malformed::Key,
            ),
            (
                |bundle| bundle.verification_material.public_key.hint = "../key".to_owned(),
                Malformed::Key,
            ),
            (
                |bundle| bundle.dsse_envelope.signatures[0].keyid = "f".repeat(16),
                Malformed::Key,
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(refused(change), expected);
        }
        let mut named = bundle();
        named.dsse_envelope.signatures[0].keyid = "0123456789abcdef".to_owned();
        assert!(named.signed_by().is_ok());
    }

    #[test]
    fn an_error_repeats_little_of_what_a_stranger_sent() {
        let mut other = bundle();
        other.media_type = "x".repeat(100_000);
        assert!(other.signed_by().unwrap_err().to_string().len() < 300);
    }

    proptest! {
        #[test]
        fn two_payloads_are_never_signed_as_the_same_bytes(
            one in ("[a-z0-9 ]{0,12}", "[a-z0-9 ]{0,12}"), other in ("[a-z0-9 ]{0,12}", "[a-z0-9 ]{0,12}")
        ) {
            let encode = |(kind, payload): &(String, String)| pae(kind, payload.as_bytes());
            prop_assert_eq!(encode(&one) == encode(&other), one == other);
        }
    }
}
