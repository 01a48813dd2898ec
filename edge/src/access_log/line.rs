//! One line for one request, as JSON or as combined.
//!
//! Keys come in one order. What a client sent stands between quotes that it cannot end, in a line that it cannot
//! end either. Of its fields only `Referer`, `User-Agent` and the id of its trace are told, never what it keeps secret.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use helix_framing::Refusal;
use helix_routing::id::SiteId;
use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::config::Format;
use super::text::{address, combined, json, number, seconds, socket};
use super::wall::Wall;
use crate::exchange::Protocol;

/// What nginx says of a client that left before it was sent anything.
const LEFT: u64 = 499;

/// A finished request.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The client.
    pub peer: SocketAddr,
    /// When it was finished.
    pub at: Instant,
    /// From head to last byte.
    pub took: Duration,
    /// What was asked for and what was sent.
    pub served: Told<'a>,
    /// What the client said of itself.
    pub said: Said<'a>,
    /// What became of it in the response cache, or nothing.
    pub cache: &'static str,
    /// The server it was sent on to last.
    pub upstream: Option<SocketAddr>,
    /// Why it was not finished, or nothing.
    pub error: &'a str,
}

/// What was asked for and what was sent.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// To be written.
    Now(Served<'a>),
    /// Written before, by [`Form::served`]: it was the same.
    Before(&'a [u8]),
}

/// What was asked for and what was sent, without when and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// What carried it.
    pub protocol: Protocol,
    /// Whether that was HTTP/1.0.
    pub version_1_0: bool,
    /// As sent; nothing when the head was refused.
    pub method: &'a str,
    /// As sent.
    pub host: &'a [u8],
    /// Path and query, as sent.
    pub target: &'a [u8],
    /// None when the client was gone before it was sent one.
    pub status: Option<StatusCode>,
    /// Bytes of body sent.
    pub bytes: u64,
    /// The release that answered, or nothing.
    pub release: &'a str,
    /// The site that its host means.
    pub site: Option<&'a SiteId>,
}

/// What a client said of itself; nothing where it said nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// `Referer`.
    pub referer: &'a [u8],
    /// `User-Agent`.
    pub user_agent: &'a [u8],
    /// The id of the trace that it belongs to, in hexadecimal (W3C Trace Context).
    pub trace_id: &'a [u8],
}

impl<'a> Said<'a> {
    /// What these fields say; of traces whoever knows more says it.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let value = |name| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        Self {
            referer: value(&REFERER),
            user_agent: value(&USER_AGENT),
            trace_id: b"",
        }
    }
}

/// How the lines of one edge look.
#[derive(Clone, Debug)]
pub struct Form {
    format: Format,
    /// How each object ends: which edge it was, and where.
    end: Box<[u8]>,
}

impl Form {
    pub(super) fn new(format: Format, edge: &str, region: &str) -> Self {
        let mut end = Vec::new();
        quoted(&mut end, b",\"edge\":", edge.as_bytes());
        quoted(&mut end, b",\"region\":", region.as_bytes());
        end.extend_from_slice(b"}\n");
        let end = end.into();
        Self { format, end }
    }

    /// Writes what a line says of `served`, for lines to come that say the same of it.
    pub fn served(&self, out: &mut Vec<u8>, served: &Served<'_>) {
        match self.format {
            Format::Json => served.json(out),
            Format::Combined => served.combined(out),
            Format::Off => {}
        }
    }

    /// Writes `line`.
    pub(super) fn line(&self, out: &mut Vec<u8>, wall: &Wall, line: &Line<'_>) {
        match self.format {
            Format::Json => self.json(out, wall, line),
            Format::Combined => self.combined(out, wall, line),
            Format::Off => {}
        }
    }

    fn json(&self, out: &mut Vec<u8>, wall: &Wall, line: &Line<'_>) {
        out.extend_from_slice(b"{\"time\":\"");
        wall.rfc3339(out, line.at);
        out.extend_from_slice(b"\",\"client\":\"");
        address(out, line.peer.ip());
        out.extend_from_slice(b"\",\"client_port\":");
        number(out, line.peer.port().into());
        out.extend_from_slice(b",\"seconds\":");
        seconds(out, line.took);
        self.told(out, &line.served);
        for (key, value) in [
            (&b",\"referer\":"[..], line.said.referer),
            (b",\"user_agent\":", line.said.user_agent),
            (b",\"trace_id\":", line.said.trace_id),
            (b",\"cache\":", line.cache.as_bytes()),
        ] {
            if !value.is_empty() {
                quoted(out, key, value);
            }
        }
        if let Some(upstream) = line.upstream {
            out.extend_from_slice(b",\"upstream\":\"");
            socket(out, upstream);
            out.push(b'"');
        }
        if !line.error.is_empty() {
            quoted(out, b",\"error\":", line.error.as_bytes());
        }
        out.extend_from_slice(&self.end);
    }

