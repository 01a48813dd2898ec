//! From a request to its response.
//!
//! A body is opened before the head is sent, so that one that cannot be read becomes a 500 and not half a
//! response.

use std::collections::VecDeque;
use std::io::{self, Seek, SeekFrom};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use helix_framing::Fields;
use helix_framing::ranges::{Multipart, Part};
use http::header::{
    ALT_SVC, CONTENT_LENGTH, HOST, LINK, SET_COOKIE, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};

use super::{Body, Broken, Exchange, Own, Piece, Pieces, Protocol, Request, ResponseHead};
use crate::access_log::{Line, Said, Served, Told, record};
use crate::answer::{Answer, Answered, Pinned, RequestHead, Response, answer};
use crate::edge::Edge;
use crate::store::StoreError;
use crate::tally::{CacheOutcome, SHUTDOWN_CUT};
use crate::trace::{self, TraceId};
use crate::visitor::{self, private::make_private};
use crate::{forward, protection, release};

const EDGE: HeaderName = HeaderName::from_static("x-helix-edge");
const REGION: HeaderName = HeaderName::from_static("x-helix-region");
const RELEASE: HeaderName = HeaderName::from_static("x-helix-release");
const GENERATION: HeaderName = HeaderName::from_static("x-helix-generation");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const SIDE: HeaderName = HeaderName::from_static("x-helix-side");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

/// At most so many fields say where a response comes from.
const MOST_MARKS: usize = 9;

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
    /// The server it was asked of last, if it was sent on.
    pub upstream: Option<SocketAddr>,
    /// The trace it was sent on in, if that is known.
    pub trace: Option<TraceId>,
    /// What the response cache said to it, if it was asked.
    pub cache: Option<CacheOutcome>,
}

impl Ended {
    /// The same, and the response cache said so.
    #[must_use]
    pub(crate) fn cached(mut self, outcome: CacheOutcome) -> Self {
        self.cache = Some(outcome);
        self
    }
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
    let pinned = pinned.as_ref();
    let _in_flight = pinned.map(|pinned| pinned.in_flight().begin(edge.tally.core));
    let protocol = exchange.protocol();
    let line = Unwritten::new(edge, request, pinned, protocol, started);
    let mut ended = match answer {
        Answer::Guarded(guarded) => {
            let answering = protection::respond(edge, request, pinned, guarded, exchange);
            Box::pin(answering).await
        }
        Answer::Forward(target) => {
            let stripped = protection::for_upstream(pinned, request);
            let request = stripped.as_ref().unwrap_or(request);
            // Boxed, both: what is answered here should not hold the room of what is sent on, nor the other way round.
            let forwarding = forward::forward(edge, request, pinned, &target, exchange);
            Box::pin(forwarding).await
        }
        answer => Box::pin(carry(edge, request, pinned, answer, exchange)).await,
    };
    break_off(exchange, &mut ended);
    line.write(&ended);
}

/// The whole of a response that can be had without waiting for anything.
#[must_use]
pub fn at_once(
    edge: &Edge,
    request: &Request,
    answered: &Answered,
) -> Option<(ResponseHead, Bytes)> {
    if matches!(answered.answer, Answer::Forward(_) | Answer::Guarded(_)) {
        return None;
    }
    let pinned = answered.pinned.as_ref();
    let head_only = request.head.method == Method::HEAD;
    let body = open(pinned, &answered.answer, head_only).now_or_never()?;
    let body = body.ok()?;
    let head = response_head(
        edge,
        pinned,
        request.secure,
        &answered.answer,
        body.length(),
    );
    if early_hints(request, Protocol::Http2, &head).is_some() {
        return None;
    }
    match body {
        Body::None | Body::Length(_) => Some((head, Bytes::new())),
        Body::Bytes(bytes) => Some((head, bytes)),
        Body::Disk(_) | Body::Pieces(_) => None,
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
    let _in_flight = pinned.map(|pinned| pinned.in_flight().begin(edge.tally.core));
    let line = Unwritten::new(edge, request, pinned, exchange.protocol(), started);
    if let Err(error) = send(&mut Body::Bytes(rest), exchange, &mut ended.bytes).await {
        ended.error = Some(error);
        break_off(exchange, &mut ended);
    }
    line.write(&ended);
}

/// A line of the log that is owed: a request that is dropped before its end has one too.
struct Unwritten<'a> {
    edge: &'a Edge,
    request: &'a Request,
    pinned: Option<&'a Pinned>,
    protocol: Protocol,
    started: Instant,
    is_owed: bool,
}

impl<'a> Unwritten<'a> {
    const fn new(
        edge: &'a Edge,
        request: &'a Request,
        pinned: Option<&'a Pinned>,
        protocol: Protocol,
        started: Instant,
    ) -> Self {
        Self {
            edge,
            request,
            pinned,
            protocol,
            started,
            is_owed: true,
        }
    }

    fn write(mut self, ended: &Ended) {
        self.is_owed = false;
        self.finish(ended);
    }

