//! SIGTERM: what is under way is finished, whatever carries it, and nothing new is begun.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use helix_tests::command::program;
use helix_tests::fleet::{Fleet, Options, REVIVE_LIMIT};
use helix_tests::folder::{Folder, noise};
use helix_tests::http3::{self, Http3};
use helix_tests::wait;
use http::{HeaderMap, Request, Response};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

use crate::own_fleet;

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than an edge waits for what is in flight, and for what it does then.
const DEADLINE: Duration = Duration::from_secs(45);
/// More than a connection holds between its ends.
const LONG: usize = 12 * 1024 * 1024;
/// Close with status 1001 (RFC 6455 7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];

/// An edge that nobody starts again, in front of servers of this test.
struct Stage {
    edge: Child,
    fleet: Fleet,
    host: String,
    http: SocketAddr,
    /// Lets the slow server answer one request.
    release: Sender<()>,
    content: Vec<u8>,
}

impl Stage {
    fn set(runtime: &Runtime) -> Self {
        let fleet = Fleet::start(&Options::default());
        let (release, released) = channel();
        let (api, calls) = (serve(released), runtime.block_on(echo_calls()));
        // There until the release is: without a server none goes live.
        let leaving = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = leaving.local_addr().unwrap();
        let content = noise(11, LONG);
        let rules = format!(
            "[upstreams.api]\naddresses = [\"http://{api}\"]\n\
             [upstreams.calls]\naddresses = [\"http://{calls}\"]\nprotocol = \"http2\"\n\
             [upstreams.nobody]\naddresses = [\"http://{nobody}\"]\n\
             [[forward]]\npath = \"/api/*\"\nupstream = \"api\"\n\
             [[forward]]\npath = \"/calls/*\"\nupstream = \"calls\"\n\
             [[forward]]\npath = \"/nobody\"\nupstream = \"nobody\"\n"
        );
        let folder = Folder::page("graceful")
            .with("long.bin", &content)
            .with("helix.toml", rules.as_bytes());
        let _ = fleet.deploy("graceful", &folder);
        drop(leaving);
        let edge = alone(&fleet);
        let (_, info) = fleet.edges().next().unwrap();
        let http = info.http.strip_prefix("http://").unwrap();
        let http = http.trim_end_matches('/').replace("localhost", "127.0.0.1");
        Self {
            edge,
            host: fleet.host("graceful"),
            http: http.parse().unwrap(),
            fleet,
            release,
            content,
        }
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.edge.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }

    /// A connection that has sent `start` and what a head needs.
    fn ask(&self, start: &str, more: &str) -> Line {
        let mut line = Line(TcpStream::connect(self.http).unwrap());
        line.0.set_read_timeout(Some(PATIENCE)).unwrap();
        line.send(format!(
            "{start} HTTP/1.1\r\nHost: {}\r\n{more}\r\n",
            self.host
        ));
        line
    }

    fn log(&self) -> String {
        fs::read_to_string(log_file(&self.fleet)).unwrap()
    }

    fn until_ended_well(&mut self, limit: Duration) {
        let status = wait::until("the edge ends", limit, || self.edge.try_wait().unwrap());
        assert!(status.success(), "{status}\n{}", self.log());
    }
}

fn log_file(fleet: &Fleet) -> std::path::PathBuf {
    fleet.folder().join("graceful.log")
}

fn access_log_file(fleet: &Fleet) -> std::path::PathBuf {
    fleet.folder().join("graceful.access.log")
}

/// Takes over from the first edge, while `helix dev` is kept from starting another.
fn alone(fleet: &Fleet) -> Child {
    let before = fleet.pid("fra-1");
    fleet.freeze();
    let edge = Command::new(program("helix-edge"))
        .arg("--config")
        .arg(fleet.config_file("fra-1"))
        .env("HELIX_EDGE_ACCESS_LOG__FORMAT", "json")
        .env("HELIX_EDGE_ACCESS_LOG__PATH", access_log_file(fleet))
        // It ends with its standard input, as its config says.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::create(log_file(fleet)).unwrap())
        .spawn()
        .unwrap();
    let stat = format!("/proc/{before}/stat");
    wait::until_true("the process before has ended", REVIVE_LIMIT, || {
        // Its parent is not there to take its exit code.
        fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
    edge
}

/// One connection of HTTP/1.1.
struct Line(TcpStream);

impl Line {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.take(1));
        }
        String::from_utf8(head).unwrap()
    }

    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }
}

/// A server of HTTP/1.1: `/api/slow` waits for a word, `/api/ws` switches and greets, anything else counts the body.
fn serve(released: Receiver<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let released = Arc::new(std::sync::Mutex::new(released));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let released = Arc::clone(&released);
            std::thread::spawn(move || answer(Line(stream), &released));
        }
    });
    addr
}

