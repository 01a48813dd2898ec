//! The repository of a project: what was linked, and the secrets that belong to it.
//!
//! Invariant: credential and webhook secrets are in SQL sealed, each for its project and its purpose, and no view has them. A webhook
//! secret is shown when it is made, and the one before counts for a day more, so that a provider can be changed in between.

use std::time::Duration;

use helix_routing::api::{
    BuildSettings, Forks, LinkView, LinkedView, MAX_PREVIEW_DAYS, NewLink, PREVIEW_DAYS, Provider,
};
use helix_routing::id::ProjectName;
use helix_service::clock;

use super::repository::{InvalidRepository, Repository, check_branch};
use super::seal::{SealError, SealKey};
use super::signature::SECRET_PREFIX;
use super::{Source, settings};
use crate::auth::Caller;
use crate::store::{Connection, StoreError, Tx, millis, time};

/// How long the webhook secret before counts after a new one was made.
const BEFORE_COUNTS: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest credential, in bytes: a token that is a signed text may have a few thousand.
const MAX_CREDENTIAL: usize = 8 * 1024;

/// A link cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The project has none.
    #[error("project {0} is not linked to a repository: `helix link` does that")]
    NotLinked(ProjectName),
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] InvalidRepository),
    /// How it is to be built cannot be.
    #[error(transparent)]
    Settings(#[from] settings::InvalidSettings),
    /// The credential cannot be.
    #[error(
        "a credential is a token, or user:password, of printable ASCII and at most {MAX_CREDENTIAL} bytes"
    )]
    Credential,
    /// No preview gets so old.
    #[error("previews are taken down after at most {MAX_PREVIEW_DAYS} days; 0 is never")]
    PreviewDays,
    /// A secret cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for LinkError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// The repository of a project.
#[derive(Clone, Debug)]
pub struct Link {
    /// The project.
    pub project: ProjectName,
    /// What git is given.
    pub url: String,
    /// Its path at the provider.
    pub repository: String,
    /// Whose server it is.
    pub provider: Provider,
    /// The provider's API.
    pub api: Option<String>,
    /// What is merged there goes to production.
    pub branch: String,
    /// How it is built.
    pub settings: BuildSettings,
    /// Whether it is not public.
    pub private: bool,
    /// Whether folders may be deployed to production, too.
    pub allow_uploads: bool,
    /// What becomes of pull requests from elsewhere.
    pub forks: Forks,
    /// Days after its newest deployment that a preview is taken down; 0 is never.
    pub preview_days: u32,
    row: Row,
}

#[derive(Clone, sqlx::FromRow)]
struct Row {
    project: String,
    url: String,
    repository: String,
    provider: String,
    api: Option<String>,
    branch: String,
    settings: String,
    private: i64,
    allow_uploads: i64,
    forks: String,
    preview_days: i64,
    credential: Option<String>,
    secret: String,
    secret_before: Option<String>,
    before_until: Option<i64>,
    by_whom: String,
    created: i64,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Row({})", self.project)
    }
}

impl Link {
    /// What git and the provider's API are shown.
    ///
    /// # Errors
    /// When it does not open.
    pub fn credential(&self, key: &SealKey) -> Result<Option<String>, SealError> {
        let sealed = self.row.credential.as_ref();
        sealed
            .map(|sealed| key.unseal(&purpose(&self.project, "credential"), sealed))
            .transpose()
    }

    /// Every secret that webhooks may be signed with now.
    ///
    /// # Errors
    /// When one does not open.
    pub fn webhook_secrets(&self, key: &SealKey) -> Result<Vec<String>, SealError> {
        let purpose = purpose(&self.project, "webhook");
        let mut secrets = vec![key.unseal(&purpose, &self.row.secret)?];
        let counts = self
            .row
            .before_until
            .is_some_and(|until| until > millis(clock::now()));
        if let Some(before) = self.row.secret_before.as_ref().filter(|_| counts) {
            secrets.push(key.unseal(&purpose, before)?);
        }
        Ok(secrets)
    }

