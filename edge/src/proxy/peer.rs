//! Where a request is sent to, as pingora wants to know it. Every wait is limited: pingora's own defaults are none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_core::utils::tls::WrappedX509;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Error};

use crate::limits::{Limits, UPSTREAM_STREAMS};

/// Certificates of authorities, as pingora wants them.
#[derive(Debug)]
pub struct Authorities(Arc<[WrappedX509]>);

impl Authorities {
    /// Reads PEM. What is no certificate is left out, and nobody is trusted for it.
    #[must_use]
    pub fn from_pem(pem: &str) -> Self {
        let read = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
        let parsed =
            read.filter_map(|der| WrappedX509::try_new(der.to_vec(), |der| parse(der)).ok());
        Self(parsed.collect())
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, x509_parser::nom::Err<X509Error>> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate)
}

/// A server, at the very address that may be connected to.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Its address.
    pub addr: SocketAddr,
    /// The name its certificate must have, when TLS is spoken.
    pub tls: Option<String>,
    /// The authorities it is trusted by, when these are not the public ones.
    pub authorities: Option<Arc<Authorities>>,
    /// Whether it speaks HTTP/2: by ALPN over TLS, with prior knowledge without.
    pub http2: bool,
    /// Requests of different groups never share a connection.
    pub group: u64,
    /// For a connection, TLS included.
    pub connect: Duration,
    /// Until the head of the response.
    pub response: Duration,
    /// How long a body may stand still.
    pub stall: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

impl Reach {
    /// Whether a connection to it can become a tunnel: HTTP/2 has none, and without TLS it is all that is spoken.
    pub(super) const fn can_tunnel(&self) -> bool {
        !self.http2 || self.tls.is_some()
    }

    /// For a WebSocket's `tunnel`, a gRPC `call`, or a common request.
    pub(super) fn peer(&self, tunnel: bool, call: bool, limits: &Limits) -> HttpPeer {
        let name = self.tls.clone().unwrap_or_default();
        let mut peer = HttpPeer::new(self.addr, self.tls.is_some(), name);
        let waits = match (tunnel, call) {
            (true, _) => limits.tunnel_idle,
            (false, true) => self.stall.max(limits.call_idle),
            (false, false) => self.stall,
        };
        peer.group_key = self.group;
        let options = &mut peer.options;
        options.connection_timeout = Some(self.connect);
        options.total_connection_timeout = Some(self.connect);
        options.read_timeout = Some(waits.max(self.response));
        options.write_timeout = Some(waits);
        options.idle_timeout = Some(self.idle);
        options.alpn = if self.http2 && !tunnel {
            ALPN::H2
        } else {
            ALPN::H1
        };
        options.ca = self
            .authorities
            .as_ref()
            .map(|trusted| Arc::clone(&trusted.0));
        options.max_h2_streams = UPSTREAM_STREAMS;
        // The head is made here, whole; nothing is to be taken from it or added to it.
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        peer
    }
}
