//! What an origin says about keeping its response, and what a client says about what it would accept.
//!
//! Pure. `Cache-Control` (RFC 9111 5.2) is read leniently where that is safe: an unknown or malformed
//! directive is passed over, a freshness lifetime that is no number counts as zero. The targeted fields
//! (RFC 9213) are structured, and one that is malformed counts as absent; the most specific that is there
//! replaces `Cache-Control` and `Expires` altogether. No clock, no decision.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// The one for this cache alone.
pub const HELIX_CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("helix-cdn-cache-control");
/// The one for every cache that an origin's operator hired (RFC 9213 3.1).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// What came before it (W3C Edge Architecture Specification), for origins that still send it.
pub const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
/// How a surrogate names itself to the origin, so that `Surrogate-Control` can mean it alone.
pub const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");
/// The name under which this cache can be meant.
pub const DEVICE: &str = "helix";

/// What a response says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be used without asking.
    pub no_cache: bool,
    /// For one person only.
    pub private: bool,
    /// For everybody, whatever else would forbid it.
    pub public: bool,
    /// Not to be used stale by anybody.
    pub must_revalidate: bool,
    /// Not to be used stale by shared caches.
    pub proxy_revalidate: bool,
    /// Not to be stored by who does not know the status, and then `no-store` does not count.
    pub must_understand: bool,
    /// Lifetime in seconds.
    pub max_age: Option<u64>,
    /// Lifetime in seconds in shared caches.
    pub s_maxage: Option<u64>,
    /// Seconds for which it may be used stale while it is asked about (RFC 5861 3).
    pub stale_while_revalidate: Option<u64>,
    /// Seconds for which it may be used stale when asking fails (RFC 5861 4).
    pub stale_if_error: Option<u64>,
    /// Fields that are not to be stored, or not to be sent again without asking.
    pub withheld: Vec<HeaderName>,
    /// Whether a targeted field said it, so that `Expires` does not count.
    pub targeted: bool,
}

/// What a request says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Nothing of it or of its response is to be stored.
    pub no_store: bool,
    /// Nothing stored is to be used without asking.
    pub no_cache: bool,
    /// Oldest response that is acceptable, in seconds.
    pub max_age: Option<u64>,
    /// How long it has to stay fresh, in seconds.
    pub min_fresh: Option<u64>,
    /// How long it may have been stale, in seconds.
    pub max_stale: Option<u64>,
    /// As in a response.
    pub stale_if_error: Option<u64>,
    /// Nobody is to be asked.
    pub only_if_cached: bool,
}

/// Reads what a response says.
#[must_use]
pub fn of_response(headers: &HeaderMap) -> ResponseDirectives {
    let targeted = structured(headers, &HELIX_CDN_CACHE_CONTROL)
        .or_else(|| structured(headers, &CDN_CACHE_CONTROL))
        .or_else(|| surrogate(headers));
    targeted.unwrap_or_else(|| {
        let mut said = ResponseDirectives::default();
        for_each(headers, &CACHE_CONTROL, |name, value| {
            said.hear(name, value);
        });
        said
    })
}

/// Reads what a request says. `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 5.4).
#[must_use]
pub fn of_request(headers: &HeaderMap) -> RequestDirectives {
    let mut said = RequestDirectives::default();
    if !headers.contains_key(CACHE_CONTROL) {
        for_each(headers, &http::header::PRAGMA, |name, _| {
            said.no_cache |= name.eq_ignore_ascii_case("no-cache");
        });
    }
    for_each(headers, &CACHE_CONTROL, |name, value| {
        said.hear(name, value);
    });
    said
}

/// The members of a comma-separated list of tokens, over all lines, without empty ones.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// The members of a structured list of strings (RFC 9875 2); none if it is malformed.
#[must_use]
pub fn strings(headers: &HeaderMap, field: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(field).iter();
    let lines: Vec<&[u8]> = lines.map(http::HeaderValue::as_bytes).collect();
    let Ok(list) = Parser::parse_list(&lines.join(&b", "[..])) else {
        return Vec::new();
    };
    let string = |member: ListEntry| match member {
        ListEntry::Item(item) => item.bare_item.as_str().map(str::to_owned),
        ListEntry::InnerList(_) => None,
    };
    list.into_iter().filter_map(string).collect()
}

