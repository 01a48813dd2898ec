//! Clients that hold what they are given: many at once, against an edge in a process of its own.
//!
//! The edge is this program once more, so that it has descriptors and memory that nobody else uses. Memory and cuts
//! are asserted, times of other clients only within a wide margin: a machine may be busy with something else. Each
//! test says what it measured. One runs at a time.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that cannot go on ends here, and says what it measured; its threads may sleep"
)]

mod bombs;
mod crowd;
mod elsewhere;
mod honest;
mod idle;
mod quic;
mod slow_bodies;
mod slow_heads;

#[expect(dead_code, reason = "another program's tests use the rest")]
#[path = "../request/support.rs"]
mod support;
#[path = "../request/trust.rs"]
mod trust;
#[expect(dead_code, reason = "another program's tests use the rest")]
#[path = "../request/upstream.rs"]
mod upstream;

/// What ships is measured with the allocator it ships with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
