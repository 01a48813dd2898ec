//! Signs statements as Sigstore bundles, and opens bundles: DSSE v1 over ECDSA P-256 with SHA-256.
//!
//! Invariant: what a bundle holds is parsed only after its signature verified with a key of the ring, over exactly the bytes
//! that are parsed. What a statement means is not known here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helix_routing::provenance::MAX_BUNDLE_BYTES;
use helix_routing::provenance::bundle::{Bundle, Malformed, PAYLOAD_TYPE, pae};
use helix_routing::seal::KeyRole;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::keys::{KeyRing, SigningKey, VerifyError};

/// A bundle was refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Larger than any legal one.
    #[error("bundle has {0} bytes, at most {MAX_BUNDLE_BYTES} are read")]
    TooLarge(usize),
    /// Not JSON of its shape.
    #[error("{what} is not what its type says")]
    Json {
        /// Bundle or statement.
        what: &'static str,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// Not base64.
    #[error("{0} is no base64")]
    Base64(&'static str),
    /// None of ours.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its signature does not count.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// A statement as a bundle of `key`, in JSON.
#[must_use]
pub fn sign(key: &SigningKey, statement: &impl Serialize) -> Vec<u8> {
    let payload = serde_json::to_vec(statement).expect("plain data with text keys always encodes");
    let signature = key.sign_der(&pae(PAYLOAD_TYPE, &payload));
    let (payload, signature) = (STANDARD.encode(payload), STANDARD.encode(signature));
    let bundle = Bundle::of(&key.public().id, payload, signature);
    serde_json::to_vec(&bundle).expect("plain data with text keys always encodes")
}

/// The statement in a bundle that a key of role `role` has signed.
///
/// # Errors
/// As [`BundleError`] says.
pub fn open<T: DeserializeOwned>(
    ring: &KeyRing,
    role: KeyRole,
    bytes: &[u8],
) -> Result<T, BundleError> {
    if bytes.len() > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLarge(bytes.len()));
    }
    let json = |what| move |source| BundleError::Json { what, source };
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(json("bundle"))?;
    let (key, signature) = bundle.signed_by()?;
    let decode = |what, text: &str| STANDARD.decode(text).map_err(|_| BundleError::Base64(what));
    let signature = decode("signature", signature)?;
    let payload = decode("payload", &bundle.dsse_envelope.payload)?;
    ring.verify_der(role, &key, &pae(PAYLOAD_TYPE, &payload), &signature)?;
    serde_json::from_slice(&payload).map_err(json("statement"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Case {
        ring: KeyRing,
        bundle: Value,
    }

    fn case() -> Case {
        let key = SigningKey::generate(KeyRole::Provenance);
        let bundle = sign(&key, &json!({ "says": "hello" }));
        Case {
            ring: KeyRing::new([key.public()]),
            bundle: serde_json::from_slice(&bundle).unwrap(),
        }
    }

    fn opened(case: &Case) -> Result<Value, BundleError> {
        let bytes = serde_json::to_vec(&case.bundle).unwrap();
        open(&case.ring, KeyRole::Provenance, &bytes)
    }

    #[test]
    fn a_statement_is_what_was_signed() {
        assert_eq!(opened(&case()).unwrap(), json!({ "says": "hello" }));
    }

    #[test]
    fn another_payload_or_signature_or_key_or_role_is_refused() {
        let mut other = case();
        other.bundle["dsseEnvelope"]["payload"] = json!(STANDARD.encode("{\"says\":\"no\"}"));
        assert!(matches!(
            opened(&other),
            Err(BundleError::Verify(VerifyError::Signature { .. }))
        ));
        let mut other = case();
        other.bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!(STANDARD.encode([0x30, 0]));
        assert!(matches!(
            opened(&other),
            Err(BundleError::Verify(VerifyError::Signature { .. }))
        ));
        let stranger = Case {
            ring: case().ring,
            bundle: case().bundle,
        };
        assert!(matches!(
            opened(&stranger),
            Err(BundleError::Verify(VerifyError::UnknownKey { .. }))
        ));
        let key = SigningKey::generate(KeyRole::Record);
        let of_records = Case {
            ring: KeyRing::new([key.public()]),
            bundle: serde_json::from_slice(&sign(&key, &json!({}))).unwrap(),
        };
        assert!(matches!(
            opened(&of_records),
            Err(BundleError::Verify(VerifyError::UnknownKey { .. }))
        ));
    }

    #[test]
    fn two_keys_of_a_role_count_while_one_takes_the_place_of_the_other() {
        let (before, after) = (
            SigningKey::generate(KeyRole::Provenance),
            SigningKey::generate(KeyRole::Provenance),
        );
        let ring = KeyRing::new([before.public(), after.public()]);
        for key in [before, after] {
            let bundle = sign(&key, &json!(1));
            assert_eq!(
                open::<Value>(&ring, KeyRole::Provenance, &bundle).unwrap(),
                json!(1)
            );
        }
    }

    #[test]
    fn what_a_stranger_may_send_is_refused_by_its_name() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 6] = [
            (|b| b["mediaType"] = json!("x"), "media type"),
            (
                |b| b["dsseEnvelope"]["payloadType"] = json!("x"),
                "envelope holds",
            ),
            (
                |b| {
                    let one = b["dsseEnvelope"]["signatures"][0].clone();
                    b["dsseEnvelope"]["signatures"] = json!([one, one]);
                },
                "2 signatures",
            ),
            (
                |b| b["dsseEnvelope"]["payload"] = json!("%%%"),
                "payload is no base64",
            ),
            (
                |b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!("%"),
                "signature is no base64",
            ),
            (|b| *b = json!([]), "bundle is not"),
        ];
        for (change, needle) in cases {
            let mut other = case();
            change(&mut other.bundle);
            let refused = opened(&other).unwrap_err().to_string();
            assert!(refused.contains(needle), "{needle}: {refused}");
        }
        let huge = vec![b' '; MAX_BUNDLE_BYTES + 1];
        let refused = open::<Value>(&case().ring, KeyRole::Provenance, &huge);
        assert!(matches!(refused, Err(BundleError::TooLarge(_))));
        let deep = "[".repeat(MAX_BUNDLE_BYTES);
        assert!(open::<Value>(&case().ring, KeyRole::Provenance, deep.as_bytes()).is_err());
    }
}
