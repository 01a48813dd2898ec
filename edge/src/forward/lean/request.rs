//! The head that is sent on (RFC 9112 3): made of what was parsed, never of bytes that a client sent.

use helix_framing::{content_length, field};
use http::Method;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use super::super::call::Call;
use super::upload::Framed;

/// Bytes that most heads fit in.
pub(super) const USUAL_BYTES: usize = 1024;

/// Writes the whole head of `call`, whose body is framed like this.
pub(super) fn write_head(out: &mut Vec<u8>, call: &Call<'_>, framed: Framed) {
    let method = &call.request.head.method;
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(call.path.as_bytes());
    if let Some(query) = call.query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in call.fields.iter() {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            field(out, name.as_str().as_bytes(), value);
        }
    }
    match framed {
        Framed::Length(length) => content_length(out, length),
        Framed::Chunked => field(out, b"transfer-encoding", b"chunked"),
        // RFC 9110 8.6: with these methods a body is expected.
        Framed::None if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            content_length(out, 0);
        }
        Framed::None => {}
    }
    out.extend_from_slice(b"\r\n");
}
