//! The body of a response that this edge has itself, part by part.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use tokio::io::{AsyncReadExt, AsyncSeekExt, Take};

use crate::limits::DISK_READ_BYTES;

/// A body that is ready to be sent, or how long it would be.
#[derive(Debug)]
pub enum Body {
    /// The status allows none.
    None,
    /// Only its length is told: the answer to HEAD.
    Length(u64),
    /// In memory.
    Bytes(Bytes),
    /// On disk, from here on for this many bytes.
    Disk(Take<tokio::fs::File>),
    /// Several parts, in order.
    Pieces(Pieces),
}

/// Parts of a body that is put together of several.
#[derive(Debug)]
pub struct Pieces {
    /// What is left, in order.
    pub left: VecDeque<Piece>,
    /// Where those that lie on disk are.
    pub file: Option<tokio::fs::File>,
}

/// One part of a body.
#[derive(Debug)]
pub enum Piece {
    /// In memory.
    Bytes(Bytes),
    /// These bytes of the file.
    Disk(Range<u64>),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Disk(range) => range.end - range.start,
        }
    }
}

impl Pieces {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let range = match self.left.pop_front() {
            None => return Ok(None),
            Some(Piece::Bytes(bytes)) => return Ok(Some(bytes)),
            Some(Piece::Disk(range)) => range,
        };
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.seek(io::SeekFrom::Start(range.start)).await?;
        let most = (range.end - range.start).min(DISK_READ_BYTES as u64);
        let mut part = BytesMut::with_capacity(DISK_READ_BYTES);
        match file.take(most).read_buf(&mut part).await? as u64 {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                let rest = range.start + read..range.end;
                if !rest.is_empty() {
                    self.left.push_front(Piece::Disk(rest));
                }
                Ok(Some(part.freeze()))
            }
        }
    }
}

impl Body {
    /// Its length in bytes, where it has one.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Length(length) => Some(*length),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Disk(file) => Some(file.limit()),
            Self::Pieces(pieces) => Some(pieces.left.iter().map(Piece::length).sum()),
        }
    }

    /// Without its bytes.
    #[must_use]
    pub fn length_only(self) -> Self {
        self.length().map_or(Self::None, Self::Length)
    }

    /// Whether nothing is left to be sent.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        match self {
            Self::None | Self::Length(_) => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Disk(file) => file.limit() == 0,
            Self::Pieces(pieces) => pieces.left.is_empty(),
        }
    }

    /// The next part; none at the end.
    ///
    /// # Errors
    /// When the disk fails, or holds less than it should.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::None | Self::Length(_) => Ok(None),
            Self::Bytes(bytes) if bytes.is_empty() => Ok(None),
            Self::Bytes(bytes) => Ok(Some(std::mem::take(bytes))),
            Self::Pieces(pieces) => pieces.next().await,
            Self::Disk(file) if file.limit() == 0 => Ok(None),
            Self::Disk(file) => {
                let mut part = BytesMut::with_capacity(DISK_READ_BYTES);
                match file.read_buf(&mut part).await? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(Some(part.freeze())),
                }
            }
        }
    }
}
