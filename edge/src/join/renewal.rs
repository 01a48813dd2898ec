//! The next certificate of an edge that joined: asked for when a third of the time of the one it has is left.
//!
//! Invariant: the certificate on disk is whole and fits the key beside it. What fails is logged and tried again; the edge serves on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use helix_routing::edge::join::{RenewalRequest, Renewed, renewal};
use helix_routing::id::EdgeId;
use helix_routing::time::Timestamp;
use helix_service::clock;
use helix_service::disk::write_secret;
use x509_parser::pem::parse_x509_pem;

use super::{CERTIFICATE, IDENTITY, JoinError, USER, ask, certificate_key, user_key};
use crate::config::EdgeConfig;

/// How often the certificate is looked at.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Renews the certificate of an edge that joined, again and again. Ends at once where the edge did not join.
pub async fn keep_certified(config: EdgeConfig) {
    let folder = config.data_dir.join(IDENTITY);
    while let Some(until) = due(&folder) {
        if until <= clock::now() {
            match renew(&config, &folder).await {
                Ok(until) => {
                    tracing::info!(until = until.rfc3339(), "certificate renewed");
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the certificate is not renewed"
                    );
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// When the certificate is to be renewed: at once where it cannot be read; none where there never was one.
fn due(folder: &Path) -> Option<Timestamp> {
    let path = folder.join(CERTIFICATE);
    if !path.exists() {
        return None;
    }
    let read = fs::read(path).ok().and_then(|pem| two_thirds(&pem));
    Some(read.unwrap_or(Timestamp::from_millis(0)))
}

/// The moment at which two thirds of a certificate's time are over.
fn two_thirds(pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    let (from, until) = (
        u64::try_from(validity.not_before.timestamp()).ok()?,
        u64::try_from(validity.not_after.timestamp()).ok()?,
    );
    let left = until.checked_sub(from)? / 3;
    Some(Timestamp::from_millis((until - left) * 1000))
}

async fn renew(config: &EdgeConfig, folder: &Path) -> Result<Timestamp, JoinError> {
    let request = request(&config.edge, folder)?;
    let origin = &config.origin;
    let mut last = None;
    for url in std::iter::once(&origin.url).chain(&origin.others) {
        match ask::<Renewed>(url, "/v1/join/renewal", &config.edge, &request).await {
            Ok(renewed) => {
                write_secret(&folder.join(CERTIFICATE), renewed.certificate.as_bytes())?;
                return Ok(renewed.certificate_until);
            }
            // What one says is more than that another is away.
            Err(_) if matches!(last, Some(JoinError::Refused { .. })) => {}
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("there is one origin at least"))
}

fn request(edge: &EdgeId, folder: &Path) -> Result<RenewalRequest, JoinError> {
    let (_, user) = user_key(folder)?;
    let key = certificate_key(folder)?;
    let (at, public) = (clock::now(), key.public().public);
    let statement = renewal(edge, at, &public);
    let proof = user.sign(&statement).map_err(|source| JoinError::Nkey {
        path: user_path(folder),
        source,
    })?;
    Ok(RenewalRequest {
        edge: edge.clone(),
        at,
        certificate_key: public,
        nats_proof: URL_SAFE_NO_PAD.encode(proof),
        certificate_proof: URL_SAFE_NO_PAD.encode(key.sign(&statement)),
    })
}

fn user_path(folder: &Path) -> PathBuf {
    folder.join(USER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_time_is_left() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(due(folder.path()), None, "it did not join");
        let mut params =
            rcgen::CertificateParams::new(["fra-1.fra.edge.fleet".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        fs::write(folder.path().join(CERTIFICATE), made.pem()).unwrap();
        let at = due(folder.path()).unwrap();
        assert_eq!(at.rfc3339(), "2026-01-21T00:00:00.000Z");
        fs::write(folder.path().join(CERTIFICATE), "what is left of it").unwrap();
        assert_eq!(due(folder.path()), Some(Timestamp::from_millis(0)));
    }
}
