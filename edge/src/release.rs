//! One release, ready to be served: every file by its path, with the headers that never change.
//!
//! A release is made once, when an edge has prepared it, and is never changed after. While one
//! exists, the store keeps every byte it names: dropping the last reference is what lets them go.
//! It does not decide which release a request gets; that is the table's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use helix_routing::artifact::{ContentEncoding, Encoding, FileEntry, FileIndex, Variant};
use helix_routing::id::{Digest, ReleaseId};
use helix_routing::routes::{Files, Routes, Rules, is_immutable, merge};
use http::{HeaderName, HeaderValue};

use crate::forward::Groups;
use crate::in_flight::InFlight;
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
    /// What is in flight under its own name.
    pub in_flight: Arc<InFlight>,
    /// Value of `x-helix-release`.
    pub(crate) mark: HeaderValue,
    rules: Rules,
    /// The fields of each block of `_headers`.
    fields: Vec<Vec<(HeaderName, HeaderValue)>>,
    lately: AtomicBool,
    /// Whether it has the variants that were made after it went out.
    pub(crate) improved: bool,
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
    /// Whether its name tells its bytes, so that it may be kept for ever.
    pub immutable: bool,
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

    /// Its rules, arranged for looking them up.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What its `_headers` says for `path`, decoded and without the slash at its start.
    #[must_use]
    pub fn fields(&self, path: &str) -> Vec<(HeaderName, HeaderValue)> {
        let mut all = Vec::new();
        if self.rules.has_no_headers() {
            return all;
        }
        for at in self.rules.headers(&self.routes, path) {
            let without = self.routes.headers.get(at).map(|block| &block.without);
            if let Some(without) = without.filter(|names| !names.is_empty()) {
                all.retain(|(name, _): &(HeaderName, _)| {
                    !without.iter().any(|other| other == name.as_str())
                });
            }
            for (name, value) in self.fields.get(at).into_iter().flatten() {
                merge(&mut all, name.clone(), value.clone(), joined);
            }
        }
        all
    }

    /// Whether it was live so lately that pages loaded from it may still ask for its files.
    #[must_use]
    pub fn was_live_lately(&self) -> bool {
        self.lately.load(Ordering::Relaxed)
    }

    /// Sets whether it was. The one thing about a release that changes: it follows the clock, not a record.
    pub fn set_live_lately(&self, lately: bool) {
        self.lately.store(lately, Ordering::Relaxed);
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
        let contents = Contents::Store { store, _held: held };
        Self::new(id, artifact, files, contents).with_routes(routes)
    }

    /// A release that is held in memory whole: path, content type and bytes of each file.
    /// Files whose content type is no legal header value are left out.
    #[must_use]
    pub fn from_memory<'a>(
        id: ReleaseId,
        artifact: Digest,
        files: impl IntoIterator<Item = (&'a str, &'a str, Bytes)>,
    ) -> Self {
        let file = |(path, media_type, bytes)| MemoryFile {
            path,
            media_type,
            bytes,
            modified: None,
            variants: Vec::new(),
        };
        Self::from_files(id, artifact, files.into_iter().map(file))
    }

    /// A release that is held in memory whole. Files whose content type is no legal header value are left out.
    #[must_use]
    pub fn from_files<'a>(
        id: ReleaseId,
        artifact: Digest,
        files: impl IntoIterator<Item = MemoryFile<'a>>,
    ) -> Self {
        let mut contents = HashMap::new();
        let mut named = HashMap::new();
        for file in files {
            let mut hold = |bytes: Bytes| {
                let (digest, size) = (helix_service::digest::sha256(&bytes), bytes.len() as u64);
                contents.insert(digest.clone(), bytes);
                (digest, size)
            };
            let variants = file.variants.into_iter().map(|(encoding, bytes)| {
                let (digest, size) = hold(bytes);
                Variant {
                    encoding,
                    pack: digest.clone(),
                    digest,
                    size,
                    offset: 0,
                }
            });
            let variants = variants.collect();
            let (digest, size) = hold(file.bytes);
            let entry = FileEntry {
                digest: digest.clone(),
                size,
                media_type: file.media_type.to_owned(),
                pack: digest,
                offset: 0,
                length: size,
                encoding: Encoding::Identity,
                modified: file.modified,
                variants,
            };
            named.extend(File::new(file.path, entry).map(by_path));
        }
        Self::new(id, artifact, named, Contents::Memory(contents))
    }

    fn new(
        id: ReleaseId,
        artifact: Digest,
        files: HashMap<Box<str>, Arc<File>>,
        contents: Contents,
    ) -> Self {
        let routes = Routes::default();
        Self {
            mark: HeaderValue::from_str(id.as_str()).expect("a release id is ASCII"),
            id,
            artifact,
            rules: Rules::new(&routes),
            routes,
            groups: Groups::default(),
            in_flight: Arc::default(),
            fields: Vec::new(),
            lately: AtomicBool::new(false),
            files,
            contents,
            improved: false,
        }
    }

    /// The same files under other routes.
    #[must_use]
    pub fn with_routes(self, routes: Routes) -> Self {
        // They were checked when they were compiled; what is no field all the same is left out.
        let field = |(name, value): &(String, String)| {
            Some((
                HeaderName::try_from(name.as_str()).ok()?,
                HeaderValue::try_from(value.as_str()).ok()?,
            ))
        };
        let blocks = routes.headers.iter();
        Self {
            rules: Rules::new(&routes),
            fields: blocks
                .map(|block| block.fields.iter().filter_map(field).collect())
                .collect(),
            routes,
            groups: Groups::default(),
            ..self
        }
    }
}

/// A file to be held in memory.
#[derive(Debug)]
pub struct MemoryFile<'a> {
    /// Its path within the release.
    pub path: &'a str,
    /// Its `Content-Type`.
    pub media_type: &'a str,
    /// Its content.
    pub bytes: Bytes,
    /// When that was first seen, in seconds since 1970.
    pub modified: Option<u64>,
    /// The same content in other codings.
    pub variants: Vec<(ContentEncoding, Bytes)>,
}

impl<'a> Files for &'a Release {
    type File = &'a Arc<File>;

    fn file(&self, path: &str) -> Option<&'a Arc<File>> {
        self.files.get(path)
    }
}

/// Two values of a field that may have several (RFC 9110 5.3).
fn joined(first: &HeaderValue, second: &HeaderValue) -> HeaderValue {
    let both = [first.as_bytes(), b", ", second.as_bytes()].concat();
    HeaderValue::from_bytes(&both).unwrap_or_else(|_| second.clone())
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
            immutable: is_immutable(path),
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
