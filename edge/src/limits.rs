//! Every limit a client can run into, with its reason.
//!
//! Nothing a client sends or holds open is without one; those of heads, chunks and trailers are in
//! [`helix_framing::limits`]. The metric beside each refusal is in [`crate::metrics`].

use std::time::Duration;

use helix_framing::limits::MAX_HEAD_BYTES;

/// What is read from a socket at once.
pub const READ_BYTES: usize = 8 * 1024;

/// Most bytes held of what a client sends ahead of the request being answered. Beyond it the client
/// waits in its own send buffer. Must hold a whole head.
pub const MAX_AHEAD_BYTES: usize = 64 * 1024;

/// Small writes are gathered up to this many bytes, so that a head and a short body leave as one segment.
pub const GATHER_BYTES: usize = 16 * 1024;

/// A body on disk is carried in parts of this size: large enough that a read costs little per byte,
/// small enough that a thousand slow clients hold 64 MiB.
pub const DISK_READ_BYTES: usize = 64 * 1024;

/// How long a whole request head may take, from accept or from its first byte on a reused connection.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection may wait for its next request. Longer than what browsers keep idle anyway.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(60);

/// How long a client may take none of the bytes it is sent. Whoever holds responses open on purpose is
/// to be cut within half a minute.
pub const WRITE_STALL: Duration = Duration::from_secs(20);

/// Of a response that waits for its client, what the client must take within each [`WRITE_STALL`]: about
/// 500 bytes a second, less than the slowest phone, and far more than who only holds memory.
pub const MIN_SEND_BYTES: usize = 16 * 1024;

/// What the kernel may hold of a response that it has not sent yet. Beyond it a client's pace is felt here.
pub const UNSENT_BYTES: u32 = 256 * 1024;

/// How long a request's body may be waited for before its pace is judged.
pub const BODY_WINDOW: Duration = Duration::from_secs(10);

/// What must come of a request's body within each [`BODY_WINDOW`] of waiting: 200 bytes a second.
pub const MIN_BODY_BYTES: usize = 2000;

/// Largest rest of a request's body that is read and dropped to keep the connection; beyond it a new
/// connection is cheaper.
pub const MAX_DROPPED_BODY_BYTES: u64 = 64 * 1024;

/// A part of a request's body that is handed on at once.
pub const BODY_PART_BYTES: usize = 16 * 1024;

/// Buffers that each core keeps for the next connection that needs one.
pub const POOLED_BUFFERS: usize = 256;

/// Largest buffer that is kept: enough for a large head and what is read with it.
pub const POOLED_BUFFER_BYTES: usize = MAX_HEAD_BYTES + READ_BYTES;

/// Most requests of one connection that are answered with one write.
pub const MAX_BATCH: usize = 32;

/// Responses each core remembers to send again as they are. Power of two.
pub const MEMO_SLOTS: usize = 4096;

/// Largest body of a remembered response.
pub const MEMO_BODY_BYTES: usize = 256 * 1024;

/// Bytes of remembered responses that one core holds.
pub const MEMO_BYTES: usize = 32 * 1024 * 1024;

/// After a last response, how long to read and drop what the client still sends: closing at once
/// would reset the connection, and the client might never see the response.
pub const LINGER: Duration = Duration::from_secs(1);

/// How many bytes of that to read at most.
pub const LINGER_BYTES: usize = 1024 * 1024;

/// How long requests in flight may take after a shutdown was asked for.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// After a shutdown was asked for, how long to go on taking requests: those already on their way, on
/// idle and on new connections, would otherwise be lost.
pub const DRAIN_GRACE: Duration = Duration::from_millis(250);

/// After connections were cut at the end of a drain, how long their tasks have to say so in the log.
pub const CUT_GRACE: Duration = Duration::from_millis(50);

/// Pause after an accept that failed for want of descriptors: trying again at once would only spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections waiting to be accepted, per core.
pub const BACKLOG: i32 = 1024;

/// Most connections at once. At about 20 KiB of kernel and user memory each, 1 GiB.
pub const MAX_CONNECTIONS: usize = 50_000;

/// Most connections from one IPv4 address or IPv6 /64. Large offices share one address.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 4096;

/// Descriptors kept for files, NATS and origin when the process limit is below [`MAX_CONNECTIONS`].
pub const RESERVED_DESCRIPTORS: usize = 256;

/// Most HTTP/2 streams a client may have open. Browsers open up to 100 only if allowed.
pub const MAX_STREAMS: u32 = 64;

/// Bytes of a response that one HTTP/2 stream may hold unsent.
pub const STREAM_SEND_BYTES: usize = 64 * 1024;

/// Streams remembered after a client reset them, and such streams waiting to be accepted: more is a
/// flood of resets (CVE-2023-44487).
pub const MAX_RESET_STREAMS: usize = 20;

/// Streams the edge may have to reset for a client's errors before the connection ends (CVE-2025-8671).
pub const MAX_ERROR_STREAMS: usize = 64;

