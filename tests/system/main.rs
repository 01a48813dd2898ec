//! System tests: real processes, sockets and NATS on free ports of this machine.
//!
//! Tests that leave a fleet as it was share one ([`helix_tests::fleet::Fleet::shared`]), each with projects of its
//! own. Those that kill, starve or forge start their own, a few at a time.
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
mod place;
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

use place::own_fleet;