    fn finish(&self, ended: &Ended) {
        let (edge, request) = (self.edge, self.request);
        finish(
            edge,
            request,
            self.pinned,
            self.protocol,
            self.started,
            ended,
        );
    }
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        if !self.is_owed {
            return;
        }
        let cause = if self.edge.shutdown.is_requested() {
            self.edge.tally.drained[SHUTDOWN_CUT].add(1);
            "cut at the end of the edge's drain"
        } else {
            "cut with its connection"
        };
        self.finish(&Ended {
            cause: Some(cause.to_owned()),
            ..Ended::default()
        });
    }
}

/// Ends the exchange of a response that is not whole, and learns how much of it the client has been sent.
fn break_off<E: Exchange>(exchange: &mut E, ended: &mut Ended) {
    if ended.error.is_none() {
        return;
    }
    if let Some(taken) = exchange.taken() {
        ended.bytes = taken.body;
        ended.status = ended.status.filter(|_| taken.head);
    }
    exchange.abort();
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

/// Sends what this edge answers itself, and nothing else: no line in the log, no count.
pub(crate) async fn carry<E: Exchange>(
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
    let head = response_head(edge, pinned, request.secure, &answer, body.length());
    if let Some(hints) = early_hints(request, exchange.protocol(), &head)
        && let Err(error) = exchange.interim(hints).await
    {
        ended.error = Some(error);
        return ended;
    }
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

/// What the page will need, before the page (RFC 8297). Only to browsers that open it: old clients of
/// HTTP/1 take an interim response for the final one.
fn early_hints(request: &Request, protocol: Protocol, head: &ResponseHead) -> Option<ResponseHead> {
    let opens_page = protocol != Protocol::Http1
        && request.head.method == Method::GET
        && head.status == StatusCode::OK
        && request
            .head
            .headers
            .get(FETCH_MODE)
            .is_some_and(|mode| mode == "navigate");
    if !opens_page {
        return None;
    }
    let mut hints = ResponseHead {
        status: StatusCode::EARLY_HINTS,
        ..ResponseHead::default()
    };
    for links in head.headers.get_all(LINK) {
        let wanted = split_links(links.to_str().ok()?).filter(|link| is_hint(link));
        for link in wanted.filter_map(|link| HeaderValue::try_from(link).ok()) {
            hints.headers.append(LINK, link);
        }
    }
    (!hints.headers.is_empty()).then_some(hints)
}

/// The links of a field: they are parted by commas, but not by those in `<…>` or in quotes.
fn split_links(links: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut bracketed) = (false, false);
    links
        .split(move |c| {
            match c {
                '"' if !bracketed => quoted = !quoted,
                '<' if !quoted => bracketed = true,
                '>' if !quoted => bracketed = false,
                _ => {}
            }
            c == ',' && !quoted && !bracketed
        })
        .map(str::trim)
}

fn is_hint(link: &str) -> bool {
    let mut parameters = link.rsplit('>').next().unwrap_or_default().split(';');
    parameters.any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.trim().eq_ignore_ascii_case("rel")
            && value
                .trim()
                .trim_matches('"')
                .split(' ')
                .any(|relation| matches!(relation, "preload" | "preconnect" | "modulepreload"))
    })
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
        (Answer::Static(file), _) if head_only => Body::Length(file.length()),
        (Answer::Static(file), Some(release)) => {
            let body = release.body(file.chosen()).await?;
            part_of(body, &file.part).map_err(|source| StoreError::Read {
                digest: file.chosen().entry.digest.clone(),
                source,
            })?
        }
        (Answer::Static(_) | Answer::Forward(_) | Answer::Guarded(_), _) => Body::None,
    };
    Ok(if head_only { body.length_only() } else { body })
}

/// `part` of what was opened. Its ranges lie within.
fn part_of(body: release::Body, part: &Part) -> io::Result<Body> {
    use tokio::io::AsyncReadExt as _;
    Ok(match (body, part) {
        (release::Body::Memory(bytes), Part::Whole) => Body::Bytes(bytes),
        (release::Body::Memory(bytes), Part::One(range)) => {
            Body::Bytes(bytes.slice(within(range, bytes.len())))
        }
        (release::Body::Disk { file, size }, Part::Whole) => {
            Body::Disk(tokio::fs::File::from_std(file).take(size))
        }
        (release::Body::Disk { mut file, .. }, Part::One(range)) => {
            file.seek(SeekFrom::Start(range.start))?;
            Body::Disk(tokio::fs::File::from_std(file).take(range.end - range.start))
        }
        (release::Body::Memory(bytes), Part::Many(parts)) => {
            let slice = |range: &Range<u64>| Piece::Bytes(bytes.slice(within(range, bytes.len())));
            Body::Pieces(pieces(parts, slice, None))
        }
        (release::Body::Disk { file, .. }, Part::Many(parts)) => {
            let file = tokio::fs::File::from_std(file);
            Body::Pieces(pieces(
                parts,
                |range| Piece::Disk(range.clone()),
                Some(file),
            ))
        }
    })
}

fn within(range: &Range<u64>, length: usize) -> Range<usize> {
    let at = |place: u64| usize::try_from(place).unwrap_or(length).min(length);
    at(range.start)..at(range.end)
}

