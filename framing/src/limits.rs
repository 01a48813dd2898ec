//! Every limit of a head, a chunk and a trailer section, with its reason.
//!
//! They are those of every protocol: HTTP/2 and HTTP/3 take the same for what they decode.

/// Largest head of an HTTP/1 message, and largest decoded header list of an HTTP/2 or HTTP/3 one. Cookies of
/// real sites reach 16 KiB; twice that leaves room, and ten thousand unfinished heads still fit in memory.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Longest request target. RFC 9112 3 asks for at least 8,000.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Longest method. The longest registered one has 17.
pub const MAX_METHOD_BYTES: usize = 32;

/// Most header fields of one message. Browsers send about 20.
pub const MAX_HEADERS: usize = 100;

/// Longest chunk-size line with its extensions: nobody sends extensions, so there is no use for room.
pub const MAX_CHUNK_LINE_BYTES: usize = 256;

/// Longest trailer section of a chunked message.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;
