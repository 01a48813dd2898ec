//! A real nats-server on a free port with its own folder; ends with the value.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub(crate) struct Nats {
    folder: TempDir,
    port: u16,
    monitor: u16,
    child: Option<Child>,
}

impl Nats {
    /// None, with a word, when there is no nats-server to test with.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("sync_interval: always")
    }

    #[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
    pub(crate) fn start_with(sync: &str) -> Option<Self> {
        let Some(binary) = binary() else {
            eprintln!("skipped: no nats-server; set NATS_SERVER or run `make tools`");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let (port, monitor) = (free_port(), free_port());
        let store = folder.path().join("store");
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\nmax_payload: 1MB\n\
             jetstream {{ store_dir: \"{}\"\n {sync}\n max_memory_store: 64MB\n max_file_store: 1GB }}\n",
            store.display()
        );
        std::fs::write(folder.path().join("nats.conf"), config).expect("a config file");
        let mut nats = Self {
            folder,
            port,
            monitor,
            child: None,
        };
        nats.spawn(&binary);
        Some(nats)
    }

    fn spawn(&mut self, binary: &Path) {
        let child = Command::new(binary)
            .arg("--config")
            .arg(self.folder.path().join("nats.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        self.child = Some(child);
    }

    /// As a power button would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    pub(crate) fn restart(&mut self) {
        self.spawn(&binary().expect("it was there before"));
    }

    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(self.store()).expect("the store can be removed");
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) async fn client(&self) -> async_nats::Client {
        async_nats::ConnectOptions::new()
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connect(format!("nats://127.0.0.1:{}", self.port))
            .await
            .expect("the address is one")
    }

    pub(crate) fn monitor(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
    named.into_iter().chain([pinned]).find(|path| path.exists())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
