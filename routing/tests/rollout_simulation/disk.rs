//! A disk: what is written is there for whoever reads it, and after a crash only what was synced certainly is.

use std::collections::VecDeque;

use crate::dice::Dice;

/// One value, and the writes of it that a crash may take.
pub(crate) struct Disk<T> {
    synced: Option<T>,
    tail: VecDeque<T>,
}

impl<T> Disk<T> {
    pub(crate) const fn new() -> Self {
        Self {
            synced: None,
            tail: VecDeque::new(),
        }
    }

    pub(crate) fn write(&mut self, value: T) {
        self.tail.push_back(value);
    }

    /// The oldest write that was not safe is.
    pub(crate) fn sync(&mut self) -> Option<&T> {
        self.synced = Some(self.tail.pop_front()?);
        self.synced.as_ref()
    }

    /// What a reader sees.
    pub(crate) fn newest(&self) -> Option<&T> {
        self.tail.back().or(self.synced.as_ref())
    }

    pub(crate) const fn synced(&self) -> Option<&T> {
        self.synced.as_ref()
    }

    /// The machine loses its power: of the tail as many writes are left as chance will have. Says whether some are lost.
    pub(crate) fn crash(&mut self, dice: &mut Dice) -> bool {
        for _ in 0..dice.pick(self.tail.len() + 1) {
            self.sync();
        }
        let is_torn = !self.tail.is_empty();
        self.tail.clear();
        is_torn
    }
}
