//! The artifact: an OCI 1.1 manifest whose layers are a file index and packs of files.
//!
//! Shapes only. Origin writes them, edges verify them, any OCI client can copy them.
//! A pack is a concatenation of separately encoded files, so that one file can be read by range
//! and a new release adds only a pack with what changed. What was read of one is believed after [`belief`].

pub mod belief;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Environment, ProjectName};
use crate::routes::Routes;

/// Media type of an OCI image manifest (OCI image-spec, media-types.md).
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// `artifactType` of a release.
pub const RELEASE_TYPE: &str = "application/vnd.helixstack.release.v1";
/// `artifactType` of an improvement: a referrer of a release (OCI image-spec, `subject`) that has smaller variants of its files.
pub const IMPROVEMENT_TYPE: &str = "application/vnd.helixstack.improvement.v1";
/// Media type of [`Improvement`], zstd-compressed JSON.
pub const VARIANTS_TYPE: &str = "application/vnd.helixstack.variants.v1+json+zstd";
/// Media type of an OCI image index: the answer of the referrers API.
pub const OCI_INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a config that says nothing (OCI image-spec, manifest.md): [`EMPTY_CONFIG`].
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// Bytes of a config that says nothing.
pub const EMPTY_CONFIG: &[u8] = b"{}";
/// Media type of [`ReleaseConfig`]: an image config with our fields in it, so that tools made for images can show it.
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of [`FileIndex`], zstd-compressed JSON.
pub const INDEX_TYPE: &str = "application/vnd.helixstack.files.v1+json+zstd";
/// Media type of a pack: several files, each encoded on its own.
pub const PACK_TYPE: &str = "application/vnd.helixstack.pack.v1";
/// Media type of a layer that is one file.
pub const BLOB_TYPE: &str = "application/vnd.helixstack.blob.v1";

/// Files of this size and more, in bytes, stand alone instead of in a pack.
pub const STANDALONE_BYTES: u64 = 1024 * 1024;
/// A pack is closed when it has reached this size in bytes.
pub const PACK_BYTES: u64 = 16 * 1024 * 1024;
/// More packs than this in one manifest, and the next release repacks.
pub const MAX_PACKS: usize = 32;
/// Most files in one release.
pub const MAX_FILES: usize = 100_000;
/// Largest single file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;
/// Largest index as JSON, in bytes: the most files at about 300 bytes each, and as many for each of three variants.
pub const MAX_INDEX_BYTES: u64 = 128 * 1024 * 1024;
/// Largest [`ReleaseConfig`], in bytes: a few fields, and thousands of rules.
pub const MAX_CONFIG_BYTES: u64 = 2 * 1024 * 1024;
/// Largest manifest, in bytes (OCI distribution-spec asks registries for at least this).
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// Longest path of a file within a release, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;

/// The manifest as it is stored; its digest names the artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Always [`MANIFEST_TYPE`].
    pub media_type: String,
    /// Always [`RELEASE_TYPE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The [`ReleaseConfig`].
    pub config: Descriptor,
    /// First the [`FileIndex`], then packs and blobs, in order of digest.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says more about: a release's, when this is of [`IMPROVEMENT_TYPE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Project and environment, for people; the config is what is checked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One blob of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its content's digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// `org.opencontainers.image.title`, the name a generic client saves it under.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Version of a [`ReleaseConfig`] that has routes of a Build Output; without them it is 1.
pub const OUTPUT_VERSION: u32 = 2;

/// What a release is besides its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseConfig {
    /// 1, or 2 where there are routes of a Build Output, which a build that knows only 1 would leave out.
    pub version: u32,
    /// The project it was made for. An edge refuses it for any other.
    pub project: ProjectName,
    /// The environment it was made for. An edge refuses it for any other.
    pub environment: Environment,
    /// What it does with requests besides looking up files.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routes: Routes,
}

fn is_default(routes: &Routes) -> bool {
    *routes == Routes::default()
}

/// Every file of a release by its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIndex {
    /// Always 1.
    pub version: u32,
    /// Path, with `/` between its parts and none at the start, to file.
    pub files: BTreeMap<String, FileEntry>,
}

/// One file: what it is, and where its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Digest of its content.
    pub digest: Digest,
    /// Size of its content in bytes.
    pub size: u64,
    /// `Content-Type`, with charset where it has one.
    pub media_type: String,
    /// The layer that holds it.
    pub pack: Digest,
    /// Where it starts in that layer, in bytes.
    pub offset: u64,
    /// How many bytes of the layer it takes.
    pub length: u64,
    /// How those bytes encode it.
    pub encoding: Encoding,
    /// When its content was first seen, in seconds since 1970: its `Last-Modified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<u64>,
    /// The same content, encoded for clients that accept it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
}

/// A file's content as it is sent under a `Content-Encoding`. It lies in its layer exactly so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The encoding.
    pub encoding: ContentEncoding,
    /// Digest of the encoded bytes; its validator is made of this.
    pub digest: Digest,
    /// Size of the encoded bytes.
    pub size: u64,
    /// The layer that holds it.
    pub pack: Digest,
    /// Where it starts in that layer, in bytes.
    pub offset: u64,
}

/// Variants that were made after a release went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Improvement {
    /// Always 1.
    pub version: u32,
    /// By digest of the content: variants to take instead of those of the same coding. Their layers are those of the
    /// improvement's own manifest.
    pub variants: BTreeMap<Digest, Vec<Variant>>,
}

/// A content coding that variants are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentEncoding {
    /// RFC 7932.
    Br,
    /// RFC 8878, with a window of at most 8 MiB (RFC 9659).
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl ContentEncoding {
    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// How a file is stored in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As it is.
    Identity,
    /// One zstd frame (RFC 8878).
    Zstd,
}

/// Why a path may not be in a release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} {reason}")]
pub struct InvalidPath {
    /// The path.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Checks a path of a release: relative, no empty, `.` or `..` part, no control character or backslash.
///
/// # Errors
/// When the path is anything else.
pub fn check_path(path: &str) -> Result<(), InvalidPath> {
    let refused = |reason| {
        Err(InvalidPath {
            path: path.chars().take(200).collect(),
            reason,
        })
    };
    if path.len() > MAX_PATH_BYTES {
        return refused("is longer than 1024 bytes");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return refused("has a control character or a backslash");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refused("has an empty part, `.` or `..`");
    }
    Ok(())
}
