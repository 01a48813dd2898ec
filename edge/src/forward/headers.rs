//! Which header fields pass between a client and an upstream, and which this edge writes.
//!
//! Pure, and the same for every lane and protocol. What an upstream is told about a client is told by this
//! edge alone: fields that claim it are dropped before ours are written, and ours are written after
//! everything a client named in `Connection` is gone, so that it cannot take them away. How a body is framed
//! is left to the lane that sends it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use helix_framing::{Reply, may_trail};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::exchange::Protocol;
use crate::trace::{self, Begun, TRACEPARENT, TraceId};

static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
    trace: TraceId,
    /// The configured host, or the one asked for.
    host: Option<&'a [u8]>,
    own: Own,
}

/// The fields that this edge writes. `Forwarded` (RFC 7239) has all there is to say of the client; what the others say is
/// part of it.
#[derive(Debug)]
struct Own {
    takes_trailers: bool,
    via: &'static str,
    forwarded: String,
    host: Option<Range<usize>>,
    proto: Range<usize>,
    address: Range<usize>,
    begun: Option<Begun>,
}

/// Bytes that what is said of most clients fits in.
const USUAL_FORWARDED: usize = 128;

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
    let said = Said::by(headers);
    if said.loops {
        return Err(Loops);
    }
    let given = said.trace();
    let begun = given.is_none().then(|| trace::begin(fresh));
    let own = Own {
        takes_trailers: said.takes_trailers,
        begun,
        ..Own::introducing(client)
    };
    let asked = Some(client.authority).filter(|asked| is_printable(asked));
    let host = host.map(HeaderValue::as_bytes);
    let host = host.or_else(|| asked.map(str::as_bytes));
    Ok(ToUpstream {
        client: headers,
        named: said.named,
        trace: given
            .or_else(|| begun.map(|begun| begun.id))
            .unwrap_or_default(),
        host: host.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes)),
        own,
    })
}

/// What a client's fields say that decides about the others. All are looked at once.
#[derive(Default)]
struct Said<'a> {
    loops: bool,
    takes_trailers: bool,
    named: Vec<HeaderName>,
    parents: usize,
    parent: Option<&'a [u8]>,
}

impl<'a> Said<'a> {
    fn by(headers: &'a HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            if *name == CDN_LOOP {
                said.loops |= has_token(value, SELF);
            } else if *name == TE {
                said.takes_trailers |= has_token(value, "trailers");
            } else if *name == CONNECTION {
                said.named.extend(named_in(value));
            } else if *name == TRACEPARENT {
                said.parents += 1;
                said.parent = Some(value);
            }
        }
        said
    }

    /// The trace that goes on. Of two parents neither is one (4.3 of the recommendation).
    fn trace(&self) -> Option<TraceId> {
        self.parent
            .filter(|_| self.parents == 1)
            .and_then(trace::id)
    }
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
            || self.own.begun.is_some() && matches!(name.as_str(), "traceparent" | "tracestate");
        !replaced && !is_of_a_connection(name) && !self.named.contains(name) && !is_claim(name)
    }
}

/// Makes of a client's trailers those that an upstream may see: they claim nothing either.
pub(super) fn trailers_to_upstream(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| {
        !may_trail(name) || is_of_a_connection(name) || is_claim(name)
    });
}

/// Makes of an upstream's trailers those that a client may see.
pub(super) fn trailers_to_client(trailers: &mut HeaderMap) {
    to_client(trailers);
    remove_all(trailers, |name| !may_trail(name));
}

/// Makes of an upstream's fields those that a client may see.
pub fn to_client(headers: &mut HeaderMap) {
    let named = named(headers);
    remove_all(headers, |name| {
        !is_for_clients(name.as_str().as_bytes()) || named.contains(name)
    });
}

/// Which of the fields of `reply`, by their names in any case, a client may see.
pub(super) fn for_client(reply: &Reply) -> impl Fn(&[u8]) -> bool + Send + Sync {
    let mut named = Vec::new();
    for line in reply.lines() {
        if line
            .name
            .eq_ignore_ascii_case(CONNECTION.as_str().as_bytes())
        {
            named.extend(named_in(line.value));
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

/// Whether a comma-separated value holds `token`, parameters aside.
fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .filter_map(|entry| entry.split(|byte| *byte == b';').next())
        .any(|entry| entry.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

impl Own {
    fn iter(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        let part = |range: &Range<usize>| {
            let part = self.forwarded.get(range.clone());
            part.unwrap_or_default().as_bytes()
        };
        let host = self.host.as_ref();
        let begun = self.begun.as_ref();
        let fields = [
            self.takes_trailers.then_some((&TE, &b"trailers"[..])),
            host.map(|host| (&FORWARDED_HOST, part(host))),
            Some((&FORWARDED_PROTO, part(&self.proto))),
            Some((&FORWARDED_FOR, part(&self.address))),
            Some((&FORWARDED, self.forwarded.as_bytes())),
            Some((&CDN_LOOP, SELF.as_bytes())),
            Some((&VIA, self.via.as_bytes())),
            begun.map(|begun| (&TRACEPARENT, &begun.parent[..])),
        ];
        fields.into_iter().flatten()
    }

    /// Says who the client is, to servers that read either form.
    fn introducing(client: &Client<'_>) -> Self {
        let mut text = String::with_capacity(USUAL_FORWARDED);
        text.push_str("for=");
        let address = write_address(&mut text, client.peer.ip().to_canonical());
        let host = is_quotable(client.authority).then(|| {
            text.push_str(";host=\"");
            let host = write(&mut text, client.authority);
            text.push('"');
            host
        });
        text.push_str(";proto=");
        let proto = write(&mut text, if client.secure { "https" } else { "http" });
        Self {
            takes_trailers: false,
            via: via(client.protocol),
            forwarded: text,
            host,
            proto,
            address,
            begun: None,
        }
    }
}

/// Adds to `text`, and says where it is.
fn write(text: &mut String, more: &str) -> Range<usize> {
    let start = text.len();
    text.push_str(more);
    start..text.len()
}

/// As in `Forwarded`, and where in it the bare address is.
fn write_address(text: &mut String, ip: IpAddr) -> Range<usize> {
    match ip {
        IpAddr::V4(ip) => {
            let start = text.len();
            for (place, octet) in ip.octets().into_iter().enumerate() {
                if place > 0 {
                    text.push('.');
                }
                push_decimal(text, octet);
            }
            start..text.len()
        }
        IpAddr::V6(ip) => {
            text.push_str("\"[");
            let bare = write(text, &ip.to_string());
            text.push_str("]\"");
            bare
        }
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
            ("authorization", "Basic x"),
            ("content-length", "5"),
        ]);
        trailers_to_upstream(&mut trailers);
        assert_eq!(trailers, map(&[("grpc-timeout", "1")]));
    }

    #[test]
    fn trailers_of_a_response_set_nothing() {
        let mut trailers = map(&[
            ("grpc-status", "0"),
            ("set-cookie", "a=b"),
            ("content-type", "text/html"),
            ("x-helix-edge", "x"),
        ]);
        trailers_to_client(&mut trailers);
        assert_eq!(trailers, map(&[("grpc-status", "0")]));
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
