//! The certificates at hand, by name.
//!
//! Readers load one pointer. A reload builds a whole new set and swaps it in, or changes nothing.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use helix_routing::host::{Host, HostPattern};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;

use super::{Certificate, CertificateFiles, Settings, TlsError};
use crate::limits::CERTIFICATE_CHECK;

/// The certificates of this edge.
#[derive(Debug)]
pub struct Certificates {
    settings: Settings,
    files: Vec<CertificateFiles>,
    current: ArcSwap<Named>,
    /// The files as they were when they were last tried.
    tried: Mutex<Vec<Stamp>>,
    nobody: Arc<ServerConfig>,
}

/// One set of them.
#[derive(Debug)]
struct Named {
    exact: HashMap<Host, Arc<Certificate>>,
    /// By suffix, without the `*.`.
    wildcard: HashMap<Host, Arc<Certificate>>,
    first: Arc<Certificate>,
}

/// Tells one state of a file from another: inode, size, and time of change in nanoseconds.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Certificates {
    /// Reads all of `files`.
    ///
    /// # Errors
    /// When there are none, or one cannot be used.
    pub fn open(files: Vec<CertificateFiles>) -> Result<Arc<Self>, TlsError> {
        let settings = Settings::new()?;
        let stamps = stamps(&files);
        let named = Named::load(&files, &settings)?;
        let nobody = Arc::new(settings.server(Arc::new(Nobody)));
        Ok(Arc::new(Self {
            settings,
            files,
            current: ArcSwap::from_pointee(named),
            tried: Mutex::new(stamps),
            nobody,
        }))
    }

    /// What is common to all of them.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The certificate for the name a client asks for; the first, if it names none.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Option<Arc<Certificate>> {
        let named = self.current.load();
        let Some(name) = name else {
            return Some(Arc::clone(&named.first));
        };
        let host: Host = name.parse().ok()?;
        let wild = || {
            let (_, parent) = host.split_label()?;
            let parent: Host = parent.parse().ok()?;
            named.wildcard.get(&parent)
        };
        named.exact.get(&host).or_else(wild).cloned()
    }

    /// What answers a name that no certificate covers: an alert.
    #[must_use]
    pub const fn nobody(&self) -> &Arc<ServerConfig> {
        &self.nobody
    }

    /// Reads the files again if one of them has changed since they were last tried. True when new ones are in use.
    ///
    /// # Errors
    /// When one cannot be used. All of the old ones stay in use then.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let stamps = stamps(&self.files);
        {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            if *tried == stamps {
                return Ok(false);
            }
            *tried = stamps;
        }
        let named = Named::load(&self.files, &self.settings)?;
        self.current.store(Arc::new(named));
        Ok(true)
    }
}

/// For listeners that cannot wait before they choose, as QUIC's.
impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
            .map(|certificate| Arc::clone(certificate.key()))
    }
}

impl Named {
    fn load(files: &[CertificateFiles], settings: &Settings) -> Result<Self, TlsError> {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        let mut first = None;
        for files in files {
            let certificate = Arc::new(Certificate::load(files, settings)?);
            for name in certificate.names() {
                let (names, host) = match name {
                    HostPattern::Exact(host) => (&mut exact, host),
                    HostPattern::Wildcard(suffix) => (&mut wildcard, suffix),
                };
                names
                    .entry(host.clone())
                    .or_insert_with(|| Arc::clone(&certificate));
            }
            first.get_or_insert(certificate);
        }
        Ok(Self {
            exact,
            wildcard,
            first: first.ok_or(TlsError::NoCertificate)?,
        })
    }
}

#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

fn stamps(files: &[CertificateFiles]) -> Vec<Stamp> {
    files
        .iter()
        .flat_map(|files| [&files.cert, &files.key])
        .map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        })
        .collect()
}

/// Looks for changed files for as long as it is polled.
pub async fn follow_files(certificates: Arc<Certificates>) {
    loop {
        sleep(CERTIFICATE_CHECK).await;
        let reading = Arc::clone(&certificates);
        match tokio::task::spawn_blocking(move || reading.reload()).await {
            Ok(Ok(true)) => tracing::info!("certificates read again"),
            Ok(Err(error)) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the changed certificates cannot be used; the old ones stay"
            ),
            Ok(Ok(false)) => {}
            // The runtime ends.
            Err(_) => return,
        }
    }
}
