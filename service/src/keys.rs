//! Keys that sign records, and the ring that verifies them: ECDSA P-256 with SHA-256 (FIPS 186-5).
//!
//! A signature names key id and role. A ring may hold several keys of a role, so that a key can be
//! rotated: the new one is added everywhere before it signs, the old one removed after.

use std::fmt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use helix_routing::id::{Epoch, Generation, Incarnation, KeyId};
use helix_routing::seal::{self, KeyRole, Seal};
use helix_routing::wire::{Wire, WireError};
use serde::{Deserialize, Serialize};

use crate::disk::{self, WriteError};

const PEM_HEAD: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_TAIL: &str = "-----END PRIVATE KEY-----";
const PUBLIC_PEM_HEAD: &str = "-----BEGIN PUBLIC KEY-----";
const PUBLIC_PEM_TAIL: &str = "-----END PUBLIC KEY-----";
/// What precedes the uncompressed point of a P-256 key in its SubjectPublicKeyInfo (RFC 5480, 2): lengths, and the two object ids.
const P256_INFO: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
/// Characters in a line of PEM (RFC 7468, 2).
const PEM_LINE: usize = 64;

/// A key file was refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("read key {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It is not a P-256 key in PKCS#8 PEM.
    #[error("key {} is not an ECDSA P-256 key in PKCS#8 PEM", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A sealed record was refused.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is no envelope.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// It names a key that is not in the ring for its role.
    #[error("signed by unknown key {key_id} of role {role:?}")]
    UnknownKey {
        /// The key.
        key_id: KeyId,
        /// The role it claims.
        role: KeyRole,
    },
    /// It was signed for another purpose.
    #[error("signed with role {found:?}, {expected:?} is needed")]
    Role {
        /// The role it has.
        found: KeyRole,
        /// The role it needs.
        expected: KeyRole,
    },
    /// The signature does not fit the bytes.
    #[error("signature of key {key_id} does not verify")]
    Signature {
        /// The key.
        key_id: KeyId,
    },
}

/// The public half of a key, as a config file holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// What it may sign.
    pub role: KeyRole,
    /// Its name.
    pub id: KeyId,
    /// The uncompressed point (SEC 1, 2.3.3) in hex.
    pub public: String,
}

impl PublicKey {
    /// The key in PEM, as other programs read it. None when its hex is none.
    #[must_use]
    pub fn pem(&self) -> Option<String> {
        let mut der = hex::decode(P256_INFO).ok()?;
        der.extend(hex::decode(&self.public).ok()?);
        Some(pem((PUBLIC_PEM_HEAD, PUBLIC_PEM_TAIL), &der))
    }
}

/// Where a sealed body may be used.
#[derive(Clone, Debug)]
pub struct Address {
    /// Stream, or subject of a core message.
    pub stream: String,
    /// Key within it.
    pub key: String,
    /// Life of the stream.
    pub incarnation: Incarnation,
    /// Term of the publisher.
    pub epoch: Epoch,
    /// Generation of the record inside; 0 for what has none.
    pub generation: Generation,
}

/// A private key with its role.
pub struct SigningKey {
    role: KeyRole,
    id: KeyId,
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl SigningKey {
    /// A new key.
    #[must_use]
    pub fn generate(role: KeyRole) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .expect("the system's random source gives a key");
        Self::new(role, pair)
    }

    fn new(role: KeyRole, pair: EcdsaKeyPair) -> Self {
        let digest = crate::digest::sha256(pair.public_key().as_ref());
        let id = digest.hex()[..16]
            .parse()
            .expect("16 hex digits are a key id");
        Self {
            role,
            id,
            pair,
            random: SystemRandom::new(),
        }
    }

    /// Reads a key that [`SigningKey::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read or is no P-256 key.
    pub fn load(role: KeyRole, path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        pair_from_pem(&text)
            .map(|pair| Self::new(role, pair))
            .ok_or_else(|| KeyError::Malformed {
                path: path.to_owned(),
            })
    }

    /// Reads the key of a file, or makes one where there is none.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no P-256 key.
    pub fn open(role: KeyRole, path: &Path) -> Result<Self, KeyError> {
        if path.exists() {
            return Self::load(role, path);
        }
        let key = Self::generate(role);
        key.save(path)?;
        tracing::info!(key.id = %key.id, ?role, "key made");
        Ok(key)
    }

