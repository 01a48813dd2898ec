//! Requests in the bytes of every protocol, as no library would send them, and what came of them.
//!
//! Field sections are written without tables and without compression, so that what is said here is what arrives.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use quinn::{Connection, ReadToEndError};
use tokio::time::timeout;

use crate::support::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The longest payload that needs no leave.
const MAX_FRAME_BYTES: usize = 16 * 1024;

/// What came of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// None when it was broken off without one.
    pub(crate) status: Option<u16>,
    pub(crate) body: Vec<u8>,
}

impl Told {
    /// Whether it was broken off, or answered with one of the statuses that say so.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(
            self.status,
            None | Some(400 | 405 | 414 | 421 | 431 | 501 | 505)
        )
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A field, pseudo-fields among them.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// The fields of a request as it should be, in their order.
pub(crate) fn request<'a>(
    method: &'a str,
    authority: &'a str,
    path: &'a str,
    fields: &[Field<'a>],
) -> Vec<Field<'a>> {
    let mut all: Vec<Field<'a>> = vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":authority", authority.as_bytes()),
        (b":path", path.as_bytes()),
    ];
    all.extend_from_slice(fields);
    all
}

/// One frame of HTTP/2 (RFC 9113 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A request of HTTP/2 in frames: a head, and its body in these parts.
pub(crate) fn http2_request(stream: u32, fields: &[Field<'_>], body: &[&[u8]]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, 0, 7, text.len());
            block.extend_from_slice(text);
        }
    }
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    let mut parts = block.chunks(MAX_FRAME_BYTES).peekable();
    let (mut kind, mut flags, mut bytes) = (HEADERS, ends, Vec::new());
    while let Some(part) = parts.next() {
        flags |= if parts.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        bytes.extend(frame(kind, flags, stream, part));
        (kind, flags) = (CONTINUATION, 0);
    }
    for (number, part) in body.iter().enumerate() {
        let ends = if number + 1 == body.len() {
            END_STREAM
        } else {
            0
        };
        bytes.extend(frame(DATA, ends, stream, part));
    }
    bytes
}

/// Sends one request over HTTP/2, on a connection of its own.
pub(crate) fn over_http2(
    mut stream: impl Read + Write,
    fields: &[Field<'_>],
    body: &[&[u8]],
) -> Told {
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    let sent = [opening, http2_request(1, fields, body)].concat();
    // It may be refused half-way.
    let _ = stream.write_all(&sent).and_then(|()| stream.flush());
    let (mut told, mut received) = (Told::default(), Vec::new());
    let until = Instant::now() + PATIENCE;
    loop {
        while let Some((kind, flags, id, payload)) = take_frame(&mut received) {
            match kind {
                HEADERS if id == 1 => {
                    let status = http2_status(&payload);
                    told.status = Some(status).filter(|status| *status >= 200);
                }
                DATA if id == 1 => told.body.extend(payload),
                RST_STREAM | GOAWAY => return told,
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && id == 1 && flags & END_STREAM != 0 {
                return told;
            }
        }
        assert!(Instant::now() < until, "no end of {told:?}");
        let mut part = vec![0; 64 * 1024];
        match stream.read(&mut part) {
            Ok(read) if read > 0 => received.extend_from_slice(&part[..read]),
            Ok(_) => return told,
            Err(error) if is_the_end(&error) => return told,
            Err(error) => panic!("read: {error}"),
        }
    }
}

/// Sends the bytes of a request over HTTP/1, and takes one response; its head is given too.
pub(crate) fn over_http1(mut stream: impl Read + Write, bytes: &[u8]) -> (Told, String) {
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut received = Vec::new();
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
            let length = head.split("\r\ncontent-length: ").nth(1).map_or(0, |rest| {
                rest.split("\r\n").next().unwrap().parse().unwrap()
            });
            let status = head.strip_prefix("http/1.1 ").unwrap()[..3].parse().ok();
            if received.len() >= end + 4 + length {
                let body = received[end + 4..end + 4 + length].to_vec();
                return (Told { status, body }, head);
            }
        }
        let mut part = vec![0; 64 * 1024];
        match stream.read(&mut part) {
            Ok(read) if read > 0 => received.extend_from_slice(&part[..read]),
            Ok(_) => return (Told::default(), String::new()),
            Err(error) if is_the_end(&error) => return (Told::default(), String::new()),
            Err(error) => panic!("read: {error}"),
        }
    }
}

fn is_the_end(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
    )
}

