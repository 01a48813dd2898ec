//! What every server serves, and the certificate they share a kind of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::ensure;
use tempfile::TempDir;

/// Host that every request names.
pub(crate) const HOST: &str = "bench.helix.localhost";

/// A folder with files that do not compress, and a certificate.
pub(crate) struct Files {
    folder: TempDir,
}

impl Files {
    pub(crate) fn make() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("helix-bench-").tempdir()?;
        let files = Self { folder };
        fs::create_dir_all(files.site().join("proxy"))?;
        for (name, size) in [
            ("1k.bin", 1024),
            ("100k.bin", 100 * 1024),
            ("proxy/1k.bin", 1024),
        ] {
            fs::write(files.site().join(name), noise(size))?;
        }
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-days", "30", "-subj", &format!("/CN={HOST}")])
            .args(["-addext", &format!("subjectAltName=DNS:{HOST}")])
            .args([
                "-keyout",
                &text(&files.key()),
                "-out",
                &text(&files.certificate()),
            ])
            .stderr(Stdio::null())
            .status()?;
        ensure!(made.success(), "openssl makes no certificate: {made}");
        let both = [fs::read(files.certificate())?, fs::read(files.key())?].concat();
        fs::write(files.pair(), both)?;
        Ok(files)
    }

    /// What is served.
    pub(crate) fn site(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    /// ECDSA P-256, self-signed.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Certificate and key in one file.
    pub(crate) fn pair(&self) -> PathBuf {
        self.folder.path().join("pair.pem")
    }

    /// A folder for one server's own files.
    pub(crate) fn folder_of(&self, server: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join(server);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Bytes that no encoding makes smaller, the same in each run.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}