fn answer(mut line: Line, released: &std::sync::Mutex<Receiver<()>>) {
    // Whoever only looks whether somebody is there says nothing.
    if line.0.peek(&mut [0]).unwrap_or(0) == 0 {
        return;
    }
    let head = line.head().to_ascii_lowercase();
    if head.starts_with("get /api/ws ") {
        line.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x01\x05hello",
        );
        // Until it is ended from the other side, in whichever way.
        let _ = line.0.read(&mut [0; 100]);
        return;
    }
    let body = if head.starts_with("get /api/slow ") {
        // An error means that the test is over.
        let _ = released.lock().unwrap().recv_timeout(DEADLINE);
        "released".to_owned()
    } else if head.contains("\r\ncontent-length: 8\r\n") {
        String::from_utf8(line.take(8)).unwrap()
    } else {
        // In chunks, whose data is what is left without what is around it.
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            body.extend(line.take(1));
        }
        let text = String::from_utf8(body).unwrap();
        let lines: Vec<_> = text.split("\r\n").collect();
        lines
            .chunks(2)
            .filter_map(|pair| pair.get(1))
            .copied()
            .collect()
    };
    let length = body.len();
    line.send(format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
}

/// A server of HTTP/2 that sends each part of a call back, and ends with its trailers.
async fn echo_calls() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Whoever only looks whether somebody is there says nothing.
                let Ok(mut connection) = h2::server::handshake(socket).await else {
                    return;
                };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut out = respond.send_response(Response::new(()), false).unwrap();
                        let mut body = request.into_body();
                        while let Some(Ok(part)) = body.data().await {
                            body.flow_control().release_capacity(part.len()).unwrap();
                            out.send_data(part, false).unwrap();
                        }
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        out.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    addr
}

/// Requests over one connection of HTTP/2 that are under way.
struct OverHttp2 {
    requests: h2::client::SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
    slow: h2::client::ResponseFuture,
    upload: (h2::client::ResponseFuture, h2::SendStream<Bytes>),
    call: (h2::RecvStream, h2::SendStream<Bytes>),
}

impl OverHttp2 {
    async fn begin(stage: &Stage) -> Self {
        let socket = tokio::net::TcpStream::connect(stage.http).await.unwrap();
        let (requests, connection) = h2::client::handshake(socket).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut requests = requests.ready().await.unwrap();
        let head = |method: &str, path: &str, kind: &str| {
            let url = format!("http://{}{path}", stage.host);
            let head = Request::builder().method(method).uri(url);
            head.header("content-type", kind).body(()).unwrap()
        };
        let (slow, _) = requests
            .send_request(head("GET", "/api/slow", "text/plain"), true)
            .unwrap();
        let (response, mut upload) = requests
            .send_request(head("POST", "/api/upload", "text/plain"), false)
            .unwrap();
        upload.send_data(Bytes::from("1234"), false).unwrap();
        let (called, mut call) = requests
            .send_request(head("POST", "/calls/a.B/C", "application/grpc"), false)
            .unwrap();
        call.send_data(Bytes::from("one"), false).unwrap();
        let mut body = called.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "one");
        Self {
            requests,
            driver,
            slow,
            upload: (response, upload),
            call: (body, call),
        }
    }

    async fn end(self) {
        let Self {
            requests,
            driver,
            slow,
            upload: (response, mut upload),
            call: (mut body, mut call),
        } = self;
        // It has been told to go away.
        let told = requests.ready().await.unwrap_err();
        assert!(
            told.is_go_away() && told.reason() == Some(h2::Reason::NO_ERROR),
            "{told}"
        );
        assert_eq!(whole(slow).await, "released");
        upload.send_data(Bytes::from("5678"), true).unwrap();
        assert_eq!(whole(response).await, "12345678");
        call.send_data(Bytes::from("two"), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "two");
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        driver.await.unwrap().unwrap();
    }
}

async fn whole(response: h2::client::ResponseFuture) -> String {
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut body, mut text) = (response.into_body(), Vec::new());
    while let Some(part) = body.data().await {
        text.extend(part.unwrap());
    }
    String::from_utf8(text).unwrap()
}

/// The same over HTTP/3.
struct OverHttp3 {
    connection: http3::Connection,
    slow: http3::Stream,
    long: http3::Stream,
    upload: http3::Stream,
}

