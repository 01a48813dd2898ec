//! The receiving side of one request: its head, then its body as an [`Exchange`] reads it.
//!
//! Every wait has an end: the head has one deadline, a body has to keep a pace. A message that does not
//! keep to its own `Content-Length` is malformed (RFC 9114 4.1.2). Reading is cancel safe.

use std::time::{Duration, Instant};

use bytes::Bytes;
use helix_framing::Refusal;
use helix_framing::http3::{Code, FrameError, Frames, Head, HeadBuilder, Part, trailer};
use helix_framing::limits::{MAX_HEAD_BYTES, MAX_TRAILER_BYTES};
use helix_framing::qpack::{self, QpackError};
use http::HeaderMap;
use quinn::{ReadError, RecvStream};
use tokio::time::timeout;

use crate::exchange::Broken;

/// How long the edge waits for a body beyond what its bytes have earned: a phone may lose its network.
const BODY_GRACE: Duration = Duration::from_secs(15);

/// What a body's bytes must come at, at least, over the time the edge waited for them. A client that
/// keeps a request open with a byte now and then holds it no longer than the grace.
const MIN_BODY_BYTES_PER_SECOND: u32 = 512;

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// It is answered with a status.
    Refused(Refusal),
    /// The stream is over, and nobody waits for an answer.
    Gone,
    /// The connection cannot go on.
    Connection(Code),
}

/// Reads one request.
#[derive(Debug)]
pub(super) struct Inbound {
    stream: RecvStream,
    frames: Frames,
    ahead: Bytes,
    ended: bool,
    /// What the head said its body has.
    length: Option<u64>,
    received: u64,
    waited: Duration,
    /// How long the client may be silent, where that is all that is asked of its pace.
    silence: Option<Duration>,
    trailers: Option<HeaderMap>,
}

enum Failed {
    Frames(FrameError),
    Client(&'static str),
}

impl Inbound {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            ahead: Bytes::new(),
            ended: false,
            length: None,
            received: 0,
            waited: Duration::ZERO,
            silence: None,
            trailers: None,
        }
    }

    /// Reads the head, within `deadline`.
    pub(super) async fn head(&mut self, deadline: Duration) -> Result<Head, NoRequest> {
        let part = timeout(deadline, self.part())
            .await
            .map_err(|_| NoRequest::Refused(Refusal::HeadTooSlow))?;
        let section = match part {
            Ok(Some(Part::Fields(section))) => section,
            Ok(Some(Part::Data(_)) | None) => return Err(NoRequest::Gone),
            Err(Failed::Client(_)) => return Err(NoRequest::Gone),
            Err(Failed::Frames(FrameError::Connection(code))) => {
                return Err(NoRequest::Connection(code));
            }
            Err(Failed::Frames(FrameError::HeadTooLarge | FrameError::TrailersTooLarge)) => {
                return Err(NoRequest::Refused(Refusal::HeadTooLarge));
            }
        };
        let mut builder = HeadBuilder::default();
        qpack::decode(&section, MAX_HEAD_BYTES, |name, value| {
            builder.take(name, value)
        })
        .map_err(|error| match error {
            QpackError::Malformed => NoRequest::Connection(Code::QpackDecompressionFailed),
            QpackError::TooLarge => NoRequest::Refused(Refusal::HeadTooLarge),
            QpackError::Refused(refusal) => NoRequest::Refused(refusal),
        })?;
        let head = builder.finish().map_err(NoRequest::Refused)?;
        // A tunnel has no length.
        self.length = head.length.filter(|_| !head.websocket);
        Ok(head)
    }

    /// The next part of the body; none at its end.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if self.ended || self.trailers.is_some() {
                return Ok(None);
            }
            let part = self.paced().await?.map_err(|failed| match failed {
                Failed::Client(reason) => Broken::Client(reason),
                Failed::Frames(FrameError::TrailersTooLarge) => {
                    Broken::Body("has trailers that are too large")
                }
                Failed::Frames(_) => Broken::Body("has frames out of place"),
            })?;
            match part {
                Some(Part::Data(bytes)) => {
                    self.received += bytes.len() as u64;
                    if self.length.is_some_and(|length| self.received > length) {
                        return Err(Broken::Body("is longer than it said"));
                    }
                    return Ok(Some(bytes));
                }
                Some(Part::Fields(section)) => self.take_trailers(&section)?,
                None => self.ended = true,
            }
            if self.length.is_some_and(|length| self.received < length) {
                return Err(Broken::Body("is shorter than it said"));
            }
        }
    }

    /// Whether its end has been seen.
    pub(super) const fn is_read(&self) -> bool {
        self.ended || self.trailers.is_some()
    }

    /// The trailers, if the body ended with some.
    pub(super) async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        while self.read().await?.is_some() {}
        Ok(self.trailers.take().filter(|trailers| !trailers.is_empty()))
    }

    /// Wants no more: what still comes is not needed for the response (RFC 9114 4.1.1).
    pub(super) fn stop(&mut self, code: Code) {
        // An error means that it has ended anyway.
        let _ = self.stream.stop(super::code(code));
    }

    fn take_trailers(&mut self, section: &Bytes) -> Result<(), Broken> {
        let mut trailers = HeaderMap::new();
        qpack::decode(section, MAX_TRAILER_BYTES, |name, value| {
            trailer(&mut trailers, name, value)
        })
        .map_err(|_| Broken::Body("has malformed trailers"))?;
        self.trailers = Some(trailers);
        Ok(())
    }

    /// Lets the client be silent for so long, however slow that makes its body.
    pub(super) const fn may_rest(&mut self, silence: Duration) {
        self.silence = Some(silence);
    }

    /// The next part, while the body keeps its pace.
    async fn paced(&mut self) -> Result<Result<Option<Part>, Failed>, Broken> {
        if let Some(silence) = self.silence {
            let part = timeout(silence, self.part()).await;
            return part.map_err(|_| Broken::Client("is silent for too long"));
        }
        let earned = Duration::from_secs(self.received / u64::from(MIN_BODY_BYTES_PER_SECOND));
        let patience = (BODY_GRACE + earned).saturating_sub(self.waited);
        let started = Instant::now();
        let part = timeout(patience, self.part()).await;
        self.waited += started.elapsed();
        part.map_err(|_| Broken::Client("sends its body too slowly"))
    }

    async fn part(&mut self) -> Result<Option<Part>, Failed> {
        loop {
            if let Some(part) = self.frames.next(&mut self.ahead).map_err(Failed::Frames)? {
                return Ok(Some(part));
            }
            match self.stream.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => self.ahead = chunk.bytes,
                Ok(None) if self.frames.is_whole() => return Ok(None),
                Ok(None) => {
                    return Err(Failed::Frames(FrameError::Connection(Code::FrameError)));
                }
                Err(ReadError::Reset(_)) => return Err(Failed::Client("broke the request off")),
                Err(_) => return Err(Failed::Client("is gone")),
            }
        }
    }
}
