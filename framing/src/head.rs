//! What a request head says and frames, and whether it may pass at all.
//!
//! Pure, and stricter than any parser behind it, so that all read every head that passes in the
//! same way. RFC 9112 sections 2 to 6 say what is legal; what has led to smuggling is refused even
//! where it is. What passed is kept as places in the head's bytes.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::fields::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Field, HOST, Lines, Span, TE, TRANSFER_ENCODING, UPGRADE,
    known,
};
use super::{Refusal, class, is_token};
use crate::limits::{MAX_HEADERS, MAX_METHOD_BYTES, MAX_TARGET_BYTES};

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// It has this many bytes.
    Length(u64),
    /// It is chunked.
    Chunked,
}

/// One request head that may pass. Its places are those of the bytes it was read from.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Its method.
    pub method: Method,
    /// Whether it is HTTP/1.0; else HTTP/1.1.
    pub version_1_0: bool,
    /// The target as sent.
    pub target: Span,
    /// The path as sent, at least `/`, or `*`.
    pub path: Span,
    /// The query, without the question mark.
    pub query: Option<Span>,
    /// The `Host`, which an absolute target agrees with.
    pub host: Span,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client wants to use the connection again (RFC 9112 9.3).
    pub persists: bool,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1).
    pub expects: bool,
    /// Whether it asks for another protocol (RFC 9110 7.8).
    pub upgrades: bool,
    /// Whether it takes trailers (RFC 9110 10.1.4).
    pub takes_trailers: bool,
    /// A bit for each known name that has a field.
    pub present: u32,
    fields: Vec<Field>,
}

/// Checks one whole head, its empty line included.
///
/// # Errors
/// When anything in it is malformed, ambiguous or over a limit.
pub fn parse(head: &[u8]) -> Result<Head, Refusal> {
    let mut parsed = Head::default();
    parsed.read(head).map(|()| parsed)
}

impl Head {
    /// As [`parse`], into the place of an older head. After an error it holds nothing of use.
    ///
    /// # Errors
    /// When anything in it is malformed, ambiguous or over a limit.
    pub fn read(&mut self, head: &[u8]) -> Result<(), Refusal> {
        self.fields.clear();
        let end = line_end(head, 0)?;
        let authority = self
            .request_line(head, end)
            .map_err(|refusal| blame(&head[..end], refusal))?;
        let mut said = Said::default();
        let mut start = end + 2;
        loop {
            let end = line_end(head, start)?;
            if end == start {
                return self.conclude(head, authority, &said);
            }
            if self.fields.len() == MAX_HEADERS {
                return Err(Refusal::TooManyHeaders);
            }
            self.field(head, start, end, &mut said)
                .map_err(|refusal| blame(&head[start..end], refusal))?;
            start = end + 2;
        }
    }

    /// Its fields. `head` must be the bytes it was read from.
    #[must_use]
    #[inline]
    pub fn fields<'a>(&'a self, head: &'a [u8]) -> Lines<'a> {
        Lines {
            head,
            fields: &self.fields,
            asked: None,
        }
    }

    /// The same head as the types of the `http` crate. `head` must be the bytes it was read from.
    #[must_use]
    pub fn to_parts(&self, head: &Bytes) -> http::request::Parts {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = Uri::from_maybe_shared(self.target.within(head)).unwrap_or_default();
        parts.version = if self.version_1_0 {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        };
        parts.headers = HeaderMap::with_capacity(self.fields.len());
        for field in &self.fields {
            let name = field.header_name(head);
            let value = HeaderValue::from_maybe_shared(field.value.within(head));
            // What passed is legal in both, so neither fails.
            if let (Some(name), Ok(value)) = (name, value) {
                parts.headers.append(name, value);
            }
        }
        parts
    }

    /// The authority of an absolute-form target.
    fn request_line(&mut self, head: &[u8], end: usize) -> Result<Option<Span>, Refusal> {
        let line = &head[..end];
        let first = memchr::memchr(b' ', line).ok_or(Refusal::RequestLine)?;
        let rest = &line[first + 1..];
        let second = first + 1 + memchr::memchr(b' ', rest).ok_or(Refusal::RequestLine)?;
        let (method, target, version) = (
            &line[..first],
            &line[first + 1..second],
            &line[second + 1..],
        );
        if method.is_empty()
            || method.len() > MAX_METHOD_BYTES
            || !method.iter().copied().all(is_token)
        {
            return Err(Refusal::RequestLine);
        }
        self.version_1_0 = version_1_0(version)?;
        match method {
            b"CONNECT" => return Err(Refusal::Connect),
            // What HTTP/2 begins with, so that no server of HTTP/1 takes it for a request (RFC 9113 3.4).
            b"PRI" => return Err(Refusal::RequestLine),
            _ => {}
        }
        self.method = Method::from_bytes(method).map_err(|_| Refusal::RequestLine)?;
        self.target = Span::new(first + 1, second);
        self.target(target, first + 1)
    }

