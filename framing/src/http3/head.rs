//! From a field section to a request, or to the reason why it is none (RFC 9114 4.2, 4.3).
//!
//! Pure, and as strict as [`crate::parse`]: what passes here could be sent on over HTTP/1.1 without
//! meaning anything else there. Pseudo-fields are taken once each and before all others; what
//! belongs to one connection may not be in a message at all.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};

use crate::limits::{MAX_HEADERS, MAX_METHOD_BYTES, MAX_TARGET_BYTES};
use crate::{Refusal, is_authority, is_field_name, is_field_value};

/// A request up to its body.
#[derive(Debug)]
pub struct Head {
    /// Method, target with its authority, and fields.
    pub parts: Parts,
    /// How many bytes its body has, if it says so.
    pub length: Option<u64>,
    /// Whether it asks for a WebSocket (RFC 9220).
    pub websocket: bool,
}

/// Takes the fields of a request one by one.
#[derive(Debug, Default)]
pub struct HeadBuilder {
    method: Option<Method>,
    scheme: Option<Vec<u8>>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    /// Of an extended CONNECT: whether it is for a WebSocket.
    protocol: Option<bool>,
    /// Whether a field has come that is no pseudo-field.
    begun: bool,
    headers: HeaderMap,
    cookies: BytesMut,
    length: Option<u64>,
    count: usize,
}

impl HeadBuilder {
    /// Takes one field.
    ///
    /// # Errors
    /// When it makes the head malformed, ambiguous or too large.
    pub fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > MAX_HEADERS {
            return Err(Refusal::TooManyHeaders);
        }
        match name {
            [b':', ..] if self.begun => Err(Refusal::RequestLine),
            b":method" => once(&mut self.method, method(value)?, Refusal::RequestLine),
            b":scheme" => once(&mut self.scheme, value.to_vec(), Refusal::RequestLine),
            b":authority" => once(&mut self.authority, copy(value), Refusal::Host),
            b":path" => once(&mut self.path, copy(value), Refusal::Target),
            b":protocol" => {
                let websocket = value.eq_ignore_ascii_case(b"websocket");
                once(&mut self.protocol, websocket, Refusal::RequestLine)
            }
            [b':', ..] => Err(Refusal::RequestLine),
            _ => {
                self.begun = true;
                self.field(name, value)
            }
        }
    }

    /// The request, if there is all that one needs.
    ///
    /// # Errors
    /// When there is not, or too much.
    pub fn finish(mut self) -> Result<Head, Refusal> {
        let method = self.method.take().ok_or(Refusal::RequestLine)?;
        match (method == Method::CONNECT, self.protocol) {
            (false, None) | (true, Some(true)) => {}
            (false, Some(_)) => return Err(Refusal::RequestLine),
            (true, None | Some(false)) => return Err(Refusal::Connect),
        }
        if self.scheme.as_deref() != Some(b"https") {
            return Err(Refusal::Target);
        }
        let path = self.path.take().ok_or(Refusal::Target)?;
        target(&method, &path)?;
        let authority = self.authority()?;
        if !self.cookies.is_empty() {
            // Split for the compressor only; one field again for everybody else (RFC 9114 4.2.1).
            let cookies = self.cookies.split().freeze();
            let cookies = HeaderValue::from_maybe_shared(cookies);
            self.headers
                .insert(COOKIE, cookies.map_err(|_| Refusal::FieldValue)?);
        }
        let mut parts = Request::new(()).into_parts().0;
        parts.method = method;
        parts.uri = uri(authority, path)?;
        parts.version = Version::HTTP_3;
        parts.headers = self.headers;
        Ok(Head {
            parts,
            length: self.length,
            websocket: self.protocol.is_some(),
        })
    }

    /// The one authority: `Host` may only repeat it.
    fn authority(&mut self) -> Result<Bytes, Refusal> {
        let host = self.headers.remove(HOST);
        let host = host.map(|host| Bytes::copy_from_slice(host.as_bytes()));
        let authority = match (self.authority.take(), host) {
            (Some(authority), Some(host)) if authority != host => return Err(Refusal::Host),
            (Some(authority), _) | (None, Some(authority)) => authority,
            (None, None) => return Err(Refusal::Host),
        };
        if is_authority(&authority) {
            Ok(authority)
        } else {
            Err(Refusal::Host)
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let (name, value) = field(name, value)?;
        if name == COOKIE {
            // An empty one would leave a space at the end of the value.
            if !self.cookies.is_empty() && !value.is_empty() {
                self.cookies.put_slice(b"; ");
            }
            self.cookies.put_slice(value.as_bytes());
            return Ok(());
        }
        if name == TE && value.as_bytes() != b"trailers" {
            return Err(Refusal::FieldValue);
        }
        if name == HOST && self.headers.contains_key(HOST) {
            return Err(Refusal::Host);
        }
        if name == CONTENT_LENGTH {
            let length = content_length(value.as_bytes())?;
            once(&mut self.length, length, Refusal::ContentLength)?;
        }
        self.headers.append(name, value);
        Ok(())
    }
}

