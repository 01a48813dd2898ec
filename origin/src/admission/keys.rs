//! The keys of the fleet's NATS and of its authority, in one folder: made once, by `helix-origin nats`.
//!
//! ```text
//! operator.nk  signing.nk  system.nk  origin.nk     seeds: whoever has the first can let anybody in
//! origin.creds  system.creds                        what origin connects with
//! build.nk  build.creds                             what workers connect with: it lets them take builds off the queue
//! accounts.conf  accounts-leaf.conf                 what every nats-server includes, and a leaf node besides
//! leaf-<region>.creds  leaf-system.creds            what a region's leaf node connects with, where there is one
//! authority.pem  authority.key                      signs the edges' certificates
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use helix_routing::id::RegionId;
use helix_service::claims::{Issuer, SignError, credentials, leaf_system_may, worker_may};
use helix_service::clock;
use helix_service::disk::{WriteError, write_atomic, write_secret};
use nkeys::KeyPair;

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file cannot be read.
    #[error("read {}; `helix-origin nats` makes it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is no seed of the kind that it is named for", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
    },
    /// The folder cannot be made.
    #[error("make {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A key cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The authority cannot be made or read.
    #[error("read or make the authority of the edges' certificates")]
    Authority(#[from] rcgen::Error),
}

/// What origin issues with.
#[derive(Debug)]
pub struct Keys {
    pub(super) operator: KeyPair,
    pub(super) signing: KeyPair,
    pub(super) origin_account: String,
    folder: PathBuf,
}

impl Keys {
    /// Reads what [`init`] made.
    ///
    /// # Errors
    /// When something is missing or is not what it should be.
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        Ok(Self {
            operator: read(folder, "operator")?,
            signing: read(folder, "signing")?,
            origin_account: read(folder, "origin")?.public_key(),
            folder: folder.to_owned(),
        })
    }

    /// The account that a region's leaf nodes are linked by.
    ///
    /// # Errors
    /// When its key cannot be read or written.
    pub(super) fn leaf_account(&self, region: &RegionId) -> Result<String, KeysError> {
        Ok(kept(
            &self.folder,
            &format!("leaf-{region}"),
            KeyPair::new_account,
        )?
        .public_key())
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Makes what is missing in `folder`, also what the leaf nodes of `leafs` connect with. What is there stays.
///
/// # Errors
/// When a file cannot be read or written.
pub fn init(folder: &Path, leafs: &[RegionId]) -> Result<(), KeysError> {
    fs::create_dir_all(folder).map_err(|source| KeysError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    let operator = kept(folder, "operator", KeyPair::new_operator)?;
    let signing = kept(folder, "signing", KeyPair::new_account)?;
    let system = kept(folder, "system", KeyPair::new_account)?;
    let origin = kept(folder, "origin", KeyPair::new_account)?;
    let build = kept(folder, "build", KeyPair::new_account)?;
    write_accounts(folder, &operator, [&system, &origin, &build])?;
    write_credentials(folder, "origin", &origin, &origin.public_key(), None)?;
    write_credentials(folder, "system", &system, &system.public_key(), None)?;
    write_credentials(
        folder,
        "build",
        &build,
        &build.public_key(),
        Some(&worker_may()),
    )?;
    super::authority::Authority::open(folder)?;
    for region in leafs {
        let name = format!("leaf-{region}");
        let account = kept(folder, &name, KeyPair::new_account)?.public_key();
        write_credentials(folder, &name, &signing, &account, None)?;
    }
    if !leafs.is_empty() {
        let may = leaf_system_may();
        write_credentials(
            folder,
            "leaf-system",
            &system,
            &system.public_key(),
            Some(&may),
        )?;
    }
    Ok(())
}

/// What every server includes: whom it believes, and the three accounts that there are before anybody has joined.
fn write_accounts(
    folder: &Path,
    operator: &KeyPair,
    accounts: [&KeyPair; 3],
) -> Result<(), KeysError> {
    let issuer = Issuer {
        key: operator,
        at: clock::now(),
    };
    let [system, origin, build] = accounts.map(KeyPair::public_key);
    let text = format!(
        "# Made by `helix-origin nats`. Every server of the fleet includes it; none of it is secret.\n\
         operator: {}\nsystem_account: {system}\nresolver_preload: {{\n  {system}: {}\n  {origin}: {}\n  {build}: {}\n}}\n",
        issuer.operator(&system)?,
        issuer.system(&system)?,
        issuer.origin(&origin)?,
        issuer.build(&build, &origin)?,
    );
    write_atomic(&folder.join("accounts.conf"), text.as_bytes())?;
    let names = format!(
        "# Made by `helix-origin nats`, for leaf nodes.\nORIGIN_ACCOUNT = \"{origin}\"\nSYSTEM_ACCOUNT = \"{system}\"\n"
    );
    Ok(write_atomic(
        &folder.join("accounts-leaf.conf"),
        names.as_bytes(),
    )?)
}

fn write_credentials(
    folder: &Path,
    name: &str,
    issuer: &KeyPair,
    account: &str,
    may: Option<&helix_service::claims::May>,
) -> Result<(), KeysError> {
    let path = folder.join(format!("{name}.creds"));
    if path.exists() {
        return Ok(());
    }
    let user = KeyPair::new_user();
    let issuer = Issuer {
        key: issuer,
        at: clock::now(),
    };
    let jwt = issuer.user(&user.public_key(), name, account, may)?;
    let seed = user
        .seed()
        .map_err(|_| KeysError::Seed { path: path.clone() })?;
    Ok(write_secret(&path, credentials(&jwt, &seed).as_bytes())?)
}

fn kept(folder: &Path, name: &str, make: fn() -> KeyPair) -> Result<KeyPair, KeysError> {
    let path = folder.join(format!("{name}.nk"));
    if !path.exists() {
        let seed = make()
            .seed()
            .map_err(|_| KeysError::Seed { path: path.clone() })?;
        write_secret(&path, seed.as_bytes())?;
    }
    read(folder, name)
}

fn read(folder: &Path, name: &str) -> Result<KeyPair, KeysError> {
    let path = folder.join(format!("{name}.nk"));
    let text = fs::read_to_string(&path).map_err(|source| KeysError::Read {
        path: path.clone(),
        source,
    })?;
    KeyPair::from_seed(text.trim()).map_err(|_| KeysError::Seed { path })
}
