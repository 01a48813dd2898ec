//! A request's body on its way to an upstream, and what of it can be sent a second time.

use bytes::Bytes;
use helix_framing::{chunk_size, field};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;

use crate::buffer::Buffer;
use crate::exchange::{Broken, Exchange, Request};
use crate::limits::RETRY_BYTES;

/// Its size in sixteen digits, and two line ends.
const MOST_AROUND_A_CHUNK: usize = 20;

/// How it is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framed {
    None,
    Length(u64),
    Chunked,
}

/// Outlives the tries of its request.
#[derive(Debug)]
pub(crate) struct Upload {
    framed: Framed,
    /// Bytes that a length still promises.
    left: u64,
    /// The part that a length promised last. It goes when nothing has come behind it: else the server would take for a
    /// whole request what is none (RFC 9113 8.1.1).
    last: Option<Bytes>,
    /// Whether doing it twice is doing it once (RFC 9110 9.2.2).
    idempotent: bool,
    /// What was read of it, as long as it is all of it.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    ended: bool,
    trailers: Option<HeaderMap>,
}

impl Upload {
    /// Nothing of it has been read yet.
    pub(crate) fn new<E: Exchange>(request: &Request, exchange: &E) -> Self {
        let framed = framed(request, exchange.is_read());
        let idempotent = request.head.method.is_idempotent();
        Self {
            framed,
            left: if let Framed::Length(length) = framed {
                length
            } else {
                0
            },
            last: None,
            idempotent,
            kept: Some(Vec::new()),
            kept_bytes: 0,
            ended: framed == Framed::None,
            trailers: None,
        }
    }

    /// Waits for the end of a body that is to have no bytes: its head alone would be a whole request.
    ///
    /// # Errors
    /// When there are some.
    pub(crate) async fn settle<E: Exchange>(&mut self, exchange: &mut E) -> Result<(), Broken> {
        while self.framed == Framed::Length(0) && !self.ended {
            match exchange.read().await? {
                None => self.ended = true,
                Some(part) if part.is_empty() => {}
                Some(_) => return Err(Broken::Body("is longer than announced")),
            }
        }
        Ok(())
    }

    pub(super) const fn framed(&self) -> Framed {
        self.framed
    }

    /// Whether all of it has been read.
    pub(super) const fn is_read(&self) -> bool {
        self.ended
    }

    /// Whether it can be sent again, `unseen` by the server that was sent it before or not.
    pub(crate) const fn repeats(&self, unseen: bool) -> bool {
        self.kept.is_some() && (self.idempotent || unseen)
    }

    /// Writes again what has been read already.
    pub(super) fn again(&self, out: &mut Buffer) {
        for part in self.kept.iter().flatten() {
            self.write(out, part);
        }
        if self.ended {
            self.finish(out);
        }
    }

    /// Takes what the client sends next.
    ///
    /// # Errors
    /// When it is not as long as announced.
    pub(super) fn take(&mut self, part: Bytes, out: &mut Buffer) -> Result<(), Broken> {
        if let Framed::Length(_) = self.framed {
            let left = self.left.checked_sub(part.len() as u64);
            self.left = left.ok_or(Broken::Body("is longer than announced"))?;
            if self.left == 0 && !part.is_empty() {
                self.last = Some(part);
                return Ok(());
            }
        }
        self.write(out, &part);
        self.keep(part);
        Ok(())
    }

    /// The client has sent all of it.
    ///
    /// # Errors
    /// When it is not as long as announced.
    pub(super) fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        out: &mut Buffer,
    ) -> Result<(), Broken> {
        if self.left > 0 {
            return Err(Broken::Body("is shorter than announced"));
        }
        if let Some(part) = self.last.take() {
            self.write(out, &part);
            self.keep(part);
        }
        self.ended = true;
        self.trailers = trailers;
        self.finish(out);
        Ok(())
    }

    fn keep(&mut self, part: Bytes) {
        self.kept_bytes += part.len();
        if self.kept_bytes > RETRY_BYTES || !self.idempotent {
            self.kept = None;
        } else if let Some(kept) = &mut self.kept {
            kept.push(part);
        }
    }

    fn write(&self, out: &mut Buffer, part: &[u8]) {
        if self.framed == Framed::Chunked && !part.is_empty() {
            let room = out.room(part.len() + MOST_AROUND_A_CHUNK);
            chunk_size(room, part.len());
            room.extend_from_slice(part);
            room.extend_from_slice(b"\r\n");
        } else {
            out.extend(part);
        }
    }

    fn finish(&self, out: &mut Buffer) {
        if self.framed == Framed::Chunked {
            let mut last = b"0\r\n".to_vec();
            for (name, value) in self.trailers.iter().flatten() {
                field(&mut last, name.as_str().as_bytes(), value.as_bytes());
            }
            last.extend_from_slice(b"\r\n");
            out.extend(&last);
        }
    }
}

