//! From an accepted socket to a TLS stream.

use std::io;
use std::sync::Arc;

use helix_routing::host::Host;
use rustls::HandshakeKind;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::{ALPN_HTTP2, Certificate, Certificates};
use crate::metrics::Metrics;

/// What a handshake settled.
#[derive(Clone, Debug)]
pub struct Secured {
    certificate: Arc<Certificate>,
    /// The name the client asked for, in lower case.
    name: Option<Box<str>>,
    http2: bool,
}

impl Secured {
    /// As after a handshake for `name` that was answered with `certificate`.
    #[must_use]
    pub fn new(certificate: Arc<Certificate>, name: Option<&str>, http2: bool) -> Self {
        let name = name.map(|name| name.to_ascii_lowercase().into_boxed_str());
        Self {
            certificate,
            name,
            http2,
        }
    }

    /// Whether HTTP/2 was agreed on.
    #[must_use]
    pub const fn is_http2(&self) -> bool {
        self.http2
    }

    /// Whether a request for `authority` may be answered here. If not, it is misdirected (RFC 9110 15.5.20):
    /// the client, or somebody in between, has reused a connection that was made for others.
    #[must_use]
    pub fn covers(&self, authority: &str) -> bool {
        let name = authority
            .split_once(':')
            .map_or(authority, |(name, _)| name);
        // Most requests are for the name that chose the certificate.
        if self.name.as_deref() == Some(name) {
            return true;
        }
        Host::from_authority(authority).is_ok_and(|host| self.certificate.covers(&host))
    }
}

/// Shakes hands with a client until `deadline`. None when that failed; the client has been told why, if it could be.
pub async fn handshake<I>(
    certificates: &Certificates,
    metrics: &Metrics,
    io: I,
    deadline: Instant,
) -> Option<(TlsStream<I>, Secured)>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let (outcome, settled) = match timeout_at(deadline, Box::pin(accept(certificates, io))).await {
        Err(_) => ("timeout", None),
        Ok(Err(outcome)) => (outcome, None),
        Ok(Ok((stream, secured))) => {
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            let outcome = if resumed { "resumed" } else { "full" };
            (outcome, Some((stream, secured)))
        }
    };
    metrics.handshakes.with_label_values(&[outcome]).inc();
    settled
}

async fn accept<I>(
    certificates: &Certificates,
    io: I,
) -> Result<(TlsStream<I>, Secured), &'static str>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let started = LazyConfigAcceptor::new(Acceptor::default(), io)
        .await
        .map_err(|error| failure(&error))?;
    let hello = started.client_hello();
    let name = hello.server_name().map(str::to_owned);
    let Some(certificate) = certificates.find(name.as_deref()) else {
        // It ends in an alert, which a bare close would not tell.
        let _ = started.into_stream(Arc::clone(certificates.nobody())).await;
        return Err("unknown_name");
    };
    let config = Arc::clone(certificate.config());
    let stream = started
        .into_stream(config)
        .await
        .map_err(|error| failure(&error))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
    Ok((stream, Secured::new(certificate, name.as_deref(), http2)))
}

/// Whether a client left, or sent what is no acceptable handshake.
fn failure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidData => "refused",
        _ => "gone",
    }
}