    /// Writes the key as PKCS#8 PEM that only its owner can read.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), WriteError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| WriteError {
            path: path.to_owned(),
            source: io::Error::other("the key cannot be encoded"),
        })?;
        disk::write_secret(path, pem((PEM_HEAD, PEM_TAIL), der.as_ref()).as_bytes())
    }

    /// The half to pin elsewhere.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey {
            role: self.role,
            id: self.id.clone(),
            public: hex::encode(self.pair.public_key().as_ref()),
        }
    }

    /// Signs bytes that are no record: they must not be readable as one.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&self.random, bytes);
        let signature = signature.expect("signing needs only randomness");
        signature.as_ref().to_vec()
    }

    /// The same, with the signature in DER, as other programs expect it (RFC 3279, 2.2.3).
    #[must_use]
    pub fn sign_der(&self, bytes: &[u8]) -> Vec<u8> {
        let signature = self.sign(bytes);
        let (r, s) = signature.split_at(signature.len() / 2);
        let body = [integer(r), integer(s)].concat();
        let length = u8::try_from(body.len()).expect("two numbers of 32 bytes are at most 70");
        [&[0x30, length], body.as_slice()].concat()
    }

    /// Signs `body` for use at `address`.
    #[must_use]
    pub fn seal(&self, address: Address, body: Vec<u8>) -> Vec<u8> {
        let Address {
            stream,
            key,
            incarnation,
            epoch,
            generation,
        } = address;
        let mut bytes = Seal {
            role: self.role,
            key_id: self.id.clone(),
            stream,
            key,
            incarnation,
            epoch,
            generation,
            body,
        }
        .encode();
        let signature = self
            .pair
            .sign(&self.random, &bytes)
            .expect("signing needs only randomness");
        bytes.extend_from_slice(signature.as_ref());
        bytes
    }
}

/// Whether `signature` of `bytes` was made by the key of this uncompressed point (SEC 1, 2.3.3).
#[must_use]
pub fn verify(point: &[u8], bytes: &[u8], signature: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(bytes, signature).is_ok()
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?} {})", self.role, self.id)
    }
}

/// A number as DER writes it: no zeros before it, but one where it would read as negative (X.690, 8.3).
fn integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0);
    let digits = bytes
        .get(first.unwrap_or(bytes.len())..)
        .unwrap_or_default();
    let is_padded = digits.first().is_none_or(|first| first & 0x80 != 0);
    let length = digits.len() + usize::from(is_padded);
    let length = u8::try_from(length).expect("a number of 32 bytes is at most 33 long");
    let padding: &[u8] = if is_padded { &[0] } else { &[] };
    [&[0x02, length], padding, digits].concat()
}

fn pem((head, tail): (&str, &str), der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let lines = encoded.as_bytes().chunks(PEM_LINE);
    let lines: Vec<_> = lines.map(String::from_utf8_lossy).collect();
    format!("{head}\n{}\n{tail}\n", lines.join("\n"))
}

fn pair_from_pem(text: &str) -> Option<EcdsaKeyPair> {
    let inner = text.trim().strip_prefix(PEM_HEAD)?.strip_suffix(PEM_TAIL)?;
    let compact: String = inner.split_ascii_whitespace().collect();
    let der = STANDARD.decode(compact).ok()?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).ok()
}

/// The keys an edge trusts, by role.
#[derive(Clone, Debug)]
pub struct KeyRing(Vec<(KeyRole, KeyId, Vec<u8>)>);

