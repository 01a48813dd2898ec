//! One connection: the only reader and the only writer of its socket.
//!
//! What arrives is kept here until the [`Gate`] lets it through, so pingora, which reads and writes this
//! as its stream, sees one message and never a byte of the next. Small writes are gathered into one
//! segment. It does not know what a request means.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use super::socket::Socket;
use crate::gate::Gate;
use crate::http1::{Framing, HeadScan, Preface, Refusal, Scan, parse, preface};
use crate::http2::Client;
use crate::limits::{GATHER_BYTES, LINGER, LINGER_BYTES, MAX_AHEAD_BYTES, READ_BYTES};
use crate::tls::Secured;

/// What a connection brings next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// One HTTP/1 message, which the gate now lets through.
    Message,
    /// HTTP/2, from here to the end.
    Http2,
    /// A head that is refused.
    Refused(Refusal),
    /// Nothing: the client is gone.
    Gone,
}

/// A connection, as this edge and pingora read and write it.
pub(super) struct EdgeIo {
    socket: Socket,
    peer: SocketAddr,
    /// What the handshake settled, when the client came over TLS.
    secured: Option<Secured>,
    /// Read from the socket, not let through yet.
    inbound: BytesMut,
    gate: Gate,
    /// Written, not sent yet.
    outbound: BytesMut,
    /// Runs while the client takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    write_stall: Duration,
    http2: bool,
    digest: Arc<SocketDigest>,
}

impl EdgeIo {
    pub(super) fn new(
        socket: Socket,
        peer: SocketAddr,
        secured: Option<Secured>,
        write_stall: Duration,
    ) -> Self {
        let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        // Known already: saves pingora a system call.
        let _ = digest.peer_addr.set(Some(peer.into()));
        Self {
            socket,
            peer,
            secured,
            inbound: BytesMut::new(),
            gate: Gate::closed(),
            outbound: BytesMut::new(),
            stall: None,
            write_stall,
            http2: false,
            digest: Arc::new(digest),
        }
    }

    /// Whether the client came over TLS.
    pub(super) const fn secure(&self) -> bool {
        self.socket.secure()
    }

    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the message let through last was read to its end.
    pub(super) const fn is_between_messages(&self) -> bool {
        self.gate.is_done()
    }

    /// Whether nothing of a next message has arrived.
    pub(super) fn is_idle(&self) -> bool {
        self.inbound.is_empty()
    }

    /// Waits for the first byte of a message, holding no buffers meanwhile. False when the client is gone.
    pub(super) async fn wait(&mut self) -> bool {
        self.inbound = BytesMut::new();
        self.outbound = BytesMut::new();
        self.fill().await
    }

    /// Reads the next head. `first` when nothing has been read from this connection before.
    pub(super) async fn next(&mut self, first: bool) -> Next {
        if first {
            loop {
                match preface(&self.inbound) {
                    Preface::Yes => return self.become_http2(),
                    Preface::No => break,
                    Preface::Undecided if self.fill().await => {}
                    Preface::Undecided => return Next::Gone,
                }
            }
        }
        match self.head().await {
            Ok(Some((length, framing))) => {
                self.gate = Gate::message(length, framing);
                Next::Message
            }
            Ok(None) => Next::Gone,
            Err(refusal) => Next::Refused(refusal),
        }
    }

    /// Length and framing of the next head; none when the client left before its end.
    async fn head(&mut self) -> Result<Option<(usize, Framing)>, Refusal> {
        let mut scan = HeadScan::default();
        let mut blank_line_allowed = true;
        loop {
            match scan.look(&self.inbound)? {
                // Old clients send one empty line too many after a body (RFC 9112 2.2).
                Scan::Complete(length) if length == 2 && blank_line_allowed => {
                    blank_line_allowed = false;
                    self.inbound.advance(length);
                    scan = HeadScan::default();
                }
                Scan::Complete(length) => {
                    let bytes = &self.inbound[..length];
                    let head = parse(bytes)?;
                    let host = head.host.text(bytes);
                    if self
                        .secured
                        .as_ref()
                        .is_some_and(|secured| !secured.covers(host))
                    {
                        return Err(Refusal::Misdirected);
                    }
                    return Ok(Some((length, head.framing)));
                }
                Scan::More if self.fill().await => {}
                Scan::More => return Ok(None),
            }
        }
    }

