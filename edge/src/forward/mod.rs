//! Sends a request on to an upstream of the release, and its response back.
//!
//! [`upstreams`] knows which servers there are, [`group`] picks one, [`headers`] says what passes; a lane
//! carries the request there. No lane connects to an address that was not picked here.

mod check;
mod group;
mod headers;
mod health;
mod marked;
mod reachable;
mod resolve;
mod upstreams;

use std::str::FromStr;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

pub use self::group::{Group, Outcome, PickError, Picked};
pub use self::headers::{Client, Loops, to_client, to_upstream, trace_id};
use self::marked::Marked;
pub use self::reachable::{InvalidNetwork, Network, Reachable};
pub use self::resolve::ResolveError;
pub use self::upstreams::{Groups, Upstreams};
use crate::answer::{ForwardTo, Pinned};
use crate::cache;
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, Request, ResponseHead, head_of};
use crate::proxy::{Reach, through};

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
    };
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
    let (sent, picked) = match prepare(edge, request, pinned, target, exchange).await {
        Ok(prepared) => prepared,
        Err(refusal) => return refuse(refusal, request, exchange).await,
    };
    let ended = through(edge, &sent, &reach(&picked), exchange).await;
    picked.report(outcome(&ended));
    ended
}

/// Why a request is not sent on.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the release has no such rule")]
    NoRule,
    #[error(transparent)]
    Loops(#[from] Loops),
    #[error(transparent)]
    Pick(#[from] PickError),
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NoRule => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Loops(_) => StatusCode::LOOP_DETECTED,
            Self::Pick(PickError::NoAddress(_)) => StatusCode::BAD_GATEWAY,
            Self::Pick(PickError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The request as it is sent on, and the server it is sent to.
async fn prepare<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    target: &ForwardTo,
    exchange: &E,
) -> Result<(Request, Picked), Refusal> {
    let pinned = pinned.ok_or(Refusal::NoRule)?;
    let release = pinned.release.as_ref().ok_or(Refusal::NoRule)?;
    let (rule, _) = release.routes.forward(target.rule).ok_or(Refusal::NoRule)?;
    let group = edge
        .upstreams
        .group(&pinned.site, &release.routes, &release.groups, target.rule)
        .ok_or(Refusal::NoRule)?;
    let mut head = request.head.clone();
    let client = Client {
        peer: request.peer,
        secure: request.secure,
        protocol: exchange.protocol(),
        authority: head_of(request).authority,
    };
    let fresh = (rand::random(), rand::random());
    to_upstream(&mut head.headers, &client, group.host(), fresh)?;
    head.uri = target_of(&request.head.uri, &rule.path_for(request.head.uri.path()));
    let sent = Request {
        head,
        peer: request.peer,
        secure: request.secure,
    };
    Ok((sent, group.pick().await?))
}

/// `path` with the query of `asked`, in origin form.
fn target_of(asked: &Uri, path: &str) -> Uri {
    let whole = asked
        .query()
        .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    // A part of a legal path that starts with a slash is one.
    PathAndQuery::from_str(&whole).map_or_else(|_| Uri::default(), Uri::from)
}

/// Where and how to reach what was picked.
fn reach(picked: &Picked) -> Reach {
    let group = picked.group();
    let waits = group.timeouts();
    Reach {
        addr: picked.addr,
        tls: picked.tls.clone(),
        http2: group.is_http2(),
        group: group.id,
        connect: waits.connect.duration(),
        response: waits.response.duration(),
        stall: waits.stall.duration(),
        idle: waits.idle.duration(),
    }
}

/// What the end of a response says about the server. A server that answers 5xx is there.
const fn outcome(ended: &Ended) -> Outcome {
    match (&ended.error, &ended.cause) {
        (Some(Broken::Upstream(_)), _) => Outcome::Failed,
        (Some(_), _) => Outcome::Unknown,
        (None, Some(_)) => match ended.status {
            Some(StatusCode::BAD_REQUEST) => Outcome::Unknown,
            _ => Outcome::Failed,
        },
        (None, None) => Outcome::Answered,
    }
}

/// Answers a request that is not sent on. The client learns little, the log all.
async fn refuse<E: Exchange>(refusal: Refusal, request: &Request, exchange: &mut E) -> Ended {
    let status = refusal.status();
    let line = match status {
        StatusCode::LOOP_DETECTED => "the request came back to where it was\n",
        StatusCode::SERVICE_UNAVAILABLE => "the server behind this site has too much to do\n",
        _ => "the server behind this site cannot be reached\n",
    };
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(line.len()));
    let head_only = request.head.method == Method::HEAD;
    let mut ended = Ended {
        status: Some(status),
        cause: Some(refusal.to_string()),
        ..Ended::default()
    };
    if let Err(broken) = exchange
        .start(ResponseHead { status, headers }, head_only)
        .await
    {
        ended.error = Some(broken);
    } else if !head_only {
        match exchange.send(line.into(), true).await {
            Ok(()) => ended.bytes = line.len() as u64,
            Err(broken) => ended.error = Some(broken),
        }
    }
    ended
}
