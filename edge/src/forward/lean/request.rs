//! The head that is sent on (RFC 9112 3): made of what was parsed, never of bytes that a client sent.

use http::Method;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use super::super::call::Call;
use super::upload::Framed;
use crate::buffer::Buffer;

/// Writes the whole head of `call`, whose body is framed like this.
pub(super) fn write_head(out: &mut Buffer, call: &Call<'_>, framed: Framed) {
    let method = &call.request.head.method;
    out.extend(method.as_str().as_bytes());
    out.extend(b" ");
    out.extend(call.path.as_bytes());
    if let Some(query) = call.query() {
        out.extend(b"?");
        out.extend(query.as_bytes());
    }
    out.extend(b" HTTP/1.1\r\n");
    for (name, value) in call.fields.iter() {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    match framed {
        Framed::Length(length) => field(out, "content-length", length.to_string().as_bytes()),
        Framed::Chunked => field(out, "transfer-encoding", b"chunked"),
        // RFC 9110 8.6: with these methods a body is expected.
        Framed::None if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            field(out, "content-length", b"0");
        }
        Framed::None => {}
    }
    out.extend(b"\r\n");
}

/// One field.
pub(super) fn field(out: &mut Buffer, name: &str, value: &[u8]) {
    out.extend(name.as_bytes());
    out.extend(b": ");
    out.extend(value);
    out.extend(b"\r\n");
}
