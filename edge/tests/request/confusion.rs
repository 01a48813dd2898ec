//! Who names one host to TLS and another to HTTP, or one host in two ways, gets that host's site or a refusal.

use std::net::TcpStream;
use std::sync::Arc;

use helix_edge::limits::Limits;
use quinn::TransportConfig;

use crate::http3::Served;
use crate::raw::{Told, over_http1, over_http2, over_http3, request};
use crate::support::{KEPT, LIVE, PATIENCE, serving, site};

/// What one question gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// The page of this release.
    Page(&'static str),
    /// 421: this connection is for others.
    Elsewhere,
    /// 400, or the stream is broken off.
    Malformed,
    /// The name is covered, and means no site: 404, of nobody.
    Nobody,
}
use Gets::{Elsewhere, Malformed, Nobody, Page};

/// Two projects, two certificates. The first covers names of both projects.
fn start() -> Served {
    let names: [&[&str]; 3] = [
        &["shop.example", "*.shop.example"],
        &["other.example"],
        &["xn--bcher-kva.example"],
    ];
    let served = Served::named(Limits::default(), &names);
    let other = "other/production".parse().unwrap();
    for (host, of) in [
        ("www.shop.example", &site()),
        ("blog.shop.example", &other),
        ("other.example", &other),
        ("xn--bcher-kva.example", &other),
    ] {
        served.edge.table.set_host(&host.parse().unwrap(), Some(of));
    }
    served.edge.table.publish(&other, serving(1, KEPT, &[]));
    served
}

fn assert_gets(what: &str, told: &Told, gets: Gets) {
    let as_expected = match gets {
        Page(release) => told.status == Some(200) && told.text() == format!("text of {release}\n"),
        Elsewhere => told.status == Some(421),
        Malformed => matches!(told.status, None | Some(400)),
        Nobody => told.status == Some(404),
    };
    assert!(as_expected, "{what} gets no {gets:?}: {told:?}");
    if !matches!(gets, Page(_)) {
        let text = told.text();
        assert!(
            !text.contains(LIVE) && !text.contains(KEPT),
            "{what}: {text}"
        );
    }
}

fn ask_http1(served: &Served, name: &str, host: &str) -> Told {
    let request = format!("GET /a.txt HTTP/1.1\r\nHost: {host}\r\n\r\n");
    over_http1(served.connect_tls(name, b"http/1.1"), request.as_bytes()).0
}

