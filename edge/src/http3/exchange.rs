//! One request and its response over a QUIC stream, as an [`Exchange`].
//!
//! Bytes of a body are handed to the transport as they are, without a copy, and no further ahead than its
//! window: a client that takes nothing is found out by waiting for room. Nothing here decides what to
//! answer.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use helix_framing::http3::{Code, DATA, HEADERS, put_variable};
use helix_framing::qpack::{encode_response, encode_trailers};
use http::header::DATE;
use http::{HeaderMap, HeaderValue};
use quinn::{SendStream, VarInt, WriteError};
use tokio::time::timeout;

use super::code;
use super::connection::Session;
use super::priority::{PRIORITY, Priority};
use super::stream::Inbound;
use crate::exchange::{Broken, Exchange, Protocol, ResponseHead, Taken};

/// Marks a variable-length integer of four bytes.
const FOUR_BYTES: u32 = 0b10 << 30;

/// Room for a head as the edge writes them, and for the header of its body.
const HEAD_BYTES: usize = 512;

/// The stream of one request.
#[derive(Debug)]
pub(super) struct StreamExchange {
    session: Arc<Session>,
    inbound: Inbound,
    outbound: SendStream,
    /// Whether the body follows its head at once, so that both leave together.
    prompt: bool,
    /// A head that waits for its body.
    held: BytesMut,
    /// Bytes of the body that went on their way.
    sent: u64,
    ended: bool,
    aborted: bool,
    /// How it is to be sent, and up to which change of the client's mind.
    priority: Priority,
    seen: u64,
}

impl StreamExchange {
    pub(super) fn new(session: Arc<Session>, inbound: Inbound, outbound: SendStream) -> Self {
        Self {
            session,
            inbound,
            outbound,
            prompt: false,
            held: BytesMut::new(),
            sent: 0,
            ended: false,
            aborted: false,
            priority: Priority::default(),
            seen: 0,
        }
    }

    /// Sends it so from now on, as far as `wish` says how.
    pub(super) fn prioritize(&mut self, wish: Priority) {
        self.priority = self.priority.overridden(wish);
        // An error means that the stream has ended.
        let _ = self
            .outbound
            .set_priority(self.priority.rank(self.stream()));
    }

    /// Does so when the client has changed its mind.
    fn follow_changes(&mut self) {
        let stream = self.stream();
        if let Some(changed) = self.session.changed.since(&mut self.seen, stream) {
            self.priority = Priority::default();
            self.prioritize(changed);
        }
    }

    fn stream(&self) -> u64 {
        VarInt::from(self.outbound.id()).into_inner()
    }

    /// The response is made here, so its body follows its head at once.
    pub(super) const fn local(mut self) -> Self {
        self.prompt = true;
        self
    }

    /// The request is answered. Gives back the sending side while the client may still have to be sent some of it.
    pub(super) fn into_sent(mut self) -> Option<SendStream> {
        if self.aborted {
            return None;
        }
        self.inbound.stop(Code::NoError);
        self.session.changed.forget(self.stream());
        self.ended.then_some(self.outbound)
    }

