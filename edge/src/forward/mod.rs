//! Sends a request on to an upstream of the release, and its response back.

use http::HeaderValue;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH};

use crate::answer::{ForwardTo, Pinned};
use crate::edge::Edge;
use crate::exchange::{Ended, Exchange, Request, ResponseHead};

/// Forwards `request` as `target` says.
pub async fn forward<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    target: &ForwardTo,
    exchange: &mut E,
) -> Ended {
    let _ = (edge, request, pinned, target);
    let mut head = ResponseHead {
        status: StatusCode::BAD_GATEWAY,
        ..ResponseHead::default()
    };
    head.headers
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.headers
        .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    let error = exchange.start(head, true).await.err();
    Ended {
        status: Some(StatusCode::BAD_GATEWAY),
        bytes: 0,
        error,
    }
}
