//! A fleet whose edges join: NATS as `deploy/nats` sets it up, origin, and edges, each a process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use helix_tests::client::{Client, Request};
use helix_tests::command::{Ended, Helix, finish, program};
use helix_tests::folder::Folder;
use helix_tests::wait;
use serde_json::Value;

use super::servers::{Server, address, filled, nats, port, quoted};

/// Longer than any process takes to start on a loaded machine.
pub(super) const START: Duration = Duration::from_secs(60);
/// Within this, whatever was cut off has caught up.
pub(super) const CATCH_UP: Duration = Duration::from_secs(30);

/// The fleet's other origin, which is away.
pub(super) const OTHER_ORIGIN: &str = "http://127.0.0.1:9";

/// A fleet whose edges join.
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) servers: Vec<Server>,
    pub(super) leaf_port: u16,
    pub(super) origin: Option<Child>,
    pub(super) edges: Vec<Joined>,
    pub(super) helix: Helix,
    pub(super) api: u16,
}

/// One edge.
pub(super) struct Joined {
    pub(super) name: String,
    pub(super) http: u16,
    pub(super) admin: u16,
    pub(super) child: Child,
}

impl World {
    /// NATS with so many servers, and origin. Edges of `leaf` are told to connect to a leaf node that is yet to be started.
    pub(super) fn start(servers: usize, leaf: Option<&str>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("helix-join-")
            .tempdir()
            .unwrap();
        let keys = folder.path().join("nats");
        let mut make = Command::new(program("helix-origin"));
        make.arg("nats").arg("--dir").arg(&keys);
        if let Some(region) = leaf {
            make.arg("--leaf").arg(region);
        }
        assert!(make.stdout(Stdio::null()).status().unwrap().success());
        let api = port();
        let mut world = Self {
            servers: Vec::new(),
            leaf_port: port(),
            origin: None,
            edges: Vec::new(),
            helix: Helix {
                api: format!("http://127.0.0.1:{api}"),
                token: String::new(),
            },
            folder,
            api,
        };
        world.configure_servers(servers);
        for at in 0..servers {
            world.start_server(at);
        }
        world.configure_origin(leaf);
        world.start_origin();
        world
    }

    pub(super) fn configure_servers(&mut self, count: usize) {
        let peers: Vec<u16> = (0..count).map(|_| port()).collect();
        let routes: Vec<String> = peers
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        for (at, peer) in peers.iter().enumerate() {
            let name = format!("nats-{}", at + 1);
            let (clients, monitor, leafs) = (port(), port(), port());
            let store = self.folder.path().join("data").join(&name);
            let config = self.folder.path().join("nats").join(format!("{name}.conf"));
            let values = [
                ("NODE", quoted(&name)),
                ("CLIENTS", address(clients)),
                ("MONITOR", address(monitor)),
                ("CLUSTER_PEERS", address(*peer)),
                ("CLUSTER_ROUTES", format!("[{}]", routes.join(", "))),
                ("LEAFS", address(leafs)),
                ("STORE", quoted(&store.join("jetstream").to_string_lossy())),
                (
                    "ACCOUNTS",
                    quoted(&store.join("accounts").to_string_lossy()),
                ),
            ];
            let template = if count == 1 {
                "one.conf"
            } else {
                "cluster.conf"
            };
            fs::write(&config, filled(template, &values)).unwrap();
            self.servers.push(Server {
                name,
                config,
                clients,
                monitor,
                leafs,
                child: None,
            });
        }
    }

    pub(super) fn start_server(&mut self, at: usize) {
        let log = self.log(&self.servers[at].name);
        let server = &mut self.servers[at];
        server.child = Some(nats(&server.config, log));
        let monitor = server.monitor;
        wait::until_true("nats-server answers", START, || {
            status(monitor, "/varz") == Some(200)
        });
    }

