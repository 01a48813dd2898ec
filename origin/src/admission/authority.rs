//! The fleet's authority: signs the certificates of edges, and nothing else.

use std::fs;
use std::path::Path;
use std::time::Duration;

use helix_routing::id::{EdgeId, RegionId};
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::disk::{write_atomic, write_secret};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber, SignatureAlgorithm,
};

use super::keys::KeysError;

/// How long an edge's certificate is good. The edge renews it when a third of that is left.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long the authority itself is good: ten years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Clocks of edges may be behind by so much.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub(super) pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate, as it was made.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) pem: String,
    pub(super) serial: String,
    pub(super) until: Timestamp,
}

/// The public half of an edge's key: an uncompressed point of P-256.
struct EdgeKey<'a>(&'a [u8]);

impl PublicKeyData for EdgeKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    /// Reads it from `folder`, or makes it there.
    pub(super) fn open(folder: &Path) -> Result<Self, KeysError> {
        let (key_path, pem_path) = (folder.join("authority.key"), folder.join("authority.pem"));
        if !key_path.exists() {
            write_secret(&key_path, KeyPair::generate()?.serialize_pem().as_bytes())?;
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| KeysError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let key = KeyPair::from_pem(&read(&key_path)?)?;
        let params = params();
        if !pem_path.exists() {
            let pem = params.self_signed(&key)?.pem();
            write_atomic(&pem_path, pem.as_bytes())?;
        }
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem: read(&pem_path)?,
        })
    }

    /// A certificate for an edge's key, for the name `<edge>.<region>.edge.fleet`.
    pub(super) fn issue(
        &self,
        edge: &EdgeId,
        region: &RegionId,
        point: &[u8],
    ) -> Result<Issued, rcgen::Error> {
        let until = clock::now() + CERTIFICATE_LIFE;
        let mut params = CertificateParams::new([format!("{edge}.{region}.edge.fleet")])?;
        params
            .distinguished_name
            .push(DnType::CommonName, edge.as_str());
        dated(&mut params, until);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let mut serial = rand::random::<[u8; 16]>();
        // Positive, and never shortened (RFC 5280, 4.1.2.2).
        serial[0] = serial[0] & 0x3f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let made = params.signed_by(&EdgeKey(point), &self.issuer)?;
        Ok(Issued {
            pem: made.pem(),
            serial: hex::encode(serial),
            until,
        })
    }
}

/// The same each time: an issuer goes by its name and key.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "HelixStack fleet");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    dated(&mut params, clock::now() + AUTHORITY_LIFE);
    params
}

/// Since the epoch, which is how its type can be had without its crate.
fn dated(params: &mut CertificateParams, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |at: Timestamp| Duration::from_secs(at.as_millis() / 1000);
    params.not_before = epoch + seconds(clock::now() - BACKDATED);
    params.not_after = epoch + seconds(until);
}
