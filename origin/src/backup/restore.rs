//! An origin made out of a backup. Nothing counts before all of it is there.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use helix_routing::id::Digest;
use helix_routing::wire::Wire as _;
use helix_service::{clock, disk};

use super::envelope::{Identity, Opener};
use super::{
    BackupError, Frame, Head, MAX_FRAME_BYTES, OLDEST_SCHEMA, SECRETS, Secret, Summary, failed,
};
use crate::config::Config;
use crate::store::dump::{Load, Table};
use crate::store::{Connection, Place, StoreError, millis};

/// Makes the origin of `config` out of a backup: its database and its keys. From its next start it asks the edges what they hold,
/// and waits for those that do not answer for `wait`.
///
/// # Errors
/// When the file is no whole backup for `identity`, a database or another key is there already, or anything cannot be
/// written. The database counts last.
pub async fn restore(
    config: &Config,
    from: &Path,
    identity: &Identity,
    wait: Duration,
) -> Result<Summary, BackupError> {
    let place = config.place();
    let beside = match &place {
        Place::File(database) => Some(beside(database)?),
        Place::Postgres(_) => None,
    };
    fs::create_dir_all(&config.data_dir).map_err(failed("make", &config.data_dir))?;
    let to = beside.as_deref().map_or_else(|| place.clone(), Place::from);
    let restored = restore_to(config, from, identity, &to, wait).await;
    let placed = match (restored, &place, &beside) {
        (Ok(summary), Place::File(database), Some(beside)) => fs::rename(beside, database)
            .and_then(|()| disk::sync_folder(database.parent().unwrap_or_else(|| Path::new("."))))
            .map_err(failed("write", database))
            .map(|()| summary),
        (restored, _, _) => restored,
    };
    if let (Err(_), Some(beside)) = (&placed, &beside) {
        // The first error is the one to tell.
        let _ = fs::remove_file(beside);
    }
    placed
}

/// Where a database is put together before it counts. One that a restore left there which was broken off is removed.
fn beside(database: &Path) -> Result<PathBuf, BackupError> {
    if database.exists() {
        return Err(BackupError::Occupied(Box::new(database.into())));
    }
    let mut name = database.as_os_str().to_owned();
    name.push(".restoring");
    let path = PathBuf::from(name);
    let _ = fs::remove_file(&path);
    Ok(path)
}

async fn restore_to(
    config: &Config,
    from: &Path,
    identity: &Identity,
    to: &Place,
    wait: Duration,
) -> Result<Summary, BackupError> {
    let file = File::open(from).map_err(failed("open", from))?;
    let mut frames = Frames::open(BufReader::new(file), from, identity)?;
    let head = read_head(&mut frames)?;
    let load = Load::create(to, head.schema).await?;
    let mut load = load.ok_or_else(|| BackupError::Occupied(Box::new(to.clone())))?;
    let (rows, secrets) = read_rows(&mut frames, &mut load).await?;
    check_secrets(config, &secrets)?;
    let packs = check_packs(load.connection(), config.artifacts()).await?;
    sqlx::query("INSERT INTO recoveries (restored, made, wait_ms) VALUES ($1, $2, $3)")
        .bind(millis(clock::now()))
        .bind(millis(head.made))
        .bind(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
        .execute(load.connection())
        .await
        .map_err(StoreError::from)?;
    for (what, bytes) in secrets {
        let path = what.path(config)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("make", folder))?;
        }
        disk::write_secret(&path, &bytes)?;
    }
    load.finish().await?;
    Ok(Summary { head, rows, packs })
}

fn read_head(frames: &mut Frames) -> Result<Head, BackupError> {
    let Some(Frame::Head(head)) = frames.next()? else {
        return Err(BackupError::Content("it has no head"));
    };
    let ours = Load::newest_schema();
    if head.schema > ours {
        return Err(BackupError::Newer {
            theirs: head.schema,
            ours,
        });
    }
    if head.schema < OLDEST_SCHEMA {
        return Err(BackupError::Content("it is of a schema before the first"));
    }
    Ok(head)
}

