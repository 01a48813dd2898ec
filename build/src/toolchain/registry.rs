//! The npm registry, as far as whole packages are fetched from it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Algorithm, Context, SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use url::Url;

use crate::detect::semver::{Range, Version};

/// A registry that does not answer by then is away.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A whole download: Node is 50 MB.
const DOWNLOAD_WITHIN: Duration = Duration::from_secs(300);
/// Largest list of versions.
const MAX_LIST_BYTES: usize = 64 * 1024 * 1024;
/// Largest archive.
const MAX_ARCHIVE_BYTES: u64 = 512 * 1024 * 1024;
/// How long a list counts as new: a version that is out today may be used tomorrow.
const LIST_AGE: Duration = Duration::from_secs(60 * 60);
/// The short form of a package's description.
const SHORT: &str = "application/vnd.npm.install-v1+json";

/// The registry does not give what is needed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer.
    #[error("reach the registry for {package}")]
    Unreachable {
        /// What for.
        package: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// It answers with something else.
    #[error("the registry's answer for {package} is not one: {reason}")]
    Answer {
        /// What for.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no such version.
    #[error("{package} has no version such as the project asks for")]
    NoVersion {
        /// Of what.
        package: String,
    },
    /// What came is not what the list names.
    #[error("{package} {version} is not what the registry's hash says")]
    Integrity {
        /// What.
        package: String,
        /// Which.
        version: Version,
    },
    /// It cannot be written down.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A registry.
#[derive(Clone, Debug)]
pub struct Registry {
    http: reqwest::Client,
    base: Url,
    lists: PathBuf,
}

#[derive(Deserialize)]
struct List {
    versions: BTreeMap<String, Listed>,
}

#[derive(Deserialize)]
struct Listed {
    dist: Dist,
    #[serde(default)]
    deprecated: serde_json::Value,
}

#[derive(Deserialize)]
struct Dist {
    tarball: Url,
    integrity: String,
}

impl Registry {
    /// The registry at `base`; its lists are kept in `lists`.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(base: Url, lists: PathBuf) -> Result<Self, reqwest::Error> {
        let http = client()?;
        Ok(Self { http, base, lists })
    }

    /// The newest version of a package that will do.
    pub(super) async fn newest(
        &self,
        package: &str,
        wish: &Range,
    ) -> Result<Version, RegistryError> {
        let list = self.list(package, LIST_AGE).await?;
        let newest = |list: &List| {
            let fitting = list.versions.iter().filter_map(|(name, listed)| {
                // A tag behind `-` is no version that anybody asks for.
                let version = name
                    .parse::<Version>()
                    .ok()
                    .filter(|version| version.to_string() == *name)?;
                wish.holds(version)
                    .then_some((listed.deprecated.is_string(), version))
            });
            fitting
                .max_by_key(|(deprecated, version)| (!deprecated, *version))
                .map(|(_, version)| version)
        };
        let none = || RegistryError::NoVersion {
            package: package.to_owned(),
        };
        match newest(&list) {
            Some(version) => Ok(version),
            // It may be newer than the list.
            None => newest(&self.list(package, Duration::ZERO).await?).ok_or_else(none),
        }
    }

    /// Fetches one version into a file, and checks it.
    pub(super) async fn download(
        &self,
        package: &str,
        version: Version,
        file: &Path,
    ) -> Result<(), RegistryError> {
        let list = self.list(package, LIST_AGE).await?;
        let listed =
            list.versions
                .get(&version.to_string())
                .ok_or_else(|| RegistryError::NoVersion {
                    package: package.to_owned(),
                })?;
        let wrong = || RegistryError::Integrity {
            package: package.to_owned(),
            version,
        };
        let expected = listed
            .dist
            .integrity
            .split_whitespace()
            .find_map(|hash| hash.strip_prefix("sha512-"));
        let expected = expected
            .and_then(|hash| STANDARD.decode(hash).ok())
            .ok_or_else(wrong)?;
        let request = self.http.get(listed.dist.tarball.clone());
        let hash = save(request, package, &SHA512, file).await?;
        if hash.as_ref() == expected {
            Ok(())
        } else {
            Err(wrong())
        }
    }

    /// The list of a package's versions, not older than `age`.
    async fn list(&self, package: &str, age: Duration) -> Result<List, RegistryError> {
        let file = self.lists.join(format!("{}.json", super::flat(package)));
        let kept = fs::metadata(&file).and_then(|found| found.modified()).ok();
        let is_new = kept.is_some_and(|then| {
            SystemTime::now()
                .duration_since(then)
                .is_ok_and(|passed| passed < age)
        });
        if is_new
            && let Some(list) = fs::read(&file)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
        {
            return Ok(list);
        }
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(package);
        }
        let text = text(self.http.get(url).header("accept", SHORT), package).await?;
        let list = serde_json::from_slice(&text).map_err(|error| RegistryError::Answer {
            package: package.to_owned(),
            reason: error.to_string(),
        })?;
        let failed = |source| RegistryError::Write {
            path: file.clone(),
            source,
        };
        fs::create_dir_all(&self.lists).map_err(failed)?;
        // Whole or not at all: other builds read it.
        let mut beside = tempfile::NamedTempFile::new_in(&self.lists).map_err(failed)?;
        beside.write_all(&text).map_err(failed)?;
        beside.persist(&file).map_err(|error| failed(error.error))?;
        Ok(list)
    }
}

/// A client for registries.
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        .timeout(DOWNLOAD_WITHIN)
        .redirect(reqwest::redirect::Policy::limited(3))
        .build()
}

/// An answer of a registry that is a list.
pub(super) async fn text(request: RequestBuilder, package: &str) -> Result<Vec<u8>, RegistryError> {
    let mut response = answered(request, package).await?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable(package))? {
        if text.len() + chunk.len() > MAX_LIST_BYTES {
            return Err(too_long(package, MAX_LIST_BYTES as u64));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// Writes an archive down; its hash.
pub(super) async fn save(
    request: RequestBuilder,
    package: &str,
    algorithm: &'static Algorithm,
    file: &Path,
) -> Result<aws_lc_rs::digest::Digest, RegistryError> {
    let failed = |source| RegistryError::Write {
        path: file.to_owned(),
        source,
    };
    let mut response = answered(request, package).await?;
    let mut target = fs::File::create(file).map_err(failed)?;
    let (mut sum, mut length) = (Context::new(algorithm), 0);
    while let Some(chunk) = response.chunk().await.map_err(unreachable(package))? {
        length += chunk.len() as u64;
        if length > MAX_ARCHIVE_BYTES {
            return Err(too_long(package, MAX_ARCHIVE_BYTES));
        }
        sum.update(&chunk);
        target.write_all(&chunk).map_err(failed)?;
    }
    Ok(sum.finish())
}

async fn answered(request: RequestBuilder, package: &str) -> Result<Response, RegistryError> {
    let sent = request.send().await.and_then(Response::error_for_status);
    sent.map_err(unreachable(package))
}

fn unreachable(package: &str) -> impl Fn(reqwest::Error) -> RegistryError {
    move |source| RegistryError::Unreachable {
        package: package.to_owned(),
        source,
    }
}

fn too_long(package: &str, most: u64) -> RegistryError {
    RegistryError::Answer {
        package: package.to_owned(),
        reason: format!("it has more than {most} bytes"),
    }
}
