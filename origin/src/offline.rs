//! What `helix-origin` does besides serving: keys for backups, backups, and new machines made from them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use helix_origin::admission::keys;
use helix_origin::backup::{self, Identity, Recipient, Summary};
use helix_origin::config::Config;
use helix_routing::id::RegionId;
use helix_routing::routes::Span;
use helix_routing::seal::KeyRole;
use helix_service::disk::write_secret;
use helix_service::keys::{PublicKey, SigningKey};

/// Work that is done once.
#[derive(Debug, Subcommand)]
pub(crate) enum Work {
    /// Make the keys of the fleet's NATS and what its servers include; what is there stays
    Nats {
        /// The folder
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// A region that has leaf nodes of its own; may be given more than once
        #[arg(long = "leaf", value_name = "REGION")]
        leafs: Vec<RegionId>,
    },
    /// Print what edges pin: the public halves of the keys that sign records and provenance, as `[[keys]]` of an edge's config
    Keys,
    /// Make a key that opens backups; keep it away from origin's machine. Prints its public half, which backups are made for
    BackupKey {
        /// Where the key is written
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Back up database and keys while origin runs; the file can be read only with the key it is made for
    Backup {
        /// Where the backup is written; a backup that is there is replaced when the new one is whole
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// The public half of the key: itself, or a file that holds it
        #[arg(long, value_name = "KEY")]
        recipient: String,
    },
    /// Make the database and keys that the config names out of a backup. The next start asks the edges what happened since
    Restore {
        /// The backup
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// The key that it was made for
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// How long the next start waits for edges that do not answer, once one of each region has
        #[arg(long, value_name = "TIME", default_value = "60s")]
        wait: Span,
    },
}

/// Does it, for the origin of `config`.
pub(crate) fn run(
    work: Work,
    config: impl FnOnce() -> anyhow::Result<Config>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match work {
        Work::Nats { dir, leafs } => make_keys(&dir, &leafs),
        Work::Keys => say(&pinned(&config()?)?),
        Work::BackupKey { to } => make_key(&to),
        Work::Backup { to, recipient } => {
            let recipient = read_recipient(&recipient)?;
            let made = runtime.block_on(backup::make(&config()?, &to, &recipient));
            let summary = made.with_context(|| format!("back up to {}", to.display()))?;
            say(&format!(
                "{}: {} rows; artifacts are not in it: copy the folder `registry` of the data folder after this",
                to.display(),
                summary.rows
            ))
        }
        Work::Restore {
            from,
            identity,
            wait,
        } => {
            let text = std::fs::read_to_string(&identity);
            let text = text.with_context(|| format!("read {}", identity.display()))?;
            let key =
                Identity::parse(&text).with_context(|| format!("read {}", identity.display()))?;
            let config = config()?;
            let restored = runtime.block_on(backup::restore(&config, &from, &key, wait.duration()));
            let summary = restored.with_context(|| format!("restore from {}", from.display()))?;
            say(&restored_text(&summary, &config))
        }
    }
}

fn restored_text(summary: &Summary, config: &Config) -> String {
    let Summary { head, rows, packs } = summary;
    let (there, all) = packs;
    let mut text = format!(
        "{rows} rows of {} as of {} (build {}); {there} of {all} packs are in {}",
        head.base_domain,
        head.made.rfc3339(),
        head.build,
        config.artifacts().join("registry").display()
    );
    if there < all {
        text.push_str("; releases that need the others can be served by edges that hold them, and nowhere else");
    }
    text.push_str("\nstart helix-origin: it asks the edges what happened since, and writes nothing before they have answered");
    text
}

fn make_keys(folder: &Path, leafs: &[RegionId]) -> anyhow::Result<()> {
    keys::init(folder, leafs)?;
    say(&format!(
        "the keys are in {}; every nats-server includes accounts.conf",
        folder.display()
    ))
}

/// The public halves of what signs. A key that was not made yet is none to pin.
fn pinned(config: &Config) -> anyhow::Result<String> {
    let files = [
        (KeyRole::Record, config.record_key.clone()),
        (KeyRole::Provenance, config.provenance_key()),
    ];
    let mut lines = Vec::new();
    for (role, path) in files {
        let PublicKey { id, public, .. } = SigningKey::load(role, &path)?.public();
        let role = match role {
            KeyRole::Record => "record",
            KeyRole::Provenance => "provenance",
            KeyRole::Operator => "operator",
        };
        lines.push(format!(
            "[[keys]]\nrole = \"{role}\"\nid = \"{id}\"\npublic = \"{public}\""
        ));
    }
    Ok(lines.join("\n\n"))
}

fn make_key(to: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!to.exists(), "{} is there already", to.display());
    let key = Identity::generate()?;
    write_secret(to, key.text()?.as_bytes())?;
    say(&key.recipient()?.text())
}

fn read_recipient(text: &str) -> anyhow::Result<Recipient> {
    if let Ok(recipient) = Recipient::parse(text) {
        return Ok(recipient);
    }
    let read = std::fs::read_to_string(text);
    let read = read.with_context(|| format!("read recipient {text}"))?;
    Recipient::parse(&read).with_context(|| format!("read recipient {text}"))
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("write to standard output")
}
