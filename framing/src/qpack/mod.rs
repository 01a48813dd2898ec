//! Field sections (RFC 9204) without a dynamic table: nothing a client sends is remembered.
//!
//! Pure. The edge offers a table of no size, so a section that refers to one is malformed, and what
//! a section may expand to is limited before it is expanded. It does not judge what a field says.

mod huffman;
mod table;

use bytes::BufMut;
use http::{HeaderMap, StatusCode};

use self::table::{STATIC, exact_index, name_index, status_index};

/// What each field counts beyond its bytes (RFC 9114 4.2.2).
const FIELD_OVERHEAD: usize = 32;

/// Longest number in a section. Lengths and indexes are far below it.
const MAX_NUMBER: usize = 1 << 24;

/// Why a field section was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QpackError<R> {
    /// It is no field section, or needs a table that was not offered.
    #[error("the field section cannot be decoded")]
    Malformed,
    /// It decodes to more than the limit.
    #[error("the field section is too large")]
    TooLarge,
    /// Whoever takes the fields refuses one.
    #[error("a field was refused")]
    Refused(R),
}

/// Gives name and value of each field in `section` to `take`, in order. `limit` is for the decoded
/// size as RFC 9114 4.2.2 counts it, in bytes.
///
/// # Errors
/// When the section is malformed or over the limit, or `take` refuses a field.
pub fn decode<R>(
    section: &[u8],
    limit: usize,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), R>,
) -> Result<(), QpackError<R>> {
    let mut rest = Section { bytes: section };
    // Required insert count, then sign and delta base: without a table all are zero.
    if rest.number(8) != Some(0) || rest.first()? & 0x80 != 0 || rest.number(7).is_none() {
        return Err(QpackError::Malformed);
    }
    let mut left = limit;
    let (mut name, mut value) = (Vec::new(), Vec::new());
    while !rest.bytes.is_empty() {
        let known = rest.field(left, &mut name, &mut value)?;
        let (name, value) = match known {
            Known::Both(name, value) => (name.as_bytes(), value.as_bytes()),
            Known::Name(name) => (name.as_bytes(), value.as_slice()),
            Known::Nothing => (name.as_slice(), value.as_slice()),
        };
        let size = name.len() + value.len() + FIELD_OVERHEAD;
        left = left.checked_sub(size).ok_or(QpackError::TooLarge)?;
        take(name, value).map_err(QpackError::Refused)?;
    }
    Ok(())
}

/// How much of a field is in the static table.
enum Known {
    Both(&'static str, &'static str),
    Name(&'static str),
    Nothing,
}

/// What is left of a section.
struct Section<'a> {
    bytes: &'a [u8],
}

