//! Where a repository is, as people write it and as git is given it. Pure.
//!
//! Invariant: what is given to git begins with a scheme of the list below, so that it is never an option, a command or a remote
//! helper.

use helix_routing::api::Provider;
use url::Url;

/// Longest address, in bytes.
const MAX_URL: usize = 2000;
/// Longest name of a branch, in bytes.
const MAX_BRANCH: usize = 200;

/// An address or a branch cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRepository {
    /// No address that git may be given.
    #[error("write the repository as https://host/owner/name, with at most {MAX_URL} characters")]
    Address,
    /// It has a password in it.
    #[error("leave the user and the password out of the address: send them as the credential")]
    Credential,
    /// Its scheme has to be permitted.
    #[error("{0}:// has to be permitted in `[source]` of origin's config")]
    Scheme(String),
    /// A branch that git would not have.
    #[error("{0:?} is no name of a branch")]
    Branch(String),
    /// Nobody has a key for it.
    #[error(
        "there is no key to fetch by ssh with: link {0}, and give a token with --credential-file if it is not public; where workers have keys of their own, `ssh = true` in `[source]` of origin's config permits it"
    )]
    NoKey(String),
    /// Nobody can be asked for its newest commit.
    #[error("a plain git server is asked over https; ssh needs a provider that sends webhooks")]
    Ssh,
    /// Its path names nothing.
    #[error("the address of a repository at {0} ends in owner/name")]
    Path(&'static str),
}

/// A repository as it is linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// What git is given.
    pub url: String,
    /// Its path at the provider, without `.git`.
    pub path: String,
    /// Whose server it is.
    pub provider: Provider,
    /// The provider's API, where there is one.
    pub api: Option<String>,
}

/// What may be linked besides `https`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Schemes {
    /// `ssh`, with keys that workers have.
    pub ssh: bool,
    /// `http`.
    pub plain_http: bool,
    /// `file`.
    pub local: bool,
}

impl Repository {
    /// Reads an address. What is not said is found from its host.
    ///
    /// # Errors
    /// When it is none that git may be given.
    pub fn read(
        text: &str,
        provider: Option<Provider>,
        api: Option<&str>,
        schemes: Schemes,
    ) -> Result<Self, InvalidRepository> {
        let is_plain = !text.is_empty()
            && text.len() <= MAX_URL
            && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if !is_plain {
            return Err(InvalidRepository::Address);
        }
        let url = match short_form(text) {
            Some(written) => Url::parse(&written),
            None => Url::parse(text),
        };
        let url = url.map_err(|_| InvalidRepository::Address)?;
        check(&url, schemes)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let provider = provider.unwrap_or_else(|| guess(&host));
        let path = url.path().trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).to_owned();
        check_path(provider, &path)?;
        if provider == Provider::Git && url.scheme() == "ssh" {
            return Err(InvalidRepository::Ssh);
        }
        let api = match api {
            Some(api) => Some(read_api(api, schemes)?),
            None => default_api(provider, &host),
        };
        let api = api.filter(|_| provider != Provider::Git);
        Ok(Self {
            url: url.to_string(),
            path,
            provider,
            api,
        })
    }
}

/// A name of a branch, after `git check-ref-format`.
///
/// # Errors
/// When git would refuse it, or take it for something else.
pub fn check_branch(name: &str) -> Result<(), InvalidRepository> {
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let legal = !name.is_empty()
        && name.len() <= MAX_BRANCH
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && name != "@"
        && !name.chars().any(is_odd)
        && !name.split('/').any(bad_part);
    if legal {
        Ok(())
    } else {
        let shown = name.chars().take(80).collect();
        Err(InvalidRepository::Branch(shown))
    }
}

/// `git@host:owner/name` means `ssh://git@host/owner/name`.
fn short_form(text: &str) -> Option<String> {
    let (user_and_host, path) = text.split_once(':')?;
    let (user, host) = user_and_host.split_once('@')?;
    let is_plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    };
    let is_short = is_plain(user) && is_plain(host) && !path.starts_with('/');
    is_short.then(|| format!("ssh://{user}@{host}/{path}"))
}

fn check(url: &Url, schemes: Schemes) -> Result<(), InvalidRepository> {
    let refused = |scheme: &str| Err(InvalidRepository::Scheme(scheme.to_owned()));
    match url.scheme() {
        "https" | "ssh" => {}
        "http" if schemes.plain_http => {}
        "file" if schemes.local => {}
        scheme @ ("http" | "file") => return refused(scheme),
        _ => return Err(InvalidRepository::Address),
    }
    let is_ssh = url.scheme() == "ssh";
    if url.password().is_some() || (!is_ssh && !url.username().is_empty()) {
        return Err(InvalidRepository::Credential);
    }
    let has_host =
        url.scheme() == "file" || url.host_str().is_some_and(|host| !host.starts_with('-'));
    let is_option = url.username().starts_with('-');
    if !has_host || is_option || url.query().is_some() || url.fragment().is_some() {
        return Err(InvalidRepository::Address);
    }
    if is_ssh && !schemes.ssh {
        return Err(InvalidRepository::NoKey(over_https(url)));
    }
    Ok(())
}

/// Where providers have the same repository.
fn over_https(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("https://{host}{}", url.path())
}

fn guess(host: &str) -> Provider {
    match host {
        "github.com" => Provider::Github,
        "gitlab.com" => Provider::Gitlab,
        "bitbucket.org" => Provider::Bitbucket,
        _ => Provider::Git,
    }
}

