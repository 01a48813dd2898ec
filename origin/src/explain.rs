//! Why a URL is answered as it is: the host is resolved as the records say, then every edge is asked.
//!
//! What an edge answers is what it says, not what origin thinks it should; only the file within
//! the release is looked up here, by the rule edges use. Reads only.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::join_all;
use helix_routing::api::{EdgeAnswer, EdgeStatus, Explanation};
use helix_routing::artifact::FileIndex;
use helix_routing::host::{BaseHost, Host, HostPattern, under_base};
use helix_routing::id::{Digest, Generation, InvalidId, ProjectName, ReleaseId, SiteId};
use helix_routing::routes::{Client, Decision, Files, Routes, Rules, Target, decode};

use crate::app::App;
use crate::feed::records::{self, RecordError};
use crate::store::{Connection, StoreError, id};

/// How long an edge is waited for.
const EDGE_TIMEOUT: Duration = Duration::from_secs(2);

/// A URL cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// It is none.
    #[error("{url:?} is not an http or https URL with a host")]
    Url {
        /// What was given.
        url: String,
    },
    /// Its host is not legal.
    #[error(transparent)]
    Host(#[from] InvalidId),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Explains `text`, a URL.
///
/// # Errors
/// When it is no URL, or the database fails. An edge that does not answer is part of the explanation.
pub async fn explain(app: &App, text: &str) -> Result<Explanation, ExplainError> {
    let refused = || ExplainError::Url {
        url: text.chars().take(200).collect(),
    };
    let url = url::Url::parse(text).map_err(|_| refused())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused());
    }
    let host = Host::from_authority(url.host_str().ok_or_else(refused)?)?;
    let mut connection = app
        .store
        .reader()
        .acquire()
        .await
        .map_err(StoreError::from)?;
    let (host_rule, site) = resolve(&mut connection, app, &host).await?;
    drop(connection);
    let edges = app.roster.edges();
    let answers = join_all(
        edges
            .into_iter()
            .map(|edge| ask(app, edge, &host, &url, site.as_ref())),
    )
    .await;
    Ok(Explanation {
        url: text.to_owned(),
        host,
        host_rule,
        site,
        answers,
    })
}

/// The site of a host and why: its own record, then a release's own name, then a wildcard one label up.
async fn resolve(
    connection: &mut Connection,
    app: &App,
    host: &Host,
) -> Result<(String, Option<SiteId>), ExplainError> {
    let base = app.addresses.base();
    if let Some(site) = routed(connection, &HostPattern::Exact(host.clone())).await? {
        let rule = match under_base(host, base) {
            None => "domain".to_owned(),
            Some(BaseHost::Preview(_)) => format!("alias of {}", site.environment),
            Some(BaseHost::Production(_) | BaseHost::PreviewLabel { .. }) => {
                format!("own host of {site}")
            }
        };
        return Ok((rule, Some(site)));
    }
    if let Some(BaseHost::PreviewLabel { label, project }) = under_base(host, base)
        && let (Ok(release), Ok(project)) =
            (label.parse::<ReleaseId>(), project.parse::<ProjectName>())
    {
        let site = site_of(connection, &project, &release).await?;
        let rule = match &site {
            Some(site) => format!("own host of release {release} of {site}"),
            None => format!("project {project} has no release {release}"),
        };
        return Ok((rule, site));
    }
    if let Some((_, suffix)) = host.split_label().filter(|_| !host.is_within(base))
        && let Ok(suffix) = suffix.parse::<Host>()
    {
        let wildcard = HostPattern::Wildcard(suffix);
        if let Some(site) = routed(connection, &wildcard).await? {
            return Ok((format!("wildcard {wildcard}"), Some(site)));
        }
    }
    Ok(("nobody's host".to_owned(), None))
}

async fn routed(
    connection: &mut Connection,
    pattern: &HostPattern,
) -> Result<Option<SiteId>, RecordError> {
    Ok(records::host(connection, pattern)
        .await?
        .and_then(|record| record.site))
}

async fn site_of(
    connection: &mut Connection,
    project: &ProjectName,
    release: &ReleaseId,
) -> Result<Option<SiteId>, StoreError> {
    let site: Option<String> = sqlx::query_scalar(
        "SELECT releases.site FROM releases JOIN sites ON sites.site = releases.site
         WHERE sites.project = $1 AND releases.release_id = $2 AND releases.collected IS NULL",
    )
    .bind(project.as_str())
    .bind(release.as_str())
    .fetch_optional(connection)
    .await?;
    site.map(|site| id(&site)).transpose()
}

/// Asks one edge as a visitor would, and looks up the file in the release it names.
async fn ask(
    app: &App,
    edge: EdgeStatus,
    host: &Host,
    url: &url::Url,
    site: Option<&SiteId>,
) -> EdgeAnswer {
    let mut answer = EdgeAnswer {
        region: edge.region,
        edge: edge.edge,
        status: None,
        release: None,
        generation: None,
        file: None,
        reason: String::new(),
    };
    let query = url
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let target = format!("{}{}{query}", edge.url.trim_end_matches('/'), url.path());
    let request = app
        .asking
        .head(target)
        .header("host", host.as_str())
        .timeout(EDGE_TIMEOUT);
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            let what = if error.is_timeout() {
                "did not answer in time"
            } else {
                "cannot be reached"
            };
            answer.reason = format!("the edge {what}");
            return answer;
        }
    };
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    answer.status = Some(response.status().as_u16());
    answer.release = header("x-helix-release").and_then(|release| release.parse().ok());
    answer.generation = header("x-helix-generation")
        .and_then(|text| text.parse().ok())
        .map(Generation);
    let side = header("x-helix-side").map(side_reason);
    (answer.file, answer.reason) = why(app, site, answer.release.as_ref(), url).await;
    if let Some(side) = side {
        answer.reason = format!("{}; {side}", answer.reason);
    }
    answer
}

