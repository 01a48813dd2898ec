//! The header fields of one head, where they stand in its bytes.
//!
//! Pure. Nothing is copied: a field is two places in the head. Names that matter to framing, or that an
//! answer may depend on, are known by a number, so that asking for one is no search
//! through text.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::header;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Where something stands in a head. A head is far shorter than 64 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// From `start` up to `end`, both within [`crate::limits::MAX_HEAD_BYTES`].
    #[inline]
    pub(super) fn new(start: usize, end: usize) -> Self {
        let place = |at| u16::try_from(at).expect("a head is shorter than 64 KiB");
        Self {
            start: place(start),
            end: place(end),
        }
    }

    /// What stands there.
    #[must_use]
    #[inline]
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(usize::from(self.start)..usize::from(self.end))
            .unwrap_or_default()
    }

    /// The same, sharing the head's memory.
    #[must_use]
    pub fn within(self, head: &Bytes) -> Bytes {
        let part = usize::from(self.start)..usize::from(self.end);
        if part.end <= head.len() {
            head.slice(part)
        } else {
            Bytes::new()
        }
    }

    /// The same as text. Only for what was found to be ASCII.
    #[must_use]
    #[inline]
    pub fn text(self, head: &[u8]) -> &str {
        std::str::from_utf8(self.of(head)).unwrap_or_default()
    }
}

/// One field: where its name and its value stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    pub(super) name: Span,
    pub(super) value: Span,
    /// Number of a name in [`KNOWN`], or [`UNKNOWN`].
    pub(super) known: u8,
}

impl Field {
    /// Name and value as they stand, with a colon and one space between them; none where they stand otherwise.
    pub(super) fn whole(self, head: &[u8]) -> Option<&[u8]> {
        let between = usize::from(self.name.end)..usize::from(self.value.start);
        let whole = usize::from(self.name.start)..usize::from(self.value.end);
        head.get(whole)
            .filter(|_| head.get(between).is_some_and(|between| between == b": "))
    }

    /// Its name. What is known does not have to be read again.
    pub(super) fn header_name(&self, head: &[u8]) -> Option<HeaderName> {
        match KNOWN.get(usize::from(self.known)) {
            Some(name) => Some(name.clone()),
            None => HeaderName::from_bytes(self.name.of(head)).ok(),
        }
    }
}

pub(super) const UNKNOWN: u8 = u8::MAX;

/// Names known by their place here: those that frame a message, those that answers depend on, and those that are logged. An
/// answer that asks for any other is still right, it is only never kept for the next request.
static KNOWN: [HeaderName; 24] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::EXPECT,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::COOKIE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
    header::ORIGIN,
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-dest"),
    header::REFERER,
    header::USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("want-repr-digest"),
];

pub(super) const HOST: u8 = 0;
pub(super) const CONNECTION: u8 = 1;
pub(super) const CONTENT_LENGTH: u8 = 2;
pub(super) const TRANSFER_ENCODING: u8 = 3;
pub(super) const TE: u8 = 4;
pub(super) const UPGRADE: u8 = 5;
pub(super) const EXPECT: u8 = 6;
/// `Referer`, for [`Lines::values`].
pub const REFERER: u8 = 20;
/// `User-Agent`, for [`Lines::values`].
pub const USER_AGENT: u8 = 21;
/// `traceparent`, for [`Lines::values`].
pub const TRACEPARENT: u8 = 22;

/// The number of a name, or [`UNKNOWN`].
#[inline]
pub(super) fn known(name: &[u8]) -> u8 {
    // By length first, so that most names are compared with at most two others.
    let candidates: &[u8] = match name.len() {
        2 => &[TE],
        4 => &[HOST],
        5 => &[16],
        6 => &[EXPECT, 7, 10, 17],
        7 => &[UPGRADE, REFERER],
        8 => &[11, 15],
        10 => &[CONNECTION, USER_AGENT],
        11 => &[TRACEPARENT],
        13 => &[12],
        14 => &[CONTENT_LENGTH, 18, 19],
        15 => &[8, 9],
        16 => &[23],
        17 => &[TRANSFER_ENCODING, 13],
        19 => &[14],
        _ => &[],
    };
    candidates
        .iter()
        .copied()
        .find(|number| {
            KNOWN[usize::from(*number)]
                .as_str()
                .as_bytes()
                .eq_ignore_ascii_case(name)
        })
        .unwrap_or(UNKNOWN)
}

/// Which fields were asked for.
#[derive(Debug, Default)]
pub struct Asked {
    /// A bit for each of [`KNOWN`].
    known: AtomicU32,
    other: AtomicU32,
}