    pub(super) fn configure_origin(&self, leaf: Option<&str>) {
        let path = |name: &str| self.folder.path().join(name).to_string_lossy().into_owned();
        let join =
            |of: fn(&Server) -> String| self.servers.iter().map(of).collect::<Vec<_>>().join(",");
        let leafs = leaf.map_or_else(String::new, |region| {
            format!("[[admission.leafs]]\nregion = \"{region}\"\nnats_urls = [\"nats://127.0.0.1:{}\"]\n", self.leaf_port)
        });
        let text = format!(
            "listen = \"127.0.0.1:{api}\"\nadmin = \"127.0.0.1:{admin}\"\ndata_dir = \"{data}\"\nbase_domain = \"helix.localhost\"\n\
             public_url = \"http://127.0.0.1:{api}\"\nsite_port = 80\nrecord_key = \"{record}\"\n\
             bootstrap_token_file = \"{token}\"\nedge_token_file = \"{edges}\"\nstream_replicas = {replicas}\n\
             [nats]\nurl = \"{urls}\"\nseed_file = \"{seed}\"\nmonitor = \"{monitors}\"\n\
             [bake]\nwindow = \"0s\"\nwindow_with_upstreams = \"0s\"\n\
             [admission]\nkeys = \"{keys}\"\norigins = [\"http://127.0.0.1:{api}\", \"{OTHER_ORIGIN}\"]\n{leafs}\
             [[regions]]\nregion = \"fra\"\n[[regions]]\nregion = \"iad\"\n",
            api = self.api,
            admin = port(),
            data = path("data/origin"),
            record = path("record.pem"),
            token = path("operate.token"),
            edges = path("edges.token"),
            replicas = self.servers.len(),
            urls = join(|server| format!("nats://127.0.0.1:{}", server.clients)),
            seed = path("nats/origin.creds"),
            monitors = join(|server| format!("http://127.0.0.1:{}", server.monitor)),
            keys = path("nats"),
        );
        fs::write(self.folder.path().join("origin.toml"), text).unwrap();
    }

    /// A server dies as a machine does.
    pub(super) fn kill_server(&mut self, at: usize) {
        let mut killed = self.servers[at].child.take().unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
    }

    /// Ends origin as a machine does.
    pub(super) fn stop_origin(&mut self) {
        let mut origin = self.origin.take().unwrap();
        origin.kill().unwrap();
        origin.wait().unwrap();
    }

    /// Ends an edge in the same way; where it listened, for the next start.
    pub(super) fn stop_edge(&mut self, name: &str) -> (u16, u16) {
        let at = self
            .edges
            .iter()
            .position(|edge| edge.name == name)
            .unwrap();
        let mut edge = self.edges.remove(at);
        edge.child.kill().unwrap();
        edge.child.wait().unwrap();
        (edge.http, edge.admin)
    }

    /// The address of a server, for clients.
    pub(super) fn nats_url(&self, at: usize) -> String {
        format!("nats://127.0.0.1:{}", self.servers[at].clients)
    }

    /// A file that an edge got when it joined.
    pub(super) fn identity(&self, edge: &str, file: &str) -> PathBuf {
        self.folder
            .path()
            .join("edges")
            .join(edge)
            .join("identity")
            .join(file)
    }

    pub(super) fn start_origin(&mut self) {
        let child = Command::new(program("helix-origin"))
            .arg("--config")
            .arg(self.folder.path().join("origin.toml"))
            .stdin(Stdio::null())
            .stderr(self.log("origin"))
            .spawn()
            .unwrap();
        self.origin = Some(child);
        let token = self.folder.path().join("operate.token");
        wait::until_true("origin answers", START, || {
            token.exists() && status(self.api, "/openapi.json") == Some(200)
        });
        self.helix.token = fs::read_to_string(token).unwrap().trim().to_owned();
    }

    pub(super) fn token(&self, arguments: &[&str]) -> String {
        let ended = self
            .helix
            .run(["edge", "token", "create"].iter().chain(arguments))
            .with(0);
        ended.stdout.trim().to_owned()
    }

    /// Runs `helix-edge join`; ports of its own each time.
    pub(super) fn try_join(
        &self,
        name: &str,
        folder: &Path,
        token: &str,
        more: &[&str],
    ) -> (Ended, u16, u16) {
        Self::try_join_at(&self.helix.api, name, folder, token, more)
    }

