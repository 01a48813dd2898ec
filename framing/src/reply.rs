//! What the head of a response says and frames.
//!
//! Pure, and as strict as the parser of requests: what two parsers could read in two ways is refused, so that no
//! server behind this edge can answer one client with what is meant for another (RFC 9112 4 to 6, 11.1).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::fields::{Field, Span, UNKNOWN};
use super::head::{content_length, tokens};
use super::{class, write};
use crate::limits::MAX_HEADERS;

/// How a response's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// There is none.
    None,
    /// It has this many bytes.
    Length(u64),
    /// It is chunked.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// One response head. Its fields are places in its bytes, for whoever writes them again has no need for a map.
#[derive(Debug)]
pub struct Reply {
    /// Its status, 100 to 599.
    pub status: StatusCode,
    /// What its `Content-Length` says.
    pub length: Option<u64>,
    /// How the body is delimited.
    pub body: ReplyBody,
    /// Whether the connection can be used again when the body has ended.
    pub persists: bool,
    /// Whether it says when it was made.
    pub dated: bool,
    head: Bytes,
    /// Without `Transfer-Encoding`, which is about the bytes that were read here.
    fields: Vec<Field>,
}

/// One field as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its name, in any case.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Both as they stand, where that is how it would be written again: with one space between them.
    whole: Option<&'a [u8]>,
}

impl<'a> Line<'a> {
    /// One that was not sent by anybody.
    #[must_use]
    pub const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            name,
            value,
            whole: None,
        }
    }

    /// Writes it again, name and value as they are.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        let Some(whole) = self.whole else {
            return write::field(out, self.name, self.value);
        };
        out.reserve(whole.len() + b"\r\n".len());
        out.extend_from_slice(whole);
        out.extend_from_slice(b"\r\n");
    }
}

/// Fields that most heads have no more of.
const USUAL_FIELDS: usize = 16;

impl Reply {
    /// Its fields in their order, names in the case they were sent in; without `Transfer-Encoding`, which is about the
    /// bytes that were read here.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let line = |field: &Field| Line {
            name: field.name.of(&self.head),
            value: field.value.of(&self.head),
            whole: field.whole(&self.head),
        };
        self.fields.iter().map(line)
    }

    /// The same as a map, whose values share the head's memory.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(USUAL_FIELDS.max(self.fields.len()));
        for field in &self.fields {
            let name = HeaderName::from_bytes(field.name.of(&self.head));
            let value = HeaderValue::from_maybe_shared(field.value.within(&self.head));
            // What passed is legal in both, so neither fails.
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        headers
    }
}

/// A response head that nobody should have to guess the meaning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// The first line is not `HTTP/1.x`, three digits and a reason.
    #[error("malformed status line")]
    StatusLine,
    /// A line does not end with CR LF, or not at all.
    #[error("malformed line ending")]
    LineEnding,
    /// A field's name is no token, or is followed by a space.
    #[error("malformed field name")]
    FieldName,
    /// A field's value holds a control byte, or goes on in the next line.
    #[error("malformed field value")]
    FieldValue,
    /// There are too many fields.
    #[error("more than {MAX_HEADERS} fields")]
    TooManyHeaders,
    /// `Content-Length` is no number, or there are two.
    #[error("malformed content-length")]
    ContentLength,
    /// `Transfer-Encoding` is not just `chunked`.
    #[error("transfer-encoding that is not just chunked")]
    TransferEncoding,
    /// There are both.
    #[error("both content-length and transfer-encoding")]
    TwoLengths,
}

/// Reads one whole head, its empty line included. `bodiless` says that it answers HEAD.
///
/// # Errors
/// When anything in it is malformed, ambiguous or over a limit.
pub fn parse_reply(head: &Bytes, bodiless: bool) -> Result<Reply, BadReply> {
    let end = line_end(head, 0)?;
    let (status, version_1_0) = status_line(&head[..end])?;
    let legal = class::is_lines(head);
    let mut said = Said::default();
    let mut fields = Vec::with_capacity(USUAL_FIELDS);
    let mut start = end + 2;
    let mut count = 0;
    loop {
        let end = line_end(head, start)?;
        if end == start {
            break;
        }
        count += 1;
        if count > MAX_HEADERS {
            return Err(BadReply::TooManyHeaders);
        }
        let field = field(head, start, end, legal)?;
        if said.take(field.name.of(head), field.value.of(head))? {
            fields.push(field);
        }
        start = end + 2;
    }
    let body = said.body(status, version_1_0, bodiless)?;
    Ok(Reply {
        status,
        length: said.length,
        body,
        persists: !said.close && !version_1_0 && body != ReplyBody::UntilClose,
        dated: said.dated,
        head: head.clone(),
        fields,
    })
}

