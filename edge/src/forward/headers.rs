//! Which header fields pass between a client and an upstream, and which this edge writes.
//!
//! Pure, and the same for every lane and protocol. What an upstream is told about a client is told by this
//! edge alone: fields that claim it are dropped before ours are written, and ours are written after
//! everything a client named in `Connection` is gone, so that it cannot take them away. How a body is framed
//! is left to the lane that sends it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{
    ALT_SVC, CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE,
    VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::exchange::Protocol;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// By this name the edge knows itself in `CDN-Loop` and `Via`.
const SELF: &str = "helixstack";

/// Fields that are about one connection (RFC 9110 7.6.1), besides `Connection` and those it names.
const OF_A_CONNECTION: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("http2-settings"),
    UPGRADE,
];

/// Fields by which servers behind proxies learn of the client, all of which a client can send as well.
const CLAIMED_PREFIXES: [&str; 4] = ["x-helix-", "x-forwarded-", "x-middleware-", "x-envoy-"];
const CLAIMED: [&str; 13] = [
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "true-client-ip",
    "cf-connecting-ip",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    // CGI makes HTTP_PROXY of it, which programs take for their proxy (CVE-2016-5385).
    "proxy",
];

/// Who sent the request.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Where from.
    pub peer: SocketAddr,
    /// Whether over TLS.
    pub secure: bool,
    /// Over which protocol.
    pub protocol: Protocol,
    /// The authority asked for, as sent.
    pub authority: &'a str,
}

/// The request has been here before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request came back to this edge (CDN-Loop)")]
pub struct Loops;

/// Makes of a client's fields those that an upstream is sent. `fresh` is random, for a trace that has no name.
///
/// # Errors
/// When the request came from an edge already (RFC 8586).
pub fn to_upstream(
    headers: &mut HeaderMap,
    client: &Client<'_>,
    host: Option<&HeaderValue>,
    fresh: (u128, u64),
) -> Result<(), Loops> {
    if has_token(headers, &CDN_LOOP, SELF) {
        return Err(Loops);
    }
    let trailers = has_token(headers, &TE, "trailers");
    drop_hop_by_hop(headers);
    drop_claims(headers);
    headers.remove(EXPECT);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, TRAILERS);
    }
    introduce(headers, client);
    headers.append(CDN_LOOP, HeaderValue::from_static(SELF));
    headers.append(VIA, via(client.protocol));
    trace(headers, fresh);
    let asked = || HeaderValue::from_str(client.authority).ok();
    if let Some(host) = host.cloned().or_else(asked) {
        headers.insert(HOST, host);
    }
    Ok(())
}

/// Makes of an upstream's fields those that a client may see.
pub fn to_client(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    // Another server's address is not this edge's.
    headers.remove(ALT_SVC);
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-helix-"))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// The name of the request's trace, under which an operator finds it: 32 hexadecimal digits.
#[must_use]
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(TRACEPARENT)?.to_str().ok()?.get(3..35)
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // These say where a message ends and whom it is for, and nobody may take them away.
        .filter(|name| !matches!(*name, CONTENT_LENGTH | TRANSFER_ENCODING | HOST))
        .collect();
    for name in named.iter().chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

fn drop_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name.as_str()))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
}

