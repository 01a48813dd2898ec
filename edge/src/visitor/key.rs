//! The keys that draws are signed with, and half of those of passes: asked of origin, and kept on disk, so that an edge that
//! starts without origin knows the visitors it had. One signs; others are accepted as well, around a rotation.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use helix_routing::visitor::VisitorKey;
use helix_service::disk;
use reqwest::StatusCode;

use super::draw::Key;
use super::{Keys, Visitors};
use crate::store::{FetchError, Fetcher};
use crate::table::Table;

/// How often origin is asked whether it is still the same: it may have been rotated, and after a restore it may be another.
const REFRESH: Duration = Duration::from_secs(60 * 60);
/// Wait after origin was asked in vain, at first; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The same at most.
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Longest secret, in bytes.
const MAX_SECRET_BYTES: usize = 256;
/// Keys that are accepted besides, at most: each is tried for what the others did not sign.
const MAX_ALSO: usize = 8;

/// Where they are kept: what signs in a file of its own, which earlier builds read as well.
struct Files {
    signs: PathBuf,
    also: PathBuf,
}

/// Lets the table sign with what is on disk in `folder`, and with what origin says, for as long as the process runs.
#[expect(clippy::cognitive_complexity, reason = "most of it is what is logged")]
pub async fn keep(fetcher: Fetcher, folder: PathBuf, table: Arc<Table>) {
    let files = Files {
        signs: folder.join("visitor.key"),
        also: folder.join("visitor-also.key"),
    };
    let mut held = files.read().await;
    if let Some(key) = &held {
        use_in(table.visitors(), key);
    }
    let mut wait = FIRST_RETRY;
    loop {
        match fetcher.visitor_key().await.map(legal) {
            Ok(Some(key)) => {
                wait = FIRST_RETRY;
                if held.as_ref() != Some(&key) {
                    use_in(table.visitors(), &key);
                    files.write(&key).await;
                    tracing::info!(
                        from = held.is_some(),
                        to = true,
                        also = key.also.len(),
                        "key of visitors' draws"
                    );
                    held = Some(key);
                }
                tokio::time::sleep(REFRESH).await;
                continue;
            }
            Ok(None) => tracing::warn!("origin's key of visitors' draws is none"),
            Err(FetchError::Status {
                url,
                status: StatusCode::FORBIDDEN,
            }) => tracing::warn!(
                url,
                "the key of visitors' draws is refused: this edge's token needs the role `edge`"
            ),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the key of visitors' draws was not fetched"
                );
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MAX_RETRY);
    }
}

fn use_in(visitors: &Visitors, key: &VisitorKey) {
    let of = |secret: &String| Key::new(secret.as_bytes());
    visitors.use_keys(Keys {
        signs: of(&key.secret),
        also: key.also.iter().map(of).collect(),
    });
}

fn legal(mut key: VisitorKey) -> Option<VisitorKey> {
    let is_legal = |secret: &String| (32..=MAX_SECRET_BYTES).contains(&secret.len());
    key.also.retain(is_legal);
    key.also.truncate(MAX_ALSO);
    is_legal(&key.secret).then_some(key)
}

impl Files {
    async fn read(&self) -> Option<VisitorKey> {
        let secret = tokio::fs::read_to_string(&self.signs).await.ok()?;
        // There is none before the first rotation.
        let also = tokio::fs::read_to_string(&self.also).await;
        let also = also.unwrap_or_default();
        legal(VisitorKey {
            secret,
            also: also.lines().map(str::to_owned).collect(),
        })
    }

    async fn write(&self, key: &VisitorKey) {
        write(&self.also, key.also.join("\n")).await;
        write(&self.signs, key.secret.clone()).await;
    }
}

async fn write(path: &Path, text: String) {
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || disk::write_secret(&path, text.as_bytes()));
    if let Ok(Err(error)) = written.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the key of visitors' draws is not on disk"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_signs_and_what_is_accepted_come_back_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files {
            signs: folder.path().join("signs"),
            also: folder.path().join("also"),
        };
        assert!(files.read().await.is_none());
        let key = |also: &[&str]| VisitorKey {
            secret: "a".repeat(64),
            also: also.iter().map(|digit| digit.repeat(64)).collect(),
        };
        // As an earlier build left it.
        write(&files.signs, "a".repeat(64)).await;
        assert!(files.read().await == Some(key(&[])));
        for kept in [key(&["b", "c"]), key(&[])] {
            files.write(&kept).await;
            assert!(files.read().await == Some(kept));
        }
        let short = VisitorKey {
            secret: "a".repeat(64),
            also: vec!["short".to_owned(), "d".repeat(64)],
        };
        assert!(legal(short) == Some(key(&["d"])));
    }
}
