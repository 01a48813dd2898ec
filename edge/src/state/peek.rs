//! What is on disk, read back for whoever asks: as it was signed, since that is all the asker believes.
//!
//! It runs beside what is written meanwhile. A record that is half written is not there yet.

use std::future::Future;
use std::io;
use std::sync::Arc;

use super::Ledger;
use super::base::{Base, BaseError};
use super::files::Folder;
use super::frame::StoredRecord;

/// How often it is read again since files were folded meanwhile: that takes minutes to happen twice.
const RETRIES: usize = 3;

/// What a stream's state consists of.
#[derive(Debug, Default)]
pub(crate) struct Peeked {
    /// The snapshot that it begins with, if it does and somebody wants it.
    pub(crate) snapshot: Vec<u8>,
    /// The records behind it.
    pub(crate) records: Vec<StoredRecord>,
}

impl Ledger {
    /// Reads what is on disk; the snapshot only if `wants` says so.
    pub(crate) fn peek<W: Fn(&Base) -> bool + Send + 'static>(
        &self,
        wants: W,
    ) -> impl Future<Output = io::Result<Peeked>> + Send + use<W> {
        let (folder, ring, scope) = (
            self.folder.clone(),
            Arc::clone(&self.ring),
            self.scope.clone(),
        );
        let read = move || {
            let open = |path: &std::path::Path| Base::open(path, &ring, &scope);
            let mut read = peek(&folder, open, &wants);
            for _ in 0..RETRIES {
                match read {
                    // Files were folded into one meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        read = peek(&folder, open, &wants);
                    }
                    Ok(_) | Err(_) => break,
                }
            }
            read
        };
        async move {
            let read = tokio::task::spawn_blocking(read).await;
            read.map_err(io::Error::other)?
        }
    }
}

fn peek(
    folder: &Folder,
    open: impl Fn(&std::path::Path) -> Result<Base, BaseError>,
    wants: impl Fn(&Base) -> bool,
) -> io::Result<Peeked> {
    let records = folder.loose()?.records.into_values().collect();
    let Some(path) = folder.newest_snapshot()? else {
        return Ok(Peeked {
            snapshot: Vec::new(),
            records,
        });
    };
    let base = open(&path).map_err(|error| match error {
        BaseError::Read(source) => source,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    })?;
    let snapshot = if wants(&base) {
        std::fs::read(&path)?
    } else {
        Vec::new()
    };
    Ok(Peeked { snapshot, records })
}