/// Where the line that starts at `start` ends: before its CR LF. Neither stands anywhere else in it.
fn line_end(head: &[u8], start: usize) -> Result<usize, BadReply> {
    let line = head.get(start..).unwrap_or_default();
    let end = memchr::memchr2(b'\r', b'\n', line).ok_or(BadReply::LineEnding)?;
    if line[end..].starts_with(b"\r\n") {
        Ok(start + end)
    } else {
        Err(BadReply::LineEnding)
    }
}

/// The status, and whether the version is 1.0. The space in front of an empty reason is often left out.
fn status_line(line: &[u8]) -> Result<(StatusCode, bool), BadReply> {
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(BadReply::StatusLine)?;
    let [minor, b' ', digits @ ..] = rest else {
        return Err(BadReply::StatusLine);
    };
    let (code, reason) = digits.split_at_checked(3).ok_or(BadReply::StatusLine)?;
    let legal = match reason {
        [] => true,
        [b' ', reason @ ..] => reason.iter().copied().all(super::is_field_value),
        _ => false,
    };
    let version_1_0 = match minor {
        b'0' => true,
        b'1' => false,
        _ => return Err(BadReply::StatusLine),
    };
    let status = StatusCode::from_bytes(code).map_err(|_| BadReply::StatusLine)?;
    if !legal || status.as_u16() > 599 {
        return Err(BadReply::StatusLine);
    }
    Ok((status, version_1_0))
}

/// The field of one line; `legal` when nothing in the head can be wrong with a value.
fn field(head: &[u8], start: usize, end: usize, legal: bool) -> Result<Field, BadReply> {
    let line = &head[start..end];
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(BadReply::FieldValue);
    }
    let colon = class::run(line, class::TOKEN);
    if colon == 0 || line.get(colon) != Some(&b':') {
        return Err(BadReply::FieldName);
    }
    let raw = &line[colon + 1..];
    if !legal && !class::is_value(raw) {
        return Err(BadReply::FieldValue);
    }
    let value = raw.trim_ascii_start();
    let value_start = end - value.len();
    Ok(Field {
        name: Span::new(start, start + colon),
        value: Span::new(value_start, value_start + value.trim_ascii_end().len()),
        known: UNKNOWN,
    })
}

/// What the fields said about the message and the connection.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    dated: bool,
}

