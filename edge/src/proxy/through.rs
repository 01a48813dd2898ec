//! From a request that is to be forwarded to its response.

use std::sync::{Arc, Mutex};

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::bridge::Asked;
use super::carry::{Carried, carry};
use super::failure::Failure;
use super::head::request_header;
use super::lane::{Call, process};
use super::peer::Reach;
use crate::edge::Edge;
use crate::exchange::{Broken, Ended, Exchange, Request, ResponseHead};

/// Sends `request` to the server at `reach`, and the response to the client. Path and fields are sent as they are,
/// but for what belongs to one connection only.
pub async fn through<E: Exchange>(
    edge: &Edge,
    request: &Request,
    reach: &Reach,
    exchange: &mut E,
) -> Ended {
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
    conclude(carried, &call, request, exchange).await
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

/// Says what is still to be said: an error where no response has begun, nothing where one broke off.
async fn conclude<E: Exchange>(
    carried: Carried,
    call: &Call,
    request: &Request,
    exchange: &mut E,
) -> Ended {
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
            return ended;
        }
        None if whole => return ended,
        None if late => Failure::late(),
        None => call.failure().unwrap_or_else(Failure::unknown),
    };
    if begun {
        ended.error = Some(Broken::Upstream(failure.cause));
        return ended;
    }
    rescue(failure, request, exchange).await
}

/// The one place where a request without a response gets one. The client learns little, the log all.
async fn rescue<E: Exchange>(
    Failure { status, cause }: Failure,
    request: &Request,
    exchange: &mut E,
) -> Ended {
    let line = match status {
        StatusCode::GATEWAY_TIMEOUT => "the server behind this site took too long\n",
        StatusCode::BAD_REQUEST => "the request is malformed\n",
        _ => "the server behind this site gave no answer\n",
    };
    let mut headers = HeaderMap::with_capacity(4);
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(line.len()));
    let head = ResponseHead { status, headers };
    let head_only = request.head.method == Method::HEAD;
    let mut ended = Ended {
        status: Some(status),
        cause: Some(cause),
        ..Ended::default()
    };
    if let Err(broken) = exchange.start(head, head_only).await {
        ended.error = Some(broken);
    } else if !head_only {
        match exchange.send(line.into(), true).await {
            Ok(()) => ended.bytes = line.len() as u64,
            Err(broken) => ended.error = Some(broken),
        }
    }
    ended
}
