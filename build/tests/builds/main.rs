//! Builds for real: bubblewrap, git over HTTP, a queue, and a double of origin.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::panic,
    reason = "a test may stop here, and says why it is passed over"
)]

mod double;
mod forge;
mod frameworks;
mod place;
mod projects;
mod sandbox;
mod worker;
mod workshop;
