//! Languages that a client likes, the best first (RFC 9110 12.5.4).
//!
//! Pure.

use alloc::vec::Vec;

use super::super::decide::thousandths;

/// Most ranges of a field that are looked at.
const MOST: usize = 32;

/// The tags in `accepted`, a value of `Accept-Language` or of a cookie in its place.
pub(super) fn languages(accepted: &str) -> Vec<&str> {
    let mut liked: Vec<(&str, u32)> = accepted
        .split(',')
        .take(MOST)
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().filter(|tag| !tag.is_empty())?;
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            Some((tag, quality.map_or(1000, thousandths)))
        })
        .filter(|(_, quality)| *quality > 0)
        .collect();
    liked.sort_by_key(|(_, quality)| core::cmp::Reverse(*quality));
    liked.into_iter().map(|(tag, _)| tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_liked_language_is_first() {
        for (accepted, expected) in [
            ("de", &["de"][..]),
            ("en;q=0.5, de-AT, fr;q=0.8", &["de-AT", "fr", "en"]),
            ("en;q=0, ,de;q=x", &[]),
            ("", &[]),
        ] {
            assert_eq!(languages(accepted), expected, "{accepted}");
        }
    }
}