impl Section<'_> {
    fn first<R>(&self) -> Result<u8, QpackError<R>> {
        self.bytes.first().copied().ok_or(QpackError::Malformed)
    }

    /// One field line (RFC 9204 4.5); what the static table does not know goes into `name` and `value`.
    fn field<R>(
        &mut self,
        limit: usize,
        name: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<Known, QpackError<R>> {
        let first = self.first()?;
        if first & 0xc0 == 0xc0 {
            let (name, value) = self.entry(6)?;
            return Ok(Known::Both(name, value));
        }
        let known = match first >> 4 {
            // A literal with a name from the static table; the bit before says never to index.
            0b0101 | 0b0111 => Known::Name(self.entry(4)?.0),
            0b0010 | 0b0011 => {
                self.text(3, limit, name)?;
                Known::Nothing
            }
            // The rest refers to the dynamic table.
            _ => return Err(QpackError::Malformed),
        };
        self.text(7, limit, value)?;
        Ok(known)
    }

    fn entry<R>(&mut self, prefix: u32) -> Result<(&'static str, &'static str), QpackError<R>> {
        self.number(prefix)
            .and_then(|index| STATIC.get(index).copied())
            .ok_or(QpackError::Malformed)
    }

    /// A string with its length in `prefix` bits, below the bit that says whether it is coded.
    fn text<R>(
        &mut self,
        prefix: u32,
        limit: usize,
        text: &mut Vec<u8>,
    ) -> Result<(), QpackError<R>> {
        text.clear();
        let coded = self.first()? >> prefix & 1 == 1;
        let length = self.number(prefix).ok_or(QpackError::Malformed)?;
        let (bytes, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(QpackError::Malformed)?;
        self.bytes = rest;
        if !coded && length > limit {
            return Err(QpackError::TooLarge);
        }
        if !coded {
            text.extend_from_slice(bytes);
            return Ok(());
        }
        huffman::decode(bytes, limit, text).ok_or(if text.len() >= limit {
            QpackError::TooLarge
        } else {
            QpackError::Malformed
        })
    }

    /// An integer that starts in the low `prefix` bits of a byte (RFC 7541 5.1).
    fn number(&mut self, prefix: u32) -> Option<usize> {
        let (first, mut rest) = self.bytes.split_first()?;
        let most = (1usize << prefix) - 1;
        let mut number = usize::from(*first) & most;
        if number == most {
            let mut shift = 0;
            loop {
                let (byte, after) = rest.split_first()?;
                rest = after;
                number += usize::from(byte & 0x7f) << shift;
                shift += 7;
                if number > MAX_NUMBER || shift > 28 {
                    return None;
                }
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        self.bytes = rest;
        Some(number)
    }
}

/// Writes the field section of a response. Strings are not Huffman-coded: that costs more than the
/// bytes it saves on a head that fits into the first packet anyway.
pub fn encode_response(status: StatusCode, headers: &HeaderMap, section: &mut impl BufMut) {
    section.put_slice(&[0, 0]);
    match status_index(status.as_u16()) {
        Some(index) => number(section, 0xc0, 6, index),
        None => {
            // Literal value under the name at 24.
            number(section, 0x50, 4, 24);
            text(section, 0, 7, status.as_str().as_bytes());
        }
    }
    encode_fields(headers, section);
}

/// Writes the field section of trailers.
pub fn encode_trailers(headers: &HeaderMap, section: &mut impl BufMut) {
    section.put_slice(&[0, 0]);
    encode_fields(headers, section);
}

fn encode_fields(headers: &HeaderMap, section: &mut impl BufMut) {
    for (name, value) in headers {
        let (name, value) = (name.as_str(), value.as_bytes());
        let Some(first) = name_index(name) else {
            text(section, 0x20, 3, name.as_bytes());
            text(section, 0, 7, value);
            continue;
        };
        match exact_index(first, name, value) {
            Some(index) => number(section, 0xc0, 6, index),
            None => {
                number(section, 0x50, 4, first);
                text(section, 0, 7, value);
            }
        }
    }
}

fn text(section: &mut impl BufMut, above: u8, prefix: u32, bytes: &[u8]) {
    number(section, above, prefix, bytes.len());
    section.put_slice(bytes);
}

fn number(section: &mut impl BufMut, above: u8, prefix: u32, value: usize) {
    let most = (1u8 << prefix) - 1;
    if value < usize::from(most) {
        return section.put_u8(above | u8::try_from(value).unwrap_or(most));
    }
    section.put_u8(above | most);
    let mut left = value - usize::from(most);
    while left >= 0x80 {
        section.put_u8(u8::try_from(left & 0x7f).unwrap_or(0) | 0x80);
        left >>= 7;
    }
    section.put_u8(u8::try_from(left).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Fields = Vec<(String, String)>;

    fn fields(section: &[u8], limit: usize) -> Result<Fields, QpackError<()>> {
        let mut fields = Vec::new();
        decode(section, limit, |name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            fields.push((text(name), text(value)));
            Ok(())
        })?;
        Ok(fields)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("content-type", "text/other"),
            ("etag", "\"abc\""),
            ("x-helix-release", "aaaa"),
            ("x-long", &"y".repeat(5000)),
        ] {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        for status in [200, 206, 418] {
            let mut section = Vec::new();
            let status = StatusCode::from_u16(status).unwrap();
            encode_response(status, &headers, &mut section);
            let read = fields(&section, 32 * 1024).unwrap();
            assert_eq!(read[0], pair(":status", status.as_str()));
            let written: Fields = headers
                .iter()
                .map(|(name, value)| pair(name.as_str(), value.to_str().unwrap()))
                .collect();
            assert_eq!(read[1..], written);
        }
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let section = hex::decode("0000510b2f696e6465782e68746d6c").unwrap();
        assert_eq!(
            fields(&section, 100),
            Ok(vec![pair(":path", "/index.html")])
        );
    }

    #[test]
    fn what_needs_a_table_or_is_cut_short_is_malformed() {
        for section in [
            "",
            "00",
            "0100c1",
            "008000",
            "000080",
            "0000ff",
            "0000ff24",
            "000010",
            "000000",
            "00004000",
            "0000510b2f",
            "000027",
            "0000ffffffffffffffff7f",
        ] {
            let section = hex::decode(section).unwrap();
            assert_eq!(
                fields(&section, 100),
                Err(QpackError::Malformed),
                "{section:x?}"
            );
        }
    }

    #[test]
    fn small_sections_that_mean_much_are_cut_at_the_limit() {
        // One byte each, 42 bytes decoded.
        let mut section = vec![0, 0];
        section.extend([0xd1; 1000]);
        assert_eq!(fields(&section, 4200), Err(QpackError::TooLarge));
        assert!(fields(&section, 42 * 1000).is_ok());
        // Five bits a byte.
        let mut section = vec![0, 0, 0x51, 0xff, 0xe1, 0x06];
        section.extend([0x18; 1000 - 40]);
        assert!(fields(&section, 500).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&bytes, 1000);
            let _ = fields(&[&[0, 0], bytes.as_slice()].concat(), 1000);
        }
    }
}