    fn combined(&self, out: &mut Vec<u8>, wall: &Wall, line: &Line<'_>) {
        address(out, line.peer.ip());
        out.extend_from_slice(b" - - [");
        wall.combined(out);
        out.extend_from_slice(b"] \"");
        self.told(out, &line.served);
        for value in [line.said.referer, line.said.user_agent] {
            out.extend_from_slice(b" \"");
            combined(out, if value.is_empty() { b"-" } else { value });
            out.push(b'"');
        }
        out.push(b'\n');
    }

    fn told(&self, out: &mut Vec<u8>, told: &Told<'_>) {
        match told {
            Told::Now(served) => self.served(out, served),
            Told::Before(written) => out.extend_from_slice(written),
        }
    }
}

impl Served<'_> {
    /// Nothing that could be read was asked for.
    #[must_use]
    pub fn refused(protocol: Protocol, refusal: Refusal) -> Self {
        Self {
            protocol,
            version_1_0: false,
            method: "",
            host: b"",
            target: b"",
            status: Some(refusal.status()),
            bytes: 0,
            release: "",
            site: None,
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"protocol\":\"");
        out.extend_from_slice(self.protocol.label().as_bytes());
        out.push(b'"');
        quoted(out, b",\"method\":", self.method.as_bytes());
        quoted(out, b",\"host\":", self.host);
        quoted(out, b",\"target\":", self.target);
        out.extend_from_slice(b",\"status\":");
        number(out, self.status.map_or(0, |status| status.as_u16().into()));
        out.extend_from_slice(b",\"bytes\":");
        number(out, self.bytes);
        if !self.release.is_empty() {
            quoted(out, b",\"release\":", self.release.as_bytes());
        }
        if let Some(site) = self.site {
            out.extend_from_slice(b",\"site\":\"");
            // Its letters need no escape, and a vector takes everything.
            drop(write!(out, "{site}"));
            out.push(b'"');
        }
    }

    /// From behind the quote that begins the request line.
    fn combined(&self, out: &mut Vec<u8>) {
        if self.method.is_empty() {
            out.push(b'-');
        } else {
            combined(out, self.method.as_bytes());
            out.push(b' ');
            combined(out, self.target);
            out.push(b' ');
            out.extend_from_slice(match self.protocol {
                Protocol::Http1 if self.version_1_0 => b"HTTP/1.0",
                Protocol::Http1 => b"HTTP/1.1",
                Protocol::Http2 => b"HTTP/2.0",
                Protocol::Http3 => b"HTTP/3.0",
            });
        }
        out.extend_from_slice(b"\" ");
        number(
            out,
            self.status.map_or(LEFT, |status| status.as_u16().into()),
        );
        out.push(b' ');
        number(out, self.bytes);
    }
}

