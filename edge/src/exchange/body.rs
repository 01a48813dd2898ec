//! The body of a response that this edge has itself, part by part.

use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncReadExt, Take};

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
