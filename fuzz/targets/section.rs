//! Field sections of HTTP/3: decoded within their limit or not at all, and the same when they are written and read again.
//!
//! The first two bytes are the limit.
#![no_main]

use helix_framing::qpack::{decode, encode_trailers};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// What each field counts beyond its bytes (RFC 9114 4.2.2).
const OVERHEAD: usize = 32;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fuzz_target!(|input: &[u8]| {
    let Some((limit, section)) = input.split_first_chunk::<2>() else {
        return;
    };
    let limit = usize::from(u16::from_le_bytes(*limit));
    let (is_whole, fields) = read(section, limit);
    let size: usize = fields
        .iter()
        .map(|(name, value)| name.len() + value.len() + OVERHEAD)
        .sum();
    assert!(size <= limit, "{size} of {limit}");
    if is_whole {
        is_the_same_again(&fields, limit);
    }
});

/// Whether all was read, and the fields that were.
fn read(section: &[u8], limit: usize) -> (bool, Fields) {
    let mut fields = Fields::new();
    let read = decode(section, limit, |name, value| {
        fields.push((name.to_vec(), value.to_vec()));
        Ok::<(), ()>(())
    });
    (read.is_ok(), fields)
}

fn is_the_same_again(fields: &Fields, limit: usize) {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        else {
            return;
        };
        map.append(name, value);
    }
    let mut section = Vec::new();
    encode_trailers(&map, &mut section);
    let (is_whole, again) = read(&section, limit);
    assert!(is_whole);
    let expected: Fields = map
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    assert_eq!(again, expected);
}