/// Sends one request over HTTP/3, and takes its response.
pub(crate) async fn over_http3(
    connection: &Connection,
    fields: &[Field<'_>],
    body: &[&[u8]],
) -> Told {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        integer(&mut section, 0x20, 3, name.len());
        section.extend_from_slice(name);
        integer(&mut section, 0, 7, value.len());
        section.extend_from_slice(value);
    }
    let mut sent = http3_frame(1, &section);
    for part in body {
        sent.extend(http3_frame(0, part));
    }
    let Ok((mut send, mut receive)) = connection.open_bi().await else {
        return Told::default();
    };
    // It may be refused half-way.
    let _ = send.write_all(&sent).await;
    let _ = send.finish();
    let received = timeout(PATIENCE, receive.read_to_end(64 * 1024 * 1024)).await;
    match received.expect("the response ends") {
        Ok(bytes) => read_http3(&bytes),
        Err(ReadToEndError::Read(_)) => Told::default(),
        Err(error) => panic!("{error}"),
    }
}

/// One frame of HTTP/3 (RFC 9114 7.1).
pub(crate) fn http3_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap() | 0x8000_0000;
    [&[kind], length.to_be_bytes().as_slice(), payload].concat()
}

fn read_http3(mut bytes: &[u8]) -> Told {
    let mut told = Told::default();
    while !bytes.is_empty() {
        let kind = variable(&mut bytes);
        let length = usize::try_from(variable(&mut bytes)).unwrap();
        let (payload, rest) = bytes.split_at(length);
        match kind {
            0 => told.body.extend_from_slice(payload),
            1 => {
                let status = http3_status(payload);
                told.status = told
                    .status
                    .or_else(|| Some(status).filter(|status| *status >= 200));
            }
            _ => {}
        }
        bytes = rest;
    }
    told
}

fn variable(bytes: &mut &[u8]) -> u64 {
    let length = 1 << (bytes[0] >> 6);
    let (number, rest) = bytes.split_at(length);
    *bytes = rest;
    let first = u64::from(number[0] & 0x3f);
    number[1..]
        .iter()
        .fold(first, |sum, byte| sum << 8 | u64::from(*byte))
}

/// An integer of HPACK and QPACK (RFC 7541 5.1) behind the bits of `first`.
fn integer(into: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1 << prefix) - 1;
    if value < most {
        return into.push(first | u8::try_from(value).unwrap());
    }
    into.push(first | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        into.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    into.push(u8::try_from(rest).unwrap());
}

/// The next whole frame.
pub(crate) fn take_frame(received: &mut Vec<u8>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let [a, b, c, kind, flags, id @ ..] = *received.first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let payload = received.get(9..9 + length)?.to_vec();
    received.drain(..9 + length);
    Some((kind, flags, u32::from_be_bytes(id), payload))
}

/// The status at the start of a header block of HTTP/2: of the static table, or spelled out.
fn http2_status(mut block: &[u8]) -> u16 {
    // The table's size may be said first.
    while block[0] & 0xe0 == 0x20 {
        let long = block[0] & 0x1f == 0x1f;
        block = &block[1..];
        let end = block.iter().position(|byte| byte & 0x80 == 0).unwrap();
        block = &block[if long { end + 1 } else { 0 }..];
    }
    match *block {
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        [0x08 | 0x18 | 0x48, length, ref text @ ..] => {
            let text = &text[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 {
                std::str::from_utf8(text).unwrap().parse().unwrap()
            } else {
                huffman_digits(text)
            }
        }
        _ => panic!("a block without a status: {block:x?}"),
    }
}

/// Three digits in the code of RFC 7541: five bits up to 2, six bits from 3 on.
fn huffman_digits(text: &[u8]) -> u16 {
    let bits: Vec<u8> = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let mut at = 0;
    (0..3).fold(0, |sum, _| {
        let read = |length: usize| {
            bits[at..at + length]
                .iter()
                .fold(0u16, |sum, bit| sum << 1 | u16::from(*bit))
        };
        let (digit, length) = match read(5) {
            short @ 0..=2 => (short, 5),
            _ => (read(6) - 0x19 + 3, 6),
        };
        at += length;
        sum * 10 + digit
    })
}

/// The status at the start of a field section of HTTP/3 (RFC 9204, appendix A).
fn http3_status(section: &[u8]) -> u16 {
    let line = &section[2..];
    match *line {
        [0xff, more, ..] => [100, 204, 206, 302, 400, 403, 421, 425, 500][usize::from(more)],
        [indexed @ 0xd8..=0xdc, ..] => [103, 200, 304, 404, 503][usize::from(indexed - 0xd8)],
        [0x5f | 0x7f, 0x09, 3, ref text @ ..] => {
            std::str::from_utf8(&text[..3]).unwrap().parse().unwrap()
        }
        _ => panic!("a section without a status: {section:x?}"),
    }
}