impl OverHttp3 {
    async fn begin(client: &Http3) -> Self {
        let mut connection = client.open().await.unwrap();
        let get = |path: &str| Request::get(client.url(path)).body(()).unwrap();
        let mut slow = connection.send(get("/api/slow")).await.unwrap();
        slow.finish().await.unwrap();
        let mut long = connection.send(get("/long.bin")).await.unwrap();
        long.finish().await.unwrap();
        assert_eq!(long.recv_response().await.unwrap().status(), 200);
        let post = Request::post(client.url("/api/upload")).body(()).unwrap();
        let mut upload = connection.send(post).await.unwrap();
        upload.send_data(Bytes::from("1234")).await.unwrap();
        Self {
            connection,
            slow,
            long,
            upload,
        }
    }

    async fn end(self, content: &[u8]) {
        let Self {
            mut connection,
            mut slow,
            mut long,
            mut upload,
        } = self;
        let refused = connection.get("https://any.example/").await.unwrap_err();
        assert!(matches!(refused, http3::Fault::NotTaken), "{refused:?}");
        let (status, body) = http3::answer(&mut slow).await.unwrap();
        assert_eq!((status.as_u16(), body.as_slice()), (200, &b"released"[..]));
        upload.send_data(Bytes::from("5678")).await.unwrap();
        upload.finish().await.unwrap();
        let (status, body) = http3::answer(&mut upload).await.unwrap();
        assert_eq!((status.as_u16(), body.as_slice()), (200, &b"12345678"[..]));
        assert!(http3::rest(&mut long).await.unwrap() == content);
        drop((slow, upload, long));
        let ended = connection.driver.await.unwrap();
        assert!(ended.is_h3_no_error(), "{ended}");
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn whatever_is_in_flight_when_an_edge_is_told_to_end_is_finished() {
    let _turn = own_fleet();
    let runtime = runtime();
    let mut stage = Stage::set(&runtime);
    // A server that is not there: the visitor learns little, the log all.
    let mut failed = stage.ask("GET /nobody", "Connection: close\r\n");
    assert!(failed.head().starts_with("HTTP/1.1 502 "));
    let told = String::from_utf8(failed.rest()).unwrap();
    assert!(
        !told.contains("127.0.0.1") && !told.contains("refused"),
        "{told}"
    );

    let mut slow = stage.ask("GET /api/slow", "");
    let mut long = stage.ask("GET /long.bin", "");
    assert!(long.head().starts_with("HTTP/1.1 200 "));
    let mut upload = stage.ask("POST /api/upload", "Content-Length: 8\r\n");
    upload.send("1234");
    let mut websocket = stage.ask(
        "GET /api/ws",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    );
    assert!(websocket.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(websocket.take(7), b"\x01\x05hello");
    let mut idle = stage.ask("HEAD /", "");
    assert!(idle.head().contains("\r\nconnection: keep-alive\r\n"));
    let http2 = runtime.block_on(OverHttp2::begin(&stage));
    let client = Http3::of(&stage.fleet, "fra-1", &stage.host);
    let http3 = runtime.block_on(OverHttp3::begin(&client));

    stage.terminate();
    wait::until_true("no connection is taken any more", PATIENCE, || {
        TcpStream::connect(stage.http)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert_eq!(websocket.rest(), GOING_AWAY);
    assert_eq!(idle.rest(), b"");
    assert!(stage.edge.try_wait().unwrap().is_none(), "it did not wait");
    for _ in 0..3 {
        stage.release.send(()).unwrap();
    }
    let answer = slow.head();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"),
        "{answer}"
    );
    assert_eq!(slow.rest(), b"released");
    upload.send("5678");
    assert!(upload.head().contains("\r\nconnection: close\r\n"));
    assert_eq!(upload.rest(), b"12345678");
    assert!(long.rest() == stage.content);
    runtime.block_on(async { tokio::time::timeout(PATIENCE, http2.end()).await.unwrap() });
    let content = stage.content.clone();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, http3.end(&content))
            .await
            .unwrap()
    });
    // At once, long before the deadline.
    stage.until_ended_well(Duration::from_secs(10));

    let log = fs::read_to_string(access_log_file(&stage.fleet)).unwrap();
    let failed = log.lines().find(|line| line.contains("/nobody")).unwrap();
    assert!(
        failed.contains("502") && failed.to_ascii_lowercase().contains("refused"),
        "{failed}"
    );
}

#[test]
fn an_edge_that_is_told_to_end_does_so_at_its_deadline_whoever_holds_it() {
    let _turn = own_fleet();
    let runtime = runtime();
    let mut stage = Stage::set(&runtime);
    let mut slow = stage.ask("GET /api/slow", "");
    stage.terminate();
    stage.until_ended_well(DEADLINE);
    // Cut, not answered.
    let mut rest = Vec::new();
    let _ = slow.0.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    drop(stage.release);
}
