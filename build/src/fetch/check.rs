//! What git may be asked for.
//!
//! *Pure*. Whatever could be read as an option, a program to run, a file of this machine or a credential is refused here, before git
//! sees it.

use helix_routing::api::Source;
use serde::{Deserialize, Serialize};
use url::Url;

/// Longest address.
const MAX_URL_BYTES: usize = 2_048;
/// Longest reference.
const MAX_REFERENCE_BYTES: usize = 255;

/// How sources may be reached besides HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchConfig {
    /// Whether plain HTTP will do.
    pub http: bool,
    /// Whether SSH will do, with the keys that this machine has.
    pub ssh: bool,
    /// Whether repositories of this machine will do.
    pub file: bool,
}

/// A source that is not fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read as an address.
    #[error("the repository's address is not one: write it as https://host/path")]
    Address,
    /// It has a user or a password in it.
    #[error("the repository's address has a user or password in it; give access beside it")]
    Credentials,
    /// A way that is not allowed here.
    #[error("repositories are not fetched by {scheme}: here")]
    Scheme {
        /// Which.
        scheme: String,
    },
    /// A reference that git would take for something else.
    #[error("{reference:?} is no reference that is fetched")]
    Reference {
        /// As it was given.
        reference: String,
    },
    /// A header in several lines.
    #[error("the access to the repository has characters that no header has")]
    Authorization,
}

/// The scheme of a source that may be fetched.
pub(super) fn check(source: &Source, config: FetchConfig) -> Result<&'static str, SourceError> {
    let scheme = address(&source.url, config)?;
    if let Some(reference) = &source.reference
        && !is_reference(reference)
    {
        return Err(SourceError::Reference {
            reference: reference.clone(),
        });
    }
    let visible = |byte: u8| (0x20..0x7f).contains(&byte);
    if !source
        .authorization
        .iter()
        .all(|value| value.bytes().all(visible))
    {
        return Err(SourceError::Authorization);
    }
    Ok(scheme)
}

fn address(text: &str, config: FetchConfig) -> Result<&'static str, SourceError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain
        || text.starts_with('-')
        || text.len() > MAX_URL_BYTES
        || text.contains("::") && !text.contains("://[")
    {
        return Err(SourceError::Address);
    }
    let url = Url::parse(text).map_err(|_| SourceError::Address)?;
    let known = [
        ("https", true),
        ("http", config.http),
        ("ssh", config.ssh),
        ("file", config.file),
    ];
    let scheme = known
        .into_iter()
        .find(|(scheme, allowed)| *scheme == url.scheme() && *allowed)
        .map(|(scheme, _)| scheme)
        .ok_or_else(|| SourceError::Scheme {
            scheme: url.scheme().chars().take(20).collect(),
        })?;
    // Over SSH the user is part of the address.
    if url.password().is_some() || !url.username().is_empty() && scheme != "ssh" {
        return Err(SourceError::Credentials);
    }
    let host = url.host_str().unwrap_or_default();
    if host.starts_with('-')
        || url.username().starts_with('-')
        || scheme != "file" && host.is_empty()
    {
        return Err(SourceError::Address);
    }
    Ok(scheme)
}

/// As `git check-ref-format` has it, and narrower.
fn is_reference(text: &str) -> bool {
    let plain = |c: char| {
        c.is_alphanumeric()
            || matches!(
                c,
                '.' | '_' | '/' | '-' | '+' | '#' | '=' | '@' | ',' | '%' | '!'
            )
    };
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.ends_with(".lock")
            && !part.ends_with('.')
    };
    text.len() <= MAX_REFERENCE_BYTES
        && text.chars().all(plain)
        && !text.contains("..")
        && text != "@"
        && text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str, reference: Option<&str>) -> Source {
        Source {
            url: url.to_owned(),
            reference: reference.map(str::to_owned),
            commit: "0123456789012345678901234567890123456789".parse().unwrap(),
            authorization: None,
        }
    }

    #[test]
    fn only_addresses_of_an_allowed_kind_are_fetched() {
        let all = FetchConfig {
            http: true,
            ssh: true,
            file: true,
        };
        for (url, scheme) in [
            ("https://example.com/a/b.git", "https"),
            ("http://127.0.0.1:8080/a.git", "http"),
            ("ssh://git@example.com/a.git", "ssh"),
            ("file:///srv/a.git", "file"),
            ("https://[::1]/a", "https"),
        ] {
            assert_eq!(check(&source(url, None), all), Ok(scheme), "{url}");
        }
        for url in ["http://a/b", "ssh://git@a/b", "file:///etc"] {
            let refused = check(&source(url, None), FetchConfig::default());
            assert!(matches!(refused, Err(SourceError::Scheme { .. })), "{url}");
        }
        for url in [
            "ext::sh -c id",
            "ext::id",
            "--upload-pack=id",
            "git@github.com:a/b.git",
            "https://user:secret@a/b",
            "https://token@a/b",
            "https://-oProxyCommand=id/b",
            "ssh://-oProxyCommand=id@a/b",
            "/etc",
            "https://a/b\n",
            "git://a/b",
            "",
        ] {
            assert!(check(&source(url, None), all).is_err(), "{url}");
        }
    }

    #[test]
    fn references_that_git_could_misread_are_refused() {
        for reference in [
            "refs/pull/42/head",
            "refs/heads/feature/x_1",
            "main",
            "refs/heads/größe",
            "dependabot/npm/a-1.2",
        ] {
            assert!(is_reference(reference), "{reference}");
        }
        for reference in [
            "--upload-pack=id",
            "-x",
            "refs/heads/--upload-pack=id",
            "a..b",
            "a b",
            "a:b",
            "+a:b",
            "a/",
            "/a",
            "a.lock",
            "@",
            "a~1",
            "a^",
            "",
            "a\\b",
            "a?*[",
        ] {
            if reference != "+a:b" {
                assert!(!is_reference(reference), "{reference}");
            }
        }
        assert!(!is_reference("+a:b"));
    }
}
