//! Whatever a path is spelled like, it finds a file by its one name, is sent to that name, or finds nothing.

use std::net::TcpStream;

use bytes::Bytes;
use helix_edge::limits::Limits;
use helix_edge::release::Release;
use helix_edge::table::Serving;
use helix_routing::id::{Digest, Generation};
use http::{HeaderMap, Method, Request};
use quinn::TransportConfig;
use tokio::time::timeout;

use crate::http3::Served;
use crate::raw::{Told, over_http1, over_http2, over_http3, request};
use crate::support::{LIVE, PATIENCE};

const HOST: &str = "files.example";

/// Names that lie near each other, and bodies that say which one was found.
const FILES: [&str; 14] = [
    "index.html",
    "404.html",
    "a.txt",
    "a b.txt",
    "\u{e4}.txt",
    "%41.txt",
    "%2e%2e",
    "a.txt;x.css",
    "...",
    "dir/index.html",
    "dir/a.txt",
    "dir/..;/a.txt",
    "evil.example/index.html",
    "etc/passwd",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finds {
    /// The file of this name.
    File(&'static str),
    /// A redirect to this path.
    Moved(&'static str),
    /// The page that says so.
    Nothing,
    /// 400 or 414, or broken off.
    Refused,
}
use Finds::{File, Moved, Nothing, Refused};

/// Each trick, and what it finds.
const TRICKS: &[(&str, Finds)] = &[
    ("/", File("index.html")),
    ("/a.txt", File("a.txt")),
    ("/a.txt?..%2f..", File("a.txt")),
    ("/a%20b.txt", File("a b.txt")),
    ("/%C3%A4.txt", File("\u{e4}.txt")),
    ("/dir/", File("dir/index.html")),
    ("/...", File("...")),
    // Dot segments, escaped or not, at any place.
    ("/..", Refused),
    ("/.", Refused),
    ("/../a.txt", Refused),
    ("/./a.txt", Refused),
    ("/dir/../a.txt", Refused),
    ("/dir/./a.txt", Refused),
    ("/dir/..", Refused),
    ("/%2e%2e", Refused),
    ("/%2e%2e/a.txt", Refused),
    ("/%2E%2E/a.txt", Refused),
    ("/.%2e/a.txt", Refused),
    ("/%2e./a.txt", Refused),
    ("/dir/%2e%2e/a.txt", Refused),
    ("/..%2fa.txt", Refused),
    ("/dir%2f..%2fa.txt", Refused),
    ("/%2e%2e%2f%2e%2e%2fetc%2fpasswd", Refused),
    ("//../a.txt", Refused),
    ("/../../../../etc/passwd", Refused),
    // Escaped twice: decoded once, and looked up as that.
    ("/%252e%252e", File("%2e%2e")),
    ("/%2541.txt", File("%41.txt")),
    ("/%252e%252e/a.txt", Nothing),
    ("/%252e%252e%252fa.txt", Nothing),
    ("/%252561.txt", Nothing),
    ("/dir%252fa.txt", Nothing),
    // Backslashes and control characters.
    ("/..\\a.txt", Refused),
    ("/dir\\a.txt", Refused),
    ("\\a.txt", Refused),
    ("/..%5ca.txt", Refused),
    ("/dir%5Ca.txt", Refused),
    ("/%5c%5cevil.example/", Refused),
    ("/a.txt%00", Refused),
    ("/%00", Refused),
    ("/a.txt%00.html", Refused),
    ("/a.txt\0", Refused),
    ("/a.txt%0a", Refused),
    ("/a.txt%0d%0aX:%20y", Refused),
    ("/a.txt%09", Refused),
    ("/a.txt%7f", Refused),
    // Overlong and other illegal UTF-8.
    ("/%c0%ae%c0%ae/a.txt", Refused),
    ("/%c0%2e%c0%2e/a.txt", Refused),
    ("/%e0%80%ae%e0%80%ae/a.txt", Refused),
    ("/%f0%80%80%ae/a.txt", Refused),
    ("/..%c0%afa.txt", Refused),
    ("/%c1%9ca.txt", Refused),
    ("/%ff%fe", Refused),
    ("/%ed%a0%80", Refused),
    ("/%u002e%u002e/a.txt", Refused),
    // Malformed escapes.
    ("/%", Refused),
    ("/%2", Refused),
    ("/%zz", Refused),
    ("/a.txt%", Refused),
    // Slashes that are too many, or escaped: to the one name, on this host.
    ("//", Moved("/")),
    ("///", Moved("/")),
    ("//a.txt", Moved("/a.txt")),
    ("/dir//a.txt", Moved("/dir/a.txt")),
    ("/dir%2fa.txt", Moved("/dir/a.txt")),
    ("/%2fa.txt", Moved("/a.txt")),
    ("//evil.example", Moved("/evil.example/")),
    ("//evil.example/", Moved("/evil.example/")),
    ("/%2fevil.example/", Moved("/evil.example/")),
    ("/%2f%2fevil.example/", Moved("/evil.example/")),
    ("//evil.example/%2f..", Refused),
    ("//evil.example%00/", Refused),
    ("//user@evil.example/", Nothing),
    ("/dir", Moved("/dir/")),
    ("/%61.txt", Moved("/a.txt")),
    // What other servers drop from the end.
    ("/a.txt/", Nothing),
    ("/a.txt.", Nothing),
    ("/a.txt%20", Nothing),
    ("/a.txt::$DATA", Nothing),
    ("/a.txt;x.css", File("a.txt;x.css")),
    ("/dir;/a.txt", Nothing),
    ("/dir/..;/a.txt", File("dir/..;/a.txt")),
    ("/A.TXT", Nothing),
    ("/etc/passwd", File("etc/passwd")),
];

fn start() -> Served {
    let served = Served::named(Limits::default(), &[&[HOST, "secret.example"]]);
    let artifact = Digest::from_hex(&"0".repeat(64)).unwrap();
    let publish = |host: &str, site: &str, files: Vec<(&str, String)>| {
        let files = files
            .into_iter()
            .map(|(name, body)| (name, "text/plain", Bytes::from(body)));
        let release = Release::from_memory(LIVE.parse().unwrap(), artifact.clone(), files);
        let serving = Serving {
            generation: Generation(1),
            live: Some(release.into()),
            kept: Vec::new(),
            counted: Default::default(),
        };
        let site = site.parse().unwrap();
        let table = &served.edge.table;
        table.set_host(&host.parse().unwrap(), Some(&site));
        table.publish(&site, serving);
    };
    let files = FILES.map(|name| (name, format!("the file {name}")));
    publish(HOST, "files/production", files.to_vec());
    let secret = vec![("secret.txt", String::from("a secret"))];
    publish("secret.example", "secret/production", secret);
    served
}

fn assert_finds(what: &str, told: &Told, finds: Finds) {
    let text = told.text();
    let as_expected = match finds {
        File(name) => told.status == Some(200) && text == format!("the file {name}"),
        Moved(_) => matches!(told.status, Some(301 | 302 | 307 | 308)),
        Nothing => told.status == Some(404) && text == "the file 404.html",
        Refused => matches!(told.status, None | Some(400 | 414)) && !text.contains("the file"),
    };
    assert!(as_expected, "{what} finds no {finds:?}: {told:?}, {text}");
    assert!(!text.contains("secret"), "{what}: {text}");
}

/// Where HTTP/2 and HTTP/3 send somebody who asks for `path`.
async fn moved_to(served: &Served, path: &str) -> [String; 2] {
    let url = format!("https://{HOST}{path}");
    let socket = tokio::net::TcpStream::connect(served.edge.addr)
        .await
        .unwrap();
    let (requests, driver) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(driver);
    let request = Request::get(&url).body(()).unwrap();
    let mut requests = requests.ready().await.unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    let http2 = timeout(PATIENCE, response).await.unwrap().unwrap();
    let connection = served.open_for(HOST).await;
    let (_, http3, _) = connection.ask(Method::GET, &url, HeaderMap::new()).await;
    [http2.headers(), &http3].map(|headers| headers["location"].to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_finds_what_its_one_decoding_names_over_every_protocol() {
    let served = start();
    let (_endpoint, quic) = served
        .connect(HOST, TransportConfig::default())
        .await
        .unwrap();
    let connect = || {
        let stream = TcpStream::connect(served.edge.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    for (path, finds) in TRICKS.iter().copied() {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let (told, head) = over_http1(connect(), bytes.as_bytes());
        assert_finds(&format!("{path:?} over h1"), &told, finds);
        let fields = request("GET", HOST, path, &[]);
        let told = over_http2(connect(), &fields, &[]);
        assert_finds(&format!("{path:?} over h2"), &told, finds);
        let told = over_http3(&quic, &fields, &[]).await;
        assert_finds(&format!("{path:?} over h3"), &told, finds);
        if let Moved(to) = finds {
            let line = format!("\r\nlocation: {to}\r\n");
            assert!(head.contains(&line), "{path}: {head}");
            assert_eq!(moved_to(&served, path).await, [to, to], "{path}");
        }
    }
}

/// Anything that is made of what tricks are made of: a file by its exact name, or somewhere on this host.
#[test]
fn no_mixture_of_tricks_leaves_the_files_or_the_host() {
    const PARTS: [&str; 16] = [
        "/",
        "//",
        "..",
        ".",
        "%2e",
        "%2f",
        "%2F",
        "%5c",
        "%25",
        "%00",
        "a.txt",
        "dir",
        ";",
        "%20",
        "evil.example",
        "%c0%af",
    ];
    let served = start();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut client = served.edge.client();
    for _ in 0..5000 {
        let parts: String = (0..=random(6))
            .map(|_| PARTS[random(PARTS.len())])
            .collect();
        let path = format!("/{parts}");
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let response = client.response();
        match response.status {
            200 => {
                let named = response.text().strip_prefix("the file ").unwrap();
                assert!(FILES.contains(&named), "{path}");
                let spelled = path[1..].replace("%20", " ").replace("%25", "%");
                let spelled = spelled.split('?').next().unwrap();
                let page = named.strip_suffix("index.html").unwrap_or(named);
                assert_eq!(spelled, page, "{path}");
            }
            300..400 => {
                let to = response.header("location").unwrap();
                assert!(to.starts_with('/') && !to.starts_with("//"), "{path}: {to}");
                let climbs = to.split('/').any(|part| matches!(part, "." | ".."));
                assert!(!climbs && !to.contains('\\'), "{path}: {to}");
            }
            status => assert!(matches!(status, 400 | 404), "{path}: {status}"),
        }
        if response.header("connection") == Some("close") {
            client = served.edge.client();
        }
    }
}

#[test]
fn a_path_that_is_very_long_is_refused_or_finds_nothing() {
    let served = start();
    for (length, status) in [(1000, 404), (8000, 404), (9000, 414)] {
        let mut client = served.edge.client();
        let path = "a/".repeat(length / 2);
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(client.response().status, status, "{length}");
    }
}
