//! One HTTP/1 request and its response, as an [`Exchange`].
//!
//! Reads the body as [`helix_framing`] has framed it and never a byte more; frames the response itself
//! (RFC 9112 6): by its length, in chunks, or, for HTTP/1.0, by the end of the connection. Decides
//! whether the connection can be used again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use helix_framing::{
    ChunkPart, Chunks, Framing, Head, chunk_size, content_length, field, status_line, trailers,
    write_head,
};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::io::EdgeIo;
use super::memo::Sent;
use super::pace::Pace;
use crate::exchange::{Broken, Exchange, Protocol, Relayed, ResponseHead, Taken};
use crate::limits::{
    BODY_PART_BYTES, GATHER_BYTES, LINGER, MAX_AHEAD_BYTES, MAX_DROPPED_BODY_BYTES, MIN_BODY_BYTES,
};

/// Room for a head that most fit in.
const HEAD_BYTES: usize = 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
pub(super) const KEEP_ALIVE: &[u8] = b"connection: keep-alive\r\n\r\n";
pub(super) const CLOSE: &[u8] = b"connection: close\r\n\r\n";

const LENGTH_NAME: usize = "content-length".len();
const CONNECTION_NAME: usize = "connection".len();

/// What is left of the request's body.
#[derive(Debug)]
enum Incoming {
    Length(u64),
    Chunked(Chunks),
    Done,
    /// Another protocol's bytes, to the end of the connection.
    Tunnel,
}

/// How far the response is.
#[derive(Debug, PartialEq, Eq)]
enum Outgoing {
    /// No final head yet.
    Head,
    /// This many bytes of the body are to come.
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    UntilClose,
    Tunnel,
    Done,
    Broken,
}

/// What the request's head says about the exchange.
#[derive(Clone, Copy, Debug)]
struct Wishes {
    version_1_0: bool,
    head_only: bool,
    persists: bool,
    takes_trailers: bool,
    upgrades: bool,
}

/// One request and its response on a connection.
pub(super) struct Http1Exchange<'a> {
    io: &'a mut EdgeIo,
    /// Whether connections are to end, which may come about while a response is waited for.
    ends: &'a AtomicBool,
    wishes: Wishes,
    date: [u8; 29],
    incoming: Incoming,
    /// Whether the client still waits for a 100.
    expected: bool,
    trailers: Vec<u8>,
    pace: Pace,
    body_window: Duration,
    /// How long the client may be silent, where that is all that is asked of its pace.
    rest: Option<Duration>,
    outgoing: Outgoing,
    /// Whether the body follows its head at once, so that both leave together.
    prompt: bool,
    keeps: bool,
    copy: Option<Copy>,
    /// Where the body begins in what the connection sends, once its head is written.
    body_at: Option<u64>,
}

/// What was sent, as long as it can be sent again as it is.
#[derive(Debug, Default)]
struct Copy {
    head: Option<(StatusCode, Vec<u8>)>,
    body: Bytes,
}

impl<'a> Http1Exchange<'a> {
    /// The exchange of the message whose head was just taken off `io`.
    pub(super) fn new(
        io: &'a mut EdgeIo,
        head: &Head,
        date: [u8; 29],
        body_window: Duration,
        ends: &'a AtomicBool,
    ) -> Self {
        let incoming = match head.framing {
            Framing::None => Incoming::Done,
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunked(Chunks::new()),
        };
        Self {
            io,
            ends,
            wishes: Wishes {
                version_1_0: head.version_1_0,
                head_only: head.method == http::Method::HEAD,
                persists: head.persists,
                takes_trailers: head.takes_trailers,
                upgrades: head.upgrades
                    && matches!(incoming, Incoming::Done)
                    && !ends.load(Ordering::Relaxed),
            },
            date,
            incoming,
            expected: head.expects,
            trailers: Vec::new(),
            pace: Pace::default(),
            body_window,
            rest: None,
            outgoing: Outgoing::Head,
            prompt: false,
            keeps: false,
            copy: None,
            body_at: None,
        }
    }

    /// The response is made here, so its body follows its head at once; with `copied` it is kept for [`Self::sent`].
    pub(super) fn local(mut self, copied: bool) -> Self {
        self.prompt = true;
        if copied {
            self.copy = Some(Copy {
                head: None,
                body: Bytes::new(),
            });
        }
        self
    }