/// Reads one field of a trailer section into `trailers`.
///
/// # Errors
/// When it may not be there.
pub fn trailer(trailers: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    if trailers.len() >= MAX_HEADERS {
        return Err(Refusal::TooManyHeaders);
    }
    let (name, value) = field(name, value)?;
    // What frames or routes a message cannot come after it.
    if matches!(name, CONTENT_LENGTH | HOST | TE) {
        return Err(Refusal::FieldName);
    }
    trailers.append(name, value);
    Ok(())
}

/// A field that is no pseudo-field and belongs to no connection (RFC 9114 4.2).
fn field(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Refusal> {
    let upper = |byte: &u8| byte.is_ascii_uppercase();
    if !name.iter().copied().all(is_field_name) || name.iter().any(upper) {
        return Err(Refusal::FieldName);
    }
    if matches!(
        name,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade"
    ) {
        return Err(Refusal::FieldName);
    }
    if !value.iter().copied().all(is_field_value) || value.trim_ascii().len() != value.len() {
        return Err(Refusal::FieldValue);
    }
    Ok((
        HeaderName::from_lowercase(name).map_err(|_| Refusal::FieldName)?,
        HeaderValue::from_bytes(value).map_err(|_| Refusal::FieldValue)?,
    ))
}

fn once<T>(place: &mut Option<T>, value: T, refusal: Refusal) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(refusal),
    }
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn method(value: &[u8]) -> Result<Method, Refusal> {
    // PRI is what HTTP/2 begins with, and no request in any version.
    if value.len() > MAX_METHOD_BYTES || value == b"PRI" {
        return Err(Refusal::RequestLine);
    }
    Method::from_bytes(value).map_err(|_| Refusal::RequestLine)
}

/// The bytes that the parser of HTTP/1 takes in a target, which starts with a slash.
fn target(method: &Method, target: &[u8]) -> Result<(), Refusal> {
    if target.len() > MAX_TARGET_BYTES {
        return Err(Refusal::TargetTooLong);
    }
    let legal =
        |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\');
    match target {
        b"*" if method == Method::OPTIONS => Ok(()),
        [b'/', rest @ ..] if rest.iter().all(legal) => Ok(()),
        _ => Err(Refusal::Target),
    }
}

