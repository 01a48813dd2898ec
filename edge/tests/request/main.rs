//! The request story over real sockets: a listener on a free port, a table made by hand, raw bytes in.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on ends here, and one that measures or is skipped says so"
)]

mod access_log;
mod admin;
mod cache;
mod cache_disk;
mod cache_judge;
mod cache_stale;
mod canary;
mod checklist;
mod claims;
mod confusion;
mod counting;
mod differential;
mod disk;
mod downgrade;
mod draining;
mod forward;
mod framing;
mod gates;
mod grpc;
mod health;
mod http2;
mod http2_abuse;
mod http2_upstreams;
mod http3;
mod http3_abuse;
mod http3_priority;
mod lanes;
mod limits;
mod odd_upstreams;
mod paths;
mod protection;
mod raw;
mod reach;
mod refused;
mod serving;
mod smuggling;
mod static_files;
mod support;
mod tls;
mod trace;
mod trailers;
mod trust;
mod upstream;
mod websocket;