    /// What HTTP/2 goes on with: the socket, what has been read of it already, and who is on the other side.
    pub(super) fn into_http2(self) -> (Socket, BytesMut, Client) {
        let client = Client {
            peer: self.peer,
            secured: self.secured,
        };
        (self.socket, self.inbound, client)
    }

    const fn become_http2(&mut self) -> Next {
        self.http2 = true;
        self.gate = Gate::open();
        Next::Http2
    }

    /// Sends a last response and closes so that the client can still read it.
    pub(super) async fn refuse(&mut self, response: &[u8]) {
        if self.write_all(response).await.is_ok() {
            self.close().await;
        }
    }

    /// Ends our side, then reads and drops what is still coming, for a while.
    async fn close(&mut self) {
        if AsyncWriteExt::shutdown(self).await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES;
        let drop_rest = async {
            loop {
                self.inbound.clear();
                if !self.fill().await || self.inbound.len() > left {
                    break;
                }
                left -= self.inbound.len();
            }
        };
        // Running out of time is the client's loss, and no error.
        let _ = timeout(LINGER, drop_rest).await;
    }

    /// Reads once. False when the client is gone.
    async fn fill(&mut self) -> bool {
        std::future::poll_fn(|cx| self.poll_fill(cx))
            .await
            .is_ok_and(|read| read > 0)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Read beside the buffer, so that nothing is held while nothing comes.
        let mut part = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut part = ReadBuf::uninit(&mut part);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part))?;
        self.inbound.extend_from_slice(part.filled());
        Poll::Ready(Ok(part.filled().len()))
    }

    /// Sends once, and gives up when the client has taken nothing for too long.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(&self.outbound), IoSlice::new(more)];
        let sent = Pin::new(&mut self.socket).poll_write_vectored(cx, &slices);
        match ready!(self.poll_stalled(cx, sent))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            sent => Poll::Ready(Ok(sent)),
        }
    }

    /// What was polled, or the end of the client's time to take something.
    fn poll_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall = None;
            return polled;
        }
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(sleep(self.write_stall)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for EdgeIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gate.is_done() {
            // The reader only wants to know whether the client is still there. What it sent ahead stays here.
            while self.inbound.len() < MAX_AHEAD_BYTES {
                if ready!(self.poll_fill(cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
            return Poll::Pending;
        }
        if self.inbound.is_empty() && ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let Self { inbound, gate, .. } = &mut *self;
        let wanted = inbound.len().min(buffer.remaining());
        let admitted = gate
            .admit(&inbound[..wanted])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        buffer.put_slice(&inbound[..admitted]);
        inbound.advance(admitted);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for EdgeIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.outbound.len() + bytes.len() <= GATHER_BYTES {
                self.outbound.extend_from_slice(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            let sent = ready!(self.poll_send(cx, bytes))?;
            let gathered = self.outbound.len();
            self.outbound.advance(sent.min(gathered));
            if sent > gathered {
                return Poll::Ready(Ok(sent - gathered));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbound.is_empty() {
            let sent = ready!(self.poll_send(cx, &[]))?;
            self.outbound.advance(sent);
        }
        // TLS keeps records of its own.
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.poll_stalled(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for EdgeIo {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl Ssl for EdgeIo {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http2.then_some(ALPN::H2)
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        let none = || SslDigest::new("", "", None, None, Vec::new());
        self.secure().then(|| Arc::new(none()))
    }
}

impl UniqueID for EdgeIo {
    fn id(&self) -> UniqueIDType {
        self.socket.as_raw_fd()
    }
}

impl GetTimingDigest for EdgeIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EdgeIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for EdgeIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl Peek for EdgeIo {}

impl fmt::Debug for EdgeIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the bytes: they are a client's.
        f.debug_struct("EdgeIo")
            .field("peer", &self.peer)
            .field("inbound", &self.inbound.len())
            .field("outbound", &self.outbound.len())
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
