//! What a request head frames, and whether it may pass at all.
//!
//! Pure, and stricter than the parser behind it, so that both read every head that passes in the
//! same way. RFC 9112 sections 2 to 6 say what is legal; what has led to smuggling is refused even
//! where it is.

use http::Uri;

use super::{Refusal, is_field_name, is_field_value, is_token};
use crate::limits::{MAX_HEADERS, MAX_METHOD_BYTES, MAX_TARGET_BYTES};

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// It has this many bytes.
    Length(u64),
    /// It is chunked.
    Chunked,
}

/// Checks one whole head, its empty line included, and says how the body behind it is framed.
///
/// # Errors
/// When anything in it is malformed, ambiguous or over a limit.
pub fn parse(head: &[u8]) -> Result<Framing, Refusal> {
    let mut lines = head
        .split_inclusive(|byte| *byte == b'\n')
        .map(line_content);
    let line = request_line(lines.next().unwrap_or(Err(Refusal::RequestLine))?)?;
    let mut fields = Fields::default();
    let mut count = 0;
    for content in lines {
        let content = content?;
        if content.is_empty() {
            return fields.framing(&line);
        }
        count += 1;
        if count > MAX_HEADERS {
            return Err(Refusal::TooManyHeaders);
        }
        fields.take(content)?;
    }
    // Without the empty line this is no whole head.
    Err(Refusal::LineEnding)
}

/// The bytes of a line before its CR LF, which hold no other CR.
fn line_content(line: &[u8]) -> Result<&[u8], Refusal> {
    let content = line.strip_suffix(b"\r\n").ok_or(Refusal::LineEnding)?;
    if memchr::memchr(b'\r', content).is_some() {
        Err(Refusal::LineEnding)
    } else {
        Ok(content)
    }
}

struct RequestLine<'a> {
    /// The authority of an absolute-form target.
    authority: Option<&'a [u8]>,
    version_1_0: bool,
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::RequestLine);
    };
    if method.is_empty() || method.len() > MAX_METHOD_BYTES || !method.iter().copied().all(is_token)
    {
        return Err(Refusal::RequestLine);
    }
    let version_1_0 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal::Version);
        }
        _ => return Err(Refusal::RequestLine),
    };
    if method == b"CONNECT" {
        return Err(Refusal::Connect);
    }
    Ok(RequestLine {
        authority: target_authority(method, target)?,
        version_1_0,
    })
}

/// Checks a target (RFC 9112 3.2); the authority when it is in absolute form.
fn target_authority<'a>(method: &[u8], target: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
    if target.len() > MAX_TARGET_BYTES {
        return Err(Refusal::TargetTooLong);
    }
    if target == b"*" {
        return if method == b"OPTIONS" {
            Ok(None)
        } else {
            Err(Refusal::Target)
        };
    }
    // A fragment is never sent; quotes and angle brackets are escaped by everyone who means well.
    if target
        .iter()
        .any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\'))
    {
        return Err(Refusal::Target);
    }
    let authority = match target {
        [b'/', ..] => None,
        _ => Some(absolute_authority(target).ok_or(Refusal::Target)?),
    };
    // The same type that routing reads the target with: what it cannot hold must not pass.
    if Uri::try_from(target).is_err() {
        return Err(Refusal::Target);
    }
    Ok(authority)
}

fn absolute_authority(target: &[u8]) -> Option<&[u8]> {
    let rest = target
        .strip_prefix(b"http://")
        .or_else(|| target.strip_prefix(b"https://"))?;
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The fields that say where a message ends and whom it is for.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::FieldValue);
        }
        let colon = memchr::memchr(b':', line).ok_or(Refusal::FieldName)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().copied().all(is_field_name) {
            return Err(Refusal::FieldName);
        }
        if !line[colon + 1..].iter().copied().all(is_field_value) {
            return Err(Refusal::FieldValue);
        }
        if name.eq_ignore_ascii_case(b"host") {
            if self.host.replace(value).is_some() || !is_authority(value) {
                return Err(Refusal::Host);
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.replace(content_length(value)?).is_some() {
                return Err(Refusal::ContentLength);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::TransferEncoding);
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn framing(&self, line: &RequestLine<'_>) -> Result<Framing, Refusal> {
        let host = self.host.ok_or(Refusal::Host)?;
        if line.authority.is_some_and(|authority| authority != host) {
            return Err(Refusal::Host);
        }
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Refusal::TwoLengths),
            (None, true) if line.version_1_0 => Err(Refusal::TransferEncoding),
            (None, true) => Ok(Framing::Chunked),
            (None | Some(0), false) => Ok(Framing::None),
            (Some(length), false) => Ok(Framing::Length(length)),
        }
    }
}

