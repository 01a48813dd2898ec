//! Sends a request on to an upstream of the release, and its response back.
//!
//! [`upstreams`] knows which servers there are, [`group`] picks one, [`headers`] says what passes; a lane
//! carries the request there. No lane connects to an address that was not picked here.

mod call;
mod check;
mod failure;
mod group;
mod headers;
mod health;
mod lean;
mod marked;
mod probe;
mod resolve;
mod upstreams;

use std::net::SocketAddr;
use std::sync::Arc;

use helix_routing::routes::Forward;
use http::header::SEC_WEBSOCKET_KEY;

use self::call::{Call, Target};
pub(crate) use self::failure::{Failure, is_grpc};
pub use self::group::{Group, Outcome, PickError, Picked};
pub use self::headers::{Client, Loops, ToUpstream, to_client, to_upstream};
pub(crate) use self::health::State;
use self::lean::Upload;
pub(crate) use self::lean::count_idle_in;
use self::marked::Marked;
pub(crate) use self::probe::{NoServers, Server, Servers};
pub use self::resolve::ResolveError;
pub use self::upstreams::{Groups, Upstreams};
use crate::answer::{ForwardTo, Pinned};
use crate::cache;
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, Request};
use crate::in_flight::Departure;
use crate::limits::UPSTREAM_TRIES;
use crate::listener::Lanes;
use crate::proxy::{Reach, through};
use crate::tally::{REQUEST_CUT, WEBSOCKET_CUT};
use crate::trace::TraceId;
pub use helix_service::reachable::{InvalidNetwork, Network, Reachable};

