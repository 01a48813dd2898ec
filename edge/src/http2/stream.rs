//! One stream as an [`Exchange`].
//!
//! Every wait has a limit. A stream of which the client takes nothing is reset; when it takes nothing of
//! any, the whole connection is held, and its loop is told so by [`Progress`].

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use helix_framing::is_field_name;
use helix_framing::limits::{MAX_HEADERS, MAX_TRAILER_BYTES};
use http::header::{CONNECTION, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use tokio::time::timeout;

use crate::exchange::{Broken, Exchange, Protocol, ResponseHead, Taken, date};
use crate::limits::Limits;

/// Belong to one connection of HTTP/1 and make a message of HTTP/2 malformed (RFC 9113 8.2.2).
const CONNECTION_FIELDS: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What the client takes of all streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Progress {
    taken: AtomicU64,
    held: AtomicBool,
}

impl Progress {
    /// The client takes nothing of any stream.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// One stream has waited for long, since `before`.
    fn waited(&self, before: u64) {
        if self.taken() == before {
            self.held.store(true, Ordering::Relaxed);
        }
    }
}

/// One request and its response.
#[derive(Debug)]
pub(super) struct Stream {
    request: RecvStream,
    respond: SendResponse<Bytes>,
    /// Once the head has been sent.
    body: Option<SendStream<Bytes>>,
    progress: Arc<Progress>,
    write_stall: Duration,
    /// How long the client may be silent within its body.
    silence: Duration,
    /// Bytes of the body that went on their way.
    sent: u64,
    /// The client waits for a word before it sends the body.
    expects: bool,
}

impl Stream {
    pub(super) const fn new(
        request: RecvStream,
        respond: SendResponse<Bytes>,
        progress: Arc<Progress>,
        limits: &Limits,
        expects: bool,
    ) -> Self {
        Self {
            request,
            respond,
            body: None,
            progress,
            write_stall: limits.write_stall,
            silence: limits.body_stall,
            sent: 0,
            expects,
        }
    }

    /// Sends a whole response. What the client's windows have no room for is given back.
    pub(super) fn send_now(
        &mut self,
        head: ResponseHead,
        mut body: Bytes,
    ) -> Result<Bytes, Broken> {
        self.begin(head, body.is_empty())?;
        let Some(stream) = &mut self.body else {
            return Ok(body);
        };
        stream.reserve_capacity(body.len());
        let room = stream.capacity();
        if room >= body.len() {
            stream
                .send_data(std::mem::take(&mut body), true)
                .map_err(|error| broken(&error))?;
            self.progress.take();
        }
        Ok(body)
    }

    fn begin(&mut self, head: ResponseHead, ends: bool) -> Result<(), Broken> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        let headers = response.headers_mut();
        clean(headers);
        if !headers.contains_key(DATE) {
            headers.insert(DATE, date());
        }
        let stream = self
            .respond
            .send_response(response, ends)
            .map_err(|error| broken(&error))?;
        self.body = (!ends).then_some(stream);
        Ok(())
    }

    /// Waits for room for some of `wanted` bytes.
    async fn room(&mut self, wanted: usize) -> Result<usize, Broken> {
        let stream = self.body.as_mut().ok_or(ENDED)?;
        stream.reserve_capacity(wanted);
        let before = self.progress.taken();
        let waited = timeout(self.write_stall, async {
            while stream.capacity() == 0 {
                match poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(broken(&error)),
                    None => return Err(ENDED),
                }
            }
            Ok(stream.capacity())
        });
        match waited.await {
            Ok(room) => {
                self.progress.take();
                room
            }
            Err(_) => {
                self.progress.waited(before);
                Err(Broken::Client("takes nothing of the response"))
            }
        }
    }
}

const ENDED: Broken = Broken::Client("has ended the stream");

