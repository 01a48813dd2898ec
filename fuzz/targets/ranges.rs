//! Ranges: they lie within what there is, cover what was asked for, and cost no more than it.
//!
//! The first eight bytes are the size, the rest is the value of `Range`.
#![no_main]

use std::ops::Range;

use helix_framing::ranges::{Multipart, Wanted, content_range, wanted};
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

/// More than this many ranges are too many.
const MOST: usize = 16;

fuzz_target!(|input: &[u8]| {
    let Some((size, value)) = input.split_first_chunk::<8>() else {
        return;
    };
    // Half of what fits: so that sums of sizes fit too. No file is nearly that large.
    let size = u64::from_le_bytes(*size) >> 1;
    let found = wanted(value, size);
    if let Wanted::Ranges(ranges) = &found {
        lie_within_and_apart(ranges, size);
        cost_no_more_than_the_whole(ranges, size);
    }
    if let Some(asked) = asked(value, size) {
        covers(&found, &asked);
    }
});

fn lie_within_and_apart(ranges: &[Range<u64>], size: u64) {
    assert!(!ranges.is_empty() && ranges.len() <= MOST);
    for range in ranges {
        assert!(
            range.start < range.end && range.end <= size,
            "{range:?} of {size}"
        );
        let said = content_range(range, size);
        assert_eq!(
            said,
            format!("bytes {}-{}/{size}", range.start, range.end - 1)
        );
    }
    assert!(
        ranges.windows(2).all(|pair| pair[0].end < pair[1].start),
        "{ranges:?}"
    );
}

fn cost_no_more_than_the_whole(ranges: &[Range<u64>], size: u64) {
    let kind = HeaderValue::from_static("text/plain");
    let multipart = Multipart::new(
        ranges.to_vec(),
        size,
        &kind,
        &HeaderValue::from_static("\"x\""),
    );
    let data: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let heads: usize = multipart.parts.iter().map(|(head, _)| head.len()).sum();
    assert!(data <= size);
    assert_eq!(
        u128::from(multipart.length()),
        u128::from(data) + (heads + multipart.end.len()) as u128
    );
}

/// What a well-formed value asks for, spec by spec; none of a spec that cannot be satisfied.
fn asked(value: &[u8], size: u64) -> Option<Vec<Option<Range<u64>>>> {
    let specs = std::str::from_utf8(value).ok()?.strip_prefix("bytes=")?;
    let specs: Vec<_> = specs
        .split(',')
        .map(|spec| spec.trim_matches([' ', '\t']))
        .collect();
    if specs.len() > MOST {
        return None;
    }
    specs.into_iter().map(|spec| one(spec, size)).collect()
}

fn one(spec: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.split_once('-')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) || (first.is_empty() && last.is_empty()) {
        return None;
    }
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let range = match (first, last) {
        ("", length) => size.saturating_sub(number(length))..size,
        (first, "") => number(first)..size,
        (first, last) if number(first) <= number(last) => {
            number(first)..number(last).saturating_add(1).min(size)
        }
        _ => return None,
    };
    Some((range.start < range.end).then_some(range))
}

fn covers(found: &Wanted, asked: &[Option<Range<u64>>]) {
    let asked: Vec<_> = asked.iter().flatten().collect();
    match found {
        Wanted::Whole => panic!("{asked:?} was ignored"),
        Wanted::Unsatisfiable => assert!(asked.is_empty(), "{asked:?} could be satisfied"),
        Wanted::Ranges(ranges) => {
            for one in &asked {
                let is_in = |range: &Range<u64>| range.start <= one.start && one.end <= range.end;
                assert!(ranges.iter().any(is_in), "{one:?} is not in {ranges:?}");
            }
            for range in ranges {
                assert!(
                    asked.iter().any(|one| one.start == range.start),
                    "{range:?} was not asked for"
                );
                assert!(
                    asked.iter().any(|one| one.end == range.end),
                    "{range:?} was not asked for"
                );
            }
        }
    }
}
