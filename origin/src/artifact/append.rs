//! One request's part of a large content: appended at its end, verified when it was the last.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::Artifacts;
use super::content::UploadError;
use super::partial::{MAX_ENCODED_BYTES, Upload};
use crate::store::StoreError;

/// A sender that is silent for this long is gone; what it sent is kept, and it may go on later.
const SILENCE: Duration = Duration::from_secs(30);

/// A part was not taken, or not whole. What was written before stays.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It does not start where the content so far ends.
    #[error("origin has {has} bytes of this content: go on from there")]
    Offset {
        /// How many encoded bytes have arrived.
        has: u64,
    },
    /// It goes past the announced length, or that is more than a file may have.
    #[error("the content is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// The request ended early.
    #[error("the upload was cut off after {has} bytes")]
    Cut {
        /// How many encoded bytes have arrived.
        has: u64,
    },
    /// The disk refused.
    #[error("write a partial upload")]
    Write(#[source] io::Error),
    /// The whole was refused, or could not be stored.
    #[error(transparent)]
    Upload(#[from] UploadError),
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        Self::Upload(error.into())
    }
}

impl Artifacts {
    /// Appends `body` to an upload of which `offset` bytes have arrived, and answers how many have then.
    /// When all have, they are verified and stored.
    ///
    /// # Errors
    /// As [`AppendError`] says.
    pub async fn append<E>(
        &self,
        upload: Upload,
        offset: u64,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<u64, AppendError> {
        if upload.length > MAX_ENCODED_BYTES {
            return Err(AppendError::TooLong {
                limit: MAX_ENCODED_BYTES,
            });
        }
        let file = self.partials.file(&upload).map_err(UploadError::from)?;
        let _writer = self.partials.lock(&file).await;
        if self.holds(&upload.project, &upload.digest).await? {
            return Ok(upload.length);
        }
        let has = size(&file).await?;
        if has == 0 {
            self.check_quota(&upload.project, upload.length).await?;
        }
        if has != offset {
            return Err(AppendError::Offset { has });
        }
        let has = write(&file, body, has, upload.length).await?;
        if has == upload.length {
            self.receive_blob(upload, &file).await?;
        }
        Ok(has)
    }
}

async fn size(file: &Path) -> Result<u64, AppendError> {
    match tokio::fs::metadata(file).await {
        Ok(metadata) => Ok(metadata.len()),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(AppendError::Write(source)),
    }
}

async fn write<E>(
    path: &Path,
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    mut has: u64,
    length: u64,
) -> Result<u64, AppendError> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .await
        .map_err(AppendError::Write)?;
    loop {
        let chunk = match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => {
                flush(&mut file).await?;
                return Err(AppendError::Cut { has });
            }
        };
        if has + chunk.len() as u64 > length {
            return Err(AppendError::TooLong { limit: length });
        }
        file.write_all(&chunk).await.map_err(AppendError::Write)?;
        has += chunk.len() as u64;
    }
    flush(&mut file).await?;
    Ok(has)
}

/// The size on disk is the offset to go on from, so nothing may wait in memory when the next request looks.
async fn flush(file: &mut File) -> Result<(), AppendError> {
    file.flush().await.map_err(AppendError::Write)
}
