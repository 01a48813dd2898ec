//! What origin shows a registry: nothing, user and password, or a token, of a file or given out on a challenge.
//!
//! Invariant: credentials go to the registry itself and to the realm that it names, over TLS unless both are one host; they and
//! tokens are in no log and no error. They are read anew whenever the registry refuses what was shown, so that the file can be
//! changed while origin runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use url::Url;

use super::challenge::{Challenge, challenges};
use super::link::{limited, said};
use super::{Attempted, RemoteError};

/// Longest credentials: tokens of registries have a few kilobytes.
const MAX_CREDENTIALS: usize = 16 * 1024;
/// Largest answer of a realm.
const MAX_ANSWER: usize = 64 * 1024;
/// A token whose realm says nothing of it holds for so long (Docker's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// No token is used for longer, whatever its realm says.
const LONGEST_LIFE: Duration = Duration::from_secs(60 * 60);
/// Tokens are not used in the last part of their time: a request takes some, and clocks differ.
const MARGIN: Duration = Duration::from_secs(10);
/// Tokens that are kept, one for each repository. Beyond that all are asked for anew.
const MAX_TOKENS: usize = 1024;

/// The file of credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("read the registry's credentials {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It holds none.
    #[error("registry's credentials {}: {why}", path.display())]
    Illegal {
        /// The file.
        path: PathBuf,
        /// Why not, without what is in it.
        why: &'static str,
    },
}

/// What is in the file.
pub(super) enum Credentials {
    None,
    Password { user: String, password: String },
    Token(String),
}

impl Credentials {
    /// Reads the file, if there is to be one.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, CredentialsError> {
        let Some(path) = path else {
            return Ok(Self::None);
        };
        let text = std::fs::read_to_string(path).map_err(|source| CredentialsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let refused = |why| CredentialsError::Illegal {
            path: path.to_owned(),
            why,
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(refused("it is empty"));
        }
        if text.len() > MAX_CREDENTIALS {
            return Err(refused("it is longer than 16 KiB"));
        }
        if text.chars().any(char::is_control) {
            return Err(refused("write `user:password` or a token, in one line"));
        }
        match text.split_once(':') {
            Some(("", _)) => Err(refused("there is no user before the colon")),
            Some((user, password)) => Ok(Self::Password {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            None => Ok(Self::Token(text.to_owned())),
        }
    }

    fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, password } = self else {
            return None;
        };
        secret(&format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        ))
    }
}

/// A header that is never shown.
fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A realm's answer (Docker's token specification). Both names mean the same.
#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// What was let in last, by repository.
pub(super) struct Access {
    credentials: Option<PathBuf>,
    /// The registry.
    base: Url,
    shown: Mutex<HashMap<String, (HeaderValue, Instant)>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Access({})", self.base)
    }
}

impl Access {
    /// Credentials that are there and can be used.
    pub(super) fn open(credentials: Option<PathBuf>, base: Url) -> Result<Self, CredentialsError> {
        Credentials::read(credentials.as_deref())?;
        Ok(Self {
            credentials,
            base,
            shown: Mutex::default(),
        })
    }