/// A length that the client announced is passed on; its protocol has checked it, and so is what comes of it.
fn framed(request: &Request, is_read: bool) -> Framed {
    if is_read {
        return Framed::None;
    }
    let length = request.head.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.map_or(Framed::Chunked, Framed::Length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn upload(method: Method, framed: Framed) -> Upload {
        Upload {
            framed,
            left: if let Framed::Length(length) = framed {
                length
            } else {
                0
            },
            last: None,
            idempotent: method.is_idempotent(),
            kept: Some(Vec::new()),
            kept_bytes: 0,
            ended: false,
            trailers: None,
        }
    }

    #[test]
    fn what_is_sent_again_is_what_was_sent() {
        for framed in [Framed::Length(7), Framed::Chunked] {
            let mut upload = upload(Method::PUT, framed);
            let (mut first, mut second) = (Buffer::default(), Buffer::default());
            upload.take(Bytes::from_static(b"abc"), &mut first).unwrap();
            upload
                .take(Bytes::from_static(b"defg"), &mut first)
                .unwrap();
            let sum = [("x-sum".parse().unwrap(), "1".parse().unwrap())];
            upload
                .end(Some(sum.into_iter().collect()), &mut first)
                .unwrap();
            upload.again(&mut second);
            assert_eq!(*first, *second);
            assert!(upload.repeats(false));
        }
        let mut chunked = Buffer::default();
        let mut upload = upload(Method::PUT, Framed::Chunked);
        upload
            .take(Bytes::from(vec![b'a'; 16]), &mut chunked)
            .unwrap();
        upload.end(None, &mut chunked).unwrap();
        assert_eq!(&*chunked, b"10\r\naaaaaaaaaaaaaaaa\r\n0\r\n\r\n");
    }

    #[test]
    fn a_length_is_kept_to() {
        let out = &mut Buffer::default();
        let mut long = upload(Method::PUT, Framed::Length(2));
        assert!(long.take(Bytes::from_static(b"abc"), out).is_err());
        let mut short = upload(Method::PUT, Framed::Length(2));
        short.take(Bytes::from_static(b"a"), out).unwrap();
        assert!(short.end(None, out).is_err());
    }

    #[test]
    fn the_last_part_goes_when_nothing_has_come_behind_it() {
        let out = &mut Buffer::default();
        let mut long = upload(Method::PUT, Framed::Length(4));
        long.take(Bytes::from_static(b"ab"), out).unwrap();
        long.take(Bytes::from_static(b"cd"), out).unwrap();
        assert_eq!(&**out, b"ab");
        assert!(long.take(Bytes::from_static(b"e"), out).is_err());
        assert_eq!(&**out, b"ab");
        let mut whole = upload(Method::PUT, Framed::Length(2));
        let out = &mut Buffer::default();
        whole.take(Bytes::from_static(b"ab"), out).unwrap();
        whole.end(None, out).unwrap();
        assert_eq!(&**out, b"ab");
    }

    #[test]
    fn only_what_is_small_and_does_nothing_twice_is_repeated() {
        let out = &mut Buffer::default();
        let mut post = upload(Method::POST, Framed::Chunked);
        assert!(post.repeats(true) && !post.repeats(false));
        post.take(Bytes::from_static(b"a"), out).unwrap();
        assert!(!post.repeats(true));
        let mut large = upload(Method::PUT, Framed::Chunked);
        large.take(Bytes::from(vec![0; RETRY_BYTES]), out).unwrap();
        assert!(large.repeats(false));
        large.take(Bytes::from_static(b"a"), out).unwrap();
        assert!(!large.repeats(false));
    }
}