/// Most bytes of a request's body that are kept so that it can be sent a second time.
pub const RETRY_BYTES: usize = 64 * 1024;

/// At how many servers of its upstream one request is tried. At each it may be sent a second time, when a connection
/// that was kept turned out to be closed.
pub const UPSTREAM_TRIES: usize = 3;

/// What is read from an upstream at once. One buffer for each core: large enough that a large body costs few calls.
pub const UPSTREAM_READ_BYTES: usize = 64 * 1024;

/// Interim responses of an upstream to one request. One of each kind that is registered is four.
pub const MAX_INTERIM_RESPONSES: usize = 16;

/// Unused connections to upstreams that a core keeps, to all of them together. Each costs a descriptor here and one
/// there.
pub const UPSTREAM_IDLE_CONNECTIONS: usize = 256;

/// Most requests at once on one HTTP/2 connection to an upstream, if it allows as many. A hundred is what most
/// servers allow.
pub const UPSTREAM_STREAMS: usize = 100;

/// How long a tunnel may be silent on its upstream's side, before it is closed. Applications send pings every 15 to 60 seconds.
pub const TUNNEL_IDLE: Duration = Duration::from_secs(300);

/// How long a gRPC call may be silent on either side. Calls that watch something are silent until it changes; those
/// that are to be kept for longer send pings within.
pub const CALL_IDLE: Duration = Duration::from_secs(300);

/// Parts of a body that may lie between a client and pingora in each direction. One is being sent while the next is
/// read.
pub const PARTS_BETWEEN: usize = 2;

/// How long a connection to an upstream may take to become free for the next request, once the response is whole.
pub const UPSTREAM_RELEASE: Duration = Duration::from_millis(100);

/// Bytes of a request's body that one HTTP/2 stream may send before it is read: what is on its way at 40 Mbit/s
/// and 50 ms.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same for all streams of a connection together, so that one connection never holds more.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// How long the next part of an HTTP/2 request's body may take.
pub const BODY_STALL: Duration = Duration::from_secs(20);

/// Frames that carry nothing (PING, SETTINGS, empty DATA and their like) a client may send at once.
pub const CONTROL_FRAMES: u64 = 1000;

/// How many more each second. Clients that measure their connection send some ten.
pub const CONTROL_FRAMES_PER_SECOND: u64 = 50;

/// One more for so many bytes sent to the client, which it acknowledges with window updates: two for each
/// response of 1 KiB.
pub const BYTES_PER_CONTROL_FRAME: u64 = 256;

/// How long a TLS handshake may take. It is two round trips; a phone on a bad network needs 2 s.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How often the files of certificates are looked at. Whoever renews them does so days ahead.
pub const CERTIFICATE_CHECK: Duration = Duration::from_secs(10);

/// What a core gathers of its access log before it is handed to the writer: some 200 lines, so that a write costs each
/// of them little.
pub const LOG_PAGE_BYTES: usize = 64 * 1024;

/// A page with less room than this is handed over. Most lines have a tenth; a longer one makes its page grow.
pub const LOG_LINE_ROOM: usize = 4 * 1024;

/// How long a line may wait in its core's page, so that who watches the log sees what happens.
pub const LOG_FLUSH: Duration = Duration::from_secs(1);

/// Pages of all cores that wait to be written: 8 MiB, with which a disk may stall for a few tenths of a second at
/// the highest rates. Beyond it lines are lost.
pub const LOG_PAGES_WAITING: usize = 128;

/// How often to see whether the file of the access log was renamed or removed.
pub const LOG_FILE_CHECK: Duration = Duration::from_secs(1);

/// How long what is left of the access log may take to be written when an edge ends.
pub const LOG_DRAIN: Duration = Duration::from_secs(1);

/// The limits an operator or a test may set otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// See [`MAX_CONNECTIONS_PER_ADDRESS`].
    pub connections_per_address: usize,
    /// See [`HEAD_DEADLINE`].
    pub head_deadline: Duration,
    /// See [`IDLE_DEADLINE`].
    pub idle_deadline: Duration,
    /// See [`WRITE_STALL`].
    pub write_stall: Duration,
    /// See [`BODY_WINDOW`].
    pub body_window: Duration,
    /// See [`BODY_STALL`].
    pub body_stall: Duration,
    /// See [`TUNNEL_IDLE`].
    pub tunnel_idle: Duration,
    /// See [`CALL_IDLE`].
    pub call_idle: Duration,
    /// See [`DRAIN_DEADLINE`].
    pub drain_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            head_deadline: HEAD_DEADLINE,
            idle_deadline: IDLE_DEADLINE,
            write_stall: WRITE_STALL,
            body_window: BODY_WINDOW,
            body_stall: BODY_STALL,
            tunnel_idle: TUNNEL_IDLE,
            call_idle: CALL_IDLE,
            drain_deadline: DRAIN_DEADLINE,
        }
    }
}