    /// As it is shown; webhooks are sent to an origin at `public_url`.
    #[must_use]
    pub fn view(&self, public_url: &str) -> LinkView {
        let hooks = self.provider != Provider::Git;
        LinkView {
            project: self.project.clone(),
            url: self.url.clone(),
            repository: self.repository.clone(),
            provider: self.provider,
            api: self.api.clone(),
            branch: self.branch.clone(),
            settings: self.settings.clone(),
            private: self.private,
            allow_uploads: self.allow_uploads,
            forks: self.forks,
            preview_days: self.preview_days,
            has_credential: self.row.credential.is_some(),
            webhook_url: hooks.then(|| {
                let provider = self.provider.name();
                format!("{public_url}/v1/webhooks/in/{provider}/{}", self.project)
            }),
            secret_before_until: self.row.before_until.map(time),
            by: self.row.by_whom.clone(),
            created: time(self.row.created),
        }
    }
}

/// The link of a project, if it has one.
///
/// # Errors
/// When the database fails.
pub async fn find(
    connection: &mut Connection,
    project: &ProjectName,
) -> Result<Option<Link>, StoreError> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM links WHERE project = $1")
        .bind(project.as_str())
        .fetch_optional(connection)
        .await?;
    row.map(read).transpose()
}

/// The link of a project.
///
/// # Errors
/// When it has none, or the database fails.
pub async fn of(connection: &mut Connection, project: &ProjectName) -> Result<Link, LinkError> {
    let link = find(connection, project).await?;
    link.ok_or_else(|| LinkError::NotLinked(project.clone()))
}

/// Every link to a server that is asked, instead of telling.
///
/// # Errors
/// When the database fails.
pub async fn asked(connection: &mut Connection) -> Result<Vec<Link>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT links.* FROM links JOIN projects ON projects.project = links.project \
         WHERE links.provider = 'git' AND projects.purge_at IS NULL ORDER BY links.project",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(read).collect()
}

/// Links a project to a repository, or changes its link. The webhook secret is made with the first.
///
/// # Errors
/// When repository, settings or credential cannot be used, or the database fails.
pub async fn put(
    tx: &mut Tx,
    source: &Source,
    caller: &Caller,
    project: &ProjectName,
    new: NewLink,
) -> Result<LinkedView, LinkError> {
    let repository = Repository::read(&new.url, new.provider, new.api.as_deref(), source.schemes)?;
    let branch = new.branch.unwrap_or_else(|| "main".to_owned());
    check_branch(&branch)?;
    settings::check(&new.settings)?;
    let preview_days = new.preview_days.unwrap_or(PREVIEW_DAYS);
    if preview_days > MAX_PREVIEW_DAYS {
        return Err(LinkError::PreviewDays);
    }
    let before = find(tx, project).await?;
    let is_elsewhere = before
        .as_ref()
        .is_some_and(|before| before.url != repository.url || before.api != repository.api);
    let credential = match &new.credential {
        Some(credential) => Some(sealed(source, project, "credential", credential)?),
        // What was given for one server is not shown to another.
        None if is_elsewhere => None,
        None => before
            .as_ref()
            .and_then(|before| before.row.credential.clone()),
    };
    let (secret, shown) = match &before {
        Some(before) => (before.row.secret.clone(), None),
        None => {
            let (secret, shown) = new_secret(source, project)?;
            (secret, Some(shown))
        }
    };
    let kept = before.as_ref().map(|before| &before.row);
    let row = Row {
        project: project.to_string(),
        url: repository.url,
        repository: repository.path,
        provider: repository.provider.name().to_owned(),
        api: repository.api,
        branch,
        settings: serde_json::to_string(&new.settings).expect("API shapes always encode"),
        private: i64::from(new.private),
        allow_uploads: i64::from(new.allow_uploads),
        forks: new.forks.name().to_owned(),
        preview_days: i64::from(preview_days),
        credential,
        secret,
        secret_before: kept.and_then(|kept| kept.secret_before.clone()),
        before_until: kept.and_then(|kept| kept.before_until),
        by_whom: caller.name.clone(),
        created: kept.map_or_else(|| millis(clock::now()), |kept| kept.created),
    };
    write(tx, &row).await?;
    if is_elsewhere {
        // Commits of one repository say nothing of another's.
        for statement in [
            "UPDATE heads SET commit_id = NULL WHERE project = $1",
            "DELETE FROM head_commits WHERE site IN (SELECT site FROM heads WHERE project = $1)",
        ] {
            sqlx::query(statement)
                .bind(project.as_str())
                .execute(&mut **tx)
                .await?;
        }
    }
    Ok(LinkedView {
        link: read(row)?.view(&source.public_url),
        webhook_secret: shown.filter(|_| repository.provider != Provider::Git),
    })
}

