//! Other servers with ten and a hundred thousand hosts: how long they take to start, what they weigh, how long one more host takes to be
//! served, and what visitors see of it meanwhile. They are told by writing their configuration anew and telling them to read it, as their manuals say.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use helix_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::{free_address, resident_tree, start_within, version};
use crate::figures::Figures;
use crate::hosts::{Visitor, status};

/// A server that has not come up, or not taken up a change, by then does not.
const LIMIT: Duration = Duration::from_secs(900);
/// Visitors, each with a connection for each request and a kept one.
const VISITORS: usize = 4;

/// A server and how it is told of hosts.
struct Peer {
    name: &'static str,
    http: SocketAddr,
    folder: PathBuf,
    admin: SocketAddr,
}

pub(crate) fn run(counts: &[usize], reloads: usize, only: &[String]) -> anyhow::Result<()> {
    for name in ["nginx", "caddy", "traefik"] {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let argument = if name == "nginx" { "-v" } else { "version" };
        let Some(version) = version(name, argument) else {
            println!("{name}: not installed");
            continue;
        };
        for count in counts {
            let folder = tempfile::Builder::new().prefix("helix-peer-").tempdir()?;
            let peer = Peer {
                name,
                http: free_address()?,
                folder: folder.path().to_owned(),
                admin: free_address()?,
            };
            peer.measure(&version, *count, reloads)
                .with_context(|| format!("{name} with {count} hosts"))?;
        }
    }
    Ok(())
}

fn host(number: usize) -> String {
    format!("host-{number}.customer-{}.example", number % 977)
}

impl Peer {
    fn measure(&self, version: &str, count: usize, reloads: usize) -> anyhow::Result<()> {
        self.configure(count)?;
        let begun = Instant::now();
        let (pid, _keeper) = self.start()?;
        self.await_host(&host(count - 1))?;
        let started = begun.elapsed();
        let before = resident_tree(pid) / 1024.0;
        let visitors = Visitors::start(self.http, count);
        let mut spans = Vec::new();
        let mut most = before;
        for number in 0..reloads {
            self.configure(count + number + 1)?;
            let begun = Instant::now();
            self.reload(pid)?;
            self.await_host(&host(count + number))?;
            spans.push(begun.elapsed());
            most = most.max(resident_tree(pid) / 1024.0);
        }
        let (asked, failed) = visitors.stop();
        println!(
            "{} {version}, {count} hosts: start {:.1} s, {before:.0} MiB (most {most:.0} MiB), one host more: {}; requests meanwhile {asked}, failed {failed}",
            self.name,
            started.as_secs_f64(),
            Figures::of(spans)
        );
        Ok(())
    }

    fn start(&self) -> anyhow::Result<(Pid, Box<dyn std::any::Any>)> {
        let config = self.config();
        let config = config
            .to_str()
            .context("a temporary folder has a UTF-8 name")?;
        let folder = self
            .folder
            .to_str()
            .context("a temporary folder has a UTF-8 name")?;
        let flag = format!("--configFile={config}");
        let command: Vec<&str> = match self.name {
            "nginx" => vec!["nginx", "-c", config, "-p", folder],
            "caddy" => vec!["caddy", "run", "--config", config],
            _ => vec!["traefik", &flag],
        };
        start_within("0-1", &command, &[], &self.folder, self.http, LIMIT)
    }

    fn config(&self) -> PathBuf {
        self.folder.join(match self.name {
            "nginx" => "nginx.conf",
            "caddy" => "caddy.json",
            _ => "traefik.yml",
        })
    }

    fn configure(&self, count: usize) -> anyhow::Result<()> {
        match self.name {
            "nginx" => fs::write(self.config(), self.nginx(count)?)?,
            "caddy" => fs::write(self.config(), self.caddy(count)?)?,
            _ => {
                // Beside and renamed: it watches the folder.
                let routes = self.folder.join("routes/routes.yml");
                fs::create_dir_all(self.folder.join("routes"))?;
                fs::write(self.folder.join("routes.tmp"), self.routes(count)?)?;
                fs::rename(self.folder.join("routes.tmp"), routes)?;
                fs::write(self.config(), self.traefik())?;
            }
        }
        Ok(())
    }

