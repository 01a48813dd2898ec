//! Whether the head of a request of HTTP/2 may pass.
//!
//! Pure, and as strict as the parser of HTTP/1 ([`crate::parse`]), so that a request that is sent on over
//! HTTP/1 cannot become another one there. Whoever decoded it, which is h2, has refused before this: upper case, connection fields, `te`
//! other than `trailers`, pseudo fields that are missing, unknown, repeated or late.

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method};

use crate::limits::{MAX_HEADERS, MAX_METHOD_BYTES, MAX_TARGET_BYTES};
use crate::{Refusal, is_authority, is_field_name};

/// Checks one head, and brings it into the form that everything behind expects: one `cookie` field. Whether it asks for a WebSocket
/// stands in none of its fields (RFC 8441).
///
/// # Errors
/// When anything in it is malformed, ambiguous or over a limit.
pub fn check(head: &mut Parts, websocket: bool) -> Result<(), Refusal> {
    if head.headers.len() > MAX_HEADERS {
        return Err(Refusal::TooManyHeaders);
    }
    method(head, websocket)?;
    target(head)?;
    authority(head)?;
    fields(&head.headers)?;
    join_cookies(&mut head.headers);
    Ok(())
}

/// CONNECT only for a WebSocket (RFC 8441): to what it leads is then decided as for any request. PRI is what HTTP/2 begins
/// with, and no request in any version.
fn method(head: &Parts, websocket: bool) -> Result<(), Refusal> {
    if head.method == Method::CONNECT && !websocket {
        Err(Refusal::Connect)
    } else if head.method.as_str().len() > MAX_METHOD_BYTES || head.method.as_str() == "PRI" {
        Err(Refusal::RequestLine)
    } else {
        Ok(())
    }
}

fn target(head: &Parts) -> Result<(), Refusal> {
    let known = head
        .uri
        .scheme()
        .is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    let target = head.uri.path_and_query().ok_or(Refusal::Target)?.as_str();
    if target.len() > MAX_TARGET_BYTES {
        return Err(Refusal::TargetTooLong);
    }
    let legal = match target {
        "*" => head.method == Method::OPTIONS,
        _ => target.starts_with('/') && is_target(target.as_bytes()),
    };
    if known && legal {
        Ok(())
    } else {
        Err(Refusal::Target)
    }
}

/// The bytes that the parser of HTTP/1 takes in a target.
fn is_target(target: &[u8]) -> bool {
    target
        .iter()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\'))
}

/// One authority, from `:authority`, `host`, or both alike (RFC 9113 8.3.1).
fn authority(head: &Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    let named = head.uri.authority().map(Authority::as_str);
    let one = match (named.map(str::as_bytes), host) {
        (Some(named), Some(host)) if named.eq_ignore_ascii_case(host) => named,
        (Some(one), None) | (None, Some(one)) => one,
        (Some(_), Some(_)) | (None, None) => return Err(Refusal::Host),
    };
    if hosts.next().is_none() && is_authority(one) {
        Ok(())
    } else {
        Err(Refusal::Host)
    }
}

