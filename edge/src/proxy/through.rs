//! From a request that is to be forwarded to its response.

use std::sync::{Arc, Mutex};

use http::HeaderValue;
use http::header::{HOST, SEC_WEBSOCKET_KEY};

use super::bridge::{Asked, Bridge};
use super::carry::{Carried, Patience, carry};
use super::head::request_header;
use super::lane::{Call, process};
use super::peer::Reach;
use super::streams;
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, Request};
use crate::forward::{Failure, is_grpc};
use crate::in_flight::Departure;

/// Sends `request` to the server at `reach`, and the response to the client. Path and fields are sent as they are,
/// but for what belongs to one connection only.
///
/// # Errors
/// When nothing of a response has reached the client.
pub(crate) async fn through<E: Exchange>(
    edge: &Edge,
    request: &Request,
    reach: &Reach,
    (exchange, departure): (&mut E, Option<&Departure<'_>>),
) -> Result<Ended, Failure> {
    if exchange.must_tunnel() && !reach.can_tunnel() {
        let cause = "HTTP/2 without TLS is all it speaks, which has no tunnels";
        return Err(Failure::unfit(cause));
    }
    let has_body = !exchange.is_read();
    // Only a WebSocket: of other protocols nobody knows where they end, or who speaks them by mistake.
    let asked = request.head.headers.contains_key(SEC_WEBSOCKET_KEY);
    let tunnel = asked && exchange.can_tunnel() && reach.can_tunnel() && !has_body;
    let is_call = reach.http2 && is_grpc(&request.head.headers);
    if is_call {
        exchange.may_rest(edge.limits.call_idle);
    }
    let call = Arc::new(Call {
        peer: reach.peer(tunnel, is_call, &edge.limits),
        failure: Mutex::new(None),
    });
    let mut head = request_header(request, &authority(request), tunnel);
    head.extensions_mut().insert(Arc::clone(&call));
    let asked = Asked {
        head,
        has_body,
        can_tunnel: tunnel,
        peer: request.peer,
    };
    let patience = Patience {
        head: reach.response,
        tunnel: edge.limits.tunnel_idle,
        from_end: is_call,
    };
    let ways = (exchange, departure);
    let carried = if reach.http2 && !tunnel {
        let by_stream = |ends| streams::process(ends, &call);
        carry(edge, ways, asked, patience, by_stream).await
    } else {
        let by_proxy = |ends| process(Bridge::new(ends));
        carry(edge, ways, asked, patience, by_proxy).await
    };
    // What was taken of a body is gone.
    conclude(carried, &call).map_err(|failure| {
        let repeats = failure.repeats && !has_body;
        failure.repeating(repeats)
    })
}

fn authority(request: &Request) -> HeaderValue {
    let head = &request.head;
    let of_target = head
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    of_target
        .or_else(|| head.headers.get(HOST).cloned())
        .unwrap_or(HeaderValue::from_static(""))
}

/// Says what became of it: a failure where no response has begun.
fn conclude(carried: Carried, call: &Call) -> Result<Ended, Failure> {
    let Carried {
        mut ended,
        whole,
        failure,
    } = carried;
    let begun = ended.status.is_some();
    let failure = match ended.error.take() {
        Some(Broken::Body(cause)) if !begun => Failure::body(cause),
        Some(Broken::Upstream(cause)) if !begun => Failure::gateway(cause),
        Some(error) => {
            ended.error = Some(error);
            return Ok(ended);
        }
        None if whole => return Ok(ended),
        None => failure
            .or_else(|| call.failure())
            .unwrap_or_else(|| Failure::gateway("no response")),
    };
    if !begun {
        return Err(failure);
    }
    ended.error = Some(Broken::Upstream(failure.cause));
    Ok(ended)
}