    /// A server for each host, which is how nginx gives them settings of their own.
    fn nginx(&self, count: usize) -> anyhow::Result<String> {
        let folder = self.folder.display();
        let mut text = format!(
            "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\nevents {{ worker_connections 4096; }}\nhttp {{\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
             access_log off; keepalive_requests 1000000000; server_names_hash_max_size {}; server_names_hash_bucket_size 128;\n\
             server {{ listen {} default_server; return 404; }}\n",
            count * 4,
            self.http
        );
        for number in 0..count {
            writeln!(
                text,
                "server {{ listen {}; server_name {}; return 200 \"site {}\"; }}",
                self.http,
                host(number),
                number % 1000
            )?;
        }
        text.push_str("}\n");
        Ok(text)
    }

    fn caddy(&self, count: usize) -> anyhow::Result<String> {
        let mut text = format!(
            "{{\"admin\":{{\"listen\":\"{}\"}},\"storage\":{{\"module\":\"file_system\",\"root\":\"{}\"}},\"apps\":{{\"http\":{{\"servers\":{{\"all\":{{\"listen\":[\"{}\"],\"automatic_https\":{{\"disable\":true}},\"routes\":[",
            self.admin,
            self.folder.display(),
            self.http
        );
        for number in 0..count {
            write!(
                text,
                "{{\"match\":[{{\"host\":[\"{}\"]}}],\"handle\":[{{\"handler\":\"static_response\",\"status_code\":200,\"body\":\"site {}\"}}],\"terminal\":true}},",
                host(number),
                number % 1000
            )?;
        }
        text.push_str("{\"handle\":[{\"handler\":\"static_response\",\"status_code\":404}]}]}}}}}");
        Ok(text)
    }

    fn traefik(&self) -> String {
        format!(
            "entryPoints:\n  web:\n    address: {}\nping:\n  manualRouting: true\nglobal:\n  checkNewVersion: false\n  sendAnonymousUsage: false\nproviders:\n  file:\n    directory: {}/routes\n    watch: true\n",
            self.http,
            self.folder.display()
        )
    }

    /// Its own ping page answers for every host: it serves nothing else by itself.
    fn routes(&self, count: usize) -> anyhow::Result<String> {
        let mut text = String::from("http:\n  routers:\n");
        for number in 0..count {
            writeln!(
                text,
                "    r{number}:\n      rule: Host(`{}`)\n      entryPoints: [web]\n      service: ping@internal",
                host(number)
            )?;
        }
        Ok(text)
    }

    fn reload(&self, pid: Pid) -> anyhow::Result<()> {
        match self.name {
            "nginx" => kill(pid, Signal::SIGHUP)?,
            "caddy" => {
                let done = Command::new("caddy")
                    .args(["reload", "--config"])
                    .arg(self.config())
                    .args(["--address", &self.admin.to_string()])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()?;
                ensure!(done.success(), "caddy reload: {done}");
            }
            // It watches its files.
            _ => {}
        }
        Ok(())
    }

    fn await_host(&self, host: &str) -> anyhow::Result<()> {
        let until = Instant::now() + LIMIT;
        while status(self.http, host).ok() != Some(200) {
            ensure!(Instant::now() < until, "{host} is not served");
            wait::pause(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Who asks for hosts that were there all along.
struct Visitors {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<(u64, u64)>>,
}

impl Visitors {
    fn start(address: SocketAddr, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..VISITORS).map(|visitor| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || visit(address, visitor, count, &stop))
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self
            .threads
            .into_iter()
            .filter_map(|thread| thread.join().ok());
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    }
}

/// Asks over new connections and kept ones in turn. What a client may send again by itself, since a kept connection ended between
/// two requests, is no failure.
fn visit(address: SocketAddr, visitor: usize, count: usize, stop: &AtomicBool) -> (u64, u64) {
    let (mut asked, mut failed) = (0_u64, 0_u64);
    let mut kept = None;
    let mut number = visitor;
    while !stop.load(Ordering::Relaxed) {
        number = (number * 31 + 17) % count;
        let host = host(number);
        let is_kept = asked.is_multiple_of(2);
        let answer = if is_kept {
            ask_kept(address, &mut kept, &host)
        } else {
            status(address, &host)
        };
        asked += 1;
        failed += u64::from(!matches!(answer, Ok(200)));
        wait::pause(Duration::from_millis(4));
    }
    (asked, failed)
}

fn ask_kept(address: SocketAddr, kept: &mut Option<Visitor>, host: &str) -> anyhow::Result<u16> {
    if let Some(visitor) = kept
        && let Ok(answer) = visitor.ask(host)
    {
        return Ok(answer);
    }
    let mut visitor = Visitor::connect(address)?;
    let answer = visitor.ask(host)?;
    *kept = Some(visitor);
    Ok(answer)
}
