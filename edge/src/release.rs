//! One release, ready to be served: every file by its path, with the headers that never change.
//!
//! A release is made once, when an edge has prepared it, and is never changed after. While one
//! exists, the store keeps every byte it names: dropping the last reference is what lets them go.
//! It does not decide which release a request gets; that is the table's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use helix_routing::artifact::{ContentEncoding, Encoding, FileEntry, FileIndex};
use helix_routing::id::{Digest, ReleaseId};
use helix_routing::routes::Routes;
use http::HeaderValue;

use crate::forward::Groups;
use crate::store::{Held, Store, StoreError};

/// The end of the year 9999: later dates have no form in HTTP (RFC 9110 5.6.7).
const LATEST_DATE: u64 = 253_402_300_799;

/// What a region serves and what one goes back to.
#[derive(Debug)]
pub struct Release {
    /// The release.
    pub id: ReleaseId,
    /// Digest of its manifest.
    pub artifact: Digest,
    /// What it does with requests besides looking up files.
    pub routes: Routes,
    /// The upstreams its routes name.
    pub groups: Groups,
    files: HashMap<Box<str>, Arc<File>>,
    contents: Contents,
}

/// One file of a release.
#[derive(Debug)]
pub struct File {
    /// Its path within the release.
    pub path: Box<str>,
    /// Its `Content-Type`.
    pub content_type: HeaderValue,
    /// When its content was first seen, in seconds since 1970.
    pub modified: Option<u64>,
    /// The same as `Last-Modified`.
    pub last_modified: Option<HeaderValue>,
    /// What it can be sent as: first as it is, then in each content coding there is.
    pub representations: Vec<Representation>,
}

impl File {
    /// The file as it is, in no content coding.
    ///
    /// # Panics
    /// Never: every file is made with this one.
    #[must_use]
    pub fn identity(&self) -> &Representation {
        self.representations
            .first()
            .expect("a file is made with its identity")
    }
}

/// A file in one content coding, or in none.
#[derive(Debug)]
pub struct Representation {
    /// Its `Content-Encoding`; none as it is.
    pub encoding: Option<ContentEncoding>,
    /// Strong validator made of the digest of the bytes that are sent, quoted (RFC 9110 8.8.3).
    pub etag: HeaderValue,
    /// Digest and size of the bytes that are sent, and where they lie. Its media type is left empty, and
    /// it has no variants of its own.
    pub entry: FileEntry,
}

impl Representation {
    /// Bytes that are sent.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.entry.size
    }
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

    /// The bytes of one of its files, as they are sent.
    ///
    /// # Errors
    /// When they cannot be read, or are not what the file's digest says.
    pub async fn body(&self, representation: &Representation) -> Result<Body, StoreError> {
        let entry = &representation.entry;
        match &self.contents {
            Contents::Store { store, .. } => store.body(entry).await,
            Contents::Memory(contents) => contents
                .get(&entry.digest)
                .map(|bytes| Body::Memory(bytes.clone()))
                .ok_or_else(|| StoreError::Missing {
                    digest: entry.digest.clone(),
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
            groups: Groups::default(),
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
            groups: Groups::default(),
            files: named,
            contents: Contents::Memory(contents),
        }
    }
}

impl Release {
    /// The same files under other routes.
    #[must_use]
    pub fn with_routes(self, routes: Routes) -> Self {
        Self {
            routes,
            groups: Groups::default(),
            ..self
        }
    }
}

impl File {
    /// None when the media type is no legal header value.
    fn new(path: &str, entry: FileEntry) -> Option<Self> {
        let last_modified = entry.modified.map(|seconds| {
            let time = UNIX_EPOCH + Duration::from_secs(seconds.min(LATEST_DATE));
            HeaderValue::try_from(httpdate::fmt_http_date(time)).expect("a date is ASCII")
        });
        Some(Self {
            path: path.into(),
            content_type: HeaderValue::try_from(entry.media_type.as_str()).ok()?,
            modified: entry.modified,
            last_modified,
            representations: representations(entry)?,
        })
    }
}

fn representations(mut entry: FileEntry) -> Option<Vec<Representation>> {
    let variants = std::mem::take(&mut entry.variants);
    entry.media_type = String::new();
    let mut all = Vec::with_capacity(1 + variants.len());
    for variant in variants {
        let stored = FileEntry {
            digest: variant.digest,
            size: variant.size,
            pack: variant.pack,
            offset: variant.offset,
            length: variant.size,
            encoding: Encoding::Identity,
            ..entry.clone()
        };
        all.push(Representation::new(Some(variant.encoding), stored)?);
    }
    all.insert(0, Representation::new(None, entry)?);
    Some(all)
}

impl Representation {
    fn new(encoding: Option<ContentEncoding>, entry: FileEntry) -> Option<Self> {
        let etag = HeaderValue::try_from(format!("\"{}\"", entry.digest.hex())).ok()?;
        Some(Self {
            encoding,
            etag,
            entry,
        })
    }
}

fn by_path(file: File) -> (Box<str>, Arc<File>) {
    (file.path.clone(), Arc::new(file))
}
