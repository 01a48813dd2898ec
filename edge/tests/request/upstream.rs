//! Servers for requests to be forwarded to, which keep what they were sent and answer what they are told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use helix_edge::release::Release;
use helix_edge::table::Serving;
use helix_routing::id::{Digest, Generation, SiteId};
use serde_json::{Value, json};

use crate::support::{Edge, LIVE, PATIENCE};

/// The host whose site forwards everything below `/api/`.
pub(crate) const HOST: &str = "api.example";

/// Lets `edge` forward what is below `/api/` to the upstream at `addr`, described further by `more`.
pub(crate) fn forward_to(edge: &Edge, addr: SocketAddr, more: &Value) {
    forward_to_all(edge, &[addr], more);
}

/// The same with several servers.
pub(crate) fn forward_to_all(edge: &Edge, addrs: &[SocketAddr], more: &Value) {
    let addresses: Vec<_> = addrs.iter().map(|addr| format!("http://{addr}")).collect();
    let mut upstream = json!({ "addresses": addresses });
    let described = upstream.as_object_mut().unwrap();
    described.extend(more.as_object().unwrap().clone());
    let routes = json!({
        "upstreams": { "api": upstream },
        "forwards": [{ "path": "/api/*", "upstream": "api" }],
    });
    forward_by(edge, &routes);
}

/// Lets `edge` serve a page and these routes on [`HOST`].
pub(crate) fn forward_by(edge: &Edge, routes: &Value) {
    let routes = serde_json::from_value(routes.clone()).unwrap();
    let page = ("index.html", "text/html", Bytes::from_static(b"page"));
    let artifact = Digest::from_hex(&"0".repeat(64)).unwrap();
    let release = Release::from_memory(LIVE.parse().unwrap(), artifact, [page]);
    let site: SiteId = "calls/production".parse().unwrap();
    edge.table.set_host(&HOST.parse().unwrap(), Some(&site));
    let serving = Serving {
        generation: Generation(1),
        live: Some(Arc::new(release.with_routes(routes))),
        kept: Vec::new(),
        counted: Default::default(),
    };
    edge.table.publish(&site, serving);
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The values of every field of this name.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        self.head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

/// One connection to an upstream.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Link {
    /// Reads once. False at the end.
    pub(crate) fn fill(&mut self) -> bool {
        let mut part = vec![0; 64 * 1024];
        let read = self.stream.read(&mut part).unwrap_or(0);
        self.received.extend_from_slice(&part[..read]);
        read > 0
    }

    /// The next request head; none when the connection ends before it.
    pub(crate) fn head(&mut self) -> Option<String> {
        self.until(b"\r\n\r\n")
            .map(|head| String::from_utf8(head).unwrap())
    }

    /// The next request, whole, read as strictly as can be.
    pub(crate) fn request(&mut self) -> Option<Seen> {
        let mut seen = Seen {
            head: self.head()?,
            body: Vec::new(),
        };
        let lengths = seen.fields("content-length");
        assert!(lengths.len() < 2, "two lengths: {}", seen.head);
        let length = lengths.first().map(|length| length.parse().unwrap());
        let chunked = seen.fields("transfer-encoding") == ["chunked"];
        assert!(!(chunked && length.is_some()), "{}", seen.head);
        seen.body = if chunked {
            self.chunks()?
        } else {
            self.take(length.unwrap_or(0))?
        };
        Some(seen)
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.received.len() < length {
            if !self.fill() {
                return None;
            }
        }
        Some(self.received.drain(..length).collect())
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let size = std::str::from_utf8(&line).unwrap().trim_end();
            let size = usize::from_str_radix(size, 16).unwrap();
            body.extend(self.take(size)?);
            assert_eq!(self.take(2)?, b"\r\n");
            if size == 0 {
                return Some(body);
            }
        }
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self
                .received
                .windows(end.len())
                .position(|window| window == end);
            if let Some(at) = found {
                return Some(self.received.drain(..at + end.len()).collect());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }
}

/// A server whose every connection is handed to one function.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Mutex<Receiver<()>>,
}

impl Upstream {
    /// One that does with each connection what `serve` says.
    pub(crate) fn raw(serve: impl Fn(Link, &dyn Fn(Seen)) + Send + Sync + 'static) -> Self {
        Self::raw_at("127.0.0.1:0".parse().unwrap(), serve)
    }

    fn raw_at(
        addr: SocketAddr,
        serve: impl Fn(Link, &dyn Fn(Seen)) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (end, ended): (Sender<()>, _) = channel();
        let (kept, serve) = (Arc::clone(&seen), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let (kept, serve, end) = (Arc::clone(&kept), Arc::clone(&serve), end.clone());
                thread::spawn(move || {
                    let link = Link {
                        stream,
                        received: Vec::new(),
                    };
                    serve(link, &|seen| kept.lock().unwrap().push(seen));
                    // Nobody may be left to be told.
                    let _ = end.send(());
                });
            }
        });
        Self {
            addr,
            seen,
            ended: Mutex::new(ended),
        }
    }

    /// One that answers each request with the bytes that `answer` gives.
    pub(crate) fn answering(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::answering_at("127.0.0.1:0".parse().unwrap(), answer)
    }

    /// The same at an address.
    pub(crate) fn answering_at(
        addr: SocketAddr,
        answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::raw_at(addr, move |mut link, keep| {
            while let Some(seen) = link.request() {
                let response = answer(&seen);
                keep(seen);
                if !link.send(response) {
                    return;
                }
            }
        })
    }

    /// What it was sent so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until one of its connections has ended.
    pub(crate) fn until_ended(&self) {
        let ended = self.ended.lock().unwrap().recv_timeout(PATIENCE);
        assert!(ended.is_ok(), "no connection has ended");
    }
}

/// A response with a length.
pub(crate) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
