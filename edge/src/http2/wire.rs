//! The bytes of one HTTP/2 connection, between the socket and h2.
//!
//! Shared by h2, which reads and writes it as its stream, and by the connection's loop, which decides when
//! to send: the responses to all requests that came together leave together. What comes in is counted
//! ([`Frames`]), what h2 answers by itself is noted ([`Untaken`]), and after bytes that begin requests nothing more is read until the loop has taken those
//! requests ([`Wire::resume`]), so that a client cannot make h2 hold many at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::{Budget, Event, Frames};
use super::untaken::{Refused, Untaken};
use crate::limits::GATHER_BYTES;

/// One connection's bytes; clones are the same connection.
#[derive(Debug)]
pub(super) struct Wire<I>(Arc<Mutex<State<I>>>);

#[derive(Debug)]
struct State<I> {
    io: I,
    /// Read before this was made.
    ahead: BytesMut,
    /// Written by h2, not sent yet.
    outbound: BytesMut,
    frames: Frames,
    untaken: Untaken,
    budget: Budget,
    /// Sent bytes that have not been counted for the budget.
    uncounted: u64,
    flooded: bool,
    /// Requests have been read and not been taken.
    paused: bool,
    /// The unfinished head, and when it was first seen.
    head: Option<(u64, Instant)>,
    /// Since when the client takes nothing.
    stalled: Option<Instant>,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// More frames came that carry nothing than a client may send.
    pub(super) flooded: bool,
    /// Since when a request's head is unfinished.
    pub(super) head: Option<Instant>,
    /// Since when the client takes nothing.
    pub(super) stalled: Option<Instant>,
}

impl Waits {
    /// Whether the client takes nothing.
    pub(super) const fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }
}

impl<I> Wire<I>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    /// Of `io`, from which `ahead` has been read already.
    pub(super) fn new(io: I, ahead: BytesMut) -> Self {
        Self(Arc::new(Mutex::new(State {
            io,
            ahead,
            outbound: BytesMut::new(),
            frames: Frames::new(),
            untaken: Untaken::default(),
            budget: Budget::new(Instant::now().into_std()),
            uncounted: 0,
            flooded: false,
            paused: false,
            head: None,
            stalled: None,
        })))
    }

    /// The same connection once more.
    pub(super) fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Allows reading again. False when it was never forbidden, so that there is nothing new to be read.
    pub(super) fn resume(&self) -> bool {
        let mut state = self.state();
        std::mem::take(&mut state.paused) && !state.flooded
    }

    /// The loop has taken the request of this stream.
    pub(super) fn taken(&self, stream: u32) {
        self.state().untaken.strike(stream);
    }

    /// The requests that h2 has refused since this was asked last.
    pub(super) fn refused(&self) -> Vec<Refused> {
        self.state().untaken.refused()
    }

    /// How many requests nobody has answered, nor will: each is told of once.
    pub(super) fn unanswered(&self) -> usize {
        self.state().untaken.drain()
    }

    /// Sends what has been written.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state().poll_send_all(cx)
    }

    /// What it waits for.
    pub(super) fn waits(&self) -> Waits {
        let state = self.state();
        Waits {
            flooded: state.flooded,
            head: state.head.map(|(_, since)| since),
            stalled: state.stalled,
        }
    }

    /// Reads and drops what still comes, at most `left` bytes.
    pub(super) async fn drop_rest(&self, mut left: usize) {
        let mut part = vec![0; 16 * 1024];
        while left > 0 {
            let mut buffer = ReadBuf::new(&mut part);
            let read = std::future::poll_fn(|cx| {
                Pin::new(&mut self.state().io).poll_read(cx, &mut buffer)
            });
            match read.await {
                Ok(()) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len());
                }
                Ok(()) | Err(_) => return,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<I>> {
        // One task holds all clones, and nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> State<I>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flooded || self.paused {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        } else {
            let taken = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..taken]);
            self.ahead.advance(taken);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
        }
        self.count(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, bytes: &[u8]) {
        let Self {
            frames, untaken, ..
        } = self;
        let seen = frames.look(bytes, |event| match event {
            Event::Head(stream) => untaken.begin(stream),
            Event::Reset(stream) => drop(untaken.strike(stream)),
        });
        self.paused = seen.heads > 0;
        if seen.control > 0 && !self.budget.spend(seen.control, Instant::now().into_std()) {
            self.flooded = true;
        }
        self.head = self.frames.unfinished_head().map(|number| match self.head {
            Some((same, since)) if same == number => (number, since),
            _ => (number, Instant::now()),
        });
    }

    /// Sends once: what was written before, then `more`.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        let sent = if more.is_empty() {
            io.poll_write(cx, &self.outbound)
        } else if self.outbound.is_empty() {
            io.poll_write(cx, more)
        } else {
            io.poll_write_vectored(cx, &[IoSlice::new(&self.outbound), IoSlice::new(more)])
        };
        match sent {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(sent)) => {
                self.stalled = None;
                self.uncounted = self.budget.earn(self.uncounted + sent as u64);
                Poll::Ready(Ok(sent))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.stalled.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbound.is_empty() {
            let sent = ready!(self.poll_send(cx, &[]))?;
            self.outbound.advance(sent);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<I> AsyncRead for Wire<I>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.state().poll_read(cx, buffer)
    }
}

impl<I> AsyncWrite for Wire<I>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        loop {
            if state.outbound.len() + bytes.len() <= GATHER_BYTES {
                state.outbound.extend_from_slice(bytes);
                state.untaken.look(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            let sent = ready!(state.poll_send(cx, bytes))?;
            let gathered = state.outbound.len();
            state.outbound.advance(sent.min(gathered));
            if sent > gathered {
                state.untaken.look(&bytes[..sent - gathered]);
                return Poll::Ready(Ok(sent - gathered));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // h2 asks for this after each frame; the loop sends when it has no more to do.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        ready!(state.poll_send_all(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}
