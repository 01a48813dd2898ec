//! Keys and tokens of a fleet: made once, then kept. Every file is readable by its owner alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use helix_routing::seal::KeyRole;
use helix_service::disk::write_secret;
use helix_service::keys::{PublicKey, SigningKey};
use helix_service::random;
use nkeys::KeyPair;

use super::home::Home;

/// The key that records are signed with: its file, and the half that edges pin.
pub(super) fn record_key(home: &Home) -> anyhow::Result<(PathBuf, PublicKey)> {
    let path = home.key("record.pem");
    let key = SigningKey::open(KeyRole::Record, &path)?.public();
    Ok((path, key))
}

/// The key that attests where releases come from, in the same way.
pub(super) fn provenance_key(home: &Home) -> anyhow::Result<(PathBuf, PublicKey)> {
    let path = home.key("provenance.pem");
    let key = SigningKey::open(KeyRole::Provenance, &path)?.public();
    Ok((path, key))
}

/// The operator's key, for overrides with origin dead: the half that edges and origin pin. On a real fleet its private half lies
/// on no machine of the fleet.
pub(super) fn operator_key(home: &Home) -> anyhow::Result<PublicKey> {
    let path = home.key("operator.pem");
    Ok(SigningKey::open(KeyRole::Operator, &path)?.public())
}

/// A NATS user: the file of its seed, and its public nkey.
pub(super) fn nats_user(home: &Home, name: &str) -> anyhow::Result<(PathBuf, String)> {
    let path = home.key(&format!("{name}.nk"));
    let seed = kept(&path, || Ok(KeyPair::new_user().seed()?))?;
    let pair =
        KeyPair::from_seed(&seed).with_context(|| format!("{} is no nkey seed", path.display()))?;
    Ok((path, pair.public_key()))
}

/// A token of the API: its file, and itself.
pub(super) fn token(home: &Home, name: &str) -> anyhow::Result<(PathBuf, String)> {
    let path = home.key(&format!("{name}.token"));
    let token = kept(&path, || Ok(format!("helix_{}", random::secret())))?;
    Ok((path, token))
}

/// The secret in `path`; a new one where there is none.
pub(super) fn kept(
    path: &Path,
    make: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = make()?;
            write_secret(path, secret.as_bytes())?;
            Ok(secret)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_are_made_once_and_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let user = nats_user(&home, "fra-1").unwrap();
        let key = record_key(&home).unwrap();
        let token_file = token(&home, "operate").unwrap();
        assert_eq!(nats_user(&home, "fra-1").unwrap(), user);
        assert_eq!(record_key(&home).unwrap(), key);
        assert_eq!(token(&home, "operate").unwrap(), token_file);
        for path in [user.0, key.0, token_file.0] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }
}
