//! Whether a client already has what it asks for (RFC 9110 13.1.2).
//!
//! Pure. Weak comparison: `W/"x"` in the request matches our strong `"x"`.

use http::HeaderValue;
use http::header::IF_NONE_MATCH;

use crate::answer::Fields;

/// Whether any `If-None-Match` in `headers` names `etag`, a strong validator. A malformed list matches
/// as far as it could be read.
#[must_use]
pub fn matches(fields: Fields<'_>, etag: &HeaderValue) -> bool {
    fields
        .all(&IF_NONE_MATCH)
        .any(|value| lists(value, etag.as_bytes()))
}

fn lists(value: &[u8], etag: &[u8]) -> bool {
    let mut rest = value.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while !rest.is_empty() {
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(end) = tag
            .strip_prefix(b"\"")
            .and_then(|inside| memchr::memchr(b'"', inside))
        else {
            return false;
        };
        // Both quotes belong to the tag.
        let (tag, after) = tag.split_at(end + 2);
        if tag == etag {
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
            assert!(lists(value.as_bytes(), b"\"x\""), "{value} did not match");
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
            assert!(!lists(value.as_bytes(), b"\"x\""), "{value} matched");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(value in proptest::collection::vec(proptest::sample::select(b"W/\"x, *".to_vec()), 0..30)) {
            lists(&value, b"\"x\"");
        }
    }
}
