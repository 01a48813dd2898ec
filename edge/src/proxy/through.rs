//! From a request that is to be forwarded to its response.

use std::sync::{Arc, Mutex};

use http::HeaderValue;
use http::header::{HOST, SEC_WEBSOCKET_KEY};

use super::bridge::Asked;
use super::carry::{Carried, carry};
use super::head::request_header;
use super::lane::{Call, process};
use super::peer::Reach;
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, Request};
use crate::forward::Failure;

/// Sends `request` to the server at `reach`, and the response to the client. Path and fields are sent as they are,
/// but for what belongs to one connection only.
///
/// # Errors
/// When nothing of a response has reached the client.
pub(crate) async fn through<E: Exchange>(
    edge: &Edge,
    request: &Request,
    reach: &Reach,
    exchange: &mut E,
) -> Result<Ended, Failure> {
    let has_body = !exchange.is_read();
    // Only a WebSocket: of other protocols nobody knows where they end, or who speaks them by mistake.
    let asked = request.head.headers.contains_key(SEC_WEBSOCKET_KEY);
    let tunnel = asked && exchange.can_tunnel() && reach.can_tunnel() && !has_body;
    let call = Arc::new(Call {
        peer: reach.peer(tunnel),
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
    let carried = carry(exchange, asked, reach.response, &edge.shutdown, process).await;
    // What pingora has taken of a body is gone.
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
        late,
    } = carried;
    let begun = ended.status.is_some();
    let failure = match ended.error.take() {
        Some(Broken::Body(cause)) if !begun => Failure::body(cause),
        Some(error) => {
            ended.error = Some(error);
            return Ok(ended);
        }
        None if whole => return Ok(ended),
        None if late => Failure::late("no head of a response in time"),
        None => call
            .failure()
            .unwrap_or_else(|| Failure::gateway("no response")),
    };
    if !begun {
        return Err(failure);
    }
    ended.error = Some(Broken::Upstream(failure.cause));
    Ok(ended)
}