/// Host and port, with no byte that could end an authority or hide a user in it.
fn is_authority(value: &[u8]) -> bool {
    !value.is_empty()
        && value.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']')
        })
}

/// Digits only: no sign, no list, nothing that overflows.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    // Nineteen digits always fit.
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLength);
    }
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framing(text: &str) -> Result<Framing, Refusal> {
        parse(text.as_bytes())
    }

    fn with(fields: &str) -> Result<Framing, Refusal> {
        framing(&format!(
            "POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"
        ))
    }

    #[test]
    fn bodies_are_framed_by_one_length_or_by_chunks() {
        for (fields, expected) in [
            ("", Framing::None),
            ("Content-Length: 0\r\n", Framing::None),
            ("Content-Length: 12\r\n", Framing::Length(12)),
            ("content-length:\t0012 \r\n", Framing::Length(12)),
            (
                "Content-Length: 9999999999999999999\r\n",
                Framing::Length(9_999_999_999_999_999_999),
            ),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
            ("Empty:\r\nX: caf\u{e9}\r\n", Framing::None),
        ] {
            assert_eq!(with(fields), Ok(expected), "{fields:?}");
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for (fields, expected) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Refusal::TwoLengths,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
                Refusal::TwoLengths,
            ),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                Refusal::ContentLength,
            ),
            ("Content-Length: 5, 5\r\n", Refusal::ContentLength),
            ("Content-Length: +5\r\n", Refusal::ContentLength),
            ("Content-Length: -5\r\n", Refusal::ContentLength),
            ("Content-Length: 0x5\r\n", Refusal::ContentLength),
            ("Content-Length: 5 5\r\n", Refusal::ContentLength),
            ("Content-Length:\r\n", Refusal::ContentLength),
            (
                "Content-Length: 99999999999999999999\r\n",
                Refusal::ContentLength,
            ),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                Refusal::TransferEncoding,
            ),
            (
                "Transfer-Encoding: chunked, identity\r\n",
                Refusal::TransferEncoding,
            ),
            ("Transfer-Encoding: identity\r\n", Refusal::TransferEncoding),
            ("Transfer-Encoding: xchunked\r\n", Refusal::TransferEncoding),
            (
                "Transfer-Encoding: \"chunked\"\r\n",
                Refusal::TransferEncoding,
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Refusal::TransferEncoding,
            ),
            ("Transfer-Encoding:\r\n", Refusal::TransferEncoding),
            ("Transfer-Encoding:\u{b}chunked\r\n", Refusal::FieldValue),
        ] {
            assert_eq!(with(fields), Err(expected), "{fields:?}");
        }
        assert_eq!(
            framing("POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(Refusal::TransferEncoding)
        );
    }

    #[test]
    fn malformed_fields_are_refused() {
        for (fields, expected) in [
            ("Content-Length : 5\r\n", Refusal::FieldName),
            ("Content Length: 5\r\n", Refusal::FieldName),
            ("Content_Length: 5\r\n", Refusal::FieldName),
            (": 5\r\n", Refusal::FieldName),
            ("NoColon\r\n", Refusal::FieldName),
            ("N\u{e4}me: 5\r\n", Refusal::FieldName),
            ("A\0: 5\r\n", Refusal::FieldName),
            (" folded: 5\r\n", Refusal::FieldValue),
            ("A: b\r\n\tfolded\r\n", Refusal::FieldValue),
            ("A: b\0c\r\n", Refusal::FieldValue),
            ("A: b\u{1}c\r\n", Refusal::FieldValue),
            ("A: b\u{7f}c\r\n", Refusal::FieldValue),
            ("A: b\rc\r\n", Refusal::LineEnding),
            ("A: b\r\r\n", Refusal::LineEnding),
            ("A: b\nC: d\r\n", Refusal::LineEnding),
            ("Host: a.example\r\n", Refusal::Host),
            ("Host: b.example\r\n", Refusal::Host),
        ] {
            assert_eq!(with(fields), Err(expected), "{fields:?}");
        }
        assert_eq!(with(&"A: b\r\n".repeat(MAX_HEADERS - 1)), Ok(Framing::None));
        assert_eq!(
            with(&"A: b\r\n".repeat(MAX_HEADERS)),
            Err(Refusal::TooManyHeaders)
        );
    }

    #[test]
    fn request_lines_are_three_parts_and_no_more() {
        for line in [
            "GET / HTTP/1.1",
            "GET / HTTP/1.0",
            "GET /a?b=c&d=%20`| HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "GET http://a.example/x HTTP/1.1",
            "PURGE / HTTP/1.1",
        ] {
            assert_eq!(
                framing(&format!("{line}\r\nHost: a.example\r\n\r\n")),
                Ok(Framing::None),
                "{line:?}"
            );
        }
        for (line, expected) in [
            ("", Refusal::RequestLine),
            ("GET /", Refusal::RequestLine),
            ("GET  / HTTP/1.1", Refusal::RequestLine),
            ("GET / HTTP/1.1 ", Refusal::RequestLine),
            (" GET / HTTP/1.1", Refusal::RequestLine),
            ("GET\t/\tHTTP/1.1", Refusal::RequestLine),
            ("G\u{e4}T / HTTP/1.1", Refusal::RequestLine),
            ("GET / http/1.1", Refusal::RequestLine),
            ("GET / HTTP/1.1x", Refusal::RequestLine),
            ("GET / HTTP/2.0", Refusal::Version),
            ("GET / HTTP/1.2", Refusal::Version),
            ("GET / HTTP/0.9", Refusal::Version),
            ("CONNECT a.example:443 HTTP/1.1", Refusal::Connect),
            ("GET * HTTP/1.1", Refusal::Target),
            ("GET a HTTP/1.1", Refusal::Target),
            ("GET a.example:80 HTTP/1.1", Refusal::Target),
            ("GET ftp://a.example/ HTTP/1.1", Refusal::Target),
            ("GET /\u{e4} HTTP/1.1", Refusal::Target),
            ("GET /\u{1} HTTP/1.1", Refusal::Target),
            ("GET /a#b HTTP/1.1", Refusal::Target),
            ("GET /a\\b HTTP/1.1", Refusal::Target),
            ("GET http://b.example/ HTTP/1.1", Refusal::Host),
            ("GET http://u@a.example/ HTTP/1.1", Refusal::Host),
            ("GET http:/a.example/ HTTP/1.1", Refusal::Target),
        ] {
            assert_eq!(
                framing(&format!("{line}\r\nHost: a.example\r\n\r\n")),
                Err(expected),
                "{line:?}"
            );
        }
        let long = format!(
            "GET /{} HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "a".repeat(MAX_TARGET_BYTES)
        );
        assert_eq!(framing(&long), Err(Refusal::TargetTooLong));
    }

    #[test]
    fn a_host_is_needed_and_holds_nothing_but_a_host() {
        for host in ["a.example", "a.example:80", "[::1]:80", "127.0.0.1"] {
            assert_eq!(
                framing(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")),
                Ok(Framing::None),
                "{host:?}"
            );
        }
        for host in ["", "a b", "a@b", "a/b", "a,b", "a?b", "a#b", "a%62"] {
            assert_eq!(
                framing(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")),
                Err(Refusal::Host),
                "{host:?}"
            );
        }
        assert_eq!(framing("GET / HTTP/1.1\r\n\r\n"), Err(Refusal::Host));
        assert_eq!(framing("GET / HTTP/1.0\r\n\r\n"), Err(Refusal::Host));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_damaged_head_passes_with_a_control_byte_or_a_bare_line_end(
            at in 0usize..60,
            byte in any::<u8>(),
        ) {
            let mut head = b"POST /path HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n".to_vec();
            let at = at.min(head.len() - 1);
            head[at] = byte;
            if parse(&head).is_ok() {
                for (index, byte) in head.iter().enumerate() {
                    match byte {
                        b'\n' => prop_assert_eq!(head[index - 1], b'\r'),
                        b'\r' => prop_assert_eq!(head[index + 1], b'\n'),
                        _ => prop_assert!(is_field_value(*byte)),
                    }
                }
            }
        }
    }
}