impl Asked {
    /// The known ones, a bit each; none when others were asked for too.
    #[must_use]
    #[inline]
    pub fn known_only(&self) -> Option<u32> {
        (self.other.load(Ordering::Relaxed) == 0).then(|| self.known.load(Ordering::Relaxed))
    }

    #[inline]
    fn note(&self, number: u8) {
        if number == UNKNOWN {
            self.other.store(1, Ordering::Relaxed);
        } else {
            self.known.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

/// The fields of a head, in order, over its bytes.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    pub(super) head: &'a [u8],
    pub(super) fields: &'a [Field],
    pub(super) asked: Option<&'a Asked>,
}

impl<'a> Lines<'a> {
    /// No fields.
    #[must_use]
    #[inline]
    pub const fn none() -> Self {
        Self {
            head: &[],
            fields: &[],
            asked: None,
        }
    }

    /// The same, and `asked` notes which are asked for.
    #[must_use]
    #[inline]
    pub const fn noted(self, asked: &'a Asked) -> Self {
        Self {
            asked: Some(asked),
            ..self
        }
    }

    /// Name and value of each. The name is in any case.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        if let Some(asked) = self.asked {
            asked.note(UNKNOWN);
        }
        self.fields
            .iter()
            .map(move |field| (field.name.text(self.head), field.value.of(self.head)))
    }

    /// The values of every field with this name, in order.
    #[inline]
    pub fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let wanted = self.wanted(name);
        self.fields
            .iter()
            .filter(move |field| self.is(field, &wanted))
            .map(move |field| field.value.of(self.head))
    }

    /// The value of the first field with this name.
    #[must_use]
    #[inline]
    pub fn first(self, name: &HeaderName) -> Option<&'a [u8]> {
        let wanted = self.wanted(name);
        self.fields
            .iter()
            .find(|field| self.is(field, &wanted))
            .map(|field| field.value.of(self.head))
    }

    /// Which of the known names in `of` (a bit each) have a field, and their values one behind the other.
    #[inline]
    pub fn values(self, of: u32) -> impl Iterator<Item = (u8, &'a [u8])> {
        self.fields
            .iter()
            .filter(move |field| field.known != UNKNOWN && of & (1 << field.known) != 0)
            .map(move |field| (field.known, field.value.of(self.head)))
    }

    #[inline]
    fn wanted(self, name: &HeaderName) -> Wanted {
        let number = known(name.as_str().as_bytes());
        if let Some(asked) = self.asked {
            asked.note(number);
        }
        if number == UNKNOWN {
            Wanted::Name(name.clone())
        } else {
            Wanted::Known(number)
        }
    }

    #[inline]
    fn is(self, field: &Field, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::Known(number) => field.known == *number,
            Wanted::Name(name) => {
                field.known == UNKNOWN
                    && field
                        .name
                        .of(self.head)
                        .eq_ignore_ascii_case(name.as_str().as_bytes())
            }
        }
    }
}

/// The header fields of a request, as whatever parsed them keeps them.
#[derive(Clone, Copy, Debug)]
pub enum Fields<'a> {
    /// In a map.
    Map(&'a HeaderMap),
    /// In the bytes they came in.
    Lines(Lines<'a>),
}

impl<'a> Fields<'a> {
    /// The values of every field with this name, in order.
    #[inline]
    pub fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let (map, lines) = match self {
            Self::Map(map) => (Some(map), None),
            Self::Lines(lines) => (None, Some(lines)),
        };
        let mapped = map
            .into_iter()
            .flat_map(move |map| map.get_all(name).iter().map(HeaderValue::as_bytes));
        let listed = lines.into_iter().flat_map(move |lines| lines.all(name));
        mapped.chain(listed)
    }

    /// The value of the first field with this name.
    #[must_use]
    #[inline]
    pub fn first(self, name: &HeaderName) -> Option<&'a [u8]> {
        match self {
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
            Self::Lines(lines) => lines.first(name),
        }
    }
}

enum Wanted {
    Known(u8),
    Name(HeaderName),
}

impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the values: they are a client's, and some are secrets.
        f.debug_struct("Lines")
            .field("fields", &self.fields.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for (number, name) in KNOWN.iter().enumerate() {
            assert_eq!(usize::from(known(name.as_str().as_bytes())), number);
            assert_eq!(
                usize::from(known(name.as_str().to_uppercase().as_bytes())),
                number
            );
        }
        assert_eq!(known(b"x-other"), UNKNOWN);
        assert_eq!(known(b""), UNKNOWN);
    }
}