/// Digits only: no sign, no list, nothing that overflows.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    // Nineteen digits always fit.
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLength);
    }
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn uri(authority: Bytes, path: Bytes) -> Result<Uri, Refusal> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| Refusal::Host)?);
    parts.path_and_query =
        Some(PathAndQuery::from_maybe_shared(path).map_err(|_| Refusal::Target)?);
    Uri::from_parts(parts).map_err(|_| Refusal::Target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a.example"),
        (":path", "/x?y=z"),
    ];

    fn read(fields: &[(&str, &str)]) -> Result<Head, Refusal> {
        let mut builder = HeadBuilder::default();
        for (name, value) in fields {
            builder.take(name.as_bytes(), value.as_bytes())?;
        }
        builder.finish()
    }

    fn with(more: &[(&str, &str)]) -> Result<Head, Refusal> {
        read(&[&PLAIN, more].concat())
    }

    /// The plain request with one pseudo-field changed, or left out.
    fn without(name: &str, value: Option<&str>) -> Result<Head, Refusal> {
        let fields: Vec<_> = PLAIN
            .into_iter()
            .filter_map(|(other, old)| {
                let value = if other == name { value } else { Some(old) };
                value.map(|value| (other, value))
            })
            .collect();
        read(&fields)
    }

    #[test]
    fn a_request_is_read_with_its_authority_and_fields() {
        let head = with(&[
            ("accept", "*/*"),
            ("cookie", "a=b"),
            ("cookie", ""),
            ("cookie", "c=d"),
            ("cookie", ""),
            ("te", "trailers"),
            ("content-length", "12"),
            ("host", "a.example"),
        ])
        .unwrap();
        assert_eq!(head.parts.uri, "https://a.example/x?y=z");
        assert_eq!(head.parts.headers[COOKIE], "a=b; c=d");
        assert_eq!(head.length, Some(12));
        assert!(!head.parts.headers.contains_key(HOST));
        let nobody = without(":authority", None);
        assert_eq!(nobody.unwrap_err(), Refusal::Host);
        let head = read(&[
            (":method", "OPTIONS"),
            (":scheme", "https"),
            (":path", "*"),
            ("host", "a.example:444"),
        ]);
        assert_eq!(
            head.unwrap().parts.uri.authority().unwrap(),
            "a.example:444"
        );
    }

    #[test]
    fn pseudo_fields_are_needed_once_and_first() {
        for (name, value) in PLAIN {
            assert!(without(name, None).is_err(), "without {name}");
            assert!(with(&[(name, value)]).is_err(), "{name} twice");
            assert!(without(name, Some("")).is_err(), "empty {name}");
            for field in [("accept", "*/*"), ("cookie", "")] {
                let late = [&[field], &PLAIN[..]].concat();
                assert!(read(&late).is_err());
            }
        }
        for name in [":status", ":protocol", ":x", ":", ":Method"] {
            assert_eq!(with(&[(name, "x")]).unwrap_err(), Refusal::RequestLine);
        }
    }

    #[test]
    fn values_that_mean_two_things_are_refused() {
        for (name, value, refusal) in [
            (":method", "G T", Refusal::RequestLine),
            (":method", "CONNECT", Refusal::Connect),
            (":method", "PRI", Refusal::RequestLine),
            (":scheme", "http", Refusal::Target),
            (":scheme", "https://b", Refusal::Target),
            (":authority", "u@a.example", Refusal::Host),
            (":authority", "a.example/x", Refusal::Host),
            (":authority", "a.example\r\nx: y", Refusal::Host),
            (":path", "x", Refusal::Target),
            (":path", "*", Refusal::Target),
            (":path", "/a b", Refusal::Target),
            (":path", "/a\r\nx: y", Refusal::Target),
            (":path", "/a#b", Refusal::Target),
            (":path", "/a\\b", Refusal::Target),
            (":path", "/\0", Refusal::Target),
            (":path", "https://a.example/", Refusal::Target),
            (
                ":path",
                &format!("/{}", "a".repeat(9000)),
                Refusal::TargetTooLong,
            ),
        ] {
            assert_eq!(
                without(name, Some(value)).unwrap_err(),
                refusal,
                "{name} {value}"
            );
        }
    }

    #[test]
    fn fields_that_belong_to_a_connection_or_hold_a_line_are_refused() {
        for (name, value, refusal) in [
            ("connection", "close", Refusal::FieldName),
            ("keep-alive", "1", Refusal::FieldName),
            ("proxy-connection", "x", Refusal::FieldName),
            ("transfer-encoding", "chunked", Refusal::FieldName),
            ("upgrade", "websocket", Refusal::FieldName),
            ("te", "gzip", Refusal::FieldValue),
            ("Accept", "*/*", Refusal::FieldName),
            ("content_length", "5", Refusal::FieldName),
            ("", "x", Refusal::FieldName),
            ("a b", "x", Refusal::FieldName),
            ("a:", "x", Refusal::FieldName),
            ("a", "x\r\ny: z", Refusal::FieldValue),
            ("a", "x\0", Refusal::FieldValue),
            ("a", " x", Refusal::FieldValue),
            ("a", "x\t", Refusal::FieldValue),
            ("host", "b.example", Refusal::Host),
            ("content-length", "+5", Refusal::ContentLength),
            ("content-length", "5, 5", Refusal::ContentLength),
        ] {
            assert_eq!(
                with(&[(name, value)]).unwrap_err(),
                refusal,
                "{name} {value:?}"
            );
        }
        for name in ["host", "content-length"] {
            let value = if name == "host" { "a.example" } else { "5" };
            assert!(with(&[(name, value), (name, value)]).is_err());
        }
        let many = vec![("a", "b"); MAX_HEADERS];
        assert_eq!(with(&many).unwrap_err(), Refusal::TooManyHeaders);
    }

    #[test]
    fn connect_passes_only_for_a_websocket() {
        let ask = |method: &str, protocol: Option<&str>| {
            let mut fields = PLAIN.to_vec();
            fields[0] = (":method", method);
            fields.extend(protocol.map(|protocol| (":protocol", protocol)));
            read(&fields).map(|head| head.websocket)
        };
        assert_eq!(ask("CONNECT", Some("websocket")), Ok(true));
        assert_eq!(ask("GET", None), Ok(false));
        for (method, protocol, refusal) in [
            ("CONNECT", None, Refusal::Connect),
            ("CONNECT", Some("connect-udp"), Refusal::Connect),
            ("GET", Some("websocket"), Refusal::RequestLine),
        ] {
            assert_eq!(ask(method, protocol), Err(refusal), "{method} {protocol:?}");
        }
    }

    #[test]
    fn trailers_hold_nothing_that_frames_or_routes() {
        let mut trailers = HeaderMap::new();
        assert!(trailer(&mut trailers, b"grpc-status", b"0").is_ok());
        for name in [":path", "host", "content-length", "te", "transfer-encoding"] {
            assert!(
                trailer(&mut trailers, name.as_bytes(), b"0").is_err(),
                "{name}"
            );
        }
        assert_eq!(trailers.len(), 1);
    }
}