impl ResponseDirectives {
    fn hear(&mut self, name: &str, value: Option<&str>) {
        match name.to_ascii_lowercase().as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => match value {
                None => self.no_cache = true,
                Some(fields) => self.withhold(fields),
            },
            "private" => match value {
                None => self.private = true,
                Some(fields) => self.withhold(fields),
            },
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "max-age" => first(&mut self.max_age, value),
            "s-maxage" => first(&mut self.s_maxage, value),
            "stale-while-revalidate" => first(&mut self.stale_while_revalidate, value),
            "stale-if-error" => first(&mut self.stale_if_error, value),
            _ => {}
        }
    }

    fn withhold(&mut self, fields: &str) {
        let names = fields.split(',').map(str::trim);
        self.withheld
            .extend(names.filter_map(|name| name.parse().ok()));
    }
}

impl RequestDirectives {
    fn hear(&mut self, name: &str, value: Option<&str>) {
        match name.to_ascii_lowercase().as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => first(&mut self.max_age, value),
            "min-fresh" => first(&mut self.min_fresh, value),
            "max-stale" => self.max_stale = value.map_or(Some(u64::MAX), delta_seconds),
            "stale-if-error" => self.stale_if_error = value.and_then(delta_seconds),
            _ => {}
        }
    }
}

/// Of several the first counts (RFC 9111 4.2.1), and one that is no number is zero.
fn first(slot: &mut Option<u64>, value: Option<&str>) {
    if slot.is_none() {
        *slot = Some(value.and_then(delta_seconds).unwrap_or(0));
    }
}

/// Seconds (RFC 9111 1.2.2); what is too large for a number is very long.
#[must_use]
pub fn delta_seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or_else(|_| u64::from(u32::MAX)))
}

/// Calls `hear` for each directive of every line: `name`, `name=token` or `name="quoted"`.
fn for_each(headers: &HeaderMap, field: &HeaderName, mut hear: impl FnMut(&str, Option<&str>)) {
    for line in headers.get_all(field) {
        // Bytes above ASCII may stand in quotes; they are never part of what we know.
        let line = String::from_utf8_lossy(line.as_bytes());
        for directive in split_unquoted(&line) {
            match directive.split_once('=') {
                None => hear(directive.trim(), None),
                Some((name, value)) if !name.ends_with([' ', '\t']) => {
                    hear(name.trim(), Some(&unquoted(value)));
                }
                // `max-age =1` names nothing.
                Some(_) => {}
            }
        }
    }
}

