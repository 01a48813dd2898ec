//! A response's body as it arrives: which bytes are its, and where it ends.

use bytes::{Buf as _, Bytes};
use helix_framing::{ChunkError, ChunkPart, Chunks, ReplyBody, trailers};
use http::HeaderMap;

/// What is left of it.
#[derive(Debug)]
pub(super) enum Incoming {
    Length(u64),
    Chunked {
        chunks: Chunks,
        /// Found while looking for what follows the part before.
        next: Option<Bytes>,
        trailers: Vec<u8>,
    },
    UntilClose,
    Done,
}

impl Incoming {
    pub(super) fn new(body: ReplyBody) -> Self {
        match body {
            ReplyBody::None => Self::Done,
            ReplyBody::Length(length) => Self::Length(length),
            ReplyBody::Chunked => Self::Chunked {
                chunks: Chunks::new(),
                next: None,
                trailers: Vec::new(),
            },
            ReplyBody::UntilClose => Self::UntilClose,
        }
    }

    /// The next part in what has arrived, which is taken from it; none if more has to arrive or nothing is left.
    ///
    /// # Errors
    /// When the bytes are not what the head announced.
    pub(super) fn part(&mut self, arrived: &mut Bytes) -> Result<Option<Bytes>, ChunkError> {
        match self {
            Self::Done => Ok(None),
            _ if arrived.is_empty() && !self.has_next() => Ok(None),
            Self::UntilClose => Ok(Some(std::mem::take(arrived))),
            Self::Length(left) => {
                let most = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(arrived.len());
                *left -= most as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Some(arrived.split_to(most)))
            }
            Self::Chunked { next, .. } => {
                let found = match next.take() {
                    Some(part) => Some(part),
                    None => self.chunk(arrived)?,
                };
                // Whether the body ends here is known with the part, so that both leave together.
                if found.is_some() {
                    let after = self.chunk(arrived)?;
                    if let Self::Chunked { next, .. } = self {
                        *next = after;
                    }
                }
                Ok(found)
            }
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Chunked { chunks, next, .. } => chunks.is_done() && next.is_none(),
            Self::Length(_) | Self::UntilClose => false,
        }
    }

    /// What stood behind it, once it is done.
    pub(super) fn trailers(&self) -> Option<HeaderMap> {
        match self {
            Self::Chunked {
                trailers: section, ..
            } => trailers(section),
            Self::Length(_) | Self::UntilClose | Self::Done => None,
        }
    }

    const fn has_next(&self) -> bool {
        matches!(self, Self::Chunked { next: Some(_), .. })
    }

    fn chunk(&mut self, arrived: &mut Bytes) -> Result<Option<Bytes>, ChunkError> {
        let Self::Chunked {
            chunks, trailers, ..
        } = self
        else {
            return Ok(None);
        };
        while !arrived.is_empty() && !chunks.is_done() {
            match chunks.part(arrived)? {
                ChunkPart::Framing(count) => arrived.advance(count),
                ChunkPart::Trailer(count) => trailers.extend_from_slice(&arrived.split_to(count)),
                ChunkPart::Data(count) => return Ok(Some(arrived.split_to(count))),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The body in parts as they are cut, what follows it, and whether it is done.
    fn read(
        body: ReplyBody,
        bytes: &[u8],
        cuts: &[usize],
    ) -> Result<(Vec<u8>, Vec<u8>, bool), ChunkError> {
        let mut incoming = Incoming::new(body);
        let mut cuts: Vec<_> = cuts
            .iter()
            .map(|cut| (*cut).min(bytes.len()))
            .chain([0, bytes.len()])
            .collect();
        cuts.sort_unstable();
        let (mut whole, mut rest) = (Vec::new(), Vec::new());
        for pair in cuts.windows(2) {
            let mut arrived = Bytes::copy_from_slice(&bytes[pair[0]..pair[1]]);
            while let Some(part) = incoming.part(&mut arrived)? {
                assert!(!part.is_empty());
                whole.extend_from_slice(&part);
            }
            rest.extend_from_slice(&arrived);
        }
        Ok((whole, rest, incoming.is_done()))
    }

    #[test]
    fn a_body_has_its_own_bytes_and_no_others() {
        let read = |body, bytes: &[u8]| read(body, bytes, &[]).unwrap();
        assert_eq!(
            read(ReplyBody::Length(3), b"abcd"),
            (b"abc".into(), b"d".into(), true)
        );
        assert_eq!(
            read(ReplyBody::Length(3), b"ab"),
            (b"ab".into(), vec![], false)
        );
        assert_eq!(read(ReplyBody::None, b"ab"), (vec![], b"ab".into(), true));
        assert_eq!(
            read(ReplyBody::UntilClose, b"ab"),
            (b"ab".into(), vec![], false)
        );
        let chunked = b"1\r\na\r\n2\r\nbc\r\n0\r\nX-Sum: 1\r\n\r\nmore";
        assert_eq!(
            read(ReplyBody::Chunked, chunked),
            (b"abc".into(), b"more".into(), true)
        );
    }

    #[test]
    fn the_last_part_is_known_to_be_the_last() {
        let mut incoming = Incoming::new(ReplyBody::Chunked);
        let mut arrived = Bytes::from_static(b"1\r\na\r\n1\r\nb\r\n0\r\nX-Sum: 1\r\n\r\n");
        assert_eq!(
            incoming.part(&mut arrived),
            Ok(Some(Bytes::from_static(b"a")))
        );
        assert!(!incoming.is_done());
        assert_eq!(
            incoming.part(&mut arrived),
            Ok(Some(Bytes::from_static(b"b")))
        );
        assert!(incoming.is_done());
        assert_eq!(incoming.trailers().unwrap()["x-sum"], "1");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_is_the_same(
            bytes in proptest::collection::vec(proptest::sample::select(b"0123a;:\r\n\r\n\r\nx".to_vec()), 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..8),
        ) {
            prop_assert_eq!(read(ReplyBody::Chunked, &bytes, &cuts), read(ReplyBody::Chunked, &bytes, &[]));
        }
    }
}
