//! Where a request is sent to, as pingora wants to know it. Every wait is limited: pingora's own defaults are none.

use std::net::SocketAddr;
use std::time::Duration;

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use crate::limits::{TUNNEL_IDLE, UPSTREAM_STREAMS};

/// A server, at the very address that may be connected to.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Its address.
    pub addr: SocketAddr,
    /// The name its certificate must have, when TLS is spoken.
    pub tls: Option<String>,
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

    pub(super) fn peer(&self, tunnel: bool) -> HttpPeer {
        let name = self.tls.clone().unwrap_or_default();
        let mut peer = HttpPeer::new(self.addr, self.tls.is_some(), name);
        let waits = if tunnel { TUNNEL_IDLE } else { self.stall };
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
        options.max_h2_streams = UPSTREAM_STREAMS;
        // The head is made here, whole; nothing is to be taken from it or added to it.
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        peer
    }
}