    /// Checks a target (RFC 9112 3.2) that starts `at` this place.
    fn target(&mut self, target: &[u8], at: usize) -> Result<Option<Span>, Refusal> {
        if target.len() > MAX_TARGET_BYTES {
            return Err(Refusal::TargetTooLong);
        }
        let end = at + target.len();
        self.query = None;
        if target == b"*" {
            self.path = Span::new(at, end);
            return if self.method == Method::OPTIONS {
                Ok(None)
            } else {
                Err(Refusal::Target)
            };
        }
        let authority = match target {
            [b'/', ..] => None,
            _ => Some(absolute_authority(target).ok_or(Refusal::Target)?),
        };
        let path_start = authority.map_or(0, |(_, end)| end);
        let path_end = memchr::memchr(b'?', &target[path_start..])
            .map_or(target.len(), |query| path_start + query);
        if !class::all(&target[path_start..path_end], class::PATH) {
            return Err(Refusal::Target);
        }
        if path_end < target.len() {
            if !class::all(&target[path_end + 1..], class::QUERY) {
                return Err(Refusal::Target);
            }
            self.query = Some(Span::new(at + path_end + 1, end));
        }
        self.path = Span::new(at + path_start, at + path_end);
        // What the types of the `http` crate cannot hold must not pass; for a path alone the table says so.
        if authority.is_some() && Uri::try_from(target).is_err() {
            return Err(Refusal::Target);
        }
        Ok(authority.map(|(start, end)| Span::new(at + start, at + end)))
    }

    fn field(
        &mut self,
        head: &[u8],
        start: usize,
        end: usize,
        said: &mut Said,
    ) -> Result<(), Refusal> {
        let line = &head[start..end];
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::FieldValue);
        }
        let colon = class::run(line, class::NAME);
        if colon == 0 || line.get(colon) != Some(&b':') {
            return Err(Refusal::FieldName);
        }
        let (name, raw) = (&line[..colon], &line[colon + 1..]);
        if !class::is_value(raw) {
            return Err(Refusal::FieldValue);
        }
        let value_start = end - raw.trim_ascii_start().len();
        let value = raw.trim_ascii();
        let value_end = value_start + value.len();
        let number = known(name);
        let field = Field {
            name: Span::new(start, start + colon),
            value: Span::new(value_start, value_end),
            known: number,
        };
        said.take(number, value, field.value)?;
        self.fields.push(field);
        Ok(())
    }

    fn conclude(
        &mut self,
        head: &[u8],
        authority: Option<Span>,
        said: &Said,
    ) -> Result<(), Refusal> {
        self.host = said.host.ok_or(Refusal::Host)?;
        if authority.is_some_and(|authority| authority.of(head) != self.host.of(head)) {
            return Err(Refusal::Host);
        }
        self.framing = match (said.length, said.chunked) {
            (Some(_), true) => return Err(Refusal::TwoLengths),
            (None, true) if self.version_1_0 => return Err(Refusal::TransferEncoding),
            (None, true) => Framing::Chunked,
            (None | Some(0), false) => Framing::None,
            (Some(length), false) => Framing::Length(length),
        };
        self.persists = !said.close && (!self.version_1_0 || said.keep_alive);
        self.expects = said.expects && !self.version_1_0 && self.framing != Framing::None;
        self.upgrades = said.upgrade && said.upgrade_nominated && !self.version_1_0;
        self.takes_trailers = said.trailers && !self.version_1_0;
        self.present = said.present;
        Ok(())
    }
}

/// Where the line that starts at `start` ends: before its CR LF.
fn line_end(head: &[u8], start: usize) -> Result<usize, Refusal> {
    let line = head.get(start..).unwrap_or_default();
    // Without the empty line this is no whole head.
    let newline = memchr::memchr(b'\n', line).ok_or(Refusal::LineEnding)?;
    if newline == 0 || line[newline - 1] != b'\r' {
        return Err(Refusal::LineEnding);
    }
    Ok(start + newline - 1)
}

/// A CR within a line is what is wrong with it, whatever else it makes wrong.
fn blame(line: &[u8], refusal: Refusal) -> Refusal {
    if memchr::memchr(b'\r', line).is_some() {
        Refusal::LineEnding
    } else {
        refusal
    }
}

fn version_1_0(version: &[u8]) -> Result<bool, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::Version)
        }
        _ => Err(Refusal::RequestLine),
    }
}

/// From where to where the authority of an absolute target goes.
fn absolute_authority(target: &[u8]) -> Option<(usize, usize)> {
    let rest = target
        .strip_prefix(b"http://")
        .or_else(|| target.strip_prefix(b"https://"))?;
    let start = target.len() - rest.len();
    let length = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    Some((start, start + length))
}

/// What the fields said about the message and the connection.
#[derive(Default)]
struct Said {
    present: u32,
    host: Option<Span>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    upgrade_nominated: bool,
    expects: bool,
    trailers: bool,
}

