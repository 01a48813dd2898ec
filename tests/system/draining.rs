//! Draining and restarts: what is in flight on a release that is no longer live ends by itself, or in time.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use helix_routing::id::{Generation, ReleaseId};
use helix_tests::checker::{Checker, Tolerance};
use helix_tests::client::{Client, Request};
use helix_tests::command::finish;
use helix_tests::fleet::{EdgeInfo, Fleet, release_of};
use helix_tests::folder::{Folder, page_digest};
use helix_tests::wait;

/// Whatever happens has happened by then, on a loaded machine too.
const LIMIT: Duration = Duration::from_secs(60);
/// Between a deadline and what is seen of it.
const SLACK: Duration = Duration::from_secs(6);
/// Close with status 1012, as a server sends it.
const SERVICE_RESTART: [u8; 4] = [0x88, 2, 0x03, 0xF4];

/// A server: `/api/ws` becomes a WebSocket that says nothing, `/api/slow` takes two seconds, `/api/stuck` never answers,
/// and everything else is answered at once, `/api/health` badly while it is `ill`.
struct Server {
    addr: SocketAddr,
    ill: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            addr: listener.local_addr().unwrap(),
            ill: Arc::default(),
            connections: Arc::default(),
        };
        let (ill, connections) = (Arc::clone(&server.ill), Arc::clone(&server.connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let ill = Arc::clone(&ill);
                std::thread::spawn(move || answer(stream, &ill));
            }
        });
        server
    }

    /// A site whose `/api/*` goes here.
    fn site(&self, text: &str, more: &str) -> Folder {
        let toml = format!(
            "[upstreams.api]\naddresses = [\"http://{}\"]\n\n\
             [[forward]]\npath = \"/api/*\"\nupstream = \"api\"\n\n{more}",
            self.addr
        );
        Folder::page(text).with("helix.toml", toml.as_bytes())
    }
}

fn answer(stream: TcpStream, ill: &AtomicBool) {
    let mut out = stream.try_clone().unwrap();
    let mut path = String::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if let Some(rest) = line.strip_prefix("GET ") {
            rest.split(' ').next().unwrap().clone_into(&mut path);
        }
        // No request here has a body.
        if !line.is_empty() {
            continue;
        }
        let status = match path.as_str() {
            "/api/ws" => {
                let _ = out.write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
                );
                // Until it is ended from the other side, in whichever way.
                while matches!(out.read(&mut [0; 100]), Ok(1..)) {}
                return;
            }
            "/api/stuck" => {
                while matches!(out.read(&mut [0; 100]), Ok(1..)) {}
                return;
            }
            "/api/slow" => {
                wait::pause(Duration::from_secs(2));
                "200 OK"
            }
            "/api/health" if ill.load(Ordering::Relaxed) => "500 Ill",
            _ => "200 OK",
        };
        let sent = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        if out.write_all(sent.as_bytes()).is_err() {
            return;
        }
    }
}

/// A WebSocket, which listens.
struct Socket(TcpStream);

