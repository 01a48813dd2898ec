//! A listener with a few sites, and a client that sends exactly what it is told.

use std::io::{Read, Write};
use std::net::{Shutdown as Side, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use helix_edge::access_log::{AccessLogConfig, Format};
use helix_edge::cache::Cache;
use helix_edge::forward::Reachable;
use helix_edge::http3::Http3;
use helix_edge::limits::Limits;
use helix_edge::listener::{self, Lanes, ListenerConfig, ListenerHandle, TlsListener};
use helix_edge::metrics::Metrics;
use helix_edge::release::Release;
use helix_edge::table::{Serving, Table};
use helix_routing::id::{Digest, Generation, SiteId};
use helix_service::shutdown::{Shutdown, ShutdownHandle};
use tempfile::TempDir;

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const LIVE: &str = "aaaaaaaaaaaaaaaaaaaa";
pub(crate) const KEPT: &str = "bbbbbbbbbbbbbbbbbbbb";
pub(crate) const BIG: usize = 24 * 1024 * 1024;

/// A listener of two cores that serves `shop.example`.
pub(crate) struct Edge {
    pub(crate) addr: SocketAddr,
    pub(crate) table: Arc<Table>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: ShutdownHandle,
    pub(crate) handle: ListenerHandle,
    pub(crate) log: PathBuf,
    _folder: TempDir,
}

/// What may be otherwise from one test to the next.
struct Setup {
    folder: TempDir,
    format: Format,
    cache: Cache,
    limits: Limits,
    tls: Option<TlsListener>,
    http3: Option<Http3>,
    lanes: Lanes,
    upstreams: Reachable,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            format: Format::Json,
            cache: Cache::default(),
            limits: Limits::default(),
            tls: None,
            http3: None,
            lanes: Lanes::All,
            upstreams: Reachable {
                allow: vec!["127.0.0.0/8".parse().unwrap()],
                ..Reachable::default()
            },
        }
    }
}

impl Edge {
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::on(limits, None, None)
    }

    /// The same, in which HTTP/1 requests may only take these ways.
    pub(crate) fn over(lanes: Lanes) -> Self {
        Self::of(Setup {
            lanes,
            ..Setup::default()
        })
    }

    /// The same with an access log that looks like this.
    pub(crate) fn logging(format: Format, make: impl FnOnce(&Path)) -> Self {
        let setup = Setup {
            format,
            ..Setup::default()
        };
        make(setup.folder.path());
        Self::of(setup)
    }

    /// The same, which also speaks TLS and HTTP/3 if told where.
    pub(crate) fn on(limits: Limits, tls: Option<TlsListener>, http3: Option<Http3>) -> Self {
        Self::of(Setup {
            limits,
            tls,
            http3,
            ..Setup::default()
        })
    }

    /// The same, which may only send requests on to what `upstreams` permits.
    pub(crate) fn reaching(upstreams: Reachable) -> Self {
        Self::of(Setup {
            upstreams,
            ..Setup::default()
        })
    }

    /// The same, with this cache of upstreams' responses, whose disk is attached by whoever wants one.
    pub(crate) fn caching(cache: Cache) -> Self {
        Self::of(Setup {
            cache,
            ..Setup::default()
        })
    }

    fn of(setup: Setup) -> Self {
        let Setup {
            folder,
            format,
            cache,
            limits,
            tls,
            http3,
            lanes,
            upstreams,
        } = setup;
        let log = folder.path().join("access.log");
        let base = "helix.localhost".parse().unwrap();
        let table = Arc::new(Table::with_cache(base, cache));
        let site = site();
        table.set_host(&"shop.example".parse().unwrap(), Some(&site));
        table.set_host(
            &"empty.example".parse().unwrap(),
            Some(&"empty/production".parse().unwrap()),
        );
        table.publish(&site, serving(1, LIVE, &[KEPT]));
        let (edge, region) = ("fra-1".parse().unwrap(), "fra".parse().unwrap());
        let metrics = Arc::new(Metrics::new(&edge, &region));
        let addr = "127.0.0.1:0".parse().unwrap();
        let config = ListenerConfig {
            addr,
            threads: 2,
            edge,
            region,
            access_log: AccessLogConfig {
                format,
                path: Some(log.clone()),
            },
            upstreams,
            limits,
            http3,
            tls,
            lanes,
            maintenance: helix_edge::maintenance::Maintenance::default(),
        };
        let (shutdown, asked) = Shutdown::manual();
        let handle =
            listener::serve(config, Arc::clone(&table), Arc::clone(&metrics), shutdown).unwrap();
        Self {
            addr: handle.local_addr(),
            table,
            metrics,
            shutdown: asked,
            handle,
            log,
            _folder: folder,
        }
    }

    /// The lines of the access log, once there are so many.
    pub(crate) fn log_lines(&self, count: usize) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            if text.ends_with('\n') && lines.len() >= count {
                assert_eq!(lines.len(), count, "{text}");
                return lines;
            }
            assert!(Instant::now() < until, "{count} lines in {text:?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The same as the objects that they are.
    pub(crate) fn logged(&self, count: usize) -> Vec<serde_json::Value> {
        let lines = self.log_lines(count);
        let read = |line: &String| serde_json::from_str(line).unwrap();
        lines.iter().map(read).collect()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Waits until no connection is open.
    pub(crate) fn until_idle(&self) {
        let until = Instant::now() + PATIENCE;
        while self.metrics.connections.get() > 0 {
            assert!(
                Instant::now() < until,
                "{} connections are still open",
                self.metrics.connections.get()
            );
            std::thread::yield_now();
        }
    }

    /// What one GET gets on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Response {
        let mut client = self.client();
        client.send(get(target));
        client.response()
    }
}

