//! What every TLS connection of this edge has in common.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig};
use rustls::version::{TLS12, TLS13};

use super::TlsError;

/// HTTP/2, as a client asks for it (RFC 9113 3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";
/// HTTP/1.1, as a client asks for it (RFC 7301 6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Cryptography and tickets, the same for every certificate.
#[derive(Debug)]
pub struct Settings {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
}

impl Settings {
    /// With new ticket keys, which rustls changes every six hours.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> Result<Self, TlsError> {
        Ok(Self {
            // Said explicitly: another crate of this process brings another provider.
            provider: Arc::new(aws_lc_rs::default_provider()),
            tickets: aws_lc_rs::Ticketer::new().map_err(TlsError::Tickets)?,
        })
    }

    /// The provider of every key and cipher.
    #[must_use]
    pub const fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// A configuration over TCP that answers with what `resolver` says.
    #[must_use]
    pub fn server(&self, resolver: Arc<dyn ResolvesServerCert>) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has ciphers for both versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        config.ticketer = Arc::clone(&self.tickets);
        // Tickets hold the state, so that nothing is kept for clients that never come back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A browser opens several connections, and each ticket is used once.
        config.send_tls13_tickets = 2;
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::NamedGroup;

    #[test]
    fn a_post_quantum_group_is_offered_first() {
        let settings = Settings::new().unwrap();
        let groups: Vec<NamedGroup> = settings
            .provider()
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert_eq!(groups.first(), Some(&NamedGroup::X25519MLKEM768));
        assert!(groups.contains(&NamedGroup::X25519));
    }
}
