//! From a stored response to what one client gets: conditions, ranges, age.
//!
//! Pure, but for the body it points at (RFC 9110 13 and 14, RFC 9111 4.3.2, RFC 9211).

use helix_framing::ranges::{Wanted, content_range, wanted};
use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::policy::date;
use super::store::Stored;
use crate::exchange::ResponseHead;

/// How this cache handled a request (RFC 9211).
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A head, and which bytes of the body follow it: from, to before; none where nothing follows.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) head: ResponseHead,
    pub(super) body: Option<(u64, Option<u64>)>,
}

/// What `stored` is to the request.
pub(super) fn reply(
    stored: &Stored,
    method: &Method,
    request: &HeaderMap,
    now: u64,
    status: &str,
) -> Reply {
    let mut headers = stored.headers.clone();
    headers.insert(
        AGE,
        HeaderValue::from(stored.freshness.age(now).min(u64::from(u32::MAX))),
    );
    say(&mut headers, status);
    let length = stored.content.length();
    let mut reply = Reply {
        head: ResponseHead {
            status: stored.status,
            headers,
        },
        body: Some((0, None)),
    };
    if stored.status == StatusCode::OK {
        if is_known(stored, request) {
            reply.head.status = StatusCode::NOT_MODIFIED;
            for name in [CONTENT_LENGTH, CONTENT_RANGE, CONTENT_ENCODING] {
                reply.head.headers.remove(name);
            }
            reply.body = None;
            return reply;
        }
        if let Some(length) = length.filter(|_| *method == Method::GET) {
            cut(&mut reply, stored, request, length);
        }
    }
    if *method == Method::HEAD || matches!(stored.status.as_u16(), 204) {
        reply.body = None;
    }
    reply
}

/// Adds this cache's member to `Cache-Status`; those of caches nearer to the origin stand before it.
pub(super) fn say(headers: &mut HeaderMap, status: &str) {
    if let Ok(value) = HeaderValue::from_str(status) {
        headers.append(CACHE_STATUS, value);
    }
}

/// Whether the client has this representation already (RFC 9110 13.2.2).
fn is_known(stored: &Stored, request: &HeaderMap) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let lines = request.get_all(IF_NONE_MATCH).iter();
        let Some(etag) = stored.headers.get(ETAG).map(HeaderValue::as_bytes) else {
            return false;
        };
        return lines
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .any(|tag| tag == b"*" || weak(tag) == weak(etag));
    }
    let Some(since) = request.get(IF_MODIFIED_SINCE).and_then(date) else {
        return false;
    };
    let changed = stored
        .headers
        .get(LAST_MODIFIED)
        .or_else(|| stored.headers.get(DATE));
    changed
        .and_then(date)
        .is_some_and(|changed| changed <= since)
}

fn weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// One range of a whole body; several, or what is malformed, get the whole.
fn cut(reply: &mut Reply, stored: &Stored, request: &HeaderMap, length: u64) {
    let headers = &mut reply.head.headers;
    headers
        .entry(ACCEPT_RANGES)
        .or_insert(HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    match asked(stored, request, length) {
        Wanted::Whole => {}
        Wanted::Unsatisfiable => {
            reply.head.status = StatusCode::RANGE_NOT_SATISFIABLE;
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            if let Ok(range) = HeaderValue::try_from(format!("bytes */{length}")) {
                headers.insert(CONTENT_RANGE, range);
            }
            reply.body = None;
        }
        Wanted::Ranges(ranges) => {
            let [range] = &ranges[..] else {
                return;
            };
            reply.head.status = StatusCode::PARTIAL_CONTENT;
            headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
            headers.insert(CONTENT_RANGE, content_range(range, length));
            reply.body = Some((range.start, Some(range.end)));
        }
    }
}

/// Which part the request wants, if it wants one of this very representation. Of two `Range` fields neither counts.
fn asked(stored: &Stored, request: &HeaderMap, length: u64) -> Wanted {
    let mut ranges = request.get_all(RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) if still_the_same(stored, request) => wanted(range.as_bytes(), length),
        _ => Wanted::Whole,
    }
}

/// `If-Range`: the strong validator, or exactly the date (RFC 9110 13.1.5).
fn still_the_same(stored: &Stored, request: &HeaderMap) -> bool {
    let Some(asked) = request.get(IF_RANGE) else {
        return true;
    };
    let strong = asked.as_bytes().starts_with(b"\"");
    let held = stored
        .headers
        .get(if strong { ETAG } else { LAST_MODIFIED });
    held == Some(asked)
}
