//! Pure. What caches on the way may do with a response that another visitor gets another of.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields in which an upstream speaks to shared caches alone (RFC 9213, Edge Architecture).
pub const TARGETED: [HeaderName; 2] = [
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
];
/// What they are set to where they are.
pub const NOT_SHARED: HeaderValue = HeaderValue::from_static("no-store");

/// `Cache-Control` for the visitor's own cache: as it was, without what it allowed others. `no-store` stays what it is.
#[must_use]
pub fn cache_control<'a>(said: impl Iterator<Item = &'a [u8]>) -> HeaderValue {
    let mut kept = vec!["private"];
    let said: Vec<_> = said
        .filter_map(|value| std::str::from_utf8(value).ok())
        .collect();
    for directive in said.iter().flat_map(|value| value.split(',')) {
        let directive = directive.trim();
        let name = directive.split('=').next().unwrap_or_default();
        let is_for_others = ["public", "private", "s-maxage", "proxy-revalidate"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other));
        if !directive.is_empty() && !is_for_others {
            kept.push(directive);
        }
    }
    HeaderValue::try_from(kept.join(", ")).unwrap_or(NOT_SHARED)
}

/// Makes a response one for its visitor alone.
pub fn make_private(headers: &mut HeaderMap) {
    let said = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .map(HeaderValue::as_bytes);
    let value = cache_control(said);
    headers.insert(CACHE_CONTROL, value);
    for name in &TARGETED {
        if headers.contains_key(name) {
            headers.insert(name, NOT_SHARED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_were_allowed_is_taken_back() {
        for (said, expected) in [
            (&[][..], "private"),
            (
                &["public, max-age=0, must-revalidate"],
                "private, max-age=0, must-revalidate",
            ),
            (
                &["public, max-age=31536000, immutable"],
                "private, max-age=31536000, immutable",
            ),
            (&["Public,s-maxage=60 , max-age=1"], "private, max-age=1"),
            (
                &["private=\"x-a\", max-age=1", "proxy-revalidate"],
                "private, max-age=1",
            ),
            (&["no-store"], "private, no-store"),
        ] {
            let value = cache_control(said.iter().map(|value| value.as_bytes()));
            assert_eq!(value, expected, "{said:?}");
        }
    }
}
