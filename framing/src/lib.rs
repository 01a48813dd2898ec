//! HTTP/1 as an edge understands it: where a head ends, what it frames, where a message ends (RFC 9112).
//!
//! Pure. This is the only framing authority: whatever reads a message later is handed exactly the
//! bytes found here ([`Gate`]). What two parsers could read in two ways is refused, also where
//! RFC 9112 would allow to repair it. Beside the messages it reads what files are asked for with:
//! [`conditions`] and [`ranges`] (RFC 9110 13 and 14), and of other protocols what nobody else reads as strictly: [`http3`] with
//! its field sections ([`qpack`]), the heads of [`http2`], where frames of a [`websocket`] end. It does not route.

mod chunked;
mod class;
pub mod conditions;
mod fields;
mod gate;
mod head;
pub mod http2;
pub mod http3;
pub mod limits;
pub mod qpack;
pub mod ranges;
mod refusal;
mod reply;
mod scan;
mod trailers;
pub mod websocket;
mod write;

pub use chunked::{ChunkError, ChunkPart, Chunks};
pub use fields::{Asked, Field, Fields, Lines, REFERER, Span, TRACEPARENT, USER_AGENT};
pub use gate::Gate;
pub use head::{Framing, Head, is_authority, parse};
pub use refusal::Refusal;
pub use reply::{BadReply, Line, Reply, ReplyBody, parse_reply};
pub use scan::{HeadScan, Preface, Scan, preface};
pub use trailers::{may_trail, trailers};
pub use write::{chunk_size, content_length, field, status_line, write_head};

/// Whether `byte` may stand in a method or field name (RFC 9110 5.6.2).
#[inline]
const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// Whether `byte` may stand in a field name here. Without the underscore: CGI-like upstreams read
/// `content_length` as `content-length`.
#[must_use]
#[inline]
pub const fn is_field_name(byte: u8) -> bool {
    is_token(byte) && byte != b'_'
}

/// Whether `byte` may stand in a field value (RFC 9110 5.5): no control but the tab.
#[must_use]
#[inline]
pub const fn is_field_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
