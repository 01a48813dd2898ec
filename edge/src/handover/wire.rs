//! What the two processes say to each other: frames of a length and a text, sockets beside the first.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::{HandoverError, MAX_SOCKETS, Purpose};

/// Largest frame: a QUIC packet and where it came from, or the names of all sockets.
const MAX_FRAME_BYTES: usize = 128 * 1024;

/// How long the other process may take for what it only has to say.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a successor may take to read its state and to serve.
pub(super) const SERVE_LIMIT: Duration = Duration::from_secs(60);

/// One step of a handover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// The successor wants the sockets.
    Take {
        /// Of these words; both must speak the same.
        version: u32,
    },
    /// The predecessor follows no records any more; its sockets come with this.
    Sockets {
        /// In the order of the sockets.
        purposes: Vec<Purpose>,
        /// Names the predecessor in the ids of its QUIC connections.
        process: u16,
    },
    /// The successor serves.
    Serving,
    /// The predecessor drains from here on.
    Draining,
    /// A QUIC packet that is the predecessor's.
    Packet {
        /// Where it came from.
        from: std::net::SocketAddr,
        /// Where it was sent to, if known.
        to: Option<std::net::IpAddr>,
        /// The core that has to read it.
        core: u8,
        /// The datagram.
        packet: Vec<u8>,
    },
}

/// The version of [`Word`] that this build speaks.
pub(super) const VERSION: u32 = 1;

/// Sends one word.
pub(super) fn say(stream: &mut UnixStream, word: &Word) -> Result<(), HandoverError> {
    Ok(stream.write_all(&frame(word)?)?)
}

/// Sends one word with sockets beside its first byte.
pub(super) fn say_with(
    stream: &mut UnixStream,
    word: &Word,
    sockets: &[BorrowedFd<'_>],
) -> Result<(), HandoverError> {
    let frame = frame(word)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    }
    let sent = sendmsg(
        stream.as_fd(),
        &[IoSlice::new(&frame)],
        &mut beside,
        SendFlags::NOSIGNAL,
    )
    .map_err(io::Error::from)?;
    Ok(stream.write_all(&frame[sent..])?)
}

fn frame(word: &Word) -> Result<Vec<u8>, HandoverError> {
    let body =
        postcard::to_allocvec(word).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let length =
        u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok([length.to_be_bytes().as_slice(), &body].concat())
}

/// Hears one word.
pub(super) fn hear(stream: &mut UnixStream, limit: Duration) -> Result<Word, HandoverError> {
    stream.set_read_timeout(Some(limit))?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    body(stream, head)
}

/// Hears one word and takes the sockets beside it.
pub(super) fn hear_with(
    stream: &mut UnixStream,
    limit: Duration,
) -> Result<(Word, Vec<OwnedFd>), HandoverError> {
    stream.set_read_timeout(Some(limit))?;
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut head)],
        &mut beside,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(io::Error::from)?;
    let mut sockets = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(these) = message {
            sockets.extend(these);
        }
    }
    stream.read_exact(&mut head[received.bytes..])?;
    Ok((body(stream, head)?, sockets))
}

fn body(stream: &mut UnixStream, head: [u8; 4]) -> Result<Word, HandoverError> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    let unexpected = |said: &[u8]| HandoverError::Unexpected {
        said: String::from_utf8_lossy(&said[..said.len().min(100)]).into_owned(),
        expected: "a word of this version",
    };
    if length > MAX_FRAME_BYTES {
        return Err(unexpected(&head));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    postcard::from_bytes(&body).map_err(|_| unexpected(&body))
}

/// An error that names what came instead.
pub(super) fn unexpected(word: &Word, expected: &'static str) -> HandoverError {
    HandoverError::Unexpected {
        said: format!("{word:?}").chars().take(100).collect(),
        expected,
    }
}