impl KeyRing {
    /// A ring of these keys. One whose hex does not parse is left out: nothing verifies with it.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(
            keys.into_iter()
                .filter_map(|key| Some((key.role, key.id, hex::decode(key.public).ok()?)))
                .collect(),
        )
    }

    /// Whether there is no key of `role`: nothing could ever verify.
    #[must_use]
    pub fn lacks(&self, role: KeyRole) -> bool {
        !self.0.iter().any(|(held, ..)| *held == role)
    }

    /// Verifies an envelope that must have been signed by a key of `role`, and returns what was signed.
    /// The caller still has to compare stream, key, incarnation and epoch with where it found it.
    ///
    /// # Errors
    /// As [`VerifyError`] says.
    pub fn verify(&self, role: KeyRole, bytes: &[u8]) -> Result<Seal, VerifyError> {
        let seal::Unverified {
            seal,
            signed,
            signature,
        } = seal::open(bytes)?;
        if seal.role != role {
            return Err(VerifyError::Role {
                found: seal.role,
                expected: role,
            });
        }
        let key = self
            .0
            .iter()
            .find(|(held, id, _)| *held == role && *id == seal.key_id);
        let Some((_, _, public)) = key else {
            return Err(VerifyError::UnknownKey {
                key_id: seal.key_id,
                role,
            });
        };
        match UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(signed, signature) {
            Ok(()) => Ok(seal),
            Err(_) => Err(VerifyError::Signature {
                key_id: seal.key_id,
            }),
        }
    }

    /// Verifies that a key of `role` has signed `bytes`, with a signature in DER.
    ///
    /// # Errors
    /// When the ring has no such key, or the signature is another's or of other bytes.
    pub fn verify_der(
        &self,
        role: KeyRole,
        key_id: &KeyId,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        let key_id = key_id.clone();
        let mut keys = self.0.iter();
        let key = keys.find(|(held, id, _)| *held == role && *id == key_id);
        let Some((_, _, public)) = key else {
            return Err(VerifyError::UnknownKey { key_id, role });
        };
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public)
            .verify(bytes, signature)
            .map_err(|_| VerifyError::Signature { key_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        Address {
            stream: "KV_g".to_owned(),
            key: "h.00.x".to_owned(),
            incarnation: "0123456789abcdef".parse().unwrap(),
            epoch: Epoch(3),
            generation: Generation(7),
        }
    }

    #[test]
    fn a_seal_verifies_only_whole_with_its_key_and_role() {
        let key = SigningKey::generate(KeyRole::Record);
        let ring = KeyRing::new([key.public()]);
        let sealed = key.seal(address(), b"body".to_vec());
        assert_eq!(ring.verify(KeyRole::Record, &sealed).unwrap().body, b"body");
        for index in 0..sealed.len() {
            let mut tampered = sealed.clone();
            tampered[index] ^= 1;
            assert!(
                ring.verify(KeyRole::Record, &tampered).is_err(),
                "byte {index} can be changed"
            );
        }
        assert!(matches!(
            ring.verify(KeyRole::Operator, &sealed),
            Err(VerifyError::Role { .. })
        ));
        let stranger = SigningKey::generate(KeyRole::Record).seal(address(), b"body".to_vec());
        assert!(matches!(
            ring.verify(KeyRole::Record, &stranger),
            Err(VerifyError::UnknownKey { .. })
        ));
        assert!(ring.verify(KeyRole::Record, b"").is_err());
    }

    #[test]
    fn a_signature_in_der_is_the_same_signature() {
        let key = SigningKey::generate(KeyRole::Provenance);
        let (ring, id) = (KeyRing::new([key.public()]), key.public().id);
        // Often enough that numbers with and without a leading zero come up.
        for round in 0..64_u8 {
            let signature = key.sign_der(&[round]);
            let verified = ring.verify_der(KeyRole::Provenance, &id, &[round], &signature);
            assert!(verified.is_ok(), "{signature:02x?}");
            let other = ring.verify_der(KeyRole::Provenance, &id, &[round + 1], &signature);
            assert!(matches!(other, Err(VerifyError::Signature { .. })));
        }
        let of_records = ring.verify_der(KeyRole::Record, &id, b"", b"");
        assert!(matches!(of_records, Err(VerifyError::UnknownKey { .. })));
    }

    #[test]
    fn a_number_is_written_without_zeros_before_it() {
        for (bytes, written) in [
            (&[0, 0, 1][..], &[2, 1, 1][..]),
            (&[0x7f, 0], &[2, 2, 0x7f, 0]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[0, 0], &[2, 1, 0]),
        ] {
            assert_eq!(integer(bytes), written);
        }
    }

    #[test]
    fn a_public_key_is_shown_in_pem() {
        let pem = SigningKey::generate(KeyRole::Provenance)
            .public()
            .pem()
            .unwrap();
        let lines: Vec<&str> = pem.lines().collect();
        assert_eq!(
            (lines.first(), lines.last()),
            (Some(&PUBLIC_PEM_HEAD), Some(&PUBLIC_PEM_TAIL))
        );
        let der = STANDARD.decode(lines[1..lines.len() - 1].concat()).unwrap();
        assert_eq!((der.len(), lines.len()), (91, 4));
    }

    #[test]
    fn a_key_survives_its_file() {
        let path = std::env::temp_dir().join(format!("helix-key-{}.pem", crate::random::hex16()));
        let key = SigningKey::generate(KeyRole::Record);
        key.save(&path).unwrap();
        assert_eq!(
            SigningKey::load(KeyRole::Record, &path).unwrap().public(),
            key.public()
        );
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(
            SigningKey::load(KeyRole::Record, &path),
            Err(KeyError::Malformed { .. })
        ));
        fs::remove_file(path).unwrap();
    }
}
