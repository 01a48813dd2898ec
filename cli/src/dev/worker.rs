//! The workers of a fleet on this machine: they build what is pushed to linked repositories, in a sandbox that Bubblewrap makes.
//!
//! Without Bubblewrap there are none, and everything else works: builds then wait for a worker.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use helix_client::Origin;
use helix_routing::api::{CreatedToken, NewToken, Role};
use helix_routing::queue;
use helix_service::disk::{write_atomic, write_secret};
use helix_service::nats::NatsConfig;
use nix::unistd::geteuid;
use serde::Serialize;

use super::fleet::{Fleet, url};
use super::home::Home;
use super::programs;
use super::secrets;

/// Others may go through a folder, and see nothing of what is in it.
const THROUGH: u32 = 0o711;

/// What a worker is started as.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) program: PathBuf,
    bwrap: PathBuf,
    names: Vec<String>,
}

#[derive(Serialize)]
struct WorkerFile {
    origin: String,
    other_origins: Vec<String>,
    token_file: PathBuf,
    data_dir: PathBuf,
    log: &'static str,
    exit_with_parent: bool,
    queue_api: &'static str,
    nats: NatsConfig,
    fetch: FetchTable,
    egress: EgressTable,
    sandbox: SandboxTable,
}

/// A developer's repositories are on this machine, too.
#[derive(Serialize)]
struct FetchTable {
    http: bool,
    file: bool,
}

/// Builds reach the hosts that origin permits wherever those are: a registry of one's own is no public address.
#[derive(Serialize)]
struct EgressTable {
    allow: [&'static str; 2],
}

#[derive(Serialize)]
struct SandboxTable {
    bwrap: PathBuf,
}

/// Builds of root run as nobody, who has to come to where they are. Nothing beside that place can be listed or read.
fn let_through(home: &Home) -> anyhow::Result<()> {
    let data = home.data("build-1");
    let ours = data.ancestors().skip(1).take(2);
    for folder in ours {
        fs::set_permissions(folder, fs::Permissions::from_mode(THROUGH))
            .with_context(|| format!("let builds into {}", folder.display()))?;
    }
    for folder in home.root().ancestors() {
        let mode = fs::metadata(folder)?.permissions().mode();
        ensure!(
            mode & 0o001 != 0,
            "builds of root run as nobody, who may not enter {}; choose another folder with --dir, or be another user",
            folder.display()
        );
    }
    Ok(())
}

/// The file of the token that workers show.
fn token_file(home: &Home) -> PathBuf {
    home.key("build.token")
}

impl Workers {
    /// So many, where this machine can have any; else why not.
    pub(super) fn plan(count: u8, home: &Home) -> Result<Self, String> {
        let Some(bwrap) = programs::in_path("bwrap") else {
            return Err("nothing is built here: bubblewrap is not installed".to_owned());
        };
        let program = programs::own("helix-build").map_err(|missing| missing.to_string())?;
        if geteuid().is_root() {
            let_through(home).map_err(|error| format!("nothing is built here: {error:#}"))?;
        }
        let names = (1..=count).map(|number| format!("build-{number}"));
        Ok(Self {
            program,
            bwrap,
            names: names.collect(),
        })
    }

    /// What each is called.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Writes the configuration of each, and makes them a token if they have none.
    pub(super) async fn prepare(
        &self,
        home: &Home,
        fleet: &Fleet,
        origin: &Origin,
    ) -> anyhow::Result<()> {
        let token = token_file(home);
        if !token.exists() {
            let wanted = NewToken {
                name: "helix-dev-workers".to_owned(),
                role: Role::Build,
            };
            let created: CreatedToken = origin
                .create(&["tokens"], &wanted)
                .await
                .context("make a token for workers")?;
            write_secret(&token, created.token.as_bytes())?;
        }
        for name in self.names() {
            let file = self.file(home, fleet, name)?;
            let path = home.config(&format!("{name}.toml"));
            write_atomic(&path, toml::to_string(&file)?.as_bytes())?;
        }
        Ok(())
    }

    fn file(&self, home: &Home, fleet: &Fleet, name: &str) -> anyhow::Result<WorkerFile> {
        let data_dir = home.data(name);
        fs::create_dir_all(&data_dir).with_context(|| format!("make {}", data_dir.display()))?;
        Ok(WorkerFile {
            origin: url(fleet.api),
            other_origins: fleet.other_origins().collect(),
            token_file: token_file(home),
            data_dir,
            log: "text",
            exit_with_parent: true,
            queue_api: queue::API,
            nats: NatsConfig::new(fleet.nats_url(), secrets::nats_user(home, "build")?.0),
            fetch: FetchTable {
                http: true,
                file: true,
            },
            egress: EgressTable {
                allow: ["0.0.0.0/0", "::/0"],
            },
            sandbox: SandboxTable {
                bwrap: self.bwrap.clone(),
            },
        })
    }
}