    /// The whole response, if it was copied and can be sent again as it is.
    pub(super) fn sent(&mut self) -> Option<Sent> {
        if self.outgoing != Outgoing::Done {
            return None;
        }
        let Copy { head, body } = self.copy.take()?;
        let (status, head) = head?;
        Some(Sent { status, head, body })
    }

    /// Ends the exchange. True when the connection can be used again.
    pub(super) async fn finish(mut self) -> bool {
        match self.outgoing {
            Outgoing::Done if self.keeps => {}
            Outgoing::Done | Outgoing::Tunnel => {
                self.io.close().await;
                return false;
            }
            Outgoing::Head
            | Outgoing::Length(_)
            | Outgoing::Chunked
            | Outgoing::UntilClose
            | Outgoing::Broken => {
                self.io.reset();
                return false;
            }
        }
        if self.is_read() {
            return true;
        }
        let dropped = timeout(LINGER, async {
            while let Ok(Some(_)) = self.read().await {}
        });
        dropped.await.is_ok() && self.is_read()
    }

    /// Whether what is left of the request's body may be read and dropped to keep the connection.
    fn rest_is_small(&self) -> bool {
        match self.incoming {
            Incoming::Done => true,
            // A client that waits for a 100 may send the body or not: nobody knows where the next head starts.
            Incoming::Length(left) => !self.expected && left <= MAX_DROPPED_BODY_BYTES,
            Incoming::Chunked(_) | Incoming::Tunnel => false,
        }
    }

