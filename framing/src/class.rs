//! Which bytes may stand where in a head, as a table: each is looked at once.

use super::{is_field_name, is_field_value, is_token};

/// In a field name.
pub(super) const NAME: u8 = 1;
/// In a token (RFC 9110 5.6.2).
pub(super) const TOKEN: u8 = 8;
/// In a path.
pub(super) const PATH: u8 = 2;
/// In a query.
pub(super) const QUERY: u8 = 4;
/// In the name that an authority holds.
pub(super) const HOST: u8 = 16;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0u8;
    loop {
        if is_field_name(byte) {
            classes[byte as usize] |= NAME;
        }
        if is_token(byte) {
            classes[byte as usize] |= TOKEN;
        }
        if is_path(byte) {
            classes[byte as usize] |= PATH;
        }
        if is_query(byte) {
            classes[byte as usize] |= QUERY;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            classes[byte as usize] |= HOST;
        }
        if byte == u8::MAX {
            return classes;
        }
        byte += 1;
    }
}

/// What the `http` crate takes in a path, without what everyone who means well escapes.
const fn is_path(byte: u8) -> bool {
    is_query(byte) && !matches!(byte, b'?' | b'`')
}

/// A fragment is never sent; quotes and angle brackets are escaped by everyone who means well.
const fn is_query(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\')
}

/// How many of the first of `bytes` may stand there. For what is short: names.
pub(super) fn run(bytes: &[u8], class: u8) -> usize {
    let other = |byte: &u8| CLASSES[usize::from(*byte)] & class == 0;
    bytes.iter().position(other).unwrap_or(bytes.len())
}

/// Whether all of `bytes` may stand there.
#[inline]
pub(super) fn all(bytes: &[u8], class: u8) -> bool {
    bytes
        .iter()
        .fold(class, |all, byte| all & CLASSES[usize::from(*byte)])
        == class
}

/// Whether all of `bytes` may stand in a field value or end a line. A whole head is told at once, since there is mostly
/// nothing wrong with any of its lines.
#[inline]
pub(super) fn is_lines(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, byte| {
        all & (is_field_value(*byte) | (*byte == b'\r') | (*byte == b'\n'))
    })
}

/// Whether all of `bytes` may stand in a field value. Without an early end, so that many are compared at once.
#[inline]
pub(super) fn is_value(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .fold(true, |all, byte| all & is_field_value(*byte))
}