type Secrets = Vec<(Secret, Vec<u8>)>;

/// Reads everything up to the end, which has to be where it is said to be.
async fn read_rows(frames: &mut Frames, load: &mut Load) -> Result<(u64, Secrets), BackupError> {
    let (mut rows, mut table, mut secrets) = (0_u64, None, Vec::new());
    loop {
        match frames.next()? {
            Some(Frame::Table(named)) => {
                load.table(&named).await?;
                table = Some(named);
            }
            Some(Frame::Row(values)) => {
                let table = table
                    .as_ref()
                    .filter(|table: &&Table| table.columns.len() == values.len());
                let table = table.ok_or(BackupError::Content("a row fits no table"))?;
                load.row(table, values).await?;
                rows += 1;
            }
            Some(Frame::Secret { what, bytes }) => secrets.push((what, bytes)),
            Some(Frame::End { rows: written }) if written == rows => return Ok((rows, secrets)),
            Some(Frame::Head(_) | Frame::End { .. }) | None => {
                return Err(BackupError::Content("it does not end as it should"));
            }
        }
    }
}

/// Every key has to be there, and none in the place of another one.
fn check_secrets(config: &Config, secrets: &Secrets) -> Result<(), BackupError> {
    for wanted in SECRETS {
        if !secrets.iter().any(|(what, _)| *what == wanted) {
            return Err(BackupError::NoKey(wanted.name()));
        }
    }
    for (what, bytes) in secrets {
        let path = what.path(config)?;
        match fs::read(&path) {
            Ok(held) if held == *bytes => {}
            Ok(_) => return Err(BackupError::OtherKey(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path)(error)),
        }
    }
    Ok(())
}

/// What is not on disk is not asked for: uploads bring it anew, and releases that need it can no longer be handed out.
async fn check_packs(
    database: &mut Connection,
    artifacts: &Path,
) -> Result<(u64, u64), StoreError> {
    let digests: Vec<String> = sqlx::query_scalar("SELECT DISTINCT digest FROM packs")
        .fetch_all(&mut *database)
        .await?;
    let layout = artifacts.join("registry").join("blobs").join("sha256");
    let (mut there, all) = (0, digests.len() as u64);
    for text in digests {
        let digest: Digest = text.parse()?;
        if layout.join(digest.hex()).exists() {
            there += 1;
            continue;
        }
        for forget in [
            "DELETE FROM contents WHERE pack = $1",
            "DELETE FROM packs WHERE digest = $1",
        ] {
            sqlx::query(forget)
                .bind(&text)
                .execute(&mut *database)
                .await?;
        }
        sqlx::query(
            "UPDATE releases SET collected = $2 WHERE collected IS NULL AND EXISTS \
             (SELECT 1 FROM release_packs p WHERE p.site = releases.site AND p.release_id = releases.release_id AND p.digest = $1)",
        )
        .bind(&text)
        .bind(millis(clock::now()))
        .execute(&mut *database)
        .await?;
    }
    Ok((there, all))
}

/// The frames of an opened backup.
struct Frames {
    opener: Opener<BufReader<File>>,
    path: PathBuf,
}

impl Frames {
    fn open(file: BufReader<File>, path: &Path, identity: &Identity) -> Result<Self, BackupError> {
        let opener = Opener::begin(file, identity).map_err(|source| BackupError::Envelope {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            opener,
            path: path.to_owned(),
        })
    }

    fn next(&mut self) -> Result<Option<Frame>, BackupError> {
        let Some(length) = self.read(4)? else {
            return Ok(None);
        };
        let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(BackupError::Content("a frame is too large"));
        }
        let bytes = self
            .read(length)?
            .ok_or(BackupError::Content("a frame is missing"))?;
        Frame::decode(&bytes).map(Some).map_err(BackupError::Frame)
    }

    fn read(&mut self, length: usize) -> Result<Option<Vec<u8>>, BackupError> {
        self.opener
            .read(length)
            .map_err(|source| BackupError::Envelope {
                path: self.path.clone(),
                source,
            })
    }
}
