//! One connection: the only reader and the only writer of its socket.
//!
//! What arrives is kept here until it is taken message by message, so whoever reads and writes this as a
//! stream ([`Gate`]) sees one message and never a byte of the next. Small writes are gathered into one
//! segment. While nothing is on its way it holds no buffers. It does not know what a request means.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use helix_framing::{Framing, Gate, HeadScan, Refusal, Scan, Span};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::pace::Pace;
use crate::buffer::Buffer;
use crate::http2::Client;
use crate::limits::{
    GATHER_BYTES, LINGER, LINGER_BYTES, MAX_AHEAD_BYTES, MIN_SEND_BYTES, READ_BYTES,
};
use crate::socket::Socket;
use crate::tls::Secured;

/// A connection, as this edge and pingora read and write it.
pub(super) struct EdgeIo {
    socket: Socket,
    peer: SocketAddr,
    /// What the handshake settled, when the client came over TLS.
    secured: Option<Secured>,
    /// The last host that was found to be covered by what was settled.
    covered: Box<str>,
    /// Read from the socket, not taken yet.
    pub(super) inbound: Buffer,
    scan: HeadScan,
    /// Whether an empty line in front of the next head has been forgiven.
    forgiven: bool,
    gate: Gate,
    /// Written, not sent yet.
    pub(super) outbound: Buffer,
    /// Bytes sent so far.
    sent: u64,
    /// How the client takes what it is sent.
    pace: Pace,
    write_stall: Duration,
}

impl EdgeIo {
    pub(super) fn new(
        socket: Socket,
        peer: SocketAddr,
        secured: Option<Secured>,
        write_stall: Duration,
    ) -> Self {
        Self {
            socket,
            peer,
            secured,
            covered: Box::default(),
            inbound: Buffer::default(),
            scan: HeadScan::default(),
            forgiven: false,
            gate: Gate::closed(),
            outbound: Buffer::default(),
            sent: 0,
            pace: Pace::default(),
            write_stall,
        }
    }

    /// Whether the client came over TLS.
    pub(super) const fn secure(&self) -> bool {
        self.socket.secure()
    }

    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Bytes sent since the start.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the message let through last was read to its end.
    pub(super) const fn is_between_messages(&self) -> bool {
        self.gate.is_done()
    }

    /// Where the next head ends, as far as it is here. With `skip`, that many bytes belong to heads before it.
    pub(super) fn head(&mut self, skip: usize) -> Result<Scan, Refusal> {
        loop {
            match self.scan.look(&self.inbound[skip..])? {
                // Old clients send one empty line too many after a body (RFC 9112 2.2).
                Scan::Complete(2) if !self.forgiven && skip == 0 => {
                    self.forgiven = true;
                    self.inbound.advance(2);
                    self.scan = HeadScan::default();
                }
                Scan::Complete(length) => {
                    self.forgiven = false;
                    self.scan = HeadScan::default();
                    return Ok(Scan::Complete(length));
                }
                Scan::More => {
                    if skip > 0 {
                        // Its place moves when the heads before it have been taken.
                        self.scan = HeadScan::default();
                    }
                    return Ok(Scan::More);
                }
            }
        }
    }

    /// Whether the name this connection was secured for may answer for `host`.
    pub(super) fn covers(&mut self, host: Span, head: std::ops::Range<usize>) -> bool {
        let Some(secured) = &self.secured else {
            return true;
        };
        let host = host.text(self.inbound.get(head).unwrap_or_default());
        if *self.covered == *host {
            return true;
        }
        let covers = secured.covers(host);
        if covers {
            self.covered = host.into();
        }
        covers
    }

    /// What HTTP/2 goes on with: the socket, what has been read of it already, and who is on the other side.
    pub(super) fn into_http2(self) -> (Socket, BytesMut, Client) {
        let client = Client {
            peer: self.peer,
            secured: self.secured,
        };
        (self.socket, BytesMut::from(&*self.inbound), client)
    }

    /// Lets a reader of this stream read one message: `head` bytes, and a body framed like this.
    pub(super) fn admit(&mut self, head: usize, body: Framing) {
        self.gate = Gate::message(head, body);
    }

    /// Gives back what is empty.
    pub(super) fn release(&mut self) {
        self.inbound.release();
        self.outbound.release();
    }

    /// Sends a last response. Whether all of it has left.
    pub(super) async fn refuse(&mut self, response: &[u8]) -> bool {
        self.write_all(response).await.is_ok() && self.flush().await.is_ok()
    }

    /// Ends our side, so that the client can still read what it was sent, then reads and drops what is still coming, for a while.
    pub(super) async fn close(&mut self) {
        if AsyncWriteExt::shutdown(self).await.is_err() {
            return;
        }
        self.outbound.release();
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

    /// Makes sure that the client does not take what it has for the whole: the connection ends with a reset.
    pub(super) fn reset(&mut self) {
        self.outbound.clear();
        self.socket.reset();
    }

    /// Reads once. False when the client is gone.
    pub(super) async fn fill(&mut self) -> bool {
        poll_fn(|cx| self.poll_fill(cx))
            .await
            .is_ok_and(|read| read > 0)
    }

    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Read beside the buffer, so that nothing is held while nothing comes.
        let mut part = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut part = ReadBuf::uninit(&mut part);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part))?;
        if !part.filled().is_empty() {
            self.inbound.extend(part.filled());
        }
        Poll::Ready(Ok(part.filled().len()))
    }

    /// Sends once, and gives up when the client takes too little.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        let polled = if more.is_empty() {
            // The kernel has less to do for one slice than for a list of one.
            socket.poll_write(cx, &self.outbound)
        } else {
            let slices = [IoSlice::new(&self.outbound), IoSlice::new(more)];
            socket.poll_write_vectored(cx, &slices)
        };
        let sent = match polled {
            Poll::Ready(sent) => sent?,
            Poll::Pending => return self.poll_stalled(cx),
        };
        self.pace.moved(sent);
        self.sent += sent as u64;
        match sent {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            sent => Poll::Ready(Ok(sent)),
        }
    }

    /// Ready with an error once the client has had its time.
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(
            self.pace
                .poll_too_slow(cx, self.write_stall, MIN_SEND_BYTES)
        );
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
        inbound.release();
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
                self.outbound.extend(bytes);
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
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Pending => self.poll_stalled(cx),
            Poll::Ready(flushed) => {
                self.pace.rest();
                Poll::Ready(flushed)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        match Pin::new(&mut self.socket).poll_shutdown(cx) {
            Poll::Pending => self.poll_stalled(cx),
            shut => shut,
        }
    }
}

#[async_trait]
impl Shutdown for EdgeIo {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl Ssl for EdgeIo {
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
        let digest = SocketDigest::from_raw_fd(self.socket.as_raw_fd());
        // Known already: saves pingora a system call.
        let _ = digest.peer_addr.set(Some(self.peer.into()));
        Some(Arc::new(digest))
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
