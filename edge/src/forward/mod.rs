//! Sends a request on to an upstream of the release, and its response back.

use helix_routing::routes::{AddressHost, Forward, UpstreamProtocol};
use http::uri::PathAndQuery;
use http::{StatusCode, Uri};

use crate::answer::{ForwardTo, Pinned};
use crate::cache;
use crate::edge::Edge;
use crate::exchange::{Ended, Exchange, Request, ResponseHead};
use crate::proxy::{Reach, through};

/// Forwards `request` as `target` says, or answers it from what is kept.
pub async fn forward<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    target: &ForwardTo,
    exchange: &mut E,
) -> Ended {
    match pinned {
        Some(pinned) if caches(pinned, target) => {
            cache::serve(edge, request, pinned, target, exchange).await
        }
        pinned => uncached(edge, request, pinned, target, exchange).await,
    }
}

fn caches(pinned: &Pinned, target: &ForwardTo) -> bool {
    let release = pinned.release.as_ref();
    let rule = release.and_then(|release| release.routes.forward(target.rule));
    rule.is_some_and(|(rule, _)| rule.cache)
}

/// Forwards `request` as `target` says.
pub(crate) async fn uncached<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    target: &ForwardTo,
    exchange: &mut E,
) -> Ended {
    if let Some((forward, reach)) = pinned.and_then(|pinned| reach(pinned, target)) {
        let mut sent = Request {
            head: request.head.clone(),
            ..*request
        };
        let path = forward.path_for(request.head.uri.path());
        sent.head.uri = target_of(&request.head.uri, &path);
        return through(edge, &sent, &reach, exchange).await;
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

/// `path` with the authority and query of `asked`.
fn target_of(asked: &Uri, path: &str) -> Uri {
    let whole = asked
        .query()
        .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = asked.clone().into_parts();
    // A part of a legal path that starts with a slash is one.
    parts.path_and_query = PathAndQuery::try_from(whole).ok();
    Uri::from_parts(parts).unwrap_or_default()
}

/// The rule, and the first address of its upstream.
fn reach<'a>(pinned: &'a Pinned, target: &ForwardTo) -> Option<(&'a Forward, Reach)> {
    let routes = &pinned.release.as_ref()?.routes;
    let (forward, upstream) = routes.forward(target.rule)?;
    let address = upstream.addresses.first()?;
    let AddressHost::Ip(ip) = address.host else {
        return None;
    };
    let waits = upstream.timeouts;
    let reach = Reach {
        addr: (ip, address.port).into(),
        tls: address.secure.then(|| {
            let host = upstream.host.as_ref().map(ToString::to_string);
            host.unwrap_or_else(|| ip.to_string())
        }),
        http2: upstream.protocol == UpstreamProtocol::Http2,
        group: 0,
        connect: waits.connect.duration(),
        response: waits.response.duration(),
        stall: waits.stall.duration(),
        idle: waits.idle.duration(),
    };
    Some((forward, reach))
}