/// `key`, and behind it `value` in quotes.
fn quoted(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    json(out, value);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(format: Format, line: &Line<'_>) -> String {
        let mut out = Vec::new();
        Form::new(format, "fra-1", "fra").line(&mut out, &Wall::new(), line);
        String::from_utf8(out).unwrap()
    }

    fn served<'a>(site: &'a SiteId) -> Served<'a> {
        Served {
            protocol: Protocol::Http1,
            version_1_0: false,
            method: "GET",
            host: b"shop.example",
            target: b"/a?b=c",
            status: Some(StatusCode::OK),
            bytes: 1024,
            release: "aaaaaaaaaaaaaaaaaaaa",
            site: Some(site),
        }
    }

    fn line(served: Served<'_>) -> Line<'_> {
        Line {
            peer: "192.0.2.7:4711".parse().unwrap(),
            at: Instant::now(),
            took: Duration::from_micros(1_250),
            served: Told::Now(served),
            said: Said::default(),
            cache: "",
            upstream: None,
            error: "",
        }
    }

    /// The line behind its time, which is looked at and taken out.
    fn without_time(line: &str, from: &str, until: &str) -> String {
        let (start, rest) = line.split_once(from).unwrap();
        let (time, rest) = rest.split_once(until).unwrap();
        assert!(time.starts_with(|c: char| c.is_ascii_digit()), "{line}");
        format!("{start}{from}{until}{rest}")
    }

    #[test]
    fn an_object_has_its_keys_in_one_order() {
        let site = "shop/production".parse().unwrap();
        let mut line = line(served(&site));
        let start = r#"{"time":"","client":"192.0.2.7","client_port":4711,"seconds":0.001250,"protocol":"h1","method":"GET","host":"shop.example","target":"/a?b=c","status":200,"bytes":1024,"release":"aaaaaaaaaaaaaaaaaaaa","site":"shop/production""#;
        let end = "\"edge\":\"fra-1\",\"region\":\"fra\"}\n";
        let short = without_time(&written(Format::Json, &line), "time\":\"", "\"");
        assert_eq!(short, format!("{start},{end}"));
        line.said = Said {
            referer: b"https://a.example/",
            user_agent: b"a \"b\"",
            trace_id: b"0af7651916cd43dd8448eb211c80319c",
        };
        line.cache = "miss";
        line.upstream = Some("[2001:db8::1]:80".parse().unwrap());
        line.error = "the client is gone";
        let whole = without_time(&written(Format::Json, &line), "time\":\"", "\"");
        let more = r#""referer":"https://a.example/","user_agent":"a \"b\"","trace_id":"0af7651916cd43dd8448eb211c80319c","cache":"miss","upstream":"[2001:db8::1]:80","error":"the client is gone""#;
        assert_eq!(whole, format!("{start},{more},{end}"));
    }

    #[test]
    fn a_combined_line_is_what_nginx_writes() {
        let site = "shop/production".parse().unwrap();
        let over = |protocol, version_1_0, status| Served {
            protocol,
            version_1_0,
            status,
            ..served(&site)
        };
        for (served, request) in [
            (
                over(Protocol::Http1, false, Some(StatusCode::OK)),
                r#""GET /a?b=c HTTP/1.1" 200 1024"#,
            ),
            (
                over(Protocol::Http1, true, Some(StatusCode::OK)),
                r#""GET /a?b=c HTTP/1.0" 200 1024"#,
            ),
            (
                over(Protocol::Http2, false, Some(StatusCode::NOT_FOUND)),
                r#""GET /a?b=c HTTP/2.0" 404 1024"#,
            ),
            (
                over(Protocol::Http3, false, None),
                r#""GET /a?b=c HTTP/3.0" 499 1024"#,
            ),
        ] {
            let written = without_time(&written(Format::Combined, &line(served)), "[", "]");
            assert_eq!(written, format!("192.0.2.7 - - [] {request} \"-\" \"-\"\n"));
        }
    }

    #[test]
    fn a_refused_head_has_no_request_line() {
        let refused = Served {
            method: "",
            host: b"",
            target: b"",
            status: Some(StatusCode::BAD_REQUEST),
            bytes: 0,
            release: "",
            site: None,
            ..served(&"shop/production".parse().unwrap())
        };
        let combined = without_time(&written(Format::Combined, &line(refused)), "[", "]");
        assert_eq!(combined, "192.0.2.7 - - [] \"-\" 400 0 \"-\" \"-\"\n");
        let json: serde_json::Value =
            serde_json::from_str(&written(Format::Json, &line(refused))).unwrap();
        assert_eq!(
            (&json["status"], &json["target"]),
            (&400.into(), &"".into())
        );
        assert!(json.get("release").is_none() && json.get("site").is_none());
    }

    #[test]
    fn what_was_written_before_stands_where_it_would_have_been_written() {
        let site = "shop/production".parse().unwrap();
        for format in [Format::Json, Format::Combined] {
            let form = Form::new(format, "fra-1", "fra");
            let mut before = Vec::new();
            form.served(&mut before, &served(&site));
            let (mut now, mut again) = (Vec::new(), Vec::new());
            let (wall, line) = (Wall::new(), line(served(&site)));
            form.line(&mut now, &wall, &line);
            let served = Told::Before(&before);
            form.line(&mut again, &wall, &Line { served, ..line });
            assert_eq!(now, again);
        }
    }

    fn text_of(sent: &[u8]) -> String {
        std::str::from_utf8(sent).map_or_else(
            |_| sent.iter().map(|byte| char::from(*byte)).collect(),
            str::to_owned,
        )
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_one_line_that_gives_it_back(
            host in prop::collection::vec(any::<u8>(), 0..40),
            target in prop::collection::vec(any::<u8>(), 0..40),
            referer in prop::collection::vec(any::<u8>(), 1..40),
            user_agent in prop::collection::vec(any::<u8>(), 1..40),
            error in ".{1,20}",
        ) {
            let site = "shop/production".parse().unwrap();
            let mut line = line(Served { host: &host, target: &target, ..served(&site) });
            line.said = Said { referer: &referer, user_agent: &user_agent, trace_id: b"" };
            line.error = &error;
            let text = written(Format::Json, &line);
            prop_assert_eq!(text.lines().count(), 1);
            prop_assert!(text.ends_with("}\n"), "{}", text);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            for (key, sent) in [("host", &host), ("target", &target), ("referer", &referer), ("user_agent", &user_agent)] {
                prop_assert_eq!(json[key].as_str().unwrap(), text_of(sent));
            }
            prop_assert_eq!(json["error"].as_str().unwrap(), &error);
            let text = written(Format::Combined, &line);
            // Three pairs of quotes, and one end.
            prop_assert_eq!(text.matches('"').count(), 6);
            prop_assert_eq!(text.matches(|c: char| c.is_control()).count(), 1);
            prop_assert!(text.ends_with("\"\n"), "{}", text);
        }
    }
}