    pub(super) fn try_join_at(
        origin: &str,
        name: &str,
        folder: &Path,
        token: &str,
        more: &[&str],
    ) -> (Ended, u16, u16) {
        let (http, admin) = (port(), port());
        let url = (!more.contains(&"--url")).then(|| format!("http://127.0.0.1:{http}"));
        let child = Command::new(program("helix-edge"))
            .args(["join", "--origin", origin, "--name", name])
            .arg("--data")
            .arg(folder)
            .args([
                "--listen",
                &format!("127.0.0.1:{http}"),
                "--admin",
                &format!("127.0.0.1:{admin}"),
            ])
            .args(more)
            .args(url.into_iter().flat_map(|url| ["--url".to_owned(), url]))
            .env("HELIX_JOIN_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        (finish(child), http, admin)
    }

    /// Lets an edge join, starts it, and waits until origin sees it ready.
    pub(super) fn join(&mut self, name: &str, region: &str) {
        let token = self.token(&["--region", region]);
        let folder = self.folder.path().join("edges").join(name);
        let (ended, http, admin) = self.try_join(name, &folder, &token, &[]);
        ended.with(0).says(&[name, "is in the fleet"]);
        self.start_edge(name, http, admin);
        wait::until_true(&format!("{name} is ready"), START, || {
            self.listed(name)
                .is_some_and(|edge| edge["ready"] == true && edge["live"] == true)
        });
    }

    /// Starts an edge that has joined.
    pub(super) fn start_edge(&mut self, name: &str, http: u16, admin: u16) {
        let folder = self.folder.path().join("edges").join(name);
        let child = Command::new(program("helix-edge"))
            .arg("--config")
            .arg(folder.join("edge.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name))
            .spawn()
            .unwrap();
        self.edges.push(Joined {
            name: name.to_owned(),
            http,
            admin,
            child,
        });
    }

    pub(super) fn listed(&self, name: &str) -> Option<Value> {
        let ended = self.helix.run(["edge", "list", "--json"]);
        let all: Value = serde_json::from_str(&ended.stdout).ok()?;
        all.as_array()?
            .iter()
            .find(|edge| edge["edge"] == name)
            .cloned()
    }

    pub(super) fn deploy(&self, content: &str) -> Ended {
        let folder = Folder::page(content);
        let path = folder.path().to_str().unwrap();
        self.helix
            .run(["deploy", path, "--project", "shop", "--json"])
    }

    pub(super) fn edge(&self, name: &str) -> &Joined {
        self.edges.iter().find(|edge| edge.name == name).unwrap()
    }

    pub(super) fn log(&self, name: &str) -> File {
        let folder = self.folder.path().join("log");
        fs::create_dir_all(&folder).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join(format!("{name}.log")));
        log.unwrap()
    }

    /// The server that leads a stream, by its own word: what the others say of it may be old. None while nobody does.
    pub(super) fn leader(&self, stream: &str) -> Option<usize> {
        self.servers.iter().position(|server| {
            stream_of(server, stream)
                .is_some_and(|found| found["cluster"]["leader"] == server.name.as_str())
        })
    }

    /// On how many servers a stream is kept.
    pub(super) fn replicas(&self, stream: &str) -> Option<u64> {
        let mut answers = self.servers.iter().map(|server| stream_of(server, stream));
        answers.find_map(|found| found?["config"]["num_replicas"].as_u64())
    }

    /// Whether origin hears an edge, and it has applied all that there is.
    pub(super) fn follows(&self, name: &str) -> bool {
        self.listed(name)
            .is_some_and(|edge| edge["behind"] == 0 && edge["live"] == true)
    }
}

/// A stream, as a server says it that is there and has it.
fn stream_of(server: &Server, name: &str) -> Option<Value> {
    let target = "/jsz?accounts=true&streams=true&config=true";
    let answer: Value = serde_json::from_str(&page(server.monitor, target)?).ok()?;
    let accounts = answer["account_details"].as_array()?.iter();
    let mut streams =
        accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
    streams.find(|found| found["name"] == name).cloned()
}

impl Joined {
    /// What it answers for a host: status, release and body.
    pub(super) fn ask(&self, host: &str) -> Option<(u16, String, String)> {
        let response = Client::of(&format!("http://127.0.0.1:{}", self.http))
            .send(Request::get(host, "/"))
            .ok()?;
        let release = response
            .header("x-helix-release")
            .unwrap_or_default()
            .to_owned();
        Some((response.status, release, response.text()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let edges = self.edges.iter_mut().map(|edge| &mut edge.child);
        let servers = self
            .servers
            .iter_mut()
            .filter_map(|server| server.child.as_mut());
        for child in edges.chain(self.origin.as_mut()).chain(servers) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            show_logs(&self.folder.path().join("log"));
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "what a person needs when a test has failed"
)]
pub(super) fn show_logs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(25)..)
            .unwrap_or_default();
        eprintln!(
            "--- the end of {}\n{}",
            entry.path().display(),
            tail.join("\n")
        );
    }
}
pub(super) fn page(port: u16, target: &str) -> Option<String> {
    let response = Client::of(&format!("http://127.0.0.1:{port}"))
        .send(Request::get("x", target))
        .ok()?;
    (response.status == 200).then(|| response.text())
}

pub(super) fn status(port: u16, target: &str) -> Option<u16> {
    let response = Client::of(&format!("http://127.0.0.1:{port}"))
        .send(Request::get("x", target))
        .ok()?;
    Some(response.status)
}