/// Makes a new webhook secret. The one before counts for a day more.
///
/// # Errors
/// When the project is not linked, or the database fails.
pub async fn rotate(
    tx: &mut Tx,
    source: &Source,
    project: &ProjectName,
) -> Result<LinkedView, LinkError> {
    let mut row = of(tx, project).await?.row;
    let (secret, shown) = new_secret(source, project)?;
    row.secret_before = Some(std::mem::replace(&mut row.secret, secret));
    row.before_until = Some(millis(clock::now() + BEFORE_COUNTS));
    write(tx, &row).await?;
    Ok(LinkedView {
        link: read(row)?.view(&source.public_url),
        webhook_secret: Some(shown),
    })
}

/// Ends a link. What was deployed stays; what is built is stopped.
///
/// # Errors
/// When the project is not linked, or the database fails.
pub async fn remove(tx: &mut Tx, project: &ProjectName) -> Result<(), LinkError> {
    of(tx, project).await?;
    sqlx::query("DELETE FROM links WHERE project = $1")
        .bind(project.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn write(tx: &mut Tx, row: &Row) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM links WHERE project = $1")
        .bind(&row.project)
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "INSERT INTO links (project, url, repository, provider, api, branch, settings, private, allow_uploads, forks, credential, secret, \
         secret_before, before_until, by_whom, created, preview_days) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    )
    .bind(&row.project)
    .bind(&row.url)
    .bind(&row.repository)
    .bind(&row.provider)
    .bind(&row.api)
    .bind(&row.branch)
    .bind(&row.settings)
    .bind(row.private)
    .bind(row.allow_uploads)
    .bind(&row.forks)
    .bind(&row.credential)
    .bind(&row.secret)
    .bind(&row.secret_before)
    .bind(row.before_until)
    .bind(&row.by_whom)
    .bind(row.created)
    .bind(row.preview_days)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn read(row: Row) -> Result<Link, StoreError> {
    let corrupt = |what| StoreError::Corrupt { what };
    Ok(Link {
        project: crate::store::id(&row.project)?,
        url: row.url.clone(),
        repository: row.repository.clone(),
        provider: Provider::of(&row.provider).ok_or_else(|| corrupt("links.provider"))?,
        api: row.api.clone(),
        branch: row.branch.clone(),
        settings: serde_json::from_str(&row.settings).map_err(|_| corrupt("links.settings"))?,
        private: row.private != 0,
        allow_uploads: row.allow_uploads != 0,
        forks: Forks::of(&row.forks).ok_or_else(|| corrupt("links.forks"))?,
        preview_days: u32::try_from(row.preview_days).map_err(|_| corrupt("links.preview_days"))?,
        row,
    })
}

fn purpose(project: &ProjectName, what: &str) -> String {
    format!("{project}|link|{what}")
}

fn sealed(
    source: &Source,
    project: &ProjectName,
    what: &str,
    value: &str,
) -> Result<String, LinkError> {
    let is_plain = (1..=MAX_CREDENTIAL).contains(&value.len())
        && value.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
    if !is_plain {
        return Err(LinkError::Credential);
    }
    Ok(source.key.seal(&purpose(project, what), value)?)
}

/// A new webhook secret: sealed, and as it is shown. Its bytes are base64, as GitLab wants them; the others take any text.
fn new_secret(source: &Source, project: &ProjectName) -> Result<(String, String), LinkError> {
    use base64::Engine;
    let bytes: [u8; 32] = rand::random();
    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
    let shown = format!("{SECRET_PREFIX}{encoded}");
    Ok((sealed(source, project, "webhook", &shown)?, shown))
}
