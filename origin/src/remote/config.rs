//! `[registry]` of origin's config: the registry that releases are pushed to.

use std::path::PathBuf;
use std::time::Duration;

use helix_routing::id::ProjectName;
use helix_routing::routes::Span;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Longest prefix: with a project's name it stays far below the 255 characters that registries take.
const MAX_PREFIX: usize = 150;
/// A deployment waits no longer: clients end a call after two minutes.
const MAX_WAIT: Duration = Duration::from_secs(100);
/// No registry is waited for longer than this before it says anything.
const MAX_ANSWER: Duration = Duration::from_secs(10 * 60);

/// The table.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// Where it is, and what every repository's name begins with: `https://host[:port][/prefix]`.
    pub url: String,
    /// The file with `user:password`, or with a token alone. Without it nothing is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// Also without TLS where it is not on this machine.
    #[serde(default)]
    pub plain_http: bool,
    /// No release goes out before the registry has it.
    #[serde(default)]
    pub required: bool,
    /// How long a deployment waits for that.
    #[serde(default = "wait")]
    pub wait: Span,
    /// How long an answer may take. What carries many bytes has more time, by their number.
    #[serde(default = "answer_within")]
    pub answer_within: Span,
    /// Wait after the first failure; each later one is three times as long.
    #[serde(default = "first_retry")]
    pub first_retry: Span,
    /// The longest wait.
    #[serde(default = "longest_retry")]
    pub longest_retry: Span,
}

const fn wait() -> Span {
    Span::from_secs(60)
}

const fn answer_within() -> Span {
    Span::from_secs(30)
}

const fn first_retry() -> Span {
    Span::from_secs(2)
}

const fn longest_retry() -> Span {
    Span::from_secs(10 * 60)
}

/// The table says what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum IllegalRemote {
    /// Not where a registry can be.
    #[error("registry.url: {0}")]
    Url(&'static str),
    /// A part of the prefix cannot be part of a repository's name.
    #[error(
        "registry.url: {0:?} cannot be in the name of a repository: small letters and digits, with one of `.`, `_`, `__` or dashes between them"
    )]
    Prefix(String),
    /// A time is out of range.
    #[error("registry.{key}: {value} is not between 1ms and {}", Span::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))]
    Time {
        /// Which.
        key: &'static str,
        /// What it says.
        value: Span,
        /// What it can be at most.
        limit: Duration,
    },
}

/// Where the registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Without a path.
    pub base: Url,
    prefix: String,
}

impl Address {
    /// The repository of a project.
    #[must_use]
    pub fn repository(&self, project: &ProjectName) -> String {
        if self.prefix.is_empty() {
            return project.to_string();
        }
        format!("{}/{project}", self.prefix)
    }

    /// As people and records name it.
    #[must_use]
    pub fn name(&self) -> String {
        let base = self.base.as_str().trim_end_matches('/');
        if self.prefix.is_empty() {
            return base.to_owned();
        }
        format!("{base}/{}", self.prefix)
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.base)
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl RemoteConfig {
    /// Checks what the shape alone does not say, and says where the registry is.
    ///
    /// # Errors
    /// At the first thing that cannot be.
    pub fn check(&self) -> Result<Address, IllegalRemote> {
        let address = self.address()?;
        let times = [
            ("wait", self.wait, MAX_WAIT),
            ("answer_within", self.answer_within, MAX_ANSWER),
            (
                "longest_retry",
                self.longest_retry,
                Duration::from_secs(24 * 60 * 60),
            ),
            (
                "first_retry",
                self.first_retry,
                self.longest_retry.duration(),
            ),
        ];
        for (key, value, limit) in times {
            if value.duration().is_zero() || value.duration() > limit {
                return Err(IllegalRemote::Time { key, value, limit });
            }
        }
        Ok(address)
    }

    fn address(&self) -> Result<Address, IllegalRemote> {
        let refused = |why| Err(IllegalRemote::Url(why));
        let Ok(mut url) = Url::parse(&self.url) else {
            return refused("write it as https://host[:port][/prefix]");
        };
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return refused("write it as https://host[:port][/prefix]");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("user and password belong in the file that `credentials` names");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refused("it has neither a query nor a fragment");
        }
        if url.scheme() == "http" && !self.plain_http && !is_loopback(&url) {
            return refused(
                "without TLS it can only be on this machine, unless `plain_http = true` permits it",
            );
        }
        let prefix = url.path().trim_matches('/').to_owned();
        if prefix == "v2" || prefix.starts_with("v2/") {
            return refused(
                "leave out /v2: what follows the host begins the names of repositories",
            );
        }
        if prefix.len() > MAX_PREFIX {
            return refused("the prefix is longer than 150 characters");
        }
        if let Some(part) = prefix
            .split('/')
            .find(|part| !prefix.is_empty() && !is_component(part))
        {
            return Err(IllegalRemote::Prefix(part.to_owned()));
        }
        url.set_path("/");
        Ok(Address { base: url, prefix })
    }
}

