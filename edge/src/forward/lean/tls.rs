//! TLS to upstreams: whom an edge trusts there.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use super::super::group::Group;
use crate::proxy::Authorities;
use crate::socket::Socket;
use crate::tls::{ALPN_HTTP1, ALPN_HTTP2};

/// What a group trusts, read when it is first needed. Tickets of its servers are kept in it.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    config: OnceCell<Arc<ClientConfig>>,
    authorities: OnceLock<Option<Arc<Authorities>>>,
}

impl Trust {
    /// The same, as pingora wants it.
    pub(crate) fn of_pingora(&self, pem: Option<&str>) -> Option<Arc<Authorities>> {
        let made = || pem.map(|pem| Arc::new(Authorities::from_pem(pem)));
        self.authorities.get_or_init(made).clone()
    }
}

/// Shakes hands with a server that must be `name`.
pub(super) async fn shake(group: &Group, name: &str, stream: TcpStream) -> io::Result<Socket> {
    let made = group
        .trust()
        .config
        .get_or_try_init(|| made(group.authorities()));
    let connector = TlsConnector::from(Arc::clone(made.await?));
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = connector.connect(name, stream).await?;
    Ok(Socket::Tls(Box::new(stream.into())))
}

/// The same, with HTTP/2 as the only protocol. Seldom asked for: nothing of it is kept.
pub(in crate::forward) async fn shake_http2(
    group: &Group,
    name: &str,
    stream: TcpStream,
) -> io::Result<Socket> {
    let mut config = made(group.authorities()).await?;
    Arc::make_mut(&mut config).alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Socket::Tls(Box::new(stream.into())))
}

async fn made(authorities: Option<&str>) -> io::Result<Arc<ClientConfig>> {
    let roots = match authorities {
        Some(pem) => Arc::new(named(pem)?),
        None => public().await?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

fn named(pem: &str) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    Ok(roots)
}

/// The authorities that the machine trusts: a hundred files or more, read once.
async fn public() -> io::Result<Arc<RootCertStore>> {
    static PUBLIC: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();
    let roots = PUBLIC.get_or_try_init(|| async {
        let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
        let loaded = loaded.await.map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        if roots.is_empty() {
            return Err(io::Error::other(
                "this machine trusts no certificate authority",
            ));
        }
        Ok(Arc::new(roots))
    });
    roots.await.map(Arc::clone)
}
