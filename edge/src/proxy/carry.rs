//! Carries an answer out: the head, then the body from memory or from disk in parts.
//!
//! A body is opened before the head is sent, so that one that cannot be read becomes a 500 and not half a
//! response. It does not decide what is sent.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, Session};
use tokio::io::{AsyncReadExt, Take};

use super::{Edge, RequestContext};
use crate::answer::{Answer, Answered, Pinned, Response, StaticFile};
use crate::limits::DISK_READ_BYTES;
use crate::release::Body;
use crate::store::StoreError;

const EDGE: HeaderName = HeaderName::from_static("x-helix-edge");
const REGION: HeaderName = HeaderName::from_static("x-helix-region");
const RELEASE: HeaderName = HeaderName::from_static("x-helix-release");
const GENERATION: HeaderName = HeaderName::from_static("x-helix-generation");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

/// A body that is ready to be sent, or how long it would be.
enum Content {
    /// The status allows none.
    None,
    /// Only its length is told: the answer to HEAD.
    Length(u64),
    Bytes(Bytes),
    Disk(Take<tokio::fs::File>),
}

impl Content {
    fn length(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Length(length) => Some(*length),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Disk(file) => Some(file.limit()),
        }
    }
}

/// Sends `answered`, and keeps what it was answered from in `context` until the request is finished.
pub(super) async fn send(
    edge: &Edge,
    session: &mut Session,
    context: &mut RequestContext,
    answered: Answered,
) -> Result<()> {
    context.pinned = answered.pinned;
    let pinned = context.pinned.as_ref();
    let head_only = session.req_header().method == Method::HEAD;
    let (answer, content) = match open(pinned, &answered.answer, head_only).await {
        Ok(content) => (answered.answer, content),
        Err(error) => rescue(edge, &error, head_only),
    };
    if session.is_http2() {
        // Over HTTP/1 the connection watches this itself; an HTTP/2 stream may stall alone.
        session.set_write_timeout(Some(edge.write_stall));
    }
    let head = response_head(edge, pinned, &answer, content.length())?;
    session.write_response_header(Box::new(head), false).await?;
    write(session, content).await
}

async fn open(
    pinned: Option<&Pinned>,
    answer: &Answer,
    head_only: bool,
) -> Result<Content, StoreError> {
    let release = pinned.and_then(|pinned| pinned.release.as_ref());
    let content = match (answer, release) {
        (Answer::Respond(response), _) => whole(response),
        (Answer::Static(StaticFile { file, .. }), _) if head_only => {
            Content::Length(file.entry.size)
        }
        (Answer::Static(StaticFile { file, .. }), Some(release)) => match release.body(file).await?
        {
            Body::Memory(bytes) => Content::Bytes(bytes),
            Body::Disk { file, size } => Content::Disk(tokio::fs::File::from_std(file).take(size)),
        },
        (Answer::Static(_), None) => Content::None,
    };
    Ok(match content {
        Content::Bytes(bytes) if head_only => Content::Length(bytes.len() as u64),
        content => content,
    })
}

fn whole(response: &Response) -> Content {
    match &response.body {
        None => Content::None,
        Some(body) => Content::Bytes(Bytes::copy_from_slice(body.as_bytes())),
    }
}

/// The one place where a body that cannot be read becomes a response. The client learns little, the log all.
fn rescue(edge: &Edge, error: &StoreError, head_only: bool) -> (Answer, Content) {
    edge.metrics.bodies_failed.inc();
    tracing::error!(error = error as &dyn std::error::Error, "body not readable");
    let response = Response::text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "this file cannot be read right now\n",
    );
    let content = match whole(&response) {
        Content::Bytes(bytes) if head_only => Content::Length(bytes.len() as u64),
        content => content,
    };
    (Answer::Respond(response), content)
}

fn response_head(
    edge: &Edge,
    pinned: Option<&Pinned>,
    answer: &Answer,
    length: Option<u64>,
) -> Result<ResponseHeader> {
    // Eight of ours at most, besides those of the answer and of the protocol.
    let mut head = ResponseHeader::build_no_case(answer.status(), Some(16))?;
    for (name, value) in answer.headers() {
        head.insert_header(name, value)?;
    }
    head.insert_header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))?;
    if let Some(length) = length {
        head.insert_header(CONTENT_LENGTH, HeaderValue::from(length))?;
    }
    let Some(pinned) = pinned else {
        return Ok(head);
    };
    head.insert_header(EDGE, edge.edge.clone())?;
    head.insert_header(REGION, edge.region.clone())?;
    head.insert_header(GENERATION, HeaderValue::from(pinned.serving.generation.0))?;
    if let Some(release) = &pinned.release {
        head.insert_header(RELEASE, release.id.as_str())?;
    }
    if pinned.is_unlisted() {
        head.insert_header(ROBOTS, HeaderValue::from_static("noindex"))?;
    }
    Ok(head)
}

async fn write(session: &mut Session, content: Content) -> Result<()> {
    match content {
        Content::None | Content::Length(_) => session.write_response_body(None, true).await,
        Content::Bytes(bytes) => session.write_response_body(Some(bytes), true).await,
        Content::Disk(file) => write_parts(session, file).await,
    }
}

async fn write_parts(session: &mut Session, mut file: Take<tokio::fs::File>) -> Result<()> {
    let mut last = file.limit() == 0;
    while !last {
        let mut part = BytesMut::with_capacity(DISK_READ_BYTES);
        let read = file
            .read_buf(&mut part)
            .await
            .or_err(ErrorType::FileReadError, "reading a body from disk")?;
        if read == 0 {
            return Error::e_explain(
                ErrorType::FileReadError,
                "a body on disk is shorter than it was",
            );
        }
        last = file.limit() == 0;
        session
            .write_response_body(Some(part.freeze()), last)
            .await?;
    }
    Ok(())
}

/// Ends a request that failed: with a 500 if nothing was sent, otherwise by breaking off, so that the
/// client sees that it is not whole.
pub(super) async fn give_up(session: &mut Session) -> FailToProxy {
    let status = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
    if session.response_written().is_none() && session.respond_error(status).await.is_err() {
        tracing::debug!("the client was gone before an error could be sent");
    }
    FailToProxy {
        error_code: status,
        can_reuse_downstream: false,
    }
}
