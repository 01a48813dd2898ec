//! Whether a request's conditions hold (RFC 9110 13).
//!
//! Pure. In the order of 13.2.2: `If-Match`, else `If-Unmodified-Since`; `If-None-Match`, else
//! `If-Modified-Since`; then `If-Range`. Our validators are strong. Dates that cannot be read are ignored,
//! and so are all dates where a file has none.

use std::time::UNIX_EPOCH;

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderName, HeaderValue};

use crate::Fields;

/// What a request's conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They hold.
    Proceed,
    /// The client has it already: 304.
    NotModified,
    /// It is not what the client thinks: 412.
    Failed,
}

/// Judges the conditions of a GET or HEAD for what has the strong validator `etag` and was `modified` then,
/// in seconds since 1970.
#[must_use]
pub fn evaluate(fields: Fields<'_>, etag: &HeaderValue, modified: Option<u64>) -> Verdict {
    let etag = etag.as_bytes();
    if fields.first(&IF_MATCH).is_some() {
        if !fields
            .all(&IF_MATCH)
            .any(|list| lists(list, etag, Compare::Strong))
        {
            return Verdict::Failed;
        }
    } else if changed_since(fields, &IF_UNMODIFIED_SINCE, modified) == Some(true) {
        return Verdict::Failed;
    }
    if fields.first(&IF_NONE_MATCH).is_some() {
        if fields
            .all(&IF_NONE_MATCH)
            .any(|list| lists(list, etag, Compare::Weak))
        {
            return Verdict::NotModified;
        }
    } else if changed_since(fields, &IF_MODIFIED_SINCE, modified) == Some(false) {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether `If-Range` lets a range be sent: it must name the very bytes, or the very date (RFC 9110 13.1.5).
#[must_use]
pub fn range_applies(fields: Fields<'_>, etag: &HeaderValue, modified: Option<u64>) -> bool {
    match fields.first(&IF_RANGE).map(<[u8]>::trim_ascii) {
        None => true,
        Some(value) if value.starts_with(b"\"") => value == etag.as_bytes(),
        Some(value) => modified.is_some() && seconds(value) == modified,
    }
}

/// None where there is nothing to compare.
fn changed_since(fields: Fields<'_>, name: &HeaderName, modified: Option<u64>) -> Option<bool> {
    Some(modified? > seconds(fields.first(name)?)?)
}

fn seconds(date: &[u8]) -> Option<u64> {
    let date = std::str::from_utf8(date).ok()?;
    let date = httpdate::parse_http_date(date.trim()).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// Whether a list of tags names `etag`. A malformed list does as far as it could be read.
fn lists(value: &[u8], etag: &[u8], compare: Compare) -> bool {
    let mut rest = value.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while !rest.is_empty() {
        let (tag, weak) = match rest.strip_prefix(b"W/") {
            Some(tag) => (tag, true),
            None => (rest, false),
        };
        let Some(end) = tag
            .strip_prefix(b"\"")
            .and_then(|inside| memchr::memchr(b'"', inside))
        else {
            return false;
        };
        // Both quotes belong to the tag.
        let (tag, after) = tag.split_at(end + 2);
        if tag == etag && !(weak && compare == Compare::Strong) {
            return true;
        }
        // A quoted tag may hold a comma, so the list is split behind each tag.
        rest = match after.trim_ascii_start().strip_prefix(b",") {
            Some(next) => next.trim_ascii_start(),
            None => return false,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;

    #[test]
    fn lists_wildcards_and_weak_tags_are_compared_weakly() {
        for value in [
            "\"x\"",
            "W/\"x\"",
            "*",
            " * ",
            "\"a\", \"x\"",
            "\"a\",W/\"x\"",
            "\"a,b\" , \"x\" ,",
            "\"x\" garbage",
        ] {
            assert!(
                lists(value.as_bytes(), b"\"x\"", Compare::Weak),
                "{value} did not match"
            );
        }
        for value in [
            "",
            "x",
            "\"X\"",
            "\"x",
            "w/\"x\"",
            "\"a\"",
            "\"ax\"",
            "\"a\" \"x\"",
            "a, \"x\"",
            "**",
            "W/*",
            "\"a, \"x\"",
        ] {
            assert!(
                !lists(value.as_bytes(), b"\"x\"", Compare::Weak),
                "{value} matched"
            );
        }
        assert!(!lists(b"W/\"x\"", b"\"x\"", Compare::Strong));
        assert!(lists(b"W/\"x\", \"x\"", b"\"x\"", Compare::Strong));
    }

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    fn verdict(lines: &[(&str, &str)], modified: Option<u64>) -> Verdict {
        let fields = map(lines);
        evaluate(
            Fields::Map(&fields),
            &HeaderValue::from_static("\"x\""),
            modified,
        )
    }

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| {
            let name = HeaderName::try_from(*name).unwrap();
            (name, HeaderValue::try_from(*value).unwrap())
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        use Verdict::{Failed, NotModified, Proceed};
        let then = Some(784_111_777);
        for (lines, expected) in [
            (&[][..], Proceed),
            (&[("If-Match", "\"x\"")], Proceed),
            (&[("If-Match", "*")], Proceed),
            (&[("If-Match", "\"y\"")], Failed),
            (&[("If-Match", "W/\"x\"")], Failed),
            (
                &[("If-Match", "\"x\""), ("If-Unmodified-Since", EARLIER)],
                Proceed,
            ),
            (&[("If-Match", "\"y\""), ("If-None-Match", "\"x\"")], Failed),
            (
                &[("If-Match", "\"x\""), ("If-None-Match", "\"x\"")],
                NotModified,
            ),
            (&[("If-Unmodified-Since", EARLIER)], Failed),
            (&[("If-Unmodified-Since", THEN)], Proceed),
            (&[("If-Unmodified-Since", "yesterday")], Proceed),
            (&[("If-None-Match", "W/\"x\"")], NotModified),
            (&[("If-None-Match", "\"y\"")], Proceed),
            (
                &[("If-None-Match", "\"y\""), ("If-Modified-Since", LATER)],
                Proceed,
            ),
            (&[("If-Modified-Since", THEN)], NotModified),
            (&[("If-Modified-Since", LATER)], NotModified),
            (&[("If-Modified-Since", EARLIER)], Proceed),
            (&[("If-Modified-Since", "never")], Proceed),
        ] {
            assert_eq!(verdict(lines, then), expected, "{lines:?}");
        }
        assert_eq!(verdict(&[("If-Modified-Since", LATER)], None), Proceed);
        assert_eq!(verdict(&[("If-Unmodified-Since", EARLIER)], None), Proceed);
    }

    #[test]
    fn if_range_takes_only_the_very_bytes_or_the_very_date() {
        for (value, applies) in [
            ("\"x\"", true),
            ("W/\"x\"", false),
            ("\"y\"", false),
            (THEN, true),
            (LATER, false),
            (EARLIER, false),
            ("", false),
        ] {
            let fields = map(&[("If-Range", value)]);
            let etag = HeaderValue::from_static("\"x\"");
            let got = range_applies(Fields::Map(&fields), &etag, Some(784_111_777));
            assert_eq!(got, applies, "{value}");
        }
        assert!(range_applies(
            Fields::Map(&HeaderMap::new()),
            &HeaderValue::from_static("\"x\""),
            None
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(value in proptest::collection::vec(proptest::sample::select(b"W/\"x, *".to_vec()), 0..30)) {
            lists(&value, b"\"x\"", Compare::Weak);
        }
    }
}
