//! A backup of an origin that runs, or does not.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use helix_routing::wire::Wire as _;
use helix_service::clock;

use super::envelope::{Recipient, Sealer};
use super::{BackupError, Frame, Head, OLDEST_SCHEMA, Secret, Summary, failed};
use crate::config::Config;
use crate::store::dump::Dump;

/// Backs the origin of `config` up, whether it runs or not. A file at `to` is replaced only by a whole one.
///
/// # Errors
/// When anything cannot be read or written.
pub async fn make(
    config: &Config,
    to: &Path,
    recipient: &Recipient,
) -> Result<Summary, BackupError> {
    let beside = beside(to);
    let file = private(&beside)?;
    let made = write(config, BufWriter::new(file), recipient, to).await;
    let finished = made.and_then(|(summary, file)| {
        file.sync_all()
            .and_then(|()| fs::rename(&beside, to))
            .map_err(failed("write", to))?;
        Ok(summary)
    });
    if finished.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&beside);
    }
    finished
}

async fn write(
    config: &Config,
    out: BufWriter<File>,
    recipient: &Recipient,
    to: &Path,
) -> Result<(Summary, File), BackupError> {
    let envelope = |source| BackupError::Envelope {
        path: to.to_owned(),
        source,
    };
    let mut dump = Dump::open(&config.place()).await?;
    let schema = dump.schema().await?;
    if schema < OLDEST_SCHEMA {
        return Err(BackupError::Older {
            theirs: schema,
            oldest: OLDEST_SCHEMA,
        });
    }
    let head = Head {
        made: clock::now(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        schema,
        base_domain: config.base_domain.to_string(),
    };
    let mut sealer = Sealer::begin(out, recipient).map_err(envelope)?;
    let mut put = |frame: &Frame| {
        let bytes = frame.encode();
        let length =
            u32::try_from(bytes.len()).map_err(|_| BackupError::Content("a row is too large"))?;
        sealer.write(&length.to_le_bytes()).map_err(envelope)?;
        sealer.write(&bytes).map_err(envelope)
    };
    put(&Frame::Head(head.clone()))?;
    for what in Secret::all(config)? {
        let path = what.path(config)?;
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        put(&Frame::Secret { what, bytes })?;
    }
    let mut rows = 0;
    for table in dump.tables().await? {
        put(&Frame::Table(table.clone()))?;
        dump.rows(&table, |row| {
            rows += 1;
            put(&Frame::Row(row))
        })
        .await?;
    }
    put(&Frame::End { rows })?;
    let out = sealer.finish().map_err(envelope)?;
    let file = out
        .into_inner()
        .map_err(|error| failed("write", to)(error.into_error()))?;
    let summary = Summary {
        head,
        rows,
        packs: (0, 0),
    };
    Ok((summary, file))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// A new file that only its owner can read. The envelope keeps others out; this keeps the file from being copied in passing.
fn private(path: &Path) -> Result<File, BackupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(failed("write", path))
}
