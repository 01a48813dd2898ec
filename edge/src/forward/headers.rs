//! Which header fields pass between a client and an upstream, and which this edge writes.
//!
//! Pure, and the same for every lane and protocol. What an upstream is told about a client is told by this
//! edge alone: fields that claim it are dropped before ours are written, and ours are written after
//! everything a client named in `Connection` is gone, so that it cannot take them away. How a body is framed
//! is left to the lane that sends it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use helix_framing::Reply;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::exchange::Protocol;
use crate::trace::{self, TRACEPARENT, TraceId};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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

/// The fields that an upstream is sent: those of the client that pass, and ours.
#[derive(Debug)]
pub struct ToUpstream<'a> {
    client: &'a HeaderMap,
    /// Named in `Connection`.
    named: Vec<HeaderName>,
    /// Whether the client's trace goes on.
    traced: bool,
    trace: TraceId,
    /// The configured host, or the one asked for.
    host: Option<&'a [u8]>,
    own: Own,
}

/// The fields that this edge writes. Those that are made for one request lie in one text: there are many of them.
#[derive(Debug, Default)]
struct Own {
    text: String,
    fields: Vec<(HeaderName, Value)>,
}

#[derive(Debug)]
enum Value {
    Always(&'static str),
    /// A part of the text.
    Made(Range<usize>),
}

/// Bytes that the texts of most requests fit in.
const USUAL_TEXT: usize = 256;
/// At most so many fields are written here.
const MOST_OWN: usize = 8;

/// Makes of a client's fields those that an upstream is sent. `fresh` is random, for a trace that has no name.
///
/// # Errors
/// When the request came from an edge already (RFC 8586).
pub fn to_upstream<'a>(
    headers: &'a HeaderMap,
    client: &Client<'a>,
    host: Option<&'a HeaderValue>,
    fresh: (u128, u64),
) -> Result<ToUpstream<'a>, Loops> {
    if has_token(headers, &CDN_LOOP, SELF) {
        return Err(Loops);
    }
    let mut own = Own {
        text: String::with_capacity(USUAL_TEXT),
        fields: Vec::with_capacity(MOST_OWN),
    };
    if has_token(headers, &TE, "trailers") {
        own.always(TE, "trailers");
    }
    own.introduce(client);
    own.always(CDN_LOOP, SELF);
    own.always(VIA, via(client.protocol));
    let given = trace::parent(headers).and_then(|parent| trace::id(parent.as_bytes()));
    let traced = given.is_some();
    let trace = given.unwrap_or_else(|| own.begin_trace(fresh));
    let asked = Some(client.authority).filter(|asked| is_printable(asked));
    let host = host.map(HeaderValue::as_bytes);
    let host = host.or_else(|| asked.map(str::as_bytes));
    Ok(ToUpstream {
        client: headers,
        named: named(headers),
        traced,
        trace,
        host: host.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes)),
        own,
    })
}

impl ToUpstream<'_> {
    /// All of them, `Host` first. What the client says about the framing of its body is among them.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        let host = self.host.map(|host| (&HOST, host));
        let passed = self.client.iter().filter(|(name, _)| self.passes(name));
        let passed = passed.map(|(name, value)| (name, value.as_bytes()));
        host.into_iter().chain(passed).chain(self.own.iter())
    }

    /// The trace that the upstream sees the request in.
    #[must_use]
    pub const fn trace(&self) -> &TraceId {
        &self.trace
    }

    fn passes(&self, name: &HeaderName) -> bool {
        let replaced = matches!(*name, HOST | TE | EXPECT)
            || !self.traced && matches!(name.as_str(), "traceparent" | "tracestate");
        !replaced && !is_of_a_connection(name) && !self.named.contains(name) && !is_claim(name)
    }
}

/// Makes of a client's trailers those that an upstream may see: they claim nothing either.
pub(super) fn trailers_to_upstream(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| is_of_a_connection(name) || is_claim(name));
}

