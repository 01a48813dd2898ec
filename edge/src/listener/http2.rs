//! Limits of an HTTP/2 connection, as far as pingora and h2 can be told.
//!
//! Not reachable: how many malformed streams pingora forgives per connection (32, then it closes), a
//! deadline for a header block continued in pieces (the idle deadline ends it), and a limit on PING and
//! SETTINGS floods (h2 answers one at a time and stops reading until that is written).

use pingora_core::apps::HttpServerOptions;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};

use crate::limits::{
    Limits, MAX_ERROR_STREAMS, MAX_HEAD_BYTES, MAX_RESET_STREAMS, MAX_STREAMS, STREAM_SEND_BYTES,
};

pub(super) fn options() -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).expect("32 KiB fits"))
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(Some(MAX_ERROR_STREAMS))
        .max_send_buffer_size(STREAM_SEND_BYTES);
    options
}

pub(super) fn server_options(limits: &Limits) -> HttpServerOptions {
    // Not a literal: pingora may add fields.
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.idle_deadline);
    options
}
