//! Servers of NATS by the configurations of `deploy/nats`, and ways to them that can be cut.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use helix_tests::fleet::checkout;

/// One `nats-server`.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) config: PathBuf,
    pub(super) clients: u16,
    pub(super) monitor: u16,
    pub(super) leafs: u16,
    pub(super) child: Option<Child>,
}

/// Starts a server.
pub(super) fn nats(config: &Path, log: File) -> Child {
    let own = checkout().join(".tools/bin/nats-server");
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let child = Command::new(named.unwrap_or(own))
        .arg("-c")
        .arg(config)
        .stderr(log)
        .spawn();
    child.unwrap()
}

/// A configuration of `deploy/nats`, with other values in its first lines.
pub(super) fn filled(template: &str, values: &[(&str, String)]) -> String {
    let path = checkout().join("deploy/nats").join(template);
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let value = values
            .iter()
            .find(|(name, _)| line.starts_with(&format!("{name} = ")));
        value.map_or_else(
            || line.to_owned(),
            |(name, value)| format!("{name} = {value}"),
        )
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

pub(super) fn address(port: u16) -> String {
    quoted(&format!("127.0.0.1:{port}"))
}

/// A port that was free a moment ago.
pub(super) fn port() -> u16 {
    helix_service::port::free().unwrap()
}

/// The way to a server, which can be cut.
pub(super) struct Way {
    pub(super) port: u16,
    pub(super) is_cut: Arc<AtomicBool>,
}

impl Way {
    pub(super) fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let (false, Ok(far)) = (
                    cut.load(Ordering::Relaxed),
                    TcpStream::connect(("127.0.0.1", target)),
                ) {
                    carry(
                        near.try_clone().unwrap(),
                        far.try_clone().unwrap(),
                        Arc::clone(&cut),
                    );
                    carry(far, near, Arc::clone(&cut));
                }
            }
        });
        Self { port, is_cut }
    }

    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

/// Carries bytes until either end has none, or the way is cut.
pub(super) fn carry(mut from: TcpStream, mut to: TcpStream, cut: Arc<AtomicBool>) {
    from.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    thread::spawn(move || {
        let mut part = [0; 16 * 1024];
        while !cut.load(Ordering::Relaxed) {
            match from.read(&mut part) {
                Ok(0) => break,
                Ok(length) if to.write_all(&part[..length]).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => break,
            }
        }
        // Whoever is at the other end is told; it may be gone.
        let _ = from.shutdown(std::net::Shutdown::Both);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
