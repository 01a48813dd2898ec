//! The harness of the system tests: a real fleet on free ports, the real command, and a client that never stops asking.
//!
//! Nothing here knows how a part works inside; it only sees processes, sockets, exit codes and files.
//! Everything waits by deadline ([`wait`]) and fails with what it was waiting for.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop here")]

pub mod api;
pub mod checker;
pub mod client;
pub mod command;
pub mod fleet;
pub mod folder;
pub mod http3;
pub mod postgres;
pub mod repository;
pub mod wait;

/// Says that a test did nothing on this machine, and why.
#[expect(clippy::print_stderr, reason = "the only word a skipped test has")]
pub fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}