/// Forwards `request` as `target` says, or answers it from what is kept.
pub async fn forward<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    target: &ForwardTo,
    exchange: &mut E,
) -> Ended {
    let exchange = &mut Marked {
        inner: exchange,
        edge,
        pinned,
        secure: request.secure,
        given: None,
    };
    match pinned {
        Some(pinned) if caches(pinned, target) => {
            // Boxed: what is not kept should not hold the room of what is.
            Box::pin(cache::serve(edge, request, pinned, target, exchange)).await
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
    let mut way = Way::default();
    let core = edge.tally.core;
    let departure = pinned.map(|pinned| pinned.in_flight().departure(core));
    let departure = departure.as_ref();
    let sent = {
        let sending = send(
            edge,
            request,
            pinned,
            target,
            (&mut *exchange, departure),
            &mut way,
        );
        tokio::select! {
            biased;
            sent = sending => Some(sent),
            () = drained(departure) => None,
        }
    };
    let mut ended = match sent {
        Some(Ok(ended)) => ended,
        Some(Err(failure)) => failure::tell(failure, request, exchange).await,
        None => {
            let is_tunnel = departure.is_some_and(Departure::is_tunnel);
            let what = if is_tunnel {
                WEBSOCKET_CUT
            } else {
                REQUEST_CUT
            };
            edge.tally.drained[what].add(1);
            failure::cut(request, exchange).await
        }
    };
    edge.tally.forwarded(&ended, way.tried.len());
    ended.upstream = way.tried.last().copied();
    ended.trace = way.trace;
    ended
}

/// Waits until the time of what was sent on is over, which is never for what belongs to no release.
async fn drained(departure: Option<&Departure<'_>>) {
    match departure {
        Some(departure) => departure.cut().await,
        None => std::future::pending().await,
    }
}

/// What a request met on its way.
#[derive(Debug, Default)]
struct Way {
    /// The servers it was sent to, or was to be.
    tried: Vec<SocketAddr>,
    /// The trace it was sent in.
    trace: Option<TraceId>,
}

/// Sends `request` to servers of its upstream, one after the other, until one answers.
async fn send<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    target: &ForwardTo,
    (exchange, departure): (&mut E, Option<&Departure<'_>>),
    way: &mut Way,
) -> Result<Ended, Failure> {
    let (rule, group) =
        rule(edge, pinned, target).ok_or_else(|| Failure::own("the release has no such rule"))?;
    let there = match target.target.as_deref() {
        Some(there) => Target::of(there),
        None => Target {
            path: rule.path_for(request.head.uri.path()),
            query: request.head.uri.query(),
        },
    };
    let call = Call::new(request, exchange.protocol(), there, &group)?;
    way.trace = Some(*call.fields.trace());
    let mut upload = Upload::new(request, exchange);
    match upload.settle(exchange).await {
        Ok(()) => {}
        Err(Broken::Body(cause)) => return Err(Failure::body(cause)),
        Err(broken) => {
            return Ok(Ended {
                error: Some(broken),
                ..Ended::default()
            });
        }
    }
    let mut failed: Option<Failure> = None;
    while way.tried.len() < UPSTREAM_TRIES {
        let picked = match (group.pick(&way.tried).await, failed.take()) {
            (Ok(picked), _) => picked,
            // What the servers said before says more than that there is no other.
            (Err(_), Some(failure)) => return Err(failure),
            (Err(error), None) => return Err(error.into()),
        };
        way.tried.push(picked.addr);
        let failure = match try_at(
            edge,
            &call,
            &picked,
            &mut upload,
            (&mut *exchange, departure),
        )
        .await
        {
            Ok(ended) => {
                report(edge, picked, outcome(&ended));
                return Ok(ended);
            }
            Err(failure) => failure,
        };
        report(edge, picked, failure.outcome);
        if !failure.repeats {
            return Err(failure);
        }
        failed = Some(failure);
    }
    Err(failed.unwrap_or_else(|| Failure::own("no try was made")))
}

fn report(edge: &Edge, picked: Picked, outcome: Outcome) {
    if picked.report(outcome) {
        edge.tally.upstream_ejections.add(1);
    }
}

/// The rule, and what it leads to.
fn rule<'a>(
    edge: &Edge,
    pinned: Option<&'a Pinned>,
    target: &ForwardTo,
) -> Option<(&'a Forward, Arc<Group>)> {
    let pinned = pinned?;
    let release = pinned.release.as_ref()?;
    let (rule, _) = release.routes.forward(target.rule)?;
    let (routes, groups) = (&release.routes, &release.groups);
    let group = edge
        .upstreams
        .group(&pinned.site, routes, groups, target.rule)?;
    Some((rule, group))
}

/// One try, by the lane that can carry it.
async fn try_at<E: Exchange>(
    edge: &Edge,
    call: &Call<'_>,
    picked: &Picked,
    upload: &mut Upload,
    (exchange, departure): (&mut E, Option<&Departure<'_>>),
) -> Result<Ended, Failure> {
    // Only a WebSocket: of other protocols nobody knows where they end, or who speaks them by mistake.
    let asked = call.request.head.headers.contains_key(SEC_WEBSOCKET_KEY);
    let tunnels = asked && exchange.can_tunnel() && exchange.is_read();
    if edge.lanes == Lanes::All && !picked.group().is_http2() && !tunnels {
        return lean::carry(call, picked, upload, exchange).await;
    }
    // Boxed: the lean lane should not hold pingora's room.
    let ways = (exchange, departure);
    Box::pin(through(edge, &call.to_request(), &reach(picked), ways)).await
}

/// Where and how to reach what was picked.
fn reach(picked: &Picked) -> Reach {
    let group = picked.group();
    let waits = group.timeouts();
    Reach {
        addr: picked.addr,
        tls: picked.tls.clone(),
        authorities: group.trust().of_pingora(group.authorities()),
        http2: group.is_http2(),
        group: group.id,
        connect: waits.connect.duration(),
        response: waits.response.duration(),
        stall: waits.stall.duration(),
        idle: waits.idle.duration(),
    }
}

/// What the end of a response says about the server. One that answers 5xx is there.
const fn outcome(ended: &Ended) -> Outcome {
    match &ended.error {
        Some(Broken::Upstream(_)) => Outcome::Failed,
        Some(_) => Outcome::Unknown,
        None => Outcome::Answered,
    }
}
