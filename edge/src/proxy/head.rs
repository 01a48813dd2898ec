//! The head that is sent on.
//!
//! It is made of what was parsed, never of bytes that a client sent, in origin form, with one `Host`.

use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use pingora_http::RequestHeader;

use crate::exchange::Request;

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Fields that are about one connection (RFC 9110 7.6.1).
const OF_A_CONNECTION: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Drops what is about one connection, and what `Connection` names.
pub(super) fn drop_connection_fields(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
}

/// `request` as pingora is to send it on.
pub(super) fn request_header(
    request: &Request,
    authority: &HeaderValue,
    tunnel: bool,
) -> RequestHeader {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = request.head.method.clone();
    parts.uri = origin_form(&request.head.uri);
    parts.version = Version::HTTP_11;
    parts.headers = request.head.headers.clone();
    let trailers = parts.headers.get_all(TE).iter().any(|te| {
        let mut codings = te.as_bytes().split(|byte| *byte == b',');
        codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    drop_connection_fields(&mut parts.headers);
    // Answered here, if at all.
    parts.headers.remove(http::header::EXPECT);
    parts.headers.insert(HOST, authority.clone());
    if trailers {
        parts.headers.insert(TE, TRAILERS);
    }
    if tunnel {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts
            .headers
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    RequestHeader::from(parts)
}

/// Path and query alone.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    Uri::from(path.unwrap_or(PathAndQuery::from_static("/")))
}
