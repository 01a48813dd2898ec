//! Where origin is, and the token to show it.
//!
//! Looked for in this order: flags, environment, the nearest `.helix/dev.json`, the login file. A token that
//! a file keeps for one address is never sent to another.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use helix_client::Access;
use helix_service::disk::{WriteError, write_secret};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::arguments::Connection;

const TOKEN_VARIABLE: &str = "HELIX_TOKEN";
/// What `helix dev` writes when it is ready, below the folder it runs in.
const DEV_FILE: &str = ".helix/dev.json";
/// What `helix login` writes, below the user's config folder.
const LOGIN_FILE: &str = "helix/login.json";

/// Address or token is missing or not readable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error(
        "no origin to talk to: give --api URL or HELIX_API, run this below a folder where `helix dev` runs, or `helix login`"
    )]
    NoAddress,
    #[error("no token for {api}: give --token-file FILE or HELIX_TOKEN, or `helix login` to it")]
    NoToken { api: Url },
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not what helix wrote there", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the token in {from} is empty or has characters that no token has")]
    BadToken { from: String },
    #[error("no config folder: set HOME or XDG_CONFIG_HOME")]
    NoConfigFolder,
    #[error("make folder {}", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// An address and its token as a file keeps them.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    api: Url,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Url>,
    token: String,
}

/// Finds address and token.
pub(crate) fn find(connection: &Connection) -> Result<Access, AccessError> {
    let files: Vec<PathBuf> = dev_file().into_iter().chain(login_file().ok()).collect();
    let given = given_token(connection)?;
    pick(&connection.api, given, &files)
}

/// Saves what `helix login` was given.
pub(crate) fn save(access: &Access) -> Result<PathBuf, AccessError> {
    let path = login_file()?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| AccessError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    }
    let saved = Saved {
        api: access.api.clone(),
        others: access.others.clone(),
        token: access.token.clone(),
    };
    let text = serde_json::to_vec_pretty(&saved).expect("an address and a token are JSON");
    write_secret(&path, &text)?;
    Ok(path)
}

fn pick(apis: &[Url], token: Option<String>, files: &[PathBuf]) -> Result<Access, AccessError> {
    if let (Some((api, others)), Some(token)) = (apis.split_first(), &token) {
        return Ok(Access {
            api: api.clone(),
            others: others.to_vec(),
            token: token.clone(),
            found: "--api or HELIX_API".to_owned(),
        });
    }
    for path in files {
        let Some(saved) = read(path)? else { continue };
        let is_known = |api: &Url| *api == saved.api || saved.others.contains(api);
        if apis.iter().all(is_known) {
            let token = match &token {
                Some(token) => token.clone(),
                None => checked(&saved.token, &path.display().to_string())?,
            };
            let mut apis = apis.to_vec();
            let (api, others) = if apis.is_empty() {
                (saved.api, saved.others)
            } else {
                (apis.remove(0), apis)
            };
            return Ok(Access {
                api,
                others,
                token,
                found: path.display().to_string(),
            });
        }
    }
    Err(match apis.first() {
        Some(api) => AccessError::NoToken { api: api.clone() },
        None => AccessError::NoAddress,
    })
}

/// The token that was given outright.
pub(crate) fn given_token(connection: &Connection) -> Result<Option<String>, AccessError> {
    if let Some(path) = &connection.token_file {
        let text = fs::read_to_string(path).map_err(|source| AccessError::Read {
            path: path.clone(),
            source,
        })?;
        return checked(&text, &path.display().to_string()).map(Some);
    }
    std::env::var(TOKEN_VARIABLE)
        .ok()
        .map(|text| checked(&text, TOKEN_VARIABLE))
        .transpose()
}

/// A token can stand in a header: visible ASCII only.
pub(crate) fn checked(text: &str, from: &str) -> Result<String, AccessError> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AccessError::BadToken {
            from: from.to_owned(),
        });
    }
    Ok(token.to_owned())
}

fn read(path: &Path) -> Result<Option<Saved>, AccessError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(AccessError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| AccessError::Malformed {
            path: path.to_owned(),
            source,
        })
}

fn dev_file() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|folder| folder.join(DEV_FILE))
        .find(|path| path.is_file())
}

fn login_file() -> Result<PathBuf, AccessError> {
    let folder = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    folder("XDG_CONFIG_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".config")))
        .map(|config| config.join(LOGIN_FILE))
        .ok_or(AccessError::NoConfigFolder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(folder: &Path, name: &str, api: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(
            &path,
            format!("{{\"api\":\"{api}\",\"token\":\"{name}\",\"console\":null}}"),
        )
        .unwrap();
        path
    }

    #[test]
    fn flags_come_before_the_dev_file_and_that_before_the_login() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            saved(folder.path(), "dev", "http://127.0.0.1:1"),
            saved(folder.path(), "login", "https://b.example"),
        ];
        let url = |text: &str| [text.parse::<Url>().unwrap()];

        assert_eq!(pick(&[], None, &files).unwrap().token, "dev");
        assert_eq!(pick(&[], Some("t".to_owned()), &files).unwrap().token, "t");
        assert_eq!(
            pick(&url("https://b.example"), None, &files).unwrap().token,
            "login"
        );
        assert_eq!(
            pick(&url("https://c.example"), Some("t".to_owned()), &files)
                .unwrap()
                .api,
            url("https://c.example")[0]
        );
    }

    #[test]
    fn a_token_of_one_address_is_not_sent_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let files = [saved(folder.path(), "dev", "http://127.0.0.1:1")];
        let elsewhere = pick(&["https://c.example".parse().unwrap()], None, &files);
        assert!(
            matches!(elsewhere, Err(AccessError::NoToken { .. })),
            "{elsewhere:?}"
        );
        assert!(matches!(pick(&[], None, &[]), Err(AccessError::NoAddress)));
    }

    #[test]
    fn a_login_to_several_origins_holds_for_each_of_them_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login");
        fs::write(
            &path,
            r#"{"api":"http://a.example","others":["http://b.example"],"token":"t"}"#,
        )
        .unwrap();
        let url = |text: &str| text.parse::<Url>().unwrap();
        let (a, b) = (url("http://a.example"), url("http://b.example"));
        let files = [path];
        let all = pick(&[], None, &files).unwrap();
        assert_eq!((all.api, all.others), (a.clone(), vec![b.clone()]));
        let turned = pick(&[b.clone(), a.clone()], None, &files).unwrap();
        assert_eq!((turned.api, turned.others), (b, vec![a.clone()]));
        let more = pick(&[a, url("http://c.example")], None, &files);
        assert!(matches!(more, Err(AccessError::NoToken { .. })));
    }

    #[test]
    fn a_token_cannot_end_a_header() {
        assert_eq!(checked(" abc\n", "x").unwrap(), "abc");
        for text in ["", "  ", "a b", "a\r\nx: y", "tök"] {
            assert!(checked(text, "x").is_err(), "{text:?} was taken");
        }
    }
}