/// A component of a repository's name (OCI distribution-spec): `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(part: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut between = String::new();
    for c in part.chars() {
        if !is_word(c) {
            between.push(c);
            continue;
        }
        let is_legal = matches!(between.as_str(), "" | "." | "_" | "__");
        if !is_legal && !between.chars().all(|c| c == '-') {
            return false;
        }
        between.clear();
    }
    part.starts_with(is_word) && between.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> RemoteConfig {
        toml(&format!("url = {url:?}"))
    }

    fn toml(text: &str) -> RemoteConfig {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.toml");
        std::fs::write(&path, text).unwrap();
        helix_service::config::load(&path, "HELIX_NO_SUCH_PREFIX").unwrap()
    }

    #[test]
    fn a_projects_repository_is_its_name_below_the_prefix() {
        let shop: ProjectName = "shop".parse().unwrap();
        for (url, repository, name) in [
            ("https://r.example", "shop", "https://r.example"),
            ("https://r.example/", "shop", "https://r.example"),
            (
                "https://r.example:5000/a/b.c/",
                "a/b.c/shop",
                "https://r.example:5000/a/b.c",
            ),
            (
                "http://127.0.0.1:5000/x",
                "x/shop",
                "http://127.0.0.1:5000/x",
            ),
            ("http://[::1]:5000", "shop", "http://[::1]:5000"),
        ] {
            let address = config(url).check().unwrap();
            assert_eq!(address.repository(&shop), repository, "{url}");
            assert_eq!(address.name(), name);
            assert_eq!(address.base.path(), "/");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (url, said) in [
            ("r.example/x", "https://host"),
            ("ftp://r.example/x", "https://host"),
            ("https://me:pw@r.example/x", "credentials"),
            ("https://r.example/x?y", "query"),
            ("http://r.example/x", "plain_http"),
            ("https://r.example/v2/x", "leave out /v2"),
            ("https://r.example/Team", "\"Team\""),
            ("https://r.example/a//b", "\"\""),
            ("https://r.example/a/-b", "\"-b\""),
            ("https://r.example/a..b", "\"a..b\""),
        ] {
            let refused = config(url).check().unwrap_err().to_string();
            assert!(refused.contains(said), "{url}: {refused}");
            assert!(!refused.contains("pw@"), "{refused}");
        }
        let plain = "url = \"http://r.example/x\"\nplain_http = true";
        assert!(toml(plain).check().is_ok());
        for line in [
            "wait = \"3m\"",
            "answer_within = \"0s\"",
            "first_retry = \"20m\"",
        ] {
            let text = format!("url = \"https://r.example\"\n{line}");
            let refused = toml(&text).check().unwrap_err();
            assert!(matches!(refused, IllegalRemote::Time { .. }), "{line}");
        }
    }
}