impl Said {
    fn take(&mut self, number: u8, value: &[u8], place: Span) -> Result<(), Refusal> {
        if let Some(bit) = 1u32.checked_shl(u32::from(number)) {
            self.present |= bit;
        }
        match number {
            HOST => {
                let second = self.host.replace(place).is_some();
                return if second || !is_authority(value) {
                    Err(Refusal::Host)
                } else {
                    Ok(())
                };
            }
            CONTENT_LENGTH => {
                let second = self.length.replace(content_length(value)?).is_some();
                return if second {
                    Err(Refusal::ContentLength)
                } else {
                    Ok(())
                };
            }
            TRANSFER_ENCODING => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::TransferEncoding);
                }
                self.chunked = true;
            }
            CONNECTION => self.connection(value),
            UPGRADE => self.upgrade = true,
            EXPECT => self.expects |= value.eq_ignore_ascii_case(b"100-continue"),
            TE => self.trailers |= tokens(value).any(|each| each.eq_ignore_ascii_case(b"trailers")),
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for token in tokens(value) {
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade_nominated |= token.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

/// The members of a list.
#[inline]
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Host and port, with no byte that could end an authority or hide a user in it, and no second way to say where one
/// ends and the other begins.
#[must_use]
#[inline]
pub fn is_authority(value: &[u8]) -> bool {
    let colon = memchr::memrchr(b':', value).filter(|_| !value.ends_with(b"]"));
    let (host, port) = colon.map_or((value, &[][..]), |colon| {
        (&value[..colon], &value[colon + 1..])
    });
    let legal = match host {
        [b'[', address @ .., b']'] => address
            .split(|byte| *byte == b':')
            .all(|part| class::all(part, class::HOST)),
        name => class::all(name, class::HOST),
    };
    legal && !host.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// Digits only: no sign, no list, nothing that overflows.
#[inline]
pub(super) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
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
    use crate::is_field_value;
    use http::HeaderName;
    use proptest::prelude::*;

    fn framing(text: &str) -> Result<Framing, Refusal> {
        parse(text.as_bytes()).map(|head| head.framing)
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
    fn an_authority_is_one_host_and_perhaps_a_port() {
        for good in [
            "a.example",
            "a.example.",
            "A_b-c~d",
            "a.example:",
            "a.example:1",
            "a.example:65535",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:443",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a.example:x",
            "a.example:-1",
            "a.example:123456",
            "a.example:1:2",
            "a.example:b.example",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:x",
            "[::1]:1:2",
            "a[b]",
            "u@a.example",
            "a.example/",
            "a b",
            "*.example",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
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
            ("PRI / HTTP/1.1", Refusal::RequestLine),
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

        #[test]
        fn a_path_passes_exactly_if_the_http_crate_can_hold_it(
            target in "/[ -~]{0,12}(\\?[ -~]{0,8})?",
        ) {
            let plain = target.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\".contains(&byte));
            let held = plain && Uri::try_from(&*target).is_ok();
            let head = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            let parsed = parse(head.as_bytes());
            prop_assert_eq!(parsed.is_ok(), held, "{:?}", parsed);
            if let Ok(parsed) = parsed {
                let uri = Uri::try_from(&*target).unwrap();
                prop_assert_eq!(parsed.path.text(head.as_bytes()), uri.path());
                prop_assert_eq!(parsed.query.map(|query| query.text(head.as_bytes())), uri.query());
            }
        }
    }

    fn said(text: &str) -> Head {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn connections_persist_as_version_and_client_say() {
        for (version, connection, persists) in [
            ("1.1", "", true),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: foo, Close\r\n", false),
            (
                "1.1",
                "Connection: keep-alive\r\nConnection: close\r\n",
                false,
            ),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: a.example\r\n{connection}\r\n");
            assert_eq!(said(&text).persists, persists, "{text:?}");
        }
    }

    #[test]
    fn a_head_says_where_everything_stands() {
        let text = "POST http://a.example/x/y?q=1 HTTP/1.1\r\nhOST: a.example\r\nX-Own:  some value \r\n\
            Content-Length: 3\r\nExpect: 100-Continue\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            TE: trailers, deflate\r\nX-Own: other\r\n\r\n";
        let (head, bytes) = (said(text), text.as_bytes());
        assert_eq!(head.method, Method::POST);
        assert_eq!(head.path.text(bytes), "/x/y");
        assert_eq!(head.query.map(|query| query.text(bytes)), Some("q=1"));
        assert_eq!(head.host.text(bytes), "a.example");
        assert_eq!(head.framing, Framing::Length(3));
        assert!(head.expects && head.upgrades && head.takes_trailers && head.persists);
        let own = HeaderName::from_static("x-own");
        let fields = head.fields(bytes);
        assert_eq!(
            fields.all(&own).collect::<Vec<_>>(),
            [b"some value".as_slice(), b"other"]
        );
        assert_eq!(
            fields.first(&http::header::TE),
            Some(b"trailers, deflate".as_slice())
        );
        let parts = head.to_parts(&Bytes::copy_from_slice(bytes));
        assert_eq!(parts.uri, "http://a.example/x/y?q=1");
        assert_eq!(parts.headers.len(), 8);
        assert_eq!(parts.headers["x-own"], "some value");
    }
}