fn check_path(provider: Provider, path: &str) -> Result<(), InvalidRepository> {
    let parts = path.split('/').filter(|part| !part.is_empty()).count();
    match provider {
        Provider::Github | Provider::Bitbucket if parts != 2 => {
            Err(InvalidRepository::Path(provider.name()))
        }
        // Groups may be in groups.
        Provider::Gitlab if parts < 2 => Err(InvalidRepository::Path(provider.name())),
        Provider::Git if parts == 0 => Err(InvalidRepository::Path(provider.name())),
        Provider::Github | Provider::Gitlab | Provider::Bitbucket | Provider::Git => Ok(()),
    }
}

fn read_api(text: &str, schemes: Schemes) -> Result<String, InvalidRepository> {
    let url = Url::parse(text).map_err(|_| InvalidRepository::Address)?;
    check(&url, schemes)?;
    match url.scheme() {
        "http" | "https" => Ok(url.to_string().trim_end_matches('/').to_owned()),
        _ => Err(InvalidRepository::Address),
    }
}

fn default_api(provider: Provider, host: &str) -> Option<String> {
    match (provider, host) {
        (Provider::Github, "github.com") => Some("https://api.github.com".to_owned()),
        (Provider::Github, host) => Some(format!("https://{host}/api/v3")),
        (Provider::Gitlab, host) => Some(format!("https://{host}/api/v4")),
        (Provider::Bitbucket, _) => Some("https://api.bitbucket.org/2.0".to_owned()),
        (Provider::Git, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Repository, InvalidRepository> {
        read_with(text, Schemes::default())
    }

    fn read_with(text: &str, schemes: Schemes) -> Result<Repository, InvalidRepository> {
        Repository::read(text, None, None, schemes)
    }

    #[test]
    fn a_repository_is_known_by_its_host_and_path() {
        for (text, url, path, provider) in [
            (
                "https://github.com/acme/shop",
                "https://github.com/acme/shop",
                "acme/shop",
                Provider::Github,
            ),
            (
                "https://github.com/acme/shop.git",
                "https://github.com/acme/shop.git",
                "acme/shop",
                Provider::Github,
            ),
            (
                "https://gitlab.com/a/b/c",
                "https://gitlab.com/a/b/c",
                "a/b/c",
                Provider::Gitlab,
            ),
            (
                "https://bitbucket.org/acme/shop",
                "https://bitbucket.org/acme/shop",
                "acme/shop",
                Provider::Bitbucket,
            ),
            (
                "https://git.example:8443/shop.git",
                "https://git.example:8443/shop.git",
                "shop",
                Provider::Git,
            ),
        ] {
            let found = read(text).unwrap();
            assert_eq!(
                (&*found.url, &*found.path, found.provider),
                (url, path, provider)
            );
        }
        let own = Repository::read(
            "https://git.example/a/b",
            Some(Provider::Gitlab),
            None,
            Schemes::default(),
        );
        assert_eq!(
            own.unwrap().api.as_deref(),
            Some("https://git.example/api/v4")
        );
    }

    #[test]
    fn what_git_could_take_for_something_else_is_refused() {
        for text in [
            "",
            "-u",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c id",
            "ext::sh%20-c%20id",
            "fd::7",
            "/srv/git",
            "shop",
            "https://github.com",
            "https://github.com/acme",
            "https://github.com/a/b/c",
            "https://me:pw@github.com/a/b",
            "https://token@github.com/a/b",
            "http://github.com/a/b",
            "file:///srv/git",
            "ssh://-oProxyCommand=x/a/b",
            "-x@github.com:a/b",
            "git@-x:a/b",
            "https://github.com/a/b?x",
            "https://github.com/a/b#x",
            "https://github.com/a/b\n",
            "ftp://x/y",
            "git://github.com/a/b",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let all = Schemes {
            ssh: true,
            plain_http: true,
            local: true,
        };
        for text in [
            "ssh://git@git.example/shop",
            "ssh://git:pw@github.com/a/b",
            "ssh://-oProxyCommand=x/a/b",
            "ssh://-x@github.com/a/b",
            "git@-x:a/b",
        ] {
            assert!(read_with(text, all).is_err(), "{text}");
        }
        for text in ["http://127.0.0.1:1/shop.git", "file:///srv/git/shop"] {
            assert!(Repository::read(text, None, None, all).is_ok(), "{text}");
        }
    }

    #[test]
    fn ssh_is_for_workers_with_keys_and_the_error_says_what_to_link_instead() {
        for text in [
            "git@github.com:acme/shop.git",
            "ssh://git@github.com/acme/shop.git",
            "ssh://git@github.com:22/acme/shop.git",
        ] {
            let refused = read(text).unwrap_err();
            let instead = "https://github.com/acme/shop.git".to_owned();
            assert_eq!(refused, InvalidRepository::NoKey(instead));
            let said = refused.to_string();
            assert!(
                said.contains("link https://github.com/acme/shop.git")
                    && said.contains("--credential-file"),
                "{said}"
            );
        }
        let with_keys = Schemes {
            ssh: true,
            ..Schemes::default()
        };
        let found = read_with("git@github.com:acme/shop.git", with_keys).unwrap();
        assert_eq!(
            (&*found.url, &*found.path, found.provider),
            (
                "ssh://git@github.com/acme/shop.git",
                "acme/shop",
                Provider::Github
            )
        );
    }

    #[test]
    fn branches_are_those_that_git_has() {
        for name in ["main", "feature/a-b", "v1.2", "\u{fc}ber"] {
            assert!(check_branch(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "@",
            "a@{1}",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.",
            "a\\b",
            "a\0",
        ] {
            assert!(check_branch(name).is_err(), "{name:?}");
        }
    }
}
