//! Connections of one core that are told together to end once they are idle.
//!
//! While an edge is taken out for maintenance, those that came in one turn go with it, and the next ones with the next: so
//! whoever still comes is answered, and nobody stays. At the end of the process the last turn ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helix_service::clock;
use helix_service::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::maintenance::Told;

/// How long a connection that came while the edge drains may stay idle at most.
const TURN: Duration = Duration::from_secs(5);

/// The turn that new connections come in. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Mutex<Turn>>);

#[derive(Debug)]
struct Turn {
    over: watch::Sender<bool>,
    ends: Arc<AtomicBool>,
    /// No other follows.
    is_last: bool,
}

/// What the connections of one turn look at.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    /// Becomes true when those that are idle are to end.
    pub(crate) over: watch::Receiver<bool>,
    /// True once each answer is to say that it is the last.
    pub(crate) ends: Arc<AtomicBool>,
}

impl Turn {
    fn new(ends: bool) -> Self {
        Self {
            over: watch::Sender::new(false),
            ends: Arc::new(AtomicBool::new(ends)),
            is_last: false,
        }
    }

    fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
        self.over.send_replace(true);
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Turn::new(false))))
    }
}

impl Turns {
    /// The turn of whoever comes now.
    pub(crate) fn current(&self) -> Current {
        let turn = self.turn();
        Current {
            over: turn.over.subscribe(),
            ends: Arc::clone(&turn.ends),
        }
    }

    /// Ends this turn, and begins another. While the edge `drains`, each answer of it is the last.
    fn next(&self, drains: bool) {
        let mut turn = self.turn();
        if !turn.is_last {
            turn.end();
            *turn = Turn::new(drains);
        }
    }

    /// Ends this turn, which is the last.
    pub(crate) fn end(&self) {
        let mut turn = self.turn();
        turn.is_last = true;
        turn.end();
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        // Each change is whole before the guard is dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns over for as long as the edge drains, and once when it serves again.
pub(super) async fn follow(turns: Turns, mut told: watch::Receiver<Told>) {
    let mut drained = false;
    loop {
        let drains = told.borrow_and_update().drain.is_some();
        if drains || drained {
            turns.next(drains);
        }
        drained = drains;
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = sleep(TURN), if drains => {}
        }
    }
}

/// Tells what lasts (WebSockets) when it is to end: at the end of the process, and past the deadline of a drain.
pub(super) async fn end_what_lasts(
    ends: watch::Sender<bool>,
    mut told: watch::Receiver<Told>,
    shutdown: Shutdown,
) {
    loop {
        let drain = told.borrow_and_update().drain.clone();
        let left = drain
            .and_then(|drain| drain.until)
            .map(|until| until.since(clock::now()));
        let is_over = left.is_some_and(|left| left.is_zero());
        ends.send_if_modified(|ends| std::mem::replace(ends, is_over) != is_over);
        tokio::select! {
            () = shutdown.requested() => break,
            changed = told.changed() => if changed.is_err() {
                shutdown.requested().await;
                break;
            },
            () = sleep(left.unwrap_or_default()), if left.is_some() && !is_over => {}
        }
    }
    ends.send_replace(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_ends_for_those_that_came_in_it() {
        let turns = Turns::default();
        let first = turns.current();
        assert!(!first.ends.load(Ordering::Relaxed));
        turns.next(true);
        assert!(first.ends.load(Ordering::Relaxed) && *first.over.borrow());
        let second = turns.current();
        assert!(
            second.ends.load(Ordering::Relaxed),
            "each answer is the last"
        );
        assert!(!*second.over.borrow(), "but whoever comes is answered");
        turns.next(false);
        let third = turns.current();
        assert!(*second.over.borrow() && !third.ends.load(Ordering::Relaxed));
        turns.end();
        turns.next(false);
        assert!(*third.over.borrow() && *turns.current().over.borrow());
    }
}