/// Splits at commas outside quotes.
fn split_unquoted(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |letter| {
        if escaped {
            escaped = false;
            return false;
        }
        match letter {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
}

fn unquoted(value: &str) -> String {
    let value = value.trim_end();
    match value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
    {
        None => value.to_owned(),
        Some(inner) => inner.replace('\\', ""),
    }
}

/// A targeted field, if it is there and well formed.
fn structured(headers: &HeaderMap, field: &HeaderName) -> Option<ResponseDirectives> {
    let lines: Vec<&[u8]> = headers
        .get_all(field)
        .iter()
        .map(http::HeaderValue::as_bytes)
        .collect();
    let dictionary: Dictionary = Parser::parse_dictionary(&lines.join(&b", "[..])).ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut said = ResponseDirectives {
        targeted: true,
        ..ResponseDirectives::default()
    };
    for (name, member) in &dictionary {
        let ListEntry::Item(item) = member else {
            continue;
        };
        match &item.bare_item {
            BareItem::Boolean(true) => said.hear(name.as_str(), None),
            BareItem::Integer(seconds) => {
                said.hear(name.as_str(), Some(&seconds.to_string()));
            }
            BareItem::String(fields) => said.hear(name.as_str(), Some(fields.as_str())),
            _ => {}
        }
    }
    Some(said)
}

/// `Surrogate-Control`, as far as it is about this cache.
fn surrogate(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let mut said = ResponseDirectives {
        targeted: true,
        ..ResponseDirectives::default()
    };
    let mut heard = false;
    for line in headers.get_all(&SURROGATE_CONTROL) {
        let line = String::from_utf8_lossy(line.as_bytes());
        for directive in split_unquoted(&line) {
            let (directive, target) = directive
                .split_once(';')
                .map_or((directive, None), |(directive, target)| {
                    (directive, Some(target.trim()))
                });
            if target.is_some_and(|target| target != DEVICE) {
                continue;
            }
            let (name, value) = directive
                .split_once('=')
                .map_or((directive, None), |(name, value)| (name, Some(value)));
            let known = matches!(
                name.trim_start().to_ascii_lowercase().as_str(),
                "max-age" | "no-store"
            );
            if known {
                heard = true;
                said.hear(name.trim(), value.map(unquoted).as_deref());
            }
        }
    }
    heard.then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn lifetimes_are_read_as_rfc_9111_says() {
        for (line, max_age) in [
            ("max-age=3600", Some(3600)),
            ("MaX-aGe=3600", Some(3600)),
            ("max-age=\"3600\"", Some(3600)),
            ("max-age=003600", Some(3600)),
            ("foobar, max-age=3600", Some(3600)),
            ("max-age=10, max-age=20", Some(10)),
            ("max-age=99999999999999999999", Some(u64::from(u32::MAX))),
            ("max-age=-1", Some(0)),
            ("max-age='3600'", Some(0)),
            ("max-age=3600a", Some(0)),
            ("max-age=3600.0", Some(0)),
            ("max-age", Some(0)),
            ("max-age =3600", None),
            ("extension=\"max-age=3600\"", None),
            ("extension=\"a\\\", max-age=3600\"", None),
            ("max-age=1, extension=\"max-age=3600\"", Some(1)),
            ("", None),
        ] {
            let said = of_response(&headers(&[("cache-control", line)]));
            assert_eq!(said.max_age, max_age, "{line}");
        }
    }

    #[test]
    fn fields_may_be_withheld_without_forbidding_the_rest() {
        let said = of_response(&headers(&[(
            "cache-control",
            "private=\"a, b\", no-cache=c, max-age=1",
        )]));
        let names: Vec<&str> = said.withheld.iter().map(HeaderName::as_str).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(!said.private && !said.no_cache);
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn the_most_specific_well_formed_targeted_field_is_the_only_one_that_counts() {
        for (lines, max_age, no_store) in [
            (
                &[
                    ("cache-control", "no-store"),
                    ("cdn-cache-control", "max-age=5"),
                ][..],
                Some(5),
                false,
            ),
            (
                &[
                    ("helix-cdn-cache-control", "max-age=7"),
                    ("cdn-cache-control", "max-age=5"),
                ],
                Some(7),
                false,
            ),
            (
                &[
                    ("cache-control", "max-age=9"),
                    ("cdn-cache-control", "max-age=5,"),
                ],
                Some(9),
                false,
            ),
            (
                &[
                    ("cache-control", "max-age=9"),
                    ("cdn-cache-control", "MAX-AGE=5"),
                ],
                Some(9),
                false,
            ),
            (
                &[("cache-control", "max-age=9"), ("cdn-cache-control", "")],
                Some(9),
                false,
            ),
            (
                &[
                    ("cache-control", "max-age=9"),
                    ("cdn-cache-control", "no-store"),
                ],
                None,
                true,
            ),
            (
                &[
                    ("cache-control", "max-age=9"),
                    ("cdn-cache-control", "no-store=?0"),
                ],
                None,
                false,
            ),
            (
                &[
                    ("cache-control", "no-store"),
                    ("surrogate-control", "max-age=4;helix"),
                ],
                Some(4),
                false,
            ),
            (
                &[
                    ("cache-control", "no-store"),
                    ("surrogate-control", "max-age=4;other"),
                ],
                None,
                true,
            ),
        ] {
            let said = of_response(&headers(lines));
            assert_eq!(
                (said.max_age, said.no_store),
                (max_age, no_store),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn groups_are_a_structured_list_of_strings() {
        let groups = HeaderName::from_static("cache-groups");
        for (lines, expected) in [
            (&["\"a\", \"b, c\";x"][..], &["a", "b, c"][..]),
            (&["\"a\"", "\"b\""], &["a", "b"]),
            (&["token, \"a\", 1, (\"b\")"], &["a"]),
            (&["\"a"], &[]),
            (&[], &[]),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("cache-groups", *line)).collect();
            assert_eq!(strings(&headers(&lines), &groups), expected, "{lines:?}");
        }
    }

    #[test]
    fn requests_say_what_they_accept() {
        let said = of_request(&headers(&[(
            "cache-control",
            "max-stale, min-fresh=3, max-age=0",
        )]));
        assert_eq!(
            (said.max_stale, said.min_fresh, said.max_age),
            (Some(u64::MAX), Some(3), Some(0))
        );
        assert!(of_request(&headers(&[("pragma", "no-cache")])).no_cache);
        assert!(!of_request(&headers(&[("pragma", "no-cache"), ("cache-control", "x")])).no_cache);
        assert!(of_request(&headers(&[("cache-control", "only-if-cached")])).only_if_cached);
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_reading_fail(line in "[ -~]{0,60}") {
            let _ = of_response(&headers(&[("cache-control", &line), ("surrogate-control", &line)]));
            let _ = of_response(&headers(&[("cdn-cache-control", &line)]));
            let _ = of_request(&headers(&[("cache-control", &line), ("pragma", &line)]));
        }
    }
}
