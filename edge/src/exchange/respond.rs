//! From a request to its response.
//!
//! A body is opened before the head is sent, so that one that cannot be read becomes a 500 and not half a
//! response.

use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ALT_SVC, CONTENT_LENGTH, HOST, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Body, Broken, Exchange, Protocol, Request, ResponseHead};
use crate::access_log::{Finished, record};
use crate::answer::{Answer, Answered, Fields, Pinned, RequestHead, Response, StaticFile, answer};
use crate::edge::Edge;
use crate::forward;
use crate::release;
use crate::store::StoreError;

const EDGE: HeaderName = HeaderName::from_static("x-helix-edge");
const REGION: HeaderName = HeaderName::from_static("x-helix-region");
const RELEASE: HeaderName = HeaderName::from_static("x-helix-release");
const GENERATION: HeaderName = HeaderName::from_static("x-helix-generation");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

/// How a response ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// None when the client was gone before it was sent one.
    pub status: Option<StatusCode>,
    /// Bytes of body sent.
    pub bytes: u64,
    /// Why it is not whole.
    pub error: Option<Broken>,
    /// Why it is an error although it is whole.
    pub cause: Option<String>,
}

/// Answers `request` through `exchange`, and writes its line in the log when the response has ended.
pub async fn respond<E: Exchange>(edge: &Edge, request: Request, exchange: &mut E) {
    let started = Instant::now();
    let answered = answer(&edge.table, &head_of(&request));
    carry_out(edge, &request, answered, started, exchange).await;
}

/// The same from an answer on that has been decided on already, at `started`.
pub async fn carry_out<E: Exchange>(
    edge: &Edge,
    request: &Request,
    answered: Answered,
    started: Instant,
    exchange: &mut E,
) {
    let Answered { pinned, answer, .. } = answered;
    let ended = match answer {
        Answer::Forward(target) => {
            forward::forward(edge, request, pinned.as_ref(), &target, exchange).await
        }
        answer => carry(edge, request, pinned.as_ref(), answer, exchange).await,
    };
    if ended.error.is_some() {
        exchange.abort();
    }
    let protocol = exchange.protocol();
    finish(edge, request, pinned.as_ref(), protocol, started, &ended);
}

/// The whole of a response that can be had without waiting for anything.
#[must_use]
pub fn at_once(
    edge: &Edge,
    request: &Request,
    answered: &Answered,
) -> Option<(ResponseHead, Bytes)> {
    if matches!(answered.answer, Answer::Forward(_)) {
        return None;
    }
    let pinned = answered.pinned.as_ref();
    let head_only = request.head.method == Method::HEAD;
    let body = open(pinned, &answered.answer, head_only).now_or_never()?;
    let body = body.ok()?;
    let head = response_head(edge, pinned, &answered.answer, body.length());
    match body {
        Body::None | Body::Length(_) => Some((head, Bytes::new())),
        Body::Bytes(bytes) => Some((head, bytes)),
        Body::Disk(_) => None,
    }
}

/// Sends the rest of a body whose head has been sent, and writes the line in the log.
pub async fn carry_rest<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    (started, mut ended): (Instant, Ended),
    rest: Bytes,
    exchange: &mut E,
) {
    if let Err(error) = send(&mut Body::Bytes(rest), exchange, &mut ended.bytes).await {
        exchange.abort();
        ended.error = Some(error);
    }
    finish(edge, request, pinned, exchange.protocol(), started, &ended);
}

/// The head as [`answer`] wants it.
#[must_use]
pub fn head_of(request: &Request) -> RequestHead<'_> {
    let head = &request.head;
    let host = || head.headers.get(HOST).and_then(|host| host.to_str().ok());
    RequestHead {
        method: &head.method,
        authority: head
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(host)
            .unwrap_or_default(),
        path: head.uri.path(),
        query: head.uri.query(),
        fields: Fields::Map(&head.headers),
        secure: request.secure,
    }
}

async fn carry<E: Exchange>(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    answer: Answer,
    exchange: &mut E,
) -> Ended {
    let head_only = request.head.method == Method::HEAD;
    let (answer, mut body) = match open(pinned, &answer, head_only).await {
        Ok(body) => (answer, body),
        Err(error) => rescue(edge, &error, head_only),
    };
    let mut ended = Ended::default();
    let head = response_head(edge, pinned, &answer, body.length());
    let status = head.status;
    if let Err(error) = exchange.start(head, body.is_sent()).await {
        ended.error = Some(error);
        return ended;
    }
    ended.status = Some(status);
    if let Err(error) = send(&mut body, exchange, &mut ended.bytes).await {
        ended.error = Some(error);
    }
    ended
}

