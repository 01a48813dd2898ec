//! npm's `http-cache-tests` against this edge: an outside opinion on RFC 9111.
//!
//! Needs Node and the package in `.tools/judges`; without them the test says that it was skipped. What does not
//! pass, and why, stands in `docs/decisions/0075-response-cache.md`. Where nginx is installed it is judged beside it.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::cache::cached;
use crate::support::{Edge, LIVE, PATIENCE};

/// Fewer passes among the required ones than this, and something broke. It is below what a quiet machine gets (157): the
/// suite waits by the clock.
const REQUIRED: usize = 150;

/// Says of what kind each test is, as the suite does.
const KINDS: &str = "import t from './tests/index.mjs'; import s from './tests/surrogate-control.mjs'; t.push(s);
const k = {}; for (const u of t) for (const c of u.tests) k[c.id] = c.kind || 'required'; console.log(JSON.stringify(k))";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many tests of one kind pass, and which do not.
struct Verdict {
    passed: usize,
    failed: Vec<String>,
}

struct Judge(PathBuf);

impl Judge {
    fn installed() -> Option<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = root.join(".tools/judges/node_modules/http-cache-tests");
        let node = Command::new("node").arg("--version").output().is_ok();
        (folder.exists() && node).then_some(Self(folder))
    }

    fn origin(&self, scratch: &Path) -> (Running, SocketAddr) {
        let addr = free();
        let mut server = Command::new("node");
        server
            .args(["--no-warnings", "server/server.mjs"])
            .current_dir(&self.0)
            .env("npm_config_protocol", "http")
            .env("npm_config_port", addr.port().to_string())
            .env("npm_config_pidfile", scratch.join("origin.pid"))
            .stdout(Stdio::piped());
        let mut origin = Running(server.spawn().unwrap());
        let mut line = [0; 9];
        let said = origin.0.stdout.as_mut().unwrap();
        said.read_exact(&mut line).unwrap();
        (origin, addr)
    }

    /// Runs every test against the cache on `port`.
    fn judges(&self, name: &str, port: u16) -> [Verdict; 3] {
        let kinds = self.node(port, &["--input-type=module", "--eval", KINDS]);
        let results = self.node(port, &["cli.mjs"]);
        ["required", "optimal", "check"].map(|kind| {
            let of_kind = results.as_object().unwrap().iter();
            let of_kind = of_kind.filter(|(id, _)| kinds[id.as_str()] == kind);
            let (passed, failed): (Vec<_>, Vec<_>) =
                of_kind.partition(|(_, result)| **result == Value::Bool(true));
            let all = passed.len() + failed.len();
            eprintln!("{name}: {kind}: {} of {all}", passed.len());
            let failed = failed.iter().map(|(id, result)| format!("{id}: {result}"));
            Verdict {
                passed: passed.len(),
                failed: failed.collect(),
            }
        })
    }

    fn node(&self, port: u16, arguments: &[&str]) -> Value {
        let output = Command::new("node")
            .arg("--no-warnings")
            .args(arguments)
            .current_dir(&self.0)
            .env("npm_config_base", format!("http://localhost:{port}"))
            // No single test: both have to be there and empty.
            .env("npm_config_id", "")
            .env("npm_package_config_id", "")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let start = text
            .find('{')
            .unwrap_or_else(|| panic!("no results: {text}"));
        serde_json::from_str(&text[start..]).unwrap()
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// nginx as a cache of everything, if it is installed and comes up.
fn nginx(scratch: &Path, origin: SocketAddr) -> Option<(Running, SocketAddr)> {
    let addr = free();
    let at = scratch.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|name| format!("{name}_temp_path {at}/{name};\n"));
    let settings = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; events {{}}
http {{ access_log off; proxy_cache_path {at}/kept keys_zone=kept:1m;
{}server {{ listen {addr}; location / {{
proxy_pass http://{origin}; proxy_http_version 1.1; proxy_cache kept; proxy_cache_revalidate on; }} }} }}",
        paths.concat()
    );
    let file = scratch.join("nginx.conf");
    std::fs::write(&file, settings).unwrap();
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .into_iter()
        .find(|path| Path::new(path).exists())?;
    let mut command = Command::new(program);
    command.arg("-e").arg(scratch.join("error.log")).arg("-c");
    let server = Running(command.arg(&file).spawn().ok()?);
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(addr).is_err() {
        if Instant::now() > until {
            return None;
        }
        std::thread::yield_now();
    }
    Some((server, addr))
}

#[test]
fn the_judge_of_caches_passes_as_many_required_tests_as_committed() {
    let Some(judge) = Judge::installed() else {
        eprintln!("skipped: no Node, or no http-cache-tests in .tools/judges");
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let (_origin, addr) = judge.origin(scratch.path());
    let edge = Edge::start();
    cached(&edge, "localhost", addr, LIVE);
    let [required, optimal, _check] = judge.judges("helix", edge.addr.port());
    eprintln!("optimal, not passed: {:#?}", optimal.failed);
    if let Some((_nginx, addr)) = nginx(scratch.path(), addr) {
        judge.judges("nginx", addr.port());
    }
    let Verdict { passed, failed } = required;
    eprintln!("required, not passed: {failed:#?}");
    assert!(
        passed >= REQUIRED,
        "{passed} required pass, not {REQUIRED}: {failed:#?}"
    );
}
