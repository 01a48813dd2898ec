//! Chunked bodies: they end where a second, simpler reading of RFC 9112 7.1 says, however their bytes arrive, and
//! their trailers hold nothing that belongs in a head.
#![no_main]

use helix_framing::limits::{MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES};
use helix_framing::{ChunkError, ChunkPart, Chunks, is_field_name, is_field_value, trailers};
use helix_fuzz::Pieces;
use libfuzzer_sys::fuzz_target;

/// A body that has ended.
#[derive(Debug, PartialEq, Eq, Default)]
struct Body {
    data: Vec<u8>,
    trailers: Vec<u8>,
    length: usize,
}

fuzz_target!(|input: &[u8]| {
    let Some(pieces) = Pieces::of(input) else {
        return;
    };
    let expected = second_reading(pieces.bytes);
    let mut chunks = Chunks::new();
    let advanced = chunks.advance(pieces.bytes);
    let ended = advanced.ok().filter(|_| chunks.is_done());
    assert_eq!(ended, expected.as_ref().map(|body| body.length));
    assert_eq!(
        advanced_in_pieces(pieces),
        advanced.map(|length| (length, chunks.is_done()))
    );
    let parted = parted(pieces);
    assert_eq!(parted.is_err(), advanced.is_err());
    assert_eq!(parted.ok().flatten(), expected);
    if let Some(body) = expected {
        only_what_may_trail(&body.trailers);
    }
    only_what_may_trail(pieces.bytes);
});

fn advanced_in_pieces(pieces: Pieces<'_>) -> Result<(usize, bool), ChunkError> {
    let mut chunks = Chunks::new();
    let mut length = 0;
    for piece in pieces.ranges() {
        length += chunks.advance(&pieces.bytes[piece])?;
    }
    Ok((length, chunks.is_done()))
}

fn parted(pieces: Pieces<'_>) -> Result<Option<Body>, ChunkError> {
    let mut chunks = Chunks::new();
    let mut body = Body::default();
    for piece in pieces.ranges() {
        let mut rest = &pieces.bytes[piece];
        while !rest.is_empty() && !chunks.is_done() {
            let count = match chunks.part(rest)? {
                ChunkPart::Framing(count) => count,
                ChunkPart::Data(count) => {
                    body.data.extend_from_slice(&rest[..count]);
                    count
                }
                ChunkPart::Trailer(count) => {
                    body.trailers.extend_from_slice(&rest[..count]);
                    count
                }
            };
            assert!(count > 0, "no step forward");
            rest = &rest[count..];
            body.length += count;
        }
    }
    Ok(chunks.is_done().then_some(body))
}

/// The body at the start of `bytes`, if there is a whole one: line by line, with nothing kept between.
fn second_reading(bytes: &[u8]) -> Option<Body> {
    let mut body = Body::default();
    let mut rest = bytes;
    loop {
        let size_line = line(&mut rest)?;
        let digits = size_line.split(|byte| *byte == b';').next()?;
        let extension = &size_line[digits.len()..];
        let legal = (1..=15).contains(&digits.len())
            && digits.iter().all(u8::is_ascii_hexdigit)
            && is_extension(extension)
            && size_line.len() + 2 <= MAX_CHUNK_LINE_BYTES;
        if !legal {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let (data, after) = rest.split_at_checked(size)?;
        body.data.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n")?;
    }
    let section = rest;
    loop {
        let field = line(&mut rest)?;
        if field.is_empty() {
            break;
        }
        let colon = field.iter().position(|byte| *byte == b':')?;
        let (name, value) = field.split_at(colon);
        if name.is_empty()
            || !name.iter().copied().all(is_field_name)
            || !value.iter().copied().all(is_field_value)
        {
            return None;
        }
    }
    let section = &section[..section.len() - rest.len()];
    if section.len() > MAX_TRAILER_BYTES {
        return None;
    }
    body.trailers
        .extend_from_slice(&section[..section.len() - 2]);
    body.length = bytes.len() - rest.len();
    Some(body)
}

/// Whether these are extensions (RFC 9112 7.1.1) without white space around their signs.
fn is_extension(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b";") else {
        return bytes.is_empty();
    };
    let Some(rest) = after_token(rest) else {
        return false;
    };
    match rest.strip_prefix(b"=") {
        None => is_extension(rest),
        Some([b'"', quoted @ ..]) => after_quoted(quoted).is_some_and(is_extension),
        Some(value) => after_token(value).is_some_and(is_extension),
    }
}

/// What follows a token of at least one byte.
fn after_token(bytes: &[u8]) -> Option<&[u8]> {
    let is_token = |byte: &u8| is_field_name(*byte) || *byte == b'_';
    let length = bytes.iter().take_while(|byte| is_token(byte)).count();
    (length > 0).then(|| &bytes[length..])
}

/// What follows a quoted string whose first quote was taken.
fn after_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let (first, rest) = bytes.split_first()?;
    match first {
        b'"' => Some(rest),
        b'\\' if is_field_value(*rest.first()?) => after_quoted(&rest[1..]),
        b'\\' => None,
        byte => is_field_value(*byte).then(|| after_quoted(rest))?,
    }
}

/// Takes one line with its CR LF, in which no other CR or LF lies.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let (line, after) = rest.split_at(end);
    *rest = after.strip_prefix(b"\r\n")?;
    Some(line)
}

fn only_what_may_trail(section: &[u8]) {
    let Some(fields) = trailers(section) else {
        return;
    };
    assert!(!fields.is_empty());
    for never in [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "te",
        "trailer",
        "cookie",
        "authorization",
    ] {
        assert!(!fields.contains_key(never), "{never} in a trailer");
    }
}