fn fields(headers: &HeaderMap) -> Result<(), Refusal> {
    for (name, value) in headers {
        // Of what is no token `http`, and so h2, takes the quote.
        if !name.as_str().bytes().all(is_field_name) {
            return Err(Refusal::FieldName);
        }
        // RFC 9113 8.2.1: no white space around a value. Others would read a different one.
        let value = value.as_bytes();
        if value.trim_ascii().len() != value.len() {
            return Err(Refusal::FieldValue);
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = length.as_bytes();
        let legal = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        if !legal || lengths.next().is_some() {
            return Err(Refusal::ContentLength);
        }
    }
    Ok(())
}

/// HTTP/2 clients send cookies in pieces (RFC 9113 8.2.3); whoever reads them expects one field.
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if pieces.len() > 1 {
        // An empty one would leave a space at an end of the value.
        let told: Vec<&[u8]> = pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect();
        let joined = HeaderValue::from_bytes(&told.join(b"; ".as_slice()))
            .expect("legal values joined by legal bytes are legal");
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn verdict(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(), Refusal> {
        check(&mut head(method, uri, fields), false)
    }

    #[test]
    fn what_browsers_and_tools_send_passes() {
        for (method, uri, fields) in [
            ("GET", "https://a.example/", &[][..]),
            ("GET", "http://a.example:8080/x?y=z", &[("te", "trailers")]),
            ("GET", "/", &[("host", "a.example")]),
            ("GET", "https://a.example/", &[("host", "A.example")]),
            ("POST", "https://a.example/", &[("content-length", "5")]),
            ("OPTIONS", "*", &[("host", "a.example")]),
        ] {
            assert_eq!(
                verdict(method, uri, fields),
                Ok(()),
                "{method} {uri} {fields:?}"
            );
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (method, uri, fields, expected) in [
            ("CONNECT", "a.example:443", &[][..], Refusal::Connect),
            ("PRI", "https://a.example/", &[], Refusal::RequestLine),
            ("GET", "/", &[], Refusal::Host),
            ("GET", "/", &[("host", "")], Refusal::Host),
            ("GET", "/", &[("host", "a b")], Refusal::Host),
            (
                "GET",
                "/",
                &[("host", "a.example"), ("host", "a.example")],
                Refusal::Host,
            ),
            (
                "GET",
                "https://a.example/",
                &[("host", "b.example")],
                Refusal::Host,
            ),
            ("GET", "https://u@a.example/", &[], Refusal::Host),
            ("GET", "*", &[("host", "a.example")], Refusal::Target),
            ("GET", "ftp://a.example/", &[], Refusal::Target),
            ("GET", "https://a.example/\u{e4}", &[], Refusal::Target),
            ("GET", "https://a.example/\"", &[], Refusal::Target),
            (
                "GET",
                "https://a.example/",
                &[("a", "b ")],
                Refusal::FieldValue,
            ),
            (
                "GET",
                "https://a.example/",
                &[("content-length", "+5")],
                Refusal::ContentLength,
            ),
            (
                "GET",
                "https://a.example/",
                &[("content-length", "")],
                Refusal::ContentLength,
            ),
            (
                "GET",
                "https://a.example/",
                &[("content-length", "5"), ("content-length", "5")],
                Refusal::ContentLength,
            ),
        ] {
            assert_eq!(
                verdict(method, uri, fields),
                Err(expected),
                "{method} {uri} {fields:?}"
            );
        }
        let long = format!("https://a.example/{}", "a".repeat(MAX_TARGET_BYTES));
        assert_eq!(verdict("GET", &long, &[]), Err(Refusal::TargetTooLong));
        let many = vec![("a", "b"); MAX_HEADERS + 1];
        assert_eq!(
            verdict("GET", "https://a.example/", &many),
            Err(Refusal::TooManyHeaders)
        );
    }

    #[test]
    fn names_that_http1_has_no_field_for_are_refused() {
        for name in ["content_length", "a\"b"] {
            let mut head = head("GET", "https://a.example/", &[]);
            // As h2 reads it.
            let field = http::HeaderName::from_lowercase(name.as_bytes()).unwrap();
            head.headers.insert(field, HeaderValue::from_static("5"));
            assert_eq!(check(&mut head, false), Err(Refusal::FieldName), "{name}");
        }
    }

    #[test]
    fn connect_passes_only_for_a_websocket() {
        for (websocket, expected) in [(false, Err(Refusal::Connect)), (true, Ok(()))] {
            let mut head = head("CONNECT", "https://a.example/chat", &[]);
            assert_eq!(check(&mut head, websocket), expected);
        }
    }

    #[test]
    fn cookies_in_pieces_become_one_field() {
        let pieces = [
            ("cookie", "a=1"),
            ("x", "y"),
            ("cookie", "b=2"),
            ("cookie", ""),
            ("cookie", "c=3"),
            ("cookie", ""),
        ];
        let mut head = head("GET", "https://a.example/", &pieces);
        check(&mut head, false).unwrap();
        let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }
}
