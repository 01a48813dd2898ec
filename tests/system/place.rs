//! How many fleets of their own tests have at once.

use std::sync::{Condvar, Mutex, PoisonError};

/// A fleet mostly waits: two cores carry the shared one and three more.
const OWN_FLEETS: usize = 3;

static TAKEN: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// A place for one fleet, until it is dropped.
#[must_use]
pub(crate) struct Place;

/// Held by a test that starts a fleet of its own.
pub(crate) fn own_fleet() -> Place {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = LEFT.wait_while(taken, |taken| *taken >= OWN_FLEETS);
    *waited.unwrap_or_else(PoisonError::into_inner) += 1;
    Place
}

impl Drop for Place {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}