async fn ask(served: &Served, name: &str, host: &str) -> [(&'static str, Told); 3] {
    let fields = request("GET", host, "/a.txt", &[]);
    let http1 = ask_http1(served, name, host);
    let http2 = over_http2(served.connect_tls(name, b"h2"), &fields, &[]);
    let transport = TransportConfig::default();
    let (_endpoint, quic) = served.connect(name, transport).await.unwrap();
    let http3 = over_http3(&quic, &fields, &[]).await;
    [("h1", http1), ("h2", http2), ("h3", http3)]
}

/// The name of the handshake, the host of the request, and what that gets.
const NAMES: &[(&str, &str, Gets)] = &[
    ("shop.example", "shop.example", Page(LIVE)),
    ("shop.example", "SHOP.Example", Page(LIVE)),
    ("shop.example", "shop.example.", Page(LIVE)),
    ("shop.example", "SHOP.example.:443", Page(LIVE)),
    ("shop.example", "shop.example:443", Page(LIVE)),
    ("shop.example", "shop.example:1", Page(LIVE)),
    ("shop.example", "www.shop.example", Page(LIVE)),
    // Another project whose host the certificate covers: its own page, as browsers that coalesce expect.
    ("shop.example", "blog.shop.example", Page(KEPT)),
    ("www.shop.example", "shop.example", Page(LIVE)),
    ("www.shop.example", "blog.shop.example", Page(KEPT)),
    ("shop.example", "nobody.shop.example", Nobody),
    ("other.example", "other.example", Page(KEPT)),
    ("xn--bcher-kva.example", "XN--bcher-KVA.example", Page(KEPT)),
    // Not covered, whatever they look like.
    ("shop.example", "other.example", Elsewhere),
    ("shop.example", "OTHER.example.", Elsewhere),
    ("shop.example", "other.example:443", Elsewhere),
    ("www.shop.example", "other.example", Elsewhere),
    ("other.example", "shop.example", Elsewhere),
    ("other.example", "blog.shop.example", Elsewhere),
    ("other.example", "www.other.example", Elsewhere),
    ("xn--bcher-kva.example", "bcher-kva.example", Elsewhere),
    ("shop.example", "xn--bcher-kva.example", Elsewhere),
    ("shop.example", "a.b.shop.example", Elsewhere),
    ("shop.example", "shop.example.other.example", Elsewhere),
    ("shop.example", "xshop.example", Elsewhere),
    ("shop.example", "example", Elsewhere),
    ("shop.example", ".shop.example", Elsewhere),
    ("shop.example", "shop.example..", Elsewhere),
    ("shop.example", "-.shop.example", Elsewhere),
    ("shop.example", "localhost", Elsewhere),
    ("shop.example", "127.0.0.1", Elsewhere),
    ("shop.example", "2130706433", Elsewhere),
    ("shop.example", "0x7f.1", Elsewhere),
    ("shop.example", "[::1]", Elsewhere),
    ("shop.example", "[::1]:443", Elsewhere),
    // No host at all.
    ("shop.example", "", Malformed),
    ("shop.example", "b\u{fc}cher.example", Malformed),
    ("shop.example", "sh\u{43e}p.example", Malformed),
    ("shop.example", "*.shop.example", Malformed),
    ("shop.example", "user@shop.example", Malformed),
    ("shop.example", "shop.example@other.example", Malformed),
    ("shop.example", "user:word@shop.example", Malformed),
    ("shop.example", "shop.example/other.example", Malformed),
    ("shop.example", "shop.example\\other.example", Malformed),
    ("shop.example", "shop.example?other.example", Malformed),
    ("shop.example", "shop.example#other.example", Malformed),
    ("shop.example", "shop.example,other.example", Malformed),
    ("shop.example", "shop.example other.example", Malformed),
    ("shop.example", "shop%2eexample", Malformed),
    ("shop.example", "::1", Malformed),
    ("shop.example", "other.example:shop.example", Malformed),
    ("shop.example", "shop.example:x", Malformed),
    ("shop.example", "shop.example:-1", Malformed),
    ("shop.example", "shop.example:443:443", Malformed),
    ("shop.example", "shop.example:other.example", Malformed),
    ("shop.example", "shop.example:4434434434", Malformed),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_the_handshake_and_the_host_of_the_request_are_one_site_or_none() {
    let served = start();
    for (name, host, gets) in NAMES.iter().copied() {
        for (protocol, told) in ask(&served, name, host).await {
            assert_gets(&format!("{name} / {host} over {protocol}"), &told, gets);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_names_two_hosts_gets_none_of_them() {
    let served = start();
    for lines in [
        "GET /a.txt HTTP/1.1\r\nHost: shop.example\r\nHost: other.example\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\nHost: shop.example\r\nHost: shop.example\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\nHost: shop.example, other.example\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\n\r\n",
        "GET https://other.example/a.txt HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        "GET https://shop.example/a.txt HTTP/1.1\r\nHost: other.example\r\n\r\n",
        "GET https://shop.example:444/a.txt HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        "GET https://shop.example@other.example/a.txt HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        "GET https:///a.txt HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    ] {
        let (told, _) = over_http1(
            served.connect_tls("shop.example", b"http/1.1"),
            lines.as_bytes(),
        );
        assert_gets(lines, &told, Malformed);
    }
    let both = "GET https://other.example/a.txt HTTP/1.1\r\nHost: other.example\r\n\r\n";
    let (told, _) = over_http1(
        served.connect_tls("shop.example", b"http/1.1"),
        both.as_bytes(),
    );
    assert_gets(both, &told, Elsewhere);
    for host in ["other.example", "www.shop.example", "shop.example:444", ""] {
        let fields = request(
            "GET",
            "shop.example",
            "/a.txt",
            &[(b"host", host.as_bytes())],
        );
        let http2 = over_http2(served.connect_tls("shop.example", b"h2"), &fields, &[]);
        assert_gets(&format!("host {host} over h2"), &http2, Malformed);
        let transport = TransportConfig::default();
        let (_endpoint, quic) = served.connect("shop.example", transport).await.unwrap();
        let http3 = over_http3(&quic, &fields, &[]).await;
        assert_gets(&format!("host {host} over h3"), &http3, Malformed);
    }
}

/// Without TLS there is no name to compare with: the host alone decides.
#[test]
fn in_the_clear_the_host_alone_decides() {
    let served = start();
    for (host, gets) in [
        ("shop.example", Page(LIVE)),
        ("other.example:80", Page(KEPT)),
        ("OTHER.example.", Page(KEPT)),
        ("nobody.example", Nobody),
        ("127.0.0.1", Nobody),
        ("[::1]", Nobody),
        ("", Malformed),
        ("user@shop.example", Malformed),
        ("shop.example:x", Malformed),
    ] {
        let connect = || {
            let stream = TcpStream::connect(served.edge.addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        let bytes = format!("GET /a.txt HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (told, _) = over_http1(connect(), bytes.as_bytes());
        assert_gets(&format!("{host:?} over h1"), &told, gets);
        let fields = request("GET", host, "/a.txt", &[]);
        let told = over_http2(connect(), &fields, &[]);
        assert_gets(&format!("{host:?} over h2"), &told, gets);
    }
}

/// A ticket of one name resumes that name's connection, and answers for its hosts only.
#[test]
fn a_resumed_connection_answers_for_the_hosts_of_its_certificate_only() {
    let served = start();
    let config = Arc::new(served.client(b"http/1.1"));
    let mut kinds = Vec::new();
    for host in ["shop.example", "other.example"] {
        let mut stream = served.connect_tls_as(&config, "shop.example");
        let bytes = format!("GET /a.txt HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (told, _) = over_http1(&mut stream, bytes.as_bytes());
        let gets = if host == "shop.example" {
            Page(LIVE)
        } else {
            Elsewhere
        };
        assert_gets(host, &told, gets);
        kinds.push(stream.conn.handshake_kind().unwrap());
    }
    assert_eq!(
        kinds,
        [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]
    );
}
