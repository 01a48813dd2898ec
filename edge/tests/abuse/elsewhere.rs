//! An edge in another process: this test program, asked by a variable to serve instead of testing.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use helix_edge::http3::Http3;
use helix_edge::limits::Limits;
use helix_edge::listener::TlsListener;
use helix_edge::tls::{CertificateFiles, Certificates};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::support::{Edge, PATIENCE};
use crate::upstream::forward_to;

/// Set in the process that serves.
const SETTINGS: &str = "HELIX_TEST_SERVES";
/// What it says once it does, before its addresses.
const SERVES: &str = "serves at ";
/// What this process needs besides the connections of a test.
const OTHER_DESCRIPTORS: u64 = 500;

/// How the edge is set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) per_address: usize,
    pub(crate) idle: Duration,
    pub(crate) write_stall: Duration,
    pub(crate) body_window: Duration,
    /// Where requests for `api.example` below `/api/` are sent on to.
    pub(crate) upstream: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            per_address: limits.connections_per_address,
            idle: limits.idle_deadline,
            write_stall: limits.write_stall,
            body_window: limits.body_window,
            upstream: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) quic: SocketAddr,
}

/// An edge in a process of its own, which ends with this.
pub(crate) struct Elsewhere {
    child: Child,
    pub(crate) at: Addresses,
    /// Where it says that it runs for long: it ends when nobody takes that.
    _said: BufReader<ChildStdout>,
    _turn: Turn,
}

impl Elsewhere {
    /// Starts one for the test of this name. None in that process itself, once nobody needs it any longer.
    pub(crate) fn start(test: &str, settings: &Settings) -> Option<Self> {
        if let Ok(settings) = env::var(SETTINGS) {
            serve(&serde_json::from_str(&settings).unwrap());
            return None;
        }
        let turn = Turn::take();
        let mut child = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(SETTINGS, serde_json::to_string(settings).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let at = (&mut said)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once(SERVES)?.1.to_owned()))
            .unwrap_or_else(|| panic!("{test} does not serve"));
        Some(Self {
            child,
            at: serde_json::from_str(&at).unwrap(),
            _said: said,
            _turn: turn,
        })
    }

    /// What it holds of its own, in bytes: code that is read from its file for the first time is none of it.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Looks at what it holds every now and then, until dropped.
    pub(crate) fn most_resident<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let most = Mutex::new(self.resident());
        let done = AtomicBool::new(false);
        let worked = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let now = self.resident();
                    let mut most = most.lock().unwrap();
                    *most = now.max(*most);
                    drop(most);
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            let worked = work();
            done.store(true, Ordering::Relaxed);
            worked
        });
        (worked, most.into_inner().unwrap())
    }

    /// Sockets it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .count()
    }

    /// Waits until it has no more descriptors open than `before`.
    pub(crate) fn until_closed(&self, before: usize) {
        let until = Instant::now() + PATIENCE;
        while self.descriptors() > before {
            assert!(
                Instant::now() < until,
                "{} descriptors are open, {before} were before",
                self.descriptors()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// One test at a time measures. It may end on another thread than it began on, so this is no lock's guard.
struct Turn;

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Turn {
    fn take() -> Self {
        while TAKEN.swap(true, Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(50));
        }
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input ends.
fn serve(settings: &Settings) {
    // A panic of one task would end one connection only, and nobody would see it.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    descriptors();
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::open(vec![certificate(folder.path())]).unwrap();
    let addr = "127.0.0.1:0".parse().unwrap();
    let limits = Limits {
        connections_per_address: settings.per_address,
        idle_deadline: settings.idle,
        write_stall: settings.write_stall,
        body_window: settings.body_window,
        ..Limits::default()
    };
    let tls = TlsListener {
        addr,
        certificates: Arc::clone(&certificates),
        public_port: None,
    };
    let edge = Edge::on(limits, Some(tls), Some(Http3 { addr, certificates }));
    if let Some(upstream) = settings.upstream {
        forward_to(&edge, upstream, &json!({}));
    }
    let at = Addresses {
        plain: edge.addr,
        tls: edge.handle.tls_addr().unwrap(),
        quic: edge.handle.http3_addr().unwrap(),
    };
    let line = format!("\n{SERVES}{}\n", serde_json::to_string(&at).unwrap());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    // It ends when the other process does, or lets go.
    let _ = std::io::stdin().read(&mut [0]);
}

fn certificate(folder: &Path) -> CertificateFiles {
    let names = ["shop.example", "api.example"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = CertificateFiles {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// Allows this process as many descriptors as it may have. How many that is.
fn descriptors() -> u64 {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    most
}

/// The variable that says how many times honest clients are compared, on a machine that is left alone.
pub(crate) const PAIRS: &str = "HELIX_PAIRS";

/// By when a client is to be cut. A machine that does something else too has three times as long: the time is printed.
pub(crate) fn within(limit: Duration) -> Duration {
    if env::var_os(PAIRS).is_some() {
        limit
    } else {
        3 * limit
    }
}

/// `wanted`, or as many connections as this process may have; says so if they are fewer.
pub(crate) fn connections(wanted: usize) -> usize {
    let room = descriptors().saturating_sub(OTHER_DESCRIPTORS);
    let room = usize::try_from(room).unwrap();
    if room < wanted {
        eprintln!("only {room} of {wanted} connections: the limit of descriptors is lower");
    }
    room.min(wanted)
}