    async fn write(&mut self, mut chunks: &mut [Bytes]) -> Result<(), Broken> {
        if chunks.iter().all(Bytes::is_empty) {
            return Ok(());
        }
        self.follow_changes();
        while !chunks.is_empty() {
            let written = timeout(
                self.session.limits.write_stall,
                self.outbound.write_chunks(chunks),
            )
            .await
            .map_err(|_| Broken::Client("takes nothing"))?
            .map_err(broken)?;
            chunks = &mut chunks[written.chunks..];
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Broken> {
        self.ended = true;
        self.outbound
            .finish()
            .map_err(|_| Broken::Client("stopped the response"))
    }

    async fn head(&mut self, head: &ResponseHead) -> Result<(), Broken> {
        let frame = head_frame(head);
        self.write(&mut [frame.freeze()]).await
    }
}

/// A HEADERS frame, with room behind it for the header of its body.
fn head_frame(head: &ResponseHead) -> BytesMut {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES);
    put_variable(&mut frame, HEADERS);
    let length_at = frame.len();
    frame.put_u32(0);
    encode_response(head.status, &head.headers, &mut frame);
    let length = frame.len() - length_at - size_of::<u32>();
    // A length of four bytes can be written once it is known (RFC 9000 16).
    let length = u32::try_from(length).expect("the edge's heads are short") | FOUR_BYTES;
    frame[length_at..length_at + size_of::<u32>()].copy_from_slice(&length.to_be_bytes());
    frame
}

fn broken(error: WriteError) -> Broken {
    Broken::Client(match error {
        WriteError::Stopped(_) => "stopped the response",
        WriteError::ConnectionLost(_) => "is gone",
        WriteError::ClosedStream | WriteError::ZeroRttRejected => "has no such stream",
    })
}

fn frame_header(kind: u64, length: usize) -> Bytes {
    let mut header = BytesMut::with_capacity(16);
    put_variable(&mut header, kind);
    put_variable(&mut header, length as u64);
    header.freeze()
}

impl Exchange for StreamExchange {
    fn protocol(&self) -> Protocol {
        Protocol::Http3
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        self.inbound.read().await
    }

    fn is_read(&self) -> bool {
        self.inbound.is_read()
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        self.inbound.trailers().await
    }

    async fn interim(&mut self, head: ResponseHead) -> Result<(), Broken> {
        self.head(&head).await
    }

    async fn start(&mut self, mut head: ResponseHead, ends: bool) -> Result<(), Broken> {
        head.headers.entry(DATE).or_insert_with(date);
        if head.headers.contains_key(&PRIORITY) {
            self.prioritize(Priority::of(&head.headers));
        }
        if self.prompt && !ends {
            self.held = head_frame(&head);
            return Ok(());
        }
        self.head(&head).await?;
        if ends { self.finish() } else { Ok(()) }
    }

    async fn send(&mut self, part: Bytes, ends: bool) -> Result<(), Broken> {
        let mut before = std::mem::take(&mut self.held);
        if !part.is_empty() {
            put_variable(&mut before, DATA);
            put_variable(&mut before, part.len() as u64);
        }
        let length = part.len() as u64;
        let mut chunks = [before.freeze(), part];
        let written = self.write(&mut chunks).await;
        // What is left of it was cut off at its front.
        self.sent += length - chunks[1].len() as u64;
        written?;
        if ends { self.finish() } else { Ok(()) }
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        let held = std::mem::take(&mut self.held);
        self.write(&mut [held.freeze()]).await?;
        if let Some(trailers) = trailers {
            let mut section = BytesMut::new();
            encode_trailers(&trailers, &mut section);
            self.write(&mut [frame_header(HEADERS, section.len()), section.freeze()])
                .await?;
        }
        self.finish()
    }

    fn may_rest(&mut self, silence: Duration) {
        self.inbound.may_rest(silence);
    }

    async fn gone(&mut self) -> Broken {
        match self.outbound.stopped().await {
            Ok(_) => Broken::Client("stopped the response"),
            Err(_) => Broken::Client("is gone"),
        }
    }

    fn taken(&self) -> Option<Taken> {
        let body = self.sent;
        (body > 0).then_some(Taken { head: true, body })
    }

    fn abort(&mut self) {
        self.aborted = true;
        // Errors mean that the client has ended it already.
        let _ = self.outbound.reset(code(Code::Internal));
        self.inbound.stop(Code::RequestCancelled);
    }
}

thread_local! {
    /// The `Date` of the second it was last asked for.
    static CLOCK: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// Now, as `Date` says it (RFC 9110 6.6.1).
fn date() -> HeaderValue {
    let now = SystemTime::now();
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    CLOCK.with_borrow_mut(|(last, value)| {
        if *last != second {
            let text = httpdate::fmt_http_date(now);
            *value = HeaderValue::try_from(text).expect("a date is ASCII");
            *last = second;
        }
        value.clone()
    })
}
