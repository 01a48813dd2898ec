//! HTTP/2 (RFC 9113): h2 frames it, this serves it.
//!
//! One task owns a connection. What can be answered at once is, without a task of its own; everything else
//! has one for each stream, an [`Exchange`](crate::exchange::Exchange) that ends with the connection. All
//! responses to requests that came together leave in one write.
//!
//! Invariant: a client that sends nothing of use, holds what it is sent, or floods is told GOAWAY and cut
//! within half a minute, and never makes the edge hold more than 4 MiB. Nothing here knows what a request gets.

mod connection;
mod frames;
mod stream;
mod untaken;
mod wire;

use h2::server::Builder;
use helix_framing::limits::MAX_HEAD_BYTES;

pub use connection::{Client, serve};

use crate::limits::{
    CONNECTION_WINDOW_BYTES, MAX_ERROR_STREAMS, MAX_RESET_STREAMS, MAX_STREAMS, STREAM_SEND_BYTES,
    STREAM_WINDOW_BYTES,
};

/// The limits that h2 itself keeps.
fn settings() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).expect("32 KiB fits"))
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(Some(MAX_ERROR_STREAMS))
        .max_send_buffer_size(STREAM_SEND_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .enable_connect_protocol();
    builder
}
