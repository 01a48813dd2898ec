//! A response head in bytes (RFC 9112 4).
//!
//! Pure. It writes what it is given: that a field may stand in the message is decided before.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

/// Writes status line and fields without the empty line. Fields that belong to the connection are left
/// out: whoever knows the connection adds them.
pub fn write_head(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, date: &[u8]) {
    status_line(out, status);
    for (name, value) in headers {
        if *name != CONNECTION && *name != TRANSFER_ENCODING {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if !status.is_informational() && !headers.contains_key(DATE) {
        field(out, b"date", date);
    }
}

/// Writes one field.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + b": \r\n".len());
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the length of a body.
pub fn content_length(out: &mut Vec<u8>, length: u64) {
    field(
        out,
        CONTENT_LENGTH.as_str().as_bytes(),
        length.to_string().as_bytes(),
    );
}

/// Writes a chunk's size line (RFC 9112 7.1).
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
}

/// Writes the first line.
pub fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_head_has_its_fields_and_a_date_and_nothing_of_the_connection() {
        let mut headers = HeaderMap::new();
        headers.insert("x-own", HeaderValue::from_static("a"));
        headers.append("x-own", HeaderValue::from_static("b"));
        headers.insert(CONNECTION, HeaderValue::from_static("x-own"));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        let mut out = Vec::new();
        write_head(&mut out, StatusCode::NOT_FOUND, &headers, b"now");
        assert_eq!(
            out,
            b"HTTP/1.1 404 Not Found\r\nx-own: a\r\nx-own: b\r\ndate: now\r\n"
        );
        out.clear();
        headers.insert(DATE, HeaderValue::from_static("then"));
        write_head(&mut out, StatusCode::OK, &headers, b"now");
        assert!(
            out.ends_with(b"x-own: b\r\ndate: then\r\n"),
            "{}",
            out.escape_ascii()
        );
    }
}
