//! The gate: lets whatever reads a connection read exactly one message.
//!
//! Pure. [`parse`](crate::parse) has said where the head ends and how the body is framed; the gate counts
//! that out, however the bytes arrive and however much the reader asks for, so that the reader can
//! never run into the next request. It keeps no bytes: what it does not let through stays where it is.

use crate::{ChunkError, Chunks, Framing};

/// What may still be read.
#[derive(Clone, Copy, Debug)]
pub struct Gate(State);

#[derive(Clone, Copy, Debug)]
enum State {
    /// Everything: the connection speaks a protocol that frames itself.
    Open,
    /// The rest of a head, then its body.
    Head {
        left: usize,
        body: Framing,
    },
    Length {
        left: u64,
    },
    Chunked(Chunks),
    Done,
}

impl Gate {
    /// Lets nothing through.
    #[must_use]
    #[inline]
    pub const fn closed() -> Self {
        Self(State::Done)
    }

    /// Lets everything through.
    #[must_use]
    #[inline]
    pub const fn open() -> Self {
        Self(State::Open)
    }

    /// Lets through one message: `head` bytes, and a body framed like this.
    #[must_use]
    #[inline]
    pub const fn message(head: usize, body: Framing) -> Self {
        Self(State::Head { left: head, body })
    }

    /// Whether the whole message has been let through.
    #[must_use]
    #[inline]
    pub const fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// How many of `bytes`, the next ones of the connection, may be read now. They count as read.
    ///
    /// # Errors
    /// When a chunked body is malformed.
    #[inline]
    pub fn admit(&mut self, bytes: &[u8]) -> Result<usize, ChunkError> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match &mut self.0 {
                State::Open => rest.len(),
                State::Head { left, .. } => take(left, rest.len()),
                State::Length { left } => take_long(left, rest.len()),
                State::Chunked(chunks) => chunks.advance(rest)?,
                State::Done => return Ok(at),
            };
            self.settle();
        }
        Ok(at)
    }

    /// Moves on when a part has been let through whole.
    #[inline]
    const fn settle(&mut self) {
        match self.0 {
            State::Head {
                left: 0,
                body: Framing::None,
            }
            | State::Length { left: 0 } => self.0 = State::Done,
            State::Head {
                left: 0,
                body: Framing::Length(left),
            } => self.0 = State::Length { left },
            State::Head {
                left: 0,
                body: Framing::Chunked,
            } => self.0 = State::Chunked(Chunks::new()),
            State::Chunked(chunks) if chunks.is_done() => self.0 = State::Done,
            State::Open
            | State::Head { .. }
            | State::Length { .. }
            | State::Chunked(_)
            | State::Done => {}
        }
    }
}

#[inline]
const fn take(left: &mut usize, available: usize) -> usize {
    let step = if *left < available { *left } else { available };
    *left -= step;
    step
}

#[inline]
fn take_long(left: &mut u64, available: usize) -> usize {
    // More than the address space holds is never available at once.
    let mut fits = usize::try_from(*left).unwrap_or(usize::MAX);
    let step = take(&mut fits, available);
    *left -= step as u64;
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a.example\r\n\r\n";

    #[test]
    fn a_closed_gate_lets_nothing_and_an_open_one_everything_through() {
        assert_eq!(Gate::closed().admit(b"abc"), Ok(0));
        assert!(Gate::closed().is_done());
        let mut open = Gate::open();
        assert_eq!(open.admit(b"abc"), Ok(3));
        assert!(!open.is_done());
    }

    #[test]
    fn a_malformed_chunked_body_is_an_error() {
        let mut gate = Gate::message(2, Framing::Chunked);
        assert_eq!(gate.admit(b"ab"), Ok(2));
        assert_eq!(gate.admit(b"zz"), Err(ChunkError));
    }

    fn body() -> impl Strategy<Value = (Framing, Vec<u8>)> {
        prop_oneof![
            Just((Framing::None, Vec::new())),
            proptest::collection::vec(any::<u8>(), 1..200)
                .prop_map(|bytes| (Framing::Length(bytes.len() as u64), bytes)),
            proptest::collection::vec(any::<u8>(), 1..200).prop_map(|bytes| {
                let mut body = format!("{:X};x\r\n", bytes.len()).into_bytes();
                body.extend_from_slice(&bytes);
                body.extend_from_slice(b"\r\n0\r\nA: b\r\n\r\n");
                (Framing::Chunked, body)
            }),
        ]
    }

    proptest! {
        #[test]
        fn exactly_one_message_passes_however_it_is_split(
            (framing, body) in body(),
            after in proptest::collection::vec(any::<u8>(), 0..50),
            steps in proptest::collection::vec(1usize..70, 1..40),
        ) {
            let message = [HEAD, &body].concat();
            let all = [message.as_slice(), &after].concat();
            let mut gate = Gate::message(HEAD.len(), framing);
            let mut passed = 0;
            for step in steps.into_iter().chain(std::iter::repeat(33)) {
                let end = (passed + step).min(all.len());
                let admitted = gate.admit(&all[passed..end]).unwrap();
                passed += admitted;
                prop_assert!(passed <= message.len());
                if gate.is_done() || admitted == 0 {
                    break;
                }
            }
            prop_assert!(gate.is_done());
            prop_assert_eq!(passed, message.len());
        }
    }
}
