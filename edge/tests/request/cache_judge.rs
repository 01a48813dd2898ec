//! npm's `http-cache-tests` against this edge: an outside opinion on RFC 9111.
//!
//! Needs Node and the package in `.tools/judges`; without them the test says that it was skipped. What does not
//! pass, and why, stands in `docs/decisions/0075-response-cache.md`.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::cache::cached;
use crate::support::{Edge, LIVE};

/// Fewer passes among the required ones than this, and something broke.
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

fn suite() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join(".tools/judges/node_modules/http-cache-tests");
    (folder.exists() && Command::new("node").arg("--version").output().is_ok()).then_some(folder)
}

fn json(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let start = text
        .find('{')
        .unwrap_or_else(|| panic!("no results: {text}"));
    serde_json::from_str(&text[start..]).unwrap()
}

#[test]
fn the_judge_of_caches_passes_as_many_required_tests_as_committed() {
    let Some(folder) = suite() else {
        eprintln!("skipped: no Node, or no http-cache-tests in .tools/judges");
        return;
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let pid = std::env::temp_dir().join(format!("cache-judge-{}", std::process::id()));
    let mut server = Command::new("node");
    server
        .args(["--no-warnings", "server/server.mjs"])
        .current_dir(&folder);
    server
        .env("npm_config_protocol", "http")
        .env("npm_config_port", port.to_string());
    server
        .env("npm_config_pidfile", &pid)
        .stdout(Stdio::piped());
    let mut origin = Running(server.spawn().unwrap());
    let mut line = [0; 9];
    origin
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    let edge = Edge::start();
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    cached(&edge, "localhost", addr, LIVE);
    let base = format!("http://localhost:{}", edge.addr.port());
    let node = |arguments: &[&str]| {
        let mut command = Command::new("node");
        command
            .arg("--no-warnings")
            .args(arguments)
            .current_dir(&folder);
        command
            .env("npm_config_base", &base)
            .env("npm_config_id", "");
        json(&mut command)
    };
    let kinds = node(&["--input-type=module", "--eval", KINDS]);
    let results = node(&["cli.mjs"]);
    let _ = std::fs::remove_file(pid);
    let mut failed = Vec::new();
    for kind in ["required", "optimal", "check"] {
        let of_kind: Vec<_> = results
            .as_object()
            .unwrap()
            .iter()
            .filter(|(id, _)| kinds[id.as_str()] == kind)
            .collect();
        let passed = of_kind
            .iter()
            .filter(|(_, result)| **result == Value::Bool(true))
            .count();
        eprintln!("{kind}: {passed} of {}", of_kind.len());
        if kind == "required" {
            let broken = of_kind
                .iter()
                .filter(|(_, result)| **result != Value::Bool(true));
            failed = broken
                .map(|(id, result)| format!("{id}: {result}"))
                .collect();
            assert!(
                passed >= REQUIRED,
                "{passed} required pass, not {REQUIRED}: {failed:#?}"
            );
        }
        if kind == "optimal" {
            let broken = of_kind
                .iter()
                .filter(|(_, result)| **result != Value::Bool(true));
            for (id, result) in broken {
                eprintln!("optimal {id}: {result}");
            }
        }
    }
    eprintln!("required, not passed: {failed:#?}");
}
