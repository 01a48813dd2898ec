//! TLS: which certificate a connection gets, and the handshake.
//!
//! rustls with aws-lc-rs, TLS 1.2 and 1.3, `X25519MLKEM768` among the groups, tickets without state. A
//! client is answered by the certificate that covers the name it asks for (SNI); without a name by the
//! first one; for a name that none covers with an alert. A certificate is chosen before anything is signed,
//! so that choosing may wait for one that has yet to be fetched. Changed files are read again while
//! connections go on with what they began with.
//!
//! Invariant: a request over TLS is answered only for a host that the connection's own certificate covers
//! ([`Secured::covers`]); the session of one name is never resumed for another (rustls compares the names).
//! Nothing here reads HTTP.

mod certificate;
mod handshake;
mod settings;
mod store;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use certificate::{Certificate, CertificateFiles};
pub use handshake::{Secured, handshake};
pub use settings::{ALPN_HTTP1, ALPN_HTTP2, Settings};
pub use store::{Certificates, follow_files};

/// Where TLS is spoken, and with which certificates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Where visitors reach it.
    pub listen: SocketAddr,
    /// The port that visitors see, where something before this edge maps it to that of `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// At least one. The first is for clients that name no host.
    pub certificates: Vec<CertificateFiles>,
    /// Whether HTTP/3 is spoken too: over UDP, on the same address.
    #[serde(default = "yes")]
    pub http3: bool,
}

const fn yes() -> bool {
    true
}

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is none.
    #[error("tls.certificates is empty: name at least one certificate")]
    NoCertificate,
    /// A file is not readable, or not PEM of the right kind.
    #[error("read {}", file.display())]
    Read {
        /// The file.
        file: std::path::PathBuf,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Key and certificate do not fit, or are of no kind that is known.
    #[error("use the key of certificate {}", file.display())]
    Key {
        /// The certificate.
        file: std::path::PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// No client could ask for it.
    #[error("certificate {} covers no host name", file.display())]
    NoName {
        /// The certificate.
        file: std::path::PathBuf,
    },
    /// The system gives no random numbers.
    #[error("make the keys of session tickets")]
    Tickets(#[source] rustls::Error),
}
