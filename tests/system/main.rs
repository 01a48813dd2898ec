//! System tests: real processes, sockets and NATS on free ports of this machine.
//!
//! Tests that leave a fleet as it was share one ([`helix_tests::fleet::Fleet::shared`]), each with projects of its
//! own. Those that kill, starve or forge start their own, one at a time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop here")]

mod access;
mod alone;
mod bakes;
mod built;
mod canaries;
mod collection;
mod cutover;
mod draining;
mod edges;
mod folders;
mod gates;
mod glass;
mod graceful;
mod guard;
mod hosts;
mod joining;
mod kills;
mod lanes;
mod previews;
mod protection;
mod provenance;
mod purges;
mod records;
mod registry;
mod restore;
mod rollback;
mod rollouts;
mod rules;
mod sources;
mod succession;
mod two_origins;
mod uploads;
mod waves;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Two cores carry one shared fleet and one more.
static OWN_FLEET: Mutex<()> = Mutex::new(());

/// Held by a test that starts a fleet of its own.
fn own_fleet() -> MutexGuard<'static, ()> {
    OWN_FLEET.lock().unwrap_or_else(PoisonError::into_inner)
}
