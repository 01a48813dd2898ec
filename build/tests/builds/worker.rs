//! The worker's program against a real queue: builds are taken, handed over when a worker is killed, and stopped on a word.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::double::{Double, TOKEN};
use crate::forge::{ACCESS, Forge};
use async_nats::jetstream::{self, consumer, stream};
use helix_routing::api::{
    BuildJob, BuildLimits, BuildOutcome, BuildSettings, BuildStep, Source, Trust,
};
use helix_routing::id::Environment;
use helix_routing::queue;
use helix_service::nats::{self, NatsConfig};
use helix_service::random;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    folder: TempDir,
    bwrap: PathBuf,
    forge: Forge,
    origin: Double,
    nats: NatsConfig,
    queue: jetstream::Context,
    _server: Process,
}

impl World {
    async fn new() -> Option<Self> {
        let bwrap = crate::place::bwrap()?;
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
        if !server.exists() {
            eprintln!("skipped: .tools/bin/nats-server is missing, run `make setup`");
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("helix-build")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let user = nkeys::KeyPair::new_user();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("seed"), user.seed().unwrap()).unwrap();
        fs::write(at("token"), TOKEN).unwrap();
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?} }}\nauthorization {{ users: [ {{ nkey: {} }} ] }}\n",
            at("jetstream"),
            user.public_key()
        );
        fs::write(at("nats.conf"), text).unwrap();
        let child = Command::new(server)
            .arg("-c")
            .arg(at("nats.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Process(child.unwrap());
        let config = NatsConfig::new(format!("nats://127.0.0.1:{port}"), at("seed"));
        let queue = jetstream::new(nats::connect(&config, "test").await.unwrap());
        let origin = Double::start().await;
        let world = Self {
            bwrap,
            forge: Forge::start().await,
            origin,
            nats: config,
            queue,
            _server: server,
            folder,
        };
        world.make_queue().await;
        Some(world)
    }

    /// As origin makes it, but for a wait that suits a test.
    async fn make_queue(&self) {
        let deadline = Instant::now() + LIMIT;
        let config = || stream::Config {
            name: queue::STREAM.to_owned(),
            subjects: vec!["hx.builds.>".to_owned()],
            retention: stream::RetentionPolicy::WorkQueue,
            ..stream::Config::default()
        };
        let made = loop {
            match self.queue.get_or_create_stream(config()).await {
                Ok(made) => break made,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        let wanted = consumer::pull::Config {
            durable_name: Some(queue::CONSUMER.to_owned()),
            ack_wait: Duration::from_secs(3),
            ..consumer::pull::Config::default()
        };
        made.create_consumer(wanted).await.unwrap();
    }

    fn job(&self, line: &str) -> BuildJob {
        let commit = self.forge.commit("main", &[("README", "x")]);
        BuildJob {
            id: random::hex16().parse().unwrap(),
            project: "shop".parse().unwrap(),
            environment: Environment::Production,
            source: Source {
                url: self.forge.url.clone(),
                reference: None,
                commit: commit.parse().unwrap(),
                authorization: Some(ACCESS.to_owned()),
            },
            settings: BuildSettings {
                root: None,
                framework: None,
                install: None,
                build: Some(line.to_owned()),
                output: None,
                start: None,
            },
            trust: Trust::Branch,
            env: std::collections::BTreeMap::new(),
            hosts: Vec::new(),
            limits: BuildLimits::default(),
        }
    }

    async fn queue(&self, job: &BuildJob) {
        self.origin.add(job.clone());
        self.send(&format!("{{\"build\":\"{}\"}}", job.id)).await;
    }

    async fn send(&self, text: &str) {
        self.queue
            .publish("hx.builds.shop", text.to_owned().into())
            .await
            .unwrap()
            .await
            .unwrap();
    }

    fn worker(&self, name: &str) -> Process {
        let at = |name: &str| self.folder.path().join(name);
        let file = at(&format!("{name}.toml"));
        let text = format!(
            "origin = {:?}\ntoken_file = {:?}\ndata_dir = {:?}\nqueue_api = \"$JS.API\"\n[nats]\nurl = {:?}\nseed_file = {:?}\n[fetch]\nhttp = true\n[sandbox]\nbwrap = {:?}\n",
            self.origin.url,
            at("token"),
            at(name),
            self.nats.url,
            at("seed"),
            self.bwrap
        );
        fs::write(&file, text).unwrap();
        let log = fs::File::create(at(&format!("{name}.log"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_helix-build"))
            .arg("--config")
            .arg(file)
            .stderr(log)
            .spawn();
        Process(child.unwrap())
    }

    /// Waits until it is so.
    async fn until(&self, what: &str, so: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !so() {
            assert!(Instant::now() < deadline, "{what}: {}", self.logs());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn logs(&self) -> String {
        let read =
            |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("one.log")
    }

    async fn outcome(&self, job: &BuildJob) -> BuildOutcome {
        let id = job.id.as_str();
        self.until("the build ends", || {
            self.origin.with(id, |build| build.outcome.is_some())
        })
        .await;
        self.origin.with(id, |build| build.outcome.clone().unwrap())
    }

    async fn queue_is_empty(&self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut stream = self.queue.get_stream(queue::STREAM).await.unwrap();
            let messages = stream.info().await.unwrap().state.messages;
            if messages == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{messages} messages are left: {}",
                self.logs()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

macro_rules! world {
    () => {
        match World::new().await {
            Some(world) => world,
            None => return,
        }
    };
}

const LINE: &str = "echo building; mkdir dist; echo made > dist/index.html";

#[tokio::test]
async fn builds_are_taken_and_brought_to_an_end_and_what_names_none_is_passed_over() {
    let world = world!();
    world.send("nonsense").await;
    world.send("{\"build\":\"00000000000000ff\"}").await;
    world.origin.state.lock().unwrap().refuse_logs = 2;
    let (good, bad) = (world.job(LINE), world.job("echo broken; exit 4"));
    world.queue(&good).await;
    world.queue(&bad).await;
    let _worker = world.worker("one");
    let outcome = world.outcome(&good).await;
    assert_eq!(
        world.origin.content(&outcome, "index.html").as_deref(),
        Some("made\n"),
        "{outcome:?}"
    );
    let outcome = world.outcome(&bad).await;
    assert!(
        matches!(&outcome, BuildOutcome::Failed { step: BuildStep::Build, reason } if reason.contains("code 4")),
        "{outcome:?}"
    );
    for (job, words) in [(&good, "Build: building"), (&bad, "Build: broken")] {
        let log = world.origin.log(job.id.as_str());
        assert!(log.contains(words) && log.contains("Fetch: "), "{log}");
    }
    world.queue_is_empty().await;
}

#[tokio::test]
async fn the_build_of_a_killed_worker_is_taken_over_and_nothing_of_it_is_left() {
    let world = world!();
    let word = format!("4.{}", std::process::id());
    let job = world.job(&format!("sleep {word}; {LINE}"));
    world.origin.state.lock().unwrap().lease = Duration::from_secs(2);
    world.queue(&job).await;
    let one = world.worker("one");
    world
        .until("the line runs", || {
            crate::place::processes(&format!("sleep\0{word}")) > 0
        })
        .await;
    drop(one);
    world
        .until("the killed worker's processes are gone", || {
            crate::place::processes(&word) == 0
        })
        .await;
    // Its control groups are left, until a worker of the same folder comes.
    let _two = world.worker("one");
    let outcome = world.outcome(&job).await;
    assert!(
        matches!(outcome, BuildOutcome::Succeeded { .. }),
        "{outcome:?}"
    );
    let holders = world
        .origin
        .with(job.id.as_str(), |build| build.holders.clone());
    assert!(
        holders.len() == 2 && holders[0] != holders[1],
        "{holders:?}"
    );
    world.queue_is_empty().await;
}

#[tokio::test]
async fn a_wish_of_origin_ends_the_builds_processes() {
    let world = world!();
    let word = format!("86420.{}", std::process::id());
    let job = world.job(&format!("echo building; sleep {word}"));
    world.queue(&job).await;
    let _worker = world.worker("one");
    world
        .until("the line runs", || {
            crate::place::processes(&format!("sleep\0{word}")) > 0
        })
        .await;
    world.origin.with(job.id.as_str(), |build| {
        build.stop = Some("a newer commit came".to_owned())
    });
    let outcome = world.outcome(&job).await;
    assert!(
        matches!(&outcome, BuildOutcome::Failed { reason, .. } if reason.contains("a newer commit came")),
        "{outcome:?}"
    );
    assert_eq!(crate::place::processes(&word), 0);
    world.queue_is_empty().await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_takes_its_builds_along_and_leaves_them_to_others() {
    let world = world!();
    let word = format!("3.{}1", std::process::id());
    let job = world.job(&format!("sleep {word}; {LINE}"));
    world.origin.state.lock().unwrap().lease = Duration::from_secs(2);
    world.queue(&job).await;
    let mut one = world.worker("one");
    world
        .until("the line runs", || {
            crate::place::processes(&format!("sleep\0{word}")) > 0
        })
        .await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(one.0.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let deadline = Instant::now() + LIMIT;
    while one.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the worker does not end");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(crate::place::processes(&word), 0);
    assert!(!world.folder.path().join("one/builds").exists());
    let _two = world.worker("two");
    let outcome = world.outcome(&job).await;
    assert!(
        matches!(outcome, BuildOutcome::Succeeded { .. }),
        "{outcome:?}"
    );
    world.queue_is_empty().await;
}
