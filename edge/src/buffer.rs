//! Bytes on their way in or out of one connection.
//!
//! Buffers are taken from a small pool of this thread when the first byte comes and go back to it when
//! nothing is left, so that a connection that waits holds none. Memory grows in steps and never doubles:
//! what a client can make a connection hold stays near what it sent.

use std::cell::RefCell;
use std::mem;
use std::ops::Deref;

use crate::limits::{POOLED_BUFFER_BYTES, POOLED_BUFFERS, READ_BYTES};

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are added at the end and taken from the start.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub(crate) fn extend(&mut self, more: &[u8]) {
        self.make_room(more.len());
        self.bytes.extend_from_slice(more);
    }

    /// Where `more` bytes can be written at the end; for a few more it grows as any vector does.
    pub(crate) fn room(&mut self, more: usize) -> &mut Vec<u8> {
        self.make_room(more);
        &mut self.bytes
    }

    /// Drops the first `taken` bytes.
    pub(crate) fn advance(&mut self, taken: usize) {
        self.start = (self.start + taken).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Gives the memory back if nothing is in it.
    pub(crate) fn release(&mut self) {
        if !self.is_empty() || self.bytes.capacity() == 0 {
            return;
        }
        self.clear();
        give(mem::take(&mut self.bytes));
    }

    fn make_room(&mut self, more: usize) {
        if self.bytes.capacity() == 0 {
            self.bytes = take();
        }
        if self.bytes.len() + more <= self.bytes.capacity() {
            return;
        }
        self.bytes.drain(..mem::take(&mut self.start));
        let missing = (self.bytes.len() + more).saturating_sub(self.bytes.capacity());
        if missing > 0 {
            let length = self.bytes.len() + more;
            let rounded = length.next_multiple_of(READ_BYTES);
            self.bytes.reserve_exact(rounded - self.bytes.len());
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.bytes.clear();
        give(mem::take(&mut self.bytes));
    }
}

fn take() -> Vec<u8> {
    POOL.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(READ_BYTES / 2))
}

fn give(bytes: Vec<u8>) {
    if bytes.capacity() == 0 || bytes.capacity() > POOLED_BUFFER_BYTES {
        return;
    }
    // A thread that ends has no pool any more, and needs none.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < POOLED_BUFFERS {
            pool.push(bytes);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_buffer_holds_nothing_once_released() {
        let mut buffer = Buffer::default();
        buffer.extend(b"abc");
        buffer.release();
        assert_eq!(&*buffer, b"abc");
        buffer.advance(3);
        buffer.release();
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            steps in proptest::collection::vec((0usize..9000, 0usize..9000), 1..30),
        ) {
            let (mut buffer, mut model) = (Buffer::default(), std::collections::VecDeque::new());
            let (mut next, mut most) = (0u8, 0);
            for (added, taken) in steps {
                let part: Vec<u8> = (0..added).map(|_| { next = next.wrapping_add(1); next }).collect();
                buffer.extend(&part);
                model.extend(part);
                most = model.len().max(most);
                let taken = taken.min(model.len());
                buffer.advance(taken);
                model.drain(..taken);
                prop_assert!(buffer.iter().eq(model.iter()));
                // A pooled buffer has what the one before needed; beyond that it holds what was in it at once.
                prop_assert!(buffer.bytes.capacity() <= POOLED_BUFFER_BYTES.max(most + READ_BYTES));
            }
        }
    }
}
