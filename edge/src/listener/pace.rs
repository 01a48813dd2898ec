//! Whether the other side of a wait moves fast enough.
//!
//! Only time spent waiting counts: whoever keeps up is never asked. A window ends when that much time has
//! been waited; too little moved in it is too slow, however evenly it came.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Watches one direction.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Runs while waiting.
    window: Option<Pin<Box<Sleep>>>,
    /// Since when the wait goes on.
    waiting: Option<Instant>,
    waited: Duration,
    moved: usize,
}

impl Pace {
    /// Counts what moved and ends the wait, if there was one.
    pub(super) fn moved(&mut self, bytes: usize) {
        let Some(since) = self.waiting.take() else {
            return;
        };
        self.waited += since.elapsed();
        self.moved += bytes;
    }

    /// Nothing is left to be moved: the next wait starts anew.
    pub(super) fn rest(&mut self) {
        if self.waiting.is_some() || !self.waited.is_zero() {
            *self = Self::default();
        }
    }

    /// Waits; ready when less than `least` bytes have moved within `window`.
    pub(super) fn poll_too_slow(
        &mut self,
        cx: &mut Context<'_>,
        window: Duration,
        least: usize,
    ) -> Poll<()> {
        loop {
            let now = Instant::now();
            let since = *self.waiting.get_or_insert(now);
            let ends = since + window.saturating_sub(self.waited);
            let sleep = self
                .window
                .get_or_insert_with(|| Box::pin(sleep_until(ends)));
            if sleep.deadline() != ends {
                sleep.as_mut().reset(ends);
            }
            ready!(sleep.as_mut().poll(cx));
            if self.moved < least {
                return Poll::Ready(());
            }
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn who_moves_enough_within_each_window_may_go_on_and_who_drips_may_not() {
        let window = Duration::from_millis(60);
        let mut pace = Pace::default();
        for round in 0..6 {
            let slow = poll_fn(|cx| pace.poll_too_slow(cx, window, 10));
            // Three rounds are longer than a window, and move enough in it.
            let ended = tokio::time::timeout(window / 2, slow).await.is_ok();
            assert!(!ended, "round {round}");
            pace.moved(10);
        }
        let mut pace = Pace::default();
        let mut rounds = 0;
        loop {
            let slow = poll_fn(|cx| pace.poll_too_slow(cx, window, 10));
            if tokio::time::timeout(window / 6, slow).await.is_ok() {
                break;
            }
            pace.moved(1);
            rounds += 1;
            assert!(rounds < 1000, "a byte at a time is never too slow");
        }
    }
}