/// Makes of an upstream's fields, or trailers, those that a client may see.
pub fn to_client(headers: &mut HeaderMap) {
    let named = named(headers);
    remove_all(headers, |name| {
        !is_for_clients(name.as_str().as_bytes()) || named.contains(name)
    });
}

/// Which of the fields of `reply`, by their names in any case, a client may see.
pub(super) fn for_client(reply: &Reply) -> impl Fn(&[u8]) -> bool + Send + Sync {
    let mut named = Vec::new();
    for (name, value) in reply.lines() {
        if name.eq_ignore_ascii_case(CONNECTION.as_str().as_bytes()) {
            named.extend(named_in(value));
        }
    }
    move |name| {
        is_for_clients(name)
            && !named
                .iter()
                .any(|named| named.as_str().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Whether a response's field of this name, in any case, is for clients. Another server's address is not this edge's.
fn is_for_clients(name: &[u8]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    let is_ours = |prefix: &[u8]| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    // Most names are told by how they start.
    match name.first().map(u8::to_ascii_lowercase) {
        Some(b'a') => !is("alt-svc"),
        Some(b'c') => !is("connection"),
        Some(b'x') => !is_ours(b"x-helix-"),
        Some(b'h' | b'k' | b'p' | b'u') => !OF_A_CONNECTION.iter().any(|name| is(name.as_str())),
        _ => true,
    }
}

fn is_of_a_connection(name: &HeaderName) -> bool {
    *name == CONNECTION || OF_A_CONNECTION.contains(name)
}

/// What `Connection` names (RFC 9110 7.6.1).
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| named_in(value.as_bytes()))
        .collect()
}

fn named_in(value: &[u8]) -> impl Iterator<Item = HeaderName> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        // What it mostly says is no field, or one that never passes.
        .filter(|name| {
            !name.eq_ignore_ascii_case(b"close") && !name.eq_ignore_ascii_case(b"keep-alive")
        })
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        // These say where a message ends and whom it is for, and nobody may take them away.
        .filter(|name| !matches!(*name, CONTENT_LENGTH | TRANSFER_ENCODING | HOST))
}

fn remove_all(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let found: Vec<HeaderName> = headers
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    for name in found {
        headers.remove(name);
    }
}

fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Most names are told by how they start.
    let may_be = matches!(
        name.as_bytes().first(),
        Some(b'c' | b'f' | b'p' | b't' | b'x')
    );
    may_be && is_listed(name)
}

