//! Heads of HTTP/2 and HTTP/3: what passes, sent on over HTTP/1.1, is one request there and says the same.
//!
//! The first byte says which protocol it is; each line behind it is a name, a space and a value.
#![no_main]

use bytes::Bytes;
use helix_framing::http2::check;
use helix_framing::http3::{HeadBuilder, trailer};
use helix_framing::limits::{MAX_HEAD_BYTES, MAX_HEADERS};
use helix_framing::{Framing, HeadScan, Refusal, Scan, field, parse};
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

fuzz_target!(|input: &[u8]| {
    let Some((protocol, text)) = input.split_first() else {
        return;
    };
    let lines = text.split(|byte| *byte == b'\n');
    let fields: Fields<'_> = lines
        .map(|line| {
            let end = line.iter().position(|byte| *byte == b' ');
            let end = end.unwrap_or(line.len());
            (&line[..end], line.get(end + 1..).unwrap_or_default())
        })
        .collect();
    let passed = match protocol {
        b'2' => over_http2(&fields),
        _ => over_http3(&fields),
    };
    if let Some(parts) = passed {
        says_the_same_over_http1(&parts);
    }
    trailers_frame_nothing(&fields);
});

fn over_http3(fields: &Fields<'_>) -> Option<Parts> {
    let mut builder = HeadBuilder::default();
    for (name, value) in fields {
        builder.take(name, value).ok()?;
    }
    let mut head = builder.finish().ok()?;
    let length = head.parts.headers.get(CONTENT_LENGTH);
    let length = length.map(|length| length.to_str().unwrap_or_default().parse::<u64>());
    assert_eq!(length, head.length.map(Ok));
    assert_eq!(head.websocket, head.parts.method == Method::CONNECT);
    if head.websocket {
        // What it is turned into, which has no body.
        head.parts.method = Method::GET;
        head.parts.headers.remove(CONTENT_LENGTH);
    }
    Some(head.parts)
}

/// What h2 hands over when it has decoded these fields; none where it refuses them.
fn over_http2(fields: &Fields<'_>) -> Option<Parts> {
    let mut parts = http::Request::new(()).into_parts().0;
    let mut uri = http::uri::Parts::default();
    let mut websocket = false;
    for (name, value) in fields {
        match *name {
            b":method" => parts.method = Method::from_bytes(value).ok()?,
            b":scheme" => uri.scheme = Some(Scheme::try_from(*value).ok()?),
            b":authority" => uri.authority = Some(Authority::try_from(*value).ok()?),
            b":path" => uri.path_and_query = Some(PathAndQuery::try_from(*value).ok()?),
            b":protocol" => websocket = *value == b"websocket",
            b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive"
            | b"proxy-connection" => return None,
            b"te" if *value != b"trailers" => return None,
            name => {
                let name = HeaderName::from_lowercase(name).ok()?;
                parts
                    .headers
                    .append(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
    }
    parts.uri = Uri::from_parts(uri).ok()?;
    check(&mut parts, websocket).ok()?;
    if websocket && parts.method == Method::CONNECT {
        parts.method = Method::GET;
        parts.headers.remove(CONTENT_LENGTH);
    }
    Some(parts)
}

fn says_the_same_over_http1(parts: &Parts) {
    let headers = &parts.headers;
    let host = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes));
    let host = host.expect("what passes is for a host");
    let target = parts.uri.path_and_query().expect("what passes has a path");
    let mut head = format!("{} {target} HTTP/1.1\r\n", parts.method).into_bytes();
    field(&mut head, b"host", host);
    let others = || headers.iter().filter(|(name, _)| *name != HOST);
    for (name, value) in others() {
        field(&mut head, name.as_str().as_bytes(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    if others().count() >= MAX_HEADERS || head.len() > MAX_HEAD_BYTES {
        // One more than HTTP/1.1 takes is nothing that it takes otherwise.
        return;
    }
    let shown = head.escape_ascii();
    assert_eq!(
        HeadScan::default().look(&head),
        Ok(Scan::Complete(head.len())),
        "{shown}"
    );
    let read = match parse(&head) {
        Ok(read) => read,
        Err(refusal) => panic!("{refusal}: {shown}"),
    };
    assert_eq!(read.method, parts.method);
    assert_eq!(read.target.text(&head), target.as_str());
    assert_eq!(read.host.of(&head), host);
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let length = length.filter(|length| *length > 0);
    assert_eq!(read.framing, length.map_or(Framing::None, Framing::Length));
    let again = read.to_parts(&Bytes::from(head.clone())).headers;
    assert_eq!(again.len(), others().count() + 1);
    for (name, value) in others() {
        assert!(
            again.get_all(name).iter().any(|other| other == value),
            "{shown}"
        );
    }
}

fn trailers_frame_nothing(fields: &Fields<'_>) {
    let mut trailers = HeaderMap::new();
    for (name, value) in fields {
        let taken: Result<(), Refusal> = trailer(&mut trailers, name, value);
        assert!(taken.is_err() || !name.starts_with(b":"));
    }
    assert!(trailers.len() <= MAX_HEADERS);
    for never in [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "te",
    ] {
        assert!(!trailers.contains_key(never), "{never} in a trailer");
    }
}