    async fn more(&mut self) -> Result<(), Broken> {
        let Self { io, pace, .. } = self;
        let (window, least) = match self.rest {
            None => (self.body_window, MIN_BODY_BYTES),
            Some(silence) => (silence, 1),
        };
        let read = std::future::poll_fn(|cx| {
            use std::task::Poll;
            match io.poll_fill(cx) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending => pace.poll_too_slow(cx, window, least).map(|()| None),
            }
        });
        match read.await {
            None => Err(Broken::Body("comes too slowly")),
            Some(Ok(0)) => Err(Broken::Client("left within its request")),
            Some(Ok(read)) => {
                self.pace.moved(read);
                Ok(())
            }
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// The next part of a chunked body that is here.
    fn unchunk(&mut self) -> Result<Option<Bytes>, Broken> {
        let Incoming::Chunked(chunks) = &mut self.incoming else {
            return Ok(None);
        };
        while !self.io.inbound.is_empty() && !chunks.is_done() {
            let here = &self.io.inbound[..self.io.inbound.len().min(BODY_PART_BYTES)];
            let part = chunks
                .part(here)
                .map_err(|_| Broken::Body("is malformed"))?;
            match part {
                ChunkPart::Framing(count) => self.io.inbound.advance(count),
                ChunkPart::Trailer(count) => {
                    self.trailers.extend_from_slice(&here[..count]);
                    self.io.inbound.advance(count);
                }
                ChunkPart::Data(count) => {
                    let data = Bytes::copy_from_slice(&here[..count]);
                    self.io.inbound.advance(count);
                    return Ok(Some(data));
                }
            }
        }
        if chunks.is_done() {
            self.incoming = Incoming::Done;
        }
        Ok(None)
    }

    fn take(&mut self, most: usize) -> Bytes {
        let count = self.io.inbound.len().min(BODY_PART_BYTES).min(most);
        let part = Bytes::copy_from_slice(&self.io.inbound[..count]);
        self.io.inbound.advance(count);
        part
    }

    /// How the body of a response like this is framed.
    fn framing(&self, status: StatusCode, length: Option<u64>, ends: bool) -> Outgoing {
        let bodiless = self.wishes.head_only
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match length {
            _ if ends || bodiless => Outgoing::Done,
            Some(0) => Outgoing::Done,
            Some(length) => Outgoing::Length(length),
            None if self.wishes.version_1_0 => Outgoing::UntilClose,
            None => Outgoing::Chunked,
        }
    }

    /// Writes the final head but does not send it.
    fn write_head(&mut self, mut head: ResponseHead, ends: bool) {
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        if is_without_length(head.status) {
            head.headers.remove(CONTENT_LENGTH);
        }
        let (status, date) = (head.status, self.date);
        self.write_final(status, length, ends, |bytes| {
            write_head(bytes, status, &head.headers, &date);
        });
    }

    /// The same of a head as an upstream sent it.
    fn write_relayed(&mut self, relayed: &Relayed<'_>, ends: bool) {
        let (status, date) = (relayed.status(), self.date);
        self.write_final(status, relayed.length(), ends, |bytes| {
            status_line(bytes, status);
            for line in relayed.lines() {
                let name = line.name;
                let is = |other: HeaderName| name.eq_ignore_ascii_case(other.as_str().as_bytes());
                if name.len() == LENGTH_NAME && is_without_length(status) && is(CONTENT_LENGTH) {
                    continue;
                }
                if name.len() == CONNECTION_NAME && is(CONNECTION) {
                    continue;
                }
                line.write(bytes);
            }
            if !relayed.reply().dated {
                field(bytes, DATE.as_str().as_bytes(), &date);
            }
        });
    }

    /// Writes a final head whose fields are written by `fields`, and behind them what is about this connection.
    fn write_final(
        &mut self,
        status: StatusCode,
        length: Option<u64>,
        ends: bool,
        fields: impl FnOnce(&mut Vec<u8>),
    ) {
        let outgoing = self.framing(status, length, ends);
        self.keeps = self.wishes.persists
            && !self.ends.load(Ordering::Relaxed)
            && outgoing != Outgoing::UntilClose
            && self.rest_is_small();
        let bytes = self.io.outbound.room(HEAD_BYTES);
        let start = bytes.len();
        fields(bytes);
        match outgoing {
            Outgoing::Chunked => field(bytes, b"transfer-encoding", b"chunked"),
            Outgoing::Done
                if !is_without_length(status)
                    && status != StatusCode::NOT_MODIFIED
                    && !self.wishes.head_only
                    && length.is_none() =>
            {
                content_length(bytes, 0);
            }
            _ => {}
        }
        if let Some(copy) = &mut self.copy {
            copy.head = Some((status, bytes[start..].to_vec()));
        }
        bytes.extend_from_slice(if self.keeps { KEEP_ALIVE } else { CLOSE });
        self.body_at = Some(self.io.sent() + self.io.outbound.len() as u64);
        self.outgoing = outgoing;
    }

    /// Whether the head should not wait for the body.
    fn is_long(&self) -> bool {
        match self.outgoing {
            Outgoing::Length(length) => length > GATHER_BYTES as u64,
            Outgoing::Chunked | Outgoing::UntilClose | Outgoing::Tunnel => true,
            Outgoing::Head | Outgoing::Done | Outgoing::Broken => false,
        }
    }

    /// Counts a part against the announced length, and says how much of it may be sent.
    fn account(&mut self, part: usize, ends: bool) -> Result<(), Broken> {
        if let Outgoing::Length(left) = &mut self.outgoing {
            *left = left
                .checked_sub(part as u64)
                .ok_or(Broken::Client("was promised fewer bytes"))?;
            if ends && *left > 0 {
                return Err(Broken::Client("was promised more bytes"));
            }
            if *left == 0 {
                self.outgoing = Outgoing::Done;
            }
        }
        Ok(())
    }

    async fn finish_body(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Broken> {
        match self.outgoing {
            Outgoing::Chunked => {
                let mut bytes = b"0\r\n".to_vec();
                if self.wishes.takes_trailers {
                    for (name, value) in trailers.into_iter().flatten() {
                        field(&mut bytes, name.as_str().as_bytes(), value.as_bytes());
                    }
                }
                bytes.extend_from_slice(b"\r\n");
                self.io.write_all(&bytes).await?;
                self.outgoing = Outgoing::Done;
            }
            Outgoing::UntilClose => {
                self.outgoing = Outgoing::Done;
                self.keeps = false;
            }
            Outgoing::Length(1..) => return Err(Broken::Client("was promised more bytes")),
            Outgoing::Head
            | Outgoing::Length(0)
            | Outgoing::Tunnel
            | Outgoing::Done
            | Outgoing::Broken => {}
        }
        Ok(())
    }
}

/// Whether a response with this status never says how long its body is (RFC 9110 8.6).
fn is_without_length(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status.is_informational()
}

impl Exchange for Http1Exchange<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Http1
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        if std::mem::take(&mut self.expected) && self.outgoing == Outgoing::Head {
            self.io.write_all(CONTINUE).await?;
            self.io.flush().await?;
        }
        loop {
            match &mut self.incoming {
                Incoming::Done => return Ok(None),
                Incoming::Length(_) | Incoming::Tunnel if self.io.inbound.is_empty() => {}
                Incoming::Tunnel => return Ok(Some(self.take(usize::MAX))),
                Incoming::Length(left) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let part = self.take(most);
                    if let Incoming::Length(left) = &mut self.incoming {
                        *left -= part.len() as u64;
                        if *left == 0 {
                            self.incoming = Incoming::Done;
                        }
                    }
                    return Ok(Some(part));
                }
                Incoming::Chunked(_) => {
                    if let Some(part) = self.unchunk()? {
                        return Ok(Some(part));
                    }
                    if matches!(self.incoming, Incoming::Done) {
                        return Ok(None);
                    }
                }
            }
            if matches!(self.incoming, Incoming::Tunnel) {
                if !self.io.fill().await {
                    self.incoming = Incoming::Done;
                    return Ok(None);
                }
            } else {
                self.io.release();
                self.more().await?;
            }
        }
    }

    fn is_read(&self) -> bool {
        matches!(self.incoming, Incoming::Done)
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        Ok(trailers(&std::mem::take(&mut self.trailers)))
    }

    async fn interim(&mut self, head: ResponseHead) -> Result<(), Broken> {
        // What HTTP/1.0 would take for the response (RFC 9110 15.2).
        if self.wishes.version_1_0 || head.status == StatusCode::CONTINUE {
            return Ok(());
        }
        self.copy = None;
        let mut bytes = Vec::with_capacity(256);
        write_head(&mut bytes, head.status, &head.headers, &self.date);
        bytes.extend_from_slice(b"\r\n");
        self.io.write_all(&bytes).await?;
        Ok(self.io.flush().await?)
    }

    async fn start(&mut self, head: ResponseHead, ends: bool) -> Result<(), Broken> {
        self.write_head(head, ends);
        if ends || !self.prompt && self.is_long() {
            self.io.flush().await?;
        }
        Ok(())
    }

    async fn relay(&mut self, relayed: Relayed<'_>, ends: bool) -> Result<(), Broken> {
        self.write_relayed(&relayed, ends);
        if ends || self.is_long() {
            self.io.flush().await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes, ends: bool) -> Result<(), Broken> {
        if self.outgoing == Outgoing::Done {
            // HEAD, or a status without a body.
            return Ok(());
        }
        self.account(part.len(), ends)?;
        if self.outgoing == Outgoing::Chunked && !part.is_empty() {
            let mut size = Vec::with_capacity(10);
            chunk_size(&mut size, part.len());
            self.io.outbound.extend(&size);
        }
        self.io.write_all(&part).await?;
        if self.outgoing == Outgoing::Chunked && !part.is_empty() {
            self.io.write_all(b"\r\n").await?;
        }
        if let Some(copy) = &mut self.copy {
            if copy.body.is_empty() {
                copy.body = part;
            } else {
                self.copy = None;
            }
        }
        if ends {
            self.finish_body(None).await?;
        }
        if ends || !self.prompt {
            // Where more is to come it may be long in coming.
            self.io.flush().await?;
        }
        Ok(())
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        self.finish_body(trailers.as_ref()).await?;
        Ok(self.io.flush().await?)
    }

    async fn gone(&mut self) -> Broken {
        while self.io.inbound.len() < MAX_AHEAD_BYTES {
            if !self.io.fill().await {
                return Broken::Client("left before its response");
            }
        }
        std::future::pending().await
    }

    fn can_tunnel(&self) -> bool {
        self.wishes.upgrades
    }

    fn may_rest(&mut self, silence: Duration) {
        self.rest = Some(silence);
    }

    async fn tunnel(&mut self, head: ResponseHead) -> Result<StatusCode, Broken> {
        if !self.wishes.upgrades {
            return Err(Broken::Client("did not ask for another protocol"));
        }
        let mut bytes = Vec::with_capacity(256);
        write_head(&mut bytes, head.status, &head.headers, &self.date);
        // Nothing else makes a tunnel.
        bytes.extend_from_slice(b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n");
        self.io.write_all(&bytes).await?;
        self.io.flush().await?;
        self.incoming = Incoming::Tunnel;
        self.outgoing = Outgoing::Tunnel;
        Ok(head.status)
    }

    fn taken(&self) -> Option<Taken> {
        if self.outgoing == Outgoing::Chunked {
            // What frames the parts has left with them.
            return None;
        }
        let sent = self.io.sent();
        Some(Taken {
            head: self.body_at.is_some_and(|at| sent >= at),
            body: self.body_at.map_or(0, |at| sent.saturating_sub(at)),
        })
    }

    fn abort(&mut self) {
        self.outgoing = Outgoing::Broken;
        self.copy = None;
    }
}