/// Lets a test that measures this process have one of its own. True where it has been run already, in a child.
pub(crate) fn ran_alone(name: &str) -> bool {
    const ALONE: &str = "HELIX_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let ended = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .status();
    assert!(
        ended.unwrap().success(),
        "{name} failed in a process of its own"
    );
    true
}

pub(crate) fn site() -> SiteId {
    "shop/production".parse().unwrap()
}

pub(crate) fn serving(generation: u64, live: &str, kept: &[&str]) -> Serving {
    let kept = kept.iter().map(|id| release(id)).collect();
    Serving::new(Generation(generation), Some(release(live)), kept)
}

/// A release whose every page says which release it is of.
pub(crate) fn release(id: &str) -> Arc<Release> {
    let page = |name: &str| Bytes::from(format!("{name} of {id}\n"));
    let big: Vec<u8> = (0..BIG).map(|at| (at % 251) as u8).collect();
    let files = [
        ("index.html", "text/html; charset=utf-8", page("index")),
        ("dir/index.html", "text/html; charset=utf-8", page("dir")),
        ("404.html", "text/html; charset=utf-8", page("missing")),
        ("a.txt", "text/plain; charset=utf-8", page("text")),
        (
            "1k.bin",
            "application/octet-stream",
            Bytes::from(vec![7u8; 1024]),
        ),
        ("empty", "application/octet-stream", Bytes::new()),
        ("200k.bin", "application/octet-stream", large()),
        ("big.bin", "application/octet-stream", Bytes::from(big)),
    ];
    let artifact = Digest::from_hex(&"0".repeat(64)).unwrap();
    Arc::new(Release::from_memory(id.parse().unwrap(), artifact, files))
}

/// More than is gathered before it is sent, and less than is not remembered.
pub(crate) fn large() -> Bytes {
    (0..200 * 1024).map(|at: u32| (at % 249) as u8).collect()
}

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n")
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice");
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends what the other side will take: it may refuse and close half-way.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    pub(crate) fn end(&self) {
        self.stream.shutdown(Side::Write).unwrap();
    }

    /// The next response to anything but HEAD.
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head();
        let length = response
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let length = if matches!(response.status, 204 | 304) {
            0
        } else {
            length
        };
        while self.received.len() < length {
            assert!(
                self.fill(),
                "closed within a body, after {} of {length} bytes",
                self.received.len()
            );
        }
        response.body = self.received.drain(..length).collect();
        response
    }

    /// The next response head.
    pub(crate) fn head(&mut self) -> Response {
        let end = loop {
            if let Some(end) = self
                .received
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break end;
            }
            assert!(
                self.fill(),
                "closed within a head: {:?}",
                String::from_utf8_lossy(&self.received)
            );
        };
        let head: Vec<u8> = self.received.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3]
            .parse()
            .unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Response {
            status,
            headers: headers.collect(),
            body: Vec::new(),
        }
    }

    /// Reads the body of `/big.bin` and checks its length.
    pub(crate) fn rest_of_big_file(&mut self) {
        self.rest_of_body(BIG);
    }

    /// Reads a body of `left` bytes.
    pub(crate) fn rest_of_body(&mut self, mut left: usize) {
        loop {
            let taken = self.received.len().min(left);
            self.received.drain(..taken);
            left -= taken;
            if left == 0 {
                return;
            }
            assert!(self.fill(), "closed with {left} bytes to come");
        }
    }

    /// Reads a body in chunks.
    pub(crate) fn chunked_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.take_until_line_end();
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            body.extend(self.take(size));
            assert_eq!(self.take(2), b"\r\n");
            if size == 0 {
                return body;
            }
        }
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.fill(), "closed before {length} bytes had come");
        }
        self.received.drain(..length).collect()
    }

    fn take_until_line_end(&mut self) -> String {
        loop {
            if let Some(at) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=at).collect();
                return String::from_utf8(line).unwrap();
            }
            assert!(self.fill(), "closed within a line");
        }
    }

    /// The same connection, for a thread that only sends.
    pub(crate) fn sender(&self) -> Self {
        Self {
            stream: self.stream.try_clone().unwrap(),
            received: Vec::new(),
        }
    }

    /// Sends zeros until nothing is taken for `pause`, or `most` bytes were; how many were taken.
    pub(crate) fn send_until_stalled(&mut self, pause: Duration, most: usize) -> usize {
        self.stream.set_write_timeout(Some(pause)).unwrap();
        let part = vec![0; 64 * 1024];
        let mut taken = 0;
        while taken < most {
            match self.stream.write(&part) {
                Ok(written) => taken += written,
                Err(_) => break,
            }
        }
        taken
    }

    /// Reads until the connection ends, and says how much came.
    pub(crate) fn bytes_until_the_end(&mut self) -> usize {
        let mut total = 0;
        loop {
            total += self.received.len();
            self.received.clear();
            if !self.fill() {
                return total;
            }
        }
    }

    /// Reads until the connection ends.
    pub(crate) fn until_the_end(&mut self) -> String {
        while self.fill() {}
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// Whether the connection has ended, with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        !self.fill() && self.received.is_empty()
    }

    /// Reads once. False at the end, or after a reset.
    fn fill(&mut self) -> bool {
        let mut part = vec![0; 64 * 1024];
        match self.stream.read(&mut part) {
            Ok(read) => {
                self.received.extend_from_slice(&part[..read]);
                read > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("read: {error}"),
        }
    }
}
