//! The certificate that the edges of `helix dev` speak TLS with, signed by itself: nobody vouches for a name that is this
//! machine, so clients are told to trust the file, or not to ask.
//!
//! It covers every project's own host, and the hosts of its previews and releases. A wildcard stands for one label, so
//! those are written into it when a project comes into being; edges look for a changed file and take it up.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use helix_routing::api::ProjectView;
use helix_routing::id::ProjectName;
use helix_service::disk::write_secret;
use serde::Serialize;

use super::fleet::BASE_DOMAIN;
use super::home::Home;
use super::secrets::kept;
use helix_client::Origin;

/// Between two looks for projects. Edges look for another certificate every ten seconds, so more would not help.
const LOOK: Duration = Duration::from_secs(2);
/// Projects whose previews are covered at most: a handshake carries the whole certificate.
const MAX_PROJECTS: usize = 200;

/// Files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct CertificateFiles {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl CertificateFiles {
    fn of(home: &Home) -> Self {
        Self {
            cert: home.key("tls.pem"),
            key: home.key("tls.key"),
        }
    }
}

/// The files, made where there are none.
pub(super) fn open(home: &Home) -> anyhow::Result<CertificateFiles> {
    let files = CertificateFiles::of(home);
    if !(files.cert.exists() && files.key.exists()) {
        issue(home, &covered(home))?;
    }
    Ok(files)
}

/// Issues another one whenever there are other projects, for as long as it is polled.
pub(super) async fn follow(home: &Home, origin: &Origin) -> anyhow::Result<()> {
    let mut covers = covered(home);
    loop {
        // Origin may be away for a moment: `helix dev` starts it again.
        if let Ok(projects) = origin.read::<Vec<ProjectView>>(&["projects"]).await {
            let projects = projects.into_iter().map(|view| view.project);
            let wanted: BTreeSet<_> = projects.take(MAX_PROJECTS).collect();
            if wanted != covers {
                issue(home, &wanted)?;
                covers = wanted;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The projects that the certificate on disk was made for.
fn covered(home: &Home) -> BTreeSet<ProjectName> {
    let list = fs::read_to_string(home.key("tls.projects")).unwrap_or_default();
    list.lines().filter_map(|name| name.parse().ok()).collect()
}

/// Writes a certificate for `projects`. Its key stays, so that at no moment one does not fit the other.
fn issue(home: &Home, projects: &BTreeSet<ProjectName>) -> anyhow::Result<()> {
    let files = CertificateFiles::of(home);
    let new = || Ok(rcgen::KeyPair::generate()?.serialize_pem());
    let key = rcgen::KeyPair::from_pem(&kept(&files.key, new)?).context("read the key of TLS")?;
    let params = rcgen::CertificateParams::new(names(projects)).context("name the hosts of TLS")?;
    let made = params
        .self_signed(&key)
        .context("make a certificate for TLS")?;
    write_secret(&files.cert, made.pem().as_bytes())?;
    let list: String = projects.iter().map(|name| format!("{name}\n")).collect();
    Ok(write_secret(&home.key("tls.projects"), list.as_bytes())?)
}

fn names(projects: &BTreeSet<ProjectName>) -> Vec<String> {
    let previews = projects.iter().flat_map(|project| {
        let preview = format!("preview.{project}.{BASE_DOMAIN}");
        [format!("*.{preview}"), preview]
    });
    let own = [BASE_DOMAIN.to_owned(), format!("*.{BASE_DOMAIN}")];
    own.into_iter().chain(previews).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn another_certificate_keeps_the_key_and_covers_the_previews_of_new_projects() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let files = open(&home).unwrap();
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
        let (key, cert) = (read(&files.key), read(&files.cert));
        assert_eq!(open(&home).unwrap(), files);
        assert_eq!(read(&files.cert), cert);
        let projects = BTreeSet::from(["shop".parse().unwrap()]);
        issue(&home, &projects).unwrap();
        assert_eq!(read(&files.key), key);
        assert_ne!(read(&files.cert), cert);
        let mode = fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(covered(&home), projects);
        assert_eq!(
            names(&projects),
            [
                "helix.localhost",
                "*.helix.localhost",
                "*.preview.shop.helix.localhost",
                "preview.shop.helix.localhost"
            ]
        );
    }
}
