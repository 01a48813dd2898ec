//! The request story over real sockets: a listener on a free port, a table made by hand, raw bytes in.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on ends here, and one that measures or is skipped says so"
)]

mod admin;
mod cache;
mod cache_judge;
mod checklist;
mod claims;
mod differential;
mod confusion;
mod disk;
mod downgrade;
mod forward;
mod framing;
mod grpc;
mod health;
mod http2;
mod http2_abuse;
mod http2_upstreams;
mod http3;
mod http3_abuse;
mod lanes;
mod limits;
mod odd_upstreams;
mod reach;
mod paths;
mod raw;
mod serving;
mod smuggling;
mod static_files;
mod support;
mod tls;
mod trust;
mod upstream;
mod websocket;
