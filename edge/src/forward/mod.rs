//! Sends a request on to an upstream of the release, and its response back.

use std::net::SocketAddr;
use std::time::Duration;

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
    let upstream = &routes.forwards.get(target.rule)?.upstream;
    let address = routes.upstreams.get(upstream)?.addresses.first()?;
    let addr: SocketAddr = address.strip_prefix("http://")?.parse().ok()?;
    Some(Reach {
        addr,
        tls: None,
        http2: false,
        group: 0,
        connect: Duration::from_secs(2),
        response: Duration::from_secs(60),
        stall: Duration::from_secs(60),
        idle: Duration::from_secs(4),
    })
}