    /// What a request about a repository shows, as far as is known.
    pub(super) fn shown(&self, repository: &str) -> Option<HeaderValue> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (header, until) = shown.get(repository)?;
        (*until > Instant::now()).then(|| header.clone())
    }

    /// Answers a refusal: what to show instead.
    pub(super) async fn answer(
        &self,
        http: &reqwest::Client,
        attempted: &Attempted,
        repository: &str,
        refusal: &HeaderMap,
    ) -> Result<HeaderValue, RemoteError> {
        let refused = |why: String| RemoteError::Access {
            attempted: attempted.clone(),
            why,
        };
        let wanted: Vec<Challenge> = refusal
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(challenges)
            .collect();
        let credentials = Credentials::read(self.credentials.as_deref())?;
        if let Credentials::Token(token) = &credentials {
            let header = secret(&format!("Bearer {token}"));
            let header = header.ok_or_else(|| refused("the token cannot be sent".to_owned()))?;
            return Ok(self.keep(repository, header, LONGEST_LIFE));
        }
        for challenge in &wanted {
            match challenge {
                Challenge::Basic => {
                    if let Some(header) = credentials.basic() {
                        return Ok(self.keep(repository, header, LONGEST_LIFE));
                    }
                }
                Challenge::Bearer { .. } => {
                    let (header, life) = self
                        .token(http, attempted, repository, challenge, &credentials)
                        .await?;
                    return Ok(self.keep(repository, header, life));
                }
            }
        }
        Err(refused(if wanted.is_empty() {
            "the registry wants to be shown something that is neither Basic nor Bearer".to_owned()
        } else {
            "the registry wants user and password, and `credentials` of `[registry]` names none"
                .to_owned()
        }))
    }

    fn keep(&self, repository: &str, header: HeaderValue, life: Duration) -> HeaderValue {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() >= MAX_TOKENS {
            shown.clear();
        }
        let life = life.min(LONGEST_LIFE).saturating_sub(MARGIN);
        shown.insert(
            repository.to_owned(),
            (header.clone(), Instant::now() + life),
        );
        header
    }

    /// Asks the realm of a challenge for a token.
    async fn token(
        &self,
        http: &reqwest::Client,
        attempted: &Attempted,
        repository: &str,
        challenge: &Challenge,
        credentials: &Credentials,
    ) -> Result<(HeaderValue, Duration), RemoteError> {
        let refused = |why: String| RemoteError::Access {
            attempted: attempted.clone(),
            why,
        };
        let url = self.realm(repository, challenge).ok_or_else(|| {
            refused("the registry names a realm that is no URL with TLS".to_owned())
        })?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut request = http.get(url);
        if let Some(basic) = credentials.basic() {
            request = request.header(reqwest::header::AUTHORIZATION, basic);
        }
        let response = request
            .send()
            .await
            .map_err(|source| RemoteError::Unreachable {
                attempted: Attempted(format!("ask {host} for a token to {attempted}").into()),
                source: source.without_url(),
            })?;
        let status = response.status();
        if !status.is_success() {
            let said = said(response).await;
            return Err(refused(format!("{host} gives no token: {status} {said}")));
        }
        let answer = limited(response, MAX_ANSWER, attempted).await?;
        let odd = || refused(format!("{host} answered with something that is no token"));
        let granted: Granted = serde_json::from_slice(&answer).map_err(|_| odd())?;
        let token = granted.token.or(granted.access_token).ok_or_else(odd)?;
        let header = secret(&format!("Bearer {token}")).ok_or_else(odd)?;
        let life = granted.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        // Shorter ones than the specification allows do occur; less than the margin would be none.
        Ok((header, life.max(2 * MARGIN)))
    }

    /// The address of a token for a repository. Without TLS it can only be where the registry itself is, without TLS too.
    fn realm(&self, repository: &str, challenge: &Challenge) -> Option<Url> {
        let Challenge::Bearer {
            realm,
            service,
            scopes,
        } = challenge
        else {
            return None;
        };
        let mut url = Url::parse(realm).ok()?;
        let is_there = url.host() == self.base.host() && self.base.scheme() == "http";
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_there);
        if !is_safe || !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let ours = format!("repository:{repository}:pull,push");
        let mut pairs = url.query_pairs_mut();
        if let Some(service) = service {
            pairs.append_pair("service", service);
        }
        pairs.append_pair("scope", &ours);
        for scope in scopes.iter().filter(|scope| **scope != ours) {
            pairs.append_pair("scope", scope);
        }
        drop(pairs);
        Some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(base: &str) -> Access {
        Access::open(None, Url::parse(base).unwrap()).unwrap()
    }

    fn challenge(realm: &str) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: Some("r".to_owned()),
            scopes: vec!["repository:a/shop:pull".to_owned()],
        }
    }

    #[test]
    fn a_realm_gets_credentials_only_over_tls_or_where_the_registry_is() {
        let (plain, safe) = (
            access("http://127.0.0.1:5000/"),
            access("https://r.example/"),
        );
        for (of, realm, is_asked) in [
            (&safe, "https://auth.example/token", true),
            (&safe, "http://auth.example/token", false),
            (&safe, "http://r.example/token", false),
            (&plain, "http://127.0.0.1:5001/token", true),
            (&plain, "http://auth.example/token", false),
            (&plain, "https://auth.example/token", true),
            (&safe, "https://me:pw@auth.example/token", false),
            (&safe, "file:///etc/passwd", false),
            (&safe, "nonsense", false),
        ] {
            let found = of.realm("a/shop", &challenge(realm));
            assert_eq!(found.is_some(), is_asked, "{realm}");
        }
        let url = safe
            .realm("a/shop", &challenge("https://auth.example/token?x=1"))
            .unwrap();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            pairs,
            [
                pair("x", "1"),
                pair("service", "r"),
                pair("scope", "repository:a/shop:pull,push"),
                pair("scope", "repository:a/shop:pull"),
            ]
        );
    }

    #[test]
    fn credentials_are_a_user_with_a_password_or_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Credentials::read(Some(&path))
        };
        assert!(matches!(
            read("ci:pass:word\n"),
            Ok(Credentials::Password { user, password }) if user == "ci" && password == "pass:word"
        ));
        assert!(matches!(read("ey.token"), Ok(Credentials::Token(token)) if token == "ey.token"));
        // Nothing that a folder's own name could have in it by chance.
        let secret = "hunter22-hunter22";
        let lines = format!("a:{secret}\nc:{secret}\n");
        for text in [
            "",
            "\n",
            &format!(":{secret}"),
            &lines,
            &format!("{secret}\u{0}b"),
        ] {
            let refused = read(text).err().unwrap();
            assert!(!refused.to_string().contains(secret), "{refused}");
        }
        assert!(Credentials::read(Some(&folder.path().join("none"))).is_err());
    }
}