impl Socket {
    fn open(edge: &EdgeInfo, host: &str) -> Self {
        let authority = edge.http.strip_prefix("http://").unwrap();
        let authority = authority
            .trim_end_matches('/')
            .replace("localhost", "127.0.0.1");
        let mut stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let ask = format!(
            "GET /api/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101 "),
            "{}",
            String::from_utf8_lossy(&head)
        );
        Self(stream)
    }

    /// Everything that is said until the end.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }

    fn is_open(&mut self) -> bool {
        self.0
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let read = self.0.read(&mut [0; 10]);
        self.0.set_read_timeout(Some(LIMIT)).unwrap();
        matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// Several WebSockets on every edge.
fn sockets(fleet: &Fleet, host: &str) -> Vec<Socket> {
    let edges = fleet.edges().flat_map(|(_, edge)| [edge; 4]);
    edges.map(|edge| Socket::open(edge, host)).collect()
}

/// Asks every edge for something of the server, without a pause, and counts what goes wrong.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    fn start(fleet: &Fleet, project: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let threads = fleet.edges().map(|(_, edge)| {
            let (stop, host, http) = (Arc::clone(&stop), fleet.host(project), edge.http.clone());
            std::thread::spawn(move || {
                let (mut client, mut requests, mut wrong) = (Client::of(&http), 0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    requests += 1;
                    match client.send(Request::get(&host, "/api/a")) {
                        Ok(response) if response.status == 200 => {}
                        Ok(response) => wrong.push(response.status.to_string()),
                        Err(error) => wrong.push(error.to_string()),
                    }
                    wait::pause(Duration::from_millis(2));
                }
                (requests, wrong)
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    /// How many requests there were, all of which succeeded.
    #[track_caller]
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self
            .threads
            .into_iter()
            .map(|thread| thread.join().unwrap());
        let mut all = 0;
        for (requests, wrong) in ended {
            assert!(wrong.is_empty(), "{wrong:?}");
            all += requests;
        }
        all
    }
}

fn generations(fleet: &Fleet, project: &str) -> Vec<Generation> {
    let site = fleet.api().site(&format!("{project}/production")).unwrap();
    site.regions
        .iter()
        .map(|region| region.generation)
        .collect()
}

/// What is in flight on releases that are no longer live: WebSockets in all regions.
fn draining(fleet: &Fleet, project: &str) -> u64 {
    let site = fleet.api().site(&format!("{project}/production")).unwrap();
    let views = site.regions.iter().flat_map(|region| &region.in_flight);
    let left = views.filter(|view| view.draining);
    left.map(|view| view.websockets).sum()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn after_a_cutover_what_is_in_flight_ends_or_is_ended_in_time() {
    let fleet = Fleet::shared();
    let server = Server::start();
    let host = fleet.host("drain-cut");
    let grace = "[drain]\nrequests = \"4s\"\nwebsockets = \"8s\"\n";
    let first = fleet.deploy("drain-cut", &server.site("one", grace));
    let mut sockets = sockets(&fleet, &host);
    let ask = |edge: &EdgeInfo, target: &'static str| {
        let (http, host) = (edge.http.clone(), host.clone());
        std::thread::spawn(move || {
            let response = Client::of(&http).send(Request::get(&host, target)).unwrap();
            (response, Instant::now())
        })
    };
    let (_, edge) = fleet.edges().next().unwrap();
    let (slow, stuck) = (ask(edge, "/api/slow"), ask(edge, "/api/stuck"));
    // Both have arrived at the server by then.
    wait::pause(Duration::from_millis(500));
    let before = Instant::now();
    let checker = Checker::start(&fleet, &host, Tolerance::Nothing);
    let second = fleet.deploy("drain-cut", &server.site("two", grace));
    let after = Instant::now();
    checker.settled_everywhere(&fleet, &second);

    // People see what is left, and how long it has.
    let all = sockets.len() as u64;
    wait::until_true("what drains is seen", LIMIT, || {
        draining(&fleet, "drain-cut") == all
    });
    let status = fleet
        .helix()
        .run(["status", "--project", "drain-cut"])
        .with(0);
    assert!(
        status.stdout.contains(&format!("{first} draining: ")),
        "{}",
        status.stdout
    );
    let releases = fleet
        .helix()
        .run(["releases", "--project", "drain-cut"])
        .with(0);
    assert!(
        releases.stdout.contains("fra draining: "),
        "{}",
        releases.stdout
    );

    let (slow, _) = slow.join().unwrap();
    assert_eq!(
        (slow.status, slow.header("x-helix-release")),
        (200, Some(first.as_str()))
    );
    let (stuck, at) = stuck.join().unwrap();
    assert_eq!(stuck.status, 504);
    assert!(at - before >= Duration::from_secs(4), "{:?}", at - before);
    assert!(
        at <= after + Duration::from_secs(4) + SLACK,
        "{:?}",
        at - after
    );
    let mut last = at;
    for socket in &mut sockets {
        assert_eq!(socket.rest(), SERVICE_RESTART);
        last = Instant::now();
        assert!(last - before >= Duration::from_secs(6), "closed too early");
    }
    assert!(
        last <= after + Duration::from_secs(8) + SLACK,
        "{:?}",
        last - after
    );
    wait::until_true("nothing is left", LIMIT, || {
        draining(&fleet, "drain-cut") == 0
    });
    let _ = checker.finish(&[(first, page_digest("one")), (second, page_digest("two"))]);
}

#[test]
fn a_restart_under_load_fails_nobody_and_closes_every_websocket() {
    let fleet = Fleet::shared();
    let server = Server::start();
    let host = fleet.host("restart");
    let folder = server.site("one", "[drain]\nwebsockets = \"1s\"\n");
    let release = fleet.deploy("restart", &folder);
    let mut sockets = sockets(&fleet, &host);
    let before = generations(&fleet, "restart");
    let load = Load::start(&fleet, "restart");
    let planned = fleet
        .helix()
        .run(["restart", "--project", "restart", "--plan"])
        .with(0);
    planned.says(&[release.as_str(), &format!("api at http://{}", server.addr)]);
    assert_eq!(
        generations(&fleet, "restart"),
        before,
        "a plan changes nothing"
    );
    let connections = server.connections.load(Ordering::Relaxed);
    let ended = fleet
        .helix()
        .run([
            "restart",
            "--project",
            "restart",
            "--reason",
            "stuck",
            "--json",
        ])
        .with(0);
    assert_eq!(ended.json()["outcome"], "settled");
    for (before, after) in before.iter().zip(generations(&fleet, "restart")) {
        assert_eq!(after.0, before.0 + 2, "one to prepare, one to begin anew");
    }
    for socket in &mut sockets {
        assert_eq!(socket.rest(), SERVICE_RESTART);
    }
    let edges = fleet.edges().count() as u64;
    let made = || server.connections.load(Ordering::Relaxed) - connections;
    wait::until_true("every edge connects anew", LIMIT, || made() >= edges);
    let requests = load.finish();
    assert!(requests > 100, "{requests} requests");
    for (_, edge) in fleet.edges() {
        let response = fleet.ask(edge, &host, "/api/a");
        assert_eq!(response.header("x-helix-release"), Some(release.as_str()));
    }
}

#[test]
fn a_restart_in_one_region_leaves_the_other_as_it_is() {
    let fleet = Fleet::shared();
    let server = Server::start();
    let host = fleet.host("restart-one");
    let _ = fleet.deploy(
        "restart-one",
        &server.site("one", "[drain]\nwebsockets = \"0s\"\n"),
    );
    let before = generations(&fleet, "restart-one");
    let open = |region: &str| {
        let mut edges = fleet.edges();
        let (_, edge) = edges.find(|(of, _)| of.as_str() == region).unwrap();
        Socket::open(edge, &host)
    };
    let (mut here, mut there) = (open("fra"), open("iad"));
    let restart = ["restart", "--project", "restart-one", "--region", "fra"];
    let _ = fleet.helix().run(restart).with(0);
    let after = generations(&fleet, "restart-one");
    assert_eq!((after[0].0, after[1]), (before[0].0 + 2, before[1]));
    assert_eq!(here.rest(), SERVICE_RESTART);
    assert!(there.is_open());
    // A site that only serves files can be restarted as well; one that serves nothing cannot.
    let _ = fleet.deploy("restart-files", &Folder::page("files"));
    let _ = fleet
        .helix()
        .run(["restart", "--project", "restart-files"])
        .with(0);
    let nothing = [
        "restart",
        "--project",
        "restart-files",
        "--env",
        "preview/9",
    ];
    let refused = fleet.helix().run(nothing).with(1);
    refused.says(&["nothing of restart-files/preview/9 is live"]);
}

#[test]
fn a_restart_waits_for_what_is_new_and_yields_to_it() {
    let fleet = Fleet::shared();
    let server = Server::start();
    let gate = "[[gates]]\nname = \"well\"\nkind = \"http\"\nupstream = \"api\"\npath = \"/api/health\"\n\
                rise = 1\ndeadline = \"40s\"\n";
    let first = fleet.deploy("restart-yields", &server.site("one", gate));
    server.ill.store(true, Ordering::Relaxed);
    // Its gate does not pass, so it waits.
    let restart = ["restart", "--project", "restart-yields", "--json"];
    let waiting = fleet.helix().start(restart);
    let site = || fleet.api().site("restart-yields/production").unwrap();
    wait::until_true("the restart prepares", LIMIT, || {
        site().regions[0].candidate.is_some()
    });
    assert_eq!(
        site().regions[1].candidate,
        None,
        "one region after the other"
    );
    let newer = server.site("two", "[bake]\nwindow = \"1h\"\n");
    let path = newer.path().to_str().unwrap();
    let deploy = [
        "deploy",
        path,
        "--project",
        "restart-yields",
        "--detach",
        "--json",
    ];
    let second: ReleaseId = release_of(&fleet.helix().run(deploy).with(0));
    assert_ne!(first, second);
    let ended = finish(waiting).with(5);
    assert_eq!(ended.json()["outcome"], "superseded");
    // Now that something new is on its way, a restart would keep it from coming.
    let refused = fleet.helix().run(restart).with(1);
    refused.says(&["the deploy ", "runs"]);
    wait::until_true("the new release is live", LIMIT, || {
        site()
            .regions
            .iter()
            .all(|region| region.live.as_ref() == Some(&second))
    });
    // So that no rollout is left running behind.
    let _ = fleet.deploy("restart-yields", &Folder::page("three"));
}
