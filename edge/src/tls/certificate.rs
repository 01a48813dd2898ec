//! One certificate: its names, and the configuration that answers with it.

use std::path::PathBuf;
use std::sync::Arc;

use helix_routing::host::{Host, HostPattern};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde::{Deserialize, Serialize};
use webpki::EndEntityCert;

use super::{Settings, TlsError};

/// Where a certificate lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The chain, leaf first, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// A certificate that can be answered with.
#[derive(Debug)]
pub struct Certificate {
    names: Vec<HostPattern>,
    key: Arc<CertifiedKey>,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads and checks one.
    ///
    /// # Errors
    /// When a file cannot be read, key and certificate do not fit, or it covers no host.
    pub fn load(files: &CertificateFiles, settings: &Settings) -> Result<Self, TlsError> {
        let unreadable = |file: &PathBuf| {
            let file = file.clone();
            |source| TlsError::Read { file, source }
        };
        let chain = CertificateDer::pem_file_iter(&files.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(unreadable(&files.cert))?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key))?;
        let names = chain.first().map(names).unwrap_or_default();
        if names.is_empty() {
            return Err(TlsError::NoName {
                file: files.cert.clone(),
            });
        }
        let key = CertifiedKey::from_der(chain, key, settings.provider()).map_err(|source| {
            TlsError::Key {
                file: files.cert.clone(),
                source,
            }
        })?;
        let key = Arc::new(key);
        let config = settings.server(Arc::new(SingleCertAndKey::from(Arc::clone(&key))));
        Ok(Self {
            names,
            key,
            config: Arc::new(config),
        })
    }

    /// The names it covers.
    #[must_use]
    pub fn names(&self) -> &[HostPattern] {
        &self.names
    }

    /// Chain and key.
    #[must_use]
    pub const fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// What answers with it over TCP.
    #[must_use]
    pub const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether it is valid for `host` (RFC 9525 6.3: a wildcard stands for one label).
    #[must_use]
    pub fn covers(&self, host: &Host) -> bool {
        let parent = host.split_label().map(|(_, parent)| parent);
        self.names.iter().any(|name| match name {
            HostPattern::Exact(name) => name == host,
            HostPattern::Wildcard(suffix) => parent == Some(suffix.as_str()),
        })
    }
}

/// The host names of a leaf; others it may have are of no use here.
fn names(leaf: &CertificateDer<'_>) -> Vec<HostPattern> {
    let Ok(leaf) = EndEntityCert::try_from(leaf) else {
        return Vec::new();
    };
    leaf.valid_dns_names()
        .filter_map(|name| name.parse().ok())
        .collect()
}