impl Exchange for Stream {
    fn protocol(&self) -> Protocol {
        Protocol::Http2
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        if std::mem::take(&mut self.expects) && self.body.is_none() {
            let go_on = ResponseHead {
                status: StatusCode::CONTINUE,
                ..ResponseHead::default()
            };
            self.interim(go_on).await?;
        }
        match timeout(self.silence, self.request.data()).await {
            Err(_) => Err(Broken::Client("sends nothing of the request's body")),
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => Err(broken(&error)),
            Ok(Some(Ok(part))) => {
                // Read only as fast as it is passed on, so the window is what the client may be ahead.
                self.request
                    .flow_control()
                    .release_capacity(part.len())
                    .map_err(|error| broken(&error))?;
                Ok(Some(part))
            }
        }
    }

    fn is_read(&self) -> bool {
        self.request.is_end_stream()
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        let trailers = timeout(self.silence, self.request.trailers())
            .await
            .map_err(|_| Broken::Client("does not end the request"))?
            .map_err(|error| broken(&error))?;
        match trailers {
            Some(trailers) if are_too_many(&trailers) => {
                Err(Broken::Body("has trailers that are too large"))
            }
            Some(trailers) if !trailers.keys().all(is_legal) => {
                Err(Broken::Body("has a malformed trailer"))
            }
            trailers => Ok(trailers),
        }
    }

    async fn interim(&mut self, head: ResponseHead) -> Result<(), Broken> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        clean(response.headers_mut());
        self.respond
            .send_informational(response)
            .map_err(|error| broken(&error))
    }

    async fn start(&mut self, head: ResponseHead, ends: bool) -> Result<(), Broken> {
        self.begin(head, ends)
    }

    async fn send(&mut self, mut part: Bytes, ends: bool) -> Result<(), Broken> {
        while !part.is_empty() {
            let room = self.room(part.len()).await?.min(part.len());
            let now = part.split_to(room);
            let length = now.len() as u64;
            let last = ends && part.is_empty();
            let stream = self.body.as_mut().ok_or(ENDED)?;
            stream
                .send_data(now, last)
                .map_err(|error| broken(&error))?;
            self.sent += length;
            if last {
                return Ok(());
            }
        }
        if ends { self.end(None).await } else { Ok(()) }
    }

    async fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        let stream = self.body.as_mut().ok_or(ENDED)?;
        match trailers {
            None => stream.send_data(Bytes::new(), true),
            Some(mut trailers) => {
                clean(&mut trailers);
                stream.send_trailers(trailers)
            }
        }
        .map_err(|error| broken(&error))
    }

    async fn gone(&mut self) -> Broken {
        let reset = poll_fn(|cx| match &mut self.body {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        match reset.await {
            Ok(_) => Broken::Client("has reset the stream"),
            Err(error) => broken(&error),
        }
    }

    fn may_rest(&mut self, silence: Duration) {
        self.silence = silence;
    }

    fn taken(&self) -> Option<Taken> {
        let (head, body) = (self.body.is_some(), self.sent);
        head.then_some(Taken { head, body })
    }

    fn abort(&mut self) {
        match &mut self.body {
            Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

/// As the other protocols have it: h2 takes some names that are none.
fn is_legal(name: &HeaderName) -> bool {
    name.as_str().bytes().all(is_field_name)
}

/// More than the other protocols take. h2 itself takes as many as in a head, and drops the rest.
fn are_too_many(trailers: &HeaderMap) -> bool {
    let fields = trailers.iter();
    let bytes: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    trailers.len() > MAX_HEADERS || bytes > MAX_TRAILER_BYTES
}

/// Takes out what belongs to a connection of HTTP/1.
fn clean(headers: &mut HeaderMap) {
    for name in CONNECTION_FIELDS {
        headers.remove(name);
    }
}

fn broken(error: &h2::Error) -> Broken {
    if error.is_reset() && error.is_remote() {
        Broken::Client("has reset the stream")
    } else if error.is_io() {
        Broken::Client("is gone")
    } else if error.is_reset() {
        Broken::Body("is malformed")
    } else {
        Broken::Client("has ended the connection")
    }
}
