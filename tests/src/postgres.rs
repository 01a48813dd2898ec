//! A PostgreSQL of the tests' own: a new cluster on a free port, which ends with the process that started it.
//!
//! The server refuses to run as root, so it runs as somebody else then. It writes to disk as in earnest: `fsync` is on.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use helix_service::port;

/// Where Debian's packages and others keep the server's programs, newest first.
const PLACES: [&str; 5] = [
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
    "/usr/local/pgsql/bin",
    "/usr/pgsql/bin",
];
/// What a start takes at most on a loaded machine, after the recovery that follows a kill.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Who the server runs as when we are root: Debian's own user for it, or nobody.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// The server's certificate, and its private key.
const TLS_FILES: [&str; 2] = ["server.crt", "server.key"];
/// A password that must not be found in any log.
pub const PASSWORD: &str = "s3cret-of-the-tests";

/// Runs the server until its standard input closes, whoever closes it, and removes the folder.
const KEEPER: &str = r#"
"$@" & server=$!
read -r word
if [ "$word" = fast ]; then kill -INT $server; else kill -QUIT $server; fi
wait $server
if [ "$word" != fast ]; then rm -rf "$FOLDER"; fi
"#;

/// A running cluster.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    programs: PathBuf,
    user: Option<String>,
    port: u16,
    keeper: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// A cluster that the tests of one process share, each with a database of its own; none where PostgreSQL is not installed.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// Makes and starts one; none where PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn start() -> Option<Self> {
        let programs = PLACES
            .iter()
            .map(PathBuf::from)
            .find(|place| place.join("initdb").exists())?;
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        // Short, since a socket's path may have about a hundred bytes.
        let folder = std::env::temp_dir().join(format!("helix-pg-{}-{number}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let user = is_root().then(|| existing_user(&folder));
        let postgres = Self {
            folder,
            programs,
            user,
            port: port::free().expect("a free port"),
            keeper: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        postgres.initialize();
        postgres.run();
        Some(postgres)
    }

    /// The URL of a new, empty database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("helix_{number}");
        self.query("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://helix:{PASSWORD}@127.0.0.1:{}/{name}", self.port)
    }

    /// Starts it again with this certificate and its private key, both in PEM: clients may speak TLS from now on.
    ///
    /// # Panics
    /// When it does not start.
    pub fn secure(&self, certificate: &str, key: &str) {
        let owner = fs::metadata(&self.folder).expect("the folder");
        for (name, text) in TLS_FILES.into_iter().zip([certificate, key]) {
            let path = self.folder.join(name);
            let mut options = fs::File::options();
            let file = options.create(true).write(true).truncate(true).mode(0o600);
            let mut file = file.open(&path).expect("a new file");
            file.write_all(text.as_bytes()).expect("a file");
            chown(&path, Some(owner.uid()), Some(owner.gid())).expect("the server's own file");
        }
        self.stop();
        self.run();
    }

    /// What a statement answers, as bare text.
    ///
    /// # Panics
    /// When it fails.
    pub fn query(&self, database: &str, statement: &str) -> String {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-h"])
            .arg(&self.folder)
            .args(["-p", &self.port.to_string(), "-U", "helix", "-d", database])
            .args(["-c", statement])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .expect("psql starts");
        assert!(
            output.status.success(),
            "{statement}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Stops the server as an operator would who is in a hurry: sessions are cut off.
    pub fn stop(&self) {
        self.end("fast\n");
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        self.run();
    }

    fn initialize(&self) {
        let secret = self.folder.join("password");
        fs::write(&secret, PASSWORD).expect("a file");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("a mode");
        let output = self
            .as_user("initdb")
            .arg("-D")
            .arg(self.folder.join("data"))
            .args([
                "-U",
                "helix",
                "-A",
                "scram-sha-256",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
            ])
            .arg("--pwfile")
            .arg(&secret)
            .output()
            .expect("initdb starts");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn run(&self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("a log");
        let server = self.as_user("postgres");
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", KEEPER, "sh"])
            .arg(server.get_program())
            .args(server.get_args())
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-k")
            .arg(&self.folder)
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1"])
            .args([
                "-c",
                "fsync=on",
                "-c",
                "max_connections=200",
                "-c",
                "shared_buffers=16MB",
            ])
            .args(self.tls())
            .env("FOLDER", &self.folder)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        let child = keeper.spawn().expect("sh starts");
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        self.wait_until_ready();
    }

    /// The settings for TLS, once there is a certificate.
    fn tls(&self) -> Vec<String> {
        let [certificate, key] = TLS_FILES.map(|name| self.folder.join(name));
        if !certificate.exists() {
            return Vec::new();
        }
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", certificate.display()),
            format!("ssl_key_file={}", key.display()),
        ];
        settings
            .into_iter()
            .flat_map(|setting| ["-c".to_owned(), setting])
            .collect()
    }

    fn wait_until_ready(&self) {
        let until = Instant::now() + START_LIMIT;
        let is_ready = || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && Command::new(self.programs.join("pg_isready"))
                    .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                    .status()
                    .is_ok_and(|status| status.success())
        };
        while !is_ready() {
            assert!(
                Instant::now() < until,
                "PostgreSQL does not start: {}",
                fs::read_to_string(self.folder.join("log")).unwrap_or_default()
            );
            pause(Duration::from_millis(50));
        }
    }

    fn end(&self, word: &str) {
        let keeper = self
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut keeper) = keeper {
            if let Some(mut input) = keeper.stdin.take() {
                // It may have ended by itself.
                let _ = input.write_all(word.as_bytes());
            }
            let _ = keeper.wait();
        }
    }

    fn as_user(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let Some(user) = &self.user else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={}", group(user)))
            .arg("--clear-groups")
            .arg(program)
            .current_dir(&self.folder);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end("now\n");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server that starts is asked again after a while, with a deadline"
)]
fn pause(span: Duration) {
    std::thread::sleep(span);
}

fn is_root() -> bool {
    numbers("/proc/self/status", "Uid:").first() == Some(&0)
}

/// The numbers of a line of `/proc`.
fn numbers(path: &str, name: &str) -> Vec<u32> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default()
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Somebody who is not root, to whom the folder is given.
fn existing_user(folder: &Path) -> String {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (name, fields) = USERS
        .iter()
        .find_map(|user| {
            let line = known
                .lines()
                .find(|line| line.split(':').next() == Some(user))?;
            Some((*user, line.split(':').collect::<Vec<_>>()))
        })
        .expect("a user `postgres` or `nobody`");
    let number = |field: usize| fields.get(field).and_then(|text| text.parse().ok());
    chown(folder, number(2), number(3)).expect("root gives a folder away");
    name.to_owned()
}

fn group(user: &str) -> String {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    known
        .lines()
        .find(|line| line.split(':').next() == Some(user))
        .and_then(|line| line.split(':').nth(3))
        .unwrap_or("65534")
        .to_owned()
}
