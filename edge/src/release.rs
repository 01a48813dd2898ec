//! One release, ready to be served: every file by its path, with the headers that never change.
//!
//! A release is made once, when an edge has prepared it, and is never changed after. While one
//! exists, the store keeps every byte it names: dropping the last reference is what lets them go.
//! It does not decide which release a request gets; that is the table's.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use helix_routing::artifact::{Encoding, FileEntry, FileIndex};
use helix_routing::id::{Digest, ReleaseId};
use helix_routing::routes::Routes;
use http::HeaderValue;

use crate::store::{Held, Store, StoreError};

/// What a region serves and what one goes back to.
#[derive(Debug)]
pub struct Release {
    /// The release.
    pub id: ReleaseId,
    /// Digest of its manifest.
    pub artifact: Digest,
    /// What it does with requests besides looking up files.
    pub routes: Routes,
    files: HashMap<Box<str>, Arc<File>>,
    contents: Contents,
}

/// One file of a release.
#[derive(Debug)]
pub struct File {
    /// Its path within the release.
    pub path: Box<str>,
    /// What it is, and where its bytes lie.
    pub entry: FileEntry,
    /// Strong validator made of its digest, quoted (RFC 9110 8.8.3).
    pub etag: HeaderValue,
    /// Its `Content-Type`.
    pub content_type: HeaderValue,
}

/// The bytes of a file, verified against its digest.
#[derive(Debug)]
pub enum Body {
    /// Small enough to be held.
    Memory(Bytes),
    /// To be read in parts; the file stands at its start.
    Disk {
        /// The content, and nothing else, of `size` bytes.
        file: std::fs::File,
        /// Its size in bytes.
        size: u64,
    },
}

/// Where the bytes of a release's files come from.
#[derive(Debug)]
enum Contents {
    Memory(HashMap<Digest, Bytes>),
    Store {
        store: Arc<Store>,
        /// Keeps what the release names from being collected.
        _held: Held,
    },
}

impl Release {
    /// The file at exactly this path.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&Arc<File>> {
        self.files.get(path)
    }

    /// How many files it has.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The bytes of one of its files.
    ///
    /// # Errors
    /// When they cannot be read, or are not what the file's digest says.
    pub async fn body(&self, file: &File) -> Result<Body, StoreError> {
        match &self.contents {
            Contents::Store { store, .. } => store.body(&file.entry).await,
            Contents::Memory(contents) => contents
                .get(&file.entry.digest)
                .map(|bytes| Body::Memory(bytes.clone()))
                .ok_or_else(|| StoreError::Missing {
                    digest: file.entry.digest.clone(),
                }),
        }
    }

    /// A release whose bytes lie in `store`, which keeps them as long as `held` lives.
    /// The index must have been checked.
    pub(crate) fn from_store(
        id: ReleaseId,
        artifact: Digest,
        routes: Routes,
        index: FileIndex,
        store: Arc<Store>,
        held: Held,
    ) -> Self {
        let files = index
            .files
            .into_iter()
            .filter_map(|(path, entry)| File::new(&path, entry))
            .map(by_path)
            .collect();
        Self {
            id,
            artifact,
            routes,
            files,
            contents: Contents::Store { store, _held: held },
        }
    }

    /// A release that is held in memory whole: path, content type and bytes of each file.
    /// Files whose content type is no legal header value are left out.
    #[must_use]
    pub fn from_memory<'a>(
        id: ReleaseId,
        artifact: Digest,
        files: impl IntoIterator<Item = (&'a str, &'a str, Bytes)>,
    ) -> Self {
        let mut contents = HashMap::new();
        let mut named = HashMap::new();
        for (path, media_type, bytes) in files {
            let digest = helix_service::digest::sha256(&bytes);
            let size = bytes.len() as u64;
            let entry = FileEntry {
                digest: digest.clone(),
                size,
                media_type: media_type.to_owned(),
                pack: digest.clone(),
                offset: 0,
                length: size,
                encoding: Encoding::Identity,
                modified: None,
                variants: Vec::new(),
            };
            named.extend(File::new(path, entry).map(by_path));
            contents.insert(digest, bytes);
        }
        Self {
            id,
            artifact,
            routes: Routes::default(),
            files: named,
            contents: Contents::Memory(contents),
        }
    }
}

impl Release {
    /// The same files under other routes.
    #[must_use]
    pub fn with_routes(self, routes: Routes) -> Self {
        Self { routes, ..self }
    }
}

impl File {
    /// None when the media type is no legal header value.
    fn new(path: &str, entry: FileEntry) -> Option<Self> {
        let etag = HeaderValue::try_from(format!("\"{}\"", entry.digest.hex())).ok()?;
        let content_type = HeaderValue::try_from(entry.media_type.as_str()).ok()?;
        Some(Self {
            path: path.into(),
            entry,
            etag,
            content_type,
        })
    }
}

fn by_path(file: File) -> (Box<str>, Arc<File>) {
    (file.path.clone(), Arc::new(file))
}