fn is_listed(name: &str) -> bool {
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

impl Own {
    fn iter(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        self.fields.iter().map(|(name, value)| {
            let value = match value {
                Value::Always(value) => value,
                Value::Made(part) => self.text.get(part.clone()).unwrap_or_default(),
            };
            (name, value.as_bytes())
        })
    }

    fn always(&mut self, name: HeaderName, value: &'static str) {
        self.fields.push((name, Value::Always(value)));
    }

    /// Adds to the text, and says where it is.
    fn write(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    /// Says who the client is, to servers that read either form. `Forwarded` (RFC 7239) has it all; what the others
    /// say is part of it.
    fn introduce(&mut self, client: &Client<'_>) {
        let forwarded = self.write("for=").start;
        let address = self.write_address(client.peer.ip().to_canonical());
        if is_quotable(client.authority) {
            self.text.push_str(";host=\"");
            let host = self.write(client.authority);
            self.text.push('"');
            self.fields.push((FORWARDED_HOST, Value::Made(host)));
        }
        self.text.push_str(";proto=");
        let proto = self.write(if client.secure { "https" } else { "http" });
        let forwarded = forwarded..self.text.len();
        for (name, part) in [
            (FORWARDED_PROTO, proto),
            (FORWARDED_FOR, address),
            (FORWARDED, forwarded),
        ] {
            self.fields.push((name, Value::Made(part)));
        }
    }

    /// As in `Forwarded`, and where in it the bare address is.
    fn write_address(&mut self, ip: IpAddr) -> Range<usize> {
        match ip {
            IpAddr::V4(ip) => {
                let start = self.text.len();
                for (place, octet) in ip.octets().into_iter().enumerate() {
                    if place > 0 {
                        self.text.push('.');
                    }
                    push_decimal(&mut self.text, octet);
                }
                start..self.text.len()
            }
            IpAddr::V6(ip) => {
                self.text.push_str("\"[");
                let bare = self.write(&ip.to_string());
                self.text.push_str("]\"");
                bare
            }
        }
    }

    /// Writes the parent of a new trace, and says which.
    fn begin_trace(&mut self, fresh: (u128, u64)) -> TraceId {
        let begun = trace::begun(fresh);
        let made = self.write(&begun);
        self.fields.push((TRACEPARENT, Value::Made(made)));
        trace::id(begun.as_bytes()).expect("a trace that is begun has a name")
    }
}

/// Without what makes formatting general: each request has eight of these.
fn push_decimal(text: &mut String, octet: u8) {
    let digit = |value: u8| char::from(b'0' + value % 10);
    if octet >= 100 {
        text.push(digit(octet / 100));
    }
    if octet >= 10 {
        text.push(digit(octet / 10));
    }
    text.push(digit(octet));
}

fn is_printable(authority: &str) -> bool {
    !authority.is_empty() && authority.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether an authority can stand between quotes as it is.
fn is_quotable(authority: &str) -> bool {
    is_printable(authority) && !authority.bytes().any(|byte| matches!(byte, b'"' | b'\\'))
}

const fn via(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "1.1 helixstack",
        Protocol::Http2 => "2 helixstack",
        Protocol::Http3 => "3 helixstack",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn sent(fields: &[(&str, &str)]) -> Result<HeaderMap, Loops> {
        let headers = map(fields);
        let client = Client {
            peer: "192.0.2.7:1234".parse().unwrap(),
            secure: true,
            protocol: Protocol::Http2,
            authority: "shop.example:8443",
        };
        let sent = to_upstream(&headers, &client, None, (7, 9))?;
        assert!(sent.iter().next().is_some_and(|(name, _)| name == HOST));
        Ok(collected(&sent))
    }

    fn collected(sent: &ToUpstream<'_>) -> HeaderMap {
        let fields = sent.iter();
        fields
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value).unwrap()))
            .collect()
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
        let traced = map(&[("traceparent", TRACE)]);
        let client = Client {
            peer: "192.0.2.7:1234".parse().unwrap(),
            secure: false,
            protocol: Protocol::Http1,
            authority: "a.example",
        };
        let sent_on = to_upstream(&traced, &client, None, (7, 9)).unwrap();
        assert_eq!(sent_on.trace(), b"0af7651916cd43dd8448eb211c80319c");
        let empty = HeaderMap::new();
        let sent_on = to_upstream(&empty, &client, None, (7, 9)).unwrap();
        assert_eq!(sent_on.trace(), b"00000000000000000000000000000007");
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
        let empty = HeaderMap::new();
        let client = Client {
            peer: "[2001:db8::1]:1".parse().unwrap(),
            secure: false,
            protocol: Protocol::Http1,
            authority: "a\"b",
        };
        let host = HeaderValue::from_static("api.internal");
        let headers = collected(&to_upstream(&empty, &client, Some(&host), (0, 0)).unwrap());
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";proto=http");
        assert_eq!(headers["host"], "api.internal");
        assert!(!headers.contains_key("x-forwarded-host"));
    }

    #[test]
    fn trailers_claim_nothing_either() {
        let mut trailers = map(&[
            ("grpc-timeout", "1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-helix-edge", "x"),
            ("keep-alive", "5"),
        ]);
        trailers_to_upstream(&mut trailers);
        assert_eq!(trailers, map(&[("grpc-timeout", "1")]));
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