/// Visitors do not all get the same here: which side a visitor without cookies was on this time.
fn side_reason(side: &str) -> &'static str {
    match side {
        "candidate" => "a share of the visitors gets the candidate, and this time it was drawn",
        "pinned" => "pinned by what the request shows",
        _ => "some visitors get another release; this one was not among them",
    }
}

async fn why(
    app: &App,
    site: Option<&SiteId>,
    release: Option<&ReleaseId>,
    url: &url::Url,
) -> (Option<String>, String) {
    let Some(site) = site else {
        return (None, "the host is nobody's".to_owned());
    };
    let Some(release) = release else {
        return (None, format!("nothing of {site} is live here"));
    };
    let artifact = match artifact(app, site, release).await {
        Ok(Some(artifact)) => artifact,
        Ok(None) => {
            return (
                None,
                format!("origin does not keep release {release} any more"),
            );
        }
        Err(error) => {
            return (
                None,
                format!("release {release} cannot be looked up: {error}"),
            );
        }
    };
    match app.artifacts.contents(&artifact).await {
        Ok((routes, index)) => look_up(&routes, &index, url),
        Err(error) => (None, format!("release {release} cannot be read: {error}")),
    }
}

async fn artifact(
    app: &App,
    site: &SiteId,
    release: &ReleaseId,
) -> Result<Option<Digest>, StoreError> {
    let artifact: Option<String> = sqlx::query_scalar(
        "SELECT artifact FROM releases WHERE site = $1 AND release_id = $2 AND collected IS NULL",
    )
    .bind(site.to_string())
    .bind(release.as_str())
    .fetch_optional(app.store.reader())
    .await?;
    artifact.map(|artifact| id(&artifact)).transpose()
}

/// The files of an index, for the rules.
struct Indexed<'a>(&'a FileIndex);

impl<'a> Files for Indexed<'a> {
    type File = &'a str;

    fn file(&self, path: &str) -> Option<&'a str> {
        self.0
            .files
            .get_key_value(path)
            .map(|(path, _)| path.as_str())
    }
}

/// Someone who asks for a page of this host and says no more.
struct Anyone<'a>(&'a url::Url);

impl Client for Anyone<'_> {
    fn host(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0.host_str().unwrap_or_default())
    }

    fn is_secure(&self) -> bool {
        self.0.scheme() == "https"
    }

    fn accept_language(&self) -> Option<&str> {
        None
    }

    fn has_cookie(&self, _name: &str) -> bool {
        false
    }

    fn accepts_html(&self) -> bool {
        true
    }

    fn method(&self) -> &str {
        "GET"
    }

    fn header(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn cookie(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// The file for a URL, and why: by the very rules that edges use.
fn look_up(routes: &Routes, index: &FileIndex, url: &url::Url) -> (Option<String>, String) {
    let path = match decode(url.path()) {
        Ok(Some(path)) => path,
        Ok(None) => return (None, "no file can have this path".to_owned()),
        Err(bad) => return (None, bad.to_string()),
    };
    let target = Target {
        raw: url.path(),
        path: &path,
        query: url.query(),
    };
    let decided = Rules::new(routes).decide(routes, &Indexed(index), target, &Anyone(url));
    let reason = match decided.line {
        Some(line) => format!("{}:{line}: {}", decided.file, decided.reason),
        None => decided.reason.to_owned(),
    };
    match decided.decision {
        Decision::File { file, .. } => (Some(file.to_owned()), reason),
        Decision::Redirect { location, .. } => (None, format!("{reason}, to {location}")),
        Decision::Forward(rule) => {
            let upstream = routes
                .forward(rule)
                .map_or("", |(rule, _)| rule.upstream.as_str());
            (None, format!("{reason}: {upstream}"))
        }
        Decision::Nothing { .. } => (None, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_routing::artifact::{Encoding, FileEntry};
    use helix_routing::routes::SiteConfig;
    use helix_service::digest::sha256;

    fn index(paths: &[&str]) -> FileIndex {
        let digest = sha256(b"");
        let entry = FileEntry {
            digest: digest.clone(),
            size: 0,
            media_type: "text/plain".to_owned(),
            pack: digest,
            offset: 0,
            length: 0,
            encoding: Encoding::Identity,
            modified: None,
            variants: Vec::new(),
        };
        FileIndex {
            version: 1,
            files: paths
                .iter()
                .map(|path| ((*path).to_owned(), entry.clone()))
                .collect(),
        }
    }

    #[test]
    fn files_and_rules_are_looked_up_as_edges_do() {
        let with = index(&["index.html", "about/index.html", "a b.txt", "404.html"]);
        let rules = "/old /about/ 301\n/app/* /index.html 200\n";
        let routes = Routes::compile(SiteConfig::default(), Some(rules), None).unwrap();
        for (path, file, reason) in [
            ("/", Some("index.html"), ""),
            ("/index.html", None, "to /"),
            ("/about/", Some("about/index.html"), ""),
            ("/about", None, "to /about/"),
            ("/a%20b.txt", Some("a b.txt"), ""),
            ("/none", Some("404.html"), ""),
            ("/old", None, "_redirects:1: "),
            ("/app/x", Some("index.html"), "_redirects:2: "),
            ("/%zz", None, "escape"),
        ] {
            let url = format!("http://shop.example{path}").parse().unwrap();
            let (found, why) = look_up(&routes, &with, &url);
            assert_eq!(found.as_deref(), file, "{path}: {why}");
            assert!(why.contains(reason), "{path}: {why}");
        }
    }
}