fn is_claim(name: &str) -> bool {
    CLAIMED.contains(&name)
        || CLAIMED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Whether a comma-separated field holds `token`, parameters aside.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|entry| entry.split(|byte| *byte == b';').next())
        .any(|entry| entry.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Says who the client is, to servers that read either form.
fn introduce(headers: &mut HeaderMap, client: &Client<'_>) {
    let address = client.peer.ip().to_canonical();
    let scheme = if client.secure { "https" } else { "http" };
    let mut forwarded = match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    if is_quotable(client.authority) {
        // Writing to a string cannot fail.
        let _ = write!(forwarded, ";host=\"{}\"", client.authority);
        headers.extend(
            HeaderValue::from_str(client.authority)
                .ok()
                .map(|host| (FORWARDED_HOST, host)),
        );
    }
    let _ = write!(forwarded, ";proto={scheme}");
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    let text = |text: String| {
        HeaderValue::try_from(text).expect("an address and a checked authority are ASCII")
    };
    headers.insert(FORWARDED_FOR, text(address.to_string()));
    headers.insert(FORWARDED, text(forwarded));
}

/// Whether an authority can stand between quotes as it is.
fn is_quotable(authority: &str) -> bool {
    !authority.is_empty()
        && authority
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

const fn via(protocol: Protocol) -> HeaderValue {
    match protocol {
        Protocol::Http1 => HeaderValue::from_static("1.1 helixstack"),
        Protocol::Http2 => HeaderValue::from_static("2 helixstack"),
        Protocol::Http3 => HeaderValue::from_static("3 helixstack"),
    }
}

/// Passes a trace on (W3C Trace Context), or begins one.
fn trace(headers: &mut HeaderMap, (trace, span): (u128, u64)) {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let known = matches!((given.next(), given.next()), (Some(parent), None) if is_traceparent(parent.as_bytes()));
    if known {
        return;
    }
    headers.remove(TRACESTATE);
    // Zero means none.
    let fresh = format!("00-{:032x}-{:016x}-00", trace.max(1), span.max(1));
    headers.insert(
        TRACEPARENT,
        HeaderValue::try_from(fresh).expect("hexadecimal digits are ASCII"),
    );
}

/// `00-` trace `-` span `-` flags, in lower case, neither of the two zero.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let mut parts = value.split(|byte| *byte == b'-');
    let (Some(version), Some(trace), Some(span), Some(flags), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return false;
    };
    let named = |part: &[u8], length| {
        part.len() == length && part.iter().all(hex) && part.iter().any(|digit| *digit != b'0')
    };
    version == b"00"
        && named(trace, 32)
        && named(span, 16)
        && flags.len() == 2
        && flags.iter().all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn sent(fields: &[(&str, &str)]) -> Result<HeaderMap, Loops> {
        let mut headers = map(fields);
        let client = Client {
            peer: "192.0.2.7:1234".parse().unwrap(),
            secure: true,
            protocol: Protocol::Http2,
            authority: "shop.example:8443",
        };
        to_upstream(&mut headers, &client, None, (7, 9))?;
        Ok(headers)
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    value.parse::<HeaderValue>().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn an_upstream_learns_of_the_client_from_this_edge_alone() {
        let headers = sent(&[
            ("X-Forwarded-For", "127.0.0.1"),
            ("x-forwarded-port", "1"),
            ("FORWARDED", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-helix-release", "aaaa"),
            ("x-middleware-subrequest", "middleware"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("proxy", "evil.example"),
            ("cookie", "a=b"),
        ])
        .unwrap();
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example:8443"),
            (
                "forwarded",
                "for=192.0.2.7;host=\"shop.example:8443\";proto=https",
            ),
            ("host", "shop.example:8443"),
            ("via", "2 helixstack"),
            ("cdn-loop", "helixstack"),
            ("cookie", "a=b"),
        ] {
            assert_eq!(
                headers.get_all(name).iter().collect::<Vec<_>>(),
                [value],
                "{name}"
            );
        }
        for name in [
            "x-forwarded-port",
            "x-real-ip",
            "x-helix-release",
            "x-middleware-subrequest",
            "x-original-url",
            "x-rewrite-url",
            "proxy",
        ] {
            assert!(!headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_client_cannot_name_our_fields_away() {
        let headers = sent(&[
            ("connection", "close, X-Forwarded-For, forwarded,x-secret , host, content-length, transfer-encoding"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("content-length", "3"),
            ("upgrade", "h2c"),
            ("te", "trailers, deflate"),
            ("expect", "100-continue"),
        ])
        .unwrap();
        for name in ["x-forwarded-for", "forwarded", "host", "content-length"] {
            assert!(headers.contains_key(name), "{name}");
        }
        for name in ["connection", "x-secret", "keep-alive", "upgrade", "expect"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn a_request_that_was_here_before_goes_no_further() {
        assert_eq!(
            sent(&[("cdn-loop", "other; a=b, HelixStack;v=1")]).unwrap_err(),
            Loops
        );
        let headers = sent(&[("cdn-loop", "other"), ("via", "1.1 other")]).unwrap();
        assert_eq!(
            headers.get_all("cdn-loop").iter().collect::<Vec<_>>(),
            ["other", "helixstack"]
        );
        assert_eq!(
            headers.get_all("via").iter().collect::<Vec<_>>(),
            ["1.1 other", "2 helixstack"]
        );
    }

    #[test]
    fn a_trace_is_passed_on_or_begun() {
        let headers = sent(&[("traceparent", TRACE), ("tracestate", "a=b")]).unwrap();
        assert_eq!(
            (&headers["traceparent"], &headers["tracestate"]),
            (&TRACE.parse().unwrap(), &"a=b".parse().unwrap())
        );
        assert_eq!(trace_id(&headers), Some("0af7651916cd43dd8448eb211c80319c"));
        for broken in [
            "",
            "00-1-2-3",
            "01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            &TRACE.to_uppercase(),
        ] {
            let headers = sent(&[("traceparent", broken), ("tracestate", "a=b")]).unwrap();
            assert_eq!(
                headers["traceparent"],
                "00-00000000000000000000000000000007-0000000000000009-00"
            );
            assert!(!headers.contains_key("tracestate"));
        }
    }

    #[test]
    fn a_client_of_ipv6_is_written_in_quotes() {
        let mut headers = HeaderMap::new();
        let client = Client {
            peer: "[2001:db8::1]:1".parse().unwrap(),
            secure: false,
            protocol: Protocol::Http1,
            authority: "a\"b",
        };
        let host = HeaderValue::from_static("api.internal");
        to_upstream(&mut headers, &client, Some(&host), (0, 0)).unwrap();
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";proto=http");
        assert_eq!(headers["host"], "api.internal");
        assert!(!headers.contains_key("x-forwarded-host"));
    }

    #[test]
    fn a_response_says_nothing_in_our_name() {
        let mut headers = map(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("alt-svc", "h3=\":1\""),
            ("x-helix-edge", "x"),
            ("keep-alive", "timeout=5"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
        ]);
        to_client(&mut headers);
        assert_eq!(
            headers,
            map(&[
                ("content-type", "text/plain"),
                ("set-cookie", "a=b"),
                ("set-cookie", "c=d")
            ])
        );
    }
}
