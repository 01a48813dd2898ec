//! Which part of a representation a client asks for (RFC 9110 14).
//!
//! Pure. What is malformed, in another unit or too much is ignored, as the RFC allows; ranges that overlap
//! or lie closer than what it costs to tell them apart become one.

use std::ops::Range;

use http::HeaderValue;

/// Most ranges of one request: viewers of documents ask for a few, more is made to cost us.
const MAX_RANGES: usize = 16;
/// Ranges closer than this many bytes become one: a part's own head is about as long.
const JOIN_BYTES: u64 = 128;

/// What is sent of a representation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// These bytes of it.
    One(Range<u64>),
    /// Several ranges, as `multipart/byteranges`.
    Many(Box<Multipart>),
}

/// What a `Range` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything, or nothing that makes sense.
    Whole,
    /// These, in order, none touching another.
    Ranges(Vec<Range<u64>>),
    /// Only what lies behind the end.
    Unsatisfiable,
}

/// What `value` asks for of `size` bytes.
#[must_use]
pub fn wanted(value: &[u8], size: u64) -> Wanted {
    let Some(specs) = value
        .split_at_checked(6)
        .filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
        .map(|(_, specs)| specs)
    else {
        return Wanted::Whole;
    };
    let mut ranges = Vec::new();
    for (at, spec) in specs.split(|byte| *byte == b',').enumerate() {
        let Some(spec) = Spec::parse(spec.trim_ascii()).filter(|_| at < MAX_RANGES) else {
            return Wanted::Whole;
        };
        ranges.extend(spec.of(size));
    }
    if ranges.is_empty() {
        return Wanted::Unsatisfiable;
    }
    Wanted::Ranges(joined(ranges))
}

enum Spec {
    From(u64, Option<u64>),
    Last(u64),
}

impl Spec {
    fn parse(spec: &[u8]) -> Option<Self> {
        let dash = spec.iter().position(|byte| *byte == b'-')?;
        let (first, last) = (&spec[..dash], &spec[dash + 1..]);
        match (first.is_empty(), last.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Self::Last(number(last)?)),
            (false, true) => Some(Self::From(number(first)?, None)),
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// The bytes of `size` it means, if any.
    fn of(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first, last) => {
                first..last.map_or(size, |last| last.saturating_add(1).min(size))
            }
            Self::Last(length) => size.saturating_sub(length)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Beyond what fits, as much as fits: it lies behind every end.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        })
    })
}

fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(JOIN_BYTES) => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// `Content-Range` of `range` of `size` bytes.
#[must_use]
pub fn content_range(range: &Range<u64>, size: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    HeaderValue::try_from(text).expect("numbers are ASCII")
}

/// Several ranges in one body (RFC 9110 14.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// Each range, with what is sent before it.
    pub parts: Vec<(String, Range<u64>)>,
    /// What is sent behind the last.
    pub end: String,
    /// `Content-Type` of the whole.
    pub content_type: HeaderValue,
}

impl Multipart {
    /// The body of `ranges` of `size` bytes of type `content_type`. `etag` is made of the digest of those
    /// bytes, and no bytes hold their own digest: it parts them.
    #[must_use]
    pub fn new(
        ranges: Vec<Range<u64>>,
        size: u64,
        content_type: &HeaderValue,
        etag: &HeaderValue,
    ) -> Self {
        let etag = etag.to_str().unwrap_or_default().trim_matches('"');
        let boundary = format!("helix-{}", &etag[..etag.len().min(40)]);
        let kind = content_type.to_str().unwrap_or("application/octet-stream");
        let head = |(at, range): (usize, Range<u64>)| {
            let before = if at == 0 { "" } else { "\r\n" };
            let (first, last) = (range.start, range.end - 1);
            let head = format!(
                "{before}--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            );
            (head, range)
        };
        let content_type = format!("multipart/byteranges; boundary={boundary}");
        Self {
            parts: ranges.into_iter().enumerate().map(head).collect(),
            end: format!("\r\n--{boundary}--\r\n"),
            content_type: HeaderValue::try_from(content_type).expect("a digest is ASCII"),
        }
    }

    /// Bytes of the whole body.
    #[must_use]
    pub fn length(&self) -> u64 {
        let parts = self.parts.iter();
        let parts = parts.map(|(head, range)| head.len() as u64 + (range.end - range.start));
        parts.sum::<u64>() + self.end.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[expect(
        clippy::single_range_in_vec_init,
        reason = "lists of one range are meant"
    )]
    fn ranges_are_read_as_the_rfc_has_them() {
        let ranges = |ranges: &[Range<u64>]| Wanted::Ranges(ranges.to_vec());
        for (value, expected) in [
            ("bytes=0-0", ranges(&[0..1])),
            ("Bytes=0-499", ranges(&[0..500])),
            ("bytes=500-", ranges(&[500..10_000])),
            ("bytes=-500", ranges(&[9500..10_000])),
            ("bytes=-20000", ranges(&[0..10_000])),
            ("bytes=9999-20000", ranges(&[9999..10_000])),
            ("bytes=0-99999999999999999999999", ranges(&[0..10_000])),
            ("bytes=0-0, 5000-5009", ranges(&[0..1, 5000..5010])),
            ("bytes=5000-5009,0-0", ranges(&[0..1, 5000..5010])),
            ("bytes=0-10,5-20,21-30", ranges(&[0..31])),
            ("bytes=0-10,100-110", ranges(&[0..111])),
            ("bytes=0-0,20000-", ranges(&[0..1])),
            ("bytes=10000-", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=20000-20001, -0", Wanted::Unsatisfiable),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=0-1,", Wanted::Whole),
            ("bytes=0-1,x", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes 0-1", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(wanted(value.as_bytes(), 10_000), expected, "{value}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Unsatisfiable);
        let many = vec!["0-0"; MAX_RANGES + 1].join(",");
        assert_eq!(
            wanted(format!("bytes={many}").as_bytes(), 10),
            Wanted::Whole
        );
    }

    proptest! {
        #[test]
        fn ranges_lie_within_and_apart(value in "bytes=[0-9,-]{0,40}", size in 0_u64..1000) {
            if let Wanted::Ranges(ranges) = wanted(value.as_bytes(), size) {
                prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size));
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end + JOIN_BYTES < pair[1].start));
                let multipart = Multipart::new(
                    ranges,
                    size,
                    &HeaderValue::from_static("text/plain"),
                    &HeaderValue::from_static("\"x\""),
                );
                let heads: usize = multipart.parts.iter().map(|(head, _)| head.len()).sum();
                prop_assert!(multipart.length() >= heads as u64);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = wanted(&value, 100);
        }
    }
}