impl Said {
    /// False for a field that is not passed on.
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<bool, BadReply> {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"date") => self.dated = true,
            14 if is(b"content-length") => {
                let length = content_length(value).map_err(|_| BadReply::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(BadReply::ContentLength);
                }
            }
            17 if is(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadReply::TransferEncoding);
                }
                self.chunked = true;
                return Ok(false);
            }
            10 if is(b"connection") => {
                self.close |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"close"));
            }
            _ => {}
        }
        Ok(true)
    }

    /// RFC 9112 6.3.
    fn body(
        &self,
        status: StatusCode,
        version_1_0: bool,
        bodiless: bool,
    ) -> Result<ReplyBody, BadReply> {
        if self.chunked && version_1_0 {
            return Err(BadReply::TransferEncoding);
        }
        if self.chunked && self.length.is_some() {
            return Err(BadReply::TwoLengths);
        }
        let never = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match self.length {
            _ if never || bodiless => ReplyBody::None,
            None if self.chunked => ReplyBody::Chunked,
            None => ReplyBody::UntilClose,
            Some(0) => ReplyBody::None,
            Some(length) => ReplyBody::Length(length),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Reply, BadReply> {
        parse_reply(&Bytes::copy_from_slice(text.as_bytes()), false)
    }

    fn with(fields: &str) -> Result<(ReplyBody, bool), BadReply> {
        parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).map(|reply| (reply.body, reply.persists))
    }

    #[test]
    fn bodies_are_framed_by_one_length_by_chunks_or_by_the_end() {
        for (fields, expected) in [
            ("Content-Length: 0\r\n", (ReplyBody::None, true)),
            ("content-length:\t12 \r\n", (ReplyBody::Length(12), true)),
            ("Transfer-Encoding: Chunked\r\n", (ReplyBody::Chunked, true)),
            (
                "Transfer-Encoding: chunked\r\nConnection: foo, Close\r\n",
                (ReplyBody::Chunked, false),
            ),
            ("X_Own:\r\nY: caf\u{e9}\r\n", (ReplyBody::UntilClose, false)),
        ] {
            assert_eq!(with(fields), Ok(expected), "{fields:?}");
        }
        for status in [
            "100 Continue",
            "103 Early Hints",
            "204 No Content",
            "304 Not Modified",
        ] {
            let reply = parse(&format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n")).unwrap();
            assert_eq!(
                (reply.body, reply.persists),
                (ReplyBody::None, true),
                "{status}"
            );
        }
        let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(parse_reply(&head, true).unwrap().body, ReplyBody::None);
        let old = parse("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n");
        assert!(!old.unwrap().persists);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (fields, expected) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                BadReply::TwoLengths,
            ),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                BadReply::ContentLength,
            ),
            ("Content-Length: 5, 5\r\n", BadReply::ContentLength),
            ("Content-Length: +5\r\n", BadReply::ContentLength),
            ("Content-Length:\r\n", BadReply::ContentLength),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                BadReply::TransferEncoding,
            ),
            (
                "Transfer-Encoding: identity\r\n",
                BadReply::TransferEncoding,
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                BadReply::TransferEncoding,
            ),
            ("Content-Length : 5\r\n", BadReply::FieldName),
            ("NoColon\r\n", BadReply::FieldName),
            (": a\r\n", BadReply::FieldName),
            (" folded: a\r\n", BadReply::FieldValue),
            ("A: b\r\n folded\r\n", BadReply::FieldValue),
            ("A: b\0c\r\n", BadReply::FieldValue),
            ("A: \u{c}b\r\n", BadReply::FieldValue),
            ("A: b\rc\r\n", BadReply::LineEnding),
            ("A: b\nC: d\r\n", BadReply::LineEnding),
        ] {
            assert_eq!(with(fields), Err(expected), "{fields:?}");
        }
        let old = parse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old.unwrap_err(), BadReply::TransferEncoding);
        assert!(with(&"A: b\r\n".repeat(MAX_HEADERS)).is_ok());
        assert_eq!(
            with(&"A: b\r\n".repeat(MAX_HEADERS + 1)),
            Err(BadReply::TooManyHeaders)
        );
    }

    #[test]
    fn a_status_line_has_a_version_three_digits_and_perhaps_a_reason() {
        for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 599 \u{e4} b\tc"] {
            assert!(parse(&format!("{line}\r\n\r\n")).is_ok(), "{line:?}");
        }
        for line in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1 200OK",
            "HTTP/1.1  200 OK",
            "HTTP/1.2 200 OK",
            "HTTP/2 200 OK",
            "http/1.1 200 OK",
            "ICY 200 OK",
            "HTTP/1.1 099 a",
            "HTTP/1.1 600 a",
            "HTTP/1.1 2x0 a",
            "HTTP/1.1 200 a\0",
        ] {
            let refused = parse(&format!("{line}\r\n\r\n")).unwrap_err();
            assert_eq!(refused, BadReply::StatusLine, "{line:?}");
        }
    }

    #[test]
    fn fields_are_kept_in_order_but_for_those_of_the_framing() {
        let reply = parse(
            "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nTransfer-Encoding: chunked\r\nset-cookie:  b \r\n\r\n",
        );
        let headers = reply.unwrap().headers();
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a", "b"]);
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn lines_are_written_again_with_one_space() {
        let reply =
            parse("HTTP/1.1 200 OK\r\nServer: a b\r\nX:\tc \r\nY:d\r\nDate: now\r\n\r\n").unwrap();
        let mut out = Vec::new();
        for line in reply.lines().chain([Line::new(b"own", b"e")]) {
            line.write(&mut out);
        }
        assert_eq!(
            out,
            b"Server: a b\r\nX: c\r\nY: d\r\nDate: now\r\nown: e\r\n"
        );
        assert!(reply.dated && !parse("HTTP/1.1 200 OK\r\nUpdate: a\r\n\r\n").unwrap().dated);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_none_that_pass_hold_a_bare_line_end(
            at in 0usize..60,
            byte in any::<u8>(),
            rest in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = parse_reply(&Bytes::from(rest), false);
            let mut head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\n".to_vec();
            let at = at.min(head.len() - 1);
            head[at] = byte;
            if parse_reply(&Bytes::from(head.clone()), false).is_ok() {
                for (index, byte) in head.iter().enumerate() {
                    match byte {
                        b'\n' => prop_assert_eq!(head[index - 1], b'\r'),
                        b'\r' => prop_assert_eq!(head[index + 1], b'\n'),
                        _ => prop_assert!(super::super::is_field_value(*byte)),
                    }
                }
            }
        }
    }
}