fn pieces(
    parts: &Multipart,
    piece: impl Fn(&Range<u64>) -> Piece,
    file: Option<tokio::fs::File>,
) -> Pieces {
    let text = |text: &str| Piece::Bytes(Bytes::copy_from_slice(text.as_bytes()));
    let mut left: VecDeque<_> = parts
        .parts
        .iter()
        .flat_map(|(head, range)| [text(head), piece(range)])
        .collect();
    left.push_back(text(&parts.end));
    Pieces { left, file }
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
    secure: bool,
    answer: &Answer,
    length: Option<u64>,
) -> ResponseHead {
    let mut headers = http::HeaderMap::with_capacity(16);
    for (name, value) in answer.headers() {
        headers.append(name, value);
    }
    headers
        .entry(X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    mark(edge, pinned, secure, &mut headers);
    ResponseHead {
        status: answer.status(),
        headers,
    }
}

/// Says where a response comes from, and, to who came over TLS, where the same is to be had over HTTP/3.
pub(crate) fn mark(
    edge: &Edge,
    pinned: Option<&Pinned>,
    secure: bool,
    headers: &mut http::HeaderMap,
) {
    if pinned.is_some_and(Pinned::is_private) {
        make_private(headers);
    }
    for own in marks(edge, pinned, secure) {
        if own.beside {
            headers.append(own.name, own.value);
        } else {
            headers.insert(own.name, own.value);
        }
    }
}

/// The fields that do so.
pub(crate) fn marks(edge: &Edge, pinned: Option<&Pinned>, secure: bool) -> Vec<Own> {
    let mut marks = Vec::with_capacity(MOST_MARKS);
    let mut add = |name, value, beside| {
        marks.push(Own {
            name,
            value,
            beside,
        });
    };
    if let Some(alt_svc) = edge.alt_svc.as_ref().filter(|_| secure) {
        add(ALT_SVC, alt_svc.clone(), false);
    }
    let Some(pinned) = pinned else { return marks };
    if let Some(cookie) = pinned
        .chosen
        .as_ref()
        .and_then(|chosen| chosen.cookie.clone())
    {
        add(SET_COOKIE, cookie, true);
    }
    if pinned.is_unlisted() {
        add(ROBOTS, HeaderValue::from_static("noindex"), false);
    }
    let routes = pinned.release.as_ref().map(|release| &release.routes);
    if routes.is_some_and(|routes| routes.server_timing) {
        add(SERVER_TIMING, server_timing(edge), true);
    }
    if routes.is_some_and(|routes| routes.unmarked) {
        return marks;
    }
    add(EDGE, edge.edge.clone(), false);
    add(REGION, edge.region.clone(), false);
    add(GENERATION, pinned.serving.mark.clone(), false);
    if let Some(release) = &pinned.release {
        add(RELEASE, release.mark.clone(), false);
    }
    if let Some(side) = pinned.side() {
        add(SIDE, HeaderValue::from_static(side.label()), false);
    }
    marks
}

/// Which edge answered, where a browser shows it.
fn server_timing(edge: &Edge) -> HeaderValue {
    let text = format!("edge;desc=\"{}\"", edge.edge.to_str().unwrap_or_default());
    HeaderValue::try_from(text).expect("the id of an edge is ASCII")
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
    let uri = &request.head.uri;
    let target = uri
        .path_and_query()
        .map_or_else(|| uri.path(), http::uri::PathAndQuery::as_str);
    let target = protection::logged(target);
    let host = || request.head.headers.get(HOST).map(HeaderValue::as_bytes);
    let authority = uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let release = pinned.and_then(|pinned| pinned.release.as_ref());
    let served = Served {
        protocol,
        version_1_0: request.head.version == Version::HTTP_10,
        method: request.head.method.as_str(),
        host: authority.or_else(host).unwrap_or_default(),
        target: target.as_bytes(),
        status: ended.status,
        bytes: ended.bytes,
        release: release.map_or("", |release| release.id.as_str()),
        site: pinned.map(|pinned| &*pinned.site),
    };
    let given = || trace::id(trace::parent(&request.head.headers)?.as_bytes());
    let trace = ended.trace.or_else(given);
    let error = ended.error.as_ref().map(ToString::to_string);
    let error = error.as_ref().or(ended.cause.as_ref());
    let at = Instant::now();
    let line = Line {
        peer: request.peer,
        at,
        took: at.duration_since(started),
        served: Told::Now(served),
        said: Said {
            trace_id: trace.as_ref().map_or(&b""[..], |trace| trace),
            ..Said::of(&request.head.headers)
        },
        cache: ended.cache.map_or("", CacheOutcome::label),
        upstream: ended.upstream,
        error: error.map_or("", String::as_str),
    };
    record(edge, &line);
    if let Some(pinned) = pinned {
        // Of HTTP/2 and HTTP/3, too: there it is an upgrade by now, whose answer is 200.
        let is_tunnel = ended.status == Some(StatusCode::SWITCHING_PROTOCOLS)
            || request.head.headers.contains_key(UPGRADE);
        let took = (!is_tunnel).then_some(line.took);
        visitor::finished(&edge.tally, pinned, ended.status, took);
    }
}
