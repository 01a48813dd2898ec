//! The key that draws are signed with, and half of that of passes: asked of origin, and kept on disk, so that an edge that
//! starts without origin knows the visitors it had.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use helix_service::disk;

use super::draw::Key;
use crate::store::Fetcher;
use crate::table::Table;

/// How often origin is asked whether it is still the same: after a restore it may be another.
const REFRESH: Duration = Duration::from_secs(60 * 60);
/// Wait after origin was asked in vain, at first; doubles.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The same at most.
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Longest secret, in bytes.
const MAX_SECRET_BYTES: usize = 256;

/// Lets the table sign with what is on disk, and with what origin says, for as long as the process runs.
#[expect(clippy::cognitive_complexity, reason = "most of it is what is logged")]
pub async fn keep(fetcher: Fetcher, path: PathBuf, table: Arc<Table>) {
    let mut held = read(&path).await;
    if let Some(secret) = &held {
        table.visitors().sign_with(Key::new(secret.as_bytes()));
    }
    let mut wait = FIRST_RETRY;
    loop {
        match fetcher.visitor_key().await {
            Ok(secret) if is_legal(&secret) => {
                wait = FIRST_RETRY;
                if held.as_ref() != Some(&secret) {
                    table.visitors().sign_with(Key::new(secret.as_bytes()));
                    write(&path, &secret).await;
                    tracing::info!(from = held.is_some(), to = true, "key of visitors' draws");
                    held = Some(secret);
                }
                tokio::time::sleep(REFRESH).await;
                continue;
            }
            Ok(_) => tracing::warn!("origin's key of visitors' draws is none"),
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

fn is_legal(secret: &str) -> bool {
    (32..=MAX_SECRET_BYTES).contains(&secret.len())
}

async fn read(path: &Path) -> Option<String> {
    let secret = tokio::fs::read_to_string(path).await.ok()?;
    is_legal(&secret).then_some(secret)
}

async fn write(path: &Path, secret: &str) {
    let (path, secret) = (path.to_owned(), secret.to_owned());
    let written = tokio::task::spawn_blocking(move || disk::write_secret(&path, secret.as_bytes()));
    if let Ok(Err(error)) = written.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the key of visitors' draws is not on disk"
        );
    }
}
