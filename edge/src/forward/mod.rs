//! Sends a request on to an upstream of the release, and its response back.

use std::net::SocketAddr;

use helix_routing::routes::{AddressHost, UpstreamProtocol};
use http::StatusCode;

use crate::answer::{ForwardTo, Pinned};
use crate::edge::Edge;
use crate::exchange::{Ended, Exchange, Request, ResponseHead};
use crate::proxy::{Reach, through};

/// Forwards `request` as `target` says.
pub async fn forward<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    target: &ForwardTo,
    exchange: &mut E,
) -> Ended {
    if let Some(reach) = pinned.and_then(|pinned| reach(pinned, target)) {
        return through(edge, request, &reach, exchange).await;
    }
    let head = ResponseHead {
        status: StatusCode::SERVICE_UNAVAILABLE,
        ..ResponseHead::default()
    };
    Ended {
        error: exchange.start(head, true).await.err(),
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        cause: Some("no upstream can be reached".into()),
        ..Ended::default()
    }
}

/// The first address of the upstream.
fn reach(pinned: &Pinned, target: &ForwardTo) -> Option<Reach> {
    let routes = &pinned.release.as_ref()?.routes;
    let (_, upstream) = routes.forward(target.rule)?;
    let address = upstream.addresses.first()?;
    let AddressHost::Ip(ip) = address.host else {
        return None;
    };
    let waits = &upstream.timeouts;
    Some(Reach {
        addr: SocketAddr::new(ip, address.port),
        tls: address.secure.then(|| ip.to_string()),
        http2: upstream.protocol == UpstreamProtocol::Http2,
        group: 0,
        connect: waits.connect.duration(),
        response: waits.response.duration(),
        stall: waits.stall.duration(),
        idle: waits.idle.duration(),
    })
}