async fn send<E: Exchange>(
    body: &mut Body,
    exchange: &mut E,
    sent: &mut u64,
) -> Result<(), Broken> {
    while let Some(part) = body.next().await? {
        let length = part.len() as u64;
        exchange.send(part, body.is_sent()).await?;
        *sent += length;
    }
    Ok(())
}

async fn open(
    pinned: Option<&Pinned>,
    answer: &Answer,
    head_only: bool,
) -> Result<Body, StoreError> {
    let release = pinned.and_then(|pinned| pinned.release.as_ref());
    let body = match (answer, release) {
        (Answer::Respond(response), _) => whole(response),
        (Answer::Static(StaticFile { file, .. }), _) if head_only => {
            Body::Length(file.identity().size())
        }
        (Answer::Static(StaticFile { file, .. }), Some(release)) => {
            match release.body(file.identity()).await? {
                release::Body::Memory(bytes) => Body::Bytes(bytes),
                release::Body::Disk { file, size } => {
                    use tokio::io::AsyncReadExt as _;
                    Body::Disk(tokio::fs::File::from_std(file).take(size))
                }
            }
        }
        (Answer::Static(_) | Answer::Forward(_), _) => Body::None,
    };
    Ok(if head_only { body.length_only() } else { body })
}

fn whole(response: &Response) -> Body {
    match &response.body {
        None => Body::None,
        Some(body) => Body::Bytes(Bytes::copy_from_slice(body.as_bytes())),
    }
}

/// The one place where a body that cannot be read becomes a response. The client learns little, the log all.
fn rescue(edge: &Edge, error: &StoreError, head_only: bool) -> (Answer, Body) {
    edge.metrics.bodies_failed.inc();
    tracing::error!(error = error as &dyn std::error::Error, "body not readable");
    let response = Response::text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "this file cannot be read right now\n",
    );
    let body = whole(&response);
    let body = if head_only { body.length_only() } else { body };
    (Answer::Respond(response), body)
}

/// The whole head of an answer that this edge gives itself.
#[must_use]
pub fn response_head(
    edge: &Edge,
    pinned: Option<&Pinned>,
    answer: &Answer,
    length: Option<u64>,
) -> ResponseHead {
    let mut headers = http::HeaderMap::with_capacity(16);
    for (name, value) in answer.headers() {
        headers.append(name, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    mark(edge, pinned, &mut headers);
    if let Some(alt_svc) = &edge.alt_svc {
        headers.insert(ALT_SVC, alt_svc.clone());
    }
    ResponseHead {
        status: answer.status(),
        headers,
    }
}

/// Says where a response comes from.
pub(crate) fn mark(edge: &Edge, pinned: Option<&Pinned>, headers: &mut http::HeaderMap) {
    let Some(pinned) = pinned else { return };
    headers.insert(EDGE, edge.edge.clone());
    headers.insert(REGION, edge.region.clone());
    headers.insert(GENERATION, HeaderValue::from(pinned.serving.generation.0));
    if let Some(release) = &pinned.release {
        let id = HeaderValue::from_str(release.id.as_str()).expect("a release id is ASCII");
        headers.insert(RELEASE, id);
    }
    if pinned.is_unlisted() {
        headers.insert(ROBOTS, HeaderValue::from_static("noindex"));
    }
}

/// Writes a request's line in the log, and counts it.
pub fn finish(
    edge: &Edge,
    request: &Request,
    pinned: Option<&Pinned>,
    protocol: Protocol,
    started: Instant,
    ended: &Ended,
) {
    let head = head_of(request);
    let release = pinned.and_then(|pinned| pinned.release.as_ref());
    let target = &request.head.uri;
    let path = target
        .path_and_query()
        .map_or(head.path, http::uri::PathAndQuery::as_str);
    let finished = Finished {
        protocol: protocol.label(),
        peer: Some(request.peer),
        method: head.method.as_str(),
        authority: head.authority,
        path,
        release: release.map_or("", |release| release.id.as_str()),
        status: ended.status,
        bytes: ended.bytes,
        took: started.elapsed(),
        error: &ended
            .error
            .as_ref()
            .map(ToString::to_string)
            .or_else(|| ended.cause.clone())
            .unwrap_or_default(),
    };
    record(&edge.metrics, edge.access_log, &finished);
}
