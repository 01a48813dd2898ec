//! Conditions: judged the same wherever the fields are kept, and in the order of RFC 9110 13.2.2.
//!
//! The input is the lines of a head behind its `Host`.
#![no_main]

use std::time::UNIX_EPOCH;

use helix_framing::conditions::{Verdict, evaluate, range_applies};
use helix_framing::{Fields, parse};
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const ETAG: HeaderValue = HeaderValue::from_static("\"x\"");
/// Sun, 06 Nov 1994 08:49:37 GMT.
const MODIFIED: u64 = 784_111_777;

fuzz_target!(|input: &[u8]| {
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for line in input.split(|byte| *byte == b'\n') {
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let Ok(parsed) = parse(&head) else { return };
    let map = parsed.to_parts(&head.clone().into()).headers;
    for modified in [Some(MODIFIED), None] {
        let judged = evaluate(Fields::Map(&map), &ETAG, modified);
        let lines = Fields::Lines(parsed.fields(&head));
        assert_eq!(evaluate(lines, &ETAG, modified), judged);
        let applies = range_applies(Fields::Map(&map), &ETAG, modified);
        assert_eq!(range_applies(lines, &ETAG, modified), applies);
        stronger_conditions_hide_weaker_ones(&map, modified, judged);
        if let Some(expected) = expected(&map, modified) {
            assert_eq!(judged, expected, "{map:?}");
        }
        let ranges = map.get(IF_RANGE).map(|value| value.as_bytes().trim_ascii());
        if ranges.is_some_and(|value| value.starts_with(b"W/")) {
            assert!(!applies, "a weak tag lets a range be sent");
        }
    }
});

/// What is not to be looked at changes nothing when it is not there (RFC 9110 13.1.3, 13.1.4).
fn stronger_conditions_hide_weaker_ones(map: &HeaderMap, modified: Option<u64>, judged: Verdict) {
    let mut less = map.clone();
    if less.contains_key(IF_NONE_MATCH) {
        less.remove(IF_MODIFIED_SINCE);
    }
    if less.contains_key(IF_MATCH) {
        less.remove(IF_UNMODIFIED_SINCE);
    }
    assert_eq!(evaluate(Fields::Map(&less), &ETAG, modified), judged);
}

/// The verdict, by a second reading of RFC 9110 13.2.2; none where a list of tags is malformed.
fn expected(map: &HeaderMap, modified: Option<u64>) -> Option<Verdict> {
    let later_than = |name: &HeaderName| Some(modified? > seconds(map.get(name)?)?);
    if map.contains_key(IF_MATCH) {
        if !names_ours(map, &IF_MATCH, false)? {
            return Some(Verdict::Failed);
        }
    } else if later_than(&IF_UNMODIFIED_SINCE) == Some(true) {
        return Some(Verdict::Failed);
    }
    let has_it = if map.contains_key(IF_NONE_MATCH) {
        names_ours(map, &IF_NONE_MATCH, true)?
    } else {
        later_than(&IF_MODIFIED_SINCE) == Some(false)
    };
    Some(if has_it {
        Verdict::NotModified
    } else {
        Verdict::Proceed
    })
}

/// Whether well-formed lists name the tag; weak tags count if `weakly`.
fn names_ours(map: &HeaderMap, name: &HeaderName, weakly: bool) -> Option<bool> {
    let mut found = false;
    for value in map.get_all(name) {
        let value = value.to_str().ok()?.trim_matches([' ', '\t']);
        if value == "*" {
            found = true;
            continue;
        }
        let mut rest = value;
        loop {
            let (weak, tag) = rest
                .strip_prefix("W/")
                .map_or((false, rest), |tag| (true, tag));
            let (opaque, after) = tag.strip_prefix('"')?.split_once('"')?;
            if opaque.bytes().any(|byte| byte <= b' ') {
                return None;
            }
            found |= opaque == "x" && (weakly || !weak);
            let after = after.trim_start_matches([' ', '\t']);
            if after.is_empty() {
                break;
            }
            rest = after.strip_prefix(',')?.trim_start_matches([' ', '\t']);
        }
    }
    Some(found)
}

fn seconds(value: &HeaderValue) -> Option<u64> {
    let date = httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
