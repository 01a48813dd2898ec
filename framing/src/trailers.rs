//! Fields behind a chunked body (RFC 9110 6.5).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, HOST, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, SET_COOKIE,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that say how a message is framed, routed, read or permitted: whoever merges trailers into the head would
/// take them for true after all has been decided (RFC 9110 6.5.1).
const NEVER: [HeaderName; 19] = [
    AUTHORIZATION,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    MAX_FORWARDS,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    RANGE,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    WWW_AUTHENTICATE,
];

/// Whether a field may stand behind a body, in a message of any protocol. One that may not is left out.
#[must_use]
pub fn may_trail(name: &HeaderName) -> bool {
    !NEVER.contains(name)
}

/// The fields of a trailer section, as lines with their ends; none if nothing is left of them.
#[must_use]
pub fn trailers(section: &[u8]) -> Option<HeaderMap> {
    if section.is_empty() {
        return None;
    }
    let mut trailers = HeaderMap::new();
    for line in section.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value)
            && may_trail(&name)
        {
            trailers.append(name, value);
        }
    }
    (!trailers.is_empty()).then_some(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_read_line_by_line_without_what_does_not_belong_there() {
        let section =
            b"Grpc-Status: 0\r\nContent-Length: 5\r\nTrailer: x\r\nX-Sum:\t a b \r\nx-sum: c\r\n";
        let read = trailers(section).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(read["grpc-status"], "0");
        let sums: Vec<_> = read.get_all("x-sum").iter().collect();
        assert_eq!(sums, ["a b", "c"]);
        assert!(trailers(b"").is_none());
        assert!(trailers(b"Transfer-Encoding: chunked\r\n").is_none());
        assert!(trailers(b"Proxy-Authorization: x\r\nMax-Forwards: 1\r\n").is_none());
    }
}
